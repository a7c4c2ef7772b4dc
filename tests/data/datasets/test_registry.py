"""Sources that do not exist or are of an unknown kind."""

import pytest

from helpers.images import opened


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
