"""The classification data sets of torchvision, by class name."""

import inspect
import os
from typing import Any

from ...errors import did_you_mean
from .base import ImageFileDataset, LabeledDataset, PairDataset
from .splits import DatasetSplits

# mirroring turns their images into other characters, or into none
CHARACTERS = ("MNIST", "KMNIST", "USPS", "SVHN", "RenderedSST2", "GTSRB")
PICTURES = (
    *("CIFAR10", "CIFAR100", "FashionMNIST", "STL10", "Flowers102", "Food101", "DTD", "FGVCAircraft", "StanfordCars"),
    *("OxfordIIITPet", "EuroSAT", "Country211", "Imagenette", "SUN397", "ImageNet"),
)
SPLIT_ARGUMENTS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


def open_torchvision(name: str, root: str, *, download: bool = False) -> DatasetSplits:
    """Opens the splits of `torchvision.datasets.NAME`; fetches files only if `download`."""
    import torchvision.datasets

    known = [*CHARACTERS, *PICTURES]
    if name not in known:
        hint = did_you_mean(name, known, "torchvision:")
        raise ValueError(f"torchvision:{name} is not a classification set of torchvision{hint}")
    dataset_class = getattr(torchvision.datasets, name)
    splits = {}
    for split, arguments in _list_splits(dataset_class).items():
        for argument in arguments:
            dataset = _load(dataset_class, root, argument, download)
            if dataset is not None:
                splits[split] = _create_dataset(dataset, f"{name} ({split})", name not in CHARACTERS)
                break
    return DatasetSplits(splits)


def _list_splits(dataset_class: type) -> dict[str, list[dict[str, Any]]]:
    """The arguments to try for each split. A class without such an argument has only a training split."""
    parameters = inspect.signature(dataset_class).parameters
    if "split" in parameters:
        return {split: [{"split": value} for value in values] for split, values in SPLIT_ARGUMENTS.items()}
    if "train" in parameters:
        return {"train": [{"train": True}], "test": [{"train": False}]}
    return {"train": [{}]}


def _load(dataset_class: type, root: str, arguments: dict[str, Any], download: bool) -> Any:
    """Opens one split; None if the data set does not have it."""
    if "download" in inspect.signature(dataset_class).parameters:
        arguments = {**arguments, "download": download}
    name = f"torchvision:{dataset_class.__name__}"
    try:
        return dataset_class(root, **arguments)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs the package {error.name}; pip install {error.name}") from None
    except (RuntimeError, OSError, ValueError) as error:
        if isinstance(error, ValueError) and "split" in str(error):
            return None
        if download:
            raise ValueError(f"{name} could not be fetched to {root}: {' '.join(str(error).split())}") from None
        fetch = "data.download=true fetches them" if "download" in arguments else "they must be fetched by hand"
        raise ValueError(f"the files of {name} are not in {os.path.abspath(root)}, or not whole; {fetch}") from None


def _create_dataset(dataset: Any, title: str, mirrorable: bool) -> LabeledDataset:
    labels = _read_labels(dataset)
    count = int(max(labels)) + 1
    names = getattr(dataset, "classes", ())
    classes = [_format_class_name(name) for name in names] if len(names) >= count else [str(k) for k in range(count)]
    files = _list_files(dataset)
    if files is None:
        return PairDataset(dataset, labels, classes=classes, title=title, mirrorable=mirrorable)
    pairs = sorted((os.path.relpath(path, dataset.root), label) for path, label in zip(files, labels, strict=True))
    paths, labels = zip(*pairs, strict=True)  # sorted, because some classes list files in the order of the disk
    return ImageFileDataset(str(dataset.root), paths, labels, classes=classes, mirrorable=mirrorable)


def _format_class_name(name: Any) -> str:
    return ", ".join(name) if isinstance(name, tuple) else str(name)


def _read_labels(dataset: Any) -> list[int]:
    """Reads all labels without decoding an image; torchvision's classes keep them under one of these names."""
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None:
            return [int(label) for label in labels]
    return [int(label) for _, label in dataset._samples]


def _list_files(dataset: Any) -> list[str] | None:
    """The paths of the image files; None for a class that keeps no list of them."""
    for name in ("_image_files", "_images", "samples", "_samples"):
        items = getattr(dataset, name, None)
        if items is not None and len(items) and isinstance(_get_path(items[0]), str | os.PathLike):
            return [os.fspath(_get_path(item)) for item in items]
    return None


def _get_path(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item
