"""Images with labels or masks, of any origin -> batches: where they lie, how they are split, augmented and stacked."""

from .dataset import EvalSet, TrainSet
from .datasets.base import LabeledDataset
from .datasets.image_io import read_image
from .datasets.masks import MaskDataset
from .defaults import resolve
from .loader import eval_loader, train_loader
from .sampler import Draw, Plan
from .split import Splits, check, open_rows, open_splits
from .transforms.base import image_shape, window
from .transforms.names import eval_transform, train_transform

__all__ = [
    "Draw",
    "EvalSet",
    "MaskDataset",
    "Plan",
    "LabeledDataset",
    "Splits",
    "TrainSet",
    "check",
    "eval_loader",
    "eval_transform",
    "image_shape",
    "open_rows",
    "open_splits",
    "read_image",
    "resolve",
    "train_loader",
    "train_transform",
    "window",
]
