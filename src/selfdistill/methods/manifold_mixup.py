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
    """Each row's hidden state is mixed with another row's, as its label is: nobody teaches, the student interpolates.

    One place is drawn for each batch, the images or one of the student's shallowest maps, and one weight for all its
    rows. What a tapped submodule hands on is replaced within the student's own forward pass; with the student in eval
    mode nothing is mixed. While training, the logged accuracy is that of mixed rows, against the label that weighs
    more.

    Departs from the paper: the places are those of the authors' code, images and two of four stages. That code takes
    the binary cross-entropy of every class's probability, in its plain training too; here it is the task's
    cross-entropy, as in every other method.
    """

    cost = "none but the mixing"
    whole_stages = True  # a map inside a residual block is not all that the rest of the network gets

    alpha: Positive = hparam(2.0, "the weight is drawn from Beta(alpha, alpha)")
    levels: Count = hparam(2, "the maps that may be mixed, the shallowest so many")

    def setup(self) -> None:
        if self.levels > len(self.taps):
            raise ValueError(f"{self.levels} levels were asked for and the student has {len(self.taps)} feature maps")
        self._blend, self._hooks = Blend(), Hooks()
        names = [tap.name for tap in self.taps][: self.levels]
        known = dict(self.student.named_modules())
        for place, name in enumerate(names, 1):
            if name not in known:
                raise ValueError(f"{name} is no submodule whose output could be mixed; name submodules in taps=[...]")
            self._hooks.on_output(known[name], self._blend.hook, place)  # does nothing outside of `mixed`
        self.refuse_bypassed(names)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        images = batch.images
        if not self.student.training:
            logits = self.student(images)
            return Step({"task": self.task.loss(logits, batch.target, batch.soft_target)}, logits)
        weight = mixing.mixing_weight(self.alpha, images.device)
        # Mixing i into j at a weight is mixing j into i at the other: the same batch, but each row's own label leads.
        weight = torch.maximum(weight, 1 - weight)
        order = torch.randperm(len(images), device=images.device)
        place = torch.randint(1 + self.levels, (), device=images.device)
        logits = self.mixed(images, place, weight=weight, order=order)
        own = self.task.loss(logits, batch.target, batch.soft_target)
        other = self.task.loss(logits, *batch.permute_labels(order))
        return Step({"task": weight * own + (1 - weight) * other}, logits)

    def mixed(
        self,
        images: Float[Tensor, "b c h w"],
        place: Int64[Tensor, ""],
        *,
        weight: Float[Tensor, ""],
        order: Int64[Tensor, " b"],
    ) -> Float[Tensor, "b k"]:
        """The student's scores; at `place` (0: images) each row keeps a share `weight`, row `order` gives the rest."""
        # At all places but one the weight is 1: the graph is the same whichever was drawn.
        shares = torch.where(torch.arange(1 + self.levels, device=images.device) == place, weight, 1.0)
        self._blend.plan = shares, order
        try:
            return self.student(self._blend(0, images))
        finally:
            self._blend.plan = None

    @torch.no_grad()
    def refuse_bypassed(self, names: list[str]) -> None:
        """Raises `ValueError` for a submodule at which two images cannot be swapped: part of their state passes by."""
        images = torch.rand(2, *self.task.image_shape, generator=torch.Generator().manual_seed(0))
        images = images.to(next(self.student.parameters()))
        swap, none = torch.tensor([1, 0], device=images.device), torch.zeros((), device=images.device)
        places = torch.arange(1, 1 + len(names), device=images.device)
        with set_mode(self.student, training=False):
            scores = self.student(images)
            swapped = [self.mixed(images, place, weight=none, order=swap) for place in places]
        rounding = 0.01 * (scores[0] - scores[1]).abs().max() + 1e-5 * scores.abs().max()
        for name, found in zip(names, swapped, strict=True):
            if (found - scores[swap]).abs().max() > rounding:
                raise ValueError(
                    f"the scores of {type(self.student).__name__} do not follow from {name!r} alone, so mixing there "
                    f"would mix half a state; name submodules that hand on all of it in taps=[...]"
                )


class Blend:
    """Mixes rows with others at several places of a network, while there is a plan."""

    def __init__(self) -> None:
        self.plan: tuple[Tensor, Tensor] | None = None  # the own share at each place, (places,), and the order, (b,)

    def __call__(self, place: int, rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        shares, order = self.plan
        return rows + (1 - shares[place]) * (rows[order] - rows)

    def hook(self, place: int, module: torch.nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if self.plan is None else self(place, output)
