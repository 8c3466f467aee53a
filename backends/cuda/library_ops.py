"""Ops without kernels that CuPy computes on the GPU: by functions of its own, or by the ops' NumPy definitions, which run on
its arrays as they are.

What is not named here, or does not fit, the CPU computes by definition. So it is with what CuPy lacks or does differently:
`eig` of batches, `lstsq`, `ldl_factor`, `ldl_solve`, `permutation`, the Airy functions and orthogonal polynomials; of complex
numbers `pow`, `expm1`, `logcumsumexp`, convolutions, windows, and what scatters or writes a diagonal; and complex32. Nothing
here imports CuPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphc.errors import LinAlgError
from graphc.kernel import Call
from graphc.op import OpDef
from graphc.ops.cumulative import wider
from graphc.ops.fft import FORWARD, INVERSE
from graphc.ops.sort import comparable
from graphc.types import bfloat16, complex32

_FEW = 64
"""Matrices that are computed one after another; of larger batches the CPU computes all."""
_SOLVER = ("cublas", "cusolver")


class Refused(Exception):
    """What CuPy finds is not what the definition says."""


REFUSALS = (Refused, np.linalg.LinAlgError, LinAlgError)
"""What is raised before any result is written, where the definition has to say what is wrong: the last of them by definitions
that CuPy runs, of which the CPU's may yet converge."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An array of a GPU: strides are in bytes."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def bounds(self) -> tuple[int, int]:
        """Where its bytes begin and end."""
        steps = [(n - 1) * step for n, step in zip(self.shape, self.strides)]
        low, high = (self.address + sum(pick(0, step) for step in steps) for pick in (min, max))
        return (low, high + self.dtype.itemsize) if math.prod(self.shape) else (self.address, self.address)

    def overlaps(self, other: Placed) -> bool:
        """Whether bytes of both may be the same."""
        (low, high), (other_low, other_high) = self.bounds, other.bounds
        return low < other_high and other_low < high


class Libraries(Protocol):
    """CuPy, or who plays it."""

    cupy: Any
    special: Any
    """cupyx.scipy.special."""

    @property
    def linalg(self) -> Any:
        """cupyx.scipy.linalg."""
        ...

    @property
    def fft(self) -> Any:
        """cupy.fft, for transforms on the current stream."""
        ...

    def has(self, needs: Sequence[str]) -> bool:
        """Whether these libraries of NVIDIA's are there, and CuPy can compile kernels."""
        ...

    def raising(self) -> AbstractContextManager[Any]:
        """Where singular matrices and the like are errors, and what a library says that cannot go on is a Refused."""
        ...

    def array(self, placed: Placed) -> Any:
        """An array over memory that is there."""
        ...


@dataclass(frozen=True)
class LibraryOp:
    """How CuPy computes an op: `compute(libraries, *operands, **attrs)`, or by its definition if that is None."""

    compute: Callable[..., Any] | None = None
    needs: tuple[str, ...] = ()
    """NVIDIA's libraries, beside those that CuPy compiles kernels by."""
    fits: Callable[[Call], bool] = lambda call: True
    takes_bfloat16: bool = False


def library_op(call: Call) -> LibraryOp | None:
    """How CuPy computes a call; None where the CPU has to."""
    found = LIBRARY_OPS.get(call.op.name)
    if found is None or not call.operands or not all(math.prod(block.shape) for block in call.operands):
        return None
    dtypes = {block.buffer.dtype for block in (*call.operands, *call.results)}
    if complex32 in dtypes or (bfloat16 in dtypes and not found.takes_bfloat16):
        return None
    return found if found.fits(call) else None


def compute(
    found: LibraryOp, op: OpDef, attrs: Mapping[str, Any], libraries: Libraries, operands: Sequence[Placed],
    results: Sequence[Placed],
) -> None:
    """Launch what computes an op, on the current stream. One of REFUSALS where the definition has to, before a result is
    written."""
    arrays = [libraries.array(placed) for placed in operands]
    with np.errstate(all="ignore"), libraries.raising():
        made = op.ref(*arrays, **attrs) if found.compute is None else found.compute(libraries, *arrays, **attrs)
        wanted = [(placed, value) for placed, value in zip(results, made if isinstance(made, tuple) else (made,), strict=True)
                  if math.prod(placed.shape)]
        # what is a view of an operand would change meanwhile; CuPy compares the memory of none but such
        changing = [array for array, operand in zip(arrays, operands) if any(operand.overlaps(result) for result, _ in wanted)]
        shares = libraries.cupy.may_share_memory
        values = [value.copy() if any(shares(value, array) for array in changing) else value for _, value in wanted]
    for (placed, _), value in zip(wanted, values):
        libraries.cupy.copyto(libraries.array(placed), value, casting="unsafe")


# Order


def _argsort(libraries: Libraries, x: Any, axis: int, descending: bool) -> Any:
    cupy, x = libraries.cupy, comparable(x)
    if x.dtype.kind == "f" and x.ndim == 1:  # sorted by their bits: nan at the end needs a positive sign, and zeros are equal
        x = cupy.where(x != x, x.dtype.type(np.nan), x + x.dtype.type(0))
    if not descending:
        return cupy.argsort(x, axis, kind="stable")
    # an ascending sort of the reversed sequence, read backwards, keeps the order of equals and puts nan first
    return x.shape[axis] - 1 - cupy.flip(cupy.argsort(cupy.flip(x, axis), axis, kind="stable"), axis)


def _argtopk(libraries: Libraries, x: Any, axis: int, count: int, descending: bool) -> Any:
    return _argsort(libraries, x, axis, descending)[(slice(None),) * axis + (slice(count),)]


def _searchsorted(libraries: Libraries, sequence: Any, values: Any, right: bool) -> Any:
    cupy, sequence, values = libraries.cupy, comparable(sequence), comparable(values)
    if sequence.ndim == 1:
        return cupy.searchsorted(sequence, values, "right" if right else "left")
    size = sequence.shape[-1]
    low = cupy.zeros(values.shape, np.int64)
    high = cupy.full(values.shape, size, np.int64)
    for _ in range(size.bit_length()):  # by bisection, in all rows at once
        middle = (low + high) // 2
        there = cupy.take_along_axis(sequence, cupy.minimum(middle, size - 1), -1)
        last = values != values  # nan counts as the largest number
        behind = (there <= values) | last if right else (there < values) | (last & (there == there))
        behind = behind & (low < high)
        low, high = cupy.where(behind, middle + 1, low), cupy.where(behind, high, middle)
    return low


# Fourier transforms


def _c2c(libraries: Libraries, x: Any, axes: tuple[int, ...], inverse: bool, scale: str) -> Any:
    if not axes:
        return x
    fft = libraries.fft
    return fft.ifftn(x, axes=axes, norm=INVERSE[scale]) if inverse else fft.fftn(x, axes=axes, norm=FORWARD[scale])


def _r2c(libraries: Libraries, x: Any, axis: int, scale: str) -> Any:
    return libraries.fft.rfft(x, axis=axis, norm=FORWARD[scale])


def _c2r(libraries: Libraries, x: Any, axis: int, size: int, scale: str) -> Any:
    cupy, half = libraries.cupy, x.copy()
    rows = cupy.moveaxis(half, axis, -1)
    rows.imag[..., 0] = 0  # what such a spectrum has not, cuFFT would count
    if size % 2 == 0:
        rows.imag[..., size // 2] = 0
    return libraries.fft.irfft(half, size, axis=axis, norm=INVERSE[scale])


# Matrices


def _adjoint(x: Any) -> Any:
    return x.conj().swapaxes(-1, -2)


def _finite(libraries: Libraries, *arrays: Any) -> None:
    """What is not finite may be an error, which cuSOLVER does not always tell."""
    if not all(libraries.cupy.isfinite(array).all() for array in arrays):
        raise Refused


def _codes(libraries: Libraries, x: Any) -> Any:
    """LAPACK's, of matrices without errors."""
    return libraries.cupy.zeros(x.shape[:-2], np.int32)


def _each(libraries: Libraries, function: Callable[[Any], Sequence[Any]], matrices: Any) -> list[Any]:
    """What a function makes of each matrix of a batch."""
    batch = matrices.shape[:-2]
    made = [function(matrices[index]) for index in np.ndindex(batch)]
    return [libraries.cupy.stack(parts).reshape((*batch, *parts[0].shape)) for parts in zip(*made)]


def _are_few(call: Call) -> bool:
    return math.prod(call.operands[0].shape[:-2]) <= _FEW


def _is_one(call: Call) -> bool:
    return len(call.operands[0].shape) == 2


def _cholesky(libraries: Libraries, x: Any, upper: bool, check: bool) -> Any:
    del check
    factor = libraries.cupy.linalg.cholesky(_adjoint(x) if upper else x)
    _finite(libraries, factor)
    return _adjoint(factor) if upper else factor, _codes(libraries, x)


def _lu(libraries: Libraries, x: Any, check: bool) -> Any:
    del check

    def factors(matrix: Any) -> Any:
        try:
            return libraries.linalg.lu_factor(matrix, check_finite=False)
        except RuntimeWarning:  # it warns of a zero on the diagonal, which is an error by the filters of who calls
            raise Refused from None

    lu, pivots = _each(libraries, factors, x)
    if (libraries.cupy.diagonal(lu, 0, -2, -1) == 0).any():  # which has an error code
        raise Refused
    return lu, pivots + 1, _codes(libraries, x)


def _solve(libraries: Libraries, a: Any, b: Any, check: bool) -> Any:
    del check
    out = libraries.cupy.linalg.solve(a, b)
    _finite(libraries, out)
    return out, _codes(libraries, a)


def _inv(libraries: Libraries, x: Any, check: bool) -> Any:
    del check
    out = libraries.cupy.linalg.inv(x)
    _finite(libraries, out)
    return out, _codes(libraries, x)


def _triangular(libraries: Libraries, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    return libraries.linalg.solve_triangular(a, b, lower=not upper, unit_diagonal=unit, check_finite=False)


def _cholesky_solve(libraries: Libraries, factor: Any, b: Any, upper: bool) -> Any:
    first, second = (_adjoint(factor), factor) if upper else (factor, _adjoint(factor))
    return _triangular(libraries, second, _triangular(libraries, first, b, False, False), True, False)


def _matrix_exp(libraries: Libraries, x: Any) -> Any:
    """CuPy's takes a mean of the diagonal out, and computes its exponential, and the norm of the rest, as numbers of Python's:
    finite matrices may overflow where the definition has finite results."""
    _finite(libraries, x)
    try:
        out = _each(libraries, lambda matrix: (libraries.linalg.expm(matrix),), x)[0]
    except (OverflowError, ValueError) as error:
        raise Refused from error
    _finite(libraries, out)
    return out


# Special functions


def _zeta(libraries: Libraries, x: Any, q: Any) -> Any:
    """As the definition says, which calls SciPy's by a name that CuPy does not know."""
    dtype = x.dtype
    x, q = (part.astype(np.float32) if part.dtype.itemsize < 4 else part for part in (x, q))
    nan = x.dtype.type(np.nan)
    return libraries.cupy.where((q == np.inf) & (x > 1), nan, libraries.special.zeta(x, q)).astype(dtype)


def _polygamma(libraries: Libraries, x: Any, n: int) -> Any:
    """The same."""
    import scipy.special  # for one number

    wide = x.astype(np.float64)
    if n == 0:
        return libraries.special.psi(wide).astype(x.dtype)
    sign_and_factorial = (-1.0) ** (n + 1) * float(scipy.special.factorial(n))
    return (sign_and_factorial * libraries.special.zeta(libraries.cupy.full_like(wide, n + 1.0), wide)).astype(x.dtype)


# Complex numbers


def _sum(libraries: Libraries, x: Any, axes: tuple[int, ...]) -> Any:
    return libraries.cupy.sum(x, axis=axes, dtype=x.dtype) if axes else x


def _cumsum(libraries: Libraries, x: Any, axis: int) -> Any:
    return libraries.cupy.cumsum(x, axis, dtype=wider(x.dtype))


def _cumprod(libraries: Libraries, x: Any, axis: int) -> Any:
    return libraries.cupy.cumprod(x, axis, dtype=wider(x.dtype))


def _diagonal(libraries: Libraries, x: Any, offset: int, row: int, column: int) -> Any:
    return libraries.cupy.diagonal(x, max(-x.shape[row], min(offset, x.shape[column])), row, column)


def _pad(libraries: Libraries, x: Any, low: Sequence[int], high: Sequence[int], value: Any) -> Any:
    out = libraries.cupy.full(tuple(map(sum, zip(low, x.shape, high))), value, x.dtype)
    out[tuple(slice(before, before + size) for before, size in zip(low, x.shape))] = x
    return out


def _gather(libraries: Libraries, x: Any, index: Any, axis: int) -> Any:
    """The program has bounded the index."""
    met = x[tuple(slice(None) if k == axis else slice(n) for k, n in enumerate(index.shape))]
    return libraries.cupy.take_along_axis(met, index, axis)


_BY_DEFINITION = """
    abs acos acosh add asin asinh atan atanh broadcast_to cast complex concat conj copy cos cosh div eq
    exp exp2 exponent fence flip gcd imag log log10 log1p log2 mul ne neg nextafter permute real reshape rsqrt sgn sigmoid sin
    sinh slice slice_update sqrt sub tan tanh view_as_complex view_as_real where
"""
_SPECIAL = """
    bessel_j0 bessel_j1 bessel_k0 bessel_k0e bessel_k1 bessel_k1e bessel_y0 bessel_y1 erfcx i0 i0e i1 i1e igamma igammac
    log_ndtr ndtri
"""

LIBRARY_OPS: dict[str, LibraryOp] = {
    **{name: LibraryOp() for name in _BY_DEFINITION.split()},
    **{name: LibraryOp(takes_bfloat16=True) for name in _SPECIAL.split()},
    "contract": LibraryOp(needs=("cublas",)),
    "argsort": LibraryOp(_argsort, takes_bfloat16=True), "argtopk": LibraryOp(_argtopk, takes_bfloat16=True),
    "searchsorted": LibraryOp(_searchsorted, takes_bfloat16=True),
    "zeta": LibraryOp(_zeta, takes_bfloat16=True), "polygamma": LibraryOp(_polygamma, takes_bfloat16=True),
    "sum": LibraryOp(_sum), "cumsum": LibraryOp(_cumsum), "cumprod": LibraryOp(_cumprod),
    "pad": LibraryOp(_pad), "diagonal": LibraryOp(_diagonal), "gather": LibraryOp(_gather),
    "fft_c2c": LibraryOp(_c2c, ("cufft",)), "fft_r2c": LibraryOp(_r2c, ("cufft",)), "fft_c2r": LibraryOp(_c2r, ("cufft",)),
    "cholesky": LibraryOp(_cholesky, _SOLVER), "lu_factor": LibraryOp(_lu, _SOLVER, _are_few),
    "solve": LibraryOp(_solve, _SOLVER), "inv": LibraryOp(_inv, _SOLVER),
    "triangular_solve": LibraryOp(_triangular, ("cublas",)), "cholesky_solve": LibraryOp(_cholesky_solve, ("cublas",)),
    "matrix_exp": LibraryOp(_matrix_exp, _SOLVER, _are_few),
    **{name: LibraryOp(None, _SOLVER)
       for name in ("qr", "geqrf", "svd", "svdvals", "eigh", "eigvalsh", "det", "slogdet", "pinv")},
    "eig": LibraryOp(None, _SOLVER, _is_one), "eigvals": LibraryOp(None, _SOLVER, _is_one),
    "cofactor": LibraryOp(None, _SOLVER, lambda call: call.operands[0].shape[-1] > 1),
}  # fmt: skip
"""How CuPy computes what no kernel is rendered for, by the op's name."""
