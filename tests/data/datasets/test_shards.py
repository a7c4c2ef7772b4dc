"""Tar shards: what they hold, what is refused, and what stays open."""

import gzip
import io
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from helpers.images import opened, write_image
from helpers.shards import encode, encode_mask, write_labeled, write_shard
from helpers.tasks import CLASSIFICATION, MULTI_LABEL, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import check, open_splits, prepare_data
from selfdistill.data.datasets import tar_index
from selfdistill.data.datasets.patterns import expand_braces


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eight training images in two shards and four validation images in one."""
    write_labeled(tmp_path / "set" / "train-000.tar", [0, 1, 0, 1])
    write_labeled(tmp_path / "set" / "train-001.tar", [1, 0, 1, 0], start=4)
    write_labeled(tmp_path / "set" / "val-000.tar", [0, 1, 1, 0], start=8)
    return tmp_path / "set"


def test_a_folder_of_shards_has_splits_and_images_in_order(folder):
    train, val, test, notes = opened(folder)
    assert train.labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0] and train.classes == ("0", "1")
    assert val.labels.tolist() == [0, 1, 1, 0] and test is None and notes == ()
    assert train.name(5) == f"sample 0005 of {folder / 'train-001.tar'}" and train.key(5) == "train-001/0005"
    for i in range(8):
        with Image.open(io.BytesIO(encode(i))) as image:
            assert train.image(i).tobytes() == image.tobytes()
    check(train)


def test_a_pattern_names_shards(folder):
    for pattern in ("train-{000..001}.tar", "train-{000,001}.tar", "train-*.tar"):
        train, val, _, _ = opened(folder / pattern, val=str(folder / "val-000.tar"))
        assert len(train) == 8 and len(val) == 4
    train, val, _, _ = opened(folder / "{train,val}-00*.tar")
    assert len(train) == 8 and len(val) == 4
    assert expand_braces("x.tar") == ["x.tar"] and expand_braces("{9..10}") == ["9", "10"]
    with pytest.raises(
        ValueError, match="the shard .*train-002.tar does not exist .and 1 more shard.; .* names 4 files"
    ):
        opened(folder / "train-{000..003}.tar")


def test_split_folders_hold_shards_and_other_folders_do_not(tmp_path):
    write_labeled(tmp_path / "a" / "train" / "000.tar", [0, 1])
    write_labeled(tmp_path / "a" / "test" / "000.tar", [0, 1], start=2)
    assert [len(part) for part in (opened(tmp_path / "a").train, opened(tmp_path / "a").test)] == [2, 2]
    write_labeled(tmp_path / "b" / "old.tar", [0, 1])
    for label in ("ant", "bee"):
        for number in range(2):
            write_image(tmp_path / "b" / label / f"{number}.png", number)
    assert opened(tmp_path / "b").train.classes == ("ant", "bee")


def test_the_index_is_read_once_and_again_after_a_change(folder, cache_folder, monkeypatch):
    opened(folder)
    stored = sorted(cache_folder.rglob("*.npz"))
    assert len(stored) == 3
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "build_index", lambda *_: pytest.fail("read again"))
        assert opened(folder).train.labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]
    write_labeled(folder / "train-001.tar", [1, 1, 1])
    assert opened(folder).train.labels.tolist() == [0, 1, 0, 1, 1, 1, 1]
    for file in cache_folder.rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:-30])
    assert opened(folder).train.labels.tolist() == [0, 1, 0, 1, 1, 1, 1]


def test_a_cache_folder_that_cannot_be_written_is_no_hindrance(folder, cache_folder):
    cache_folder.write_text("a file")
    assert len(opened(folder).train) == 8


def test_labels_come_from_cls_json_or_txt(tmp_path):
    image, path = encode(0), tmp_path / "x.tar"
    write_shard(path, {"a.jpg": image, "a.json": b'{"label": "cat"}', "b.jpg": image, "b.json": b'{"label": "dog"}'} | {
        f"{k}.{part}": content for k in "cd" for part, content in (("jpg", image), ("json", b'{"label": "cat"}'))
    })  # fmt: skip
    full = opened(path, val=str(path)).train
    assert full.classes == ("cat", "dog") and full.labels.tolist() == [0, 1, 0, 0]
    write_shard(path, {"a.jpg": image, "a.txt": b" cat\n", "b.jpg": image, "b.txt": b"dog"})
    assert opened(path, val=str(path)).train.classes == ("cat", "dog")
    both = {"jpg": image, "txt": b"a caption", "json": b'{"kind": 1, "size": 0}', "cls": b"0"}
    rows = {f"{key}.{part}": content for key in "ab" for part, content in both.items()}
    write_shard(path, rows | {"b.cls": b"1", "b.json": b'{"kind": 0, "size": 1}'})
    assert opened(path, val=str(path)).train.labels.tolist() == [0, 1]
    assert opened(path, val=str(path), label_column="kind").train.labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="sample a of .*x.tar has no field colour in json, only kind, size; name it"):
        opened(path, label_column="colour")


def test_a_file_beside_the_shards_names_the_classes(folder):
    for content in (["ant", "bee"], {"0": "ant", "1": "bee"}):
        (folder / "classes.json").write_text(json.dumps(content))
        assert opened(folder).train.classes == opened(folder / "train-*.tar").train.classes == ("ant", "bee")
    (folder / "classes.json").write_text('["ant"]')
    with pytest.raises(ValueError, match="has labels up to 1, and the file beside them names 1 class, 'ant'"):
        opened(folder)
    (folder / "classes.json").write_text("[1]")
    with pytest.raises(ValueError, match="classes.json is no list of class names"):
        opened(folder)


def test_a_sample_may_have_several_labels(tmp_path):
    image, path = encode(0), tmp_path / "set" / "train-0.tar"
    lists = [["cat", "dog"], [], ["dog"]]
    write_shard(path, [file for k, labels in enumerate(lists) for file in (
        (f"{k}.jpg", image), (f"{k}.json", json.dumps({"tags": labels, "label": 3}).encode()))])  # fmt: skip
    for source, settings in ((path, {}), (path, {"label_column": "tags"})):
        train = open_splits(DataPart(source=str(source), val=str(path), **settings), MULTI_LABEL).train
        assert train.classes == ("cat", "dog") and train.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    write_shard(path, [file for k, text in enumerate([b"0;2", b"", b"1"]) for file in (
        (f"{k}.jpg", image), (f"{k}.txt", text))])  # fmt: skip
    (tmp_path / "set" / "classes.json").write_text('["ant", "bee", "cat"]')
    settings = DataPart(source=str(path), val=str(path), separator=";", stream=2)
    train = open_splits(settings, MULTI_LABEL).train
    assert train.classes == ("ant", "bee", "cat") and train.blocks is not None
    assert train.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(
        ValueError, match="data.label_column=a, b names several columns, and samples of .* have one part"
    ):
        open_splits(DataPart(source=str(path), label_column=["a", "b"]), MULTI_LABEL)


@pytest.mark.parametrize("parts", [("jpg", "seg.png"), ("jpg", "png"), ("png", "mask.png")])
def test_masks_are_a_second_image_of_a_sample(tmp_path, parts):
    mask = [[0, 1, 1, 1, 1, 1, 1, 1]] * 6
    files = [(f"{k}.{parts[0]}", encode(k)) for k in range(4)] + [
        (f"{k}.{parts[1]}", encode_mask(mask)) for k in range(4)
    ]
    write_shard(tmp_path / "set" / "train-0.tar", files)
    (tmp_path / "set" / "classes.json").write_text('["sky", "road"]')
    splits = open_splits(DataPart(source=str(tmp_path / "set")), SEGMENTATION)
    assert splits.train.classes == ("sky", "road") and splits.train[0].target.tolist() == mask
    check(splits.train)
    with pytest.raises(ValueError, match="sample 0 of .*train-0.tar has (no label, called cls, txt|several images)"):
        opened(tmp_path / "set")


def test_samples_with_a_missing_part_are_named_or_left_out(tmp_path):
    files = {
        f"{k}.{part}": encode(k) if part == "png" else b"01"[k % 2 : k % 2 + 1]
        for k in range(6)
        for part in ("png", "cls")
    }
    for name in ("1.png", "2.cls"):
        del files[name]
    source = write_shard(tmp_path / "x.tar", files | {"3.cls": b"", "README.md": b"hello", "._0.png": b"mac"})
    expected = (
        "sample 1 of .*x.tar has no image, only cls .and 2 more such samples.; data.on_error=skip leaves them out"
    )
    with pytest.raises(ValueError, match=expected):
        opened(source)
    settings = DataPart(source=str(source), val=str(write_labeled(tmp_path / "v.tar", [0, 1])), on_error="skip")
    prepared = prepare_data(settings, CLASSIFICATION)
    assert prepared.settings.exclude == ["train/x/1", "train/x/2", "train/x/3"]
    assert prepared.splits.train.labels.tolist() == [0, 0, 1] and len(prepared.train) == 3
    assert any("leaves out 3 images" in note for note in prepared.notes)
    assert any("left out 1 file of the train shards" in note for note in prepared.notes)


@pytest.mark.parametrize("part", ["pyd", "pkl", "cls.pth"])
def test_a_pickled_label_is_refused_and_never_read(tmp_path, part):
    source = write_shard(tmp_path / "x.tar", {"a.png": encode(0), f"a.{part}": b"cos\nsystem\n(S'exit 1'\ntR."})
    with pytest.raises(
        ValueError, match=f"sample a of .*x.tar has its label in {part} at most, and reading that could"
    ):
        opened(source)


def test_what_is_no_whole_tar_archive_is_refused(tmp_path, folder):
    whole = (folder / "train-000.tar").read_bytes()
    source = tmp_path / "x.tar"
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError, match="the shard .*x.tar.gz is compressed, .* unpack it to a .tar file"):
        opened(tmp_path / "x.tar.gz")
    for content, reason in {
        b"": "is empty",
        b"hello" * 300: "is no tar archive",
        whole[: 512 * 5 + 50]: "is cut short: it ends within a file",
        whole[: 512 * 4]: "is cut short: it lacks the mark at the end",
        whole[: 512 * 6] + b"\7" * 512 + whole[512 * 7 :]: "is damaged: what stands at byte 3,072 is no header",
    }.items():
        source.write_bytes(content)
        with pytest.raises(ValueError, match=f"the shard .*x.tar {reason}"):
            opened(source)


def test_a_shard_that_vanishes_or_changes_is_named(folder):
    train = opened(folder).train
    (folder / "train-001.tar").rename(folder / "gone")
    assert train.image(0).size == (8, 6)
    with pytest.raises(ValueError, match="train-001.tar does not exist any more; put it back, and --resume"):
        train.image(4)
    write_labeled(folder / "train-001.tar", [0, 0, 0, 0])
    with pytest.raises(ValueError, match="train-001.tar has changed since the run began"):
        train.image(4)


def test_names_in_archives_lead_nowhere(tmp_path):
    write_shard(tmp_path / "set" / "x.tar", {f"{folder}{k}.{part}": encode(k) if part == "png" else b"%d" % k
                for folder in ("../../", "/etc/") for k in range(2) for part in ("png", "cls")})  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    train = opened(tmp_path / "set" / "x.tar", val=str(tmp_path / "set" / "x.tar")).train
    check(train)
    assert len(train) == 4 and sorted(file for file in tmp_path.rglob("*") if "cache" not in file.parts) == before


def test_memory_and_open_files_stay_flat_over_many_shards(tmp_path):
    for number in range(60):
        write_labeled(tmp_path / "set" / f"train-{number:03d}.tar", [0, 1] * 4, start=8 * number, size=(40, 40))
    train = opened(tmp_path / "set", val=str(tmp_path / "set" / "train-000.tar")).train
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    train.image(0)
    tracemalloc.start()
    for i in range(len(train)):
        train.image(i)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000 < train.size(0) * len(train)
    assert not files or len(os.listdir("/proc/self/fd")) <= files + 1
