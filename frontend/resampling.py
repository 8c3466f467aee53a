"""Resizing [N, C, *S] to other spatial sizes: every dimension by itself, as weighted sums of a few elements each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Dim
from graphc.errors import ArgumentError, ShapeError, UnsupportedError
from graphc.frontend.adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from graphc.frontend.arguments import emit, integer
from graphc.frontend.composite import composite
from graphc.frontend.copying import clone
from graphc.frontend.indexing import index_select
from graphc.frontend.movement import expand, part, reshape, unflatten, unsqueeze
from graphc.frontend.pointwise import cast, clamp, round
from graphc.frontend.spatial import constant, places
from graphc.frontend.symbolic_resampling import is_symbolic, linear, nearest
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32, float64, uint8

_DIMS = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2, "lanczos": 2}
"""How many spatial dimensions a mode is for; the others are for any number."""
_MODES = ("nearest", "linear", "bilinear", "bicubic", "trilinear", "lanczos", "area", "nearest-exact")
_ALIGNED = ("linear", "bilinear", "bicubic", "trilinear")

_SMOOTH = -0.75
"""The slope of the cubic kernel at 1; -0.5 with antialiasing, as in Pillow."""


@composite
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """[N, C, *S] resized to `size`, or by `scale_factor`.

    `mode` is "nearest", "nearest-exact", "area", or "linear", "bilinear", "trilinear", "bicubic" after the number of
    dimensions. The pixels are squares, or, with `align_corners`, points whose outermost ones stay where they are.
    `antialias` makes the kernel of "bilinear", "bicubic" and "lanczos" wider when the image gets smaller.

    ArgumentError unless one of `size` and `scale_factor` is given, one number or as many as dimensions, and where an option
    does not go with the mode; UnsupportedError for a mode that is not for so many dimensions, and for other integers than
    uint8; ShapeError for sizes of 0.

    >>> F.interpolate(graphc.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    >>> F.interpolate(graphc.tensor([[[1.0, 2.0]]]), size=3, mode="linear", align_corners=True)
    tensor([[[1.0000, 1.5000, 2.0000]]])
    """
    shape = tuple(input._data.shape)
    _check_mode(shape, mode, align_corners, antialias)
    wanted, scales = _sizes(shape[2:], size, scale_factor, recompute_scale_factor)
    if any(n < 1 for n in (*shape[1:], *wanted)):
        raise ShapeError(f"Input and output sizes should be greater than 0, but got input {list(shape)} output {list(wanted)}")
    if not (input.dtype.is_floating_point or input.dtype is uint8):
        raise UnsupportedError(f'"upsample_{mode}{len(wanted)}d" not implemented for {input.dtype.name}',
                               expected="a floating-point dtype or uint8", hint="input.float()")
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[len(wanted) - 1](input, wanted)
    if not mode.startswith("nearest"):
        return _blended(input, wanted, tuple(scales), mode, bool(align_corners), antialias)
    x = input
    for i, (want, scale) in enumerate(zip(wanted, scales)):
        x = _nearest(x, 2 + i, want, scale, mode == "nearest-exact")
    return named(clone(x) if x is input else x, f"Upsample{'NearestExact' if 'exact' in mode else 'Nearest'}{len(wanted)}D")


@composite
def _blended(input: Tensor, wanted: tuple[int, ...], scales: tuple[float | None, ...], mode: str, aligned: bool,
             antialias: bool) -> Tensor:
    # 16-bit numbers and bytes are summed in single precision and rounded once
    x = cast(input, float64 if input.dtype is float64 else float32)
    for i, (want, scale) in enumerate(zip(wanted, scales)):
        x = _smooth(x, 2 + i, want, scale, mode, aligned, antialias)
    x = cast(clamp(round(x), 0, 255) if input.dtype is uint8 else x, input.dtype)
    return named(clone(x) if x is input else x, f"Upsample{mode.capitalize()}{len(wanted)}D{'Aa' if antialias else ''}")


def _check_mode(shape: tuple[Any, ...], mode: str, align_corners: bool | None, antialias: bool) -> None:
    dims = len(shape) - 2
    if mode in _ALIGNED or mode == "lanczos" or align_corners is None:
        pass
    elif mode in _MODES:
        raise ArgumentError("align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
                            "trilinear", got=mode)
    if mode not in _MODES or dims not in (1, 2, 3):
        raise UnsupportedError(f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {len(shape)}D) for the modes: "
                               f"{' | '.join(_MODES)} (got {mode})")
    if _DIMS.get(mode, dims) != dims:
        raise UnsupportedError(f"Got {len(shape)}D input, but {mode} mode needs {_DIMS[mode] + 2}D input")
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and dims == 2):
        raise ArgumentError("Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor "
                            "as input", got=f"{mode}, {len(shape)}-D")
    if mode == "lanczos" and not antialias:
        raise ArgumentError("Lanczos mode requires antialias=True")
    if mode == "lanczos" and align_corners:
        raise ArgumentError("Lanczos mode does not support align_corners=True")


def _sizes(shape: tuple[int, ...], size: Any, scale_factor: Any,
           recompute: bool | None) -> tuple[tuple[int, ...], list[float | None]]:
    """The sizes wanted, and for each dimension the factor that was given, unless it is to follow from the sizes."""
    dims = len(shape)
    if size is None and scale_factor is None:
        raise ArgumentError("either size or scale_factor should be defined")
    if size is not None and scale_factor is not None:
        raise ArgumentError("only one of size or scale_factor should be defined")
    what, given = ("output size", size) if size is not None else ("scale_factor", scale_factor)
    listed = tuple(given) if isinstance(given, (tuple, list)) else (given,) * dims
    if len(listed) != dims:
        raise ArgumentError(f"Input and {what if size is None else 'output'} must have the same number of spatial dimensions, "
                            f"but got input with spatial dimensions of {list(shape)} and {what} of {listed}",
                            expected=f"one number, or {dims}")
    if size is not None:
        if recompute:
            raise ArgumentError("recompute_scale_factor is not meaningful with an explicit size.")
        return tuple(integer(s, "size") if isinstance(s, Dim) else int(s) for s in listed), [None] * dims
    wanted = tuple(math.floor(s * float(f)) for s, f in zip(shape, listed))
    return wanted, [None] * dims if recompute else [float(f) for f in listed]


def _step(size: int, want: int, factor: float | None, aligned: bool, kind: Any) -> Any:
    """How far apart the centres of neighbours in the result are in the input, in the precision of the computation."""
    if aligned:
        return kind(size - 1) / kind(want - 1) if want > 1 else kind(0)
    return kind(1.0 / factor) if factor is not None and factor > 0 else kind(size) / kind(want)


def _nearest(x: Tensor, at: int, want: int, factor: float | None, exact: bool) -> Tensor:
    size = x._data.shape[at]
    if is_symbolic(size, want):
        return nearest(x, at, want, factor, exact)
    kind: Any = np.float64 if x.dtype is float64 else np.float32
    where = np.arange(want, dtype=kind) + kind(0.5 if exact else 0)
    table = np.minimum(np.floor(where * _step(size, want, factor, False, kind)).astype(np.int64), size - 1)
    if want == size and (table == np.arange(size)).all():
        return x
    if want % size == 0 and (table == np.arange(want) // (want // size)).all():
        shape = tuple(x._data.shape)
        return reshape(expand(unsqueeze(x, at + 1), (*shape[: at + 1], want // size, *shape[at + 1 :])),
                       (*shape[:at], want, *shape[at + 1 :]))
    if size % want == 0 and (table == np.arange(want) * (size // want)).all():
        return part(x, at, 0, size, size // want)
    return index_select(x, at, places(table))


def _smooth(x: Tensor, at: int, want: int, factor: float | None, mode: str, aligned: bool, antialias: bool) -> Tensor:
    size = x._data.shape[at]
    if is_symbolic(size, want) and not antialias and mode != "bicubic":
        return x if want is size else linear(x, at, want, factor, aligned)
    kind = np.float64 if x.dtype is float64 else np.float32
    step = _step(size, want, factor, aligned, kind)
    if antialias:
        table, weights = _wide_taps(size, want, step, mode)
    elif mode == "bicubic":
        table, weights = _cubic_taps(size, want, step, aligned)
    elif want == size:  # whatever the factor was
        return x
    else:
        table, weights = _linear_taps(size, want, step, aligned)
    return _weighted(x, at, table, weights.astype(kind))


def _weighted(x: Tensor, at: int, table: np.ndarray, weights: np.ndarray) -> Tensor:
    """Sums of the elements that `table` [want, taps] lists along a dimension, each times its weight."""
    want, taps = table.shape
    picked = unflatten(index_select(x, at, places(table.reshape(-1))), at, (want, taps))
    beside = (1,) * (x.ndim - at - 1)
    return emit(ops.sum, (picked * reshape(constant(weights, x), (want, taps, *beside)),), {"axes": (at + 1,)})


def _centres(want: int, step: Any, aligned: bool) -> np.ndarray:
    index = np.arange(want, dtype=type(step))
    return index * step if aligned else step * (index + type(step)(0.5)) - type(step)(0.5)


def _linear_taps(size: int, want: int, step: Any, aligned: bool) -> tuple[np.ndarray, np.ndarray]:
    centre = np.maximum(_centres(want, step, aligned), 0)
    low = np.minimum(centre.astype(np.int64), size - 1)
    share = np.clip(centre - low, 0, 1)
    return np.stack([low, np.minimum(low + 1, size - 1)], 1), np.stack([1 - share, share], 1)


def cubic(distance: Any, slope: float) -> tuple[Any, Any, Any, Any]:
    """The weights of the four neighbours of a point that lies `distance` after the second one (Keys 1981)."""

    def near(d: Any) -> Any:
        return ((slope + 2) * d - (slope + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((slope * d - 5 * slope) * d + 8 * slope) * d - 4 * slope

    return far(distance + 1), near(distance), near(1 - distance), far(2 - distance)


def _cubic_taps(size: int, want: int, step: Any, aligned: bool) -> tuple[np.ndarray, np.ndarray]:
    centre = _centres(want, step, aligned)
    low = np.floor(centre)
    table = np.clip(low.astype(np.int64)[:, None] + np.arange(-1, 3), 0, size - 1)
    return table, np.stack(cubic(centre - low, type(step)(_SMOOTH)), 1)


def _triangle(d: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(d), 0)


def _bicubic(d: np.ndarray) -> np.ndarray:
    d = np.abs(d)
    return np.where(d < 1, (1.5 * d - 2.5) * d * d + 1, np.where(d < 2, ((-0.5 * d + 2.5) * d - 4) * d + 2, 0))


def _lanczos(d: np.ndarray) -> np.ndarray:
    return np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)


_KERNELS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1, _triangle), "bicubic": (2, _bicubic), "lanczos": (3, _lanczos),
}  # fmt: skip
"""Of the kernels for antialiasing: how far they reach, and their values."""


def _wide_taps(size: int, want: int, step: Any, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """All elements within the kernel's reach, which grows with the step; elements beside the input do not count."""
    radius, kernel = _KERNELS[mode]
    stretch = max(float(step), 1.0)
    reach = radius * stretch
    centre = float(step) * (np.arange(want) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + reach + 0.5).astype(np.int64), size)
    tap = np.arange(max(1, int((stop - first).max())))
    table = first[:, None] + tap
    weights = np.where(table < stop[:, None], kernel((table - centre[:, None] + 0.5) / stretch), 0)
    return np.minimum(table, stop[:, None] - 1), weights / weights.sum(1, keepdims=True)


# The functions of old


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """`interpolate` under its name of old, which warns.

    The errors are those of `interpolate`: ArgumentError, UnsupportedError and ShapeError.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     F.upsample(graphc.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample", "interpolate")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode="nearest": a name of old, which warns.

    The errors are those of `interpolate`: ArgumentError, UnsupportedError and ShapeError.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     F.upsample_nearest(graphc.tensor([[[1.0, 2.0]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    _deprecated("upsample_nearest", "interpolate")
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode="bilinear" (for volumes "trilinear") and align_corners=True: a name of old, which warns.

    The errors are those of `interpolate`: ArgumentError, UnsupportedError and ShapeError.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     F.upsample_bilinear(graphc.ones(1, 1, 2, 2), scale_factor=2).shape
    graphc.Size([1, 1, 4, 4])
    """
    _deprecated("upsample_bilinear", "interpolate")
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(f"`nn.functional.{name}` is deprecated. Use `nn.functional.{instead}` instead.", stacklevel=3)
