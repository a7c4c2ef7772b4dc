"""The tasks of the package, for tests of what they share."""

from selfdistill.tasks import find_task

CLASSIFICATION = find_task("classification")
SEGMENTATION = find_task("segmentation")
MULTI_LABEL = find_task("multilabel")
