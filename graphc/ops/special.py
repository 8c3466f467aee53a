"""Special functions: the gamma function's family, the normal distribution's, Bessel functions and orthogonal polynomials.

SciPy computes them. Compiled programs call back for them, but for lgamma, digamma and erfinv, which back ends have code for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ShapeError
from graphc.op import OpDef, Sample, Undefined, not_differentiable, op
from graphc.ops.checks import check_choice, only, only_real
from graphc.ops.elementary import xlogy
from graphc.ops.elementwise import cast, eq, exp, sign, where
from graphc.types import TensorType, float32, float64, int64

_SQRT_PI = math.sqrt(math.pi)


def _single_at_least(function: Any) -> Any:
    """A function of SciPy's, which has no half precision: computed in single precision then."""

    def ref(*arrays: np.ndarray, **attrs: Any) -> Any:
        dtype = arrays[0].dtype
        wide = [a.astype(np.float32) if a.dtype.itemsize < 4 else a for a in arrays]
        return function(*wide, **attrs)[...].astype(dtype, copy=False)  # which makes an array of a number

    return ref


def _scipy(name: str) -> Any:
    def function(*arrays: np.ndarray) -> Any:
        import scipy.special  # takes a while, and most programs do without

        return getattr(scipy.special, name)(*arrays)

    return _single_at_least(function)


def _unary(name: str, ref: Any, vjp: Any, low: float = -2.0, high: float = 2.0, code: float = 0.0) -> OpDef:
    """A function of one real number; `low` and `high` bound the numbers it is tested on. Back ends know some by name: `code` is
    how many nanoseconds theirs takes."""
    samples = tuple(Sample((TensorType(dtype, (6,)),), low=low, high=high) for dtype in (float32, float64))
    return op(name, "x", infer=only_real(name), ref=ref, vjp=vjp, elementwise=True, floating=True, costly=code > 0,
              kernel=None if code else "host", nanoseconds=code or 50.0, samples=samples)


def _binary(name: str, operands: str, ref: Any, vjp: Any, low: float, high: float) -> OpDef:
    """A function of two real numbers that is differentiated by the second alone, hence the integers in the samples."""
    whole = TensorType(int64, (6,))
    samples = tuple(Sample((whole, TensorType(dtype, (6,))), low=low, high=high) for dtype in (float32, float64))
    return op(name, operands, infer=only_real(name), ref=ref, vjp=vjp, elementwise=True, floating=True, kernel="host",
              nanoseconds=200.0, samples=samples)


# The gamma function and its relatives


@_single_at_least
def _zeta(x: np.ndarray, q: np.ndarray) -> Any:
    """As in PyTorch, NaN where the sum begins at infinity; SciPy has its limit there, 0."""
    import scipy.special

    return np.where((q == np.inf) & (x > 1), np.nan, scipy.special.zeta(x, q))


@_single_at_least
def _lgamma(x: np.ndarray) -> Any:
    import scipy.special

    # SciPy has no poles far left of zero, and takes the smallest numbers for one
    value = np.where(np.abs(x) < 1e-300, -np.log(np.abs(x)), scipy.special.gammaln(x))
    return np.where((x < 0) & (x == np.floor(x)), x.dtype.type(np.inf), value)


@_single_at_least
def _polygamma(x: np.ndarray, n: int) -> Any:
    import scipy.special

    if n == 0:
        return scipy.special.psi(x)
    # in double precision: the zeta function of a small number may overflow where n! times it does not
    return (-1.0) ** (n + 1) * scipy.special.factorial(n) * scipy.special.zeta(n + 1.0, x.astype(np.float64))


def _polygamma_infer(x: TensorType, n: int) -> TensorType:
    only("polygamma", "a floating-point dtype", "float")(x)
    if n < 0:
        raise ArgumentError("polygamma(n, x) does not support negative n.", got=f"n = {n}")
    return x


def _incomplete(name: str, small: float, large: float) -> Any:
    """An incomplete gamma function: `small` where a is infinite or x is 0, `large` where x is infinite, even next to a nan."""

    def function(a: np.ndarray, x: np.ndarray) -> Any:
        import scipy.special

        value = getattr(scipy.special, name)(a, x)
        value = np.where(((a == np.inf) & ~(x < 0) & (x != np.inf)) | ((x == 0) & (a != 0) & ~(a < 0)), small, value)
        return np.where((x == np.inf) & ~(a < 0) & (a != np.inf), large, value)

    return _single_at_least(function)


lgamma = _unary("lgamma", _lgamma, lambda ct, x: ct * digamma(x), low=0.5, code=50.0)
digamma = _unary("digamma", _scipy("psi"), lambda ct, x: ct * polygamma(x, n=1), low=0.5, code=50.0)
polygamma = op("polygamma", "x", "n", infer=_polygamma_infer, ref=_polygamma, kernel="host", pointwise=True, nanoseconds=100.0,
               vjp=lambda ct, x, n: ct * polygamma(x, n=n + 1), batch="leading",
               samples=(Sample((TensorType(float32, (6,)),), {"n": 1}, low=0.5),
                        Sample((TensorType(float64, (6,)),), {"n": 3}, low=0.5)))
zeta = _binary("zeta", "x q", _zeta, (Undefined("zeta: self"), lambda ct, x, q: ct * -x * zeta(x + 1, q)), 2, 4)
igamma = _binary("igamma", "a x", _incomplete("gammainc", 0.0, 1.0),
                 (Undefined("igamma: input"), lambda ct, a, x: ct * _gamma_density(a, x)), 1, 4)
igammac = _binary("igammac", "a x", _incomplete("gammaincc", 1.0, 0.0),
                  (Undefined("igammac: input"), lambda ct, a, x: -ct * _gamma_density(a, x)), 1, 4)


def _gamma_density(a: Any, x: Any) -> Any:
    """x^(a-1) e^-x / gamma(a)."""
    a = cast(a, dtype=x.dtype)
    return exp(xlogy(a - 1, x) - x - lgamma(a))


# The error function's relatives


@_single_at_least
def _erfinv(x: np.ndarray) -> Any:
    import scipy.special

    return np.where(x == 0, x, scipy.special.erfinv(x))  # SciPy has no -0


erfinv = _unary("erfinv", _erfinv, lambda ct, out: ct * (_SQRT_PI / 2) * exp(out * out), low=-0.9, high=0.9, code=12.5)
erfcx = _unary("erfcx", _scipy("erfcx"), lambda ct, x, out: ct * (2.0 * x * out - 2 / _SQRT_PI))
ndtri = _unary("ndtri", _scipy("ndtri"), lambda ct, out: ct * math.sqrt(2 * math.pi) * exp(out * out * 0.5), low=0.1, high=0.9)
log_ndtr = _unary("log_ndtr", _scipy("log_ndtr"), lambda ct, x: ct * math.sqrt(2 / math.pi) / erfcx(x * -math.sqrt(0.5)))

# Bessel functions


def _over(y: Any, x: Any, at_zero: float) -> Any:
    """y / x, and its limit at zero."""
    zero = eq(x, 0)
    return where(zero, at_zero, y / where(zero, 1.0, x))


j0 = _unary("bessel_j0", _scipy("j0"), lambda ct, x: -ct * j1(x))
j1 = _unary("bessel_j1", _scipy("j1"), lambda ct, x, out: ct * (j0(x) - _over(out, x, 0.5)))
y0 = _unary("bessel_y0", _scipy("y0"), lambda ct, x: -ct * y1(x), low=0.5)
y1 = _unary("bessel_y1", _scipy("y1"), lambda ct, x, out: ct * (y0(x) - out / x), low=0.5)
i0 = _unary("i0", _scipy("i0"), lambda ct, x: ct * i1(x))
i1 = _unary("i1", _scipy("i1"), lambda ct, x, out: ct * (i0(x) - _over(out, x, 0.5)))
i0e = _unary("i0e", _scipy("i0e"), lambda ct, x, out: ct * (i1e(x) - sign(x) * out), low=0.2)
i1e = _unary("i1e", _scipy("i1e"), lambda ct, x, out: ct * (i0e(x) - _over(out, x, 0.5) - sign(x) * out), low=0.2)
k0 = _unary("bessel_k0", _scipy("k0"), lambda ct, x: -ct * k1(x), low=0.5)
k1 = _unary("bessel_k1", _scipy("k1"), lambda ct, x, out: -ct * (k0(x) + out / x), low=0.5)
k0e = _unary("bessel_k0e", _scipy("k0e"), lambda ct, x, out: ct * (out - k1e(x)), low=0.5)
k1e = _unary("bessel_k1e", _scipy("k1e"), lambda ct, x, out: ct * (out - k0e(x) - out / x), low=0.5)


def _airy(result: int) -> Any:
    def function(x: np.ndarray) -> Any:
        import scipy.special

        return scipy.special.airy(x)[result]

    return _single_at_least(function)


airy_ai = _unary("airy_ai", _airy(0), lambda ct, x: ct * airy_ai_prime(x))
airy_ai_prime = _unary("airy_ai_prime", _airy(1), lambda ct, x: ct * x * airy_ai(x))

# Orthogonal polynomials

POLYNOMIALS = {
    "chebyshev_t": "eval_chebyt", "chebyshev_u": "eval_chebyu", "hermite_h": "eval_hermite", "hermite_he": "eval_hermitenorm",
    "laguerre_l": "eval_laguerre", "legendre_p": "eval_legendre",
}
"""SciPy's names for the polynomials."""

_HIGHEST = 1 << 24
"""The degrees are counted up to one by one: no more of them than float32 tells apart, or it would never end."""


@_single_at_least
def _polynomial(x: np.ndarray, n: np.ndarray, kind: str) -> Any:
    import scipy.special

    degree = np.trunc(n).astype(np.int64)
    if degree.max(initial=0) > _HIGHEST:
        raise ArgumentError("a polynomial of too high a degree", expected=f"at most {_HIGHEST}", got=str(degree.max()))
    value = getattr(scipy.special, POLYNOMIALS[kind])(np.maximum(degree, 0), x.astype(np.float64))
    return np.where(degree < 0, 0.0, value)


def _polynomial_infer(x: TensorType, n: TensorType, kind: str) -> TensorType:
    check_choice("polynomial", "kind", kind, POLYNOMIALS)
    if n.shape != x.shape:
        raise ShapeError("polynomial: degrees and places differ in shape", expected=str(list(x.shape)), got=str(n))
    only_real("polynomial")(n)
    return only("polynomial", "a floating-point dtype", "float")(x)


polynomial = op("polynomial", "x n", "kind", infer=_polynomial_infer, ref=_polynomial, kernel="host", pointwise=True,
                nanoseconds=200.0, vjp=not_differentiable,
                samples=tuple(Sample((TensorType(float64, (6,)), np.array([0.0, 1, 2, 3, 7, -1])), {"kind": kind})
                              for kind in POLYNOMIALS))
