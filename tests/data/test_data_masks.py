"""Images with masks: where they come from, what masks store, and what that means."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import check, open_rows, open_splits
from selfdistill.data.datasets.base import LabeledDataset, Subset
from selfdistill.data.datasets.cityscapes import CITY_VALUES
from selfdistill.data.datasets.mask_values import read_mask_values, separate_colors
from selfdistill.data.datasets.masks import MaskDataset
from selfdistill.data.datasets.voc import VOC_CLASSES
from selfdistill.data.split import Splits

VALUES = [[0, 1, 2], [2, 1, 0]]
RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (3, 2), **how) -> Path:
    """A small noise image of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def write_mask(path: Path, values: list = VALUES, kind: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=kind)).save(path)
    return path


def write_pairs(images: Path, masks: Path, count: int = 4, *, values: list = VALUES, end: str = ".png") -> None:
    for number in range(count):
        write_image(images / f"{number}.jpg", number)
        write_mask(masks / f"{number}{end}", values)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images with masks of the values 0, 1, 2."""
    write_pairs(tmp_path / "images", tmp_path / "masks", 5)
    return tmp_path


def opened(source: Path | str, **settings) -> Splits:
    return open_splits(DataPart(source=str(source), **settings), SEGMENTATION)


def masks_of(rows: LabeledDataset | None) -> list[str]:
    assert isinstance(rows, MaskDataset)
    return [Path(rows.mask_name(i)).name for i in range(len(rows))]


def the_mask(rows: LabeledDataset, i: int = 0) -> list[list[int]]:
    assert isinstance(rows, MaskDataset)
    mask = rows.mask(i)
    assert mask.dtype == torch.int64
    return mask.tolist()


# what masks store


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.array(VALUES, np.uint8), "L"),
        (np.array(VALUES, np.uint8), "P"),
        (np.array(VALUES, np.uint16), "I;16"),
        (np.array(VALUES, np.int32), "I"),
        (np.repeat(np.array(VALUES, np.uint8)[..., None], 3, axis=2), "RGB"),
    ],
)
def test_masks_are_read_by_their_numbers_in_every_mode(pixels, mode):
    mask = Image.fromarray(pixels)
    if mode == "P":
        mask.putpalette([7, 7, 7, 0, 0, 0, 9, 9, 9])  # neither ascending nor in the order of the values
    assert mask.mode == mode and read_mask_values(mask, {}).tolist() == VALUES


def test_a_mask_of_single_bits_holds_0_and_1():
    assert read_mask_values(Image.fromarray(np.array([[True, False]])), {}).tolist() == [[1, 0]]


def test_16_bit_masks_keep_values_beyond_255(folder):
    write_mask(folder / "masks" / "0.png", [[0, 1, 300], [0, 0, 0]], np.uint16)
    rows = opened(folder, void=[300]).train.dataset
    assert the_mask(rows) == [[0, 1, -100], [0, 0, 0]] and rows.classes == ("0", "1", "2")


def test_colours_are_read_by_a_palette():
    colours = {0: (0, 0, 0), 1: RED, 5: BLUE}
    pixels = np.array([[RED, BLUE], [(0, 0, 0), RED]], dtype=np.uint8)
    assert read_mask_values(Image.fromarray(pixels), colours).tolist() == [[1, 5], [0, 1]]
    assert read_mask_values(Image.fromarray(pixels).convert("RGBA"), colours).tolist() == [[1, 5], [0, 1]]
    pixels[1, 1] = (0, 3, 250)
    with pytest.raises(ValueError, match=r"holds the color \(0, 3, 250\), .* nearest in it is \(0, 0, 255\)"):
        read_mask_values(Image.fromarray(pixels), colours)
    with pytest.raises(ValueError, match="is in color; name what its colors mean with data.palette"):
        read_mask_values(Image.fromarray(pixels), {})


def test_a_palette_of_greys_reads_grey_masks():
    mask = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    assert read_mask_values(mask, {0: (255, 255, 255), 1: (0, 0, 0)}).tolist() == [[1, 0]]
    assert read_mask_values(mask, {0: (255, 0, 255), 1: (0, 0, 0)}).tolist() == [[0, 255]]


def test_a_jpeg_is_no_mask(folder):
    write_image(folder / "masks" / "5.jpg", size=(3, 2))
    write_image(folder / "images" / "5.png", size=(3, 2))
    with pytest.raises(ValueError, match=r"masks/5.jpg is a JPEG, whose compression changes values"):
        opened(folder)


# what values mean


def test_values_without_names_count_from_0_to_the_largest(folder):
    write_mask(folder / "masks" / "3.png", [[0, 4, 255], [0, 0, 0]])
    train, val, _, notes = opened(folder)
    assert train.classes == val.classes == ("0", "1", "2", "3", "4") and train.values == (0, 1, 2, 3, 4)
    assert the_mask(train.dataset, 3) == [[0, 4, -100], [0, 0, 0]]
    assert "20 % of the images of" in notes[0] and "1 of 5 images" in notes[0]


def test_void_classes_are_left_out_and_the_others_close_up(folder):
    for void in ([1], ["b"], ["B"], ["1"]):
        names = ["0", "1", "2"] if void == ["1"] else ["a", "b", "c"]
        rows = opened(folder, classes=names, void=void).train
        assert rows.classes == (names[0], names[2]) and rows.values == (0, 2)
        assert the_mask(rows) == [[0, -100, 1], [1, -100, 0]]


@pytest.mark.parametrize("name", ["Void", "ignore", "unlabeled", "Unlabelled"])
def test_names_of_nothing_are_void_but_the_background_is_a_class(folder, name):
    (folder / "classes.txt").write_text(f"{name}\nbackground\ncat\n")
    rows = opened(folder).train
    assert rows.classes == ("background", "cat") and rows.values == (1, 2)
    assert the_mask(rows) == [[-100, 0, 1], [1, 0, -100]]


def test_255_is_void_unless_it_has_a_name(folder):
    write_mask(folder / "masks" / "0.png", [[0, 1, 255], [0, 0, 0]])
    assert the_mask(opened(folder).train.dataset)[0] == [0, 1, -100]
    named = opened(folder, classes=[str(k) for k in range(256)]).train
    assert the_mask(named.dataset)[0] == [0, 1, 255]


def test_what_data_void_says_replaces_the_usual(folder):
    write_mask(folder / "masks" / "4.png", [[0, 1, 255], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"masks/4.png holds the value 255, .* \(values 0, 2\) nor void \(1\)"):
        check(opened(folder, classes=["a", "b", "c"], void=[1]).train.dataset)


def test_a_value_without_a_meaning_names_its_file_up_front_and_when_read(folder):
    write_mask(folder / "masks" / "1.png", [[0, 7, 1], [0, 0, 0]])
    write_mask(folder / "masks" / "3.png", [[0, 9, 1], [0, 0, 0]])
    rows = opened(folder, classes=["a", "b", "c"]).train.dataset
    message = r"masks/1.png holds the value 7, .* \(values 0 to 2\) nor void \(255\)"
    with pytest.raises(ValueError, match=message + r".* \(and 1 more such images\)"):
        check(rows)
    with pytest.raises(ValueError, match=message):
        rows.mask(1)


def test_a_negative_value_may_be_void_and_values_beyond_the_table_are_none_for_it(folder):
    for number in range(5):
        (folder / "masks" / f"{number}.png").unlink()
        write_mask(folder / "masks" / f"{number}.tif", [[0, -1, 1], [2, 700 if number == 4 else 0, 0]], np.int32)
    rows = opened(folder, classes=["a", "b", "c"], void=[-1]).train.dataset
    assert the_mask(rows) == [[0, -100, 1], [2, 0, 0]]
    with pytest.raises(ValueError, match="masks/4.tif holds the value 700"):
        rows.mask(4)


@pytest.mark.parametrize(("kind", "value"), [(np.uint16, 700), (np.int32, 700), (np.int32, -1)])
def test_a_value_beyond_the_table_is_no_class(folder, kind, value):
    (folder / "masks" / "1.png").unlink()
    write_mask(folder / "masks" / "1.tif", [[0, value, 1], [0, 0, 0]], kind)
    with pytest.raises(ValueError, match=f"holds the value {value}"):
        opened(folder, classes=["a", "b", "c"]).train.dataset.mask(1)


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
def test_settings_that_make_no_classes_are_refused(folder, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        opened(folder, **settings)
    assert "\n" not in str(error.value)


def test_numbers_of_instances_are_not_taken_for_classes(folder):
    write_mask(folder / "masks" / "1.png", [[0, 24005, 1], [0, 0, 0]], np.uint16)
    with pytest.raises(ValueError, match="hold values up to 24005; name the classes in data.classes"):
        opened(folder)


def test_black_and_white_masks_ask_for_a_palette_and_are_read_by_it(folder):
    for number in range(5):
        write_mask(folder / "masks" / f"{number}.png", [[0, 255, 0], [255, 0, 0]])
    with pytest.raises(ValueError, match="hold the values 0 and 255 only"):
        opened(folder)
    (folder / "palette.csv").write_text("name,r,g,b\nground,0,0,0\nroad,255,255,255\n")
    rows = opened(folder).train
    assert rows.classes == ("ground", "road") and the_mask(rows) == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("class_dict.csv", "Name, R, G, B\nVoid,0,0,0\nred thing,255,0,0\nblue thing,0,0,255\n"),
        ("palette.csv", "g,b,r,name\n0,0,0,Void\n0,0,255,red thing\n0,255,0,blue thing\n"),
        ("label_colors.txt", "0 0 0\tVoid\n255 0 0\tred thing\n0 0 255\tblue thing\n"),
        ("mine.csv", "name,r,g,b\nVoid,0,0,0\nred thing,255,0,0\nblue thing,0,0,255\n"),
    ],
)
def test_a_palette_beside_the_data_names_the_colours(tmp_path, file, text):
    write_pairs(tmp_path / "images", tmp_path / "masks", values=[[RED, BLUE, (0, 0, 0)]] * 2)
    (tmp_path / file).write_text(text)
    rows = opened(tmp_path, palette=str(tmp_path / file) if file == "mine.csv" else None).train
    assert rows.classes == ("red thing", "blue thing") and rows.values == (1, 2) and rows.colors == (RED, BLUE)
    assert the_mask(rows) == [[0, 1, -100]] * 2 and check(rows) == ()
    write_mask(tmp_path / "masks" / "2.png", [[(255, 0, 9)] * 3] * 2)
    with pytest.raises(ValueError, match=r"masks/2.png holds the color \(255, 0, 9\)"):
        check(opened(tmp_path, palette=str(tmp_path / file)).train.dataset)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("class_dict.csv", "name,r,g\nx,1,2\n", "class_dict.csv has the columns name, r, g; a palette has"),
        ("class_dict.csv", "name,r,g,b\nx,1,2,256\n", "line 2 of .*class_dict.csv is no name with a color"),
        ("class_dict.csv", "name,r,g,b\nx,1,2,3\ny,1,2,3\n", "line 3 of .* has the color .* of a line above"),
        ("label_colors.txt", "1 2 3 x\n1 2\n", "line 2 of .*label_colors.txt is no name"),
        ("classes.txt", "a\n\nb\n", "line 2 of .*classes.txt is empty; it must name the class of value 1"),
        ("labels.txt", "\xff\xfe", "labels.txt cannot be read as text"),
    ],
)
def test_a_bad_file_of_names_is_refused_by_line(folder, file, text, message):
    (folder / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        opened(folder)


# what rows of images with masks promise


def test_an_image_is_shown_with_its_mask_and_errors_name_the_row(folder):
    rows = opened(folder, limit=2, val_fraction=0.4).train
    image, mask = rows[1]
    assert image.size == (3, 2) and mask.tolist() == VALUES
    with pytest.raises(ValueError, match=f"{rows.name(1)}: too small"), rows.naming_errors(1):
        raise ValueError("too small")


def test_holding_out_and_limiting_share_images_not_classes(folder):
    train, val, _, _ = opened(folder, val_fraction=0.4, limit=2)
    assert (len(train), len(val)) == (2, 2) and isinstance(train, Subset)
    assert not set(masks_of(train)) & set(masks_of(val)) and masks_of(train) == sorted(masks_of(train))
    assert masks_of(opened(folder, val_fraction=0.4).val) == masks_of(val)
    assert len({tuple(masks_of(opened(folder, val_fraction=0.4, split_seed=seed).val)) for seed in range(5)}) > 1
    assert train.name(0) == train.dataset.name(int(train.indices[0]))


def test_classes_without_a_pixel_and_masks_without_a_class_are_mentioned(folder):
    write_mask(folder / "masks" / "2.png", [[255] * 3] * 2)
    rows = opened(folder, classes=["a", "b", "c", "d"]).train.dataset
    assert rows.counts().tolist() == [4, 4, 4, 0]
    missing, void = check(rows)
    assert "none of the 5 masks" in missing and missing.endswith("pixel of the class 'd'")
    assert void.startswith("1 of the 5 masks") and "void" in void


def test_a_mask_of_another_size_names_both_files(folder):
    write_mask(folder / "masks" / "2.png", [[0, 1], [2, 0]])
    rows = opened(folder, classes=["a", "b", "c"]).train.dataset
    message = r"masks/2.png is 2x2 pixels large, and its image .*images/2.jpg 3x2"
    for read in (check, lambda rows: rows.mask(2)):
        with pytest.raises(ValueError, match=message):
            read(rows)


def test_large_sets_are_checked_by_their_headers(folder, monkeypatch):
    monkeypatch.setattr("selfdistill.data.datasets.base.DECODED", 2)
    write_mask(folder / "masks" / "1.png", [[0, 7, 1], [0, 0, 0]])
    assert check(opened(folder, classes=["a", "b", "c"]).train.dataset) == ()  # values are seen when they are needed
    write_mask(folder / "masks" / "2.png", [[0, 1], [2, 0]])
    with pytest.raises(ValueError, match="masks/2.png is 2x2"):
        check(opened(folder, classes=["a", "b", "c"]).train.dataset)


def test_a_mask_belongs_to_the_turned_image(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    for number in range(5):
        write_image(folder / "images" / f"{number}.jpg", size=(2, 3), exif=exif)
    rows = opened(folder).train
    assert check(rows) == () and rows.image(0).size == (3, 2) and the_mask(rows) == VALUES


def test_the_fingerprint_knows_masks_and_what_they_mean(folder):
    first = opened(folder).train.fingerprint()
    assert opened(folder).train.fingerprint() == first
    assert opened(folder, void=[2]).train.fingerprint() != first
    assert opened(folder, classes=["a", "b", "c"]).train.fingerprint() != first
    for number in range(5):
        write_mask(folder / "masks" / f"{number}.png", [[0, 1, 2], [2, 2, 1]], np.uint16)
    assert opened(folder).train.fingerprint() != first


def test_settings_read_the_same_masks_in_the_same_way(folder):
    (folder / "classes.txt").write_text("unlabeled\ncat\ndog\n")
    rows = opened(folder).train
    assert rows.settings() == {"classes": ["unlabeled", "cat", "dog"], "void": [0, 255]}
    (folder / "classes.txt").unlink()
    again = opened(folder, **rows.settings()).train
    assert again.label_map == rows.label_map and again.settings() == rows.settings()


def test_settings_fit_the_palette_that_they_were_read_by(tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "masks", values=[[RED, BLUE, (0, 0, 0)]] * 2)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nred,255,0,0\nblue,0,0,255\nVoid,0,0,0\n")
    rows = opened(tmp_path).train
    assert rows.settings() == {"classes": ["red", "blue", "Void"], "void": [2, 255]}
    assert opened(tmp_path, **rows.settings()).train.label_map == rows.label_map
    with pytest.raises(ValueError, match="data.classes has 2 names, and the palette 3 colors"):
        opened(tmp_path, classes=["a", "b"])


def test_colours_come_from_the_masks_palettes_or_are_far_apart(folder):
    assert opened(folder).train.colors == separate_colors(3)
    mask = Image.fromarray(np.array(VALUES, dtype=np.uint8))
    mask.putpalette([0, 0, 0, *RED, *BLUE])
    for number in range(5):
        mask.save(folder / "masks" / f"{number}.png")
    assert opened(folder, void=[0]).train.colors == (RED, BLUE)


@pytest.mark.parametrize("count", [1, 21, 150, 300])
def test_default_colours_differ(count):
    colours = np.array(separate_colors(count))
    distance = np.abs(colours[:, None] - colours).max(axis=2) + 999 * np.eye(count)
    assert len(colours) == count and distance.min() >= (51 if count < 216 else 42)


# another source


def test_another_source_is_numbered_by_name(folder, tmp_path):
    (folder / "classes.txt").write_text("cat\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("emu\nvoid\ncat\n")
    val = opened(folder, val=str(tmp_path / "more")).val
    assert val.classes == ("cat", "dog", "emu") and the_mask(val) == [[2, -100, 0]] * 2
    assert val.values == (2, -1, 0) and "'dog'" in check(val)[0]


def test_what_is_void_by_name_is_void_in_another_source_too(folder, tmp_path):
    (folder / "classes.txt").write_text("cat\nsky\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("sky\nemu\ncat\n")
    assert the_mask(opened(folder, val=str(tmp_path / "more"), void=["sky"]).val) == [[-100, 1, 0]] * 2


def test_another_source_without_names_stores_what_the_first_one_does(folder, tmp_path):
    (folder / "classes.txt").write_text("void\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 2]] * 2)
    splits = opened(folder, val=str(tmp_path / "more"))
    assert the_mask(splits.val) == [[-100, 0, 1]] * 2
    part = DataPart(source=str(folder), **splits.train.settings())
    rows = open_rows(part, str(tmp_path / "more"), splits.train.classes, SEGMENTATION)
    assert the_mask(rows) == [[-100, 0, 1]] * 2
    rows = open_rows(DataPart(), str(tmp_path / "more"), ("a", "b", "c"), SEGMENTATION)
    assert rows.classes == ("a", "b", "c") and the_mask(rows) == [[0, 1, 2]] * 2
    rows = open_rows(DataPart(), str(tmp_path / "more"), ("2", "1", "0"), SEGMENTATION)
    assert the_mask(rows) == [[2, 1, 0]] * 2


def test_a_class_that_training_does_not_know_is_an_error_where_it_has_pixels(folder, tmp_path):
    (folder / "classes.txt").write_text("cat\ndog\nemu\n")
    write_pairs(tmp_path / "more" / "images", tmp_path / "more" / "masks", values=[[0, 1, 1]] * 2)
    (tmp_path / "more" / "classes.txt").write_text("cat\ngnu\nowl\n")
    val = opened(folder, val=str(tmp_path / "more")).val
    with pytest.raises(ValueError, match=r"more/masks/0.png holds the class 'gnu' \(value 1\), .* cat, dog, emu"):
        check(val)


def test_masks_may_all_be_void(folder):
    assert not opened(folder).train.all_ignored()
    for number in range(5):
        write_mask(folder / "masks" / f"{number}.png", [[2] * 3] * 2)
    assert not opened(folder, classes=["a", "b", "c"]).train.all_ignored()
    assert opened(folder, classes=["a", "b"], void=[2]).train.all_ignored()


# folders


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}/images", "{}/masks"),
        ("{}/img", "{}/labels"),
        ("images/{}", "masks/{}"),
        ("Images/{}", "Annotations/{}"),
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
    ],
)
def test_splits_lie_in_or_around_the_folders_of_images_and_masks(tmp_path, images, masks):
    for count, split in enumerate(("train", "val", "test"), 2):
        write_pairs(tmp_path / images.format(split), tmp_path / masks.format(split), count)
    train, val, test, notes = opened(tmp_path)
    assert [len(rows) for rows in (train, val, test)] == [2, 3, 4] and notes == ()
    assert the_mask(test, 3) == VALUES and Path(test.name(3)).exists() and Path(test.mask_name(3)).exists()


def test_ade20k_says_training_and_validation_and_names_its_objects(tmp_path):
    for split in ("training", "validation"):
        write_pairs(tmp_path / "images" / split, tmp_path / "annotations" / split)
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tName\n1\t0.2\twall\n2\t0.1\tbuilding, edifice\n")
    train, val, _, _ = opened(tmp_path)
    assert train.classes == ("wall", "building") and the_mask(val) == [[-100, 0, 1], [1, 0, -100]]


@pytest.mark.parametrize("end", ["_mask.png", "_L.png", "_label.png", ".tif"])
def test_a_mask_may_be_marked_as_one(tmp_path, end):
    write_pairs(tmp_path / "images" / "a", tmp_path / "masks" / "a", end=end)
    rows = opened(tmp_path).train.dataset
    assert masks_of(rows) == [f"{k}{end}" for k in range(4)] and rows.key(0) == "images/a/0.jpg"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "masks/2.png").unlink(), r"images/2.jpg has no mask of its name in .*masks"),
        (lambda f: [(f / f"images/{k}.jpg").unlink() for k in (1, 3)], r"masks/1.png has no image .*\(and 1 more such"),
        (lambda f: write_image(f / "images/2.png"), "images holds 2.jpg and 2.png; keep one"),
        (lambda f: write_mask(f / "masks/2_mask.png"), "masks holds 2.png and 2_mask.png; keep one"),
        (lambda f: (f / "masks").rename(f / "other"), "holds no images with masks; .* set task=classification"),
        (lambda f: [path.unlink() for path in f.rglob("*.*")], "has no image with a mask"),
        (lambda f: [path.unlink() for path in f.rglob("[1-4].*")], "has one training image"),
        (lambda f: (f / "masks/2.png").write_bytes(b"PNG"), "masks/2.png cannot be read as an image"),
    ],
)
def test_a_folder_of_pairs_that_does_not_match_says_why(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as error:
        opened(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_split_without_masks_is_left_out(tmp_path):
    write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train")
    write_image(tmp_path / "images" / "test" / "0.jpg")
    (tmp_path / "images" / "train" / "notes.txt").write_text("x")
    train, val, test, notes = opened(tmp_path)
    assert test is None and len(train) + len(val) == 4
    assert "the test split has no masks" in notes[0] + notes[1] and "1 other files" in notes[0] + notes[1]


def test_a_split_without_images_is_left_out(tmp_path):
    write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train")
    for name in ("images", "masks"):
        (tmp_path / name / "val").mkdir()
    train, val, _, notes = opened(tmp_path)
    assert (len(train), len(val)) == (3, 1) and f"the val split of {tmp_path} has no images and is left out" in notes


def test_two_folders_for_one_split_are_refused_but_classes_may_be_called_so(tmp_path):
    for split in ("train", "val", "validation"):
        write_pairs(tmp_path / "images" / split, tmp_path / "masks" / split)
    with pytest.raises(ValueError, match="images holds val and validation, which both mean its val split; keep one"):
        opened(tmp_path)
    for name in ("dev", "val", "cat"):
        for number in range(2):
            write_image(tmp_path / "classes" / name / f"{number}.png")
    assert open_splits(DataPart(source=str(tmp_path / "classes")), CLASSIFICATION).train.classes == (
        "cat",
        "dev",
        "val",
    )


def test_the_task_must_fit_the_folder(folder, tmp_path):
    with pytest.raises(ValueError, match="holds images with masks, not class folders; task=segmentation"):
        open_splits(DataPart(source=str(folder)), CLASSIFICATION)
    for source in ("digits", "torchvision:MNIST"):
        with pytest.raises(ValueError, match=f"{source} has a label for every image.*set data=scenes"):
            opened(source)
    for number in range(4):
        write_image(tmp_path / "classes" / "images" / f"{number}.png")
        write_image(tmp_path / "classes" / "labels" / f"{number}x.png")  # two classes with unhappy names
    assert open_splits(DataPart(source=str(tmp_path / "classes")), CLASSIFICATION).train.classes == ("images", "labels")


# published layouts


def write_voc(folder: Path, lists: dict[str, list[str]], *, without: tuple[str, ...] = ()) -> Path:
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for title, names in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{title}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write_image(folder / "JPEGImages" / f"{name}.jpg")
            if name not in without:
                write_mask(folder / "SegmentationClass" / f"{name}.png", [[0, 20, 255], [15, 1, 0]])
    return folder


def test_voc2012_is_split_by_its_lists(tmp_path):
    lists = {"train": ["b", "a"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d"]}
    folder = write_voc(tmp_path / "VOC2012", lists, without=("d",))
    train, val, test, notes = opened(folder)
    assert masks_of(train) == ["b.png", "a.png"] and masks_of(val) == ["c.png"] and test is None
    assert train.classes == VOC_CLASSES and len(VOC_CLASSES) == 21
    assert the_mask(train) == [[0, 20, -100], [15, 1, 0]] and "1 of the 1 test images have no mask" in notes[0]
    assert opened(tmp_path).train.classes == VOC_CLASSES  # one year in a VOCdevkit


def test_a_devkit_of_both_years_is_the_papers_split(tmp_path):
    write_voc(tmp_path / "VOC2007", {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c", "d"]})
    write_voc(tmp_path / "VOC2012", {"train": ["a"], "val": ["e"], "trainval": ["a", "e"], "test": ["f"]})
    train, val, test, notes = opened(tmp_path)
    assert [train.key(i) for i in range(4)] == [
        f"{year}/JPEGImages/{name}.jpg" for year, name in zip(("VOC2007",) * 2 + ("VOC2012",) * 2, "abae", strict=True)
    ]
    assert masks_of(test) == ["c.png", "d.png"] and val is None and "VOC2007" in test.name(0)
    (tmp_path / "VOC2012" / "SegmentationClass" / "e.png").unlink()
    with pytest.raises(ValueError, match="SegmentationClass/e.png is on a list of its split, but does not exist"):
        opened(tmp_path)


def write_city(folder: Path, split: str, values: list, stored: str = "labelIds") -> None:
    for name in ("aachen_0", "aachen_1"):
        write_image(folder / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png")
        write_mask(folder / "gtFine" / split / "aachen" / f"{name}_gtFine_{stored}.png", values)


def test_cityscapes_has_19_classes_whichever_masks_there_are(tmp_path):
    write_city(tmp_path, "train", [[7, 33, 0], [26, 8, 255]])
    write_city(tmp_path, "val", [[7, 33, 0], [26, 8, 255]])
    write_city(tmp_path, "test", [[0, 1, 3], [3, 3, 3]])
    train, val, test, notes = opened(tmp_path)
    assert train.classes == tuple(CITY_VALUES.values()) and len(train.classes) == 19 and train.classes[-1] == "bicycle"
    assert the_mask(train) == the_mask(val) == [[0, 18, -100], [13, 1, -100]] and train.values[:3] == (7, 8, 11)
    assert test is None and "the test split has no labels" in notes[0]
    again = opened(tmp_path, **train.settings())
    labels = train.label_map
    assert (again.train.label_map.classes, again.train.label_map.index) == (labels.classes, labels.index)
    assert again.train.label_map.palette == labels.palette == {}
    for split in ("train", "val"):
        write_city(tmp_path, split, [[0, 18, 255], [13, 1, 255]], "labelTrainIds")
    train, *_ = opened(tmp_path)
    assert the_mask(train) == [[0, 18, -100], [13, 1, -100]] and "labelTrainIds" in train.mask_name(0)


# tables


@pytest.mark.parametrize("header", ["image,mask", "path,label", "Filename,Annotation", "file,segmentation"])
def test_a_csv_names_images_and_masks(folder, header):
    lines = [f"images/{k}.jpg,masks/{k}.png,{split}" for k, split in enumerate(("train", "train", "val", "test"))]
    (folder / "all.csv").write_text("\n".join([f"{header},split", *lines]))
    (folder / "classes.txt").write_text("a\nb\nc\n")
    train, val, test, _ = opened(folder / "all.csv")
    assert [masks_of(rows) for rows in (train, val, test)] == [["0.png", "1.png"], ["2.png"], ["3.png"]]
    assert train.classes == ("a", "b", "c")


def test_json_lines_name_the_mask_column(folder):
    lines = [json.dumps({"image": f"images/{k}.jpg", "label": "x", "truth": f"masks/{k}.png"}) for k in range(4)]
    (folder / "all.jsonl").write_text("\n".join(lines))
    assert masks_of(opened(folder / "all.jsonl", label_column="truth").train.dataset) == [f"{k}.png" for k in range(4)]
    with pytest.raises(ValueError, match="line 1 of .*all.jsonl names .*/x, which does not exist"):
        opened(folder / "all.jsonl")


def write_parquet(path: Path, columns: dict[str, list]) -> Path:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(dict.fromkeys(columns, datasets.Image()))
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(path)
    return path


@pytest.mark.parametrize(("image", "mask"), [("image", "label"), ("pixel_values", "mask"), ("image", "annotation")])
def test_parquet_has_two_columns_of_images(folder, image, mask):
    jpegs = [{"bytes": (folder / f"images/{k}.jpg").read_bytes(), "path": None} for k in range(4)]
    pngs = [{"bytes": (folder / f"masks/{k}.png").read_bytes(), "path": None} for k in range(4)]
    path = write_parquet(folder / "train-0.parquet", {image: jpegs, mask: pngs})
    write_parquet(folder / "test-0.parquet", {image: jpegs[:1], mask: [None]})
    for source in (path, f"hf:{folder}", folder):
        rows = opened(source).train
        assert the_mask(rows) == VALUES and rows.image(0).mode == "RGB" and check(rows) == ()
    assert any("the test split has no labels" in note for note in opened(folder).notes)
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_parquet(str(path), cache_dir=str(folder / "cache")).save_to_disk(folder / "saved")
    (folder / "saved" / "classes.txt").write_text("a\nb\nc\n")
    rows = opened(f"hf:{folder / 'saved'}").train
    assert the_mask(rows) == VALUES and rows.classes == ("a", "b", "c")
    write_mask(folder / "masks" / "x.png", [[0, 1]])
    pngs[2] = {"bytes": (folder / "masks" / "x.png").read_bytes(), "path": None}
    with pytest.raises(ValueError, match="the mask of row 2 of .*train-0.parquet is 2x1 .* image row 2 of"):
        opened(write_parquet(path, {image: jpegs, mask: pngs}))


def test_a_parquet_column_of_masks_can_be_named(folder):
    blobs = [{"bytes": (folder / f"masks/{k}.png").read_bytes(), "path": None} for k in range(4)]
    path = write_parquet(folder / "x.parquet", {"a": blobs, "b": blobs, "c": blobs})
    with pytest.raises(ValueError, match="has the columns a, b, c, none of them called mask.*data.label_column"):
        opened(path)
    with pytest.raises(ValueError, match="none of them called path.*data.image_column"):
        opened(path, label_column="b")
    assert the_mask(opened(path, label_column="b", image_column="c").train) == VALUES
