"""One class for each pixel."""

from ..metrics.segmentation import SegmentationMetric
from .base import TaskKind


class Segmentation(TaskKind):
    """One class for each pixel."""

    output = "pixel"

    def metric(self, num_classes: int, ignore_index: int) -> SegmentationMetric:
        return SegmentationMetric(num_classes, ignore_index=ignore_index)
