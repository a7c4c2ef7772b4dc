"""Where labelled images come from: folders, tables, Parquet, named sets, and what is held out of them."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.images import encoded, opened, write_classes, write_image, write_parquet
from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import LabeledDataset, check, choose_defaults, open_rows, open_splits


def names(rows: LabeledDataset | None) -> list[str]:
    assert rows is not None
    return [
        os.path.basename(os.path.dirname(rows.name(i))) + "/" + os.path.basename(rows.name(i)) for i in range(len(rows))
    ]


def write_outside(path: Path, images: list, labels: list, features) -> Path:
    """A Parquet file with labels that its own class names do not cover, which `datasets` would not write."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": images, "label": labels}).cast(features.arrow_schema)
    pyarrow.parquet.write_table(table, path)
    return path


# digits


def test_digits_need_nothing_and_are_shared_out_evenly_by_class():
    train, val, test, notes = open_splits(DataPart(source="digits"), CLASSIFICATION)
    assert (len(train), len(val), test) == (1438, 359, None)
    assert train.classes == tuple("0123456789") and not train.mirrorable
    held = val.counts() / (val.counts() + train.counts())
    assert ((held - 0.2).abs() < 0.01).all()
    assert len(notes) == 1 and "20 %" in notes[0] and "359 of 1797" in notes[0]


def test_digits_fill_the_whole_range_of_grey():
    train = open_splits(DataPart(source="digits"), CLASSIFICATION).train
    pixels = np.stack([np.asarray(train.image(i)) for i in range(200)])
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (8, 8)
    assert pixels.min() == 0 and pixels.max() == 255 and len(np.unique(pixels)) == 17


# folders


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_a_folder_with_train_and_val_is_taken_as_it_is(tmp_path, val):
    write_classes(tmp_path / "train", {"cat": 3, "dog": 2})
    write_classes(tmp_path / val, {"cat": 1, "dog": 2})
    train, held, test, notes = opened(tmp_path)
    assert train.classes == held.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and held.labels.tolist() == [0, 1, 1]
    assert names(train) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert test is None and notes == ()


def test_a_test_split_is_no_validation_split(tmp_path):
    write_classes(tmp_path / "train", {"cat": 5, "dog": 5})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 2})
    train, val, test, notes = opened(tmp_path)
    assert (len(train), val, len(test)) == (10, None, 3) and "val_fraction" in notes[0]
    train, val, test, notes = opened(tmp_path, val_fraction=0.4)
    assert (len(train), len(val), len(test)) == (6, 4, 3) and "40 %" in notes[0]
    train, val, test, notes = opened(tmp_path, val="test")
    assert (len(train), len(val), test) == (10, 3, None)


def test_one_folder_is_split_by_class_with_a_fixed_seed(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 20, "c": 2})
    train, val, _, notes = opened(tmp_path)
    assert val.counts().tolist() == [2, 4, 1] and train.counts().tolist() == [8, 16, 1]
    assert not set(names(train)) & set(names(val)) and "20 %" in notes[0]
    assert names(opened(tmp_path).val) == names(val)
    assert names(opened(tmp_path, split_seed=1).val) != names(val)
    assert opened(tmp_path, val_fraction=0.5).val.counts().tolist() == [5, 10, 1]


def test_val_may_be_another_folder_that_lacks_a_class(tmp_path):
    write_classes(tmp_path / "mine", {"cat": 3, "dog": 3, "emu": 3})
    write_classes(tmp_path / "other", {"emu": 1, "dog": 1})
    train, val, _, notes = opened(tmp_path / "mine", val=str(tmp_path / "other"))
    assert len(train) == 9 and val.classes == train.classes and val.labels.tolist() == [1, 2]
    assert "'cat'" in notes[0]


def test_limit_keeps_classes_in_balance(tmp_path):
    write_classes(tmp_path / "train", {"a": 6, "b": 2, "c": 6})
    write_classes(tmp_path / "val", {"a": 1, "b": 1, "c": 1})
    splits = opened(tmp_path, limit=8)
    assert splits.train.counts().tolist() == [3, 2, 3] and len(splits.val) == 3
    assert names(splits.train)[:3] == ["a/0.png", "a/1.png", "a/2.png"]
    with pytest.raises(ValueError, match="limit=2 leaves classes without"):
        opened(tmp_path, limit=2)


def test_only_images_count_and_the_rest_is_mentioned(tmp_path):
    write_classes(tmp_path, {"cat": 4, "dog": 4})
    write_image(tmp_path / "cat" / "LOUD.JPG")
    write_image(tmp_path / "dog" / "puppies" / "small.png")
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "cat" / "._0.png").write_text("x")
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / ".git" / "x").mkdir(parents=True)
    train, val, _, notes = opened(tmp_path)
    assert train.classes == ("cat", "dog") and len(train) + len(val) == 10
    assert {"cat/LOUD.JPG", "puppies/small.png"} <= {*names(train), *names(val)}
    assert any("2 hidden and 1 other files" in note for note in notes)
    assert any("1 image" in note and "below a class folder" in note for note in notes)


def test_links_are_followed_once(tmp_path):
    write_classes(tmp_path / "elsewhere", {"cat": 3})
    write_classes(tmp_path / "data", {"dog": 3})
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat", target_is_directory=True)
    (tmp_path / "data" / "dog" / "loop").symlink_to(tmp_path / "data" / "dog", target_is_directory=True)
    train, val, _, _ = opened(tmp_path / "data")
    assert (train.counts() + val.counts()).tolist() == [3, 3]


def test_class_names_in_any_script_agree_between_splits(tmp_path):
    write_classes(tmp_path / "train", {"caf\u00e9": 2, "猫": 2})
    write_classes(tmp_path / "val", {"cafe\u0301": 1, "猫": 1})  # the accent composed by another file system
    train, val, _, _ = opened(tmp_path)
    assert train.classes == ("caf\u00e9", "猫") and val.labels.tolist() == [0, 1]
    assert check(train) == () and train.fingerprint()


def test_classes_that_differ_in_case_are_mentioned(tmp_path):
    write_classes(tmp_path, {"Cat": 2, "cat": 2})
    assert any("'Cat', 'cat'" in note and "case" in note for note in opened(tmp_path).notes)


def test_classes_may_be_called_test(tmp_path):
    write_classes(tmp_path, {"control": 4, "test": 4})
    assert opened(tmp_path).train.classes == ("control", "test")


# tables


def write_table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(8):
        write_image(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


@pytest.mark.parametrize("header", ["path,label", "Filename,Class", "image,target", "file;label"])
def test_a_csv_finds_its_columns_by_name(images, header):
    mark = ";" if ";" in header else ","
    rows = [f"images/{i}.png{mark}{'dog' if i % 2 else 'cat'}" for i in range(8)]
    train, val, _, _ = opened(write_table(images / "all.csv", [header, *rows]), val_fraction=0.25)
    assert train.classes == ("cat", "dog") and train.counts().tolist() == [3, 3] and val.counts().tolist() == [1, 1]


def test_a_csv_may_say_the_split_and_have_columns_of_any_name(images):
    splits = ["0,x,train", "1,x,train", "1,x,valid", "0,x,Test"]
    rows = [f"{start},images/{i}.png" for i, start in enumerate(splits)]
    table = write_table(images / "all.csv", ["kind,extra,split,where", *rows])
    train, val, test, _ = opened(table, image_column="where", label_column="kind")
    assert (train.labels.tolist(), val.labels.tolist(), test.labels.tolist()) == ([0, 1], [1], [0])
    assert train.classes == ("0", "1") and names(test) == ["images/3.png"]
    with pytest.raises(ValueError, match="no column 'wher'.*did you mean 'where'"):
        opened(table, image_column="wher", label_column="kind")


def test_json_lines_hold_names_or_numbers(images):
    lines = [json.dumps({"path": f"images/{i}.png", "label": i % 2}) for i in range(6)]
    assert opened(write_table(images / "all.jsonl", lines)).train.classes == ("0", "1")
    lines = [json.dumps({"file": str(images / f"images/{i}.png"), "class": "ab"[i % 2]}) for i in range(6)]
    assert opened(write_table(images / "all.jsonl", lines)).train.classes == ("a", "b")


def test_a_validation_table_of_numbers_counts_the_classes_of_a_folder(images):
    write_classes(images / "train", {"cat": 2, "dog": 2, "emu": 2})
    table = write_table(images / "val.csv", ["path,label", "images/0.png,2", "images/1.png,1"])
    assert opened(images / "train", val=str(table)).val.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/3.png,", "line 5 of .*bad.csv has no label"),
        ("images/3.png", "line 5 of .*bad.csv has no label"),
        ("images/3.png,nan", "line 5 of .*bad.csv has no label"),
        ("images/3.png,-1", "line 5 of .*bad.csv has label -1"),
        ("images/3.png,0.5", "line 5 of .*bad.csv has label 0.5"),
        ("images/3.png,99999999", "line 5 of .*bad.csv has label 99999999.*out of range"),
        ("images/3.png,3", "no training image of the class '2'.*without gaps"),
        ("images/x.png,1", "line 5 of .*bad.csv names .*x.png, which does not exist"),
        (",1", "line 5 of .*bad.csv names no image"),
        ("images/3.png,1,2,3", "line 5 of .*bad.csv has more fields"),
        ('"images/3.png,1', "bad.csv cannot be read as CSV"),
    ],
)
def test_a_bad_line_of_a_csv_is_named(images, line, message):
    good = [f"images/{i}.png,{i % 2}" for i in range(3)]
    with pytest.raises(ValueError, match=message):
        opened(write_table(images / "bad.csv", ["path,label", *good, line]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "images/3.png", "label": NaN}', "line 4 of .* has no label"),
        ('{"path": "images/3.png", "label": null}', "line 4 of .* has no label"),
        ('{"path": "images/3.png"}', "line 4 of .* has no label"),
        ('{"path": "images/3.png", "label": [1]}', r"line 4 of .* has label \[1\]"),
        ('{"path": "images/3.png", "label": 1e999}', "line 4 of .* has label inf"),
        ('{"path": 3, "label": 1}', "line 4 of .* names no image"),
        ('{"path": ', "line 4 of .* is not JSON"),
        ("[1, 2]", "line 4 of .* holds a list"),
    ],
)
def test_a_bad_json_line_is_named(images, line, message):
    good = [json.dumps({"path": f"images/{i}.png", "label": i % 2}) for i in range(3)]
    with pytest.raises(ValueError, match=message):
        opened(write_table(images / "bad.jsonl", [*good, line]))


def test_a_table_says_what_it_lacks(images):
    with pytest.raises(ValueError, match="columns a, b, none of them called path, file.*data.image_column"):
        opened(write_table(images / "t.csv", ["a,b", "1,2"]))
    with pytest.raises(ValueError, match="t.csv has no rows"):
        opened(write_table(images / "t.csv", ["path,label"]))
    with pytest.raises(ValueError, match="line 2 of .* has split 'trian'; allowed are train"):
        opened(write_table(images / "t.csv", ["path,label,split", "images/0.png,0,trian"]))
    (images / "t.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="t.csv cannot be read as CSV"):
        opened(images / "t.csv")


# Parquet and the Hub's library


@pytest.fixture
def features():
    datasets = pytest.importorskip("datasets")
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})


@pytest.fixture
def blobs(images) -> list[dict]:
    return [encoded(images / "images" / f"{i}.png") for i in range(8)]


def test_a_folder_of_parquet_files_has_splits_and_class_names(tmp_path, blobs, features):
    write_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", blobs[:4], [0, 1, 0, 1], features)
    write_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", blobs[4:6], [1, 1], features)
    write_parquet(tmp_path / "set" / "validation-00000-of-00001.parquet", blobs[6:], [1, 0], features)
    for source in (str(tmp_path / "set"), f"hf:{tmp_path / 'set'}"):
        train, val, test, notes = opened(source)
        assert train.classes == ("ant", "bee") and train.labels.tolist() == [0, 1, 0, 1, 1, 1]
        assert val.labels.tolist() == [1, 0] and test is None and notes == ()
        assert train.name(5).endswith("train-00001-of-00002.parquet") and train.name(5).startswith("row 1 of")
        with Image.open(tmp_path / "images" / "5.png") as image:
            assert train.image(5).tobytes() == image.tobytes()


def test_parquet_files_leave_no_cache_behind(tmp_path, blobs, features, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "set" / "train-0.parquet", blobs, [0, 1] * 4, features)
    check(opened(tmp_path / "set").train)
    assert not (tmp_path / "cache").exists()


def test_large_parquet_files_are_mapped_from_the_cache_of_datasets(tmp_path, blobs, features, monkeypatch):
    import datasets

    from selfdistill.data.datasets import parquet

    datasets.disable_progress_bars()
    monkeypatch.setattr(parquet, "IN_MEMORY", 10)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "set" / "train-0.parquet", blobs, [0, 1] * 4, features)
    train, val, _, notes = opened(tmp_path / "set")
    assert len(train) + len(val) == 8 and train.image(0).size == (8, 6)
    assert "cache" in notes[0] and (tmp_path / "cache").exists()


def test_one_parquet_file_without_a_schema_of_its_own(tmp_path, blobs):
    pytest.importorskip("datasets")
    file = write_parquet(tmp_path / "mine.parquet", blobs, ["b", "a"] * 4)
    train, val, _, _ = opened(file)
    assert train.classes == ("a", "b") and train.image(0).size == (8, 6) and len(val) == 2
    file = write_parquet(tmp_path / "mine.parquet", [blob["bytes"] for blob in blobs], [0, 1] * 4)
    assert opened(file).train.image(0).size == (8, 6)


def test_parquet_labels_are_checked_by_row(tmp_path, blobs, features):
    with pytest.raises(ValueError, match="row 2 of .*x.parquet has label -1"):
        opened(write_parquet(tmp_path / "x.parquet", blobs[:4], [0, 1, -1, 1]))
    with pytest.raises(ValueError, match="row 2 of .*x.parquet has no label"):
        opened(write_parquet(tmp_path / "x.parquet", blobs[:4], [0, 1, None, 1], features))
    with pytest.raises(ValueError, match="row 1 of .*x.parquet holds no image"):
        check(opened(write_parquet(tmp_path / "x.parquet", [blobs[0], None, *blobs[2:4]], [0, 0, 1, 1])).train.dataset)
    with pytest.raises(ValueError, match="row 1 of .* has label 2, out of range for the 2 classes 'ant', 'bee'"):
        opened(write_outside(tmp_path / "x.parquet", blobs[:4], [0, 2, 0, 1], features))
    with pytest.raises(ValueError, match="column 'image' of .*x.parquet holds .*int64.*, not encoded images"):
        opened(write_parquet(tmp_path / "x.parquet", [1, 2, 3, 4], [0, 1, 0, 1]))
    (tmp_path / "x.parquet").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="x.parquet cannot be read as Parquet"):
        opened(tmp_path / "x.parquet")


def test_a_test_split_without_labels_is_left_out(tmp_path, blobs, features):
    write_parquet(tmp_path / "set" / "train-0.parquet", blobs, [0, 1] * 4, features)
    write_parquet(tmp_path / "set" / "test-0.parquet", blobs[:2], [-1, -1], features)
    splits = opened(tmp_path / "set")
    assert splits.test is None and any("test split has no labels" in note for note in splits.notes)


def test_several_label_columns_must_be_chosen_from(tmp_path, blobs):
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["x", "y"])
    kinds = datasets.Features({"img": datasets.Image(), "fine_label": label, "coarse_label": label})
    columns = {"img": blobs, "fine_label": [0, 1] * 4, "coarse_label": [0, 0, 1, 1] * 2}
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="fine_label, coarse_label; choose one with data.label_column"):
        opened(tmp_path / "x.parquet")
    splits = opened(tmp_path / "x.parquet", label_column="coarse_label", val_fraction=0.25)
    assert splits.train.dataset.labels.tolist() == [0, 0, 1, 1] * 2


def test_segmentation_masks_are_no_labels(tmp_path, blobs):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    datasets.Dataset.from_dict({"image": blobs, "label": blobs}, features=kinds).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="'label' .* holds images"):
        opened(tmp_path / "x.parquet")


def test_a_set_saved_by_datasets_opens_from_its_folder(tmp_path, blobs, features):
    import datasets

    columns = {"image": blobs, "label": [0, 1] * 4}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": dataset, "test": dataset.select([3, 1])}).save_to_disk(tmp_path / "saved")
    train, val, test, _ = opened(f"hf:{tmp_path / 'saved'}")
    assert len(train) == 8 and val is None and test.labels.tolist() == [1, 1]
    assert test.image(0).tobytes() == train.image(3).tobytes()


def test_the_hub_is_not_asked_unless_allowed():
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="hf:nobody/nothing is not on this machine; data.download=true"):
        opened("hf:nobody/nothing")
    assert before == datasets.config.HF_HUB_OFFLINE


def test_without_datasets_the_extra_is_named(tmp_path, blobs, monkeypatch):
    file = write_parquet(tmp_path / "x.parquet", blobs, [0, 1] * 4)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ValueError, match=r'needs the package datasets; pip install "selfdistill\[hf\]"'):
        opened(file)


# torchvision


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(("name", "mirrorable"), [("MNIST", False), ("FashionMNIST", True)])
def test_a_torchvision_set_opens_from_its_files(tmp_path, name, mirrorable):
    dice = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 10)):
        pixels = dice.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / name / "raw" / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    part = DataPart(source=f"torchvision:{name}", root=str(tmp_path))
    splits = open_splits(part, CLASSIFICATION)
    assert (len(splits.train), splits.val, len(splits.test)) == (40, None, 10)
    assert np.array_equal(np.asarray(splits.test.image(9)), pixels[9]) and len(splits.train.classes) == 10
    assert splits.train.mirrorable == mirrorable
    assert choose_defaults(part, splits, CLASSIFICATION).augment == (["crop", "flip"] if mirrorable else ["crop"])


NO_FILES = ("CIFAR10", "CIFAR100", "MNIST", "SVHN", "STL10", "Flowers102", "Food101", "DTD", "EuroSAT", "Imagenette")


@pytest.mark.parametrize("name", NO_FILES)
def test_torchvision_sets_download_only_when_asked(tmp_path, name):
    with pytest.raises(ValueError, match=f"files of torchvision:{name} are not in {tmp_path}.*data.download=true"):
        opened(f"torchvision:{name}", root=str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_torchvision_set_that_is_offered_exists():
    import torchvision.datasets

    from selfdistill.data.datasets.torchvision import CHARACTERS, PICTURES

    assert all(hasattr(torchvision.datasets, name) for name in (*CHARACTERS, *PICTURES))


def test_a_misspelt_torchvision_set_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'torchvision:CIFAR100"):
        opened("torchvision:CIFAR-100")


# what every source has in common


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "there is no file or folder 'nowhere/at/all'; data comes from digits"),
        ("digit", "did you mean 'digits"),
        ("", "there is no file or folder ''"),
        ("hf:/nowhere/at/all", "hf:/nowhere/at/all names no folder"),
        ("torchvision:", "is not a classification set of torchvision"),
    ],
)
def test_a_source_that_does_not_exist_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        opened(source)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="images.zip is a file of an unknown kind"):
        opened(tmp_path / "images.zip")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "is empty; it must hold one folder"),
        ({"cat": 0, "dog": 0}, "holds no images"),
        ({".": 3}, "holds 3 images but no class folders"),
        ({"cat": 1}, "has one training image"),
        ({"cat": 5}, "only one class, 'cat'"),
        ({"cat": 5, "dog": 0}, "no training image of the class 'dog'"),
        ({"cat": 5, "dog": 1}, "class 'dog' has one image, .*dog/0.png; holding one out takes two"),
        ({"val/cat": 2, "val/dog": 2}, "no labelled split called train to learn from; it has: val"),
        ({"train/.": 2, "val/cat": 2}, "train holds 2 images but no class folders"),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dgo": 1}, "dgo/0.png has class 'dgo', .* mean 'dog'"),
        ({"val/a": 1, "valid/a": 1, "train/a": 2, "train/b": 2}, "val and valid, which both mean its val split"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path, folders, message):
    write_classes(tmp_path / "set", folders)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path / "set")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_settings_without_effect_are_refused(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2})
    with pytest.raises(ValueError, match="val_fraction=0.5 has no effect beside the validation split"):
        opened(tmp_path, val_fraction=0.5)
    with pytest.raises(ValueError, match="val_fraction=0.5 has no effect beside val="):
        opened(tmp_path, val="val", val_fraction=0.5)
    with pytest.raises(ValueError, match="image_column=x has no effect"):
        opened(tmp_path, image_column="x")
    with pytest.raises(ValueError, match="data.val=test is no validation split of .*; it has val beside train"):
        opened(tmp_path, val="test")


def test_another_source_is_scored_by_the_classes_of_a_trained_network(tmp_path):
    write_classes(tmp_path / "test", {"dog": 1, "cat": 2})
    rows = open_rows(DataPart(), str(tmp_path), ["cat", "cow", "dog"], CLASSIFICATION)
    assert rows.classes == ("cat", "cow", "dog") and rows.labels.tolist() == [0, 0, 2]


def test_the_fingerprint_knows_names_labels_and_sizes_but_not_the_place(tmp_path):
    first = opened(write_classes(tmp_path / "here", {"cat": 2, "dog": 2})).train
    again = opened(write_classes(tmp_path / "there", {"cat": 2, "dog": 2})).train
    assert first.fingerprint() == again.fingerprint()
    write_image(tmp_path / "there" / "cat" / os.path.basename(again.name(0)), size=(30, 30))
    assert again.fingerprint() != first.fingerprint()
    other = opened(write_classes(tmp_path / "third", {"cat": 2, "emu": 2})).train
    assert other.fingerprint() != first.fingerprint()


def test_a_subset_names_the_files_of_the_whole(tmp_path):
    splits = opened(write_classes(tmp_path, {"cat": 5, "dog": 5}), val_fraction=0.4, limit=4)
    for rows in (splits.train, splits.val):
        for i in range(len(rows)):
            assert f"/{rows.classes[rows.labels[i]]}/" in rows.name(i) and Path(rows.name(i)).exists()
    assert torch.equal(splits.train.counts(), torch.tensor([2, 2]))


def test_a_download_of_what_lies_here_is_refused():
    with pytest.raises(ValueError, match="download=true has no effect on digits"):
        open_splits(DataPart(source="digits", download=True), CLASSIFICATION)
