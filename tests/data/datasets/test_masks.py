"""Images with masks: what they promise and how errors name them."""

import numpy as np
import pytest
from PIL import Image

from helpers.mask_files import BLUE, RED, VALUES, opened_masks, the_mask, write_mask, write_photo
from selfdistill.data import check
from selfdistill.data.datasets.mask_values import choose_distinct_colors


def test_16_bit_masks_keep_values_beyond_255(mask_folder):
    write_mask(mask_folder / "masks" / "0.png", [[0, 1, 300], [0, 0, 0]], np.uint16)
    rows = opened_masks(mask_folder, void=[300]).train.dataset
    assert the_mask(rows) == [[0, 1, -100], [0, 0, 0]] and rows.classes == ("0", "1", "2")


def test_a_value_without_a_meaning_names_its_file_up_front_and_when_read(mask_folder):
    write_mask(mask_folder / "masks" / "1.png", [[0, 7, 1], [0, 0, 0]])
    write_mask(mask_folder / "masks" / "3.png", [[0, 9, 1], [0, 0, 0]])
    rows = opened_masks(mask_folder, classes=["a", "b", "c"]).train.dataset
    message = r"masks/1.png holds the value 7, .* \(values 0 to 2\) nor void \(255\)"
    with pytest.raises(ValueError, match=message + r".* \(and 1 more such image\)"):
        check(rows)
    with pytest.raises(ValueError, match=message):
        rows.mask(1)


def test_a_negative_value_may_be_void_and_values_beyond_the_table_are_none_for_it(mask_folder):
    for number in range(5):
        (mask_folder / "masks" / f"{number}.png").unlink()
        write_mask(mask_folder / "masks" / f"{number}.tif", [[0, -1, 1], [2, 700 if number == 4 else 0, 0]], np.int32)
    rows = opened_masks(mask_folder, classes=["a", "b", "c"], void=[-1]).train.dataset
    assert the_mask(rows) == [[0, -100, 1], [2, 0, 0]]
    with pytest.raises(ValueError, match="masks/4.tif holds the value 700"):
        rows.mask(4)


@pytest.mark.parametrize(("kind", "value"), [(np.uint16, 700), (np.int32, 700), (np.int32, -1)])
def test_a_value_beyond_the_table_is_no_class(mask_folder, kind, value):
    (mask_folder / "masks" / "1.png").unlink()
    write_mask(mask_folder / "masks" / "1.tif", [[0, value, 1], [0, 0, 0]], kind)
    with pytest.raises(ValueError, match=f"holds the value {value}"):
        opened_masks(mask_folder, classes=["a", "b", "c"]).train.dataset.mask(1)


def test_an_image_is_shown_with_its_mask_and_errors_name_the_row(mask_folder):
    rows = opened_masks(mask_folder, limit=2, val_fraction=0.4).train
    image, mask = rows[1]
    assert image.size == (3, 2) and mask.tolist() == VALUES
    with pytest.raises(ValueError, match=f"{rows.name(1)}: too small"), rows.name_errors(1):
        raise ValueError("too small")


def test_classes_without_a_pixel_and_masks_without_a_class_are_mentioned(mask_folder):
    write_mask(mask_folder / "masks" / "2.png", [[255] * 3] * 2)
    rows = opened_masks(mask_folder, classes=["a", "b", "c", "d"]).train.dataset
    assert rows.counts().tolist() == [4, 4, 4, 0]
    missing, void = check(rows)
    assert "none of the 5 masks" in missing and missing.endswith("pixel of the class 'd'")
    assert void.startswith("1 of the 5 masks") and "void" in void


def test_a_mask_of_another_size_names_both_files(mask_folder):
    write_mask(mask_folder / "masks" / "2.png", [[0, 1], [2, 0]])
    rows = opened_masks(mask_folder, classes=["a", "b", "c"]).train.dataset
    message = r"masks/2.png is 2x2 pixels large, and its image .*images/2.jpg 3x2"
    for read in (check, lambda rows: rows.mask(2)):
        with pytest.raises(ValueError, match=message):
            read(rows)


def test_large_sets_are_checked_by_their_headers(mask_folder, monkeypatch):
    monkeypatch.setattr("selfdistill.data.datasets.base.DECODED", 2)
    write_mask(mask_folder / "masks" / "1.png", [[0, 7, 1], [0, 0, 0]])
    assert (
        check(opened_masks(mask_folder, classes=["a", "b", "c"]).train.dataset) == ()
    )  # values are seen when they are needed
    write_mask(mask_folder / "masks" / "2.png", [[0, 1], [2, 0]])
    with pytest.raises(ValueError, match="masks/2.png is 2x2"):
        check(opened_masks(mask_folder, classes=["a", "b", "c"]).train.dataset)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_a_mask_without_orientation_belongs_to_the_turned_image_which_is_mentioned(mask_folder):
    for number in range(5):
        write_photo(mask_folder / "images" / f"{number}.jpg", size=(2, 3), exif=turned(6))  # stored on its side
    rows = opened_masks(mask_folder).train
    assert rows.image(0).size == (3, 2) and the_mask(rows) == VALUES
    assert "4 of the 4 images from" in check(rows)[0] and "turned by their EXIF orientation" in check(rows)[0]


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_mask_with_orientation_is_turned_as_its_image(tmp_path, orientation):
    colors = np.array([(10, 10, 10), (120, 120, 120), (240, 240, 240)], dtype=np.uint8)
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 3, (12, 12), dtype=np.uint8)  # square: no size can tell
        for folder, pixels in (("images", colors[values]), ("masks", values)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png", exif=turned(orientation))
    rows = opened_masks(tmp_path).train
    shown = np.asarray(rows.image(0))[..., 0] // 100
    assert (shown == rows.mask(0).numpy()).all() and check(rows) == ()


def test_palettes_that_give_one_number_two_colours_are_refused(mask_folder):
    def save(number, palette, values=VALUES):
        mask = Image.fromarray(np.array(values, dtype=np.uint8))
        mask.putpalette(palette)
        mask.save(mask_folder / "masks" / f"{number}.png")

    for number in range(5):
        save(number, [0, 0, 0, *RED, *BLUE] if number % 2 else [0, 0, 0, *BLUE, *RED])
    with pytest.raises(ValueError, match=r"masks/\d.png shows the number \d in the color .* data.palette, a CSV"):
        opened_masks(mask_folder)
    with pytest.raises(ValueError, match=r"masks/\d.png shows the number \d in the color"):
        check(opened_masks(mask_folder, classes=["a", "b", "c"]).train)
    (mask_folder / "class_dict.csv").write_text("name,r,g,b\nnone,0,0,0\nred,255,0,0\nblue,0,0,255\n")
    rows = opened_masks(mask_folder).train.dataset
    assert rows.classes == ("none", "red", "blue") and the_mask(rows, 1) == VALUES
    assert the_mask(rows, 0) == [[0, 2, 1], [1, 2, 0]]
    (mask_folder / "class_dict.csv").unlink()
    for number in range(5):  # colors that no pixel has, and that of void, may differ
        save(number, [0, 0, 0, *RED, *BLUE, number, 0, 0, *[number] * 756], [[0, 1, 255], [2, 1, 0]])
    assert the_mask(opened_masks(mask_folder).train.dataset) == [[0, 1, -100], [2, 1, 0]]


def test_the_numbers_of_a_palette_are_values_if_its_colours_mean_nothing(mask_folder):
    (mask_folder / "class_dict.csv").write_text("name,r,g,b\nnone,0,0,0\nred,255,0,0\nblue,0,0,255\n")
    for number in range(5):
        mask = Image.fromarray(np.array(VALUES, dtype=np.uint8))
        mask.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
        mask.save(mask_folder / "masks" / f"{number}.png")
    assert the_mask(opened_masks(mask_folder).train.dataset) == VALUES


def test_one_class_and_void_are_nothing_to_learn_from(mask_folder):
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", [[0, 255, 255], [0, 0, 0]])
    problem = opened_masks(mask_folder, classes=["ground", "brick"]).train.describe_single_class()
    assert "hold the value 0 (ground) and 255, which is void; name the classes in data.palette" in problem
    assert "NAME,0,0,0 and NAME,255,255,255" in problem
    write_mask(mask_folder / "masks" / "0.png", [[0, 1, 1], [0, 0, 0]])
    assert opened_masks(mask_folder, classes=["ground", "brick"]).train.dataset.describe_single_class() is None


def test_the_fingerprint_knows_masks_and_what_they_mean(mask_folder):
    first = opened_masks(mask_folder).train.fingerprint()
    assert opened_masks(mask_folder).train.fingerprint() == first
    assert opened_masks(mask_folder, void=[2]).train.fingerprint() != first
    assert opened_masks(mask_folder, classes=["a", "b", "c"]).train.fingerprint() != first
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", [[0, 1, 2], [2, 2, 1]], np.uint16)
    assert opened_masks(mask_folder).train.fingerprint() != first


def test_colours_come_from_the_masks_palettes_or_are_far_apart(mask_folder):
    assert opened_masks(mask_folder).train.colors == choose_distinct_colors(3)
    mask = Image.fromarray(np.array(VALUES, dtype=np.uint8))
    mask.putpalette([0, 0, 0, *RED, *BLUE])
    for number in range(5):
        mask.save(mask_folder / "masks" / f"{number}.png")
    assert opened_masks(mask_folder, void=[0]).train.colors == (RED, BLUE)


def test_masks_may_all_be_void(mask_folder):
    assert not opened_masks(mask_folder).train.is_all_ignored()
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", [[2] * 3] * 2)
    assert not opened_masks(mask_folder, classes=["a", "b", "c"]).train.is_all_ignored()
    assert opened_masks(mask_folder, classes=["a", "b"], void=[2]).train.is_all_ignored()
