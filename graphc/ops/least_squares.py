"""Solutions of linear equations that are as good as can be."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import LinAlgError
from graphc.op import Sample, op
from graphc.ops.checks import check_choice
from graphc.ops.creation import full
from graphc.ops.eigen import iterated, svdvals_slope
from graphc.ops.linalg import adjoint, matmul
from graphc.ops.matrices import LAPACK, each_matrix, total
from graphc.ops.matrix_functions import pinv, pinv_slope
from graphc.ops.systems import check_sides
from graphc.types import TensorType, dtype_of, float32, int64

DECOMPOSING = ("gelsd", "gelss")
"""The drivers that compute singular values."""


def _lstsq_infer(a: TensorType, b: TensorType, rcond: float, driver: str) -> tuple[TensorType, ...]:
    check_sides("lstsq", a, b)
    check_choice("lstsq", "driver", driver, ("gels", "gelsy", *DECOMPOSING))
    rows, columns = a.shape[-2:]
    batch = a.shape[:-2]
    return (
        b.with_shape((*batch, columns, b.shape[-1])),
        TensorType(int64, batch, a.device),
        TensorType(a.dtype.to_real(), (*batch, min(rows, columns) if driver in DECOMPOSING else 0), a.device),
    )


def _lstsq_ref(a: np.ndarray, b: np.ndarray, rcond: float, driver: str) -> tuple[np.ndarray, ...]:
    import scipy.linalg

    solution, rank, values = (
        np.zeros(t.shape, t.dtype.numpy) for t in _lstsq_infer(_type(a), _type(b), rcond, driver)
    )
    if not a.size or not b.size:
        return solution, rank, values
    solve = scipy.linalg.lstsq
    if driver == "gels":
        (gels,) = scipy.linalg.get_lapack_funcs(("gels",), (a, b))
        columns = a.shape[-1]

        def solved(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
            taller = np.zeros((max(a.shape), b.shape[1]), b.dtype)
            taller[: len(b)] = b
            _, x, info = gels(a, taller)
            if info:
                raise LinAlgError("graphc.linalg.lstsq: The least squares solution could not be computed because the input "
                                  f"matrix does not have full rank (error code: {info}).",
                                  hint="use the driver 'gelsd', or 'gelsy'")
            return (x[:columns],)

        each_matrix(solved, (a, b), (solution,))
    elif driver == "gelsy":

        def pivoted(a: np.ndarray, b: np.ndarray) -> tuple[Any, ...]:
            x, _, found, _ = solve(a, b, rcond, check_finite=False, lapack_driver=driver)
            return x, found

        each_matrix(pivoted, (a, b), (solution, rank))
    else:

        def decomposed(a: np.ndarray, b: np.ndarray) -> tuple[Any, ...]:
            x, _, found, singular = iterated("linalg.lstsq", solve, a, b, rcond, check_finite=False, lapack_driver=driver)
            return x, found, singular

        each_matrix(decomposed, (a, b), (solution, rank, values))
    return solution, rank, values


def _type(array: np.ndarray) -> TensorType:
    return TensorType(dtype_of(array.dtype), array.shape)


def _lstsq_a_vjp(ct: Any, a: Any, b: Any, rcond: float, driver: str) -> Any:
    by_solution = None if ct[0] is None else pinv_slope(matmul(ct[0], adjoint(b)), a, _inverse(a, rcond))
    return total([by_solution, None if ct[2] is None or driver not in DECOMPOSING else svdvals_slope(ct[2], a)])


def _lstsq_b_vjp(ct: Any, a: Any, rcond: float) -> Any:
    return None if ct[0] is None else matmul(adjoint(_inverse(a, rcond)), ct[0])


def _inverse(a: Any, rcond: float) -> Any:
    tolerance = TensorType(a.dtype.to_real(), a.shape[:-2])
    return pinv(a, full(tolerance, 0.0, a), full(tolerance, rcond, a), hermitian=False)


lstsq = op("lstsq", "a b", "rcond driver", infer=_lstsq_infer, ref=_lstsq_ref, **LAPACK, vjp=(_lstsq_a_vjp, _lstsq_b_vjp),
           samples=tuple(Sample((TensorType(float32, shape), TensorType(float32, (shape[0], 2))),
                                {"rcond": 1e-6, "driver": driver})
                         for driver, shape in (("gels", (5, 3)), ("gelsy", (3, 5)), ("gelsd", (4, 4)), ("gelss", (4, 2)))))
"""The X that makes |A X - B| least, and of those the least one; the rank of A (zero for "gels", which takes full rank for
granted), and its singular values (none but for "gelsd" and "gelss"). Singular values below rcond times the largest one
count as zero. The derivatives are those of pinv(A) B."""
