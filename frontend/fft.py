"""Discrete Fourier transforms: of complex numbers, of real ones, and to real ones; along one, two or several dimensions.

`norm` says what the transforms are divided by: "backward" (the default) the inverse ones by n, the number of points;
"ortho" all by sqrt(n); "forward" the forward ones by n. `n` and `s` are sizes that the input is cut or padded with zeros to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axis as one_axis
from graphc.frontend.arguments import emit, integer, need_tensor, scalar_type
from graphc.frontend.joining import roll
from graphc.frontend.modes import mode
from graphc.frontend.movement import narrow
from graphc.frontend.pointwise import cast
from graphc.frontend.public import with_out
from graphc.frontend.ranges import arange
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, float32, get_default_dtype

Sizes = Sequence[int] | None
Dims = int | Sequence[int] | None


# Arguments


def _numbers(input: Any, name: str, complex_: bool) -> Tensor:
    """The input as real or as complex numbers that there is a transform for; integers become the default dtype."""
    x = need_tensor(input, name)
    if not x.dtype.is_differentiable:
        x = cast(x, get_default_dtype())
    if x.dtype.to_real().bits < 32 and mode.autocast is not None and not x.dtype.is_complex:
        x = cast(x, float32)
    if x.dtype.to_real().bits < 32:
        raise DTypeError(f"Unsupported dtype {scalar_type(x.dtype)}", hint="convert the input with .to(graphc.float32)")
    return cast(x, x.dtype.to_complex()) if complex_ else x


def _need_real(input: Any, name: str) -> Tensor:
    x = _numbers(input, name, False)
    if x.dtype.is_complex:
        raise DTypeError(f"{name} expects a real input tensor, but got {scalar_type(x.dtype)}")
    return x


def _scale(norm: str | None, inverse: bool) -> str:
    """The scale of the ops: "none", "root" or "full"."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise GraphcError(f'Invalid normalization mode: "{norm}"', expected='"backward", "ortho" or "forward"')
    if norm == "ortho":
        return "root"
    return "full" if (norm == "forward") is not inverse else "none"


def _axis(dim: int, x: Tensor) -> int:
    if not x._data.shape:
        raise DimError(f"Dimension specified as {dim} but tensor has no dimensions")
    return one_axis(dim, x.ndim)


def _axes(x: Tensor, s: Sizes, dim: Dims) -> tuple[tuple[int, ...], list[int | None]]:
    """The dimensions to transform, and the sizes that they are to have (None: as they are)."""
    if isinstance(s, int):
        s = (s,)
    if dim is None:
        count = x.ndim if s is None else len(s)
        if count > x.ndim:
            raise ShapeError(f"Got shape with {count} values but input tensor only has {x.ndim} dimensions.")
        chosen = tuple(range(x.ndim - count, x.ndim))
    else:
        chosen = tuple(_axis(integer(d, "dim"), x) for d in ((dim,) if isinstance(dim, int) else dim))
        if len(set(chosen)) != len(chosen):
            raise GraphcError("FFT dims must be unique", got=str(dim))
        if s is not None and len(s) != len(chosen):
            raise GraphcError("When given, dim and shape arguments must have the same length", got=f"{dim} and {list(s)}")
    sizes: list[int | None] = [None] * len(chosen) if s is None else [None if n == -1 else integer(n, "s") for n in s]
    for n in sizes:
        if n is not None and n < 1:
            raise GraphcError(f"Invalid number of data points ({n}) specified")
    return chosen, sizes


def _resized(x: Tensor, axes: Sequence[int], sizes: Sequence[int | None]) -> Tensor:
    """Cut, or padded with zeros at the end, to the sizes along the dimensions."""
    high = [0] * x.ndim
    for at, size in zip(axes, sizes):
        own = x._data.shape[at]
        if size is None or size == own:
            continue
        if size < own:
            x = narrow(x, at, 0, size)
        else:
            high[at] = size - own
    return emit(ops.pad, (x,), {"low": (0,) * x.ndim, "high": tuple(high), "value": 0}) if any(high) else x


def _need_points(x: Tensor, axes: Sequence[int]) -> None:
    for at in axes:
        if isinstance(x._data.shape[at], int) and x._data.shape[at] < 1:
            raise GraphcError(f"Invalid number of data points ({x._data.shape[at]}) specified")


# The three kinds of transforms, along any dimensions


def _c2c(input: Any, name: str, s: Sizes, dim: Dims, norm: str | None, inverse: bool) -> Tensor:
    x = _numbers(input, name, True)
    axes, sizes = _axes(x, s, dim)
    x = _resized(x, axes, sizes)
    _need_points(x, axes)
    if not axes:
        return x.clone()
    return named(emit(ops.fft_c2c, (x,), {"axes": axes, "inverse": inverse, "scale": _scale(norm, inverse)}), "FftC2C")


def _r2c(input: Any, name: str, s: Sizes, dim: Dims, norm: str | None, inverse: bool = False) -> Tensor:
    """The half spectrum of real numbers; that of the inverse transform is its conjugate."""
    x = _need_real(input, name)
    axes, sizes = _axes(x, s, dim)
    if not axes:
        raise GraphcError(f"{name} must transform at least one axis")
    x = _resized(x, axes, sizes)
    _need_points(x, axes)
    scale = _scale(norm, inverse)
    half = named(emit(ops.fft_r2c, (x,), {"axis": axes[-1], "scale": scale}), "FftR2C")
    if inverse:
        half = ops.conj(half)
    if len(axes) == 1:
        return half
    return named(emit(ops.fft_c2c, (half,), {"axes": axes[:-1], "inverse": inverse, "scale": scale}), "FftC2C")


def _c2r(input: Any, name: str, s: Sizes, dim: Dims, norm: str | None, inverse: bool = True) -> Tensor:
    """Real numbers of a half spectrum: the inverse transform, or the forward one of the conjugate."""
    x = _numbers(input, name, True)
    axes, sizes = _axes(x, s, dim)
    if not axes:
        raise GraphcError(f"{name} must transform at least one axis")
    last = sizes[-1] if sizes[-1] is not None else 2 * (x._data.shape[axes[-1]] - 1)
    if isinstance(last, int) and last < 1:
        raise GraphcError(f"Invalid number of data points ({last}) specified")
    x = _resized(x, axes, [*sizes[:-1], last // 2 + 1])
    _need_points(x, axes)
    scale = _scale(norm, inverse)
    if len(axes) > 1:
        x = named(emit(ops.fft_c2c, (x,), {"axes": axes[:-1], "inverse": inverse, "scale": scale}), "FftC2C")
    if not inverse:
        x = ops.conj(x)
    return named(emit(ops.fft_c2r, (x,), {"axis": axes[-1], "size": last, "scale": scale}), "FftC2R")


def _one(x: Any, n: int | None, dim: int, name: str) -> tuple[Sizes, Dims]:
    """The arguments of a transform along one dimension in the form of those along several."""
    _axis(integer(dim, "dim"), need_tensor(x, name))
    if n is not None and integer(n, "n") < 1:
        raise GraphcError(f"Invalid number of data points ({n}) specified")
    return None if n is None else (n,), (dim,)


# Of complex numbers


@with_out
def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The transform along one dimension: out[k] = the sum of x[j] e^(-2 pi i j k / n), complex. The input is cut off or
    followed by zeros to n points. `norm` "ortho" divides by sqrt(n), "forward" by n.

    GraphcError for fewer than one point and for another `norm`, DTypeError for float16 and bfloat16, DimError for a dimension
    that there is not.

    >>> graphc.fft.fft(graphc.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _c2c(input, "fft", *_one(input, n, dim, "fft"), norm, False)


@with_out
def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse transform along one dimension, divided by n; by sqrt(n) with `norm` "ortho", by 1 with "forward". The result
    is complex.

    GraphcError for fewer than one point and for another `norm`, DTypeError for float16 and bfloat16, DimError for a dimension
    that there is not.

    >>> graphc.fft.ifft(graphc.tensor([4.0, 0.0, 0.0, 0.0]))
    tensor([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _c2c(input, "ifft", *_one(input, n, dim, "ifft"), norm, True)


@with_out
def fft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """The transform along two dimensions. The result is complex.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.fft2(graphc.ones(2, 2))
    tensor([[4.+0.j, 0.+0.j],
            [0.+0.j, 0.+0.j]])
    """
    return _c2c(input, "fft2", s, dim, norm, False)


@with_out
def ifft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """The inverse transform along two dimensions. The result is complex.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.ifft2(graphc.ones(2, 2))
    tensor([[1.+0.j, 0.+0.j],
            [0.+0.j, 0.+0.j]])
    """
    return _c2c(input, "ifft2", s, dim, norm, True)


@with_out
def fftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The transform along several dimensions: all of them, or with `s` as many of the last ones as it has sizes. The result is
    complex.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.fftn(graphc.ones(2, 2, 2)).shape
    graphc.Size([2, 2, 2])
    """
    return _c2c(input, "fftn", s, dim, norm, False)


@with_out
def ifftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The inverse transform along several dimensions. The result is complex.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.ifftn(graphc.ones(2, 2, 2)).shape
    graphc.Size([2, 2, 2])
    """
    return _c2c(input, "ifftn", s, dim, norm, True)


# Of real numbers: the first n // 2 + 1 frequencies along the last of the dimensions, of which the others are conjugates


@with_out
def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The half spectrum of real numbers along one dimension: n // 2 + 1 frequencies, from 0 up; the others are their
    conjugates.

    DTypeError for complex numbers, float16 and bfloat16, GraphcError for fewer than one point and for another `norm`, DimError
    for a dimension that there is not.

    >>> graphc.fft.rfft(graphc.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _r2c(input, "rfft", *_one(input, n, dim, "rfft"), norm)


@with_out
def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Real numbers of a half spectrum along one dimension: n of them, by default 2 (m - 1) of m frequencies.

    GraphcError for fewer than one point and for another `norm`, DTypeError for float16 and bfloat16, DimError for a dimension
    that there is not.

    >>> graphc.fft.irfft(graphc.tensor([1.0, 1.0, 1.0]))
    tensor([1., 0., 0., 0.])
    """
    return _c2r(input, "irfft", *_one(input, n, dim, "irfft"), norm)


@with_out
def rfft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """The half spectrum of real numbers along two dimensions. The result is complex.

    DTypeError for complex numbers, float16 and bfloat16, ShapeError where `s` has more sizes than there are dimensions,
    GraphcError where `s` and `dim` do not fit, for dimensions named twice, fewer than one point and another `norm`; DimError
    for a dimension that there is not.

    >>> graphc.fft.rfft2(graphc.ones(4, 6)).shape
    graphc.Size([4, 4])
    """
    return _r2c(input, "rfft2", s, dim, norm)


@with_out
def irfft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Real numbers of a half spectrum along two dimensions.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.irfft2(graphc.ones(4, 4)).shape
    graphc.Size([4, 6])
    """
    return _c2r(input, "irfft2", s, dim, norm)


@with_out
def rfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The half spectrum of real numbers along several dimensions. The result is complex.

    DTypeError for complex numbers, float16 and bfloat16, ShapeError where `s` has more sizes than there are dimensions,
    GraphcError where `s` and `dim` do not fit, for dimensions named twice, fewer than one point and another `norm`; DimError
    for a dimension that there is not.

    >>> graphc.fft.rfftn(graphc.ones(2, 4, 6)).shape
    graphc.Size([2, 4, 4])
    """
    return _r2c(input, "rfftn", s, dim, norm)


@with_out
def irfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Real numbers of a half spectrum along several dimensions.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.irfftn(graphc.ones(2, 4, 4)).shape
    graphc.Size([2, 4, 6])
    """
    return _c2r(input, "irfftn", s, dim, norm)


# Of numbers whose spectrum is real: given by their first half, as the others are conjugates


@with_out
def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The real spectrum of numbers that are conjugate-symmetric along one dimension, given by the first half of them.

    GraphcError for fewer than one point and for another `norm`, DTypeError for float16 and bfloat16, DimError for a dimension
    that there is not.

    >>> graphc.fft.hfft(graphc.tensor([1.0, 0.0, 0.0]))
    tensor([1., 1., 1., 1.])
    """
    return _c2r(input, "hfft", *_one(input, n, dim, "hfft"), norm, inverse=False)


@with_out
def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The first half of the conjugate-symmetric numbers that have a real spectrum. The result is complex.

    DTypeError for complex numbers, float16 and bfloat16, GraphcError for fewer than one point and for another `norm`, DimError
    for a dimension that there is not.

    >>> graphc.fft.ihfft(graphc.tensor([4.0, 0.0, 0.0, 0.0]))
    tensor([1.-0.j, 1.-0.j, 1.-0.j])
    """
    return _r2c(input, "ihfft", *_one(input, n, dim, "ihfft"), norm, inverse=True)


@with_out
def hfft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """`hfft` along two dimensions, of which the last one is given by half.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.hfft2(graphc.ones(4, 3)).shape
    graphc.Size([4, 4])
    """
    return _c2r(input, "hfft2", s, dim, norm, inverse=False)


@with_out
def ihfft2(input: Tensor, s: Sizes = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """`ihfft` along two dimensions. The result is complex.

    DTypeError for complex numbers, float16 and bfloat16, ShapeError where `s` has more sizes than there are dimensions,
    GraphcError where `s` and `dim` do not fit, for dimensions named twice, fewer than one point and another `norm`; DimError
    for a dimension that there is not.

    >>> graphc.fft.ihfft2(graphc.ones(4, 4)).shape
    graphc.Size([4, 3])
    """
    return _r2c(input, "ihfft2", s, dim, norm, inverse=True)


@with_out
def hfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """`hfft` along several dimensions, of which the last one is given by half.

    ShapeError where `s` has more sizes than there are dimensions, GraphcError where `s` and `dim` do not fit, for dimensions
    named twice, fewer than one point and another `norm`, DTypeError for float16 and bfloat16; DimError for a dimension that
    there is not.

    >>> graphc.fft.hfftn(graphc.ones(2, 4, 3)).shape
    graphc.Size([2, 4, 4])
    """
    return _c2r(input, "hfftn", s, dim, norm, inverse=False)


@with_out
def ihfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """`ihfft` along several dimensions. The result is complex.

    DTypeError for complex numbers, float16 and bfloat16, ShapeError where `s` has more sizes than there are dimensions,
    GraphcError where `s` and `dim` do not fit, for dimensions named twice, fewer than one point and another `norm`; DimError
    for a dimension that there is not.

    >>> graphc.fft.ihfftn(graphc.ones(2, 4, 4)).shape
    graphc.Size([2, 4, 3])
    """
    return _r2c(input, "ihfftn", s, dim, norm, inverse=True)


# Frequencies and their order


@with_out
def fftfreq(n: int, d: float = 1.0, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of `fft` of n points a distance d apart: 0, 1, ..., then the negative ones, each over n d.

    >>> graphc.fft.fftfreq(4)
    tensor([ 0.0000,  0.2500, -0.5000, -0.2500])
    """
    positive = (n - 1) // 2 + 1
    dtype = dtype or get_default_dtype()
    places = arange(n, dtype=dtype, device=device)
    out = (places - cast(places >= positive, dtype) * n) * (1.0 / (n * d))
    return out.requires_grad_() if requires_grad else out


@with_out
def rfftfreq(n: int, d: float = 1.0, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of `rfft` of n points a distance d apart: 0, 1, ..., n // 2, each over n d.

    >>> graphc.fft.rfftfreq(4)
    tensor([0.0000, 0.2500, 0.5000])
    """
    out = arange(n // 2 + 1, dtype=dtype or get_default_dtype(), device=device) * (1.0 / (n * d))
    return out.requires_grad_() if requires_grad else out


def _shifted(input: Tensor, dim: Dims, halves: Any, name: str) -> Tensor:
    need_tensor(input, name)
    along = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if not along:
        return input.clone()
    return roll(input, [halves(input._data.shape[_axis(d, input)]) for d in along], list(along))


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The frequencies in ascending order: negative ones, zero, positive ones.

    DimError for a dimension that there is not.

    >>> graphc.fft.fftshift(graphc.fft.fftfreq(4))
    tensor([-0.5000, -0.2500,  0.0000,  0.2500])
    """
    return _shifted(input, dim, lambda size: size // 2, "fftshift")


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """`fftshift` undone.

    DimError for a dimension that there is not.

    >>> graphc.fft.ifftshift(graphc.tensor([-2, -1, 0, 1]))
    tensor([ 0,  1, -2, -1])
    """
    return _shifted(input, dim, lambda size: (size + 1) // 2, "ifftshift")


__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft",
    "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip
