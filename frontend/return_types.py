"""The named tuples that some functions return, such as the values and indices of `max`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _text(self: Any) -> str:
    lines = ",\n".join(f"{name}={item!r}" for name, item in zip(self._fields, self))
    return f"graphc.return_types.{type(self).__name__}(\n{lines})"


def _define(name: str, fields: str) -> Any:
    base = namedtuple(name, fields)  # type: ignore[misc]  # the names are those of PyTorch
    return type(name, (base,), {"__slots__": (), "__repr__": _text, "__module__": __name__})


max = _define("max", "values indices")
min = _define("min", "values indices")
cummax = _define("cummax", "values indices")
cummin = _define("cummin", "values indices")
median = _define("median", "values indices")
nanmedian = _define("nanmedian", "values indices")
mode = _define("mode", "values indices")
kthvalue = _define("kthvalue", "values indices")
sort = _define("sort", "values indices")
topk = _define("topk", "values indices")
aminmax = _define("aminmax", "min max")
histogram = _define("histogram", "hist bin_edges")
histogramdd = _define("histogramdd", "hist bin_edges")
frexp = _define("frexp", "mantissa exponent")

linalg_cholesky_ex = _define("linalg_cholesky_ex", "L info")
linalg_eig = _define("linalg_eig", "eigenvalues eigenvectors")
linalg_eigh = _define("linalg_eigh", "eigenvalues eigenvectors")
linalg_inv_ex = _define("linalg_inv_ex", "inverse info")
linalg_ldl_factor = _define("linalg_ldl_factor", "LD pivots")
linalg_ldl_factor_ex = _define("linalg_ldl_factor_ex", "LD pivots info")
linalg_lstsq = _define("linalg_lstsq", "solution residuals rank singular_values")
linalg_lu = _define("linalg_lu", "P L U")
linalg_lu_factor = _define("linalg_lu_factor", "LU pivots")
linalg_lu_factor_ex = _define("linalg_lu_factor_ex", "LU pivots info")
linalg_qr = _define("linalg_qr", "Q R")
linalg_slogdet = _define("linalg_slogdet", "sign logabsdet")
linalg_solve_ex = _define("linalg_solve_ex", "result info")
linalg_svd = _define("linalg_svd", "U S Vh")
geqrf = _define("geqrf", "a tau")
lu_unpack = _define("lu_unpack", "P L U")
qr = _define("qr", "Q R")
slogdet = _define("slogdet", "sign logabsdet")
svd = _define("svd", "U S V")
triangular_solve = _define("triangular_solve", "solution cloned_coefficient")
