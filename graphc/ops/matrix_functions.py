"""Inverses, determinants and the exponential of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.op import Sample, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import full, zeros_like
from graphc.ops.cumulative import cumprod
from graphc.ops.eigen import iterated, svd
from graphc.ops.elementwise import cast, where
from graphc.ops.linalg import adjoint, matmul, transpose_last
from graphc.ops.matrices import LAPACK, as_column, as_row, each_matrix, failure, need_matrices, need_square, on_diagonal, part
from graphc.ops.movement import broadcast_to, concat, flip
from graphc.ops.reduce import sum
from graphc.types import TensorType, float32, float64, int32

_square = TensorType(float32, (4, 4))
_batch = TensorType(float64, (2, 3, 3))


def _numbers(x: TensorType) -> TensorType:
    """A number for each matrix."""
    return x.with_shape(x.shape[:-2])


def _over(number: Any) -> Any:
    """A number for each matrix, to be multiplied by the matrices."""
    return as_column(as_column(number))


# Inverse

_FROM_FACTORS = 48
"""Matrices of so many rows are inverted from their factors by SciPy, in half of NumPy's time; for smaller ones it is not
worth the 0.2 s that the first import of SciPy takes."""
_BLOCK = 64
"""Columns that LAPACK takes at a time, where it is given the memory."""


def _inv_infer(x: TensorType, check: bool) -> tuple[TensorType, TensorType]:
    need_square("inv", x)
    return x, TensorType(int32, x.shape[:-2], x.device)


def _inv_ref(x: np.ndarray, check: bool) -> tuple[np.ndarray, np.ndarray]:
    info = np.zeros(x.shape[:-2], np.int32)
    if not x.size or x.shape[-1] < _FROM_FACTORS:
        try:
            return np.linalg.inv(x), info
        except np.linalg.LinAlgError:
            pass
    from scipy.linalg.lapack import get_lapack_funcs

    getrf, getri, getrs = get_lapack_funcs(("getrf", "getri", "getrs"), (x,))

    def inverted(a: np.ndarray) -> tuple[np.ndarray, int]:
        lu, pivots, code = getrf(a)
        if not code:
            return getri(lu, pivots, lwork=_BLOCK * len(a), overwrite_lu=True)[0], code
        return getrs(lu, pivots, np.eye(len(a), dtype=a.dtype))[0], code

    out = np.empty_like(x)
    each_matrix(inverted, (x,), (out, info))
    if check and info.any():
        raise failure("linalg.inv", info, "The diagonal element {info} is zero, the inversion could not be completed because "
                                          "the input matrix is singular.")
    return out, info


def _inv_vjp(ct: Any, out: Any) -> Any:
    if ct[0] is None:
        return None
    turned = adjoint(out[0])
    return -matmul(matmul(turned, ct[0]), turned)


inv = op("inv", "x", "check", infer=_inv_infer, ref=_inv_ref, vjp=_inv_vjp, **LAPACK,
         samples=(Sample((_square,), {"check": True}), Sample((_batch,), {"check": False})))
"""The inverses, and LAPACK's error codes; with `check` a singular matrix is a LinAlgError, without it the result is not
finite. The derivative is Giles's (2008, "An extended collection of matrix derivative results")."""

# Pseudoinverse


def _pinv_infer(x: TensorType, atol: TensorType, rtol: TensorType, hermitian: bool) -> TensorType:
    (need_square if hermitian else need_matrices)("pinv", x)
    for tolerance in (atol, rtol):
        if tolerance.shape != x.shape[:-2] or tolerance.dtype is not x.dtype.to_real():
            raise ShapeError("pinv: a tolerance is not a number for each matrix",
                             expected=f"{x.dtype.to_real().name}{list(x.shape[:-2])}", got=str(tolerance))
    return x.with_shape((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _pinv_ref(x: np.ndarray, atol: np.ndarray, rtol: np.ndarray, hermitian: bool) -> np.ndarray:
    if hermitian:
        values, right = iterated("linalg.pinv", np.linalg.eigh, x)
        left = right
    else:
        left, values, right = iterated("linalg.pinv", np.linalg.svd, x, full_matrices=False)
        right = right.conj().swapaxes(-1, -2)
    if not values.size:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    sizes = np.abs(values)
    counts = sizes > np.maximum(atol, rtol * sizes.max(-1))[..., None]
    inverse = np.where(counts, 1 / np.where(counts, values, 1), 0)
    return (right * inverse[..., None, :]) @ left.conj().swapaxes(-1, -2)


def pinv_slope(ct: Any, x: Any, inverse: Any) -> Any:
    """The cotangent of x, given that of its pseudoinverse (Golub and Pereyra 1973, "The differentiation of pseudo-inverses
    and nonlinear least squares problems whose variables separate"): exact as long as the rank stays what it is."""
    turned, given = adjoint(inverse), adjoint(ct)
    left = given - matmul(x, matmul(inverse, given))
    right = given - matmul(matmul(given, inverse), x)
    return (matmul(matmul(left, inverse), turned) + matmul(matmul(turned, inverse), right)
            - matmul(matmul(turned, ct), turned))


_tolerance, _tolerances = (np.zeros(shape, np.float32) for shape in ((), 2))
pinv = op("pinv", "x atol rtol", "hermitian", infer=_pinv_infer, ref=_pinv_ref, **LAPACK,
          vjp=(lambda ct, x, out: pinv_slope(ct, x, out), lambda ct, atol: zeros_like(atol), lambda ct, rtol: zeros_like(rtol)),
          samples=(Sample((TensorType(float32, (5, 3)), _tolerance, _tolerance), {"hermitian": False}),
                   Sample((TensorType(float32, (2, 3, 4)), _tolerances, _tolerances), {"hermitian": False}),
                   Sample((_square, _tolerance, _tolerance), {"hermitian": True}, hermitian=True)))
"""The pseudoinverse of Moore and Penrose. Singular values of atol or less, or of rtol times the largest or less, count as
zero; the tolerances are numbers for each matrix. A Hermitian x is read in its lower triangle."""

# Determinants


def _det_infer(x: TensorType) -> TensorType:
    need_square("det", x)
    return _numbers(x)


det = op("det", "x", infer=_det_infer, ref=lambda x: np.linalg.det(x)[...], **LAPACK,
         vjp=lambda ct, x: _over(ct) * conjugate(cofactor(x)),
         samples=(Sample((_square,)), Sample((_batch,)), Sample((np.array([[1, 2], [2, 4]], np.float32),))))
"""The determinants. The derivative is the matrix of cofactors, so it is exact for singular matrices too."""


_rank_two = np.array([[1, 2, 3], [2, 4, 6], [1, 0, 1]], np.float32)


def _cofactor_infer(x: TensorType) -> TensorType:
    need_square("cofactor", x)
    return x


def _cofactor_ref(x: np.ndarray) -> np.ndarray:
    left, values, right = iterated("linalg.det", np.linalg.svd, x)
    ones = np.ones_like(values[..., :1])
    before = np.concatenate([ones, np.cumprod(values[..., :-1], -1)], -1)[..., : values.shape[-1]]
    after = np.concatenate([np.cumprod(values[..., :0:-1], -1)[..., ::-1], ones], -1)[..., -values.shape[-1] or 1 :]
    turn = np.linalg.det(left) * np.linalg.det(right)
    return turn[..., None, None] * ((left.conj() * (before * after)[..., None, :]) @ right.conj())


def _cofactor_vjp(ct: Any, x: Any) -> Any:
    """With A = U S V^H, dA = U E V^H and P_ij the product of the singular values but s_i and s_j, the cofactors of S + E
    change by sum_j P_ij E_jj on the diagonal and by -P_ij E_ji beside it. Of singular matrices too."""
    left, values, right = svd(x, full=True)
    turn = conjugate(_over(det(left) * det(right)))
    given = turn * matmul(matmul(transpose_last(left), ct), transpose_last(right))
    products = _cast_like(_products_but_two(values), given)
    diagonal = on_diagonal(given)
    traces = matmul(products, as_column(sum(where(diagonal, given, 0.0), (len(x.shape) - 1,))))
    inner = where(diagonal, traces, 0.0) - products * transpose_last(given)
    return matmul(matmul(left, inner), right)


def _cast_like(x: Any, like: Any) -> Any:
    return x if x.dtype is like.dtype else cast(x, like.dtype)


def _products_but_two(values: Any) -> Any:
    """For each i and j the product of all values but those two; zero where i is j."""
    n, axis = values.shape[-1], len(values.shape)
    square = broadcast_to(as_row(values), (*values.shape, n))
    others = where(on_diagonal(square), 1.0, square)
    edge = full(TensorType(values.dtype, (*values.shape, 1)), 1.0, values)
    before = cumprod(part(concat(edge, others, axis=axis), (0, n), (0, n)), axis=axis)
    turned = flip(others, axes=(axis,))
    after = flip(cumprod(part(concat(edge, turned, axis=axis), (0, n), (0, n)), axis=axis), axes=(axis,))
    return where(on_diagonal(square), 0.0, before * after)


cofactor = op("cofactor", "x", infer=_cofactor_infer, ref=_cofactor_ref, vjp=_cofactor_vjp, **LAPACK,
              samples=(Sample((_square,)), Sample((_batch,)), Sample((_rank_two,))))
"""The cofactors, det(A) A^-T, of singular matrices too: with A = U S V^H they are det(U V^H) times those of S between the
conjugates of U and V^H, and a cofactor of S is the product of the other singular values (Stewart 1998, "On the adjugate
matrix")."""


def _slogdet_infer(x: TensorType) -> tuple[TensorType, TensorType]:
    need_square("slogdet", x)
    return _numbers(x), _numbers(x).with_dtype(x.dtype.to_real())


def _slogdet_ref(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign, logarithm = np.linalg.slogdet(x)
    return sign[...], logarithm[...]


def _slogdet_vjp(ct: Any, x: Any, out: Any) -> Any:
    """(g + i Im(G_s conj(s))) A^-H, from d log det A = tr(A^-1 dA), whose real part is that of the logarithm and whose
    imaginary part turns the sign."""
    by_sign, by_logarithm = ct
    factor = by_logarithm
    if by_sign is not None and x.dtype.is_complex:
        turned = by_sign * conjugate(out[0])
        turned = (turned - conjugate(turned)) * 0.5
        factor = turned if factor is None else turned + factor
    return zeros_like(x) if factor is None else _over(factor) * adjoint(inv(x, check=False)[0])


slogdet = op("slogdet", "x", infer=_slogdet_infer, ref=_slogdet_ref, vjp=_slogdet_vjp, **LAPACK,
             samples=(Sample((_square,)), Sample((_batch,))))
"""The sign of the determinants (of complex matrices a number of absolute value 1), and the logarithm of their absolute
values."""

# Exponential


def _exp_infer(x: TensorType) -> TensorType:
    need_square("matrix_exp", x)
    return x


def _exp_ref(x: np.ndarray) -> np.ndarray:
    import scipy.linalg

    return scipy.linalg.expm(x).astype(x.dtype, copy=False) if x.size else x.copy()


def _exp_vjp(ct: Any, x: Any) -> Any:
    """The upper right block of exp([A^H G; 0 A^H]) (Mathias 1996, "A chain rule for matrix functions and applications")."""
    n, axis = x.shape[-1], len(x.shape) - 2
    turned = adjoint(x)
    block = concat(concat(turned, ct, axis=axis + 1), concat(zeros_like(turned), turned, axis=axis + 1), axis=axis)
    return part(matrix_exp(block), (0, n), (n, 2 * n))


matrix_exp = op("matrix_exp", "x", infer=_exp_infer, ref=_exp_ref, vjp=_exp_vjp, **LAPACK,
                samples=(Sample((_square,)), Sample((_batch,))))
"""The matrix exponential, by scaling and squaring."""
