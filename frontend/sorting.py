"""Functions that put elements in order, find them in what is ordered, and find out which are equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axis, emit, integer, promoted
from graphc.frontend.composite import composite
from graphc.frontend.creation import zeros
from graphc.frontend.from_data import as_tensor
from graphc.frontend.movement import movedim, narrow, reshape, select
from graphc.frontend.pointwise import Number, cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.ops.sort import comparable
from graphc.types import bool_, int32, int64

FUNCTIONS = """
    argsort bucketize isin kthvalue msort searchsorted sort topk unique unique_consecutive
"""
METHODS = "argsort isin kthvalue msort sort topk unique unique_consecutive"


def order(input: Tensor, dim: int, descending: bool = False) -> Tensor:
    """The places of the elements in sorted order along a dimension counted from the left."""
    if not input._data.shape:
        return reshape(order(reshape(input, (1,)), 0), ())
    if input.dtype.is_complex:
        raise DTypeError("Sort does not support complex dtypes on CPU", got=input.dtype.name)
    return emit(ops.argsort, (input,), {"axis": dim, "descending": descending})


def _first(input: Tensor, dim: int, count: int, descending: bool = False) -> Tensor:
    """The first `count` of these places; of a 0-d tensor the only one."""
    if not input._data.shape:
        return order(input, 0)
    if count == input._data.shape[dim] or input.dtype.is_complex:
        return order(input, dim, descending)
    return emit(ops.argtopk, (input,), {"axis": dim, "count": count, "descending": descending})


def picked(input: Tensor, index: Tensor, dim: int) -> Tensor:
    """The elements at the places along a dimension. A 0-d tensor has one place."""
    if not input._data.shape:
        return reshape(picked(reshape(input, (1,)), reshape(index, (1,)), 0), ())
    return emit(ops.gather, (input, index), {"axis": dim})


def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    """The elements in sorted order along a dimension, and the places that they come from.

    Equal elements keep their order, whether `stable` is asked for or not; nan counts as the largest number.

    DimError for a dimension that there is not, DTypeError for complex numbers.

    >>> values, indices = graphc.sort(graphc.tensor([3, 1, 2]))
    >>> values, indices
    (tensor([1, 2, 3]), tensor([1, 2, 0]))
    """
    return return_types.sort(*_sorted(input, axis(dim, input.ndim), descending))


@composite(large=False)
def _sorted(input: Tensor, at: int, descending: bool) -> tuple[Tensor, Tensor]:
    index = order(input, at, descending)
    return named(picked(input, index, at), "Sort"), index


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """The places of the elements in sorted order along a dimension; see `sort`.

    DimError for a dimension that there is not, DTypeError for complex numbers.

    >>> graphc.argsort(graphc.tensor([3, 1, 2]), descending=True)
    tensor([0, 2, 1])
    """
    return order(input, axis(dim, input.ndim), descending)


def msort(input: Tensor) -> Tensor:
    """The elements in sorted order along the first dimension.

    DTypeError for complex numbers.

    >>> graphc.msort(graphc.tensor([[3, 1], [2, 4]]))
    tensor([[2, 1],
            [3, 4]])
    """
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or least) elements along a dimension in order, and their places; of equals the first ones. Places are
    int64.

    GraphcError where there are less than k elements.

    >>> values, indices = graphc.topk(graphc.tensor([3, 1, 2]), 2)
    >>> values, indices
    (tensor([3, 2]), tensor([0, 2]))
    """
    at = axis(dim, input.ndim)
    count = integer(k, "k")
    size = input._data.shape[at] if input._data.shape else 1
    if count < 0 or count > size:
        raise GraphcError("selected index k out of range", expected=f"0 <= k <= {size}", got=str(count))
    if not input._data.shape and count == 0:
        return return_types.topk(reshape(input, (1,))[:0], reshape(order(input, at), (1,))[:0])
    return return_types.topk(*_top(input, count, at, largest))


@composite(large=False)
def _top(input: Tensor, count: int, at: int, largest: bool) -> tuple[Tensor, Tensor]:
    index = _first(input, at, count, largest)
    return named(picked(input, index, at), "Topk"), index


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th least element along a dimension, counted from 1, and its place.

    GraphcError where there are less than k elements, DimError along a dimension of size 0.

    >>> graphc.kthvalue(graphc.tensor([3, 1, 2]), 2)
    graphc.return_types.kthvalue(
    values=tensor(2),
    indices=tensor(2))
    """
    at = axis(dim, input.ndim)
    count = integer(k, "k")
    size = input._data.shape[at] if input._data.shape else 1
    if size == 0:
        raise DimError(f"kthvalue(): Expected reduction dim {at} to have non-zero size.")
    if count < 1 or count > size:
        raise GraphcError(f"kthvalue(): selected number k out of range for dimension {at}",
                          expected=f"1 <= k <= {size}", got=str(count))
    return return_types.kthvalue(*_kth(input, count, at, keepdim))


@composite(large=False)
def _kth(input: Tensor, count: int, at: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    index = _first(input, at, count)
    if input._data.shape:
        index = narrow(index, at, count - 1, 1)
    return reduced_by(input, index, at, keepdim, "Kthvalue")


def reduced_by(input: Tensor, index: Tensor, at: int, keepdim: bool, name: str) -> tuple[Tensor, Tensor]:
    """The elements at an index of size 1 along a dimension, and the index; without that dimension unless `keepdim`."""
    values = picked(input, index, at)
    if not keepdim and input._data.shape:
        values, index = select(values, at, 0), select(index, at, 0)
    return named(values, name), index


# Searching


def searchsorted(sorted_sequence: Tensor, input: Tensor | Number, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Tensor | None = None) -> Tensor:
    """Where the elements of `input` belong in a sorted sequence: before the elements equal to them, or after them with
    `right=True` (or `side="right"`). Sequences [..., n] and an input [..., m] give int64 [..., m], or int32 with `out_int32`.

    A sequence of several dimensions has a row for each row of the input. `sorter` is the order of a sequence that is not
    sorted itself, as `argsort` gives it.

    GraphcError for another side, ShapeError where the shapes do not fit; DTypeError for a sorter that is not of int64.

    >>> graphc.searchsorted(graphc.tensor([1, 3, 5]), graphc.tensor([0, 3, 9]))
    tensor([0, 1, 3])
    """
    if side not in (None, "left", "right"):
        raise GraphcError(f"graphc.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise GraphcError("graphc.searchsorted(): side and right can't be set to opposites, got side of left while right was "
                          "True")
    if sorter is not None:
        if sorter._data.shape != sorted_sequence._data.shape:
            raise ShapeError("graphc.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
                             f"{list(sorted_sequence.shape)} and got sorter tensor {list(sorter.shape)}")
        if sorter.dtype is not int64:
            raise DTypeError("graphc.searchsorted(): sorter must be a tensor of long dtype but got dtype "
                             f"{sorter.dtype.name}")
        sorted_sequence = picked(sorted_sequence, sorter, max(sorted_sequence.ndim - 1, 0))
    return _searched("graphc.searchsorted()", sorted_sequence, input, right or side == "right", out_int32)


def bucketize(input: Tensor | Number, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket that each element falls into: how many of the sorted boundaries lie below it, or, with
    `right=True`, do not lie above it.

    ShapeError for boundaries that are not a vector.

    >>> graphc.bucketize(graphc.tensor([0, 3, 9]), graphc.tensor([1, 3, 5]))
    tensor([0, 1, 3])
    """
    if boundaries.ndim != 1:
        raise ShapeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return _searched("graphc.bucketize()", boundaries, input, right, out_int32)


def _searched(function: str, sequence: Tensor, input: Tensor | Number, right: bool, out_int32: bool) -> Tensor:
    dtype = promoted(sequence, input)
    values = cast(input if isinstance(input, Tensor) else as_tensor(input), dtype)
    own, wanted = tuple(sequence._data.shape), tuple(values._data.shape)
    if not own:
        raise ShapeError(f"{function}: boundaries tensor should have positive dimension, but got 0 dimension")
    if not wanted and len(own) > 1:
        raise ShapeError(f"{function}: input value can be a scalar only when boundaries tensor dimension is 1, but we got "
                         f"boundaries tensor dim({len(own)}) and input value's dim(0) numel(1)")
    if len(own) > 1 and own[:-1] != wanted[:-1]:
        raise ShapeError(f"{function}: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
                         "tensor and input value tensor must match, but we got boundaries tensor "
                         f"{list(own)} and input value tensor {list(wanted)}")
    found = emit(ops.searchsorted, (cast(sequence, dtype), values), {"right": right})
    return cast(found, int32) if out_int32 else found


def isin(elements: Tensor | Number, test_elements: Tensor | Number, *, assume_unique: bool = False,
         invert: bool = False) -> Tensor:
    """Whether each of the elements is among the test elements; with `invert=True`, whether it is not.

    DTypeError for complex numbers.

    >>> graphc.isin(graphc.tensor([1, 2, 3]), graphc.tensor([2, 5]))
    tensor([False,  True, False])
    """
    dtype = promoted(elements, test_elements)
    wanted, known = (cast(x if isinstance(x, Tensor) else as_tensor(x), dtype) for x in (elements, test_elements))
    known = msort(reshape(known, (-1,)))
    count = known._data.shape[0]
    if count == 0:
        found = zeros(tuple(wanted._data.shape), dtype=bool_)
    else:
        place = emit(ops.searchsorted, (known, reshape(wanted, (-1,))), {"right": False})
        found = reshape(picked(known, place.clamp(max=count - 1), 0), wanted._data.shape) == wanted
    return ~found if invert else found


# Equal elements. How many there are depends on the numbers, so that these functions cannot be traced.


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """The different elements in ascending order; along `dim`, the different slices in lexicographic order.

    return_inverse
        Also the place in the result of each element (or slice) of the input.
    return_counts
        Also how often each one occurs.

    GraphcError where, besides `dim`, a dimension has size 0.

    >>> graphc.unique(graphc.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    rows = _rows(input, "unique", dim)
    if rows.shape[1] == 1:
        in_order = ops.argsort.ref(rows[:, 0], axis=0, descending=False)
    else:
        in_order = np.lexsort(rows.T[::-1]) if rows.shape[1] else np.arange(len(rows))
    return _distinct(input, rows, in_order, dim, return_inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The first of each run of equal elements; along `dim`, of each run of equal slices. The rest is as in `unique`.

    GraphcError where, besides `dim`, a dimension has size 0.

    >>> graphc.unique_consecutive(graphc.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    rows = _rows(input, "unique_consecutive", dim)
    return _distinct(input, rows, np.arange(len(rows)), dim, return_inverse, return_counts)


def _rows(input: Tensor, function: str, dim: int | None) -> np.ndarray:
    """What is compared, as the rows of a matrix."""
    array = input._array(f"{function}()")
    if dim is None:
        return comparable(array).reshape(-1, 1)
    at = axis(dim, array.ndim)
    if array.size == 0 and (array.shape[at] != 0 or array.shape.count(0) > 1):
        raise GraphcError(f"There are 0 sized dimensions, and they aren't selected, so {function} cannot be applied")
    moved = np.moveaxis(array, at, 0) if array.ndim else array.reshape(1)
    return comparable(moved.reshape(len(moved), math.prod(moved.shape[1:])))


def _distinct(input: Tensor, rows: np.ndarray, order: np.ndarray, dim: int | None, inverse: bool, counts: bool) -> Any:
    """The first row of each run of equals, as the rows stand in an order."""
    ranked = rows[order]
    starts = np.ones(len(rows), bool)
    starts[1:] = (ranked[1:] != ranked[:-1]).any(1)
    places = wrap(order[starts])
    if dim is None:
        values = picked(reshape(input, (-1,)), places, 0)
    else:
        at = axis(dim, input.ndim)
        values = movedim(movedim(input, at, 0)[places], 0, at) if input.ndim else reshape(input, (1,))[places]
    results: list[Tensor] = [values.detach()]
    if inverse:
        back = np.empty(len(rows), np.int64)
        back[order] = np.cumsum(starts) - 1
        results.append(wrap(back.reshape(input._data.shape) if dim is None else back))
    if counts:
        results.append(wrap(np.diff(np.append(np.flatnonzero(starts), len(rows))).astype(np.int64)))
    results = [result.to(input.device) for result in results]
    return tuple(results) if len(results) > 1 else results[0]
