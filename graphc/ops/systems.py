"""Systems of linear equations with triangular and with other square matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.linalg import adjoint, matmul
from graphc.ops.matrices import LAPACK, each_matrix, failure, lower_triangle, need_matrices, need_square, upper_triangle
from graphc.types import TensorType, float32, float64, int32

_a = TensorType(float32, (4, 4))
_b = TensorType(float32, (4, 2))
_stack = TensorType(float64, (2, 3, 3))
_right = TensorType(float64, (2, 3, 1))


def check_sides(name: str, a: TensorType, b: TensorType) -> None:
    """An error unless b holds right-hand sides of equations with the matrices a."""
    need_matrices(name, a)
    if a.dtype is not b.dtype:
        raise DTypeError(f"{name}: Expected A and B to have the same dtype", got=f"{a} and {b}")
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise ShapeError(f"{name}: the right-hand sides do not fit the matrices",
                         expected=f"{[*a.shape[:-1], 'k']}", got=str(b))


# Triangular


def _triangular_infer(a: TensorType, b: TensorType, upper: bool, unit: bool) -> TensorType:
    need_square("triangular_solve", a)
    check_sides("triangular_solve", a, b)
    return b


def _triangular_ref(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    from scipy.linalg.blas import get_blas_funcs

    out = np.empty_like(b)
    if b.size:
        (trsm,) = get_blas_funcs(("trsm",), (a, b))
        each_matrix(lambda a, b: (trsm(1.0, a, b, lower=not upper, diag=unit),), (a, b), (out,))
    return out


def _triangular_a_vjp(ct: Any, a: Any, out: Any, upper: bool, unit: bool) -> Any:
    by_b = triangular_solve(adjoint(a), ct, upper=not upper, unit=unit)
    whole = -matmul(by_b, adjoint(out))
    return upper_triangle(whole, int(unit)) if upper else lower_triangle(whole, -int(unit))


triangular_solve = op("triangular_solve", "a b", "upper unit", infer=_triangular_infer, ref=_triangular_ref, **LAPACK,
                      vjp=(_triangular_a_vjp,
                           lambda ct, a, upper, unit: triangular_solve(adjoint(a), ct, upper=not upper, unit=unit)),
                      samples=(Sample((_a, _b), {"upper": True, "unit": False}, low=0.5),
                               Sample((_stack, _right), {"upper": False, "unit": True})))
"""X with A X = B, where A is triangular: its other triangle is not read, nor its diagonal if `unit` says that it is one.
The derivatives are Giles's (2008, "An extended collection of matrix derivative results")."""


def solve_left(a: Any, b: Any, *, upper: bool, unit: bool = False) -> Any:
    """X with A X = B, for a triangular A."""
    return triangular_solve(a, b, upper=upper, unit=unit)


def solve_right(b: Any, a: Any, *, upper: bool, unit: bool = False) -> Any:
    """X with X A = B, for a triangular A."""
    return adjoint(triangular_solve(adjoint(a), adjoint(b), upper=not upper, unit=unit))


# By a Cholesky factor


def _cholesky_infer(factor: TensorType, b: TensorType, upper: bool) -> TensorType:
    need_square("cholesky_solve", factor)
    check_sides("cholesky_solve", factor, b)
    return b


def _cholesky_ref(factor: np.ndarray, b: np.ndarray, upper: bool) -> np.ndarray:
    from scipy.linalg.lapack import get_lapack_funcs

    out = np.empty_like(b)
    if b.size:
        (potrs,) = get_lapack_funcs(("potrs",), (factor, b))
        each_matrix(lambda f, b: potrs(f, b, lower=not upper)[:1], (factor, b), (out,))
    return out


def _cholesky_factor_vjp(ct: Any, factor: Any, out: Any, upper: bool) -> Any:
    """-(G_B X^H + X G_B^H) L: that of L L^H, as if all of L were read, as in PyTorch."""
    product = matmul(cholesky_solve(factor, ct, upper=upper), adjoint(out))
    both = -(product + adjoint(product))
    return matmul(factor, both) if upper else matmul(both, factor)


cholesky_solve = op("cholesky_solve", "factor b", "upper", infer=_cholesky_infer, ref=_cholesky_ref, **LAPACK,
                    vjp=(_cholesky_factor_vjp, lambda ct, factor, upper: cholesky_solve(factor, ct, upper=upper)),
                    samples=(Sample((_a, _b), {"upper": False}, triangular=True),
                             Sample((_stack, _right), {"upper": False}, triangular=True)))
"""X with L L^H X = B, or U^H U X = B if `upper`. The other triangle of the factor is not read."""

# Square

_FROM_FACTORS = 96
"""Equations of so many unknowns are solved by SciPy's LAPACK, which is the faster one then."""


def _solve_infer(a: TensorType, b: TensorType, check: bool) -> tuple[TensorType, TensorType]:
    need_square("solve", a)
    check_sides("solve", a, b)
    return b, TensorType(int32, a.shape[:-2], a.device)


def _solve_ref(a: np.ndarray, b: np.ndarray, check: bool) -> tuple[np.ndarray, np.ndarray]:
    info = np.zeros(a.shape[:-2], np.int32)
    if not b.size or a.shape[-1] < _FROM_FACTORS:
        try:
            return np.linalg.solve(a, b), info
        except np.linalg.LinAlgError:
            pass
    from scipy.linalg.lapack import get_lapack_funcs

    getrf, getrs = get_lapack_funcs(("getrf", "getrs"), (a, b))

    def solved(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
        lu, pivots, code = getrf(a)
        return getrs(lu, pivots, b)[0], code

    out = np.empty_like(b)
    each_matrix(solved, (a, b), (out, info))
    if check and info.any():
        raise failure("graphc.linalg.solve", info, "The solver failed because the input matrix is singular.")
    return out, info


def _solve_a_vjp(ct: Any, a: Any, out: Any) -> Any:
    return None if ct[0] is None else -matmul(solve(adjoint(a), ct[0], check=False)[0], adjoint(out[0]))


def _solve_b_vjp(ct: Any, a: Any) -> Any:
    return None if ct[0] is None else solve(adjoint(a), ct[0], check=False)[0]


solve = op("solve", "a b", "check", infer=_solve_infer, ref=_solve_ref, vjp=(_solve_a_vjp, _solve_b_vjp), **LAPACK,
           samples=(Sample((_a, _b), {"check": True}), Sample((_stack, _right), {"check": False})))
"""X with A X = B, and LAPACK's error codes; with `check` a singular matrix is a LinAlgError, without it X is not finite.
The derivatives are Giles's (2008)."""
