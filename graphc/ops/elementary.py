"""Elementary functions of one or two numbers that have code of their own: circles, hyperbolas, and logarithms to any base."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.op import OpDef, Sample, not_differentiable, op
from graphc.ops.checks import only, only_real
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import zeros_like
from graphc.ops.elementwise import (
    _quiet,
    abs,
    eq,
    exp,
    le,
    log,
    log1p,
    maximum,
    minimum,
    same,
    sigmoid,
    sqrt,
    where,
)
from graphc.types import TensorType, bool_, complex64, float32, float64, int32, int64, uint8

_f = TensorType(float32, (3, 5))
_d = TensorType(float64, (4,))
_z = TensorType(complex64, (5,))
_LN2, _LN10 = math.log(2), math.log(10)


def _unary(name: str, ref: Any, vjp: Any, low: float = -2.0, high: float = 2.0, **more: Any) -> OpDef:
    """A function of one number, complex unless `infer` says otherwise; `low` and `high` bound the numbers it is tested on."""
    types = (_f, _d) if "infer" in more else (_f, _d, _z)
    settings: dict[str, Any] = {"infer": same, **more}
    return op(name, "x", ref=_quiet(ref), vjp=vjp, elementwise=True, floating=True, nanoseconds=6.3,
              samples=tuple(Sample((t,), low=low, high=high) for t in types), **settings)


def _binary(name: str, operands: str, ref: Any, vjp: Any, low: float = -2.0, high: float = 2.0, **more: Any) -> OpDef:
    """A function of two real numbers."""
    samples = (Sample((_f, _f), low=low, high=high), Sample((_d, _d), low=low, high=high))
    settings: dict[str, Any] = {"infer": only_real(name), "floating": True, **more}
    return op(name, operands, ref=_quiet(ref), vjp=vjp, elementwise=True, nanoseconds=13.0, samples=samples, **settings)


def _no_integers(name: str) -> dict[str, Any]:
    """For functions that are refused integers, instead of giving them another dtype."""
    return {"floating": False, "infer": only(name, "a floating-point dtype", "float")}


# Circles

tan = _unary("tan", np.tan, lambda ct, out: ct * conjugate(out * out + 1), low=-1.2, high=1.2)
asin = _unary("asin", np.arcsin, lambda ct, x: ct / conjugate(sqrt(1 - x * x)), low=-0.9, high=0.9)
acos = _unary("acos", np.arccos, lambda ct, x: -ct / conjugate(sqrt(1 - x * x)), low=-0.9, high=0.9)
atan = _unary("atan", np.arctan, lambda ct, x: ct / conjugate(x * x + 1))


def _squares(x: Any, y: Any) -> Any:
    """x^2 + y^2, but 1 at the origin: the slopes of atan2 are zero there."""
    squares = x * x + y * y
    return where(eq(squares, 0), 1.0, squares)


atan2 = _binary("atan2", "y x", np.arctan2,
                (lambda ct, y, x: ct * x / _squares(x, y), lambda ct, y, x: ct * -y / _squares(x, y)), low=0.5)

# Hyperbolas

sinh = _unary("sinh", np.sinh, lambda ct, x: ct * conjugate(cosh(x)))
cosh = _unary("cosh", np.cosh, lambda ct, x: ct * conjugate(sinh(x)))
asinh = _unary("asinh", np.arcsinh, lambda ct, x: ct / conjugate(sqrt(x * x + 1)))
acosh = _unary("acosh", np.arccosh, low=1.5, high=4.0,
               vjp=lambda ct, x: ct / (conjugate(sqrt(x - 1) * sqrt(x + 1)) if x.dtype.is_complex else sqrt(x * x - 1)))
atanh = _unary("atanh", np.arctanh, lambda ct, x: ct / conjugate(1 - x * x), low=-0.9, high=0.9)

# Powers and logarithms

exp2 = _unary("exp2", np.exp2, lambda ct, out: ct * conjugate(out) * _LN2)
log2 = _unary("log2", np.log2, lambda ct, x: ct / conjugate(x * _LN2), low=0.5)
log10 = _unary("log10", np.log10, lambda ct, x: ct / conjugate(x * _LN10), low=0.5)


def _shifted_sum(x: Any, y: Any, logarithm_of_sum: Any) -> Any:
    """The larger one and what the smaller one adds to it; two equal infinities are their own sum."""
    top = maximum(x, y)
    return where(eq(x, y) & eq(abs(x), math.inf), x, top + logarithm_of_sum(-abs(x - y)))


logaddexp = _binary("logaddexp", "x y", np.logaddexp,
                    (lambda ct, x, y: ct * sigmoid(x - y), lambda ct, x, y: ct * sigmoid(y - x)),
                    scalar=lambda x, y: _shifted_sum(x, y, lambda d: log1p(exp(d))), **_no_integers("logaddexp"))
logaddexp2 = _binary("logaddexp2", "x y", np.logaddexp2,
                     (lambda ct, x, y: ct * sigmoid((x - y) * _LN2), lambda ct, x, y: ct * sigmoid((y - x) * _LN2)),
                     scalar=lambda x, y: _shifted_sum(x, y, lambda d: log1p(exp2(d)) / _LN2), **_no_integers("logaddexp2"))


def _times(logarithm: Any) -> Any:
    """x * logarithm(y), which is 0 for x = 0 unless y is nan."""
    return lambda x, y: np.where((x == 0) & (y == y), x.dtype.type(0), x * logarithm(y)).astype(x.dtype, copy=False)


xlogy = _binary("xlogy", "x y", _times(np.log),
                (lambda ct, x, y: ct * where(eq(x, 0) & le(y, 0), 0.0, log(y)), lambda ct, x, y: ct * x / y),
                low=0.5, scalar=lambda x, y: where(eq(x, 0) & eq(y, y), 0.0, x * log(y)))
xlog1py = _binary("xlog1py", "x y", _times(np.log1p),
                  (lambda ct, x, y: ct * where(eq(x, 0) & le(y, -1), 0.0, log1p(y)), lambda ct, x, y: ct * x / (y + 1)),
                  low=0.5, scalar=lambda x, y: where(eq(x, 0) & eq(y, y), 0.0, x * log1p(y)))


def _entr(x: np.ndarray) -> Any:
    inside = -x * np.log(np.where(x > 0, x, x.dtype.type(1)))
    return np.where(x < 0, x.dtype.type(-np.inf), inside).astype(x.dtype, copy=False)


entr = _unary("entr", _entr, lambda ct, x: ct * where(x < 0, math.nan, -log(x) - 1), low=0.5, infer=only_real("entr"),
              scalar=lambda x: where(x > 0, -x * log(x), where(x < 0, -math.inf, abs(x))))

# The error function from the other side


def _erfc(x: np.ndarray) -> Any:
    return np.vectorize(math.erfc, otypes=[np.float64])(x).astype(x.dtype)


erfc = _unary("erfc", _erfc, lambda ct, x: ct * (-2 / math.sqrt(math.pi)) * exp(-x * x), infer=only_real("erfc"),
              costly=True)

# Lengths, signs and neighbours


def _hypot_scalar(x: Any, y: Any) -> Any:
    # by the ratio of the two, whose square neither overflows nor vanishes where it counts
    a, b = abs(x), abs(y)
    top = maximum(a, b)
    ratio = minimum(a, b) / where(eq(top, 0), 1.0, top)
    return where(eq(a, math.inf) | eq(b, math.inf), math.inf, top * sqrt(1 + ratio * ratio))


hypot = _binary("hypot", "x y", np.hypot, (lambda ct, x, out: ct * (x / out), lambda ct, y, out: ct * (y / out)), low=0.5,
                scalar=_hypot_scalar, **_no_integers("hypot"))
copysign = _binary("copysign", "x y", np.copysign,
                   (lambda ct, x, out: ct * where(eq(x, 0), 0.0, out / x), lambda ct: zeros_like(ct)), low=0.5)
nextafter = _binary("nextafter", "x y", np.nextafter,
                    (lambda ct, x, y: where(eq(x, y), 0.0, ct), lambda ct: zeros_like(ct)),
                    kernel="host", **_no_integers("nextafter"))


def _signbit(x: np.ndarray) -> Any:
    return np.signbit(x) if x.dtype.kind not in "biu" else x < np.zeros((), x.dtype)


signbit = op("signbit", "x", infer=lambda x: only_real("signbit")(x).with_dtype(bool_), ref=_signbit, elementwise=True,
             vjp=not_differentiable,
             samples=tuple(Sample((TensorType(dtype, (7,)),)) for dtype in (float32, float64, int64, bool_)))

# Exponents and divisors


def _exponent_infer(x: TensorType) -> TensorType:
    if not x.dtype.is_floating_point:
        raise DTypeError("frexp() only supports floating-point dtypes", expected="a floating-point dtype", got=str(x))
    return x.with_dtype(int32)


exponent = op("exponent", "x", infer=_exponent_infer, ref=lambda x: np.frexp(x)[1][...].astype(np.int32), elementwise=True,
              kernel="host", vjp=not_differentiable, samples=(Sample((_f,)), Sample((_d,), low=-99.0, high=99.0)))


def _gcd_infer(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"gcd is not implemented for {x.dtype.name}", expected="an integer dtype", got=str(x))
    return x


gcd = op("gcd", "x y", infer=_gcd_infer, ref=np.gcd, elementwise=True, kernel="host", vjp=not_differentiable, nanoseconds=20.0,
         samples=(Sample((TensorType(int64, (7,)),) * 2, low=-60, high=60), Sample((TensorType(uint8, (7,)),) * 2, high=99)))
