"""Functions of neighbours along a dimension: running sums, products and extremes, differences, slopes and areas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axis, emit
from graphc.frontend.composite import composite
from graphc.frontend.copying import clone
from graphc.frontend.creation import zeros
from graphc.frontend.joining import cat
from graphc.frontend.logic import logical_xor
from graphc.frontend.movement import check_distinct, narrow, reshape, select
from graphc.frontend.pointwise import Number, cast
from graphc.frontend.reductions import sum
from graphc.frontend.sorting import picked
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, float32, int64

FUNCTIONS = """
    cummax cummin cumprod cumsum cumulative_trapezoid diff gradient logcumsumexp trapezoid
"""
METHODS = "cummax cummin cumprod cumsum diff logcumsumexp"
IN_PLACE = "cumprod cumsum"
ALIASES = {"trapz": "trapezoid"}


def _scanned(record: Any, input: Tensor, dim: int) -> Tensor:
    at = axis(dim, input.ndim)
    if not input._data.shape:
        return reshape(emit(record, (reshape(input, (1,)),), {"axis": 0}), ())
    return emit(record, (input,), {"axis": at})


def _summable(input: Tensor, dtype: DType | None) -> Tensor:
    return cast(input, dtype or (input.dtype if input.dtype.is_differentiable else int64))


@composite(large=False)
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The sum of all elements up to each place along a dimension. Integers and bools are summed as int64.

    DimError for a dimension that there is not.

    >>> graphc.cumsum(graphc.tensor([1, 2, 3]), dim=0)
    tensor([1, 3, 6])
    """
    return named(_scanned(ops.cumsum, _summable(input, dtype), dim), "Cumsum")


@composite(large=False)
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The product of all elements up to each place along a dimension. Integers and bools are multiplied as int64.

    DimError for a dimension that there is not.

    >>> graphc.cumprod(graphc.tensor([1, 2, 3]), dim=0)
    tensor([1, 2, 6])
    """
    return named(_scanned(ops.cumprod, _summable(input, dtype), dim), "Cumprod")


@composite(large=False)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))) along a dimension, without overflow.

    DTypeError for integers.

    >>> graphc.logcumsumexp(graphc.tensor([0.0, 0.0]), dim=0)
    tensor([0.0000, 0.6931])
    """
    if not input.dtype.is_differentiable:
        axis(dim, input.ndim)
        raise DTypeError(f"logcumsumexp not implemented for {input.dtype.name}", expected="a floating point or complex dtype")
    return named(_scanned(ops.logcumsumexp, input, dim), "Logcumsumexp")


def cummax(input: Tensor, dim: int) -> Any:
    """The largest element up to each place along a dimension, and its index: the last one of equals. After a nan all is nan.
    Indices are int64.

    DimError for a dimension that there is not.

    >>> graphc.cummax(graphc.tensor([1, 3, 2]), dim=0)
    graphc.return_types.cummax(
    values=tensor([1, 3, 3]),
    indices=tensor([0, 1, 1]))
    """
    return return_types.cummax(*_running_extreme(input, dim, True))


def cummin(input: Tensor, dim: int) -> Any:
    """The least element up to each place along a dimension, and its index: the last one of equals. After a nan all is nan.
    Indices are int64.

    DimError for a dimension that there is not.

    >>> graphc.cummin(graphc.tensor([3, 1, 2]), dim=0)
    graphc.return_types.cummin(
    values=tensor([3, 1, 1]),
    indices=tensor([0, 1, 1]))
    """
    return return_types.cummin(*_running_extreme(input, dim, False))


@composite(large=False)
def _running_extreme(input: Tensor, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    at = axis(dim, input.ndim)
    index = _scanned(ops.argcummax if largest else ops.argcummin, input, at)
    return named(picked(input, index, at), "Cummax" if largest else "Cummin"), index


# Differences and areas


@composite(large=False)
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """The differences of neighbours along a dimension, taken `n` times; of bools, whether they differ.

    What is given as `prepend` and `append` is set before and behind the input first.

    GraphcError for a single number, and for a negative n.

    >>> graphc.diff(graphc.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    if not input._data.shape:
        raise GraphcError("diff expects input to be at least one-dimensional")
    at = axis(dim, input.ndim)
    if n < 0:
        raise GraphcError(f"order must be non-negative but got {n}")
    if n == 0:
        return clone(input)
    pieces = [x for x in (prepend, input, append) if x is not None]
    out = cat(pieces, at) if len(pieces) > 1 else input
    for _ in range(min(n, out._data.shape[at])):
        out = _differences(out, at)
    return out


def _neighbours(x: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """All elements along a dimension but the last, and all but the first."""
    count = max(x._data.shape[at] - 1, 0)
    return narrow(x, at, 0, count), narrow(x, at, min(1, x._data.shape[at]), count)


def _differences(x: Tensor, at: int) -> Tensor:
    left, right = _neighbours(x, at)
    return logical_xor(right, left) if x.dtype is bool_ else right - left


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The area under the line through points of heights `y` along a dimension: by the trapezoidal rule.

    The points lie at `x`, a vector or one for each row of y, or `dx` apart (1 unless given).

    ShapeError where there is not one place for each point, ArgumentTypeError for both of `x` and `dx`, DimError without a
    dimension, GraphcError for bools.

    >>> graphc.trapezoid(graphc.tensor([0.0, 1.0, 2.0]))
    tensor(2.)
    """
    at = _checked("trapezoid", y, x, dx, dim)
    left, right = _neighbours(y, at)
    if x is not None:
        return sum((left + right) * _widths("trapezoid", y, x, at), at) / 2.0
    step = 1 if dx is None else dx
    if y._data.shape[at] == 0:
        shape = tuple(s for i, s in enumerate(y._data.shape) if i != at)
        return zeros(shape, dtype=y.dtype, device=y.device)
    return (sum(y, at) - (select(y, at, 0) + select(y, at, -1)) * 0.5) * step


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Number | None = None, dim: int = -1) -> Tensor:
    """The area from the first point to each of the others; see `trapezoid`.

    ShapeError where there is not one place for each point, ArgumentTypeError for both of `x` and `dx`, DimError without a
    dimension, GraphcError for bools.

    >>> graphc.cumulative_trapezoid(graphc.tensor([0.0, 1.0, 2.0]))
    tensor([0.5000, 2.0000])
    """
    at = _checked("cumulative_trapezoid", y, x, dx, dim)
    left, right = _neighbours(y, at)
    if x is not None:
        return cumsum((left + right) * _widths("cumulative_trapezoid", y, x, at), at) / 2.0
    return cumsum((left + right) * ((1 if dx is None else dx) / 2.0), at)


def _checked(function: str, y: Tensor, x: Tensor | None, dx: Number | None, dim: int) -> int:
    if x is not None and (dx is not None or not isinstance(x, Tensor)):
        raise ArgumentTypeError(f"{function}() received an invalid combination of arguments",
                                expected="x, a tensor, or dx, a number, but not both", got=f"x of type {type(x).__name__}")
    for name, value in (("y", y), ("x", x)):
        if value is not None and value.dtype is bool_:
            raise GraphcError(f"{function}: received a bool input for `{name}`, but bool is not supported")
    if not y._data.shape:
        raise DimError(f"Dimension specified as {dim} but tensor has no dimensions")
    return axis(dim, y.ndim)


def _widths(function: str, y: Tensor, x: Tensor, at: int) -> Tensor:
    """The distances of neighbouring points, as they stretch over the heights."""
    shape = tuple(x._data.shape)
    if len(shape) == 1:
        shape = (*(1,) * at, *shape, *(1,) * (y.ndim - at - 1))
    elif len(shape) < y.ndim:
        shape = (*(1,) * (y.ndim - len(shape)), *shape)
    place = at + len(shape) - y.ndim
    if not x._data.shape or shape[place] != y._data.shape[at]:
        raise ShapeError(f"{function}: There must be one `x` value for each sample point",
                         got=f"{list(x.shape)} for {list(y.shape)}")
    return _differences(reshape(x, shape), place)


# Slopes


def gradient(input: Tensor, *, spacing: Any = None, dim: int | Sequence[int] | None = None,
             edge_order: int = 1) -> tuple[Tensor, ...]:
    """Estimates of the derivative along each of the dimensions by central differences, of second order inside.

    spacing
        The distance of the points: one number for all dimensions, or one a dimension; or, as a tensor for each
        dimension, the places of the points. 1 unless given.
    edge_order
        1 or 2: the order of the one-sided differences at the ends.

    GraphcError for another `edge_order`, for dimensions that are too short for it, and for a spacing that does not fit them.

    >>> graphc.gradient(graphc.tensor([1.0, 4.0, 9.0]))
    (tensor([3., 4., 5.]),)
    """
    if edge_order not in (1, 2):
        raise GraphcError("graphc.gradient only supports edge_order=1 and edge_order=2.", got=str(edge_order))
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    along = [axis(d, input.ndim) for d in dims]
    check_distinct(along)
    steps = list(spacing) if isinstance(spacing, (tuple, list)) else [1 if spacing is None else spacing] * len(along)
    if len(steps) != len(along):
        raise GraphcError("graphc.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to "
                          f"have the same length, but got a spacing argument of length {len(steps)} and a dim argument of "
                          f"length {len(along)}.")
    if any(input._data.shape[at] < edge_order + 1 for at in along):
        raise GraphcError("graphc.gradient expected each dimension size to be at least edge_order+1",
                          got=str(list(input.shape)))
    values = input if input.dtype.is_differentiable else cast(input, float32)
    return tuple(_slope(values, at, step, edge_order) for at, step in zip(along, steps))


def _slope(f: Tensor, at: int, step: Any, edge_order: int) -> Tensor:
    """The weights of the points beside and at each place come from the parabola through the three."""
    size = f._data.shape[at]
    if isinstance(step, Tensor) and step._data.shape:
        if step._data.shape != (size,):
            raise GraphcError("graphc.gradient expected each element of spacing to have one dimension, as many places as the "
                              f"input has points along dimension {at}", expected=str([size]), got=str(list(step.shape)))
        widths = reshape(_differences(step, 0), tuple(-1 if i == at else 1 for i in range(f.ndim)))
        before, after = _neighbours(widths, at)
    else:
        widths = before = after = step

    def points(start: int, count: int = 1) -> Tensor:
        return narrow(f, at, start % size, count)

    def width(place: int) -> Any:
        return narrow(widths, at, place % (size - 1), 1) if isinstance(widths, Tensor) and widths._data.shape else widths

    pieces = []
    for first, second, third, sign in ((0, 1, 2, 1), (-1, -2, -3, -1)):
        h = width(first)
        if edge_order == 1:
            pieces.append((points(second) - points(first)) * sign / h)
            continue
        k = width(second)
        near = points(second) * ((h + k) / (h * k)) - points(first) * ((2 * h + k) / (h * (h + k)))
        pieces.append((near - points(third) * (h / (k * (h + k)))) * sign)
    inner = size - 2
    if inner > 0:
        left, middle, right = points(0, inner), points(1, inner), points(2, inner)
        if isinstance(before, Tensor) and before._data.shape:
            total = before + after
            slopes = (right * (before / (after * total)) - left * (after / (before * total))
                      + middle * ((after - before) / (before * after)))
        else:
            slopes = (right - left) / (2 * before)
        pieces.insert(1, slopes)
    return named(cat(pieces, at), "Cat")
