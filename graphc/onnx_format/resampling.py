"""Which pixels of an image each pixel of a resized one is made of: the definition of ONNX's Resize, dimension by dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def coordinates(
    old: int, new: int, scale: Any, transform: str, region: tuple[float, float] = (0.0, 1.0), kind: Any = np.float64
) -> np.ndarray:
    """Where in the old image the pixels of the new one are, in the precision `kind`. ValueError for an unknown transform."""
    places, scale = np.arange(new, dtype=kind), kind(scale)
    match transform:
        case "half_pixel":
            return (places + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = new / (scale * old)
            center = old / 2
            return center * (1 - adjustment) + (places + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (places + 0.5) / scale - 0.5 if new > 1 else np.zeros(new)
        case "align_corners":
            length = scale * old
            return places * ((old - 1) / (length - 1)) if length != 1 else np.zeros(new)
        case "asymmetric":
            return places / scale
        case "tf_half_pixel_for_nn":
            return (places + 0.5) / scale
        case "tf_crop_and_resize":
            start, end = region
            if new > 1:
                return start * (old - 1) + places * (end - start) * (old - 1) / (new - 1)
            return np.full(new, 0.5 * (start + end) * (old - 1))
    raise ValueError(f"coordinate_transformation_mode {transform!r}")


def _nearest(places: np.ndarray, mode: str) -> np.ndarray:
    match mode:
        case "round_prefer_floor":
            return np.ceil(places - 0.5)
        case "round_prefer_ceil":
            return np.floor(places + 0.5)
        case "floor":
            return np.floor(places)
        case "ceil":
            return np.ceil(places)
    raise ValueError(f"nearest_mode {mode!r}")


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys 1981: "Cubic convolution interpolation for digital image processing", equation 15."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def taps(
    places: np.ndarray, size: int, scale: float, mode: str, *, nearest_mode: str = "round_prefer_floor",
    antialias: bool = False, exclude_outside: bool = False, cubic_coeff_a: float = -0.75,
) -> tuple[np.ndarray, np.ndarray]:
    """For each new pixel the old ones that it is made of, and their weights: [new, taps] of each. ValueError for an unknown
    mode."""
    if mode == "nearest":
        index = _nearest(places, nearest_mode).clip(0, size - 1)[:, None]
        return index.astype(np.int64), np.ones(index.shape)
    if mode not in ("linear", "cubic"):
        raise ValueError(f"the mode {mode!r}: expected nearest, linear or cubic")
    stretch = max(1.0, 1 / scale) if antialias else 1.0
    reach = (2 if mode == "cubic" else 1) * stretch
    first = np.floor(places - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(math.ceil(2 * reach) + (stretch > 1))
    distance = (index - places[:, None]) / stretch
    weights = _cubic(distance, cubic_coeff_a) if mode == "cubic" else np.maximum(0, 1 - np.abs(distance))
    if exclude_outside:
        weights = np.where((index >= 0) & (index < size), weights, 0)
    return index.clip(0, size - 1), weights / weights.sum(1, keepdims=True)
