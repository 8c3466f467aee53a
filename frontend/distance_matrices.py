"""Distances between all rows of matrices, and slices brought below a norm."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axis
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.indexing import index_select
from graphc.frontend.linalg_norms import vector_norm
from graphc.frontend.matrices import matmul
from graphc.frontend.movement import expand, transpose, unsqueeze
from graphc.frontend.pointwise import sqrt, where
from graphc.frontend.reductions import sum
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor
from graphc.types import broadcast_shapes

FUNCTIONS = "cdist pdist renorm"
METHODS = "renorm"
IN_PLACE = "renorm"

_FEW = 25
"""Up to how many vectors on both sides squared distances are not taken from a product, unless that is asked for."""

_MODES = {"use_mm_for_euclid_dist_if_necessary": None, "use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False}


@full_precision
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm of the difference of each row of x1 and each row of x2: [..., n, d] and [..., m, d] give [..., n, m].

    Euclidean distances of many vectors are taken from |x|^2 + |y|^2 - 2 x.y, as `compute_mode` says; that is faster, and
    less exact where the distance is small.

    ShapeError where the numbers of columns differ and for vectors, DTypeError for integers and where the dtypes differ,
    GraphcError for a negative p, ArgumentError for another `compute_mode`.

    >>> graphc.cdist(graphc.tensor([[0.0, 0.0]]), graphc.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[5., 1.]])
    """
    for name, x in (("X1", x1), ("X2", x2)):
        if not x.dtype.is_floating_point:
            raise DTypeError(f"cdist only supports floating-point dtypes, {name} got: {x.dtype.name}")
        if x.ndim < 2:
            raise ShapeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
    columns = x1._data.shape[-1], x2._data.shape[-1]
    if columns[0] != columns[1]:
        raise ShapeError(f"X1 and X2 must have the same number of columns. X1: {columns[0]} X2: {columns[1]}")
    if p < 0:
        raise GraphcError("cdist only supports non-negative p values", got=str(p))
    if compute_mode is not None and compute_mode not in _MODES:
        raise ArgumentError(f"{compute_mode} is not a valid value for compute_mode", expected=", ".join(_MODES))
    if x1.dtype is not x2.dtype:
        raise DTypeError(f"expected scalar type {x1.dtype.name} but found {x2.dtype.name}")
    batch = broadcast_shapes(x1._data.shape[:-2], x2._data.shape[:-2], op="cdist")
    x, y = (expand(z, (*batch, *z._data.shape[-2:])) for z in (x1, x2))
    if columns[0] == 0:
        return named(sum(x, -1, keepdim=True) + unsqueeze(sum(y, -1), -2), "Cdist")
    by_product = _MODES[compute_mode or "use_mm_for_euclid_dist_if_necessary"]
    if by_product is None:
        rows = x._data.shape[-2], y._data.shape[-2]
        by_product = any(isinstance(count, int) and count > _FEW for count in rows)  # a symbol is not asked
    if p == 2 and by_product:
        return named(_euclidean(x, y), "Cdist")
    if p == 0:
        return without_slope(vector_norm(unsqueeze(x, -2) - unsqueeze(y, -3), p, -1), (x1, x2), "Cdist")
    return _distances(x, y, p)


@composite(large=False)
def _distances(x: Tensor, y: Tensor, p: float) -> Tensor:
    return named(vector_norm(unsqueeze(x, -2) - unsqueeze(y, -3), p, -1), "Cdist")


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    squares = sum(x * x, -1, keepdim=True) + unsqueeze(sum(y * y, -1), -2) - matmul(x, transpose(y, -1, -2)) * 2
    zero = squares <= 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, squares)))


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of all pairs of rows: row 0 and each later one, row 1 and each later one, ...

    ShapeError for what is no matrix, DTypeError for integers, GraphcError for a negative p.

    >>> F.pdist(graphc.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    tensor([5.0000, 1.0000, 4.2426])
    """
    if input.ndim != 2:
        raise ShapeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if not input.dtype.is_floating_point:
        raise DTypeError("pdist only supports floating-point dtypes", got=input.dtype.name)
    if p < 0:
        raise GraphcError("pdist only supports non-negative p values", got=str(p))
    count, columns = input._data.shape
    first, second = (ops.constant(value=places.astype(np.int64), like=Tensor) for places in np.triu_indices(count, 1))
    difference = index_select(input, 0, first) - index_select(input, 0, second)
    out = sum(difference, -1) if columns == 0 else vector_norm(difference, p, -1)
    return named(out, "Pdist") if p else without_slope(out, (input,), "Pdist")


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along a dimension scaled down to the p-norm `maxnorm` where theirs is larger.

    ShapeError for less than two dimensions, GraphcError for a p that is not positive and a negative `maxnorm`.

    >>> graphc.renorm(graphc.tensor([[3.0, 4.0], [0.3, 0.4]]), p=2, dim=0, maxnorm=1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    if p <= 0:
        raise GraphcError("renorm: non-positive-norm not supported", got=str(p))
    if maxnorm < 0:
        raise GraphcError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise ShapeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    at = axis(dim, input.ndim)
    norms = vector_norm(input, p, [i for i in range(input.ndim) if i != at], True)
    factor = where(norms > maxnorm, maxnorm / (norms + 1e-7), 1.0)
    return named(input * factor, "Renorm")
