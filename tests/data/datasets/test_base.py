"""What all data sets have in common."""

import os

from helpers.images import opened, write_classes, write_image


def test_the_fingerprint_knows_names_labels_and_sizes_but_not_the_place(tmp_path):
    first = opened(write_classes(tmp_path / "here", {"cat": 2, "dog": 2})).train
    again = opened(write_classes(tmp_path / "there", {"cat": 2, "dog": 2})).train
    assert first.fingerprint() == again.fingerprint()
    write_image(tmp_path / "there" / "cat" / os.path.basename(again.name(0)), size=(30, 30))
    assert again.fingerprint() != first.fingerprint()
    other = opened(write_classes(tmp_path / "third", {"cat": 2, "emu": 2})).train
    assert other.fingerprint() != first.fingerprint()
