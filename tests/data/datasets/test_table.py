"""CSV and JSON-lines tables of images with labels or masks."""

import json
import re
import unicodedata

import pytest

from helpers.images import (
    list_names,
    opened,
    write_classes,
    write_image,
    write_table,
)
from helpers.mask_files import masks_of, opened_masks, write_mask, write_photo
from selfdistill.data import check
from selfdistill.data.datasets.table import MANY, open_table
from selfdistill.data.datasets.table_columns import BLOCK, read_table


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


@pytest.mark.parametrize("start", [["", "", "path,label"], ["sep=,", "path,label"], ["SEP=|", "path|label"]])
def test_a_csv_may_begin_with_empty_lines_or_the_delimiter_that_spreadsheets_read(images, start):
    delimiter = start[-1][4]
    rows = [f"images/{i}.png{delimiter}{'ab'[i % 2]}" for i in range(4)]
    assert opened(write_table(images / "t.csv", [*start, *rows])).train.classes == ("a", "b")
    with pytest.raises(ValueError, match=f"line {len(start) + 5} of .* names no image"):
        opened(write_table(images / "t.csv", [*start, *rows, f"{delimiter}a"]))


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (["0.png,a,train", "1.png,b,train", "0.png,b,val"], "lines 2 and 4 of .*with the labels 'a' and 'b'"),
        (["0.png,a,train", "1.png,b,train", "0.png,a,val"], "lines 2 and 4 of .*in the splits train and val"),
        (["0.png,a,train", "1.png,b,train", "0.png,a,train"], "lines 2 and 4 of .* name the same image twice"),
        (["0.png,a,train", "1.png,b,train", "2.png,a,val"], None),
    ],
)
def test_an_image_that_a_table_names_twice_is_told(images, lines, note):
    rows = [f"images/{line}" for line in lines]
    opened_table = open_table(str(write_table(images / "t.csv", ["path,label,split", *rows])))
    assert len(opened_table.notes) == (note is not None)
    assert note is None or re.search(note, opened_table.notes[0])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_long_table_is_read_as_a_short_one(images, form):
    """Rows are read in blocks, files of large folders are listed, and values may be missing in whole blocks."""
    names = [f"{i}.png" for i in range(2 * MANY)]
    for name in names:
        (images / name).write_bytes((images / "images/0.png").read_bytes())
    rows = [
        (f"{'./' * (i // len(names))}{names[i % len(names)]}", f"class{i % 7}", "val" if i > BLOCK + 5 else "train")
        for i in range(BLOCK + 50)
    ]
    if form == "csv":
        lines = ["path,label,split,note", *[",".join(row) + ",x" * (i > BLOCK + 20) for i, row in enumerate(rows)]]
    else:
        lines = [json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) for row in rows]
        lines[BLOCK + 30] = json.dumps({"note": 1, **json.loads(lines[BLOCK + 30])})
    table = str(write_table(images / f"long.{form}", lines))
    read = open_table(table).splits
    for split in ("train", "val"):
        kept = [row for row in rows if row[2] == split]
        assert list(read[split].paths) == [path for path, _, _ in kept]
        assert [read[split].classes[k] for k in read[split].labels] == [label for _, label, _ in kept]
    assert len(read_table(table).columns["note"]) == len(rows)
    write_table(images / f"long.{form}", [*lines, lines[-1].replace("png", "gif")])
    with pytest.raises(ValueError, match=f"line {len(lines) + 1} of .*gif, which does not exist"):
        open_table(table)


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


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("0_0", "0_1", "1"), ("0_0", "0_1", "1")),
        (("1_1", "1_2", "2_1"), ("1_1", "1_2", "2_1")),
        (("1e0", "1", "0"), ("0", "1", "1e0")),
        (("1e1", "2e1", "3e1"), ("1e1", "2e1", "3e1")),
        (("0x1", "1", "\u0661"), ("0x1", "1", "\u0661")),  # the last one is a digit of another script
        (("0.0", "1.0", "2."), ("0", "1", "2")),
        (("00", "01", "02"), ("0", "1", "2")),
        (("inf", "1", "0"), ("0", "1", "inf")),
    ],
)
def test_a_label_is_a_number_only_if_it_is_written_in_digits(images, labels, classes):
    lines = [f"images/{i}.png,{labels[i % 3]}" for i in range(6)]
    assert opened(write_table(images / "t.csv", ["path,label", *lines])).train.classes == classes


def note_of(images, *labels):
    lines = [f"images/{i}.png,{labels[i % len(labels)]}" for i in range(8)]
    return " ".join(opened(write_table(images / "t.csv", ["path,label", *lines])).notes)


def test_labels_that_may_be_meant_as_one_or_as_none_are_mentioned(images):
    for one, other in (("Cat", "cat"), ("hot dog", "hot_dog"), ("STRASSE", "straße")):
        assert f"the classes {sorted([one, other])[0]!r}, {sorted([one, other])[1]!r} differ only in case" in note_of(
            images, one, other
        )
    assert "differ" not in note_of(images, "cat", "dog")
    assert "line 2 of" in (note := note_of(images, "None", "cat")) and "has label 'None', which is taken for" in note
    assert "line 2 of" in (note := note_of(images, "01", "1", "0")) and "both are the class 1" in note
    assert "both are" not in note_of(images, "0.0", "1", "0", "1.0")


def test_two_columns_of_one_name_are_refused(images):
    lines = [f"images/{i}.png,a,{'bc'[i % 2]}" for i in range(4)]
    with pytest.raises(ValueError, match="t.csv has 2 columns called 'label'; rename or remove all but one"):
        opened(write_table(images / "t.csv", ["path,label,label", *lines]))
    with pytest.raises(ValueError, match="has the columns Label and label; choose one with data.label_column"):
        opened(write_table(images / "t.csv", ["path,Label,label", *lines]))
    assert opened(write_table(images / "t.csv", ["path,Label,label", *lines]), label_column="label").train.classes
    assert opened(write_table(images / "t.csv", ["path,,label,", *(f"{line}," for line in lines)])).train.classes
    with pytest.raises(ValueError, match="line 1 of .* has 2 columns called 'label'"):
        opened(write_table(images / "t.jsonl", ['{"path": "images/0.png", "label": 1, "label": 0}']))


@pytest.mark.parametrize("mask", [False, True])
def test_paths_of_other_systems_are_found(tmp_path, mask):
    names = ["b\u00e4r 0", "b\u00e4r 1", "b\u00e4r 2", "b\u00e4r 3"]
    for k, name in enumerate(names):
        write_photo(tmp_path / "im" / f"{name}.png", k)
        write_mask(tmp_path / "masks" / f"{name}.png")
    for spell in (
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: path.replace("/", "\\"),
        lambda path: unicodedata.normalize("NFD", path).replace("/", "\\"),
        lambda path: path.upper(),
        lambda path: f".\\{path.title()}",
    ):
        if mask:
            lines = [f"{spell(f'im/{name}.png')},{spell(f'masks/{name}.png')}" for name in names]
            rows = opened_masks(write_table(tmp_path / "t.csv", ["image,mask", *lines])).train
        else:
            lines = [f"{spell(f'im/{name}.png')},{k % 2}" for k, name in enumerate(names)]
            rows = opened(write_table(tmp_path / "t.csv", ["path,label", *lines])).train
        check(rows)


def test_a_path_in_another_case_must_mean_one_file_below_the_table(tmp_path):
    for name in ("a/0.png", "a/1.png", "A/0.png", "b/2.png", "../c/3.png"):
        write_image(tmp_path / "set" / name)
    for path in ("A/1.PNG", "a/1.PNG", "B/9.png", "../C/3.png", "B"):
        lines = [f"{path},0", "b/2.png,1"] * 2
        with pytest.raises(ValueError, match="line 2 of .* which does not exist"):
            opened(write_table(tmp_path / "set" / "t.csv", ["path,label", *lines]))
    assert opened(write_table(tmp_path / "set" / "t.csv", ["path,label", *["B/2.PNG,0", "a/0.png,1"] * 2])).train


def test_a_tsv_is_a_table_with_tabs_whatever_its_header_holds(images):
    lines = ["path\tlabel\ta, b, c", *(f"images/{i}.png\t{'cd'[i % 2]}\tx" for i in range(6))]
    assert opened(write_table(images / "t.TSV", lines)).train.classes == ("c", "d")


def test_a_minus_makes_another_number_and_no_similar_name(images):
    rows = [f"images/{i}.png,{('-1', '1', 'cat')[i % 3]}" for i in range(6)]
    notes = opened(write_table(images / "t.csv", ["path,label", *rows])).notes
    assert not [note for note in notes if "-1" in note.replace(str(images), "")]  # folders of pytest have numbers


def test_the_plain_spelling_of_a_path_comes_first(tmp_path):
    write_image(tmp_path / "a\\b.png", 1), write_image(tmp_path / "a" / "b.png", 2)
    lines = ["a\\b.png,0", "a/b.png,1"] * 2
    rows = opened(write_table(tmp_path / "t.csv", ["path,label", *lines])).train
    assert {rows.name(i).removeprefix(f"{tmp_path}/") for i in range(len(rows))} == {"a\\b.png", "a/b.png"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_says_the_encoding(images, encoding, suffix):
    rows = [(f"images/{i}.png", "häuser" if i % 2 else "bäume") for i in range(6)]
    if suffix != ".jsonl":
        text = "\r\n".join(["path\tlabel", *("\t".join(row) for row in rows)])
    else:
        text = "\r\n".join(json.dumps({"path": path, "label": label}, ensure_ascii=False) for path, label in rows)
    (images / f"t{suffix}").write_bytes(text.encode(encoding))
    assert opened(images / f"t{suffix}").train.classes == ("bäume", "häuser")
    (images / f"t{suffix}").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read as .*: it is not in UTF-8 .*; save it as UTF-8"):
        opened(images / f"t{suffix}")
