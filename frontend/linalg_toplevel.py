"""Functions on matrices by their older names, outside of `linalg`, which take their arguments a little differently."""

from __future__ import annotations

from typing import Any, NoReturn

from graphc import ops
from graphc.errors import GraphcError, ShapeError
from graphc.frontend import linalg_factors, linalg_products, linalg_solvers, return_types
from graphc.frontend.arguments import emit, need_tensor
from graphc.frontend.creation import zeros
from graphc.frontend.linalg_checks import need_matrices, need_numbers, need_square, one_batch, one_dtype, squares
from graphc.frontend.linalg_factors import geqrf, lu_unpack
from graphc.frontend.linalg_products import det, logdet, matrix_exp, matrix_power
from graphc.frontend.linalg_solvers import solve_triangular
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye

FUNCTIONS = """
    chain_matmul cholesky cholesky_inverse cholesky_solve det eig geqrf inverse logdet lstsq lu lu_solve lu_unpack
    matrix_exp matrix_power matrix_rank orgqr ormqr pinverse qr slogdet solve svd symeig triangular_solve
"""
METHODS = """
    cholesky cholesky_inverse cholesky_solve det eig geqrf inverse logdet lstsq lu lu_solve matrix_exp matrix_power orgqr
    ormqr pinverse qr slogdet solve svd symeig triangular_solve
"""

__all__ = ["det", "geqrf", "logdet", "lu_unpack", "matrix_exp", "matrix_power"]  # public as they are


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """`linalg.cholesky`.

    ShapeError for what are no square matrices, LinAlgError for those that are not positive definite.

    >>> graphc.cholesky(graphc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    return linalg_factors.cholesky(input, upper=upper)


def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    """X with A X = input, of the Cholesky factor of A: L = input2 with L L^H = A, or U with U^H U = A if `upper`. `input` is
    [..., n, k], `input2` is [..., n, n].

    ShapeError for less than two dimensions, and where the sizes do not fit.

    >>> graphc.cholesky_solve(graphc.tensor([[4.0]]), graphc.tensor([[2.0]]))
    tensor([[1.]])
    """
    name = "cholesky_solve"
    for x, what in ((input, "b"), (input2, "u")):
        need_tensor(x, name, what)
        if x.ndim < 2:
            raise ShapeError(f"{what} should have at least 2 dimensions, but has {x.ndim} dimensions instead")
    need_square(input2, name)
    one_dtype(input, input2, name, ("b", "A"))
    need_numbers(input, name)
    if input._data.shape[-2] != input2._data.shape[-1]:
        raise ShapeError(f"Incompatible matrix sizes for {name}: each A matrix is {input2.shape[-1]} by {input2.shape[-1]} but "
                         f"each b matrix is {input.shape[-2]} by {input.shape[-1]}")
    return emit(ops.cholesky_solve, one_batch(input2, input), {"upper": upper})


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, of its Cholesky factor: L with L L^H = A, or U with U^H U = A if `upper`. L is [..., n, n].

    ShapeError for what are no square matrices.

    >>> graphc.cholesky_inverse(graphc.tensor([[2.0]]))
    tensor([[0.2500]])
    """
    size = squares(input, "cholesky_inverse")._data.shape[-1]
    return named(cholesky_solve(eye(size, dtype=input.dtype), input, upper), "CholeskyInverse")


def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False) -> Any:
    """X with A X = input (A^T X = input if `transpose`) for triangular matrices A, and a copy of A. `input` is [..., n, k], A
    is [..., n, n].

    ShapeError for less than two dimensions, and where the sizes do not fit.

    >>> graphc.triangular_solve(graphc.tensor([[4.0]]), graphc.tensor([[2.0]])).solution
    tensor([[2.]])
    """
    name = "triangular_solve"
    need_matrices(input, name, "b")
    need_square(A, name)
    if input._data.shape[-2] != A._data.shape[-1]:
        raise ShapeError(f"Incompatible matrix sizes for triangular_solve: each A matrix is {A.shape[-1]} by {A.shape[-1]} but "
                         f"each b matrix is {input.shape[-2]} by {input.shape[-1]}")
    A, b = one_batch(A, input)
    turned, above = (ops.transpose_last(A), not upper) if transpose else (A, upper)
    return return_types.triangular_solve(solve_triangular(turned, b, upper=above, unitriangular=unitriangular), A.clone())


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """L and U in one matrix, as `linalg.lu_factor` returns them, the pivots, and with `get_infos` LAPACK's error codes.

    ShapeError for less than two dimensions, LinAlgError for singular matrices.

    >>> LU, pivots = graphc.lu(graphc.tensor([[1.0, 2.0], [2.0, 8.0]]))
    >>> pivots
    tensor([2, 2], dtype=graphc.int32)
    """
    factors, pivots, info = linalg_factors.lu_factor_ex(A, pivot=pivot, check_errors=not get_infos)
    return (factors, pivots, info) if get_infos else (factors, pivots)


def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = input, of what `lu` has made of A.

    GraphcError for pivots that are not of int32, ShapeError where the shapes do not fit.

    >>> LU, pivots = graphc.lu(graphc.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> graphc.lu_solve(graphc.tensor([[2.0], [2.0]]), LU, pivots)
    tensor([[1.0000],
            [0.5000]])
    """
    return linalg_solvers.lu_solve(LU_data, LU_pivots, input)


def qr(input: Tensor, some: bool = True) -> Any:
    """`linalg.qr`; with some=False in the mode "complete".

    ShapeError for less than two dimensions.

    >>> Q, R = graphc.qr(graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> graphc.allclose(Q @ R, graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    True
    """
    return return_types.qr(*linalg_factors.qr(input, "reduced" if some else "complete"))


def orgqr(input: Tensor, input2: Tensor) -> Tensor:
    """`linalg.householder_product`; `input2` is tau.

    ShapeError where the shapes do not fit.

    >>> a, tau = graphc.geqrf(graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> Q = graphc.orgqr(a, tau)
    >>> graphc.allclose(Q.T @ Q, graphc.eye(2), atol=1e-6)
    True
    """
    return linalg_factors.householder_product(input, input2)


def ormqr(input: Tensor, input2: Tensor, input3: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """The product of the reflections of `linalg.householder_product(input, input2)`, all m columns of it, with a matrix.

    Q @ input3, input3 @ Q if not `left`, and with Q^H in Q's place if `transpose`.

    ShapeError where the shapes do not fit.

    >>> a, tau = graphc.geqrf(graphc.tensor([[3.0, 1.0], [4.0, 2.0]]))
    >>> Q = graphc.ormqr(a, tau, graphc.eye(2))
    >>> graphc.allclose(Q.T @ Q, graphc.eye(2), atol=1e-6)
    True
    """
    return linalg_factors.ormqr(input, input2, input3, left, transpose)


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """`linalg.svd` with V in place of V^H: input = U diag(S) V^H. With compute_uv=False U and V are zeros.

    ShapeError for less than two dimensions.

    >>> U, S, V = graphc.svd(graphc.tensor([[3.0, 0.0], [0.0, -2.0]]))
    >>> S
    tensor([3., 2.])
    """
    if not compute_uv:
        rows, columns = need_matrices(input, "linalg.svd")._data.shape[-2:]
        batch = tuple(input._data.shape[:-2])
        U, V = (zeros((*batch, n, n), dtype=input.dtype) for n in (rows, columns))
        return return_types.svd(U, linalg_factors.svdvals(input), V)
    U, S, Vh = linalg_factors.svd(input, full_matrices=not some)
    return return_types.svd(U, S, ops.adjoint(Vh))


def slogdet(input: Tensor) -> Any:
    """`linalg.slogdet`.

    ShapeError for what are no square matrices.

    >>> sign, logarithm = graphc.slogdet(graphc.tensor([[0.0, 2.0], [2.0, 0.0]]))
    >>> sign, logarithm
    (tensor(-1.), tensor(1.3863))
    """
    return return_types.slogdet(*linalg_products.slogdet(input))


def inverse(input: Tensor) -> Tensor:
    """`linalg.inv`.

    ShapeError for what are no square matrices.

    >>> graphc.inverse(graphc.tensor([[2.0]]))
    tensor([[0.5000]])
    """
    return linalg_solvers.inv(input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv`.

    GraphcError for less than two dimensions.

    >>> graphc.pinverse(graphc.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    return linalg_solvers.pinv(input, rcond)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """`linalg.multi_dot` of matrices given one by one.

    ShapeError for what is no matrix, and where the sizes do not fit.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     graphc.chain_matmul(graphc.ones(2, 3), graphc.ones(3, 4), graphc.ones(4, 1)).shape
    graphc.Size([2, 1])
    """
    given = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else matrices
    for x in given:
        if need_tensor(x, "chain_matmul").ndim != 2:
            raise ShapeError(f"chain_matmul: Tensor dimension is {x.ndim}, expected 2 instead")
    return given[0] if len(given) == 1 else linalg_products.multi_dot(given)


# What PyTorch took away in favour of functions in `linalg`


def _removed(name: str, instead: str) -> NoReturn:
    raise GraphcError(f"{name}: This function was deprecated since version 1.9 and is now removed, in PyTorch as here",
                      hint=f"use graphc.linalg.{instead}")


def eig(input: Tensor, eigenvectors: bool = False) -> NoReturn:
    """Removed: `linalg.eig` is what to use."""
    _removed("eig", "eig")


def symeig(input: Tensor, eigenvectors: bool = False, upper: bool = True) -> NoReturn:
    """Removed: `linalg.eigh` is what to use."""
    _removed("symeig", "eigh")


def solve(input: Tensor, A: Tensor) -> NoReturn:
    """Removed: `linalg.solve`, which takes A first, is what to use."""
    _removed("solve", "solve")


def lstsq(input: Tensor, A: Tensor) -> NoReturn:
    """Removed: `linalg.lstsq`, which takes A first, is what to use."""
    _removed("lstsq", "lstsq")


def matrix_rank(input: Tensor, tol: float | None = None, symmetric: bool = False) -> NoReturn:
    """Removed: `linalg.matrix_rank` is what to use."""
    _removed("matrix_rank", "matrix_rank")
