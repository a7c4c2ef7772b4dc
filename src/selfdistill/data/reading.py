"""Reads a data set in one pass that decodes each image at most once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .datasets.base import LabeledDataset, summarize_errors
from .datasets.conversion import Stored
from .datasets.threads import find_errors


class ImageUse(ABC):
    """Something that needs decoded images."""

    indices: range | frozenset[int]  # the images that it needs

    @abstractmethod
    def add(self, i: int, image: Stored) -> None:
        """Takes the stored image `i`. Called from several threads."""

    def finish(self) -> None:  # noqa: B027
        """Called after the last image."""

    def abandon(self) -> None:  # noqa: B027
        """Called instead of `finish` if an image could not be used."""


def read_images(
    dataset: LabeledDataset, uses: Sequence[ImageUse], *, check: range | frozenset[int] = frozenset()
) -> None:
    """Gives each image to all `uses` that need it, and checks that the images at `check` can be read.

    Memory holds one image per thread. Raises `ValueError` that names the first image that cannot be used, and counts
    the others.
    """
    indices = sorted({*check, *(i for use in uses for i in use.indices)})

    def read(i: int) -> None:
        _read_image(dataset, i, [use for use in uses if i in use.indices])

    errors = ["reading was interrupted"]
    try:
        errors = list(find_errors(read, indices).values())
    finally:
        for use in uses:
            use.abandon() if errors else use.finish()
    if errors:
        raise ValueError(summarize_errors(errors))


def check_images(dataset: LabeledDataset, uses: Sequence[ImageUse] = ()) -> None:
    """Checks images before they are needed, and reads the images for `uses`.

    Reads up to 50,000 headers, and decodes all images of data sets up to 5,000. Errors as in `read_images`. A second
    call checks nothing again.
    """
    _ = dataset.formats
    check_all = dataset.is_decoded_by_check and not dataset.is_checked
    read_images(dataset, uses, check=range(len(dataset) if check_all else 0))
    dataset.is_checked = True


def _read_image(dataset: LabeledDataset, i: int, uses: Sequence[ImageUse]) -> None:
    if not uses:
        dataset.check(i)
        return
    image = dataset.read(i)
    with dataset.name_errors(i):
        for use in uses:
            use.add(i, image)
