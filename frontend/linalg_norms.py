"""Norms of vectors and matrices, and the numbers that come of singular values: condition and rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axes, axis, emit, need_tensor, scalar_type
from graphc.frontend.arithmetic import pow, square
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.creation import full
from graphc.frontend.linalg_checks import matrices, need_matrices, need_numbers, need_square, squares
from graphc.frontend.linalg_factors import eigvalsh, svdvals
from graphc.frontend.linalg_solvers import inv_ex, tolerances
from graphc.frontend.logic import ne
from graphc.frontend.movement import movedim, reshape, unsqueeze
from graphc.frontend.pointwise import abs, cast, maximum, sqrt, where
from graphc.frontend.reductions import amax, amin, sum
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor
from graphc.types import DType, float32

FUNCTIONS = "dist norm"
METHODS = "dist norm"

Dims = int | Sequence[int] | None


def _converted(x: Tensor, dtype: DType | None, name: str) -> Tensor:
    """The tensor in the dtype that a norm is to be computed in."""
    need_numbers(x, name, low_precision=True)
    if dtype is None or dtype is x.dtype:
        return x
    if not dtype.is_differentiable:
        raise DTypeError(f"{name}: dtype should be floating point or complex, but got {scalar_type(dtype)}")
    if dtype.is_complex is not x.dtype.is_complex:
        raise DTypeError(f"{name}: dtype should be {'complex' if x.dtype.is_complex else 'real'} for "
                         f"{'complex' if x.dtype.is_complex else 'real'} inputs, but got {scalar_type(dtype)}")
    if dtype.bits < x.dtype.bits:
        raise DTypeError(f"{name}: the dtype of the input ({scalar_type(x.dtype)}) should be convertible without narrowing to "
                         f"the specified dtype ({scalar_type(dtype)})")
    return cast(x, dtype)


def _need_elements(x: Tensor, dim: Dims, dims: tuple[int, ...], order: float) -> None:
    """ShapeError where there is nothing to choose an extreme from."""
    shape = x._data.shape
    empty = next((d for d in dims if shape[d] == 0), None)
    if empty is None:
        return
    where_ = "an empty tensor" if dim is None else f"the dimension {empty}"
    raise ShapeError(f"linalg.vector_norm cannot compute the {order:g} norm on {where_} because the operation does not have an "
                     "identity")


def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """(sum of |x|^ord)^(1 / ord) over `dim`, or over all dimensions; the largest |x| for ord=inf, the least one for -inf, the
    count of nonzero elements for 0. Real, and where it has no slope, as at zero, its gradient is zero.

    ArgumentTypeError for an `ord` that is no number, DTypeError for a `dtype` that is narrower than the input's or not of its
    kind, ShapeError over nothing where the norm of nothing is not defined.

    >>> graphc.linalg.vector_norm(graphc.tensor([[3.0, 4.0], [6.0, 8.0]]), dim=1)
    tensor([ 5., 10.])
    """
    name = "linalg.vector_norm"
    need_tensor(x, name, "x")
    if isinstance(ord, str) or not isinstance(ord, (int, float)):
        raise ArgumentTypeError(f"linalg_vector_norm(): argument 'ord' (position 2) must be Number, not {type(ord).__name__}")
    x = _converted(x, dtype, name)
    order, result = float(ord), x.dtype.to_real()
    if result.bits < 32:
        x = cast(x, float32)  # squares of half precision overflow at 256 already
    dims = axes(dim, x.ndim)
    if math.isinf(order) or (order < 0 and x.numel() == 0):
        _need_elements(x, dim, dims, order)
    return named(cast(_vector_norm(x, order, dims, keepdim), result), "LinalgVectorNorm")


@composite(large=False)
def _vector_norm(x: Tensor, order: float, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    def over(record: Any, values: Tensor) -> Tensor:
        out = emit(record, (values,), {"axes": dims})
        return ops.keepdims(out, values._data.shape, dims) if keepdim and dims else out

    if order == 2:
        total = over(ops.sum, square(abs(x)) if x.dtype.is_complex else x * x)
        zero = total == 0
        return where(zero, 0.0, sqrt(where(zero, 1.0, total)))
    if order == 0:
        return without_slope(over(ops.sum, cast(ne(x, 0), x.dtype.to_real())), (x,), "LinalgVectorNorm")
    sizes = abs(x)
    if order == 1:
        return over(ops.sum, sizes)
    if math.isinf(order):
        return over(ops.amax if order > 0 else ops.amin, sizes)
    nothing = sizes == 0
    powers = where(nothing, 0.0 if order > 0 else math.inf, pow(where(nothing, 1.0, sizes), order))
    total = over(ops.sum, powers)
    zero = total == 0
    return where(zero, 0.0 if order > 0 else math.inf, pow(where(zero, 1.0, total), 1 / order))


_MATRIX_ORDERS = (1, -1, 2, -2, math.inf, -math.inf)


def matrix_norm(A: Tensor, ord: float | str = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """The norm of matrices, which lie in the two dimensions `dim`.

    "fro": the root of the sum of squares. "nuc": the sum of the singular values; 2 and -2: the largest and the least one.
    1 and -1: the largest and the least sum of absolute values of a column; inf and -inf: of a row.

    GraphcError for another order. It is also for a `dim` that is not two different dimensions, ArgumentTypeError for one that
    is an int, DTypeError for a `dtype` that is narrower than the input's or not of its kind.

    >>> graphc.linalg.matrix_norm(graphc.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor(5.)
    """
    name = "linalg.matrix_norm"
    if ord not in ("fro", "nuc", *_MATRIX_ORDERS):
        raise GraphcError(f"{name}: Order {ord:g} not supported." if isinstance(ord, (int, float)) else
                          f"{name}: Order {ord} not supported.", expected="'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    need_matrices(A, name)
    if isinstance(dim, int):
        raise ArgumentTypeError("linalg_matrix_norm(): argument 'dim' must be tuple of ints, not int")
    if len(dim) != 2:
        raise GraphcError(f"{name}: dim must be a 2-tuple. Got {' '.join(map(str, dim))}")
    A = _converted(A, dtype, name)
    rows, columns = (axis(d, A.ndim) for d in dim)
    if rows == columns:
        raise GraphcError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    if isinstance(ord, str) or math.fabs(ord) == 2:
        values = svdvals(movedim(A, (rows, columns), (-2, -1)))
        out = sum(values, -1) if ord == "nuc" else _extreme(values, -1, float(ord))
        if keepdim:
            for d in sorted((rows, columns)):
                out = unsqueeze(out, d)
        return out
    along, across = (rows, columns) if math.fabs(ord) == 1 else (columns, rows)
    sums = vector_norm(A, 1, along, True)
    out = _extreme(sums, across, ord, keepdim=True)
    shape = tuple(s for i, s in enumerate(out._data.shape) if keepdim or i not in (rows, columns))
    return reshape(out, shape)


def _extreme(x: Tensor, dim: int, order: float, keepdim: bool = False) -> Tensor:
    """The largest element for a positive order, the least for a negative one; zero of nothing."""
    at = dim % x.ndim
    if x._data.shape[at] == 0:
        left = tuple(1 if i == at else s for i, s in enumerate(x._data.shape) if keepdim or i != at)
        return full(left, 0.0, dtype=x.dtype, device=x.device)
    return (amax if order > 0 else amin)(x, dim, keepdim)


@composite(large=False)
def norm(input: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False, *,
         dtype: DType | None = None) -> Tensor:
    """The p-norm of the elements over `dim`, or over all: `linalg.vector_norm`, of which "fro" is the one with p = 2. For
    p = "nuc" that of matrices: `linalg.matrix_norm`.

    GraphcError for another string.

    >>> graphc.norm(graphc.tensor([[3.0, 4.0], [6.0, 8.0]]), dim=1)
    tensor([ 5., 10.])
    """
    need_tensor(input, "norm")
    if isinstance(p, str) and p != "fro":
        if p != "nuc":
            raise GraphcError(f"linalg.matrix_norm: Order {p} not supported.", expected="'fro', 'nuc' or a number")
        chosen = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
        return matrix_norm(input, p, chosen, keepdim, dtype=dtype)
    return vector_norm(input, 2.0 if p is None or p == "fro" else float(p), dim, keepdim, dtype=dtype)


def linalg_norm(A: Tensor, ord: float | str | None = None, dim: Dims = None, keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """The norm of vectors or of matrices: of vectors along one dimension, of matrices in two.

    Without `ord` the root of the sum of squares, over all dimensions if none is named; with `ord` but no `dim` the tensor
    is a vector or a matrix itself.

    GraphcError for more than two dimensions.

    >>> graphc.linalg.norm(graphc.tensor([3.0, 4.0]))
    tensor(5.)
    """
    name = "linalg.norm"
    need_tensor(A, name, "A")
    count = None if dim is None else 1 if isinstance(dim, int) else len(dim)
    if count is not None and count not in (1, 2):
        raise GraphcError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dim)}")  # type: ignore[arg-type]
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if count is None:
        if A.ndim not in (1, 2):
            raise GraphcError("linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
                              f"{A.ndim}D.")
        dim = (0, 1) if A.ndim == 2 else (0,)
    elif isinstance(dim, int):
        dim = (dim,)
    if len(dim) == 2 or isinstance(ord, str):  # type: ignore[arg-type]
        return matrix_norm(A, ord, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other.

    ShapeError where the shapes do not broadcast.

    >>> graphc.dist(graphc.tensor([0.0, 0.0]), graphc.tensor([3.0, 4.0]))
    tensor(5.)
    """
    return norm(input - other, p)


@full_precision
def cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition number: of the norm p, |A| |A^-1|; by default, or for p=2, the quotient of the largest and the least
    singular value, which matrices that are not square have too. inf of singular matrices.

    ShapeError for less than two dimensions, GraphcError for another p.

    >>> graphc.linalg.cond(graphc.tensor([[4.0, 0.0], [0.0, 2.0]]))
    tensor(2.)
    """
    name = "linalg.cond"
    need_tensor(A, name, "A")
    if A.ndim < 2:
        raise ShapeError("linalg.cond: The input tensor must have at least 2 dimensions.", got=str(list(A.shape)))
    if p is not None and p not in ("fro", "nuc", *_MATRIX_ORDERS):
        raise GraphcError(f"linalg.cond got an invalid norm type: {p}", expected="'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    real = A.dtype.to_real()
    if A.numel() == 0:
        return full(tuple(A._data.shape[:-2]), 0.0, dtype=real, device=A.device)
    if p is None or p in (2, -2):
        values = svdvals(A)
        largest, least = values[..., 0], values[..., -1]
        return least / largest if p == -2 else largest / least
    squares(need_square(A, f"linalg.cond(ord={p})"), name)
    inverse, info = inv_ex(A)
    return where(ne(info, 0), math.inf, matrix_norm(A, p) * matrix_norm(inverse, p))


@full_precision
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values are larger than max(atol, rtol * the largest one); int64.

    The tolerances are numbers, or tensors with one for each matrix; `tol` is an older name of atol, with rtol 0. By default
    rtol is the larger size times the precision of the dtype.

    >>> graphc.linalg.matrix_rank(graphc.tensor([[1.0, 2.0], [2.0, 4.0]]))
    tensor(1)
    """
    name = "graphc.linalg.matrix_rank"
    (squares if hermitian else matrices)(need_matrices(A, name, "input"), name)
    if tol is not None:
        atol, rtol = tol, 0.0
    if A.numel() == 0:
        return full(tuple(A._data.shape[:-2]), 0, device=A.device)
    values = abs(eigvalsh(A)) if hermitian else svdvals(A)
    absolute, relative = tolerances(A, name, atol, rtol)
    largest = amax(values, -1) if hermitian else values[..., 0]
    return sum(values > unsqueeze(maximum(absolute, relative * largest), -1), -1)
