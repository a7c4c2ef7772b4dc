"""Manifold Mixup: Better Representations by Interpolating Hidden States.

Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio. ICML 2019. https://arxiv.org/abs/1806.05236
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .. import mixing
from ..features.hooks import Hooks
from ..features.modes import set_mode
from ..hyperparameters import Count, Positive, hparam
from ..method import Method
from ..task import Batch, Step


class ManifoldMixup(Method):
    """Each row's hidden state is mixed with another row's, and so is its label: nobody teaches.

    For each batch one layer is drawn, the images or one of the student's shallowest maps, and one weight for all rows.
    The output of a tapped submodule is replaced during the student's own forward pass. In eval mode nothing is mixed.
    The accuracy logged in training is that of mixed rows, against the label with the larger weight.

    Departs from the paper: the layers are those of the authors' code, the images and two of four stages. That code
    takes the binary cross-entropy of every class's probability, in its plain training too. Here the loss is the task's
    cross-entropy, as in every other method.
    """

    targets = None
    cost = "none beside the mixing"
    whole_stages = True  # a map inside a residual block is not the whole input of what follows

    alpha: Positive = hparam(2.0, "the mixing weight is drawn from Beta(alpha, alpha)")
    levels: Count = hparam(2, "how many of the shallowest maps may be mixed")

    def setup(self) -> None:
        if self.levels > len(self.taps):
            raise ValueError(f"{self.levels} levels were asked for and the student has {len(self.taps)} feature maps")
        self._blend, self._hooks = Blend(), Hooks()
        names = [tap.name for tap in self.taps][: self.levels]
        known = dict(self.student.named_modules())
        for layer, name in enumerate(names, 1):
            if name not in known:
                raise ValueError(f"{name} is no submodule whose output could be mixed; name submodules in taps=[...]")
            self._hooks.on_output(known[name], self._blend.hook, layer)  # does nothing outside of `mixed`
        self.refuse_bypassed(names)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        images = batch.images
        if not self.student.training:
            logits = self.student(images)
            return Step({"task": self.task.loss(logits, batch.target, batch.soft_target)}, logits)
        weight = mixing.mixing_weight(self.alpha, images.device)
        # Weight w for row i and 1 - w for row j is the same batch as the reverse; so each row's own label leads.
        weight = torch.maximum(weight, 1 - weight)
        order = torch.randperm(len(images), device=images.device)
        layer = torch.randint(1 + self.levels, (), device=images.device)
        logits = self.mixed(images, layer, weight=weight, order=order)
        task = self.task.loss(logits, batch.target, batch.soft_target)
        other_task = self.task.loss(logits, *batch.permute_labels(order))
        return Step({"task": weight * task + (1 - weight) * other_task}, logits)

    def mixed(
        self,
        images: Float[Tensor, "b c h w"],
        layer: Int64[Tensor, ""],
        *,
        weight: Float[Tensor, ""],
        order: Int64[Tensor, " b"],
    ) -> Float[Tensor, "b k"]:
        """The student's scores; at `layer` (0: images) each row keeps a share `weight`; row `order` gives the rest."""
        # At every other layer the weight is 1, so the graph is the same whichever layer was drawn.
        shares = torch.where(torch.arange(1 + self.levels, device=images.device) == layer, weight, 1.0)
        self._blend.plan = shares, order
        try:
            return self.student(self._blend(0, images))
        finally:
            self._blend.plan = None

    @torch.no_grad()
    def refuse_bypassed(self, names: list[str]) -> None:
        """Raises `ValueError` for a submodule that does not hold the whole state: part of it bypasses the output."""
        images = torch.rand(2, *self.task.image_shape, generator=torch.Generator().manual_seed(0), device="cpu")
        images = images.to(next(self.student.parameters()))
        swap, none = torch.tensor([1, 0], device=images.device), torch.zeros((), device=images.device)
        layers = torch.arange(1, 1 + len(names), device=images.device)
        with set_mode(self.student, training=False):
            scores = self.student(images)
            swapped = [self.mixed(images, layer, weight=none, order=swap) for layer in layers]
        rounding = 0.01 * (scores[0] - scores[1]).abs().max() + 1e-5 * scores.abs().max()
        for name, swapped_scores in zip(names, swapped, strict=True):
            if (swapped_scores - scores[swap]).abs().max() > rounding:
                raise ValueError(
                    f"the scores of {type(self.student).__name__} do not follow from {name!r} alone, so mixing there "
                    f"would mix half a state; name submodules that hand on all of it in taps=[...]"
                )


class Blend:
    """Mixes the rows at several layers of a network, while it has a plan."""

    def __init__(self) -> None:
        self.plan: tuple[Tensor, Tensor] | None = None  # each layer's weight, (layers,), and the order, (b,)

    def __call__(self, layer: int, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        shares, order = self.plan
        return rows + (1 - shares[layer]) * (rows[order] - rows)

    def hook(self, layer: int, module: torch.nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if self.plan is None else self(layer, output)
