"""One class for each image."""

from ..metrics.classification import ClassificationMetric
from .base import TaskKind


class Classification(TaskKind):
    """One class for each image."""

    output = "image"

    def metric(self, num_classes: int, ignore_index: int) -> ClassificationMetric:
        return ClassificationMetric(num_classes)
