"""Factorisations of matrices, which LAPACK computes through NumPy and SciPy: of one matrix, or of each in a batch.

In the derivatives a superscript H is the conjugate transpose, and `o` multiplies element by element.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, DTypeError, ShapeError
from graphc.op import Sample, Undefined, not_differentiable, op
from graphc.ops.checks import check_choice
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import zeros_like
from graphc.ops.elementwise import where
from graphc.ops.indexing import gather
from graphc.ops.linalg import adjoint, matmul
from graphc.ops.matrices import (
    LAPACK,
    as_column,
    each_matrix,
    failure,
    identity_like,
    lesser,
    lower_triangle,
    need_matrices,
    need_square,
    on_diagonal,
    part,
    total,
    upper_triangle,
)
from graphc.ops.movement import broadcast_to, concat
from graphc.ops.systems import check_sides, solve_left, solve_right
from graphc.types import Size, TensorType, float32, float64, int32, int64

_square = TensorType(float32, (4, 4))
_batch = TensorType(float64, (2, 3, 3))
_tall = TensorType(float32, (5, 3))
_wide = TensorType(float32, (3, 5))


def _matrices(x: TensorType, rows: Size, columns: Size) -> TensorType:
    return x.with_shape((*x.shape[:-2], rows, columns))


# Cholesky: A = L L^H


def _cholesky_infer(x: TensorType, upper: bool, check: bool) -> tuple[TensorType, ...]:
    need_square("cholesky", x)
    return x, TensorType(int32, x.shape[:-2], x.device)


def _cholesky_ref(x: np.ndarray, upper: bool, check: bool) -> tuple[np.ndarray, np.ndarray]:
    info = np.zeros(x.shape[:-2], np.int32)
    try:
        return np.linalg.cholesky(x, upper=upper), info
    except np.linalg.LinAlgError:
        from scipy.linalg.lapack import get_lapack_funcs

        (potrf,) = get_lapack_funcs(("potrf",), (x,))
        out = np.empty_like(x)
        each_matrix(lambda a: potrf(a, lower=not upper), (x,), (out, info))
    if check and info.any():
        raise failure("linalg.cholesky", info,
                      "The factorization could not be completed because the input is not positive-definite (the leading "
                      "minor of order {info} is not positive-definite).") from None
    return out, info


def _cholesky_vjp(ct: Any, out: Any, upper: bool) -> Any:
    """L^-H (L^H G)~ L^-1, where ~ makes a lower triangle Hermitian and halves it (Murray 2016, "Differentiation of the
    Cholesky decomposition"). The part of the matrix that is not read gets its share of the gradient, as in PyTorch."""
    factor, cotangent = out[0], ct[0]
    if cotangent is None:
        return None
    if upper:
        factor, cotangent = adjoint(factor), adjoint(cotangent)
    product = lower_triangle(matmul(adjoint(factor), lower_triangle(cotangent)))
    inner = where(on_diagonal(product), product * 0.5, product)
    inner = (inner + adjoint(inner)) * 0.5
    return solve_right(solve_left(adjoint(factor), inner, upper=True), factor, upper=False)


cholesky = op("cholesky", "x", "upper check", infer=_cholesky_infer, ref=_cholesky_ref, vjp=_cholesky_vjp, **LAPACK,
              samples=(Sample((_square,), {"upper": False, "check": True}, hermitian=True),
                       Sample((_batch,), {"upper": True, "check": False}, hermitian=True)))
"""The triangle L with L L^H = x (U with U^H U = x if upper), and LAPACK's error code for each matrix. Only the lower
(upper) triangle of x is read. With `check` a matrix that is not positive definite is a LinAlgError."""

# LU: A = P L U


def _lu_infer(x: TensorType, check: bool) -> tuple[TensorType, ...]:
    need_matrices("lu_factor", x)
    size = lesser(x)
    return x, TensorType(int32, (*x.shape[:-2], size), x.device), TensorType(int32, x.shape[:-2], x.device)


def _lu_ref(x: np.ndarray, check: bool) -> tuple[np.ndarray, ...]:
    from scipy.linalg.lapack import get_lapack_funcs

    out, info = x.copy(), np.zeros(x.shape[:-2], np.int32)
    pivots = np.zeros((*x.shape[:-2], min(x.shape[-2:])), np.int32)
    if x.size:
        (getrf,) = get_lapack_funcs(("getrf",), (x,))
        each_matrix(getrf, (x,), (out, pivots, info))
        pivots += 1
    if check and info.any():
        raise failure("graphc.linalg.lu_factor", info,
                      "U[{info},{info}] is zero and using it on lu_solve would result in a division by zero. If you still "
                      "want to perform the factorization, consider calling linalg.lu(A, pivot) or "
                      "linalg.lu_factor_ex(A, pivot)")
    return out, pivots, info


def _lu_vjp(ct: Any, out: Any) -> Any:
    """P L^-H (tril(L^H G_L, -1) + triu(G_U U^H)) U^-H for square matrices, from dA = P (dL U + L dU): L^-1 dL is strictly
    lower, dU U^-1 upper triangular. What is below or beside the square, L2 = A2 U^-1 and U2 = L^-1 A2, comes first."""
    lu, pivots = out[0], out[1]
    cotangent = ct[0]
    if cotangent is None:
        return None
    rows, columns = lu.shape[-2:]
    k = pivots.shape[-1]
    core, given = part(lu, (0, k), (0, k)), part(cotangent, (0, k), (0, k))
    by_lower, by_upper = lower_triangle(given, -1), upper_triangle(given)
    beyond: Any = None
    if rows > columns:
        beyond = solve_right(part(cotangent, (k, rows), (0, k)), adjoint(core), upper=False)
        by_upper = by_upper - upper_triangle(matmul(adjoint(part(lu, (k, rows), (0, k))), beyond))
    elif columns > rows:
        beyond = solve_left(adjoint(core), part(cotangent, (0, k), (k, columns)), upper=True, unit=True)
        by_lower = by_lower - lower_triangle(matmul(beyond, adjoint(part(lu, (0, k), (k, columns)))), -1)
    unit = lower_triangle(core, -1) + identity_like(core)
    turned = adjoint(upper_triangle(core))
    inner = lower_triangle(matmul(adjoint(unit), by_lower), -1) + upper_triangle(matmul(by_upper, turned))
    made = solve_right(solve_left(adjoint(core), inner, upper=True, unit=True), adjoint(core), upper=False)
    if beyond is not None:
        made = concat(made, beyond, axis=len(lu.shape) - (2 if rows > columns else 1))
    return take_rows(made, permutation(pivots, size=rows, inverse=True))


lu_factor = op("lu_factor", "x", "check", infer=_lu_infer, ref=_lu_ref, vjp=_lu_vjp, **LAPACK,
               samples=(Sample((_square,), {"check": True}), Sample((_batch,), {"check": False}),
                        Sample((_tall,), {"check": True}), Sample((_wide,), {"check": True})))
"""L (below the diagonal, which is one) and U in one matrix, the pivots (row i was exchanged with row pivots[i] - 1, one
after the other), and LAPACK's error codes. With `check` a zero on the diagonal of U is an error."""


def _permutation_infer(pivots: TensorType, size: Size, inverse: bool) -> TensorType:
    if pivots.dtype is not int32 or pivots.ndim < 1:
        raise DTypeError("permutation: not the pivots of a factorisation", expected="int32[..., k]", got=str(pivots))
    if isinstance(size, int) and isinstance(pivots.shape[-1], int) and size < pivots.shape[-1]:
        raise ArgumentError(f"permutation: {pivots.shape[-1]} pivots of {size} rows", expected="as many rows, or more")
    return TensorType(int64, (*pivots.shape[:-1], size), pivots.device)


def _permutation_ref(pivots: np.ndarray, size: int, inverse: bool) -> np.ndarray:
    if pivots.size and (pivots.min() < 1 or pivots.max() > size):
        raise ArgumentError("pivots passed to lu_unpack must be between 1 and LU.size(-2) inclusive. Did you properly pass the "
                            "result of lu_factor?", got=f"pivots from {pivots.min()} to {pivots.max()} for {size} rows")
    order = np.broadcast_to(np.arange(size), (*pivots.shape[:-1], size)).copy()
    for i in range(pivots.shape[-1]):
        j = pivots[..., i : i + 1].astype(np.int64) - 1
        here = order[..., i : i + 1].copy()
        order[..., i : i + 1] = np.take_along_axis(order, j, -1)
        np.put_along_axis(order, j, here, -1)
    return np.argsort(order, -1) if inverse else order


permutation = op("permutation", "pivots", "size inverse", infer=_permutation_infer, ref=_permutation_ref,
                 vjp=not_differentiable, **LAPACK,
                 samples=(Sample((np.array([3, 3, 3], np.int32),), {"size": 4, "inverse": False}),
                          Sample((np.array([[2, 2], [1, 3]], np.int32),), {"size": 3, "inverse": True})))
"""Where exchanges of rows take them: row i of P^T A is row order[i] of A. The inverse belongs to P A."""


def take_rows(x: Any, order: Any) -> Any:
    """The rows of matrices in another order."""
    return gather(x, broadcast_to(as_column(order), tuple(x.shape)), len(x.shape) - 2)


# QR


def _qr_infer(x: TensorType, mode: str) -> tuple[TensorType, TensorType]:
    need_matrices("qr", x)
    check_choice("qr", "mode", mode, ("reduced", "complete", "r"))
    rows, columns = x.shape[-2:]
    if mode == "complete":
        return _matrices(x, rows, rows), x
    size = lesser(x)
    return _matrices(x, rows, 0) if mode == "r" else _matrices(x, rows, size), _matrices(x, size, columns)


def _qr_ref(x: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    factor: Any = np.linalg.qr
    if mode == "r":
        return np.empty((*x.shape[:-1], 0), x.dtype), factor(x, "r")
    q, r = factor(x, mode)
    return q, r


def _qr_vjp(ct: Any, x: Any, out: Any, mode: str) -> Any:
    """(G_Q + Q copyltu(M)) R^-H with M = R G_R^H - G_Q^H Q for matrices that are square or tall (Walter and Lehmann 2010,
    "Algorithmic differentiation of linear algebra functions"). Of a wide one [X Y], R = [U V] with X = Q U and
    Y = Q V (Roberts and Roberts 2020, "QR and LQ decomposition matrix backpropagation algorithms")."""
    (by_q, by_r), (q, r) = ct, out
    if by_q is None and by_r is None:
        return None
    rows, columns = x.shape[-2:]
    if mode == "r":
        raise AutogradError("The derivative of linalg.qr depends on Q, which is not computed when mode='r'.",
                            hint="use linalg.qr(A, mode='reduced')")
    if rows <= columns:
        beyond = None
        if rows < columns:
            left, right = (0, rows), (rows, columns)
            rest = zeros_like(part(x, left, right)) if by_r is None else part(by_r, left, right)
            beyond = matmul(q, rest)
            by_q = total([by_q, matmul(part(x, left, right), adjoint(rest))])
            by_r = None if by_r is None else part(by_r, left, left)
            r = part(r, left, left)
        made = _qr_slope(by_q, by_r, q, r)
        return made if beyond is None else concat(made, beyond, axis=len(x.shape) - 1)
    if mode == "complete":
        raise AutogradError("The QR decomposition is not differentiable when mode='complete' and nrows > ncols",
                            hint="use linalg.qr(A, mode='reduced')")
    return _qr_slope(by_q, by_r, q, r)


def _qr_slope(by_q: Any, by_r: Any, q: Any, r: Any) -> Any:
    inner = total([None if by_r is None else matmul(by_r, adjoint(r)), None if by_q is None else -matmul(adjoint(q), by_q)])
    inner = upper_triangle(inner)
    inner = inner + adjoint(inner)
    by_a = total([by_q, matmul(q, where(on_diagonal(inner), inner * 0.5, inner))])
    return solve_right(by_a, adjoint(r), upper=False)


qr = op("qr", "x", "mode", infer=_qr_infer, ref=_qr_ref, vjp=_qr_vjp, **LAPACK,
        samples=(Sample((_square,), {"mode": "reduced"}), Sample((_batch,), {"mode": "complete"}),
                 Sample((_tall,), {"mode": "reduced"}), Sample((_wide,), {"mode": "reduced"})))
"""Q with orthonormal columns and R upper triangular, Q R = x. The mode is "reduced" (Q has min(m, n) columns), "complete"
(m columns), or "r" (Q has no columns)."""


def _geqrf_infer(x: TensorType) -> tuple[TensorType, TensorType]:
    need_matrices("geqrf", x)
    return x, x.with_shape((*x.shape[:-2], lesser(x)))


def _geqrf_ref(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    packed, tau = np.linalg.qr(x, "raw")
    return packed.swapaxes(-1, -2), tau


geqrf = op("geqrf", "x", infer=_geqrf_infer, ref=_geqrf_ref, vjp=Undefined("graphc.geqrf"), **LAPACK,
           samples=(Sample((_tall,)), Sample((_batch,))))
"""R, below it the vectors of Householder's reflections, and the factors tau of the reflections."""

# LDL: A = L D L^T, or L D L^H


def _ldl_infer(x: TensorType, hermitian: bool, check: bool) -> tuple[TensorType, ...]:
    need_square("ldl_factor", x)
    return x, TensorType(int32, x.shape[:-1], x.device), TensorType(int32, x.shape[:-2], x.device)


def _symmetric(name: str, x: np.ndarray, hermitian: bool) -> Any:
    """LAPACK's function for symmetric or for Hermitian matrices: sytrf, hetrf and the like."""
    from scipy.linalg.lapack import get_lapack_funcs

    return get_lapack_funcs((("he" if hermitian and x.dtype.kind == "c" else "sy") + name,), (x,))[0]


def _ldl_ref(x: np.ndarray, hermitian: bool, check: bool) -> tuple[np.ndarray, ...]:
    out, pivots, info = x.copy(), np.zeros(x.shape[:-1], np.int32), np.zeros(x.shape[:-2], np.int32)
    if x.size:
        factor = _symmetric("trf", x, hermitian)
        each_matrix(lambda a: factor(a, lower=1), (x,), (out, pivots, info))
        out = np.tril(out)
    if check and info.any():
        raise failure("graphc.linalg.ldl_factor", info, "The diagonal element {info} of D is zero.")
    return out, pivots, info


ldl_factor = op("ldl_factor", "x", "hermitian check", infer=_ldl_infer, ref=_ldl_ref, **LAPACK,
                vjp=Undefined("graphc.linalg.ldl_factor"),
                samples=(Sample((_square,), {"hermitian": False, "check": True}),))
"""LAPACK's packed form of L and D, its pivots, and its error codes. Only the lower triangle of x is read."""


def _ldl_solve_infer(ld: TensorType, pivots: TensorType, b: TensorType, hermitian: bool) -> TensorType:
    need_square("ldl_solve", ld)
    check_sides("ldl_solve", ld, b)
    if pivots.dtype is not int32 or pivots.shape != ld.shape[:-1]:
        raise ShapeError("ldl_solve: the pivots do not fit the matrices", expected=f"int32{list(ld.shape[:-1])}",
                         got=str(pivots))
    return b


def _check_ldl_pivots(pivots: np.ndarray) -> None:
    """ArgumentError where LAPACK, which checks nothing, would go beyond the matrix: for numbers of rows that there are not, and
    for negative ones, which tell of blocks of two rows, that do not come in pairs."""
    size = pivots.shape[-1]
    halved = np.zeros(pivots.shape[:-1], np.bool_)
    wrong = np.any((pivots == 0) | (pivots < -size) | (pivots > size))
    for row in range(size):
        second, negative = halved, pivots[..., row] < 0
        wrong = wrong or np.any(second & ~negative)
        halved = negative & ~second
    if wrong or np.any(halved):
        raise ArgumentError("torch.linalg.ldl_solve: the pivots are not those of a factorisation",
                            expected=f"numbers from 1 to {size}, and negatives of these in pairs",
                            hint="pass the result of ldl_factor")


def _ldl_solve_ref(ld: np.ndarray, pivots: np.ndarray, b: np.ndarray, hermitian: bool) -> np.ndarray:
    out = b.copy()
    if b.size:
        _check_ldl_pivots(pivots)
        solve = _symmetric("trs", ld, hermitian)
        for index in np.ndindex(ld.shape[:-2]):
            out[index] = solve(ld[index], pivots[index], b[index], lower=1)[0]
    return out


def _ldl_solve_vjp(ct: Any, ld: Any, pivots: Any, hermitian: bool) -> Any:
    # the adjoint of a symmetric matrix is its conjugate, that of a Hermitian one itself
    turned = ct if hermitian else conjugate(ct)
    solved = ldl_solve(ld, pivots, turned, hermitian=hermitian)
    return solved if hermitian else conjugate(solved)


_ld, _pivots = np.array([[2, 0, 0], [0.5, 3, 0], [0.2, 0.5, 4]], np.float32), np.array([1, 2, 3], np.int32)
ldl_solve = op("ldl_solve", "ld pivots b", "hermitian", infer=_ldl_solve_infer, ref=_ldl_solve_ref, **LAPACK,
               vjp=(Undefined("graphc.linalg.ldl_solve"), None, _ldl_solve_vjp),
               samples=(Sample((_ld, _pivots, TensorType(float32, (3, 2))), {"hermitian": False}),))
"""X with A X = B, of the L and D that `ldl_factor` has made of A."""
