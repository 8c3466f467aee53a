"""Functions that pick elements by index tensors and masks. Writing by them is in `scattering`, `x[...]` in `subscript`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, integer
from graphc.frontend.composite import composite
from graphc.frontend.creation import full, zeros
from graphc.frontend.joining import stack
from graphc.frontend.movement import expand, part, reshape
from graphc.frontend.pointwise import cast
from graphc.frontend.pointwise import where as choose
from graphc.frontend.subscript import broadcast_indices, getitem, nonzero_places
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import bool_, int32, int64

FUNCTIONS = """
    argwhere gather index_select masked_select nonzero nonzero_static repeat_interleave take take_along_dim where
"""
METHODS = """
    argwhere gather index_select masked_select nonzero nonzero_static repeat_interleave take take_along_dim
"""


# Places of what is not zero


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds and `other` elsewhere, tensors or numbers of shapes that broadcast; of a condition
    alone, the places where it holds, one tensor a dimension.

    >>> graphc.where(graphc.tensor([True, False]), graphc.tensor([1.0, 2.0]), 0.0)
    tensor([1., 0.])
    >>> graphc.where(graphc.tensor([False, True]))
    (tensor([1]),)
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of the elements that are not zero: one row a place, or a tuple of one tensor a dimension. Places are int64.

    How many there are depends on the numbers, so this cannot be traced; see `nonzero_static`.

    >>> graphc.nonzero(graphc.tensor([[0, 1], [2, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    found = nonzero_places(input)
    if as_tuple:
        return found
    stacked = np.stack([places._array("nonzero()") for places in found], 1)
    return wrap(stacked if input._data.shape else stacked[:, :0]).to(input.device)


def argwhere(input: Tensor) -> Tensor:
    """The places of the elements that are not zero, one row a place, int64.

    >>> graphc.argwhere(graphc.tensor([0, 3, 4]))
    tensor([[1],
            [2]])
    """
    return nonzero(input)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` places of elements that are not zero, one row a place; rows of `fill_value` where there are fewer.

    GraphcError for a negative size.

    >>> graphc.nonzero_static(graphc.tensor([0, 3, 4]), size=3)
    tensor([[ 1],
            [ 2],
            [-1]])
    """
    if size < 0:
        raise GraphcError("nonzero_static: 'size' must be an non-negative integer", got=str(size))
    shape = tuple(input._data.shape)
    if not shape or size == 0:
        return full((size, len(shape)), fill_value, dtype=int64)
    flat = reshape(input, (-1,)) != 0
    count = flat._data.shape[0]
    rank = emit(ops.cumsum, (cast(flat, int64),), {"axis": 0}) - 1
    # each place goes to the row of its rank; what is no place, or comes too late, to a row that is dropped
    row = choose(flat & (rank < size), rank, size)
    position = ops.iota(shape=(count,), axis=0, dtype=int64, like=Tensor)
    table = emit(ops.scatter_update, (full((size + 1,), -1, dtype=int64), row, position), {"axis": 0})
    found = part(table, 0, 0, size)
    columns = []
    for i, length in enumerate(shape):
        below = math.prod(shape[i + 1 :])
        columns.append(choose(found >= 0, found // max(below, 1) % max(length, 1), fill_value))
    return stack(columns, 1)


# Picking by index


def check_index(function: str, index: Tensor) -> Tensor:
    """The index as int64; DTypeError unless it is one."""
    if index.dtype not in (int32, int64):
        raise DTypeError(f"{function}(): Expected dtype int32 or int64 for index", got=index.dtype.name)
    return cast(index, int64)


def check_bounds(index: Tensor, size: Any, dim: int, negative: bool = False) -> None:
    """DimError where an index lies beyond a size; negative ones may count from the end."""
    known = index._known()
    if known is None or not isinstance(size, int):
        return
    low, high = int(known.min()), int(known.max())
    if low < (-size if negative else 0) or high >= size:
        raise DimError(f"index {high if high >= size else low} is out of bounds for dimension {dim} with size {size}")


def along(index: Tensor, at: int, shape: Any) -> Tensor:
    """An index vector stretched over a shape, whose size along `at` is the vector's own."""
    return expand(reshape(index, tuple(-1 if i == at else 1 for i in range(len(shape)))),
                  tuple(index._data.shape[0] if i == at else s for i, s in enumerate(shape)))


@composite(large=False)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The rows (along `dim`) that an integer vector lists, in its order, as a copy. DimError for an index that is out of range
    or no vector, DTypeError for one that is not of int32 or int64, ShapeError for several of a tensor without dimensions.

    >>> graphc.index_select(graphc.tensor([[1, 2], [3, 4], [5, 6]]), 0, graphc.tensor([2, 0]))
    tensor([[5, 6],
            [1, 2]])
    """
    at = axis(dim, input.ndim)
    if index.ndim > 1:
        raise DimError("index_select(): Index is supposed to be a vector", got=f"{index.ndim} dimensions")
    index = reshape(check_index("index_select", index), (-1,))
    if not input._data.shape:
        if index._data.shape[0] != 1:
            raise ShapeError(f"index_select(): Index to scalar can have only 1 value, got {index._data.shape[0]} value(s)")
        return reshape(index_select(reshape(input, (1,)), 0, index), ())
    shape = input._data.shape
    known = index._known()
    if known is not None and isinstance(shape[at], int) and not (known.min() >= 0 and known.max() < shape[at]):
        raise DimError("index out of range in self", expected=f"0 <= index < {shape[at]}",
                       got=f"{known.min()} to {known.max()}")
    return named(emit(ops.gather, (input, along(index, at, shape)), {"axis": at}), "IndexSelect")


def flat_scalars(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function of `(input, dim, index, source)` take 0-d tensors, as vectors of one element."""

    @functools.wraps(function)
    def lifted(input: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input._data.shape and index._data.shape:
            return function(input, dim, index, *args, **kwargs)
        at = axis(dim, input.ndim)
        shape = index._data.shape if function.__name__ == "gather" else input._data.shape
        flat = [_lifted(x) for x in (input, index, *args)]
        return reshape(function(flat[0], at, *flat[1:], **{k: _lifted(x) for k, x in kwargs.items()}), shape)

    return lifted


def _lifted(value: Any) -> Any:
    return reshape(value, (1,)) if isinstance(value, Tensor) and not value._data.shape else value


@composite(large=False)
@flat_scalars
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] along dimension 0, and so on; the result has the shape of `index`.

    ShapeError where the index has another number of dimensions, or reaches beyond the input in one that is not `dim`.

    >>> graphc.gather(graphc.tensor([[1, 2], [3, 4]]), 1, graphc.tensor([[1], [0]]))
    tensor([[2],
            [3]])
    """
    at = axis(dim, input.ndim)
    if 0 in index._data.shape:
        return without_slope(zeros(tuple(index._data.shape), dtype=input.dtype, device=input.device), (input,), "Gather")
    index = check_index("gather", index)
    if input.ndim != index.ndim:
        raise ShapeError("Index tensor must have the same number of dimensions as input tensor",
                         got=f"{index.ndim} and {input.ndim}")
    for i, (size, own) in enumerate(zip(index._data.shape, input._data.shape)):
        if i != at and size > own:
            raise ShapeError(f"Size does not match at dimension {i} expected index {list(index.shape)} to be no larger than "
                             f"self {list(input.shape)} apart from dimension {at}")
    return named(emit(ops.gather, (input, index), {"axis": at}), "Gather")


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather`, with the other dimensions stretched to each other; of the flattened tensor without `dim`.

    DTypeError for indices that are not of int64, ShapeError where the numbers of dimensions differ, DimError for a place that
    there is not.

    >>> x = graphc.tensor([[3, 1, 2]])
    >>> graphc.take_along_dim(x, x.argsort(1), 1)
    tensor([[1, 2, 3]])
    """
    if indices.dtype is not int64:
        raise DTypeError(f"graphc.take_along_dim(): dtype of indices should be Long but got {indices.dtype.name}")
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    if input.ndim != indices.ndim:
        raise ShapeError("graphc.take_along_dim(): input and indices should have the same number of dimensions, but got "
                         f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices")
    at = axis(dim, input.ndim)
    shape = broadcast_indices([tuple(1 if i == at else s for i, s in enumerate(x._data.shape)) for x in (input, indices)])
    left = tuple(input._data.shape[at] if i == at else s for i, s in enumerate(shape))
    right = tuple(indices._data.shape[at] if i == at else s for i, s in enumerate(shape))
    return gather(expand(input, left), at, expand(indices, right))


def check_flat_index(function: str, input: Tensor, index: Tensor) -> Tensor:
    """Places in a flattened tensor, negative ones counted from the start; an error for those that it does not have."""
    if index.dtype is not int64:
        raise DTypeError(f"{function}(): Expected a long tensor for index, but got {index.dtype.name}")
    count = math.prod(input._data.shape)
    known = index._known()
    if known is not None and isinstance(count, int):
        if count == 0:
            raise DimError(f"{function}(): tried to {function} {'from' if function == 'take' else 'into'} an empty tensor")
        low, high = int(known.min()), int(known.max())
        if low < -count or high >= count:
            raise DimError(f"out of range: tried to access index {high if high >= count else low} on a tensor of {count} "
                           "elements.")
    return choose(index < 0, index + count, index)


@composite(large=False)
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened tensor at the places of an index tensor, in its shape.

    DimError for a place that there is not, DTypeError for an index that is not of integers.

    >>> graphc.take(graphc.tensor([[1, 2], [3, 4]]), graphc.tensor([0, 3]))
    tensor([1, 4])
    """
    places = check_flat_index("take", input, index)
    picked = emit(ops.gather, (reshape(input, (-1,)), reshape(places, (-1,))), {"axis": 0})
    return named(reshape(picked, index._data.shape), "Take")


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is True, as a vector. How many there are depends on the mask: this cannot be traced.

    DTypeError for a mask that is not of bools, DimError where its shape does not go with the input's.

    >>> graphc.masked_select(graphc.tensor([1, 2, 3]), graphc.tensor([True, False, True]))
    tensor([1, 3])
    """
    if mask.dtype is not bool_:
        raise DTypeError("masked_select: expected BoolTensor for mask", got=mask.dtype.name)
    shape = broadcast_indices([input._data.shape, mask._data.shape])
    picked = getitem(expand(input, shape), expand(mask, shape))
    return named(picked if shape else reshape(picked, (-1,)), "MaskedSelect")


@composite(large=False)
def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Every element (along `dim`, or of the flattened tensor) `repeats` times in a row, or as often as a vector says.

    Given a vector of counts alone: the place of each count, that often. A vector can be traced where `output_size` says
    how many elements there will be.

    GraphcError for negative repeats, ShapeError where there are not as many as elements; DTypeError for counts that are not of
    int32 or int64.

    >>> graphc.repeat_interleave(graphc.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    >>> graphc.repeat_interleave(graphc.tensor([1, 2]), graphc.tensor([1, 3]))
    tensor([1, 2, 2, 2])
    """
    if repeats is None:
        if input.dtype not in (int32, int64):
            raise DTypeError(f"repeat_interleave not implemented for {input.dtype.name}", expected="int32 or int64")
        return _repeated_places(input, output_size)
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    at = axis(dim, input.ndim)
    if not input._data.shape:
        input = reshape(input, (1,))
    size = input._data.shape[at]
    if isinstance(repeats, (tuple, list)):
        repeats = wrap(np.asarray(repeats, np.int64))
    if isinstance(repeats, Tensor) and repeats.ndim and repeats.numel() != 1:
        if repeats.numel() != size:
            raise ShapeError("repeats must have the same size as input along dim, but got "
                             f"repeats.size(0) = {repeats.numel()} and input.size({at}) = {size}")
        return index_select(input, at, _repeated_places(repeats, output_size))
    times = integer(repeats, "repeats")
    if times < 0:
        raise GraphcError("Repeats must be non-negative", got=str(times))
    shape = tuple(input._data.shape)
    spread = reshape(input, (*shape[: at + 1], 1, *shape[at + 1 :]))
    stretched = expand(spread, (*shape[: at + 1], times, *shape[at + 1 :]))
    return reshape(stretched, (*shape[:at], size * times, *shape[at + 1 :])).clone()


def _repeated_places(counts: Tensor, total: int | None) -> Tensor:
    """The place of each count, that often."""
    if counts.ndim != 1:
        raise ShapeError("repeat_interleave only accept 1D vector as repeat", got=str(list(counts.shape)))
    if total is None:
        array = counts._array("repeat_interleave()")
        if (array < 0).any():
            raise GraphcError("repeats can not be negative", got=str(array.min()))
        return wrap(np.repeat(np.arange(array.size, dtype=np.int64), array))
    known = counts._known()
    if known is not None and (known < 0).any():
        raise GraphcError("repeats can not be negative", got=str(known.min()))
    if known is not None and known.sum() != total:
        raise ShapeError("allocated size does not match required size", expected=str(known.sum()), got=str(total))
    ends = emit(ops.cumsum, (cast(counts, int64),), {"axis": 0})
    return emit(ops.searchsorted, (ends, ops.iota(shape=(total,), axis=0, dtype=int64, like=Tensor)), {"right": True})
