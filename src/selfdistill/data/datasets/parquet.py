"""Parquet files and data sets of the Hub's `datasets` library (extra `[hf]`).

Files of up to 2 GiB in total are read into memory with the images still encoded, and no cache is written. `datasets`
unpacks larger files once into its own cache and maps them from there.
"""

import bisect
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ...config.recipe import DataPart
from .base import THREADS, LabeledDataset, quote_names
from .image_io import Source
from .labels import number_labels
from .masks import RawMaskDataset
from .opener import LOCAL, FileOpener
from .parquet_blocks import BlockColumn, BlockTable, RowGroup, list_row_groups
from .patterns import expand_braces, group_by_split, is_pattern, list_files
from .splits import DatasetSplits, parse_split
from .table import IMAGE_NAMES, LABEL_NAMES, MASK_NAMES, find_column
from .text_files import find_spelling, refuse_repeated

IN_MEMORY = 2 * 2**30  # bytes of Parquet files
SUFFIX = ".parquet"


class ColumnReader(NamedTuple):
    """How the columns of a table become a data set."""

    find: Callable[..., tuple[str, ...]]  # takes features and origin; gives the columns to read, the image's first
    read: Callable[..., LabeledDataset | None]  # takes table, features, these columns and origin; None: no labels
    holds_labels: bool = True  # whether the columns behind the first are labels, which fit in memory


class WantedColumns(NamedTuple):
    """The columns that the user named, if any, and what reads them; None: one label for each image."""

    reader: ColumnReader | None = None
    image_column: str | None = None
    label_column: str | Sequence[str] | None = None
    separator: str | None = None  # of labels in text
    at_once: int = 0  # row groups that images are taken from at a time; 0: all, from memory or a cache
    opener: FileOpener = LOCAL

    @classmethod
    def of(cls, settings: DataPart, reader: ColumnReader | None = None) -> "WantedColumns":
        """What the data settings say."""
        columns = (settings.image_column, settings.label_column, settings.separator)
        return cls(reader, *columns, settings.blocks_at_once, FileOpener(settings.opener))


LABELS = WantedColumns()


class Origin(NamedTuple):
    """Where a table comes from, and which columns to read."""

    parts: list[tuple[str, int]]  # (file or split, number of rows), in order
    folder: str  # paths in the image column are relative to it
    wanted: WantedColumns

    @property
    def name(self) -> str:
        return self.parts[0][0]


class TableDataset(LabeledDataset):
    """Rows of an Arrow table whose image column holds encoded bytes, or paths."""

    def __init__(self, images: Any, origin: Origin) -> None:
        self.images, self.origin, self.classes = images, origin, ()
        self.labels = torch.zeros(len(images), dtype=torch.int64)
        self.ends = list(itertools.accumulate(count for _, count in origin.parts))
        self.blocks = images.blocks if isinstance(images, BlockColumn) else None

    def value(self, i: int) -> Any:
        """The stored value of row `i`: bytes, a path, or None."""
        value = self.images[i].as_py()
        if isinstance(value, dict):
            return value.get("path") if value.get("bytes") is None else value["bytes"]
        return value

    def source(self, i: int) -> Source:
        value = self.value(i)
        if value is None:
            raise ValueError(f"{self.name(i)} holds no image")
        if not isinstance(value, str):
            return value
        return os.path.join(self.origin.folder, find_spelling(self.origin.folder, value) or value)

    def name(self, i: int) -> str:
        number = bisect.bisect_right(self.ends, i)
        title, count = self.origin.parts[number]
        return f"row {i - self.ends[number] + count} of {title}"

    def key(self, i: int) -> str:
        return str(i)

    def size(self, i: int) -> int:
        return self.images.size(i) if isinstance(self.images, BlockColumn) else super().size(i)


def open_parquet(path: str, wanted: WantedColumns = LABELS) -> DatasetSplits:
    """The splits of a Parquet file, of a folder of files called `train-*`, `validation-*`, `test-*`, or of a pattern.

    Files without such names, and a single file, hold training rows only.
    """
    datasets = _import_datasets(path)
    files = list_parquet_files(path, wanted.opener)
    splits, notes = {}, []
    for split, members in group_by_split(files, path, _parse_split_of_file, usual="train-*.parquet").items():
        if wanted.at_once:
            splits[split] = _read_blocks(datasets, members, wanted)
            continue
        parts = [(member, _count_rows(member)) for member in members]
        origin = Origin(parts, os.path.dirname(members[0]), wanted)
        splits[split] = _read(datasets, members, origin)
        if _is_large(members):
            cache = datasets.config.HF_DATASETS_CACHE
            notes.append(
                f"{path}: the {split} files are unpacked once into {cache}; data.stream=16 reads them where they are"
            )
    return _keep_labeled(path, splits, notes)


def open_hub(name: str, wanted: WantedColumns = LABELS, *, download: bool = False) -> DatasetSplits:
    """A data set of the Hub, or a local folder in any layout that `datasets` knows.

    The network is used only if `download` is True.
    """
    datasets = _import_datasets(f"hf:{name}")
    name = os.path.expanduser(name)
    if not os.path.isdir(name) and (not name or name[0] in "./"):
        raise ValueError(f"hf:{name} names no folder; after hf: comes a name of the Hub or a local folder")
    if os.path.isdir(name) and list_parquet_files(name):
        return open_parquet(name, wanted)
    if wanted.at_once:
        raise ValueError(
            f"data.stream has no effect on hf:{name}, which `datasets` keeps in its own cache; name the folder of its"
            " Parquet files, or open them by data.opener"
        )
    loaded = _load(datasets, name, download)
    splits = {}
    for split, dataset in loaded.items():
        if parse_split(split) is None:
            continue
        flat = dataset.flatten_indices(keep_in_memory=True) if dataset._indices is not None else dataset
        origin = Origin([(f"{name} ({split})", len(flat))], "", wanted)
        find, read, _ = wanted.reader or LABEL_READER
        splits[parse_split(split)] = read(flat.data, flat.features, find(flat.features, origin), origin)
    if not splits:
        raise ValueError(f"hf:{name} has the splits {', '.join(loaded)}, none of them called train, validation or test")
    return _keep_labeled(f"hf:{name}", splits, [])


def _keep_labeled(where: str, splits: dict[str, LabeledDataset | None], notes: list[str]) -> DatasetSplits:
    """Drops the splits without labels or masks, with a note on each."""
    for split, dataset in splits.items():
        if dataset is None:
            notes.append(f"{where}: the {split} split has no labels and is left out")
    return DatasetSplits({split: dataset for split, dataset in splits.items() if dataset is not None}, tuple(notes))


def _load(datasets: Any, name: str, download: bool) -> dict[str, Any]:
    """The splits by name. Reads from the disk only, unless `download`."""
    try:
        if any(os.path.isfile(os.path.join(name, state)) for state in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(name)
        else:
            with _restrict_network(datasets, download):
                loaded = datasets.load_dataset(name)
    except Exception as error:  # the library raises nearly any type here
        if not download and not os.path.isdir(name):
            raise ValueError(f"hf:{name} is not on this machine; data.download=true fetches it from the Hub") from None
        raise ValueError(
            f"hf:{name} cannot be loaded: {' '.join(str(error).split())}; check its name and the network"
        ) from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


@contextmanager
def _restrict_network(datasets: Any, allowed: bool) -> Iterator[None]:
    """Keeps `datasets` off the network unless `allowed`."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _import_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ValueError(f'{source} needs the package datasets; pip install "selfdistill[hf]"') from None
    return datasets


def list_parquet_files(path: str, opener: FileOpener = LOCAL) -> list[str]:
    """The Parquet files in a folder, or in `data` in it, or those that a name or a pattern means; [] for none."""
    if opener.function is not None:
        return [name for name in expand_braces(path) if name.lower().endswith(SUFFIX)]
    for folder in (path, os.path.join(path, "data")):
        if os.path.isdir(folder):
            names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIX) and name[0] != ".")
            if names:
                return [os.path.join(folder, name) for name in names]
    if not path.lower().endswith(SUFFIX) or os.path.isdir(path):
        return []
    return [path] if os.path.exists(path) else list_files(path) if is_pattern(path) else []


def _parse_split_of_file(path: str) -> str:
    """The split that a file name begins with, "" for none."""
    return parse_split(re.split(r"[-_.]", os.path.basename(path))[0]) or ""


def _count_rows(file: str) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(file).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _is_large(files: list[str]) -> bool:
    return sum(map(os.path.getsize, files)) > IN_MEMORY


def _read(datasets: Any, files: list[str], origin: Origin) -> LabeledDataset | None:
    """Reads files with the same columns: small ones into memory, large ones through the cache of `datasets`."""
    import pyarrow
    import pyarrow.parquet

    file = files[0]
    try:
        schema = pyarrow.parquet.read_schema(file)
        refuse_repeated(schema.names, file)
        features = datasets.Features.from_arrow_schema(schema)
        find, read, _ = origin.wanted.reader or LABEL_READER
        columns = find(features, origin)
        if _is_large(files):
            with _restrict_network(datasets, False):
                table = datasets.load_dataset("parquet", data_files={"train": files}, split="train").data
        else:
            tables = []
            for file in files:  # one by one, so that the error below names the right file
                tables.append(pyarrow.parquet.read_table(file, columns=list(columns)))
            table = pyarrow.concat_tables(tables)
    except (pyarrow.ArrowException, datasets.exceptions.DatasetsError, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    return read(table, features, columns, origin)


def _read_blocks(datasets: Any, files: list[str], wanted: WantedColumns) -> LabeledDataset | None:
    """As `_read`, but leaves images where they are; labels are read."""
    import pyarrow
    import pyarrow.parquet

    find, read, holds_labels = wanted.reader or LABEL_READER

    def look(file: str) -> tuple[Any, list[RowGroup], Any]:
        try:
            with wanted.opener.open(file) as stream:
                opened = pyarrow.parquet.ParquetFile(stream)
                features = datasets.Features.from_arrow_schema(opened.schema_arrow)
                columns = find(features, Origin([(file, 0)], "", wanted))
                labels = opened.read(columns=[*columns[1:]]) if holds_labels else None
                return (features, columns), list_row_groups(file, opened.metadata), labels
        except (pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
            raise ValueError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from None

    with ThreadPoolExecutor(THREADS) as pool:
        looks = list(pool.map(look, files))
    features, columns = looks[0][0]
    labels = pyarrow.concat_tables([labels for _, _, labels in looks]) if holds_labels else None
    parts = [(file, sum(group.rows for group in groups)) for file, (_, groups, _) in zip(files, looks, strict=True)]
    table = BlockTable(
        [group for _, groups, _ in looks for group in groups],
        columns if labels is None else columns[:1],
        labels,
        wanted.opener,
        wanted.at_once,
    )
    return read(table, features, columns, Origin(parts, os.path.dirname(files[0]), wanted))


def _find_label_columns(features: Any, origin: Origin) -> tuple[str, str]:
    """The names of the image and the label column."""
    wanted, where = origin.wanted, origin.name
    return find_image_column(features, wanted.image_column, where), _find_label_column(
        features, wanted.label_column, where
    )


def _read_labeled(table: Any, features: Any, columns: tuple[str, str], origin: Origin) -> TableDataset | None:
    """The labeled rows of a table; None if no row has a label, as in published test sets."""
    image, label = columns
    values = table.column(label).to_pylist()
    if values and all(value in (None, -1) for value in values):
        return None
    dataset = read_images(table, features, image, origin)
    dataset.labels, dataset.classes, dataset.label_notes = number_labels(values, dataset.name)
    if label in _list_columns_of_type(features, "ClassLabel"):
        names = tuple(features[label].names)
        for i in (dataset.labels >= len(names)).nonzero().flatten().tolist()[:1]:
            known = f"the {len(names)} classes {quote_names(names)}"
            raise ValueError(f"{dataset.name(i)} has label {values[i]}, out of range for {known}")
        dataset.classes = names
    return dataset


def _find_mask_columns(features: Any, origin: Origin) -> tuple[str, str]:
    """The names of the image and the mask column."""
    wanted, where = origin.wanted, origin.name
    typed = _list_columns_of_type(features, "Image")
    usual = [name for name in typed if name.lower() in MASK_NAMES]
    names = usual if usual and wanted.label_column is None else list(features)
    mask = find_column(names, wanted.label_column, MASK_NAMES, where, "label_column")
    others = {name: feature for name, feature in features.items() if name != mask}
    return find_image_column(others, wanted.image_column, where), mask


def _read_masked(table: Any, features: Any, columns: tuple[str, str], origin: Origin) -> RawMaskDataset | None:
    """The rows of a table with their masks; None if no row has a mask, as in published test sets."""
    image, mask = columns
    if len(table) and table.column(mask).null_count == len(table):
        return None
    images, masks = (read_images(table, features, name, origin) for name in (image, mask))
    return RawMaskDataset(images, masks)


def read_images(table: Any, features: Any, name: str, origin: Origin) -> TableDataset:
    """The images of a column, without labels."""
    dataset = TableDataset(table.column(name), origin)
    if len(table) and not isinstance(dataset.value(0), bytes | str | None):
        raise ValueError(f"column {name!r} of {origin.name} holds {features[name]}, not encoded images or their paths")
    return dataset


LABEL_READER = ColumnReader(_find_label_columns, _read_labeled)
MASK_READER = ColumnReader(_find_mask_columns, _read_masked, holds_labels=False)


def _list_columns_of_type(features: Any, feature_class: str) -> list[str]:
    """The columns whose type is the class `feature_class` of `datasets`."""
    import datasets

    return [name for name, feature in features.items() if isinstance(feature, getattr(datasets, feature_class))]


def find_image_column(features: Any, column_name: str | None, where: str) -> str:
    typed = _list_columns_of_type(features, "Image")
    if column_name is None and len(typed) == 1:
        return typed[0]
    return find_column(
        list(features) if column_name else typed or list(features), column_name, IMAGE_NAMES, where, "image_column"
    )


def _find_label_column(features: Any, column_name: str | None, where: str) -> str:
    typed = _list_columns_of_type(features, "ClassLabel")
    if column_name is None and len(typed) > 1 and "label" not in typed:
        raise ValueError(f"{where} has several label columns, {', '.join(typed)}; choose one with data.label_column")
    if column_name is None and len(typed) == 1:
        return typed[0]
    name = find_column(list(features), column_name, LABEL_NAMES, where, "label_column")
    if name in _list_columns_of_type(features, "Image"):
        raise ValueError(
            f"column {name!r} of {where} holds images (masks), not class labels; task=segmentation learns from masks"
        )
    return name
