"""Files that name the values of masks."""

import pytest

from helpers.mask_files import BLUE, RED, opened_masks, the_mask, write_mask, write_pairs
from selfdistill.data import check


def test_black_and_white_masks_ask_for_a_palette_and_are_read_by_it(mask_folder):
    for number in range(5):
        write_mask(mask_folder / "masks" / f"{number}.png", [[0, 255, 0], [255, 0, 0]])
    with pytest.raises(ValueError, match="hold the values 0 and 255 only"):
        opened_masks(mask_folder)
    (mask_folder / "palette.csv").write_text("name,r,g,b\nground,0,0,0\nroad,255,255,255\n")
    rows = opened_masks(mask_folder).train
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
    rows = opened_masks(tmp_path, palette=str(tmp_path / file) if file == "mine.csv" else None).train
    assert rows.classes == ("red thing", "blue thing") and rows.values == (1, 2) and rows.colors == (RED, BLUE)
    assert the_mask(rows) == [[0, 1, -100]] * 2 and check(rows) == ()
    write_mask(tmp_path / "masks" / "2.png", [[(255, 0, 9)] * 3] * 2)
    with pytest.raises(ValueError, match=r"masks/2.png holds the color \(255, 0, 9\)"):
        check(opened_masks(tmp_path, palette=str(tmp_path / file)).train.dataset)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("class_dict.csv", "name,r,g\nx,1,2\n", "class_dict.csv has the columns name, r, g; a palette has"),
        ("class_dict.csv", "name,r,g,b\nx,1,2,256\n", "line 2 of .*class_dict.csv is no name with a color"),
        ("class_dict.csv", "name,r,g,b\nx,1,2,3\ny,1,2,3\n", "line 3 of .* has the color .* of a line above"),
        ("label_colors.txt", "1 2 3 x\n1 2\n", "line 2 of .*label_colors.txt is no name"),
        ("classes.txt", "a\n\nb\n", "line 2 of .*classes.txt is empty; it must name the class of value 1"),
        ("labels.txt", "caf\xe9\n", "labels.txt cannot be read as text: it is not in UTF-8 .*; save it as UTF-8"),
    ],
)
def test_a_bad_file_of_names_is_refused_by_line(mask_folder, file, text, message):
    (mask_folder / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        opened_masks(mask_folder)


def test_ade20k_says_training_and_validation_and_names_its_objects(tmp_path):
    for split in ("training", "validation"):
        write_pairs(tmp_path / "images" / split, tmp_path / "annotations" / split)
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tName\n1\t0.2\twall\n2\t0.1\tbuilding, edifice\n")
    train, val, _, _ = opened_masks(tmp_path)
    assert train.classes == ("wall", "building") and the_mask(val) == [[-100, 0, 1], [1, 0, -100]]
