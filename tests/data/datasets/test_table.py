"""CSV and JSON-lines tables of images with labels or masks."""

import json

import pytest

from helpers.images import (
    list_names,
    opened,
    write_classes,
    write_table,
)
from helpers.mask_files import masks_of, opened_masks


@pytest.mark.parametrize("header", ["path,label", "Filename,Class", "image,target", "file;label"])
def test_a_csv_finds_its_columns_by_name(images, header):
    mark = ";" if ";" in header else ","
    rows = [f"images/{i}.png{mark}{'dog' if i % 2 else 'cat'}" for i in range(8)]
    train, val, _, _ = opened(write_table(images / "all.csv", [header, *rows]), val_fraction=0.25)
    assert train.classes == ("cat", "dog") and train.counts().tolist() == [3, 3] and val.counts().tolist() == [1, 1]


def test_a_csv_may_say_the_split_and_have_columns_of_any_name(images):
    splits = ["0,x,train", "1,x,train", "1,x,valid", "0,x,Test"]
    rows = [f"{start},images/{i}.png" for i, start in enumerate(splits)]
    table = write_table(images / "all.csv", ["kind,extra,split,where", *rows])
    train, val, test, _ = opened(table, image_column="where", label_column="kind")
    assert (train.labels.tolist(), val.labels.tolist(), test.labels.tolist()) == ([0, 1], [1], [0])
    assert train.classes == ("0", "1") and list_names(test) == ["images/3.png"]
    with pytest.raises(ValueError, match="no column 'wher'.*did you mean 'where'"):
        opened(table, image_column="wher", label_column="kind")


def test_json_lines_hold_names_or_numbers(images):
    lines = [json.dumps({"path": f"images/{i}.png", "label": i % 2}) for i in range(6)]
    assert opened(write_table(images / "all.jsonl", lines)).train.classes == ("0", "1")
    lines = [json.dumps({"file": str(images / f"images/{i}.png"), "class": "ab"[i % 2]}) for i in range(6)]
    assert opened(write_table(images / "all.jsonl", lines)).train.classes == ("a", "b")


def test_a_validation_table_of_numbers_counts_the_classes_of_a_folder(images):
    write_classes(images / "train", {"cat": 2, "dog": 2, "emu": 2})
    table = write_table(images / "val.csv", ["path,label", "images/0.png,2", "images/1.png,1"])
    assert opened(images / "train", val=str(table)).val.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/3.png,", "line 5 of .*bad.csv has no label"),
        ("images/3.png", "line 5 of .*bad.csv has no label"),
        ("images/3.png,nan", "line 5 of .*bad.csv has no label"),
        ("images/3.png,-1", "line 5 of .*bad.csv has label -1"),
        ("images/3.png,0.5", "line 5 of .*bad.csv has label 0.5"),
        ("images/3.png,99999999", "line 5 of .*bad.csv has label 99999999.*out of range"),
        ("images/3.png,3", "no training image of the class '2'.*without gaps"),
        ("images/x.png,1", "line 5 of .*bad.csv names .*x.png, which does not exist"),
        (",1", "line 5 of .*bad.csv names no image"),
        ("images/3.png,1,2,3", "line 5 of .*bad.csv has more fields"),
        ('"images/3.png,1', "bad.csv cannot be read as CSV"),
    ],
)
def test_a_bad_line_of_a_csv_is_named(images, line, message):
    good = [f"images/{i}.png,{i % 2}" for i in range(3)]
    with pytest.raises(ValueError, match=message):
        opened(write_table(images / "bad.csv", ["path,label", *good, line]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "images/3.png", "label": NaN}', "line 4 of .* has no label"),
        ('{"path": "images/3.png", "label": null}', "line 4 of .* has no label"),
        ('{"path": "images/3.png"}', "line 4 of .* has no label"),
        ('{"path": "images/3.png", "label": [1]}', r"line 4 of .* has label \[1\]"),
        ('{"path": "images/3.png", "label": 1e999}', "line 4 of .* has label inf"),
        ('{"path": 3, "label": 1}', "line 4 of .* names no image"),
        ('{"path": ', "line 4 of .* is not JSON"),
        ("[1, 2]", "line 4 of .* holds a list"),
    ],
)
def test_a_bad_json_line_is_named(images, line, message):
    good = [json.dumps({"path": f"images/{i}.png", "label": i % 2}) for i in range(3)]
    with pytest.raises(ValueError, match=message):
        opened(write_table(images / "bad.jsonl", [*good, line]))


def test_a_table_says_what_it_lacks(images):
    with pytest.raises(ValueError, match="columns a, b, none of them called path, file.*data.image_column"):
        opened(write_table(images / "t.csv", ["a,b", "1,2"]))
    with pytest.raises(ValueError, match="t.csv has no rows"):
        opened(write_table(images / "t.csv", ["path,label"]))
    with pytest.raises(ValueError, match="line 2 of .* has split 'trian'; allowed are train"):
        opened(write_table(images / "t.csv", ["path,label,split", "images/0.png,0,trian"]))
    (images / "t.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="t.csv cannot be read as CSV"):
        opened(images / "t.csv")


@pytest.mark.parametrize("header", ["image,mask", "path,label", "Filename,Annotation", "file,segmentation"])
def test_a_csv_names_images_and_masks(mask_folder, header):
    lines = [f"images/{k}.jpg,masks/{k}.png,{split}" for k, split in enumerate(("train", "train", "val", "test"))]
    (mask_folder / "all.csv").write_text("\n".join([f"{header},split", *lines]))
    (mask_folder / "classes.txt").write_text("a\nb\nc\n")
    train, val, test, _ = opened_masks(mask_folder / "all.csv")
    assert [masks_of(rows) for rows in (train, val, test)] == [["0.png", "1.png"], ["2.png"], ["3.png"]]
    assert train.classes == ("a", "b", "c")


def test_json_lines_name_the_mask_column(mask_folder):
    lines = [json.dumps({"image": f"images/{k}.jpg", "label": "x", "truth": f"masks/{k}.png"}) for k in range(4)]
    (mask_folder / "all.jsonl").write_text("\n".join(lines))
    assert masks_of(opened_masks(mask_folder / "all.jsonl", label_column="truth").train.dataset) == [
        f"{k}.png" for k in range(4)
    ]
    with pytest.raises(ValueError, match="line 1 of .*all.jsonl names .*/x, which does not exist"):
        opened_masks(mask_folder / "all.jsonl")
