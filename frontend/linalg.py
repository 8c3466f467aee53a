"""Linear algebra: factorisations, solutions of linear equations, norms and products of matrices.

All functions take batches: the matrices are the last two dimensions. Those that LAPACK computes are defined on float32,
float64, complex64 and complex128; all are differentiable but for what `ldl_factor` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import LinAlgError
from graphc.frontend import diagonals, matrices
from graphc.frontend import linalg_factors as _factors
from graphc.frontend import linalg_norms as _norms
from graphc.frontend import linalg_products as _products
from graphc.frontend import linalg_solvers as _solvers
from graphc.frontend.public import public
from graphc.frontend.public import with_out as _with_out
from graphc.frontend.tensor import Tensor


def _public(function: Callable[..., Any]) -> Any:
    return public(function, f"linalg_{function.__name__}")


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices, which lie in the dimensions `dim1` and `dim2`.

    DimError for less than two dimensions.

    >>> graphc.linalg.diagonal(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1., 4.])
    """
    return diagonals.diagonal(A, offset, dim1, dim2)


cholesky = _public(_factors.cholesky)
cholesky_ex = _public(_factors.cholesky_ex)
eig = _public(_factors.eig)
eigh = _public(_factors.eigh)
eigvals = _public(_factors.eigvals)
eigvalsh = _public(_factors.eigvalsh)
householder_product = _public(_factors.householder_product)
ldl_factor = _public(_factors.ldl_factor)
ldl_factor_ex = _public(_factors.ldl_factor_ex)
lu = _public(_factors.lu)
lu_factor = _public(_factors.lu_factor)
lu_factor_ex = _public(_factors.lu_factor_ex)
qr = _public(_factors.qr)
svd = _public(_factors.svd)
svdvals = _public(_factors.svdvals)
cond = _public(_norms.cond)
matrix_norm = _public(_norms.matrix_norm)
matrix_rank = _public(_norms.matrix_rank)
vector_norm = _public(_norms.vector_norm)
cross = _public(_products.cross)
det = _public(_products.det)
matrix_exp = _public(_products.matrix_exp)
matrix_power = _public(_products.matrix_power)
multi_dot = _with_out(_products.multi_dot)
slogdet = _public(_products.slogdet)
vander = _public(_products.vander)
vecdot = _public(_products.vecdot)
inv = _public(_solvers.inv)
inv_ex = _public(_solvers.inv_ex)
ldl_solve = _public(_solvers.ldl_solve)
lstsq = _public(_solvers.lstsq)
lu_solve = _public(_solvers.lu_solve)
pinv = _public(_solvers.pinv)
solve = _public(_solvers.solve)
solve_ex = _public(_solvers.solve_ex)
solve_triangular = _public(_solvers.solve_triangular)
tensorinv = _public(_solvers.tensorinv)
tensorsolve = _public(_solvers.tensorsolve)
norm = public(_norms.linalg_norm, "linalg_norm")
matmul = _public(matrices.matmul)

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals",
    "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lstsq",
    "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd",
    "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip
