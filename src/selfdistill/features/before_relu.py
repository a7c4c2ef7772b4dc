"""Feature maps as they are before the ReLU that they end in."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from .extractor import Taps
from .hooks import Recorder
from .stages import Output, find_relu_behind

Maps = list[Float[Tensor, "b _ _ _"]]


class BeforeReLU(Recorder):
    """What `Taps` gives, and each map that an `nn.ReLU` ends as it is before it: `logits, maps, before = taps(images)`.

    A map that ends otherwise is the same in both: the sum of a linear bottleneck, another activation, a ReLU that is
    not a module, or one module for several stages. `outputs` are those of a dry run of the same network.
    """

    def __init__(self, taps: Taps, outputs: Mapping[str, Output]) -> None:
        super().__init__()
        self.taps = taps
        relus = [find_relu_behind(tap.name, outputs) for tap in taps]
        self._rectified = [relu is not None for relu in relus]
        for i, relu in enumerate(relus):
            if relu is not None:
                self.record_input(relu.module, i)

    def __call__(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k *pos"], Maps, Maps]:
        (logits, features), inputs = self.record(self.taps, images)
        before = [inputs[i] if self._rectified[i] else feature for i, feature in enumerate(features)]
        return logits, features, before
