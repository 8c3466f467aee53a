"""Factorisations of matrices."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import emit, need_tensor, scalar_type
from graphc.frontend.autocast import full_precision
from graphc.frontend.creation import zeros
from graphc.frontend.linalg_checks import matrices, need_matrices, several, squares
from graphc.frontend.matrices import matmul
from graphc.frontend.movement import narrow, unsqueeze
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye

# Cholesky


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """`cholesky`, and for each matrix an error code: 0, or the order of the first minor that is not positive. The codes are
    int32 [...].

    ShapeError for what are no matrices, DTypeError for integers.

    >>> L, info = graphc.linalg.cholesky_ex(graphc.tensor([[-1.0]]))
    >>> info
    tensor(1, dtype=graphc.int32)
    """
    made = several(ops.cholesky, (squares(A, "linalg.cholesky"),), {"upper": upper, "check": check_errors}, "LinalgCholeskyEx")
    return return_types.linalg_cholesky_ex(*made)


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangle L with L L^H = A, for Hermitian positive-definite matrices; with `upper` L^H.

    Only the lower (upper) triangle of A is read. LinAlgError where a matrix is not positive definite.

    >>> graphc.linalg.cholesky(graphc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    return cholesky_ex(A, upper=upper, check_errors=True)[0]


# LU


def _need_pivot(pivot: bool, name: str) -> None:
    if not pivot:
        raise GraphcError(f"{name}: LU without pivoting is not implemented on the CPU", hint="leave out pivot=False")


def _lu(A: Any, name: str, check: bool) -> tuple[Tensor, ...]:
    need_tensor(A, name, "A")
    if A.ndim < 2:
        raise ShapeError(f"{name}: Expected tensor with 2 or more dimensions. Got size: {list(A.shape)} instead")
    return several(ops.lu_factor, (matrices(A, name),), {"check": check}, "LinalgLuFactorEx")


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """`lu_factor`, and for each matrix an error code: 0, or which diagonal element of U is the first zero. The codes are int32
    [...].

    ShapeError for less than two dimensions, GraphcError for pivot=False, DTypeError for integers.

    >>> LU, pivots, info = graphc.linalg.lu_factor_ex(graphc.zeros(2, 2))
    >>> info
    tensor(1, dtype=graphc.int32)
    """
    _need_pivot(pivot, "linalg.lu_factor")
    return return_types.linalg_lu_factor_ex(*_lu(A, "graphc.lu_factor", check_errors))


def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """L and U of `lu` in one matrix (the diagonal of L is one), and the pivots: row i was exchanged with pivots[i] - 1. Of A
    [..., m, n] the pivots are int32 [..., min(m, n)].

    ShapeError for what are no matrices, DTypeError for integers.

    >>> LU, pivots = graphc.linalg.lu_factor(graphc.tensor([[1.0, 2.0], [2.0, 8.0]]))
    >>> LU, pivots
    (tensor([[ 2.0000,  8.0000],
            [ 0.5000, -2.0000]]), tensor([2, 2], dtype=graphc.int32))
    """
    return return_types.linalg_lu_factor(*lu_factor_ex(A, pivot=pivot, check_errors=True)[:2])


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """P, L and U of what `lu_factor` returns.

    DTypeError for pivots that are not of int32.

    >>> A = graphc.tensor([[1.0, 2.0], [2.0, 8.0]])
    >>> P, L, U = graphc.lu_unpack(*graphc.linalg.lu_factor(A))
    >>> P @ L @ U
    tensor([[1., 2.],
            [2., 8.]])
    """
    need_matrices(LU_data, "lu_unpack", "LU_data")
    if unpack_pivots and LU_pivots.dtype.name != "int32":
        raise DTypeError("graphc.lu_unpack: LU_pivots is expected to be a contiguous tensor of graphc.int32 dtype. Note: this "
                         "function is intended to be used with the output produced by graphc.linalg.lu_factor",
                         got=scalar_type(LU_pivots.dtype))
    rows, columns = LU_data._data.shape[-2:]
    k = min(rows, columns)
    P, L, U = (zeros(0, dtype=LU_data.dtype) for _ in range(3))
    if unpack_data:
        left, top = narrow(LU_data, -1, 0, k), narrow(LU_data, -2, 0, k)
        L = named(ops.lower_triangle(left, -1) + eye(rows, k, dtype=LU_data.dtype), "LuUnpack")
        U = named(ops.upper_triangle(top), "LuUnpack")
    if unpack_pivots:
        order = emit(ops.permutation, (LU_pivots,), {"size": rows, "inverse": True})
        places = ops.iota(shape=(rows,), axis=0, dtype=order.dtype, like=order)
        P = cast(unsqueeze(order, -1) == places, LU_data.dtype)
    return return_types.lu_unpack(P, L, U)


def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """A permutation matrix P, a lower triangle L with ones on its diagonal, and an upper one U, with P L U = A.

    ShapeError for less than two dimensions, GraphcError for pivot=False, DTypeError for integers.

    >>> P, L, U = graphc.linalg.lu(graphc.tensor([[1.0, 2.0], [2.0, 8.0]]))
    >>> L, U
    (tensor([[1.0000, 0.0000],
            [0.5000, 1.0000]]), tensor([[ 2.,  8.],
            [ 0., -2.]]))
    """
    _need_pivot(pivot, "linalg.lu")
    factors, pivots, _ = _lu(A, "linalg.lu", False)
    return return_types.linalg_lu(*lu_unpack(factors, pivots))


# LDL


def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """`ldl_factor`, and for each matrix an error code: 0, or which diagonal element of D is zero. The codes are int32 [...].

    ShapeError for what are no matrices, DTypeError for integers.

    >>> LD, pivots, info = graphc.linalg.ldl_factor_ex(graphc.tensor([[2.0, 0.0], [0.0, 0.0]]))
    >>> info
    tensor(2, dtype=graphc.int32)
    """
    attrs = {"hermitian": hermitian, "check": check_errors}
    made = several(ops.ldl_factor, (squares(A, "graphc.linalg.ldl_factor_ex"),), attrs, "LinalgLdlFactorEx")
    return return_types.linalg_ldl_factor_ex(*made)


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> Any:
    """L D L^T of symmetric matrices (L D L^H of Hermitian ones) as `ldl_solve` takes it: LAPACK's packed form, and pivots. Of A
    [..., n, n] the pivots are int32 [..., n].

    The lower triangle of A is read. There is no derivative, as in PyTorch.

    ShapeError for what are no matrices, DTypeError for integers.

    >>> LD, pivots = graphc.linalg.ldl_factor(graphc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    >>> graphc.linalg.ldl_solve(LD, pivots, graphc.tensor([[8.0], [12.0]]))
    tensor([[1.],
            [2.]])
    """
    return return_types.linalg_ldl_factor(*ldl_factor_ex(A, hermitian=hermitian, check_errors=True)[:2])


# QR


def qr(A: Tensor, mode: str = "reduced") -> Any:
    """Q with orthonormal columns, and R upper triangular, with Q R = A.

    Q has min(m, n) columns, or m in the mode "complete"; in the mode "r" it is empty.

    GraphcError for another mode.

    >>> Q, R = graphc.linalg.qr(graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> graphc.allclose(Q @ R, graphc.tensor([[3.0, 1.0], [4.0, 2.0]])), graphc.allclose(Q.T @ Q, graphc.eye(2), atol=1e-6)
    (True, True)
    """
    need_matrices(A, "linalg.qr")
    if mode not in ("reduced", "complete", "r"):
        raise GraphcError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'")
    Q, R = several(ops.qr, (matrices(A, "linalg.qr"),), {"mode": mode}, "LinalgQr")
    return return_types.linalg_qr(zeros(0, dtype=A.dtype) if mode == "r" else Q, R)


def geqrf(input: Tensor) -> Any:
    """The QR factorisation as LAPACK leaves it: R, below it the Householder vectors, and their factors tau.

    `householder_product` makes Q of it. There is no derivative, as in PyTorch.

    ShapeError for what are no matrices, DTypeError for integers.

    >>> a, tau = graphc.geqrf(graphc.ones(3, 2))
    >>> a.shape, tau.shape
    (graphc.Size([3, 2]), graphc.Size([2]))
    """
    return return_types.geqrf(*several(ops.geqrf, (matrices(input, "graphc.geqrf"),), {}, "Geqrf"))


@full_precision
def _reflectors(A: Any, tau: Any, name: str) -> tuple[Tensor, Tensor]:
    """V and T with H_1 H_2 ... H_k = I - V T V^H (Puglisi 1992, "Modification of the Householder method based on the compact
    WY representation"): the columns of V are the vectors, and T^-1 is diag(1 / tau) plus what V^H V has above its diagonal."""
    need_tensor(A, name, "input")
    need_tensor(tau, name, "tau")
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    rows, columns = A._data.shape[-2:]
    if rows < columns:
        raise ShapeError(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]")
    if columns < tau._data.shape[-1]:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    if A.ndim - tau.ndim != 1:
        raise ShapeError(f"{name}: Expected tau to have one dimension less than input, but got tau.ndim equal to {tau.ndim} "
                         f"and input.ndim is equal to {A.ndim}")
    if A._data.shape[:-2] != tau._data.shape[:-1]:
        raise ShapeError(f"{name}: Expected batch dimensions of tau to be equal to input.shape[:-2], but got "
                         f"{list(tau.shape[:-1])}")
    if A.dtype is not tau.dtype:
        raise DTypeError(f"{name}: tau dtype {scalar_type(tau.dtype)} does not match input dtype {scalar_type(A.dtype)}")
    matrices(A, name)
    k = tau._data.shape[-1]
    V = ops.lower_triangle(narrow(A, -1, 0, k), -1) + eye(rows, k, dtype=A.dtype)
    scale = unsqueeze(tau, -1)
    unit = scale * ops.upper_triangle(ops.adjoint(V) @ V, 1)
    T = emit(ops.triangular_solve, (unit, scale * eye(k, dtype=A.dtype)), {"upper": True, "unit": True})
    return V, T


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of Householder reflections I - tau v v^H.

    The vectors v are what A, of shape [..., m, n], has below its diagonal, with a one there; tau is of shape [..., k].

    ShapeError for more columns than rows and where the sizes do not fit, DTypeError where the dtypes differ.

    >>> A = graphc.tensor([[3.0, 1.0], [4.0, 2.0]])
    >>> Q = graphc.linalg.householder_product(*graphc.geqrf(A))
    >>> graphc.allclose(Q.T @ Q, graphc.eye(2), atol=1e-6)
    True
    """
    V, T = _reflectors(A, tau, "graphc.linalg.householder_product")
    rows, columns = A._data.shape[-2:]
    rest = matmul(V, matmul(T, ops.adjoint(narrow(V, -2, 0, columns))))
    return named(eye(rows, columns, dtype=A.dtype) - rest, "LinalgHouseholderProduct")


def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """The product of the reflections of `householder_product`, all m columns of it, with a matrix.

    Q @ other, other @ Q if not `left`, and with Q^H in Q's place if `transpose`.

    >>> a, tau = graphc.geqrf(graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> Q = graphc.ormqr(a, tau, graphc.eye(2))
    >>> graphc.allclose(Q.T @ Q, graphc.eye(2), atol=1e-6)
    True
    """
    V, T = _reflectors(input, tau, "graphc.ormqr")
    size, wanted = other._data.shape[-2 if left else -1], input._data.shape[-2]
    if size != wanted:
        raise ShapeError(f"graphc.ormqr: other.shape[{-2 if left else -1}] must be equal to input.shape[-2]",
                         expected=str(wanted), got=str(size))
    turned = ops.adjoint(T) if transpose else T
    if left:
        return other - matmul(V, matmul(turned, matmul(ops.adjoint(V), other)))
    return other - matmul(matmul(matmul(other, V), turned), ops.adjoint(V))


# Eigenvalues


def _is_upper(UPLO: str) -> bool:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise ArgumentError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper() == "U"


def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """The eigenvalues of Hermitian matrices, ascending, and the eigenvectors as columns: A = V diag(w) V^H. A is [..., n, n],
    the eigenvalues [..., n].

    Only the lower triangle of A is read, or the upper one (UPLO="U"). The eigenvectors' gradients are not finite where
    eigenvalues are equal, and what is differentiated must not depend on the vectors' phases.

    ShapeError for what are no square matrices, LinAlgError where the iteration does not converge, ArgumentError for another
    UPLO.

    >>> values, vectors = graphc.linalg.eigh(graphc.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> values
    tensor([1., 2.])
    """
    return return_types.linalg_eigh(*several(ops.eigh, (squares(A, "linalg.eigh"),), {"upper": _is_upper(UPLO)}, "LinalgEigh"))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, ascending. A is [..., n, n], the eigenvalues [..., n].

    ShapeError for what are no square matrices, LinAlgError where the iteration does not converge, ArgumentError for another
    UPLO.

    >>> graphc.linalg.eigvalsh(graphc.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([1., 2.])
    """
    return named(emit(ops.eigvalsh, (squares(A, "linalg.eigh"),), {"upper": _is_upper(UPLO)}), "LinalgEigh")


def eig(A: Tensor) -> Any:
    """The eigenvalues of square matrices in no particular order, and the eigenvectors as columns; both complex. A is
    [..., n, n], the eigenvalues [..., n].

    >>> values, vectors = graphc.linalg.eig(graphc.tensor([[0.0, -1.0], [1.0, 0.0]]))
    >>> values.imag.sort().values
    tensor([-1.,  1.])
    """
    return return_types.linalg_eig(*several(ops.eig, (squares(A, "linalg.eig"),), {}, "LinalgEig"))


def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of square matrices in no particular order; complex. A is [..., n, n], the eigenvalues [..., n].

    ShapeError for what are no matrices, DTypeError for integers.

    >>> graphc.linalg.eigvals(graphc.tensor([[2.0]]))
    tensor([2.+0.j])
    """
    return named(emit(ops.eigvals, (squares(A, "linalg.eigvals"),), {}), "LinalgEigvals")


# Singular values


def _check_driver(driver: str | None) -> None:
    if driver is not None:
        raise GraphcError("linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend.")


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """U, the singular values in descending order, and V^H, with U diag(S) V^H = A.

    U is [..., m, m] and V^H [..., n, n], or with full_matrices=False [..., m, k] and [..., k, n], k = min(m, n). The
    vectors' gradients are not finite where singular values are equal, and what is differentiated must not depend on the
    vectors' signs or phases.

    ShapeError for less than two dimensions, LinAlgError where the iteration does not converge, GraphcError for a `driver`.

    >>> U, S, Vh = graphc.linalg.svd(graphc.tensor([[3.0, 0.0], [0.0, -2.0]]))
    >>> S
    tensor([3., 2.])
    """
    _check_driver(driver)
    return return_types.linalg_svd(*several(ops.svd, (matrices(A, "linalg.svd"),), {"full": full_matrices}, "LinalgSvd"))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values in descending order.

    ShapeError for less than two dimensions, LinAlgError where the iteration does not converge, GraphcError for a `driver`.

    >>> graphc.linalg.svdvals(graphc.tensor([[3.0, 0.0], [0.0, -2.0]]))
    tensor([3., 2.])
    """
    _check_driver(driver)
    return named(emit(ops.svdvals, (matrices(A, "linalg.svd"),), {}), "LinalgSvd")
