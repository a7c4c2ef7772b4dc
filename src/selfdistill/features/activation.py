"""Class activation maps: which positions of a feature map speak for a class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .hooks import Recorder
from .modes import set_mode
from .probe import DryRun


def class_activation(
    student: nn.Module, images: Float[Tensor, "b c h w"], image_shape: tuple[int, int, int], names: Sequence[str]
) -> tuple[Float[Tensor, "b k *pos"], Int64[Tensor, " b"], Float[Tensor, "b _h _w"] | None]:
    """The logits, the class that each image is explained by, and its activation map (Grad-CAM).

    relu(sum over channels of weight * map), where a channel's weight is the mean over positions of the gradient of the
    class's score. It is read at the deepest of the submodules `names` that the score depends on through its positions:
    of a ViT with a class token that is not the last block. Behind global average pooling and one linear layer it is
    class activation mapping (CAM) up to a factor. None where no map has a gradient. The class is the one of the highest
    score; of scores for pixels, the one of the largest share, whose scores are summed over its pixels.

    `image_shape` is that of `Taps`. Source: Selvaraju et al., 2017, eq. 1 and 2, https://arxiv.org/abs/1610.02391;
    Zhou et al., 2016, eq. 2, https://arxiv.org/abs/1512.04150
    """
    maps = DryRun(student, image_shape).from_names(names)
    with Recorder() as recorder, torch.inference_mode(False), torch.enable_grad(), set_mode(student, training=False):
        for feature in maps:
            recorder.record_output(feature.output.module, feature.name)
        logits, outputs = recorder.record(student, images.clone().requires_grad_())
        classes, score = choose_class(logits)
        gradients = torch.autograd.grad(score, [outputs[m.name] for m in maps], allow_unused=True)
    for feature, gradient in reversed([*zip(maps, gradients, strict=True)]):
        if gradient is not None and (slope := feature.layout.to_map(gradient)).any():
            weights = slope.mean(dim=(2, 3), keepdim=True)
            return (
                logits.detach(),
                classes,
                (weights * feature.layout.to_map(outputs[feature.name])).sum(1).relu().detach(),
            )
    return logits.detach(), classes, None


def choose_class(logits: Float[Tensor, "b k *pos"]) -> tuple[Int64[Tensor, " b"], Float[Tensor, ""]]:
    """The class of each image as `class_activation` has it, and the sum of its scores over images and its pixels."""
    predicted = logits.argmax(dim=1).flatten(1) if logits.ndim > 2 else logits.argmax(dim=1, keepdim=True)
    shares = torch.stack([row.bincount(minlength=logits.shape[1]) for row in predicted])
    classes = shares.argmax(dim=1)
    scores = logits.flatten(2) if logits.ndim > 2 else logits[:, :, None]
    chosen = scores[torch.arange(len(scores), device=classes.device), classes]
    return classes, chosen[predicted == classes[:, None]].sum()
