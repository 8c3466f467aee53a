"""Functions that make all combinations: of coordinates, of elements, of places in a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit, sizes
from graphc.frontend.composite import composite
from graphc.frontend.creation import zeros
from graphc.frontend.indexing import index_select
from graphc.frontend.joining import cat, stack
from graphc.frontend.movement import expand, reshape, swapaxes
from graphc.frontend.pointwise import cast
from graphc.frontend.tensor import Tensor
from graphc.types import int64

FUNCTIONS = "block_diag cartesian_prod combinations meshgrid unravel_index"


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid's points, a tensor for each of the vectors that span it; all are views.

    indexing
        "ij": dimension i goes along vector i. "xy": the first two dimensions change places.

    GraphcError for no tensors and for another indexing, ShapeError for tensors of more than one dimension; DTypeError where the
    dtypes differ, ArgumentTypeError for what is no tensor.

    >>> rows, columns = graphc.meshgrid(graphc.arange(2), graphc.arange(3))
    >>> rows, columns
    (tensor([[0, 0, 0],
            [1, 1, 1]]), tensor([[0, 1, 2],
            [0, 1, 2]]))
    """
    given = _listed(tensors)
    if not given:
        raise GraphcError("meshgrid expects a non-empty TensorList")
    if indexing not in ("ij", "xy"):
        raise GraphcError(f'graphc.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for x in given:
        if x.ndim > 1:
            raise ShapeError(f"graphc.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(x.shape)}")
        if x.dtype is not given[0].dtype:
            raise DTypeError("meshgrid expects all tensors to have the same dtype",
                             got=f"{given[0].dtype.name} and {x.dtype.name}")
    shape = tuple(x._data.shape[0] if x._data.shape else 1 for x in given)
    out = tuple(expand(reshape(x, tuple(-1 if i == k else 1 for i in range(len(shape)))), shape) for k, x in enumerate(given))
    return tuple(swapaxes(x, 0, 1) for x in out) if indexing == "xy" and len(given) > 1 else out


def _listed(tensors: tuple[Any, ...]) -> list[Tensor]:
    found = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"expected Tensor as element {i} in argument 0, but got {type(x).__name__}")
    return list(found)


def cartesian_prod(*tensors: Any) -> Tensor:
    """All combinations of one element of each vector, one a row; of a single vector, the vector itself.

    ShapeError for what is not a vector; ArgumentTypeError for what is no tensor.

    >>> graphc.cartesian_prod(graphc.tensor([1, 2]), graphc.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    given = _listed(tensors)
    for x in given:
        if x.ndim != 1:
            raise ShapeError(f"Expect a 1D vector, but got shape {list(x.shape)}")
    if len(given) == 1:
        return given[0]
    return stack([reshape(x, (-1,)) for x in meshgrid(*given)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All ways to choose r elements of a vector, in its order, one a row; with repetitions if asked for.

    ShapeError for what is not a vector, GraphcError for a negative r.

    >>> graphc.combinations(graphc.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    if input.ndim != 1:
        raise ShapeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise GraphcError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return zeros(0, dtype=input.dtype)
    places = _choices(int(input._data.shape[0]), r, with_replacement)
    return reshape(index_select(input, 0, ops.constant(value=places.reshape(-1), like=Tensor)), places.shape)


def _choices(count: int, r: int, again: bool) -> np.ndarray:
    """All ascending rows of r places of so many, in order; with equal ones if `again`."""
    rows = np.arange(count if again else max(count - r + 1, 0))[:, None]
    for k in range(1, r):
        first = rows[:, -1] if again else rows[:, -1] + 1
        follow = (count if again else count - r + 1 + k) - first  # so many places can stand next in each row
        starts = np.cumsum(follow) - follow
        rows = rows.repeat(follow, 0)
        last = np.arange(len(rows)) - (starts - first).repeat(follow)
        rows = np.concatenate([rows, last[:, None]], 1)
    return rows


def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the matrices one after the other on its diagonal, and zeros beside them; vectors are rows.

    ShapeError for a tensor of more than two dimensions; ArgumentTypeError for what is no tensor.

    >>> graphc.block_diag(graphc.ones(1, 2), graphc.ones(1, 1))
    tensor([[1., 1., 0.],
            [0., 0., 1.]])
    """
    given = _listed(tensors)
    for i, x in enumerate(given):
        if x.ndim > 2:
            raise ShapeError("graphc.block_diag: Input tensors must have 2 or fewer dimensions. "
                             f"Input {i} has {x.ndim} dimensions")
    return _block_diag(*given) if given else zeros(1, 0)


@composite(large=False)
def _block_diag(*tensors: Tensor) -> Tensor:
    blocks = [x if x.ndim == 2 else reshape(x, (1, -1)) for x in tensors]
    width = sum(x._data.shape[1] for x in blocks)
    rows, before = [], 0
    for x in blocks:
        after = width - before - x._data.shape[1]
        value = False if x.dtype.kind == "bool" else 0
        rows.append(emit(ops.pad, (x,), {"low": (0, before), "high": (0, after), "value": value}))
        before += x._data.shape[1]
    return cat(rows, 0)


def unravel_index(indices: Tensor, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """The places in a tensor of a shape that places in its flattened elements are, a tensor a dimension.

    ArgumentTypeError for indices that are no integers, GraphcError for negative sizes.

    >>> graphc.unravel_index(graphc.tensor([5]), (2, 3))
    (tensor([1]), tensor([2]))
    """
    if indices.dtype.kind not in ("int", "uint"):
        raise ArgumentTypeError(f"expected 'indices' to be integer dtype, but got {indices.dtype.name}")
    lengths = sizes((shape,), "shape") if isinstance(shape, (tuple, list)) else (shape,)
    if any(n < 0 for n in lengths):
        raise GraphcError(f"'shape' cannot have negative values, but got {lengths}")
    indices = cast(indices, int64)
    return tuple(indices // max(math.prod(lengths[i + 1 :]), 1) % max(n, 1) for i, n in enumerate(lengths))
