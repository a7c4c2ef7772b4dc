"""Which values of masks are classes."""

import numpy as np
import pytest

from helpers.mask_files import BLUE, RED, opened_masks, the_mask, write_mask, write_pairs, write_photo
from helpers.tasks import SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import check, open_one_split


def test_values_without_names_count_from_0_to_the_largest(mask_folder):
    write_mask(mask_folder / "masks" / "3.png", [[0, 4, 255], [0, 0, 0]])
    train, val, _, notes = opened_masks(mask_folder)
    assert train.classes == val.classes == ("0", "1", "2", "3", "4") and train.values == (0, 1, 2, 3, 4)
    assert the_mask(train.dataset, 3) == [[0, 4, -100], [0, 0, 0]]
    assert "255, which nothing names, is taken for void" in notes[0]
    assert "20 % of the images of" in notes[1] and "1 of 5 images" in notes[1]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 200), (0, 255), (0, 85, 170, 255), (3, 90), (128, 255)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_levels_are_not_taken_for_numbers_of_classes(mask_folder, values, kind):
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", [values, values[::-1]], kind)
        write_photo(mask_folder / "images" / f"{number}.jpg", number, size=(len(values), 2))
    listed = f"{', '.join(map(str, values[:-1]))} and {values[-1]}"
    with pytest.raises(ValueError, match=f"hold the values {listed} only.*data.palette") as error:
        opened_masks(mask_folder)
    lines = [f"NAME,{value},{value},{value}" for value in values]
    assert " and ".join(lines) in str(error.value)
    palette = [line.replace("NAME", f"class {k}") for k, line in enumerate(lines)]
    (mask_folder / "palette.csv").write_text("\n".join(["name,r,g,b", *palette]))  # what the sentence advises
    assert the_mask(opened_masks(mask_folder).train)[0] == [*range(len(values))]


@pytest.mark.parametrize("settings", [{}, {"void": []}])
@pytest.mark.parametrize("largest", [201, 255])
def test_nearly_every_gray_level_is_no_class_unless_it_has_a_name(mask_folder, settings, largest):
    levels = np.arange(largest + 1)[None]
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", levels)
        write_photo(mask_folder / "images" / f"{number}.jpg", number, size=(largest + 1, 1))
    with pytest.raises(ValueError, match=f"hold {largest + 1} of the values from 0 to 255, .* gray levels, such as "):
        opened_masks(mask_folder, **settings)
    named = opened_masks(mask_folder, classes=[str(k) for k in levels[0]], **settings).train
    assert the_mask(named)[0] == levels[0].tolist()


def test_void_classes_are_left_out_and_the_others_close_up(mask_folder):
    for void in ([1], ["b"], ["B"], ["1"]):
        names = ["0", "1", "2"] if void == ["1"] else ["a", "b", "c"]
        rows = opened_masks(mask_folder, classes=names, void=void).train
        assert rows.classes == (names[0], names[2]) and rows.values == (0, 2)
        assert the_mask(rows) == [[0, -100, 1], [1, -100, 0]]


@pytest.mark.parametrize("name", ["Void", "ignore", "unlabeled", "Unlabelled"])
def test_names_of_nothing_are_void_but_the_background_is_a_class(mask_folder, name):
    (mask_folder / "classes.txt").write_text(f"{name}\nbackground\ncat\n")
    rows = opened_masks(mask_folder).train
    assert rows.classes == ("background", "cat") and rows.values == (1, 2)
    assert the_mask(rows) == [[-100, 0, 1], [1, 0, -100]]


def test_255_is_void_unless_it_has_a_name(mask_folder):
    write_mask(mask_folder / "masks" / "0.png", [[0, 1, 255], [0, 0, 0]])
    assert the_mask(opened_masks(mask_folder).train.dataset)[0] == [0, 1, -100]
    named = opened_masks(mask_folder, classes=[str(k) for k in range(256)]).train
    assert the_mask(named.dataset)[0] == [0, 1, 255]


def test_what_data_void_says_replaces_the_usual(mask_folder):
    write_mask(mask_folder / "masks" / "4.png", [[0, 1, 255], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"masks/4.png holds the value 255, .* \(values 0, 2\) nor void \(1\)"):
        check(opened_masks(mask_folder, classes=["a", "b", "c"], void=[1]).train.dataset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["a", "b", "c"], "void": ["d"]}, "data.void=d is no class of .*; the choice is: a, b, c"),
        ({"classes": ["sky", "b", "c"], "void": ["skY1"]}, "did you mean 'sky'"),
        ({"classes": ["a", "b", "a"]}, "two classes called 'a'"),
        ({"classes": ["a", "b"], "void": [0]}, "only one class, 'b'"),
        ({"void": [0, 1, 2]}, "no class"),
        ({"void": [2**32 - 1]}, "data.void=4294967295 is no value of a mask; these are from -32768 to 65535"),
        ({"palette": "nowhere.csv"}, "data.palette=nowhere.csv does not exist"),
        ({"label_column": "x"}, "label_column=x has no effect"),
        ({"val": "test"}, "is no validation split"),
    ],
)
def test_settings_that_make_no_classes_are_refused(mask_folder, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        opened_masks(mask_folder, **settings)
    assert "\n" not in str(error.value)


def test_numbers_of_instances_are_not_taken_for_classes(mask_folder):
    write_mask(mask_folder / "masks" / "1.png", [[0, 24005, 1], [0, 0, 0]], np.uint16)
    with pytest.raises(ValueError, match="hold values up to 24005; name the classes in data.classes"):
        opened_masks(mask_folder)


def test_settings_read_the_same_masks_in_the_same_way(mask_folder):
    (mask_folder / "classes.txt").write_text("unlabeled\ncat\ndog\n")
    rows = opened_masks(mask_folder).train
    assert rows.settings() == {"classes": ["unlabeled", "cat", "dog"], "void": [0, 255]}
    (mask_folder / "classes.txt").unlink()
    again = opened_masks(mask_folder, **rows.settings()).train
    assert again.label_map == rows.label_map and again.settings() == rows.settings()


def test_settings_fit_the_palette_that_they_were_read_by(tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "masks", values=[[RED, BLUE, (0, 0, 0)]] * 2)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nred,255,0,0\nblue,0,0,255\nVoid,0,0,0\n")
    rows = opened_masks(tmp_path).train
    assert rows.settings() == {"classes": ["red", "blue", "Void"], "void": [2, 255]}
    assert opened_masks(tmp_path, **rows.settings()).train.label_map == rows.label_map
    with pytest.raises(ValueError, match="data.classes has 2 names, and the palette 3 colors"):
        opened_masks(tmp_path, classes=["a", "b"])


def test_another_source_is_numbered_by_name(mask_folder, tmp_path):
    (mask_folder / "classes.txt").write_text("cat\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("emu\nvoid\ncat\n")
    val = opened_masks(mask_folder, val=str(tmp_path / "more")).val
    assert val.classes == ("cat", "dog", "emu") and the_mask(val) == [[2, -100, 0]] * 2
    assert val.values == (2, -1, 0) and "'dog'" in check(val)[0]


def test_what_is_void_by_name_is_void_in_another_source_too(mask_folder, tmp_path):
    (mask_folder / "classes.txt").write_text("cat\nsky\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("sky\nemu\ncat\n")
    assert the_mask(opened_masks(mask_folder, val=str(tmp_path / "more"), void=["sky"]).val) == [[-100, 1, 0]] * 2


def test_another_source_without_names_stores_what_the_first_one_does(mask_folder, tmp_path):
    (mask_folder / "classes.txt").write_text("void\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    splits = opened_masks(mask_folder, val=str(tmp_path / "more"))
    assert the_mask(splits.val) == [[-100, 0, 1]] * 2
    part = DataPart(source=str(mask_folder), **splits.train.settings())
    rows = open_one_split(part, str(tmp_path / "more"), splits.train.classes, SEGMENTATION).images
    assert the_mask(rows) == [[-100, 0, 1]] * 2
    rows = open_one_split(DataPart(), str(tmp_path / "more"), ("a", "b", "c"), SEGMENTATION).images
    assert rows.classes == ("a", "b", "c") and the_mask(rows) == [[0, 1, 2]] * 2
    rows = open_one_split(DataPart(), str(tmp_path / "more"), ("2", "1", "0"), SEGMENTATION).images
    assert the_mask(rows) == [[2, 1, 0]] * 2


def test_a_class_that_training_does_not_know_is_an_error_where_it_has_pixels(mask_folder, tmp_path):
    (mask_folder / "classes.txt").write_text("cat\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 1]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("cat\ngnu\nowl\n")
    val = opened_masks(mask_folder, val=str(tmp_path / "more")).val
    with pytest.raises(ValueError, match=r"more/masks/0.png holds the class 'gnu' \(value 1\), .* cat, dog, emu"):
        check(val)


@pytest.mark.parametrize(("value", "message"), [(255, r"no class, only void \(255\)"), (7, "hold the value 7 only")])
def test_masks_of_one_value_without_a_class_are_refused(mask_folder, value, message):
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", np.full((2, 3), value, np.uint8))
    with pytest.raises(ValueError, match=message):
        opened_masks(mask_folder)
