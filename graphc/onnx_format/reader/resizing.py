"""Images of another size: Resize and Upsample, one dimension after the other, each pixel made of a few."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call, line, take
from graphc.onnx_format.reader.elementwise import converted
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.onnx_format.resampling import coordinates, taps
from graphc.types import float32


@reads("Resize")
def _resize(c: Call) -> Value:
    x = c[0]
    scales: np.ndarray | None
    if c.opset < 11:
        scales, sizes, roi = c.content(1), None, None
        transform = "asymmetric"
    else:
        roi = c.content(1) if c.has(1) and c.shape(1) != (0,) else None
        scales = c.content(2) if c.has(2) and c.shape(2) != (0,) else None
        sizes = c.sizes(3) if c.has(3) else None
        transform = c.text("coordinate_transformation_mode", "half_pixel")
    axes = c.ints("axes", tuple(range(x.ndim)))
    axes = tuple(c.checked_axis(axis, x.ndim) for axis in axes)
    for k, axis, size, scale in _targets(c, x, axes, scales, sizes):
        region = (0.0, 1.0) if roi is None else (float(roi[k]), float(roi[k + len(axes)]))
        old = int(x.shape[axis])
        crop = transform == "tf_crop_and_resize"
        if size == old and scale == 1 and not crop:
            continue
        try:
            places = coordinates(old, size, scale, transform, region)
        except ValueError as error:
            raise BadModel(str(error)) from None
        index, weights = _taps(c, places, old, scale)
        x = combined(x, axis, index, weights)
        outside = (places < 0) | (places > old - 1)
        if crop and outside.any():
            mask = line(x, x.builder.lift(outside), axis)  # type: ignore[union-attr]
            x = ops.where(mask, c.float("extrapolation_value", 0.0), x)
    return x


def _targets(c: Call, x: Value, axes: tuple[int, ...], scales: Any, sizes: Any) -> list[tuple[int, int, int, float]]:
    """For each dimension its number in the list, itself, its new size, and the scale."""
    old = [int(x.shape[axis]) for axis in axes]
    if sizes is not None:
        new = [int(size) for size in sizes]
        factors = [n / o for n, o in zip(new, old, strict=True)]
        policy = c.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(new)
            new = [math.floor(o * factor + 0.5) for o in old]
    elif scales is not None:
        factors = [float(scale) for scale in scales]
        new = [math.floor(o * factor) for o, factor in zip(old, factors, strict=True)]
        if c.text("coordinate_transformation_mode") == "tf_crop_and_resize":
            roi = c.content(1)
            ends = zip(roi[: len(axes)], roi[len(axes) :])
            new = [math.floor(o * (b - a) * f) for o, (a, b), f in zip(old, ends, factors)]
    else:
        raise BadModel("neither scales nor sizes")
    if any(factor <= 0 for factor in factors):
        raise BadModel("scales that are not positive", got=str(factors))
    return [(k, axis, size, factor) for k, (axis, size, factor) in enumerate(zip(axes, new, factors))]


def _taps(c: Call, places: np.ndarray, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    try:
        return taps(
            places, size, scale, c.text("mode", "nearest"), antialias=bool(c.int("antialias", 0)),
            nearest_mode=c.text("nearest_mode", "round_prefer_floor" if c.opset >= 11 else "floor"),
            exclude_outside=bool(c.int("exclude_outside", 0)), cubic_coeff_a=c.float("cubic_coeff_a", -0.75),
        )  # fmt: skip
    except ValueError as error:
        raise BadModel(str(error)) from None


def combined(x: Value, axis: int, index: np.ndarray, weights: np.ndarray) -> Value:
    """Sums of slices along one dimension, each with a weight."""
    if weights.shape[1] == 1 and (weights == 1).all():
        return take(x, index[:, 0], axis)
    wide = x if x.dtype.is_floating_point else ops.cast(x, dtype=float32)
    total = None
    for k in range(index.shape[1]):
        if not weights[:, k].any():
            continue
        factor = x.builder.lift(weights[:, k].astype(wide.dtype.numpy))  # type: ignore[union-attr]
        added = take(wide, index[:, k], axis) * line(wide, factor, axis)
        total = added if total is None else total + added
    assert total is not None  # the weights of a pixel come to one
    return converted(total, x.dtype)


@reads("Upsample")
def _upsample(c: Call) -> Value:
    x = c[0]
    scales = c.content(1) if c.has(1) else np.array(c.attribute("scales", list, None), np.float64)
    for axis, scale in enumerate(scales):
        old = int(x.shape[axis])
        new = math.floor(old * float(scale))
        if new != old:
            index, weights = _taps(c, coordinates(old, new, float(scale), "asymmetric", (0, 1)), old, float(scale))
            x = combined(x, axis, index, weights)
    return x
