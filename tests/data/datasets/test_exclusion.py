"""Images that are left out: by name, or because they cannot be used."""

import pytest

from helpers.images import write_classes, write_image
from helpers.mask_files import write_pairs
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import OpenedData, open_splits, prepare_data
from selfdistill.data.datasets import base, registry


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def names(dataset):
    return [dataset.name(i).rpartition("/")[2] for i in range(len(dataset))]


@pytest.fixture
def folder(tmp_path):
    """Six training and two validation images of each of two classes; one of each split is cut short."""
    for split, count in (("train", 6), ("val", 2)):
        write_classes(tmp_path / "data" / split, {"cat": count, "dog": count})
    cut(tmp_path / "data" / "train" / "cat" / "2.png")
    cut(tmp_path / "data" / "val" / "dog" / "1.png")
    return tmp_path / "data"


def test_unusable_images_are_left_out_and_listed(folder):
    data = DataPart(source=str(folder), on_error="skip")
    prepared = prepare_data(data, CLASSIFICATION)
    assert prepared.settings.exclude == ["train/cat/2.png", "val/dog/1.png"]
    assert len(prepared.train) == 11 and len(prepared.held_out) == 3
    assert "2.png" not in names(prepared.splits.train)[:6] and prepared.splits.train.classes == ("cat", "dog")
    assert prepared.notes[0].startswith("data.on_error=skip leaves out 2 images that cannot be used")
    assert "train/cat/2.png cannot be read" in prepared.notes[1] and "val/dog/1.png cannot be read" in prepared.notes[2]
    with pytest.raises(ValueError, match=r"2\.png cannot be read as an image"):
        prepare_data(DataPart(source=str(folder)), CLASSIFICATION)


def test_the_list_of_a_run_stays_and_nothing_is_read_for_it_again(folder, monkeypatch):
    chosen = prepare_data(DataPart(source=str(folder), on_error="skip"), CLASSIFICATION).settings
    monkeypatch.setattr("selfdistill.data.prepare.find_unusable", None)
    write_image(folder / "train" / "cat" / "2.png", seed=5)
    assert len(prepare_data(chosen, CLASSIFICATION).train) == 11
    assert len(open_splits(chosen, CLASSIFICATION).train) == 11  # as eval and report open them


def test_the_runs_of_a_comparison_read_the_images_once_for_it(folder, monkeypatch):
    opened, reads = OpenedData(), []
    found = registry.open_stored
    monkeypatch.setattr("selfdistill.data.prepare.open_stored", lambda *args: reads.append(1) or found(*args))
    data = DataPart(source=str(folder), on_error="skip")
    both = [prepare_data(data, CLASSIFICATION, opened=opened).settings.exclude for _ in range(2)]
    assert both[0] == both[1] and len(both[0]) == 2 and len(reads) == 1


def test_a_set_without_a_fault_has_an_empty_list_and_no_note(tmp_path):
    write_classes(tmp_path, {"cat": 6, "dog": 6})
    prepared = prepare_data(DataPart(source=str(tmp_path), on_error="skip"), CLASSIFICATION)
    assert prepared.settings.exclude == [] and not any("on_error" in note for note in prepared.notes)


def test_validation_images_of_another_source_are_named_apart(folder, tmp_path):
    write_classes(tmp_path / "other", {"cat": 3, "dog": 3})
    cut(tmp_path / "other" / "cat" / "0.png")
    data = DataPart(source=str(folder / "train"), val=str(tmp_path / "other"), on_error="skip")
    prepared = prepare_data(data, CLASSIFICATION)
    assert prepared.settings.exclude == ["train/cat/2.png", "data.val/train/cat/0.png"]
    assert len(prepared.train) == 11 and len(prepared.held_out) == 5


def test_a_user_names_images_in_a_file(folder, tmp_path):
    listed = tmp_path / "leave-out.txt"
    listed.write_text("# seen by hand\ntrain/cat/2.png\n\ntrain/dog/5.png\nval/dog/1.png\n")
    prepared = prepare_data(DataPart(source=str(folder), exclude=str(listed)), CLASSIFICATION)
    assert len(prepared.train) == 10 and names(prepared.splits.train)[-1] == "4.png"
    listed.write_text("train/cat/22.png\n")
    with pytest.raises(ValueError, match="names 'train/cat/22.png', and .* has no such image.* 'train/cat/2.png'"):
        open_splits(DataPart(source=str(folder), exclude=str(listed)), CLASSIFICATION)


def test_an_image_with_a_broken_mask_goes_with_it(tmp_path):
    for split in ("train", "val"):
        write_pairs(tmp_path / "images" / split, tmp_path / "masks" / split, 4)
    cut(tmp_path / "masks" / "train" / "1.png")
    prepared = prepare_data(DataPart(source=str(tmp_path), on_error="skip"), SEGMENTATION)
    assert prepared.settings.exclude == ["train/images/train/1.jpg"]
    assert len(prepared.train) == 3


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION])
def test_images_that_were_checked_are_not_decoded_again_for_a_check(tmp_path, monkeypatch, task):
    if task is CLASSIFICATION:
        write_classes(tmp_path, {"cat": 6, "dog": 6})
    else:
        write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train", 6)
    decoded, read = [], base.read_format

    def count(source, *args, decode=False, **more):
        decoded.extend([source] * decode)
        return read(source, *args, decode=decode, **more)

    monkeypatch.setattr(base, "read_format", count)
    data = DataPart(source=str(tmp_path), on_error="skip", mean=[0.5] * 3, std=[0.5] * 3, image_size=(8, 8))
    prepare_data(data, task)
    assert len(decoded) == len(set(decoded)) == (12 if task is CLASSIFICATION else 6)
