"""Published colors of well-known classes."""

import pytest

from helpers.mask_files import opened_masks
from selfdistill.data.datasets.palettes import ADE20K, CITYSCAPES, VOC_CLASSES, find_known_colors


@pytest.mark.parametrize(
    ("classes", "first", "last"),
    [
        (CITYSCAPES, (128, 64, 128), (119, 11, 32)),
        (VOC_CLASSES, (0, 0, 0), (0, 64, 128)),
        (("Sky", "Building", "Column_Pole", "Road", "Tree", "Bicyclist"), (128, 128, 128), (0, 128, 192)),
        (("wall", "building", "sky", *(f"object {k}" for k in range(146)), "flag"), (120, 120, 120), (92, 0, 255)),
    ],
)
def test_well_known_classes_have_their_published_colours(classes, first, last):
    colors = find_known_colors(list(classes))
    assert len(colors) == len(classes) and colors[0] == first and colors[-1] == last
    assert find_known_colors([*classes, "something else"]) is None


def test_a_bicycle_and_a_person_are_cityscapes_or_voc_by_what_stands_beside_them():
    assert find_known_colors(["person", "rider", "bicycle"])[2] == (119, 11, 32)
    assert find_known_colors(["person", "cat", "bicycle"])[2] == (0, 128, 0)
    assert find_known_colors(["road", "car"]) is None  # two names tell no set
    assert len(ADE20K) == 450


def test_masks_without_colours_take_the_published_ones(mask_folder):
    (mask_folder / "classes.txt").write_text("sky\nroad\nrider\n")
    assert opened_masks(mask_folder).train.colors == ((70, 130, 180), (128, 64, 128), (255, 0, 0))
