"""Functions that write elements at places given by index tensors and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, promoted
from graphc.frontend.composite import composite
from graphc.frontend.copying import clone
from graphc.frontend.creation import full
from graphc.frontend.creation_like import full_like, ones_like, zeros_like
from graphc.frontend.indexing import along, check_bounds, check_flat_index, check_index, flat_scalars
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand, reshape
from graphc.frontend.pointwise import cast, clamp
from graphc.frontend.pointwise import where as choose
from graphc.frontend.subscript import Basic, broadcast_indices
from graphc.frontend.subscript import put as put_at
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, int64

FUNCTIONS = """
    index_add index_copy index_fill index_put index_put_ index_reduce masked_fill masked_scatter put scatter scatter_add
    scatter_reduce
"""
METHODS = """
    index_add index_copy index_fill index_put index_put_ index_reduce masked_fill masked_scatter put scatter scatter_add
    scatter_reduce
"""
IN_PLACE = """
    index_add index_copy index_fill index_reduce masked_fill masked_scatter put scatter scatter_add scatter_reduce
"""

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


# scatter: an index of as many dimensions as the input


def _source(function: str, input: Tensor, index: Tensor, src: Any, at: int) -> tuple[Tensor, Tensor]:
    """Index and source, cut to the size of the index; an error where they do not fit the input."""
    index = check_index(function, index)
    if not isinstance(src, Tensor):
        src = full(tuple(index._data.shape), _number(src, input.dtype), dtype=input.dtype)
    if src.dtype is not input.dtype:
        raise DTypeError(f"{function}(): Expected self.dtype to be equal to src.dtype",
                         got=f"{input.dtype.name} and {src.dtype.name}")
    for name, other in (("self", input), ("src", src)):
        if other.ndim != index.ndim:
            raise ShapeError(f"Index tensor must have the same number of dimensions as {name} tensor",
                             got=f"{index.ndim} and {other.ndim}")
    own, wanted, given = input._data.shape, index._data.shape, src._data.shape
    if any((i != at and wanted[i] > own[i]) or wanted[i] > given[i] for i in range(len(own))):
        raise ShapeError(f"Expected index {list(wanted)} to be no larger than self {list(own)} apart from dimension {at} and "
                         f"to be no larger size than src {list(given)}")
    if given != wanted:
        src = emit(ops.slice, (src,), {"starts": (0,) * src.ndim, "stops": tuple(wanted), "steps": (1,) * src.ndim})
    return index, src


def _number(value: Any, dtype: DType) -> Any:
    """A number in the place of elements; RuntimeError for a complex one where they are real."""
    if isinstance(value, complex) and not dtype.is_complex:
        raise GraphcError(f"value cannot be converted to type {dtype.name} without overflow", got=str(value))
    return value


@composite(large=False)
@flat_scalars
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """input with src[i][j] at [index[i][j]][j] along dimension 0, and so on. Of several numbers for one place the last one
    counts.

    src
        A tensor, or one number for all places, which may be called `value`.
    reduce
        "add" or "multiply": combine the numbers with what is there.

    GraphcError for another reduction. It is also for a complex number in a real tensor; DTypeError where the dtypes differ,
    ShapeError where the index is larger than the source, or than the input beside `dim`, DimError for a place that there is
    not.

    >>> graphc.scatter(graphc.zeros(3), 0, graphc.tensor([2, 0]), graphc.tensor([5.0, 6.0]))
    tensor([6., 0., 5.])
    """
    at = axis(dim, input.ndim)
    if reduce not in (None, "add", "multiply"):
        raise GraphcError("reduce argument must be either add or multiply.", got=repr(reduce))
    if 0 in index._data.shape:
        return clone(input)
    index, source = _source("scatter", input, index, value if src is None else src, at)
    record = {None: ops.scatter_update, "add": ops.scatter_add, "multiply": ops.scatter_mul}[reduce]
    return named(emit(record, (input, index, source), {"axis": at}), "Scatter")


@composite(large=False)
@flat_scalars
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with src[i][j] added at [index[i][j]][j] along dimension 0, and so on.

    DTypeError where the dtypes differ, ShapeError where the index is larger than the source, or than the input beside `dim`,
    DimError for a place that there is not.

    >>> graphc.scatter_add(graphc.zeros(3), 0, graphc.tensor([2, 2]), graphc.tensor([5.0, 6.0]))
    tensor([ 0.,  0., 11.])
    """
    at = axis(dim, input.ndim)
    if 0 in index._data.shape:
        return clone(input)
    index, src = _source("scatter_add", input, index, src, at)
    return named(emit(ops.scatter_add, (input, index, src), {"axis": at}), "ScatterAdd")


@composite(large=False)
@flat_scalars
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """input with all src[i][j] that go to [index[i][j]][j] along dimension 0, and so on, reduced to one number a place.

    reduce
        "sum", "prod", "mean", "amax" or "amin".
    include_self
        Whether the input's own number is among those that are reduced. Places that nothing goes to keep theirs.

    GraphcError for another reduction; DTypeError where the dtypes differ, ShapeError where the index is larger than the source,
    or than the input beside `dim`, DimError for a place that there is not, ArgumentTypeError for a source that is no tensor.

    >>> graphc.scatter_reduce(graphc.ones(3), 0, graphc.tensor([2, 2]), graphc.tensor([5.0, 6.0]), "amax")
    tensor([1., 1., 6.])
    """
    at = axis(dim, input.ndim)
    if reduce not in REDUCTIONS:
        raise GraphcError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if not isinstance(src, Tensor):
        raise ArgumentTypeError(f"scatter_reduce(): argument 'src' (position 4) must be Tensor, not {type(src).__name__}")
    if 0 in index._data.shape:
        return clone(input)
    index, src = _source("scatter_reduce", input, index, src, at)
    return named(_reduced(input, at, index, src, reduce, include_self), "ScatterReduce")


def _reduced(input: Tensor, at: int, index: Tensor, src: Tensor, reduce: str, include_self: bool) -> Tensor:
    attrs = {"axis": at}
    base = input
    if not include_self:
        base = emit(ops.scatter_update, (input, index, full_like(src, _neutral(reduce, src.dtype))), attrs)
    if reduce != "mean":
        record = {"sum": ops.scatter_add, "prod": ops.scatter_mul, "amax": ops.scatter_max, "amin": ops.scatter_min}[reduce]
        return emit(record, (base, index, src), attrs)
    total = emit(ops.scatter_add, (base, index, src), attrs)
    own = ones_like(input) if include_self else zeros_like(input)
    count = clamp(emit(ops.scatter_add, (own.detach(), index, ones_like(src).detach()), attrs), min=1)
    return total / count if input.dtype.is_differentiable else total // count


def _neutral(reduce: str, dtype: DType) -> Any:
    """The number that a reduction leaves others alone with."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    if dtype is bool_:
        return reduce == "amin"
    limits = np.iinfo(dtype.numpy)
    return limits.min if reduce == "amax" else limits.max


# index_...: a vector of places along one dimension


def _rows(function: str, input: Tensor, at: int, index: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """The index stretched over the source, and the source; both 0-d ones as vectors."""
    if index.ndim > 1:
        raise DimError(f"{function}_(): Index should have dimension 1 or 0 (got {index.ndim})")
    if index.dtype is not int64 and (function != "index_add" or index.dtype.kind != "int"):
        raise DTypeError(f"{function}_(): Expected a long tensor for index, but got {index.dtype.name}")
    index = reshape(cast(index, int64), (-1,))
    if source.dtype is not input.dtype:
        raise DTypeError(f"{function}_(): self and source expected to have the same dtype, but got (self) {input.dtype.name} "
                         f"and (source) {source.dtype.name}")
    if not source._data.shape:
        source = reshape(source, (1,) * input.ndim)
    count = index._data.shape[0]
    if len(given := tuple(source._data.shape)) != input.ndim and function != "index_add":
        raise DimError(f"{function}_(): When source and destination are not scalars, their dimensionality must match. Source "
                       f"dimensionality ({len(given)}), destination dimensionality ({input.ndim})")
    beside = [tuple(s for i, s in enumerate(x) if i != at) for x in (input._data.shape, given)]
    if len(given) != input.ndim or beside[0] != beside[1]:
        raise ShapeError("source tensor shape must match self tensor shape, excluding the specified dimension. Got "
                         f"self.shape = {list(input.shape)} source.shape = {list(given)}")
    if given[at] != count:
        raise DimError(f"{function}_(): Number of indices ({count}) should be equal to source.size(dim) ({given[at]})")
    check_bounds(index, input._data.shape[at], at)
    return along(index, at, given), source


@composite(large=False)
@flat_scalars
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """input with alpha times the rows of source added at the rows (along `dim`) that index lists. The index is [k], and the
    source has size k along `dim`.

    DTypeError where the dtypes differ and for an index that is not of integers, DimError for a place that there is not or an
    index that is no vector of as many, ShapeError where the other sizes differ.

    >>> graphc.index_add(graphc.zeros(3), 0, graphc.tensor([2, 2]), graphc.tensor([5.0, 6.0]))
    tensor([ 0.,  0., 11.])
    """
    at = axis(dim, input.ndim)
    index, source = _rows("index_add", input, at, index, source)
    added = source if alpha == 1 else cast(source * alpha, input.dtype)
    return named(emit(ops.scatter_add, (input, index, added), {"axis": at}), "IndexAdd")


@composite(large=False)
@flat_scalars
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """input with the rows of source at the rows (along `dim`) that index lists. The index is [k], and the source has size k
    along `dim`.

    DTypeError where the dtypes differ and for an index that is not of integers, DimError for a place that there is not or an
    index that is no vector of as many, ShapeError where the other sizes differ.

    >>> graphc.index_copy(graphc.zeros(3), 0, graphc.tensor([2, 0]), graphc.tensor([5.0, 6.0]))
    tensor([6., 0., 5.])
    """
    if mode.autocast is not None and source.dtype is not input.dtype:
        dtype = promoted(input, source)
        input, source = cast(input, dtype), cast(source, dtype)
    at = axis(dim, input.ndim)
    index, source = _rows("index_copy", input, at, index, source)
    return named(emit(ops.scatter_update, (input, index, source), {"axis": at}), "IndexCopy")


@composite(large=False)
@flat_scalars
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """input with row i of source (along `dim`) combined into the row that index[i] names: by "prod", "mean", "amax" or "amin".

    The rows of the input count, too, unless `include_self` is False. There is no "sum" here: that is `index_add`. The index is
    [k], and the source has size k along `dim`. For places of single elements there is `scatter_reduce`.

    GraphcError for another reduction, DTypeError where the dtypes differ and for an index that is not of int64, DimError for a
    place that there is not or an index that is no vector of as many, ShapeError where the other sizes differ.

    >>> graphc.index_reduce(graphc.ones(3), 0, graphc.tensor([2, 2]), graphc.tensor([5.0, 6.0]), "prod")
    tensor([ 1.,  1., 30.])
    """
    at = axis(dim, input.ndim)
    if reduce not in REDUCTIONS[1:]:
        raise GraphcError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    index, source = _rows("index_reduce", input, at, index, source)
    return named(_reduced(input, at, index, source, reduce, include_self), "IndexReduce")


@composite(large=False)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """input with one number in the rows (along `dim`) that index lists; negative places count from the end.

    ShapeError for a value of several numbers; DimError for a place that there is not and for an index that is not of int64,
    GraphcError for a complex number in a real tensor.

    >>> graphc.index_fill(graphc.zeros(3), 0, graphc.tensor([0, 2]), 7)
    tensor([7., 0., 7.])
    """
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                         f"{value.ndim} dimension(s).")
    return _index_filled(input, dim, index, value)


@flat_scalars
def _index_filled(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    at = axis(dim, input.ndim)
    if index.ndim > 1:
        raise ShapeError("Index has to be a vector/scalar", got=str(list(index.shape)))
    if index.dtype is not int64:
        raise DimError("index_fill_(): Expected dtype int64 for index.", got=index.dtype.name)
    size = input._data.shape[at]
    check_bounds(index, size, at, negative=True)
    places = along(choose(index < 0, index + size, index), at, input._data.shape)
    if isinstance(value, Tensor):
        new = expand(cast(reshape(value, ()), input.dtype), places._data.shape)
    else:
        new = full(tuple(places._data.shape), _number(value, input.dtype), dtype=input.dtype)
    return named(emit(ops.scatter_update, (input, places, new), {"axis": at}), "IndexFill")


def index_put(input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """input with `values` at the places that index tensors list, or added to what is there.

    ArgumentTypeError without an index tensor, DTypeError where the dtypes differ, DimError for a place that there is not.

    >>> graphc.index_put(graphc.zeros(3), (graphc.tensor([0, 2]),), graphc.tensor([5.0, 6.0]))
    tensor([5., 0., 6.])
    """
    items = [slice(None) if i is None else i for i in indices]
    basic = Basic(items, input._data.shape)
    if not basic.places:
        raise ArgumentTypeError("index_put: no index tensors among the indices")
    return named(put_at(input, basic.places, values, accumulate), "IndexPut")


def index_put_(input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """`index_put`, written into the tensor itself.

    >>> graphc.zeros(3).index_put_((graphc.tensor([0, 2]),), graphc.tensor(5.0))
    tensor([5., 0., 5.])
    """
    refuse(input)
    return assign(input, index_put(input, indices, values, accumulate))


@composite(large=False)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """input with the elements of source at places of the flattened tensor, or added to what is there.

    DTypeError where the dtypes differ, DimError for a place that there is not, and where the numbers of elements differ.

    >>> graphc.put(graphc.zeros(2, 2), graphc.tensor([0, 3]), graphc.tensor([5.0, 6.0]))
    tensor([[5., 0.],
            [0., 6.]])
    """
    if source.dtype is not input.dtype:
        raise DTypeError("put_(): self and source expected to have the same dtype, but got self.dtype = "
                         f"{input.dtype.name} and source.dtype = {source.dtype.name}")
    if index.numel() != source.numel():
        raise DimError("put_(): Expected source and index to have the same number of elements, but got source.numel() = "
                       f"{source.numel()}, index.numel() = {index.numel()}")
    places = reshape(check_flat_index("put_", input, index), (-1,))
    record = ops.scatter_add if accumulate else ops.scatter_update
    flat = emit(record, (reshape(input, (-1,)), places, reshape(source, (-1,))), {"axis": 0})
    return named(reshape(flat, input._data.shape), "Put")


# Masks


@composite(large=False)
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """input with `value` where the mask is True.

    DTypeError for a mask that is not of bools, ShapeError for a value of several numbers; GraphcError for a complex number in a
    real tensor.

    >>> graphc.masked_fill(graphc.tensor([1.0, 2.0]), graphc.tensor([True, False]), 0)
    tensor([0., 2.])
    """
    if mask.dtype is not bool_:
        raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype.name}")
    if isinstance(value, Tensor):
        if value._data.shape:
            raise ShapeError("masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                             f"{value.ndim} dimension(s).")
        value = cast(value, input.dtype)
    else:
        value = full((), _number(value, input.dtype), dtype=input.dtype)
    return named(choose(mask, value, input), "MaskedFill")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """input with the elements of source, one after the other, where the mask is True.

    DTypeError for a mask that is not of bools, and where the dtypes differ; GraphcError where there are not enough elements.

    >>> graphc.masked_scatter(graphc.zeros(3), graphc.tensor([True, False, True]), graphc.tensor([5.0, 6.0]))
    tensor([5., 0., 6.])
    """
    if mask.dtype is not bool_:
        raise DTypeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype.name}")
    if source.dtype is not input.dtype:
        raise DTypeError(f"masked_scatter: expected self and source to have same dtypes but got {input.dtype.name} and "
                         f"{source.dtype.name}")
    shape = broadcast_indices([input._data.shape, mask._data.shape])
    input, mask = expand(input, shape), expand(mask, shape)
    known, count = mask._known(), source.numel()
    if known is not None and count < known.sum():
        raise GraphcError("Number of elements of source < number of ones in mask", expected=f"{known.sum()} at least",
                          got=str(count))
    if count == 0:
        return clone(input)
    rank = choose(reshape(mask, (-1,)), emit(ops.cumsum, (cast(reshape(mask, (-1,)), int64),), {"axis": 0}) - 1, 0)
    picked = emit(ops.gather, (reshape(source, (-1,)), rank), {"axis": 0})  # of which no place is beyond the source
    return named(choose(mask, reshape(picked, shape), input), "MaskedScatter")
