"""FitNet's regressors in numpy, one window at a time."""

import numpy as np

from reference.frskd import batch_norm, rectified


def convolution(maps, kernel, stride=1, border=0):
    """Kernel (d, c, h, w)."""
    frame = np.pad(maps, ((0, 0), (0, 0), (border, border), (border, border)))
    tall, wide = kernel.shape[2:]
    size = [(length - side) // stride + 1 for length, side in zip(frame.shape[2:], (tall, wide), strict=True)]
    out = np.empty((len(maps), len(kernel), *size))
    for row, column in np.ndindex(*size):
        window = frame[:, :, row * stride : row * stride + tall, column * stride : column * stride + wide]
        out[:, :, row, column] = np.einsum("bchw,dchw->bd", window, kernel)
    return out


def transposed_convolution(maps, kernel, stride, border):
    """Kernel (c, d, h, w): every position adds the kernel, scaled by its value, to a canvas that loses its border."""
    tall, wide = kernel.shape[2:]
    height, width = ((length - 1) * stride + side for length, side in zip(maps.shape[2:], (tall, wide), strict=True))
    canvas = np.zeros((len(maps), kernel.shape[1], height, width))
    for row, column in np.ndindex(*maps.shape[2:]):
        stamp = np.einsum("bc,cdhw->bdhw", maps[:, :, row, column], kernel)
        canvas[:, :, row * stride : row * stride + tall, column * stride : column * stride + wide] += stamp
    return canvas[:, :, border : height - border, border : width - border]


def regressed(feature, size, weights, rectify):
    """The student's map at the teacher's channels and `size`."""
    height, kernel = feature.shape[2], weights["conv.weight"]
    if height == 2 * size[0]:
        maps = convolution(feature, kernel, stride=2, border=1)
    elif 2 * height == size[0]:
        maps = transposed_convolution(feature, kernel, stride=2, border=1)
    else:
        assert kernel.shape[2:] == (1 + height - size[0], 1 + feature.shape[3] - size[1])
        maps = convolution(feature, kernel)
    maps = batch_norm(maps, weights / "norm")
    return rectified(maps) if rectify else maps


def hint_loss(maps, hint):
    """Mean of the squared differences."""
    squares = [(own - aim) ** 2 for own, aim in zip(maps.ravel(), hint.ravel(), strict=True)]
    return sum(squares) / len(squares)
