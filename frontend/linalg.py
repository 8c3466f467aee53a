"""Linear algebra: factorisations, solutions of linear equations, norms and products of matrices.

All functions take batches: the matrices are the last two dimensions. Those that LAPACK computes are defined on float32,
float64, complex64 and complex128; all are differentiable but for what `ldl_factor` returns.
"""

from __future__ import annotations

from graphc.errors import LinAlgError
from graphc.frontend import diagonals, matrices
from graphc.frontend import linalg_factors as _factors
from graphc.frontend import linalg_norms as _norms
from graphc.frontend import linalg_products as _products
from graphc.frontend import linalg_solvers as _solvers
from graphc.frontend.public import with_out as _with_out
from graphc.frontend.tensor import Tensor


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices, which lie in the dimensions `dim1` and `dim2`."""
    return diagonals.diagonal(A, offset, dim1, dim2)


cholesky = _with_out(_factors.cholesky)
cholesky_ex = _with_out(_factors.cholesky_ex)
eig = _with_out(_factors.eig)
eigh = _with_out(_factors.eigh)
eigvals = _with_out(_factors.eigvals)
eigvalsh = _with_out(_factors.eigvalsh)
householder_product = _with_out(_factors.householder_product)
ldl_factor = _with_out(_factors.ldl_factor)
ldl_factor_ex = _with_out(_factors.ldl_factor_ex)
lu = _with_out(_factors.lu)
lu_factor = _with_out(_factors.lu_factor)
lu_factor_ex = _with_out(_factors.lu_factor_ex)
qr = _with_out(_factors.qr)
svd = _with_out(_factors.svd)
svdvals = _with_out(_factors.svdvals)
cond = _with_out(_norms.cond)
matrix_norm = _with_out(_norms.matrix_norm)
matrix_rank = _with_out(_norms.matrix_rank)
vector_norm = _with_out(_norms.vector_norm)
cross = _with_out(_products.cross)
det = _with_out(_products.det)
matrix_exp = _with_out(_products.matrix_exp)
matrix_power = _with_out(_products.matrix_power)
multi_dot = _with_out(_products.multi_dot)
slogdet = _with_out(_products.slogdet)
vander = _with_out(_products.vander)
vecdot = _with_out(_products.vecdot)
inv = _with_out(_solvers.inv)
inv_ex = _with_out(_solvers.inv_ex)
ldl_solve = _with_out(_solvers.ldl_solve)
lstsq = _with_out(_solvers.lstsq)
lu_solve = _with_out(_solvers.lu_solve)
pinv = _with_out(_solvers.pinv)
solve = _with_out(_solvers.solve)
solve_ex = _with_out(_solvers.solve_ex)
solve_triangular = _with_out(_solvers.solve_triangular)
tensorinv = _with_out(_solvers.tensorinv)
tensorsolve = _with_out(_solvers.tensorsolve)
norm = _with_out(_norms.linalg_norm)
matmul = _with_out(matrices.matmul)

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals",
    "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lstsq",
    "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd",
    "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip
