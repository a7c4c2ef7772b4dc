"""Parquet files and data sets of the Hub's `datasets` library (extra `[hf]`).

Files of up to 2 GiB in total are read into memory with the images still encoded, and no cache is written. `datasets`
unpacks larger files once into its own cache and maps them from there. With `data.stream` the images stay where they
are, see `parquet_blocks.py`.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from .base import LabeledDataset
from .columns import LABEL_READER, LABELS, Origin, WantedColumns
from .opener import LOCAL, FileOpener
from .parquet_blocks import BlockTable, RowGroup, list_row_groups
from .patterns import expand_braces, group_by_split, is_pattern, list_files
from .splits import DatasetSplits, parse_split
from .text_files import refuse_repeated
from .threads import THREADS

IN_MEMORY = 2 * 2**30  # bytes of Parquet files
SUFFIX = ".parquet"


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
        advice = "; data.stream=16 reads it where it is, without unpacking it" if _is_large(files) else ""
        raise ValueError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}{advice}") from None
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
