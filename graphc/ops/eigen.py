"""Eigenvalues and singular values, which LAPACK computes through NumPy: of one matrix, or of each in a batch.

In the derivatives a superscript H is the conjugate transpose. They are not finite where two of the values are equal, as
the vectors have no derivative there; those of the values alone are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import LinAlgError
from graphc.op import Sample, op
from graphc.ops.complex_numbers import conjugate, real
from graphc.ops.elementwise import cast, where
from graphc.ops.linalg import adjoint, matmul
from graphc.ops.matrices import LAPACK, as_column, as_row, lesser, need_matrices, need_square, on_diagonal, part, total
from graphc.ops.movement import broadcast_to
from graphc.ops.systems import solve
from graphc.types import DType, Size, TensorType, float32, float64

_square = TensorType(float32, (4, 4))
_batch = TensorType(float64, (2, 3, 3))


def iterated(name: str, function: Callable[..., Any], x: np.ndarray, *args: Any, **kwargs: Any) -> Any:
    """Call one of the iterative factorisations of NumPy or SciPy."""
    failed = f"{name}: The algorithm failed to converge because the input matrix"
    if not np.isfinite(x).all():  # of these LAPACK's iterations may never end
        raise LinAlgError(f"{failed} contained non-finite values.")
    try:
        return function(x, *args, **kwargs)
    except np.linalg.LinAlgError:
        raise LinAlgError(f"{failed} is ill-conditioned or has too many repeated eigenvalues.") from None


def _values(x: TensorType, size: Size) -> TensorType:
    """A real number for each of `size` vectors of a matrix."""
    return TensorType(x.dtype.to_real(), (*x.shape[:-2], size), x.device)


def _as(x: Any, dtype: DType) -> Any:
    return x if x.dtype is dtype else cast(x, dtype)


def _skew(x: Any) -> Any:
    return x - adjoint(x)


def _over_gaps(x: Any, gaps: Any) -> Any:
    """x divided by the gaps between values, and zero on the diagonal, where there is none."""
    same = on_diagonal(x)
    return where(same, 0.0, x / where(same, 1.0, gaps))


def _diagonal(v: Any) -> Any:
    """Matrices with vectors on the diagonal."""
    n = v.shape[-1]
    square = broadcast_to(as_row(v), (*v.shape[:-1], n, n))
    return where(on_diagonal(square), square, 0.0)


# Hermitian matrices: A = V diag(w) V^H


def _eigh_infer(x: TensorType, upper: bool) -> tuple[TensorType, TensorType]:
    need_square("eigh", x)
    return _values(x, x.shape[-1]), x


def _eigh_ref(x: np.ndarray, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = iterated("linalg.eigh", np.linalg.eigh, x, "U" if upper else "L")
    return values, vectors


def _eigh_vjp(ct: Any, out: Any) -> Any:
    """V (diag(g) + (V^H G - G^H V) / 2(w_j - w_i)) V^H (Giles 2008, "An extended collection of matrix derivative
    results"), which is Hermitian."""
    (by_values, by_vectors), (values, vectors) = ct, out
    terms = []
    if by_vectors is not None:
        inner = _skew(matmul(adjoint(vectors), by_vectors)) * 0.5
        terms.append(_over_gaps(inner, as_row(values) - as_column(values)))
    if by_values is not None:
        terms.append(_as(_diagonal(by_values), vectors.dtype))
    return matmul(matmul(vectors, total(terms)), adjoint(vectors)) if terms else None


eigh = op("eigh", "x", "upper", infer=_eigh_infer, ref=_eigh_ref, vjp=_eigh_vjp, **LAPACK,
          samples=(Sample((_square,), {"upper": False}, hermitian=True), Sample((_batch,), {"upper": True}, hermitian=True)))
"""The eigenvalues of Hermitian matrices in ascending order, and their eigenvectors as columns. Only the lower (upper)
triangle is read."""


def _eigvalsh_infer(x: TensorType, upper: bool) -> TensorType:
    return _eigh_infer(x, upper)[0]


def _eigvalsh_ref(x: np.ndarray, upper: bool) -> np.ndarray:
    return iterated("linalg.eigh", np.linalg.eigvalsh, x, "U" if upper else "L")


def _eigvalsh_vjp(ct: Any, x: Any, upper: bool) -> Any:
    vectors = eigh(x, upper=upper)[1]
    return matmul(vectors * _as(as_row(ct), vectors.dtype), adjoint(vectors))


eigvalsh = op("eigvalsh", "x", "upper", infer=_eigvalsh_infer, ref=_eigvalsh_ref, vjp=_eigvalsh_vjp, **LAPACK,
              samples=(Sample((_square,), {"upper": False}, hermitian=True),
                       Sample((_batch,), {"upper": True}, hermitian=True)))
"""`eigh` without the vectors, which takes a fraction of the time."""

# All matrices: A V = V diag(w)


_apart = np.diag(np.array([1, 3, -2, 6], np.float32)) + np.float32(0.3)
"""A sample with real eigenvalues: vectors of complex ones can be turned by any angle, which finite differences see."""


def _eig_infer(x: TensorType) -> tuple[TensorType, TensorType]:
    need_square("eig", x)
    dtype = x.dtype.to_complex()
    return TensorType(dtype, x.shape[:-1], x.device), x.with_dtype(dtype)


def _eig_ref(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = iterated("linalg.eig", np.linalg.eig, x)
    dtype = np.result_type(x.dtype, np.complex64)
    return values.astype(dtype, copy=False), vectors.astype(dtype, copy=False)


def _eig_vjp(ct: Any, x_type: TensorType, out: Any) -> Any:
    """V^-H (diag(g) + (V^H G - V^H V Re diag(V^H G)) / conj(w_j - w_i)) V^H (Boeddeker et al. 2019, "On the computation of
    complex-valued gradients with application to statistically optimum beamforming"), for vectors of length 1."""
    (by_values, by_vectors), (values, vectors) = ct, out
    turned = adjoint(vectors)
    terms = []
    if by_vectors is not None:
        inner = matmul(turned, by_vectors)
        lengths = where(on_diagonal(inner), (inner + conjugate(inner)) * 0.5, 0.0)
        inner = inner - matmul(matmul(turned, vectors), lengths)
        terms.append(_over_gaps(inner, conjugate(as_row(values) - as_column(values))))
    if by_values is not None:
        terms.append(_diagonal(by_values))
    if not terms:
        return None
    made = solve(turned, matmul(total(terms), turned), check=False)[0]
    return made if x_type.dtype.is_complex else real(made)


eig = op("eig", "x", infer=_eig_infer, ref=_eig_ref, vjp=_eig_vjp, **LAPACK, samples=(Sample((_apart,)),))
"""The eigenvalues, and the eigenvectors as columns of length 1; both complex."""


def _eigvals_ref(x: np.ndarray) -> np.ndarray:
    return iterated("linalg.eigvals", np.linalg.eigvals, x).astype(np.result_type(x.dtype, np.complex64), copy=False)


def _eigvals_vjp(ct: Any, x: Any) -> Any:
    turned = adjoint(eig(x)[1])
    made = solve(turned, as_column(ct) * turned, check=False)[0]
    return made if x.dtype.is_complex else real(made)


eigvals = op("eigvals", "x", infer=lambda x: _eig_infer(x)[0], ref=_eigvals_ref, vjp=_eigvals_vjp, **LAPACK,
             samples=(Sample((_square,)),))
"""`eig` without the vectors."""

# Singular values: A = U diag(s) V^H


def _svd_infer(x: TensorType, full: bool) -> tuple[TensorType, ...]:
    need_matrices("svd", x)
    rows, columns = x.shape[-2:]
    size = lesser(x)
    left, right = (rows, columns) if full else (size, size)
    return x.with_shape((*x.shape[:-1], left)), _values(x, size), x.with_shape((*x.shape[:-2], right, columns))


def _svd_ref(x: np.ndarray, full: bool) -> tuple[np.ndarray, ...]:
    left, values, right = iterated("linalg.svd", np.linalg.svd, x, full_matrices=full)
    return left, values, right


def _svd_vjp(ct: Any, x_type: TensorType, out: Any) -> Any:
    """U ((U^H G_U - G_U^H U) / E S + S (V^H G_V - G_V^H V) / E + diag(g)) V^H with E = s_j^2 - s_i^2, and what lies outside
    the spaces that U and V span (Townsend 2016, "Differentiating the singular value decomposition"; Wan and Zhang 2019,
    "Automatic differentiation for complex valued SVD", for the diagonal of complex matrices). The vectors that full
    matrices add have no derivative."""
    (by_left, by_values, by_right), (left, values, right) = ct, out
    (rows, columns), size = x_type.shape[-2:], values.shape[-1]
    left, right = part(left, (0, rows), (0, size)), part(right, (0, size), (0, columns))
    low, high = _as(as_row(values), left.dtype), _as(as_column(values), left.dtype)
    gaps = (low - high) * (low + high)
    inside, outside = [], []
    if by_left is not None:
        by_left = part(by_left, (0, rows), (0, size))
        product = matmul(adjoint(left), by_left)
        inside.append(_over_gaps(_skew(product), gaps) * low)
        if left.dtype.is_complex:
            inside.append(where(on_diagonal(product), _skew(product) * 0.5, 0.0) / low)
        if rows != size:
            scaled = by_left / low
            outside.append(matmul(scaled - matmul(left, matmul(adjoint(left), scaled)), right))
    if by_right is not None:
        by_right = part(by_right, (0, size), (0, columns))
        product = matmul(right, adjoint(by_right))
        inside.append(_over_gaps(_skew(product), gaps) * high)
        if columns != size:
            scaled = by_right / high
            outside.append(matmul(left, scaled - matmul(matmul(scaled, adjoint(right)), right)))
    if by_values is not None:
        inside.append(_as(_diagonal(by_values), left.dtype))
    if not inside:
        return None
    return total([matmul(matmul(left, total(inside)), right), *outside])


svd = op("svd", "x", "full", infer=_svd_infer, ref=_svd_ref, vjp=_svd_vjp, **LAPACK,
         samples=(Sample((_square,), {"full": True}), Sample((_batch,), {"full": False}),
                  Sample((TensorType(float32, (5, 3)),), {"full": False}),
                  Sample((TensorType(float32, (3, 5)),), {"full": False})))
"""U, the singular values in descending order, and V^H. U and V are square if `full`, else they have min(m, n) columns."""


def _svdvals_infer(x: TensorType) -> TensorType:
    return _svd_infer(x, False)[1]


def svdvals_slope(ct: Any, x: Any) -> Any:
    """The cotangent of x, given that of its singular values: U diag(g) V^H."""
    left, _, right = svd(x, full=False)
    return matmul(left * _as(as_row(ct), left.dtype), right)


svdvals = op("svdvals", "x", infer=_svdvals_infer, vjp=svdvals_slope, **LAPACK,
             ref=lambda x: iterated("linalg.svd", np.linalg.svd, x, compute_uv=False),
             samples=(Sample((_square,)), Sample((TensorType(float32, (2, 3, 5)),))))
"""`svd` without the vectors."""
