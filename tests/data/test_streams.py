"""Data that is read shard by shard: the same images, few copies at a time, and what does not go with that."""

import os
from pathlib import Path

import pytest
import torch

from helpers.images import opened
from helpers.shards import encode, encode_mask, write_labeled, write_shard
from helpers.streams import LOG, REMOTE, ROOT, write_loose, write_row_groups, write_shards
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import BatchSampler, TrainSet, choose_defaults, open_splits, prepare_data, train_loader
from selfdistill.data.transforms.image import train_transform


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ROOT, str(tmp_path))
    monkeypatch.setenv(LOG, str(tmp_path / "log"))


@pytest.fixture
def shards(tmp_path) -> Path:
    return write_shards(tmp_path / "set")


REMOTELY = {"opener": "helpers.streams:open_remote", "stream": 2}


def list_opened(tmp_path) -> list[str]:
    return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []


SETTINGS = DataPart(image_size=8, channels=3, mean=[0.5] * 3, std=[0.2] * 3, augment=["crop", "flip"])


def load_epoch(splits, *, epoch: int = 1, skip: int = 0, rank: int = 0, world: int = 1, workers: int = 0):
    """The batches of an epoch from step `skip` on."""
    settings = choose_defaults(SETTINGS, splits, CLASSIFICATION)
    dataset = TrainSet(splits.train, train_transform(settings), seed=0)
    plan = BatchSampler(len(dataset), 8, seed=0, rank=rank, world=world, blocks=dataset.dataset.blocks)
    return list(train_loader(dataset, plan.epoch(epoch)[skip:], workers=workers))


def are_equal(batches, others) -> bool:
    return len(batches) == len(others) and all(
        torch.equal(a.images, b.images) and torch.equal(a.target, b.target) and torch.equal(a.index, b.index)
        for a, b in zip(batches, others, strict=True)
    )


@pytest.mark.slow
def test_shards_row_groups_and_files_of_an_opener_hold_the_same_images(tmp_path, shards):
    pytest.importorskip("datasets")
    loose = opened(write_loose(tmp_path / "loose"))
    remote = f"{REMOTE}set/{{train-{{000..005}},val-000}}.tar"
    sources = {
        "shards": opened(shards, stream=2),
        "row groups": opened(write_row_groups(tmp_path / "rows"), stream=2),
        "an opener": opened(remote, **REMOTELY),
    }
    for splits in sources.values():
        assert splits.train.labels.equal(loose.train.labels) and splits.val.labels.equal(loose.val.labels)
        assert splits.train.blocks.numbers.tolist() == [k // 8 for k in range(48)]
        assert all(splits.train.image(i).tobytes() == loose.train.image(i).tobytes() for i in (0, 17, 47))
    batches = [load_epoch(splits) for splits in sources.values()]
    assert are_equal(batches[0], batches[1]) and are_equal(batches[0], batches[2])
    assert not are_equal(batches[0], load_epoch(opened(shards)))  # another order: one permutation of all images


@pytest.mark.slow
def test_workers_processes_and_a_stop_change_nothing(shards):
    splits = opened(shards, stream=2)
    whole = load_epoch(splits)
    assert are_equal(load_epoch(splits, workers=2), whole) and are_equal(load_epoch(splits, skip=2), whole[2:])
    dealt = [load_epoch(opened(shards, stream=2), rank=rank, world=2) for rank in range(2)]
    for batch, *shares in zip(whole, *dealt, strict=True):
        order = torch.cat([share.index for share in shares]).argsort()
        assert torch.equal(torch.cat([share.images for share in shares])[order], batch.images[batch.index.argsort()])


def test_an_epoch_that_goes_on_fetches_only_what_is_left(tmp_path, shards):
    def open_again():
        return opened(f"{REMOTE}set/train-{{000..005}}.tar", **REMOTELY, val=f"{REMOTE}set/val-000.tar")

    open_again()
    assert sorted(list_opened(tmp_path)) == [f"{REMOTE}set/{name}" for name in sorted(os.listdir(shards))]
    splits, fetched = open_again(), []
    assert len(list_opened(tmp_path)) == 7  # the indices were kept
    settings = choose_defaults(SETTINGS, splits, CLASSIFICATION)
    dataset = TrainSet(open_again().train, train_transform(settings), seed=0)
    folder = dataset.dataset.blocks.folder
    fetch, folder.fetch = folder.fetch, lambda number, copy: (fetched.append(number), fetch(number, copy))
    rest = BatchSampler(48, 8, seed=0, blocks=dataset.dataset.blocks).epoch(1)[4:]
    batches = list(train_loader(dataset, rest))
    assert sorted(fetched) == sorted({i // 8 for batch in batches for i in batch.index.tolist()}) != list(range(6))


def test_few_copies_lie_on_the_disk_however_many_shards_there_are(tmp_path, monkeypatch):
    splits = opened(write_shards(tmp_path / "set", count=40), stream=2)
    folder, most = splits.train.blocks.folder, 0
    fetch = folder.fetch

    def count(number, copy):
        nonlocal most
        fetch(number, copy)
        most = max(most, sum(not name.startswith(".") for name in os.listdir(folder.folder)))

    monkeypatch.setattr(folder, "fetch", count)
    load_epoch(splits)
    assert most <= 5  # twice as many as are read at once, and one that is fetched ahead meanwhile


def test_masks_are_streamed_too(tmp_path):
    for shard in range(3):
        files = {}
        for k in range(4):
            files |= {f"{k}.jpg": encode(k, size=(4, 4)), f"{k}.seg.png": encode_mask([[0, 1, 2, 3]] * 4)}
        write_shard(tmp_path / "set" / f"train-{shard}.tar", files)
    write_shard(tmp_path / "set" / "val-0.tar", files)
    (tmp_path / "set" / "classes.json").write_text('["a", "b", "c", "d", "e", "f"]')
    settings = DataPart(source=str(tmp_path / "set"), stream=2, image_size=4)
    prepared = prepare_data(settings, SEGMENTATION)
    assert prepared.splits.train.blocks is not None and len(prepared.train) == 12
    assert prepared.splits.train.mask(9).shape == (4, 4)


def test_a_shard_that_vanishes_changes_or_fails_is_named(tmp_path, shards):
    splits = opened(shards, stream=2)
    remote = opened(f"{REMOTE}set/train-{{000..005}}.tar", **REMOTELY, val="set/val-000.tar")
    (shards / "train-003.tar").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="train-003.tar does not exist any more; put it back"):
        splits.train.image(24)
    with pytest.raises(
        ValueError, match="train-003.tar cannot be read by data.opener=helpers.streams:open_remote: FileN"
    ):
        remote.train.image(24)
    write_labeled(shards / "train-003.tar", [1, 0] * 4, size=(8, 8))
    with pytest.raises(ValueError, match="train-003.tar has changed since the run began; start again"):
        splits.train.image(24)
    with pytest.raises(ValueError, match="train-003.tar has changed since its index was read, which is forgotten now"):
        remote.train.image(24)
    again = opened(f"{REMOTE}set/train-{{000..005}}.tar", **REMOTELY, val="set/val-000.tar")
    assert again.train.labels[24:26].tolist() == [1, 0] and again.train.image(24).size == (8, 8)
    with pytest.raises(
        ValueError, match="data.opener=helpers.streams:open_nothing must return a file .* not a NoneType"
    ):
        opened("x.tar", opener="helpers.streams:open_nothing")


def test_a_parquet_file_that_vanishes_or_changes_is_named(tmp_path):
    pytest.importorskip("datasets")
    folder = write_row_groups(tmp_path / "rows")
    train = opened(folder, stream=2).train
    (folder / "train-001.parquet").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="train-001.parquet does not exist any more"):
        train.image(20)
    write_row_groups(folder, rows=5)
    with pytest.raises(ValueError, match="train-001.parquet has changed since the run began"):
        train.image(20)
    (folder / "train-001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="train-001.parquet cannot be read as Parquet"):
        opened(folder, stream=2)


def test_what_does_not_go_with_streams_is_refused(tmp_path, shards):
    only = str(shards / "train-*.tar")
    with pytest.raises(
        ValueError, match="data.stream reads whole shards of .*, so validation images need shards of th"
    ):
        opened(only, stream=2)
    with pytest.raises(ValueError, match="data.test_fraction=0.5 does not go with data.stream"):
        opened(shards, stream=2, test_fraction=0.5)
    with pytest.raises(ValueError, match="data.stream=2 has no effect on digits"):
        opened("digits", stream=2)
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="data.stream has no effect on hf:cifar10, which `datasets` keeps in its own"):
        opened("hf:cifar10", stream=2)
    with pytest.raises(ValueError, match="data.opener=a:b opens .tar and .parquet files, and digits names none"):
        opened("digits", opener="a:b")
    with pytest.raises(ValueError, match="shows each image beside others of its class, which may lie in any shard"):
        settings = choose_defaults(DataPart(), opened(shards, stream=2), CLASSIFICATION)
        TrainSet(opened(shards, stream=2).train, train_transform(settings), seed=0, positives=1)


def test_shards_that_are_sorted_by_class_are_pointed_out(tmp_path):
    for number in range(4):
        write_labeled(tmp_path / "set" / f"train-{number}.tar", [number % 2] * 4)
    write_labeled(tmp_path / "set" / "val-0.tar", [0, 1])
    assert any("each shard holds images of one class" in note for note in opened(tmp_path / "set", stream=2).notes)
    assert opened(tmp_path / "set").notes == ()


def test_samples_without_a_part_are_left_out(tmp_path, shards):
    files = {
        f"{k}.{part}": encode(k, size=(8, 8)) if part == "png" else b"1" for k in range(4) for part in ("png", "cls")
    }
    del files["2.cls"]
    write_shard(shards / "train-002.tar", files)
    settings = DataPart(source=str(shards), stream=2, on_error="skip")
    prepared = prepare_data(settings, CLASSIFICATION)
    assert prepared.settings.exclude == ["train/train-002/2"] and len(prepared.train) == 43
    splits = open_splits(prepared.settings, CLASSIFICATION)
    assert len(splits.train.blocks.numbers) == 43
