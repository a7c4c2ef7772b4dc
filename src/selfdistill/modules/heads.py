"""Linear classifiers on feature maps: a score of the whole image, or a score of every pixel."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..features.extractor import Taps
from ..features.hooks import Recorder
from ..features.modes import set_mode
from ..features.probe import DryRun, agree
from .blocks import ConvBNReLU, Map, bilinear


class ImageClassifier(nn.Linear):
    """Scores of the image: the mean over the positions of a map, then a linear layer."""

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        # Unlike that of `mean`, its gradient has the memory format of the map, as the layers before it expect.
        return super().forward(F.avg_pool2d(feature, feature.shape[2:]).flatten(1))


class PixelClassifier(nn.Conv2d):
    """Scores of every position of a map: a linear layer on its channels."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, 1)


class PyramidImageClassifier(ImageClassifier):
    """Scores of the image from the deepest of several maps, shallow to deep."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__(channels[-1], num_classes)

    def forward(self, features: list[Map]) -> Float[Tensor, "b k"]:
        return super().forward(features[-1])


class PyramidPixelClassifier(nn.Module):
    """Scores at the size of the shallowest of several maps, shallow to deep, from the sum of all.

    Each map is brought to the channels and, bilinearly, to the size of the shallowest, so that the labels train every
    level. The head of a panoptic feature pyramid does the same with more depth: Kirillov et al., 2019, section 3.1,
    https://arxiv.org/abs/1901.02446
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = channels[0]
        self.points = nn.ModuleList(ConvBNReLU(c, width) for c in channels)
        self.classifier = PixelClassifier(width, num_classes)

    def forward(self, features: list[Map]) -> Float[Tensor, "b k h w"]:
        first, *deeper = [point(feature) for point, feature in zip(self.points, features, strict=True)]
        return self.classifier(sum((bilinear(feature, first) for feature in deeper), start=first))


def find_classifier(taps: Taps) -> str | None:
    """The name of the student's classifier, if that is a linear layer on the mean of the deepest map; else None."""
    dry = DryRun(taps.student, taps.image_shape)
    layers = {name: output.module for name, output in dry.outputs.items() if isinstance(output.module, nn.Linear)}
    with set_mode(taps.student, training=False), torch.no_grad(), Recorder() as recorder:
        for name, layer in layers.items():
            recorder.record_input(layer, name)
        (logits, features), inputs = recorder.record(taps, dry.images)
    pooled = features[-1].mean(dim=(2, 3))
    for name, layer in layers.items():  # a classifier that starts at zero gives equal scores for unequal inputs
        if name in inputs and agree(inputs[name], pooled) and agree(layer(pooled), logits):
            return name
    return None


def find_classifier_like(layer: nn.Module | None, taps: Taps) -> str:
    """The name of the student's classifier; raises `ValueError` unless `layer` can take its weights."""
    name = find_classifier(taps) if isinstance(layer, nn.Linear) else None
    if name is None or _list_shapes(layer) != _list_shapes(taps.student.get_submodule(name)):
        raise ValueError(
            "the student has no linear layer on its deepest map that fits the self-teacher's last layer; width=1 makes "
            "that as wide, or leave out start_from_classifier"
        )
    return name


def _list_shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in layer.named_parameters()}


def score_positions(classifier: nn.Linear, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """The scores of a linear classifier at every position of a map."""
    return F.conv2d(feature, classifier.weight[:, :, None, None], classifier.bias)


CLASSIFIERS = {"image": ImageClassifier, "pixel": PixelClassifier}  # by the task's output, on one map
PYRAMID_CLASSIFIERS = {"image": PyramidImageClassifier, "pixel": PyramidPixelClassifier}  # on maps shallow to deep
