"""Data: opening, splitting, augmenting and batching images with labels or masks."""

from .cache.cached import CachedDataset
from .dataset import EvalSet, TrainSet
from .datasets.base import LabeledDataset, Sample
from .datasets.image_io import read_image
from .datasets.masks import MaskDataset
from .defaults import choose_defaults
from .loader import eval_loader, train_loader
from .prepare import OpenedData, PreparedData, prepare_data
from .sampler import BatchSampler, EpochIndex, find_sampler
from .split import Splits, check, list_labels, open_one_split, open_splits
from .task_data import TaskData
from .transforms.base import get_scoring_window, image_shape

__all__ = [
    "CachedDataset",
    "EpochIndex",
    "EvalSet",
    "MaskDataset",
    "OpenedData",
    "BatchSampler",
    "PreparedData",
    "Sample",
    "LabeledDataset",
    "Splits",
    "TaskData",
    "TrainSet",
    "check",
    "choose_defaults",
    "eval_loader",
    "find_sampler",
    "image_shape",
    "list_labels",
    "open_one_split",
    "open_splits",
    "prepare_data",
    "read_image",
    "train_loader",
    "get_scoring_window",
]
