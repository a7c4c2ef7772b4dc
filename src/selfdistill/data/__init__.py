"""Images with labels or masks, of any origin -> batches: where they lie, how they are split, augmented and stacked."""

from .augment import eval_transform, train_transform
from .images import read_image
from .loaders import eval_loader, train_loader
from .masks import MaskRows
from .plan import Draw, Plan
from .resolve import resolve
from .rows import Rows
from .splits import Splits, check, open_rows, open_splits
from .steps import image_shape, window
from .trainset import EvalSet, TrainSet

__all__ = [
    "Draw",
    "EvalSet",
    "MaskRows",
    "Plan",
    "Rows",
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
