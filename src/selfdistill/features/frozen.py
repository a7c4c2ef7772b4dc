"""What a trained network knows, apart from its classes: the features before its classifier, and how they transfer."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .extractor import Taps
from .hooks import Recorder
from .modes import set_mode
from .probe import DryRun

STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 3))  # of the probe's weight decay, for a mean of losses
ITERATIONS = 500  # of L-BFGS


class FrozenFeatures:
    """One vector (b, d) for each image from a network that does not change.

    It is what the network's classifier is given, the mean over positions if that is a map. The classifier is the last
    layer with weights whose output is the class scores. Without such a layer, and for scores of pixels, it is the mean
    of the deepest map over its positions. `name` says which.
    """

    def __init__(self, student: nn.Module, image_shape: tuple[int, int, int]) -> None:
        self.student, self.taps, self.recorder = student, None, Recorder()
        dry = DryRun(student, image_shape)
        layers = [
            (name, output.module)
            for name, output in dry.outputs.items()
            if output.value.numel() == dry.logits.numel()
            and torch.equal(output.value.flatten(), dry.logits.flatten())
            and output.has_weights()
            and not any(True for _ in output.module.children())
        ]
        if dry.logits.ndim == 2 and layers:
            name, classifier = layers[-1]
            self.name = f"the input of {name}"
            self.recorder.record_input(classifier, "features")
        else:
            self.taps = Taps(student, image_shape)
            self.name = f"the mean of {[*self.taps][-1].name}"

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        with torch.inference_mode(), set_mode(self.student, training=False):
            if self.taps is not None:
                features = self.taps(images)[1][-1]
            else:
                features = self.recorder.record(self.student, images)[1]["features"]
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        return features.flatten(1).float()

    def collect(self, batches: Iterable[Any], device: str) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        """The features and labels of all batches, on the CPU."""
        pairs = [(self(batch.images.to(device)).cpu(), batch.target.cpu()) for batch in batches]
        features, labels = zip(*pairs, strict=True)
        return torch.cat(features).clone(), torch.cat(labels)


def predict_by_neighbors(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    *,
    num_classes: int,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> Int64[Tensor, " m"]:
    """The class of each query by its nearest features: cosine similarity, votes weighted by exp(similarity / T).

    Source: Wu et al., 2018, section 3.4, https://arxiv.org/abs/1805.01978; of fewer features all vote.
    """
    features, predicted = F.normalize(features, dim=1), []
    for rows in F.normalize(queries, dim=1).split(1024):
        nearest = (rows @ features.T).topk(min(neighbors, len(features)), dim=1)
        votes = torch.zeros(len(rows), num_classes)
        votes.scatter_add_(1, labels[nearest.indices], ((nearest.values - 1) / temperature).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


class LinearProbe:
    """Multinomial logistic regression on standardized features.

    `decay` weighs half the squared norm of the weights beside the mean loss; the bias is free.
    """

    def __init__(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], decay: float) -> None:
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.linear_model import LogisticRegression
        except ModuleNotFoundError:
            raise ValueError('the linear probe needs scikit-learn: pip install "selfdistill[transfer]"') from None

        self.mean, self.std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
        self.model = LogisticRegression(C=1 / (decay * len(labels)), max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near the best is enough
            self.model.fit(self._standardize(features), labels.numpy())

    def predict(self, features: Float[Tensor, "m d"]) -> Int64[Tensor, " m"]:
        return torch.from_numpy(self.model.predict(self._standardize(features)))

    def _standardize(self, features: Tensor) -> np.ndarray:
        return ((features - self.mean) / self.std).double().numpy()


def choose_decay(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    held_out: Float[Tensor, "m d"],
    held_out_labels: Int64[Tensor, " m"],
) -> float:
    """The decay of `STRENGTHS` whose probe is right most often on held-out features; the strongest of equal ones."""
    hits = {
        decay: int((LinearProbe(features, labels, decay).predict(held_out) == held_out_labels).sum())
        for decay in STRENGTHS
    }
    return max(hits, key=lambda decay: (hits[decay], decay))
