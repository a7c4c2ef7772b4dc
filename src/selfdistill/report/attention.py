"""Attention maps as arrays: what a feature map attends to, how far two differ, and the picture over an image."""

import numpy as np
from PIL import Image

# from black over violet, red and orange to pale yellow: brighter is more, for every eye
STOPS = np.array([[0, 0, 6], [58, 12, 98], [140, 30, 102], [212, 66, 62], [249, 142, 28], [252, 252, 180]], np.float32)
OPACITY = 0.6  # of the colors over the image


def compute_attention(feature: np.ndarray) -> np.ndarray:
    """The attention maps (b, h, w) of feature maps (b, c, h, w), as `losses.attention` reads them.

    Mean of squares over channels, scaled to unit l2 norm for each image; all zero for a map that is.
    """
    energy = np.square(feature.astype(np.float64)).mean(axis=1)
    norm = np.sqrt(np.square(energy).sum(axis=(1, 2), keepdims=True))
    return (energy / np.maximum(norm, 1e-12)).astype(np.float32)


def compute_distance(attention: np.ndarray, other: np.ndarray) -> float:
    """The squared distance of two attention maps (h, w): 0 for equal ones, 2 for maps that share no position.

    FRSKD's feature loss is this divided by h * w, summed over levels.
    """
    return float(np.square(attention.astype(np.float64) - other).sum())


def color(values: np.ndarray) -> np.ndarray:
    """Colors (h, w, 3), uint8, of values (h, w) in [0, 1]."""
    place = np.clip(values, 0, 1) * (len(STOPS) - 1)
    below = np.minimum(place.astype(int), len(STOPS) - 2)
    share = (place - below)[..., None]
    return (STOPS[below] * (1 - share) + STOPS[below + 1] * share).round().astype(np.uint8)


def draw_attention(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """A map (h, w) in color over the gray image (H, W, 3), uint8, at the size of the image.

    Colors run from the map's lowest value to its highest, so they tell where a network looks, not how strongly.
    """
    height, width = image.shape[:2]
    low, high = float(attention.min()), float(attention.max())
    scaled = (attention.astype(np.float32) - low) / ((high - low) or 1.0)
    enlarged = np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BILINEAR))
    gray = np.asarray(Image.fromarray(image).convert("L").convert("RGB"), dtype=np.float32)
    return (gray + OPACITY * (color(enlarged) - gray)).round().astype(np.uint8)
