"""Products of vectors and matrices other than the matrix product."""

from __future__ import annotations

from graphc.errors import GraphcError, ShapeError
from graphc.frontend import linalg_products
from graphc.frontend.composite import composite
from graphc.frontend.copying import flip
from graphc.frontend.creation import ones
from graphc.frontend.movement import reshape
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import int64

FUNCTIONS = "cross kron vander"
METHODS = "cross kron"


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: `other` times each element of the input, in its place.

    >>> graphc.kron(graphc.tensor([[1, 2]]), graphc.tensor([[1], [10]]))
    tensor([[ 1,  2],
            [10, 20]])
    """
    return _kron(input, other)


@composite
def _kron(input: Tensor, other: Tensor) -> Tensor:
    ndim = max(input.ndim, other.ndim)
    left, right = ((1,) * (ndim - x.ndim) + tuple(x._data.shape) for x in (input, other))
    x = reshape(input, tuple(n for size in left for n in (size, 1)))
    y = reshape(other, tuple(n for size in right for n in (1, size)))
    return named(reshape(x * y, tuple(a * b for a, b in zip(left, right))), "Kron")


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product of vectors of three elements along a dimension: the first of size 3 unless given.

    GraphcError where no dimension has the size 3.

    >>> graphc.cross(graphc.tensor([1.0, 0.0, 0.0]), graphc.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.])
    """
    if dim is None:
        dim = next((i for i, size in enumerate(input._data.shape) if size == 3), None)
        if dim is None:
            raise GraphcError("no dimension of size 3 in input", got=str(list(input.shape)))
    return linalg_products.cross(input, other, dim=dim)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of the elements of a vector, a row an element: from power N - 1 down to 0, or up to it.

    ShapeError for what is not a vector, GraphcError for a negative N.

    >>> graphc.vander(graphc.tensor([2, 3]), 3)
    tensor([[4, 2, 1],
            [9, 3, 1]])
    """
    if x.ndim != 1:
        raise ShapeError("x must be a one-dimensional tensor.", got=str(list(x.shape)))
    count = x._data.shape[0] if N is None else N
    if count < 0:
        raise GraphcError("N must be non-negative.", got=str(count))
    if count < 2:
        return ones(x._data.shape[0], count, dtype=x.dtype if x.dtype.is_differentiable else int64)
    powers = linalg_products.vander(x, N=count)
    return powers if increasing else flip(powers, 1)
