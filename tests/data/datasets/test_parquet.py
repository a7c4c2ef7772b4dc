"""Parquet files and data sets of the Hub's library."""

from pathlib import Path

import pytest
from PIL import Image

from helpers.images import opened, write_outside, write_parquet
from helpers.mask_files import VALUES, opened_masks, the_mask, write_mask
from selfdistill.data import check


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


def write_mask_parquet(path: Path, columns: dict[str, list]) -> Path:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(dict.fromkeys(columns, datasets.Image()))
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(path)
    return path


@pytest.mark.parametrize(("image", "mask"), [("image", "label"), ("pixel_values", "mask"), ("image", "annotation")])
def test_parquet_has_two_columns_of_images(mask_folder, image, mask):
    jpegs = [{"bytes": (mask_folder / f"images/{k}.jpg").read_bytes(), "path": None} for k in range(4)]
    pngs = [{"bytes": (mask_folder / f"masks/{k}.png").read_bytes(), "path": None} for k in range(4)]
    path = write_mask_parquet(mask_folder / "train-0.parquet", {image: jpegs, mask: pngs})
    write_mask_parquet(mask_folder / "test-0.parquet", {image: jpegs[:1], mask: [None]})
    for source in (path, f"hf:{mask_folder}", mask_folder):
        rows = opened_masks(source).train
        assert the_mask(rows) == VALUES and rows.image(0).mode == "RGB" and check(rows) == ()
    assert any("the test split has no labels" in note for note in opened_masks(mask_folder).notes)
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_parquet(str(path), cache_dir=str(mask_folder / "cache")).save_to_disk(mask_folder / "saved")
    (mask_folder / "saved" / "classes.txt").write_text("a\nb\nc\n")
    rows = opened_masks(f"hf:{mask_folder / 'saved'}").train
    assert the_mask(rows) == VALUES and rows.classes == ("a", "b", "c")
    write_mask(mask_folder / "masks" / "x.png", [[0, 1]])
    pngs[2] = {"bytes": (mask_folder / "masks" / "x.png").read_bytes(), "path": None}
    with pytest.raises(ValueError, match="the mask of row 2 of .*train-0.parquet is 2x1 .* image row 2 of"):
        opened_masks(write_mask_parquet(path, {image: jpegs, mask: pngs}))


def test_a_parquet_column_of_masks_can_be_named(mask_folder):
    blobs = [{"bytes": (mask_folder / f"masks/{k}.png").read_bytes(), "path": None} for k in range(4)]
    path = write_mask_parquet(mask_folder / "x.parquet", {"a": blobs, "b": blobs, "c": blobs})
    with pytest.raises(ValueError, match="has the columns a, b, c, none of them called mask.*data.label_column"):
        opened_masks(path)
    with pytest.raises(ValueError, match="none of them called path.*data.image_column"):
        opened_masks(path, label_column="b")
    assert the_mask(opened_masks(path, label_column="b", image_column="c").train) == VALUES
