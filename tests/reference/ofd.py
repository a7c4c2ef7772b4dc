"""What OFD compares, in numpy: residual blocks' sums before their ReLU, and maps resampled to other sizes."""

import numpy as np

from reference.fitnet import convolution
from reference.frskd import rectified


def norm_at_rest(maps, weights, eps=1e-5):
    """With the running statistics."""
    out = np.empty_like(maps)
    for channel in range(maps.shape[1]):
        centred = maps[:, channel] - weights["running_mean"][channel]
        scaled = centred / np.sqrt(weights["running_var"][channel] + eps)
        out[:, channel] = weights["weight"][channel] * scaled + weights["bias"][channel]
    return out


def sums_before_relu(images, weights, norm):
    """Of each of the three blocks of the tests' small residual network, whose shortcuts are 1x1 convolutions."""
    maps = convolution(images, (weights / "stem.0")["weight"], border=1)
    maps = rectified(norm(maps, weights / "stem.1"))
    sums = []
    for stage in ("stage1", "stage2", "stage3"):
        block, stride = weights / stage, 1 if stage == "stage1" else 2
        inner = convolution(maps, (block / "conv1")["weight"], stride, border=1)
        inner = convolution(rectified(norm(inner, block / "norm1")), (block / "conv2")["weight"], border=1)
        shortcut = convolution(maps, (block / "shortcut")["weight"], stride)
        sums.append(norm(inner, block / "norm2") + shortcut)
        maps = rectified(sums[-1])
    return sums


def at_size(maps, size):
    """Every new position takes the value of the old one that its upper left corner falls into."""
    rows, columns = ([i * have // want for i in range(want)] for have, want in zip(maps.shape[2:], size, strict=True))
    return np.stack([np.stack([maps[:, :, r, c] for c in columns], axis=-1) for r in rows], axis=2)
