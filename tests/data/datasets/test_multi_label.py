"""Images of several classes, from every form in which people store them."""

import json
import os

import pytest
import torch

from helpers.images import encoded, write_image, write_table
from selfdistill.config.recipe import DataPart
from selfdistill.data import open_splits
from selfdistill.data.datasets.base import ImageFileDataset
from selfdistill.data.datasets.multi_label import MultiLabelDataset
from selfdistill.data.datasets.registry import open_source
from selfdistill.data.findings import find_all
from selfdistill.data.inspection import inspect_images
from selfdistill.tasks import find_task

SHOWN = [["red"], ["blue", "red"], [], ["green"], ["green", "red"], ["blue"], ["blue"], ["green", "blue", "red"]]
CLASSES = ("blue", "green", "red")
EXPECTED = [[int(name in names) for name in CLASSES] for names in SHOWN]


@pytest.fixture
def files(tmp_path):
    return [write_image(tmp_path / f"{i}.png", i).name for i in range(len(SHOWN))]


def opened(source, task="multilabel", **settings):
    return open_source(DataPart(source=str(source), **settings), str(source), find_task(task))


def labels_of(source, **settings):
    """The labels of the training images in the order of `CLASSES`."""
    train = opened(source, **settings).splits["train"]
    return train.labels[:, [train.classes.index(name) for name in CLASSES]].tolist()


@pytest.mark.parametrize("mark", [";", "|", " "])
def test_text_is_cut_at_the_separator(tmp_path, files, mark):
    rows = [f"{file},{mark.join(names)}" for file, names in zip(files, SHOWN, strict=True)]
    table = write_table(tmp_path / "t.csv", ["path,labels", *rows])
    assert labels_of(table, separator=mark) == EXPECTED
    with pytest.raises(
        ValueError, match=f"line .* has the label '.*', which looks like .* set data.separator='.{mark[1:]}'"
    ):
        opened(table)


def test_lists_are_taken_as_they_are(tmp_path, files):
    rows = [json.dumps({"path": file, "tags": names}) for file, names in zip(files, SHOWN, strict=True)]
    assert labels_of(write_table(tmp_path / "t.jsonl", rows)) == EXPECTED
    rows = [f'{file},"{names}"' for file, names in zip(files, SHOWN, strict=True)]  # as pandas writes lists
    assert labels_of(write_table(tmp_path / "t.csv", ["path,labels", *rows])) == EXPECTED


@pytest.mark.parametrize(("no", "yes"), ["01", ("0.0", "1.0"), ("False", "True")])
def test_columns_of_no_and_yes_are_classes(tmp_path, files, no, yes):
    cells = [",".join(yes if shown else no for shown in row) for row in EXPECTED]
    rows = [f"{file},{cell},7" for file, cell in zip(files, cells, strict=True)]
    table = write_table(tmp_path / "t.csv", ["path,blue,green,red,width", *rows])
    assert labels_of(table) == EXPECTED
    chosen = opened(table, label_column=["red", "blue"]).splits["train"]
    assert chosen.classes == ("red", "blue") and chosen.counts().tolist() == [4, 4]
    for wrong, sentence in (
        ({"label_column": ["red", "bleu"]}, r"no column 'bleu' \(label_column\); did you mean 'blue'"),
        ({"label_column": ["red", "width"]}, "line 2 of .* has '7' in its column 'width'"),
        ({"separator": ";"}, "data.separator=; has no effect on a column for each class"),
        (
            {"label_column": ["red", "blue"], "task": "classification"},
            "names 2 columns, and task=classification",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            opened(table, **wrong)


UNKNOWN = [[1, 0], [2, 1]]  # image and class of labels that are not known
PARTIAL = [[-100 if [i, k] in UNKNOWN else value for k, value in enumerate(row)] for i, row in enumerate(EXPECTED)]


@pytest.mark.parametrize("mark", ["?", "-1"])
def test_a_mark_in_a_column_or_before_a_label_says_that_it_is_not_known(tmp_path, files, mark):
    cells = [",".join(mark if value == -100 else str(value) for value in row) for row in PARTIAL]
    rows = [f"{file},{cell}" for file, cell in zip(files, cells, strict=True)]
    table = write_table(tmp_path / "t.csv", ["path,blue,green,red", *rows])
    assert labels_of(table) == PARTIAL
    train = opened(table).splits["train"]
    assert train.counts().tolist() == [3, 3, 4] and train.count_labels().known.tolist() == [7, 7, 8]
    assert train.find_classes(1) == [2]
    assert "2 of 24 labels (8%) are marked as not known" in str(train.describe_labels())
    lists = [[*names] for names in SHOWN]
    lists[1] = ["?blue", "red"]
    lists[2] = ["? green"]
    rows = [f"{file},{';'.join(names)}" for file, names in zip(files, lists, strict=True)]
    assert labels_of(write_table(tmp_path / "s.csv", ["path,labels", *rows]), separator=";") == PARTIAL
    rows = [json.dumps({"path": file, "tags": names}) for file, names in zip(files, lists, strict=True)]
    assert labels_of(write_table(tmp_path / "t.jsonl", rows)) == PARTIAL


def test_a_mark_alone_says_it_of_all_classes_that_are_not_named_and_an_empty_cell_says_nothing(tmp_path, files):
    rows = [f"{files[0]},red;?", f"{files[1]},green;blue", f"{files[2]},"]
    assert labels_of(write_table(tmp_path / "s.csv", ["path,labels", *rows]), separator=";") == [
        [-100, -100, 1],
        [1, 1, 0],
        [0, 0, 0],
    ]
    again = [f"{files[0]},red", f"{files[0]},?blue", f"{files[1]},green"]
    assert labels_of(write_table(tmp_path / "again.csv", ["path,label", *again])) == [[-100, 0, 1], [0, 1, 0]]
    rows = [f"{files[0]},1,", f"{files[1]},0,1"]
    table = write_table(tmp_path / "t.csv", ["path,red,blue", *rows])
    with pytest.raises(ValueError, match=r"column 'blue'; .* and \? or -1 where that is not known"):
        opened(table, label_column=["red", "blue"])
    rows = [f"{files[0]},1,-1", f"{files[1]},-1,1"]
    table = write_table(tmp_path / "t.csv", ["path,red,blue", *rows])
    with pytest.raises(ValueError, match="hold no 0; .* so write 0"):
        opened(table)


def test_lines_that_name_an_image_again_add_to_its_labels(tmp_path, files):
    rows = [f"{file},{name}" for file, names in zip(files, SHOWN, strict=True) for name in names]
    read = opened(write_table(tmp_path / "t.csv", ["path,label", *rows])).splits["train"]
    assert read.labels.tolist() == [row for row in EXPECTED if any(row)]
    assert read.name(1).endswith("1.png") and read.label_notes == (
        f"4 lines of {tmp_path / 't.csv'} name an image again, whose labels are taken together",
    )


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_class_folders_are_one_image(tmp_path, files, link):
    folder = tmp_path / "linked"
    for file, names in zip(files, SHOWN, strict=True):
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            link(tmp_path / file, folder / name / file)
    train = opened(folder).splits["train"]
    rows = {os.path.basename(train.name(i)): train.labels[i].tolist() for i in range(len(train))}
    assert rows == {file: row for file, row in zip(files, EXPECTED, strict=True) if any(row)}


@pytest.mark.parametrize("form", ["lists", "text", "columns"])
def test_parquet_files_hold_lists_text_or_columns(tmp_path, files, form):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "lists": {"labels": SHOWN},
        "text": {"labels": [";".join(names) for names in SHOWN]},
        "columns": {name: [bool(row[k]) for row in EXPECTED] for k, name in enumerate(CLASSES)},
    }[form]
    images = [encoded(tmp_path / file) for file in files]
    parquet.write_table(pyarrow.table({"image": images, **columns}), tmp_path / "t.parquet")
    assert labels_of(tmp_path / "t.parquet", **{"separator": ";"} if form == "text" else {}) == EXPECTED


def test_lists_of_numbers_have_the_names_of_their_column(tmp_path, files):
    datasets = pytest.importorskip("datasets")
    names = ["red", "green", "blue"]
    kinds = datasets.Sequence(datasets.ClassLabel(names=names))
    table = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / file) for file in files], "labels": [[names.index(n) for n in s] for s in SHOWN]},
        features=datasets.Features({"image": datasets.Image(), "labels": kinds}),
    )
    table.to_parquet(str(tmp_path / "t.parquet"))
    assert opened(tmp_path / "t.parquet").splits["train"].classes == tuple(names)
    assert labels_of(tmp_path / "t.parquet") == EXPECTED


def test_every_share_has_images_of_every_class(tmp_path):
    labels = torch.zeros(103, 3, dtype=torch.int64)
    labels[:60, 0] = 1
    labels[50:62, 1] = 1
    labels[[3, 55, 61, 70, 80], 2] = 1
    images = ImageFileDataset(str(tmp_path), [f"{i}.png" for i in range(103)], [0] * 103, classes=())
    dataset = MultiLabelDataset(images, labels, classes=("often", "seldom", "rare"))
    groups = dataset.groups()
    assert sorted(torch.cat(groups).tolist()) == list(range(103)) and min(map(len, groups)) >= 2
    single = MultiLabelDataset(images.subset(torch.arange(4)), labels[[0, 3, 55, 102]], classes=dataset.classes)
    assert [len(group) for group in single.groups()] in ([2, 2], [4], [3, 1]) and single.describe_label(3) == "no class"
    assert sum(map(len, single.groups())) == 4 and min(map(len, single.groups())) > 1


def test_a_label_that_looks_like_several_is_pointed_out(tmp_path, files):
    rows = [f"{file},{' '.join(names) or 'red'}" for file, names in zip(files * 2, SHOWN * 2, strict=True)]
    table = write_table(tmp_path / "t.csv", ["path,label", *rows])
    sentence = "3 classes look like several, 'blue red' like 'blue', 'red'; where images show several, take task=mul"
    inspections = {"train": inspect_images(opened(table, task="classification").splits["train"], range(8))}
    assert any(found.sentence.startswith(sentence) for found in find_all(inspections))
    splits = open_splits(DataPart(source=str(table)), find_task("classification"))
    assert any(sentence in note for note in splits.notes)
