"""Sources that do not exist or are of an unknown kind."""

import pytest

from helpers.images import opened, write_classes
from helpers.mask_files import opened_masks, write_pairs


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


def test_a_folder_called_like_a_built_in_set_or_a_split_is_mentioned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not any("built-in" in note for note in opened("digits").notes)
    write_classes(tmp_path / "digits", {"a": 2, "b": 2})
    (tmp_path / "scenes").mkdir()
    assert "digits means the built-in data set; what lies here under that name is ./digits" in opened("digits").notes
    assert opened("./digits").train.classes == ("a", "b")
    assert any(note.startswith("scenes means the built-in data set") for note in opened_masks("scenes").notes)
    (tmp_path / "val").mkdir()
    write_pairs(tmp_path / "set" / "images" / "train", tmp_path / "set" / "masks" / "train")
    write_pairs(tmp_path / "set" / "images" / "val", tmp_path / "set" / "masks" / "val")
    assert (
        "val means the val split of set; what lies here under that name is ./val"
        in opened_masks("set", val="val").notes
    )
