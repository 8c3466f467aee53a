"""Diagonals of matrices, and parts of tensors written over with others."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.errors import DimError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, integer
from graphc.frontend.copying import clone
from graphc.frontend.creation import full, zeros
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.movement import as_strided, reshape, unsqueeze
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

FUNCTIONS = """
    as_strided_scatter diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter select_scatter slice_scatter
"""
METHODS = """
    as_strided_scatter diag diag_embed diagflat diagonal diagonal_scatter fill_diagonal_ select_scatter slice_scatter
"""


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices along two dimensions as a view; they stand along the last dimension.

    offset
        Which diagonal: 0 is the main one, positive ones lie above it and negative ones below.

    GraphcError where the two dimensions are the same one.

    >>> graphc.diagonal(graphc.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    ndim = input.ndim
    row, column = axis(dim1, ndim), axis(dim2, ndim)
    if row == column:
        raise GraphcError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return named(emit(ops.diagonal, (input,), {"offset": integer(offset, "offset"), "row": row, "column": column}), "Diagonal")


def diagonal_copy(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of the diagonals; see `diagonal`.

    GraphcError where both dimensions are one.

    >>> graphc.diagonal_copy(graphc.tensor([[1, 2], [3, 4]]), 1)
    tensor([2])
    """
    return clone(diagonal(input, offset, dim1, dim2))


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with the vector on a diagonal; or, of a matrix, a diagonal as a vector.

    ShapeError for more than two dimensions.

    >>> graphc.diag(graphc.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    >>> graphc.diag(graphc.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return diagonal_copy(input, diagonal)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements on a diagonal.

    ArgumentTypeError for an offset that is no int.

    >>> graphc.diagflat(graphc.tensor([[1], [2]]))
    tensor([[1, 0],
            [0, 2]])
    """
    return diag_embed(reshape(input, (-1,)), offset)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the vectors along the last dimension on a diagonal, and zeros elsewhere. They stand along the dimensions
    `dim1` and `dim2` of the result.

    GraphcError where the two dimensions are the same one.

    >>> graphc.diag_embed(graphc.tensor([[1, 2]]))
    tensor([[[1, 0],
             [0, 2]]])
    """
    ndim = input.ndim + 1
    row, column = axis(dim1, ndim), axis(dim2, ndim)
    if row == column:
        raise GraphcError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = input._data.shape[-1] + abs(integer(offset, "offset"))
    shape = list(input._data.shape[:-1])
    for at in sorted((row, column)):
        shape.insert(at, size)
    base = zeros(tuple(shape), dtype=input.dtype)
    return named(emit(ops.diagonal_update, (base, input), {"offset": offset, "row": row, "column": column}), "DiagEmbed")


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The input with `src` on its diagonals; see `diagonal`.

    ShapeError where `src` has another shape than that part.

    >>> graphc.diagonal_scatter(graphc.zeros(2, 2), graphc.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    part = diagonal(input.detach(), offset, dim1, dim2)
    src = _fitting(src, part)
    where = {"offset": offset, "row": axis(dim1, input.ndim), "column": axis(dim2, input.ndim)}
    return named(emit(ops.diagonal_update, (input, src), where), "DiagonalScatter")


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """The input with `src` at one place along a dimension.

    ShapeError where `src` has another shape than that part, DimError where there is no such place or dimension.

    >>> graphc.select_scatter(graphc.zeros(2, 2), graphc.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    if not input._data.shape:
        raise DimError("select() cannot be applied to a 0-dim tensor.")
    at, place = axis(dim, input.ndim), integer(index, "index")
    size = input._data.shape[at]
    if not -size <= place < size:
        raise DimError(f"select(): index {place} out of range for tensor of size {list(input.shape)} at dimension {at}")
    place %= size
    part = input.detach().select(at, place)
    return named(_over(input, unsqueeze(_fitting(src, part), at), at, place, place + 1, 1), "SelectScatter")


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """The input with `src` at the places `start:end:step` along a dimension.

    ShapeError where `src` has another shape than that part, GraphcError for a step that is not positive.

    >>> graphc.slice_scatter(graphc.zeros(4), graphc.ones(2), 0, 1, 3)
    tensor([0., 1., 1., 0.])
    """
    at = axis(dim, input.ndim)
    if step <= 0:
        raise GraphcError("slice step must be positive", got=str(step))
    first, stop, _ = slice(start, end, step).indices(input._data.shape[at])
    stop = max(first, stop)
    part = emit(ops.slice, (input.detach(),), _region(input, at, first, stop, step))
    return named(_over(input, _fitting(src, part), at, first, stop, step), "SliceScatter")


def _region(input: Tensor, at: int, start: int, stop: int, step: int) -> dict[str, Any]:
    sizes = input._data.shape
    return {"starts": tuple(start if i == at else 0 for i in range(len(sizes))),
            "stops": tuple(stop if i == at else n for i, n in enumerate(sizes)),
            "steps": tuple(step if i == at else 1 for i in range(len(sizes)))}


def _over(input: Tensor, new: Tensor, at: int, start: int, stop: int, step: int) -> Tensor:
    return emit(ops.slice_update, (input, new), _region(input, at, start, stop, step))


def _fitting(src: Tensor, part: Tensor) -> Tensor:
    """What is written over a part: of its shape, in its dtype."""
    if src._data.shape != part._data.shape:
        raise ShapeError("expected src to have a size equal to the slice of self. src size = "
                         f"{list(src.shape)}, slice size = {list(part.shape)}")
    return cast(src, part.dtype)


def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy of the input with `src` written through the view that `as_strided` makes of it.

    ShapeError where `src` has another shape than that part.

    >>> graphc.as_strided_scatter(graphc.zeros(4), graphc.ones(2), (2,), (2,))
    tensor([1., 0., 1., 0.])
    """
    out = clone(input)
    part = as_strided(out, size, stride, storage_offset)
    _fitting(src, part)
    assign(part, src)
    return out


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrite the main diagonal, of several dimensions of one size or of a matrix; with `wrap`, that of a tall matrix starts
    again below its end.

    ShapeError for less than two dimensions, and for more than two of different sizes.

    >>> graphc.zeros(2, 2).fill_diagonal_(5)
    tensor([[5., 0.],
            [0., 5.]])
    """
    refuse(self)
    shape = tuple(self._data.shape)
    if len(shape) < 2:
        raise ShapeError("dimensions must larger than 1", got=str(list(shape)))
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ShapeError("all dimensions of input must be of equal length", got=str(list(shape)))
    step = sum(_row_major(shape))
    count = min(shape)
    if wrap and len(shape) == 2:
        count = -(-shape[0] * shape[1] // step)
    flat = reshape(self, (-1,))
    places = {"starts": (0,), "stops": (max(count - 1, 0) * step + min(count, 1),), "steps": (step,)}
    new = full((count,), fill_value, dtype=self.dtype)
    return assign(self, reshape(emit(ops.slice_update, (flat, new), places), shape))


def _row_major(shape: tuple[int, ...]) -> list[int]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return strides
