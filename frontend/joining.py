"""Functions that make one tensor of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, DimError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, need_tensor, promoted
from graphc.frontend.composite import composite
from graphc.frontend.copying import clone
from graphc.frontend.movement import part, reshape, unsqueeze
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType

FUNCTIONS = "atleast_1d atleast_2d atleast_3d cat column_stack dstack hstack roll stack vstack"
METHODS = "roll"
ALIASES = {"concat": "cat", "concatenate": "cat", "row_stack": "vstack"}


def _sequence(tensors: Sequence[Tensor], function: str) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, (tuple, list)):
        raise ArgumentTypeError(f"{function}(): argument 'tensors' must be tuple of Tensors, not {type(tensors).__name__}")
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"{function}(): expected Tensor as element {i} in argument 0, but got "
                                    f"{type(tensor).__name__}")
    if not tensors:
        if function == "cat":
            raise ArgumentError("graphc.cat(): expected a non-empty list of Tensors")
        raise GraphcError(f"{function} expects a non-empty TensorList")
    return list(tensors)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along a dimension; the other sizes have to agree.

    ShapeError where they do not, GraphcError for a tensor without dimensions, ArgumentError for no tensors, ArgumentTypeError
    for what are none.

    >>> graphc.cat([graphc.tensor([[1, 2]]), graphc.tensor([[3, 4]])], dim=1)
    tensor([[1, 2, 3, 4]])
    """
    if _are_alike(tensors) and -tensors[0].ndim <= dim < tensors[0].ndim:
        return _joined(dim % tensors[0].ndim, tensors[0].dtype, *tensors)
    given = _sequence(tensors, "cat")
    dtype = promoted(*given)
    # a vector without elements fits everywhere, as in PyTorch
    used = [x for x in given if len(x._data.shape) != 1 or x._data.shape[0] != 0] or given[:1]
    first = used[0]
    ndim = len(first._data.shape)
    for i, x in enumerate(used):
        if not x._data.shape:
            raise GraphcError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
        if len(x._data.shape) != ndim:
            raise ShapeError(f"Tensors must have same number of dimensions: got {ndim} and {x.ndim}")
    at = axis(dim, ndim)
    for i, x in enumerate(used):
        if type(x._data) is np.ndarray and x._data.shape == first._data.shape:
            continue  # of numbers; symbols that are compared are taken to be equal from then on
        for d, (a, b) in enumerate(zip(first._data.shape, x._data.shape)):
            if d != at and a != b:
                raise ShapeError(f"Sizes of tensors must match except in dimension {at}. Expected size {a} but got size {b} "
                                 f"for tensor number {i} in the list.")
    return _joined(at, dtype, *used)


def _are_alike(tensors: Any) -> bool:
    """Whether these are tensors with arrays of one dtype and one shape, none of a vector without elements."""
    if type(tensors) not in (list, tuple) or not tensors or not isinstance(tensors[0], Tensor):
        return False
    first = tensors[0]._data
    if type(first) is not np.ndarray or first.shape == (0,):
        return False
    shape, dtype = first.shape, first.dtype
    for x in tensors:
        if not isinstance(x, Tensor):
            return False
        array = x._data
        if type(array) is not np.ndarray or array.shape != shape or array.dtype is not dtype:
            return False
    return True


@composite(large=False)
def _joined(at: int, dtype: DType, *tensors: Tensor) -> Tensor:
    return named(emit(ops.concat, tuple([cast(x, dtype) for x in tensors]), {"axis": at}), "Cat")


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension.

    ShapeError where the shapes differ; GraphcError for no tensors, ArgumentTypeError for what are none.

    >>> graphc.stack([graphc.tensor([1, 2]), graphc.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    given = _sequence(tensors, "stack")
    for i, x in enumerate(given):
        if x._data.shape != given[0]._data.shape:
            raise ShapeError(f"stack expects each tensor to be equal size, but got {list(given[0].shape)} at entry 0 and "
                             f"{list(x.shape)} at entry {i}")
    at = axis(dim, given[0].ndim + 1)
    return _stacked(at, *given)


@composite(large=False)
def _stacked(at: int, *tensors: Tensor) -> Tensor:
    return named(cat([unsqueeze(x, at) for x in tensors], at), "Stack")


def atleast_1d(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Numbers as vectors of one element.

    ArgumentTypeError for what is no tensor.

    >>> graphc.atleast_1d(graphc.tensor(5.0))
    tensor([5.])
    """
    out = tuple(reshape(x, (1,)) if not x._data.shape else x for x in _several(tensors, "atleast_1d"))
    return out if len(out) != 1 or _listed(tensors) else out[0]


def atleast_2d(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Numbers and vectors as matrices of one row.

    ArgumentTypeError for what is no tensor.

    >>> graphc.atleast_2d(graphc.tensor([1, 2]))
    tensor([[1, 2]])
    """
    out = tuple(map(_as_matrix, _several(tensors, "atleast_2d")))
    return out if len(out) != 1 or _listed(tensors) else out[0]


def atleast_3d(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Numbers, vectors and matrices with three dimensions: a vector lies along the second, a matrix along the first two.

    ArgumentTypeError for what is no tensor.

    >>> graphc.atleast_3d(graphc.tensor([1, 2])).shape
    graphc.Size([1, 2, 1])
    """
    out = tuple(map(_as_block, _several(tensors, "atleast_3d")))
    return out if len(out) != 1 or _listed(tensors) else out[0]


def _as_block(x: Tensor) -> Tensor:
    flat = _as_matrix(x)
    return flat if flat.ndim > 2 else unsqueeze(flat, 2)


def _as_matrix(x: Tensor) -> Tensor:
    return reshape(x, (1, 1)) if not x._data.shape else unsqueeze(x, 0) if x.ndim == 1 else x


def _listed(tensors: Sequence[object]) -> bool:
    return len(tensors) == 1 and isinstance(tensors[0], (tuple, list))


def _several(tensors: Sequence[Any], function: str) -> Sequence[Tensor]:
    given = tensors[0] if _listed(tensors) else tensors
    return [need_tensor(x, function, "tensors") for x in given]


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side: along dimension 1, vectors along their only one.

    ShapeError where the other sizes differ, GraphcError for no tensors, ArgumentTypeError for what are none.

    >>> graphc.hstack([graphc.tensor([1, 2]), graphc.tensor([3])])
    tensor([1, 2, 3])
    """
    given = [x if x._data.shape else reshape(x, (1,)) for x in _sequence(tensors, "hstack")]
    return cat(given, 0 if given[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """One below the other; vectors become rows.

    ShapeError where the other sizes differ, GraphcError for no tensors, ArgumentTypeError for what are none.

    >>> graphc.vstack([graphc.tensor([1, 2]), graphc.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return cat([_as_matrix(x) for x in _sequence(tensors, "vstack")], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """One behind the other, along dimension 2.

    ShapeError where the other sizes differ, GraphcError for no tensors, ArgumentTypeError for what are none.

    >>> graphc.dstack([graphc.tensor([1, 2]), graphc.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    return cat([_as_block(x) for x in _sequence(tensors, "dstack")], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns, beside the columns of matrices.

    ShapeError where the other sizes differ, GraphcError for no tensors, ArgumentTypeError for what are none.

    >>> graphc.column_stack([graphc.tensor([1, 2]), graphc.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    return hstack([reshape(x, (x.numel(), 1)) if x.ndim <= 1 else x for x in _sequence(tensors, "column_stack")])


@composite(large=False)
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved on along the dimensions; what leaves at the end comes in at the start.

    GraphcError where there are not as many shifts as dimensions; DimError for a dimension that there is not.

    >>> graphc.roll(graphc.arange(5), 2)
    tensor([3, 4, 0, 1, 2])
    """
    steps = [shifts] if isinstance(shifts, int) else list(shifts)
    along = [] if dims is None else [dims] if isinstance(dims, int) else list(dims)
    if not steps:
        raise GraphcError("`shifts` required")
    if not along and len(steps) == 1:
        return reshape(roll(reshape(input, (-1,)), steps[0], 0), input._data.shape)
    if len(steps) != len(along):
        raise GraphcError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(along)}")
    if not input._data.shape:
        raise DimError(f"Dimension specified as {along[0]} but tensor has no dimensions")
    out = input
    for shift, dim in zip(steps, along):
        at = axis(dim, len(input._data.shape))
        size = input._data.shape[at]
        if size and shift % size:
            cut = size - shift % size
            out = cat((part(out, at, cut, size), part(out, at, 0, cut)), at)
    return named(out if out is not input else clone(input), "Roll")
