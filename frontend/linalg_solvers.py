"""Inverses and solutions of linear equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axis, emit, need_tensor
from graphc.frontend.arithmetic import square
from graphc.frontend.autocast import full_precision
from graphc.frontend.creation import full, zeros
from graphc.frontend.linalg_checks import (
    is_vector,
    matrices,
    need_matrices,
    need_numbers,
    need_square,
    one_batch,
    one_dtype,
    several,
    squares,
)
from graphc.frontend.matrices import matmul
from graphc.frontend.movement import expand, movedim, reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import abs, cast, where
from graphc.frontend.reductions import sum
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

# Square matrices


@full_precision
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """`solve`, and for each matrix an error code: 0, or which pivot is zero. The codes are int32 [...].

    ShapeError where the shapes do not fit, GraphcError for a vector B without `left`, and with `check_errors` LinAlgError for
    singular matrices.

    >>> X, info = graphc.linalg.solve_ex(graphc.tensor([[2.0]]), graphc.tensor([[4.0]]))
    >>> X, info
    (tensor([[2.]]), tensor(0, dtype=graphc.int32))
    """
    name = "linalg.solve"
    need_tensor(B, name, "B")
    squares(A, name)
    one_dtype(A, B, name)
    vector = is_vector(A, B)
    if vector and not left:
        raise GraphcError("linalg.solve: Vector broadcasting of the left hand side is not supported for left=False. In this "
                          "case linalg.solve is equivalent to B / A.squeeze(-1)")
    sides = unsqueeze(B, -1) if vector else B
    _check_sides(A, sides, left, name)
    if not left:
        A, sides = ops.transpose_last(A), ops.transpose_last(sides)
    result, info = several(ops.solve, one_batch(A, sides), {"check": check_errors}, "LinalgSolveEx")
    result = squeeze(result, -1) if vector else result if left else ops.transpose_last(result)
    return return_types.linalg_solve_ex(result, info)


def _check_sides(A: Tensor, B: Tensor, left: bool, name: str) -> None:
    need_matrices(B, name, "B")
    size = B._data.shape[-2 if left else -1]
    if size != A._data.shape[-1]:
        raise ShapeError(f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                         f"({'x'.join(map(str, A.shape[-2:]))} and {'x'.join(map(str, B.shape[-2:]))})")


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B, or X A = B if not `left`. B may be a vector for each matrix. LinAlgError where one is singular.

    >>> graphc.linalg.solve(graphc.tensor([[2.0, 0.0], [0.0, 4.0]]), graphc.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    return solve_ex(A, B, left=left, check_errors=True)[0]


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """`inv`, and for each matrix an error code: 0, or which pivot is zero. The codes are int32 [...].

    >>> inverse, info = graphc.linalg.inv_ex(graphc.tensor([[2.0]]))
    >>> inverse, info
    (tensor([[0.5000]]), tensor(0, dtype=graphc.int32))
    """
    return return_types.linalg_inv_ex(*several(ops.inv, (squares(A, "linalg.inv"),), {"check": check_errors}, "LinalgInvEx"))


def inv(A: Tensor) -> Tensor:
    """The inverses of matrices. LinAlgError where one is singular.

    >>> graphc.linalg.inv(graphc.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return inv_ex(A, check_errors=True)[0]


# With factors


def _triangular(A: Tensor, B: Tensor, upper: bool, unit: bool) -> Tensor:
    return emit(ops.triangular_solve, one_batch(A, B), {"upper": upper, "unit": unit})


@full_precision
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with A X = B (X A = B if not `left`) for triangular matrices A. A is [..., n, n], B is [..., n, k], or [..., k, n] if
    not `left`.

    The other triangle of A is not read, nor the diagonal if `unitriangular` says that it is one. A zero on the diagonal
    makes the result infinite or nan.

    ShapeError where the shapes do not fit.

    >>> graphc.linalg.solve_triangular(graphc.tensor([[2.0, 0.0], [1.0, 4.0]]), graphc.tensor([[2.0], [9.0]]), upper=False)
    tensor([[1.],
            [2.]])
    """
    name = "linalg.solve_triangular"
    need_tensor(B, name, "B")
    need_square(A, name)
    one_dtype(A, B, name)
    need_numbers(A, name)
    _check_sides(A, B, left, name)
    if left:
        return named(_triangular(A, B, upper, unitriangular), "LinalgSolveTriangular")
    turned = _triangular(ops.transpose_last(A), ops.transpose_last(B), not upper, unitriangular)
    return named(ops.transpose_last(turned), "LinalgSolveTriangular")


@full_precision
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with A X = B (X A = B if not `left`; A^H in A's place if `adjoint`), of what `lu_factor` has made of A. LU is
    [..., n, n], the pivots are int32 [..., n], B is [..., n, k], or [..., k, n] if not `left`.

    ShapeError where the shapes do not fit, GraphcError for pivots that are not of int32.

    >>> LU, pivots = graphc.linalg.lu_factor(graphc.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> graphc.linalg.lu_solve(LU, pivots, graphc.tensor([[2.0], [2.0]]))
    tensor([[1.0000],
            [0.5000]])
    """
    name = "linalg.lu_solve"
    need_tensor(B, name, "B")
    one_dtype(need_square(LU, name, "LU"), B, name, ("LU", "B"))
    if pivots.dtype.name != "int32":
        raise GraphcError(f"{name}: pivots should be a Tensor of scalar type graphc.int32")
    if pivots._data.shape != LU._data.shape[:-1]:
        raise ShapeError(f"{name}: Number of pivots per batch should be same as the dimension of the matrix",
                         expected=str(list(LU.shape[:-1])), got=str(list(pivots.shape)))
    need_numbers(LU, name)
    _check_sides(LU, B, left, name)
    if not left:
        return ops.adjoint(lu_solve(LU, pivots, ops.adjoint(B), adjoint=not adjoint))
    LU, B = one_batch(LU, B)
    order = emit(ops.permutation, (pivots,), {"size": LU._data.shape[-1], "inverse": adjoint})
    order = expand(order, LU._data.shape[:-1])
    if adjoint:
        turned = ops.adjoint(LU)
        half = _triangular(turned, B, False, False)
        return ops.take_rows(_triangular(turned, half, True, True), order)
    half = _triangular(LU, ops.take_rows(B, order), False, True)
    return _triangular(LU, half, True, False)


@full_precision
def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, of what `ldl_factor` has made of A. The derivative is that by B alone. LD is [..., n, n], the pivots are
    int32 [..., n], B is [..., n, k].

    ShapeError where the shapes do not fit.

    >>> LD, pivots = graphc.linalg.ldl_factor(graphc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    >>> graphc.linalg.ldl_solve(LD, pivots, graphc.tensor([[8.0], [12.0]]))
    tensor([[1.],
            [2.]])
    """
    name = "graphc.linalg.ldl_solve"
    need_tensor(B, name, "B")
    one_dtype(need_square(LD, name, "LD"), B, name, ("LD", "B"))
    need_numbers(LD, name)
    _check_sides(LD, B, True, name)
    LD, B = one_batch(LD, B)
    return emit(ops.ldl_solve, (LD, expand(pivots, LD._data.shape[:-1]), B), {"hermitian": hermitian})


# Pseudoinverse and least squares


def tolerances(A: Tensor, name: str, atol: Any, rtol: Any) -> tuple[Tensor, Tensor]:
    """The tolerances up to which singular values count as zero, as numbers for each matrix.

    Without any, rtol is the larger one of the sizes times the precision of the dtype; given an atol above zero, it is 0.
    """
    real, batch = A.dtype.to_real(), A._data.shape[:-2]
    default = float(np.finfo(real.numpy).eps) * max(A._data.shape[-2:])

    def tensor(value: Any, which: str) -> Tensor:
        if isinstance(value, Tensor):
            if value.dtype.is_complex:
                raise GraphcError(f"{name}: {which} tensor of complex type is not supported.")
            return cast(value, real)
        return full((), float(value), dtype=real)

    absolute = tensor(0.0 if atol is None else atol, "atol")
    if rtol is not None:
        relative = tensor(rtol, "rtol")
    elif isinstance(atol, Tensor):
        relative = where(absolute > 0, 0.0, default)
        relative = cast(relative, real)
    else:
        relative = tensor(0.0 if atol else default, "rtol")
    return expand(absolute, batch), expand(relative, batch)


@full_precision
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The pseudoinverses of Moore and Penrose. Singular values up to max(atol, rtol * the largest) count as zero.

    The tolerances are numbers, or tensors with one for each matrix; `rcond` is an older name of rtol. `hermitian` says that
    the matrices are; then their lower triangles are read. The gradient is that for a rank that stays the same.

    GraphcError for less than two dimensions, for integers, float16 and bfloat16.

    >>> graphc.linalg.pinv(graphc.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    name = "linalg.pinv"
    if isinstance(A, Tensor) and (A.ndim < 2 or not A.dtype.is_differentiable or A.dtype.to_real().bits < 32):
        raise GraphcError(f"linalg.pinv({A.dtype.name}{list(A.shape)}): expected a tensor with 2 or more dimensions of float, "
                          "double, cfloat or cdouble types")
    (squares if hermitian else matrices)(A, name)
    absolute, relative = tolerances(A, name, 0.0 if rcond is not None else atol, rtol if rcond is None else rcond)
    return named(emit(ops.pinv, (A, absolute, relative), {"hermitian": hermitian}), "LinalgPinv")


_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@full_precision
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The X that makes |A X - B| least, for each matrix; of several the least X. A is [..., m, n], B is [..., m, k], and X
    [..., n, k].

    Returns (solution, residuals, rank, singular_values). The residuals are the squared lengths of the columns of A X - B,
    where there are more equations than unknowns, A is of full rank and the driver is not "gelsy"; the singular values come
    with the drivers "gelsd" and "gelss", the rank with all but "gels", which takes full rank for granted. What is not
    there is an empty tensor. Singular values up to rcond times the largest one count as zero.

    ShapeError where the shapes do not fit, GraphcError where the dtypes differ.

    >>> solution = graphc.linalg.lstsq(graphc.tensor([[1.0], [1.0]]), graphc.tensor([[1.0], [3.0]])).solution
    >>> graphc.allclose(solution, graphc.tensor([[2.0]]))
    True
    """
    name = "graphc.linalg.lstsq"
    need_tensor(A, name, "input")
    need_tensor(B, name, "other")
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    if B.ndim < 1:
        raise ShapeError(f"{name}: other must have at least 1 dimension.")
    if A.dtype is not B.dtype:
        raise GraphcError(f"{name}: Expected input and other to have the same dtype, but got input's dtype "
                          f"{A.dtype.name} and other's dtype {B.dtype.name}")
    need_numbers(A, name)
    chosen = "gelsy" if driver is None else driver
    if chosen not in _DRIVERS:
        raise GraphcError(f"{name}: parameter `driver` should be one of ({', '.join(_DRIVERS)})")
    rows, columns = A._data.shape[-2:]
    vector = is_vector(A, B)
    sides = unsqueeze(B, -1) if vector else B
    if sides.ndim < 2 or sides._data.shape[-2] != rows:
        raise ShapeError(f"{name}: input.size(-2) should match other.size(-{1 if vector else 2})")
    limit = float(np.finfo(A.dtype.to_real().numpy).eps) * max(rows, columns) if rcond is None else float(rcond)
    A, sides = one_batch(A, sides)
    solution, rank, values = several(ops.lstsq, (A, sides), {"rcond": limit, "driver": chosen}, "LinalgLstsq")
    residuals = zeros(0, dtype=A.dtype.to_real(), device=A.device)
    if rows > columns and chosen != "gelsy" and (chosen == "gels" or bool((rank == columns).all())):
        residuals = sum(square(abs(matmul(A, solution) - sides)), -2)
    return return_types.linalg_lstsq(
        squeeze(solution, -1) if vector else solution,
        residuals,
        zeros(0, dtype=rank.dtype, device=A.device) if chosen == "gels" else rank,
        values if chosen in ("gelsd", "gelss") else zeros(0, dtype=values.dtype, device=A.device),
    )


# Tensors as matrices


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its dimensions from `ind` on to those before it.

    ShapeError where the sizes before and from `ind` on have different products, GraphcError for an `ind` below 1.

    >>> graphc.linalg.tensorinv(graphc.eye(4).reshape(2, 2, 4), ind=2).shape
    graphc.Size([4, 2, 2])
    """
    need_tensor(A, "tensorinv", "A")
    if ind <= 0:
        raise GraphcError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    if ind > A.ndim:
        raise ShapeError(f"tensorinv: there is no dimension {ind} to begin with", expected=f"at most {A.ndim}", got=str(ind))
    shape = tuple(A._data.shape)
    before, after = math.prod(shape[:ind]), math.prod(shape[ind:])
    if before != after:
        raise ShapeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
                         f"{after} != {before}")
    return reshape(inv(reshape(A, (after, after))), (*shape[ind:], *shape[:ind]))


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B. The dimensions `dims` of A are moved to its end first.

    ShapeError where the sizes do not multiply to as many unknowns as equations.

    >>> graphc.linalg.tensorsolve(graphc.eye(4).reshape(4, 2, 2), graphc.arange(4.0))
    tensor([[0., 1.],
            [2., 3.]])
    """
    need_tensor(A, "tensorsolve", "A")
    need_tensor(B, "tensorsolve", "B")
    if dims is not None:
        chosen = [axis(d, A.ndim) for d in dims]
        A = movedim(A, chosen, list(range(A.ndim - len(chosen), A.ndim)))
    size, shape = math.prod(B._data.shape), tuple(A._data.shape[B.ndim :])
    if size != math.prod(shape):
        raise ShapeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape["
                         f":other.ndim]), but got {math.prod(shape)} != {size}")
    return reshape(solve(reshape(A, (size, size)), reshape(B, (size,))), shape)
