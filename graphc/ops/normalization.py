"""What normalisation is made of: ops whose derivatives leave out what is known to be zero, or summed already."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.op import Sample, op
from graphc.ops.checks import only_floating
from graphc.ops.movement import unbroadcast
from graphc.ops.reduce import expand, sum
from graphc.types import TensorType, broadcast_shapes, float32

_x = TensorType(float32, (2, 3, 4))


def _deviations_infer(x: TensorType, mean: TensorType, axes: tuple[int, ...]) -> TensorType:
    reduced = sum.infer(only_floating("squared_deviations")(x), axes)
    if mean != reduced:
        raise ShapeError(f"squared_deviations: a mean of another type than the sums of {x} over the dimensions {axes}",
                         expected=str(reduced), got=str(mean))
    return reduced


def _deviations(x: Any, mean: Any, axes: tuple[int, ...]) -> Any:
    spread = x - expand(mean, x.shape, axes)
    return sum(spread * spread, axes)


def _deviations_ref(x: np.ndarray, mean: np.ndarray, axes: tuple[int, ...]) -> Any:
    spread = x - np.expand_dims(mean, axes)
    return sum.ref(spread * spread, axes)


squared_deviations = op(
    "squared_deviations", "x mean", "axes", infer=_deviations_infer, ref=_deviations_ref, decompose=_deviations,
    vjp=(lambda ct, x, mean, axes: expand(ct * 2, x.shape, axes) * (x - expand(mean, x.shape, axes)), None),
    samples=(Sample((np.array([[1.0, 2.0, 6.0], [0.0, -1.0, 1.0]], np.float32), np.array([3.0, 0.0], np.float32)),
                    {"axes": (1,)}),
             Sample((np.array([[1.0, 2.0], [3.0, 6.0]], np.float32), np.array(3.0, np.float32)), {"axes": (0, 1)})),
)
"""The sum of (x - mean)^2 over `axes`, where `mean` is that of x over them. What x does by way of its mean has no part in the
derivative: the deviations from a mean sum up to zero."""


def _standardize_vjp_mean(ct: Any, mean_type: TensorType, scale: Any) -> Any:
    shape = broadcast_shapes(mean_type.shape, tuple(scale.shape))
    return -(unbroadcast(ct, shape) * scale)


standardize = op(
    "standardize", "x mean scale", infer=only_floating("standardize"),
    ref=lambda x, mean, scale: (x - mean) * scale, scalar=lambda x, mean, scale: (x - mean) * scale, elementwise=True,
    vjp=(lambda ct, scale: ct * scale, _standardize_vjp_mean, lambda ct, x, mean: ct * (x - mean)),
    samples=(Sample((_x, TensorType(float32, (3, 1)), TensorType(float32, (3, 1)))), Sample((_x, _x, _x)),
             Sample((_x, TensorType(float32, (4,)), TensorType(float32, (2, 1, 1))))),
)
"""(x - mean) * scale. Where mean and scale are stretched, the cotangent is summed before it is scaled: that sum is a bias's
gradient, too."""
