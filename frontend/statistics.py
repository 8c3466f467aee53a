"""Order statistics, and how numbers are distributed: medians, quantiles, counts, histograms, covariances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axis, emit, integer
from graphc.frontend.arithmetic import lerp
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.creation import full, zeros
from graphc.frontend.creation_like import full_like
from graphc.frontend.from_data import as_tensor
from graphc.frontend.joining import cat
from graphc.frontend.logic import isnan, ne
from graphc.frontend.matrices import matmul
from graphc.frontend.movement import expand, movedim, narrow, reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import Number, cast, ceil, clamp, floor, round, sqrt, where
from graphc.frontend.ranges import linspace
from graphc.frontend.reductions import any as any_of
from graphc.frontend.reductions import argmax, max, min, sum
from graphc.frontend.sorting import bucketize, order, picked, reduced_by
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import bool_, float32, float64, get_default_dtype, int64

FUNCTIONS = """
    bincount corrcoef cov histc histogram histogramdd median mode nanmedian nanquantile quantile
"""
METHODS = """
    bincount corrcoef cov histc histogram median mode nanmedian nanquantile quantile
"""

# Order statistics


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median: the lower one of the two in the middle; nan if there is one. Along `dim`, with its index. Indices are int64.

    DimError for a dimension that there is not, or that is of size 0.

    >>> graphc.median(graphc.tensor([3.0, 1.0, 2.0, 4.0]))
    tensor(2.)
    """
    return _median(input, dim, keepdim, "Median", ignore=False)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not nan; see `median`. Indices are int64.

    DimError for a dimension that there is not, or that is of size 0.

    >>> graphc.nanmedian(graphc.tensor([3.0, float("nan"), 2.0]))
    tensor(2.)
    """
    return _median(input, dim, keepdim, "Nanmedian", ignore=True)


def _median(input: Tensor, dim: int | None, keepdim: bool, name: str, ignore: bool) -> Any:
    if dim is None:
        flat = reshape(input, (-1,))
        if flat._data.shape[0] == 0:
            return full((), math.nan if input.dtype.is_floating_point else 0, dtype=input.dtype, device=input.device)
        return _middle_of_all(flat, ignore)
    at = axis(dim, input.ndim)
    if input._data.shape and input._data.shape[at] == 0:
        raise DimError(f"{name.lower()}(): Expected reduction dim {at} to have non-zero size.")
    found = return_types.nanmedian if ignore else return_types.median
    return found(*_middle_along(input, at, keepdim, ignore))


@composite(large=False)
def _middle_of_all(flat: Tensor, ignore: bool) -> Tensor:
    return named(_shared(flat, picked(flat, _middle(flat, 0, ignore), 0)), "Nanmedian" if ignore else "Median")


@composite(large=False)
def _middle_along(input: Tensor, at: int, keepdim: bool, ignore: bool) -> tuple[Tensor, Tensor]:
    return reduced_by(input, _middle(input, at, ignore), at, keepdim, "Nanmedian" if ignore else "Median")


def _middle(input: Tensor, at: int, ignore: bool) -> Tensor:
    """The place of the median, along a dimension that stays with size 1."""
    index = order(input, at)
    if not input._data.shape:
        return index
    count = input._data.shape[at]
    if not input.dtype.is_floating_point:
        return narrow(index, at, (count - 1) // 2, 1)
    numbers = sum(~isnan(input), at, keepdim=True)  # nan stands behind them
    if ignore:
        rank = clamp((numbers - 1) // 2, min=0)
    else:
        rank = where(numbers < count, numbers, (count - 1) // 2)
    return picked(index, rank, at)


def _shared(flat: Tensor, chosen: Tensor) -> Tensor:
    """The element that was chosen from a vector, with a gradient that is shared by all its equals."""
    if not flat.dtype.is_floating_point:
        return reshape(chosen, ())
    value = chosen.detach()
    equal = (flat == value) | (isnan(flat) & isnan(value))
    return emit(ops.amax, (where(equal, flat, -math.inf),), {"axes": (0,)})


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along a dimension, the least of equally frequent ones; and the last of its places. Places are
    int64.

    DimError for a dimension that there is not, or that is of size 0.

    >>> graphc.mode(graphc.tensor([1, 2, 2]))
    graphc.return_types.mode(
    values=tensor(2),
    indices=tensor(2))
    """
    at = axis(dim, input.ndim)
    if input._data.shape and input._data.shape[at] == 0:
        raise DimError(f"mode(): Expected reduction dim {at} to have non-zero size.")
    index = order(input, at)
    if not input._data.shape:
        return return_types.mode(input.clone(), index)
    ranked = picked(input.detach(), index, at)
    count = ranked._data.shape[at]
    first = narrow(ranked, at, 0, 1)
    starts = cat((first == first, ne(narrow(ranked, at, 1, count - 1), narrow(ranked, at, 0, count - 1))), at)
    run = emit(ops.argcummax, (cast(starts, int64),), {"axis": at})  # where the run of each element starts
    place = ops.iota(shape=tuple(ranked._data.shape), axis=at, dtype=int64, like=Tensor)
    longest = argmax(place - run, at, keepdim=True)
    return return_types.mode(*reduced_by(input, picked(index, longest, at), at, keepdim, "Mode"))


INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


@full_precision
def quantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The value below which a part q of the elements lies, over all elements or along `dim`; nan where there is one.

    For a vector of several q there is a first dimension of as many results. Where q falls between two elements,
    `interpolation` says what is taken: "linear" between them, the "lower", the "higher", the "midpoint" or the "nearest".

    ShapeError for an empty tensor and for a q of several dimensions, DTypeError for other dtypes than float32 and float64,
    GraphcError for a q outside of [0, 1] and for another interpolation.

    >>> graphc.quantile(graphc.tensor([1.0, 2.0, 3.0, 4.0]), graphc.tensor([0.25, 0.5]))
    tensor([1.7500, 2.5000])
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, ignore=False)


@full_precision
def nanquantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """The quantile of what is not nan; see `quantile`.

    ShapeError for an empty tensor and for a q of several dimensions, DTypeError for other dtypes than float32 and float64,
    GraphcError for a q outside of [0, 1] and for another interpolation.

    >>> graphc.nanquantile(graphc.tensor([1.0, float("nan"), 3.0]), 0.5)
    tensor(2.)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, ignore=True)


def _quantile(function: str, input: Tensor, q: float | Tensor, dim: int | None, keepdim: bool, interpolation: str,
              ignore: bool) -> Tensor:
    parts = _parts(function, input, q, interpolation)
    at = 0 if dim is None else axis(dim, input.ndim)
    rows = reshape(input, (-1,)) if dim is None or not input._data.shape else movedim(input, at, -1)
    last = rows.ndim - 1
    ranked = picked(rows, order(rows, last), last)
    missing = isnan(rows)
    if ignore:
        numbers = cast(sum(~missing, last, keepdim=True), input.dtype)
        rank = clamp(reshape(parts, (-1,)) * (numbers - 1), min=0)
    else:
        end = rows._data.shape[last] - 1
        rank = where(any_of(missing, last, keepdim=True), float(end), reshape(parts, (-1,)) * end)
    out = _between(ranked, rank, last, interpolation)
    # one result a quantile stands along the last dimension; they go to the front
    lead = rows._data.shape[:-1]
    if keepdim:
        lead = (1,) * input.ndim if dim is None else tuple(1 if i == at else s for i, s in enumerate(input._data.shape))
    if parts.ndim == 0:
        return reshape(out, lead)
    return reshape(movedim(out, -1, 0), (parts._data.shape[0], *lead))


def _parts(function: str, input: Tensor, q: float | Tensor, interpolation: str) -> Tensor:
    if input._data.shape and 0 in input._data.shape:
        raise ShapeError(f"{function}() input tensor must be non-empty", got=str(list(input.shape)))
    if input.dtype not in (float32, float64):
        raise DTypeError(f"{function}() input tensor must be either float or double dtype", got=input.dtype.name)
    if interpolation not in INTERPOLATIONS:
        raise GraphcError(f"{function}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
                          f"{interpolation}")
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise GraphcError(f"{function}() q must be in the range [0, 1] but got {q}")
        return as_tensor(float(q), dtype=input.dtype)
    if q.ndim > 1:
        raise ShapeError(f"{function}() q must be a scalar or 1D tensor", got=str(list(q.shape)))
    if q.dtype is not input.dtype:
        raise DTypeError(f"{function}() q tensor must be same dtype as the input tensor", expected=input.dtype.name,
                         got=q.dtype.name)
    known = q._known()
    if known is not None and not ((known >= 0) & (known <= 1)).all():
        raise GraphcError(f"{function}() q values must be in the range [0, 1]")
    return q


def _between(ranked: Tensor, rank: Tensor, last: int, interpolation: str) -> Tensor:
    """The elements at ranks that are no whole numbers."""
    shape = (*ranked._data.shape[:-1], rank._data.shape[-1])
    if interpolation in ("lower", "higher", "nearest"):
        whole = {"lower": floor, "higher": ceil, "nearest": round}[interpolation](rank)
        return picked(ranked, expand(cast(whole, int64), shape), last)
    below, above = (picked(ranked, expand(cast(end, int64), shape), last) for end in (floor(rank), ceil(rank)))
    weight = expand(rank - floor(rank), shape) if interpolation == "linear" else full_like(below, 0.5)
    return lerp(below, above, weight)


# Counting


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 to the largest occurs in a vector of integers >= 0; or the sum of its weights.

    The result has `minlength` places at least. It depends on the numbers how many it has, so this cannot be traced.

    DTypeError for what are no integers, GraphcError for negative ones and more than one dimension, ShapeError where there are
    not as many weights.

    >>> graphc.bincount(graphc.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    if minlength < 0:
        raise GraphcError("minlength should be >= 0", got=str(minlength))
    if input.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"bincount not implemented for {input.dtype.name}", expected="an integer dtype")
    array = input._array("bincount()")
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise GraphcError("bincount only supports 1-d non-negative integral inputs.",
                          got=str(list(array.shape)) if array.ndim != 1 else str(array.min()))
    if weights is None:
        return wrap(np.bincount(array, minlength=minlength).astype(np.int64)).to(input.device)
    if weights._data.shape != input._data.shape:
        raise ShapeError("weights should be 1-d and have the same length as input", expected=str(list(input.shape)),
                         got=str(list(weights.shape)))
    dtype = np.float32 if weights.dtype is float32 else np.float64
    heights = weights._array("bincount()").astype(np.float64)
    return wrap(np.bincount(array, heights, minlength).astype(dtype)).to(input.device)


def histc(input: Tensor, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
    """How many elements fall into each of `bins` intervals of equal width from `min` to `max`, or, where both are equal,
    over the range of the data. What lies outside is not counted.

    GraphcError where max is less than min; DTypeError for what is not floating-point.

    >>> graphc.histc(graphc.tensor([1.0, 2.0, 2.0]), bins=2, min=1, max=3)
    tensor([1., 2.])
    """
    _check_floating("histc", input)
    _check_bins([bins])
    if min > max:
        raise GraphcError("graphc.histc: max must be larger than min", got=f"{min} and {max}")
    low, high = _range("graphc.histc: range of", input.detach(), (min, max) if min != max else None)
    return _counts(input.detach(), low, high, bins)


@composite
def _counts(input: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    flat = reshape(input, (-1,))
    low, high = _widened(low, high)
    place = clamp(cast((flat - low) * bins / (high - low), int64), min=0, max=bins - 1)
    inside = cast((flat >= low) & (flat <= high), input.dtype)
    return emit(ops.scatter_add, (zeros(bins, dtype=input.dtype), place, inside), {"axis": 0})


def histogram(input: Tensor, bins: int | Tensor = 100, *, range: Sequence[float] | None = None,
              weight: Tensor | None = None, density: bool = False) -> Any:
    """The histogram of all elements and the edges of its bins: `hist` and `bin_edges`.

    bins
        How many bins of equal width, or their edges, an ascending vector of one more.
    range
        The outer edges of bins of equal width; the range of the data unless given.
    weight
        What each element counts for.
    density
        Whether the histogram is scaled to an area of 1.

    ArgumentTypeError for edges with a range, DTypeError for what is not floating-point, GraphcError for a number of bins that
    is not positive and a range that ends before it begins, ShapeError for weights of another shape.

    >>> counts, edges = graphc.histogram(graphc.tensor([1.0, 2.0, 2.0]), bins=2, range=(1.0, 3.0))
    >>> counts, edges
    (tensor([1., 2.]), tensor([1., 2., 3.]))
    """
    if isinstance(bins, Tensor) and range is not None:
        raise ArgumentTypeError("histogram() received an invalid combination of arguments",
                                expected="a range, or a tensor of bin edges, but not both")
    flat = reshape(input, (-1, 1))
    if weight is not None and weight._data.shape == input._data.shape:
        weight = reshape(weight, (-1,))
    hist, edges = histogramdd(flat, [bins], range, weight, density)
    return return_types.histogram(hist, edges[0])


def histogramdd(input: Tensor, bins: Any, range: Sequence[float] | None = None, weight: Tensor | None = None,
                density: bool = False) -> Any:
    """The histogram of points, whose coordinates stand along the last dimension: `hist`, which has a dimension a
    coordinate, and `bin_edges`, a tuple of vectors. See `histogram` for the arguments; `bins` are given for each
    coordinate, or as one number for all, and `range` as a lower and an upper end for each.

    ShapeError for less than two dimensions and where bins, range or weights do not fit them, DTypeError for what is not
    floating-point, GraphcError for a number of bins that is not positive and a range that ends before it begins.

    >>> graphc.histogramdd(graphc.tensor([[0.0, 0.0], [1.0, 1.0]]), bins=[2, 2]).hist
    tensor([[1., 0.],
            [0., 1.]])
    """
    if input.ndim < 2:
        raise ShapeError("graphc.histogramdd: input tensor should have at least 2 dimensions", got=str(list(input.shape)))
    _check_floating("histogramdd", input)
    count = input._data.shape[-1]
    each = [bins] * count if isinstance(bins, int) else list(bins)
    if len(each) != count:
        raise ShapeError("histogramdd: The size of bins must be equal to the innermost dimension of the input.",
                         expected=str(count), got=str(len(each)))
    if range is not None and len(range) != 2 * count:
        raise ShapeError(f"graphc.histogramdd: for a {count}-dimensional histogram range should have {2 * count} elements, but "
                         f"got {len(range)}")
    if weight is not None and tuple(weight._data.shape) != tuple(input._data.shape[:-1]):
        raise ShapeError("graphc.histogramdd: if weight tensor is provided it should have the same shape as the input tensor "
                         f"excluding its innermost dimension, but got input with shape {list(input.shape)} and weight with "
                         f"shape {list(weight.shape)}")
    points = reshape(input.detach(), (math.prod(input._data.shape[:-1]), count))
    if weight is None:
        heights = full((points._data.shape[0],), 1, dtype=input.dtype)
    else:
        heights = cast(reshape(weight.detach(), (-1,)), input.dtype)
    edges = _edges(points, each, range)
    place: Any = 0
    for i, line in enumerate(edges):
        x, size = points[:, i], line._data.shape[0] - 1
        # a bin holds its left edge; the last one holds both
        at = where(x == line[-1], size - 1, bucketize(x, line, right=True) - 1)
        heights = where((x >= line[0]) & (x <= line[-1]), heights, 0)
        place = place * size + clamp(at, min=0, max=size - 1)
    shape = tuple(line._data.shape[0] - 1 for line in edges)
    empty = zeros(math.prod(shape), dtype=input.dtype)
    hist = reshape(emit(ops.scatter_add, (empty, place, heights), {"axis": 0}), shape)
    if density:
        hist = _density(hist, edges)
    return return_types.histogramdd(hist, edges)


def _density(hist: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """A histogram over its sum and over the sizes of its bins."""
    hist = hist / sum(hist)
    for i, line in enumerate(edges):
        hist = hist / reshape(line[1:] - line[:-1], (*(1,) * i, -1, *(1,) * (len(edges) - i - 1)))
    return hist


def _check_floating(function: str, input: Tensor) -> None:
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{function} not implemented for {input.dtype.name}", expected="a floating point dtype")


def _check_bins(counts: Sequence[Any]) -> None:
    for i, count in enumerate(counts):
        if not isinstance(count, Tensor) and integer(count, "bins") <= 0:
            raise GraphcError(f"graphc.histogram(): bins must be > 0, but got {count} for dimension {i}")


def _edges(points: Tensor, bins: Sequence[Any], range: Sequence[float] | None) -> tuple[Tensor, ...]:
    """The edges of the bins along each coordinate."""
    _check_bins(bins)
    lines = []
    for i, wanted in enumerate(bins):
        if isinstance(wanted, Tensor):
            if wanted.ndim != 1:
                raise ShapeError(f"graphc.histogramdd: bins tensor should have one dimension, but got {wanted.ndim} dimensions "
                                 f"in the bins tensor for dimension {i}")
            if wanted.dtype is not points.dtype:
                raise DTypeError("graphc.histogramdd: input tensor and bins tensors should have the same dtype, but got input "
                                 f"with dtype {points.dtype.name} and bins for dimension {i} with dtype {wanted.dtype.name}")
            lines.append(wanted)
            continue
        ends = None if range is None else (range[2 * i], range[2 * i + 1])
        if ends is not None and ends[0] > ends[1]:
            raise GraphcError(f"graphc.histogramdd: min should not exceed max, but got min {ends[0]} max {ends[1]} for "
                              f"dimension {i}")
        low, high = _outer_edges(f"graphc.histogramdd: dimension {i}'s range", points[:, i], ends)
        lines.append(linspace(low, high, wanted + 1, dtype=points.dtype))
    return tuple(lines)


def _outer_edges(what: str, x: Tensor, ends: Sequence[Number] | None) -> tuple[Tensor, Tensor]:
    """The range that a histogram covers: that of the data unless given; an empty range is widened to 1."""
    return _widened(*_range(what, x, ends))


def _range(what: str, x: Tensor, ends: Sequence[Number] | None) -> tuple[Tensor, Tensor]:
    if ends is None and math.prod(x._data.shape) == 0:
        ends = (0, 1)
    low, high = (as_tensor(end, dtype=x.dtype) for end in ends) if ends is not None else (min(x), max(x))
    for end in (low, high):
        known = end._known()
        if known is not None and not np.isfinite(known):
            raise GraphcError(f"{what} [{low.item()}, {high.item()}] is not finite")
    return low, high


def _widened(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    empty = low == high
    return where(empty, low - 0.5, low), where(empty, high + 0.5, high)


# Covariance


def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """The covariances of variables, which are the rows; their observations are the columns. A vector is one variable.

    correction
        What is taken from the number of observations that sums are divided by.
    fweights, aweights
        How often each observation was made (integers), and how much it counts.

    ShapeError for more than two dimensions, DTypeError for bools; GraphcError for negative weights.

    >>> graphc.cov(graphc.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise ShapeError("cov(): expected input to have two or fewer dimensions but got an input with "
                         f"{input.ndim} dimensions")
    if input.dtype is bool_:
        raise DTypeError("cov(): bool dtype is not supported for input")
    x = input if input.dtype.is_differentiable else cast(input, float32)
    x = reshape(x, (1, -1)) if input.ndim < 2 else x
    count = x._data.shape[1]
    weights = _weights(count, fweights, aweights)
    if weights is None:
        centred = x - sum(x, 1, keepdim=True) / count
        freedom = count - correction
        weighted = centred
        divisor = (emit(ops.size, (), {"value": freedom, "dtype": get_default_dtype()}) if isinstance(freedom, Dim)
                   else as_tensor(float(freedom)))
    else:
        total = sum(weights)
        centred = x - sum(x * weights, 1, keepdim=True) / total
        weighted = centred * weights
        lost = sum(weights * aweights) / total if aweights is not None else 1
        divisor = total - correction * lost
    known = divisor._known()
    if known is not None and known <= 0:
        warnings.warn("cov(): degrees of freedom is <= 0. Correction should be strictly less than the number of "
                      "observations.", UserWarning, stacklevel=2)
    products = matmul(weighted, cast(_conjugate(centred), weighted.dtype).transpose(0, 1))
    return squeeze(products / clamp(divisor, min=0))


def _weights(count: int, fweights: Tensor | None, aweights: Tensor | None) -> Tensor | None:
    """The weights of the observations."""
    for name, given, kinds in (("fweights", fweights, ("int", "uint")), ("aweights", aweights, ("float",))):
        if given is None:
            continue
        if given.ndim > 1:
            raise ShapeError(f"cov(): expected {name} to have one or fewer dimensions but got {name} with {given.ndim} "
                             "dimensions")
        if given.dtype.kind not in kinds:
            raise DTypeError(f"cov(): expected {name} to have {'integral' if name == 'fweights' else 'floating point'} dtype "
                             f"but got {name} with {given.dtype.name} dtype")
        if given.numel() != count:
            raise ShapeError(f"cov(): expected {name} to have the same numel as there are observations in the input but got "
                             f"{given.numel()} != {count}")
        known = given._known()
        if known is not None and known.min() < 0:
            raise GraphcError(f"cov(): {name} cannot be negative")
    if fweights is None or aweights is None:
        return fweights if aweights is None else aweights
    return fweights * aweights


def _conjugate(x: Tensor) -> Tensor:
    return x.conj() if x.dtype.is_complex else x


def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables, which are the rows; their observations are the columns.

    ShapeError for more than two dimensions.

    >>> graphc.corrcoef(graphc.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise ShapeError("corrcoef(): expected input to have two or fewer dimensions but got an input with "
                         f"{input.ndim} dimensions")
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = sqrt(c.diagonal())
    ratio = c / unsqueeze(deviation, 1) / unsqueeze(deviation, 0)
    return ratio if ratio.dtype.is_complex else clamp(ratio, -1, 1)
