"""Elementwise ops: one number in each operand makes one number of the result."""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import DivisionByZeroError, DTypeError
from graphc.op import OpDef, Sample, not_differentiable, op
from graphc.ops.checks import only, only_numeric, only_real
from graphc.ops.complex_numbers import conjugate, real
from graphc.ops.creation import zeros_like
from graphc.types import DType, TensorType, bool_, complex64, convert, float32, float64, int32, int64, uint8, widened

_f = TensorType(float32, (3, 5))
_d = TensorType(float64, (4,))
_i = TensorType(int64, (7,))
_b = TensorType(bool_, (7,))
_z = TensorType(complex64, (3, 4))


def same(x: TensorType, *_: TensorType) -> TensorType:
    """The result's type is that of the first operand."""
    return x


def boolean(x: TensorType, *_: TensorType) -> TensorType:
    """The result is a boolean for each element."""
    return x.with_dtype(bool_)


def _ordered(name: str) -> Callable[..., TensorType]:
    """The type rule of a comparison by size, which complex numbers do not have."""
    check = only_real(name)
    return lambda x, *_: check(x).with_dtype(bool_)


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without NumPy's warnings of division by zero and the like: the result says inf or nan."""

    def ref(*arrays: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    ref.ufunc = function  # type: ignore[attr-defined]  # for callers that have silenced the warnings already
    return ref


# Arithmetic

add = op("add", "x y", infer=same, ref=_quiet(np.add), elementwise=True, exact_numbers=True,
         vjp=(lambda ct: ct, lambda ct: ct),
         samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b)), Sample((_z, _z))))
sub = op("sub", "x y", infer=only_numeric("sub"), ref=_quiet(np.subtract), elementwise=True, exact_numbers=True,
         vjp=(lambda ct: ct, lambda ct: -ct), samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_z, _z))))
mul = op("mul", "x y", infer=same, ref=_quiet(np.multiply), elementwise=True, exact_numbers=True,
         vjp=(lambda ct, y: ct * conjugate(y), lambda ct, x: ct * conjugate(x)),
         samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b)), Sample((_z, _z))))
div = op("div", "x y", infer=same, ref=_quiet(np.divide), elementwise=True, nanoseconds=2.3, floating=True,
         exact_numbers=True,
         vjp=(lambda ct, y: ct / conjugate(y), lambda ct, y, out: -ct * conjugate(out / y)),
         samples=(Sample((_f, _f), low=0.5), Sample((_d, _d), low=0.5), Sample((_z, _z), low=0.5)))
neg = op("neg", "x", infer=only_numeric("neg"), ref=np.negative, elementwise=True,
         vjp=lambda ct: -ct, samples=(Sample((_f,)), Sample((_i,))))


def _sign(x: np.ndarray) -> Any:
    return np.subtract(x > 0, x < 0, dtype=np.int8).astype(x.dtype)  # of nan it is 0


sign = op("sign", "x", infer=only("sign", "a numeric dtype that is not complex", "int", "uint", "float"), ref=_sign,
          elementwise=True,
          vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,), low=0.5), Sample((_i,))),
          scalar=lambda x: where(x > 0, 1, where(x < 0, -1, zeros_like(x))))


def _sgn(x: np.ndarray) -> Any:
    length = np.abs(x)
    return np.where(length == 0, 0, x / length).astype(x.dtype)


def _sgn_vjp(ct: Any, x: Any, out: Any) -> Any:
    """What of ct / |x| turns the direction: its part along the direction is taken out."""
    length = abs(x)
    scaled = ct / where(eq(length, 0), 1.0, length)
    return where(eq(length, 0), 0.0, scaled - real(scaled * conjugate(out)) * out)


sgn = op("sgn", "x", infer=only("sgn", "a complex dtype", "complex"), ref=_quiet(_sgn), elementwise=True, kernel="host",
         vjp=_sgn_vjp, samples=(Sample((_z,), low=0.5),))
abs = op("abs", "x", infer=lambda x: only_numeric("abs")(x).with_dtype(x.dtype.to_real()), ref=np.abs, elementwise=True,
         vjp=lambda ct, x: ct * (sgn(x) if x.dtype.is_complex else sign(x)),
         samples=(Sample((_f,), low=0.5), Sample((_i,)), Sample((_z,), low=0.5)))


def _pow(x: np.ndarray, y: np.ndarray) -> Any:
    # NumPy refuses integers to negative integer powers; PyTorch truncates 1/x**n: 1, -1, or 0
    if x.dtype.kind in "iu" and y.dtype.kind == "i" and (y < 0).any():
        ones = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0))
        return np.where(y < 0, ones, np.power(x, np.maximum(y, 0))).astype(x.dtype)
    if y.ndim == 0 and x.dtype.kind in "fc":
        return x ** y.item()  # NumPy squares and takes roots directly where the exponent is a number
    return np.power(x, y)


def _base_vjp(ct: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float, complex)):
        return zeros_like(ct) if y == 0 else ct * conjugate(y * pow(x, y - 1))
    return where(eq(y, 0), 0.0, ct * conjugate(y * pow(x, y - 1)))


def _exponent_vjp(ct: Any, x: Any, y: Any, out: Any) -> Any:
    rising = ge(real(y) if y.dtype.is_complex else y, 0)
    if isinstance(x, (int, float, complex)):
        if x == 0:
            return where(rising, 0.0, conjugate(out) * ct * -math.inf)
        if isinstance(x, complex) or out.dtype.is_complex:
            return ct * conjugate(out * cmath.log(x))
        return ct * out * math.log(x) if x > 0 else ct * math.nan
    if out.dtype.is_complex:
        x = cast(x, out.dtype)  # a negative real base has a complex logarithm
    return where(eq(x, 0) & rising, 0.0, ct * conjugate(out * log(x)))


pow = op("pow", "x y", infer=only_numeric("pow"), ref=_quiet(_pow),
         elementwise=True, nanoseconds=25,
         vjp=(_base_vjp, _exponent_vjp),
         samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=0, high=5), Sample((_z, _z), low=0.5)))


def _no_integer_by_zero(function: Callable[..., Any]) -> Callable[..., Any]:
    """A division of NumPy's; DivisionByZeroError where an integer would be divided by zero."""

    def ref(x: np.ndarray, y: np.ndarray) -> Any:
        if x.dtype.kind in "iu" and not y.all():
            raise DivisionByZeroError("ZeroDivisionError", got=f"{function.__name__} of an integer by zero")
        return function(x, y)

    return _quiet(ref)


floor_divide = op("floor_divide", "x y", infer=only("floor_divide", "a numeric dtype", "int", "uint", "float"),
                  ref=_no_integer_by_zero(np.floor_divide), elementwise=True, nanoseconds=20, exact_numbers=True,
                  vjp=not_differentiable, samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=1, high=9)))
remainder = op("remainder", "x y", infer=only("remainder", "a numeric dtype", "int", "uint", "float"),
               ref=_no_integer_by_zero(np.remainder), elementwise=True, nanoseconds=20,
               vjp=(lambda ct: ct, lambda ct, x, y: -ct * floor_divide(x, y)),
               samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=1, high=9)))
fmod = op("fmod", "x y", infer=only("fmod", "a numeric dtype", "int", "uint", "float"), ref=_no_integer_by_zero(np.fmod),
          elementwise=True, nanoseconds=20, vjp=(lambda ct: ct, lambda ct, x, y: -ct * trunc(x / y)),
          samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=1, high=9)))

# Functions of one number

exp = op("exp", "x", infer=same, ref=_quiet(np.exp), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, out: ct * conjugate(out), samples=(Sample((_f,)), Sample((_d,)), Sample((_z,))))
expm1 = op("expm1", "x", infer=same, ref=_quiet(np.expm1), elementwise=True, nanoseconds=6.3, floating=True,
           vjp=lambda ct, out: ct * conjugate(out + 1), samples=(Sample((_f,)), Sample((_z,))))
log = op("log", "x", infer=same, ref=_quiet(np.log), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: ct / conjugate(x), samples=(Sample((_f,), low=0.5), Sample((_d,), low=0.5), Sample((_z,), low=0.5)))
log1p = op("log1p", "x", infer=same, ref=_quiet(np.log1p), elementwise=True, nanoseconds=6.3, floating=True,
           vjp=lambda ct, x: ct / conjugate(x + 1), samples=(Sample((_f,), low=-0.5), Sample((_z,), low=-0.5)))
sqrt = op("sqrt", "x", infer=same, ref=_quiet(np.sqrt), elementwise=True, nanoseconds=2.3, floating=True,
          vjp=lambda ct, out: ct * 0.5 / conjugate(out), samples=(Sample((_f,), low=0.5), Sample((_z,), low=0.5)))
rsqrt = op("rsqrt", "x", infer=same, ref=_quiet(lambda x: np.reciprocal(np.sqrt(x))),
           elementwise=True, nanoseconds=2.3, floating=True,
           vjp=lambda ct, out: ct * conjugate(-0.5 * out * out * out), samples=(Sample((_f,), low=0.5), Sample((_z,), low=0.5)),
           scalar=lambda x: 1.0 / sqrt(x))
sin = op("sin", "x", infer=same, ref=_quiet(np.sin), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: ct * conjugate(cos(x)), samples=(Sample((_f,)), Sample((_z,))))
cos = op("cos", "x", infer=same, ref=_quiet(np.cos), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: -ct * conjugate(sin(x)), samples=(Sample((_f,)), Sample((_z,))))
tanh = op("tanh", "x", infer=same, ref=_quiet(np.tanh), elementwise=True, nanoseconds=6.3, floating=True,
          vjp=lambda ct, out: ct * conjugate(1 - out * out), samples=(Sample((_f,)), Sample((_d,)), Sample((_z,))))


def _sigmoid(x: np.ndarray) -> Any:
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    # of -|x| alone, so that exp never overflows
    small = np.exp(-np.abs(widened(x)))
    return (np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)


sigmoid = op("sigmoid", "x", infer=same, ref=_quiet(_sigmoid), elementwise=True, nanoseconds=6.3, floating=True,
             vjp=lambda ct, out: ct * conjugate(out * (1 - out)), samples=(Sample((_f,)), Sample((_d,)), Sample((_z,))))


def _erf(x: np.ndarray) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


erf = op("erf", "x", infer=only_real("erf"), ref=_quiet(_erf), elementwise=True, nanoseconds=6.3, floating=True, costly=True,
         vjp=lambda ct, x: ct * (2 / math.sqrt(math.pi)) * exp(-x * x), samples=(Sample((_f,)), Sample((_d,))))
_zero = functools.lru_cache(functools.partial(np.zeros, ()))
"""Nothing, in a dtype: NumPy takes an array sooner than a number."""
relu = op("relu", "x", infer=only("relu", "a numeric dtype that is not complex", "int", "uint", "float"),
          ref=lambda x: np.maximum(x, _zero(x.dtype)), elementwise=True,
          vjp=lambda ct, out: where(out <= 0, 0.0, ct),  # nan lets it pass
          samples=(Sample((_f,)), Sample((_i,))),
          scalar=lambda x: maximum(x, 0))

# Rounding: their derivative is zero wherever they have one


def _rounding(name: str, ref: Callable[..., Any]) -> OpDef:
    return op(name, "x", infer=only(name, "a numeric dtype that is not complex", "int", "uint", "float"), ref=ref,
              elementwise=True, vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,)), Sample((_i,))))


floor = _rounding("floor", np.floor)
ceil = _rounding("ceil", np.ceil)
trunc = _rounding("trunc", np.trunc)
round = _rounding("round", lambda x: x.copy() if x.dtype.kind in "iu" else np.rint(x))

# Choosing

maximum = op("maximum", "x y", infer=only_real("maximum"), ref=np.maximum, elementwise=True,
             vjp=(lambda ct, x, y: where(x < y, 0.0, where(eq(x, y), ct * 0.5, ct)),  # where one is nan, both have it
                  lambda ct, x, y: where(y < x, 0.0, where(eq(x, y), ct * 0.5, ct))),
             samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))
minimum = op("minimum", "x y", infer=only_real("minimum"), ref=np.minimum, elementwise=True,
             vjp=(lambda ct, x, y: where(x > y, 0.0, where(eq(x, y), ct * 0.5, ct)),
                  lambda ct, x, y: where(y > x, 0.0, where(eq(x, y), ct * 0.5, ct))),
             samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))


def _where(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError("where: the condition is not boolean", expected="bool", got=str(condition),
                         hint="compare it with something, as in x > 0")
    return x


where = op("where", "condition x y", infer=_where, ref=np.where, elementwise=True, keeps="condition",
           vjp=(None, lambda ct, condition: where(condition, ct, 0.0), lambda ct, condition: where(condition, 0.0, ct)),
           samples=(Sample((TensorType(bool_, (3, 5)), _f, _f)), Sample((_b, _i, _i)),
                    Sample((TensorType(bool_, (3, 4)), _z, _z))))

# Comparisons

_compare: dict[str, Any] = {"elementwise": True, "vjp": not_differentiable,
                            "samples": (Sample((_f, _f)), Sample((_i, _i), low=0, high=3), Sample((_b, _b)))}
eq = op("eq", "x y", infer=boolean, ref=np.equal, **_compare)
ne = op("ne", "x y", infer=boolean, ref=np.not_equal, **_compare)
lt = op("lt", "x y", infer=_ordered("lt"), ref=np.less, **_compare)
le = op("le", "x y", infer=_ordered("le"), ref=np.less_equal, **_compare)
gt = op("gt", "x y", infer=_ordered("gt"), ref=np.greater, **_compare)
ge = op("ge", "x y", infer=_ordered("ge"), ref=np.greater_equal, **_compare)

# Bits, and logic on booleans


def _bitwise(name: str) -> Callable[..., TensorType]:
    return only(name, "bool or an integer dtype", "bool", "int", "uint")


_bits: dict[str, Any] = {"elementwise": True, "vjp": not_differentiable, "samples": (Sample((_i, _i)), Sample((_b, _b)))}
bitwise_and = op("bitwise_and", "x y", infer=_bitwise("bitwise_and"), ref=np.bitwise_and, **_bits)
bitwise_or = op("bitwise_or", "x y", infer=_bitwise("bitwise_or"), ref=np.bitwise_or, **_bits)
bitwise_xor = op("bitwise_xor", "x y", infer=_bitwise("bitwise_xor"), ref=np.bitwise_xor, **_bits)
bitwise_not = op("bitwise_not", "x", infer=_bitwise("bitwise_not"), ref=np.bitwise_not, elementwise=True,
                 vjp=not_differentiable, samples=(Sample((_i,)), Sample((_b,))))
_shift: dict[str, Any] = {"elementwise": True, "vjp": not_differentiable, "samples": (Sample((_i, _i), low=0, high=9),)}
shift_left = op("shift_left", "x y", infer=only("shift_left", "an integer dtype", "int", "uint"), ref=np.left_shift, **_shift)
shift_right = op("shift_right", "x y", infer=only("shift_right", "an integer dtype", "int", "uint"), ref=np.right_shift,
                 **_shift)

# Conversion


def _cast_ref(x: np.ndarray, dtype: DType) -> np.ndarray:
    return convert(x, dtype)


def _cast_lower(read: Any, index: Any, types: Any, dtype: DType) -> Any:
    return cast(read(0, index), dtype=dtype)


cast = op("cast", "x", "dtype", infer=lambda x, dtype: x.with_dtype(dtype), ref=_cast_ref, vjp=lambda ct: ct,
          lower=_cast_lower, pointwise=True, nanoseconds=0,
          samples=(Sample((_f,), {"dtype": float64}), Sample((_f,), {"dtype": int32}), Sample((_i,), {"dtype": float32}),
                   Sample((_i,), {"dtype": bool_}), Sample((_b,), {"dtype": float32}), Sample((_f,), {"dtype": uint8}, 0, 9),
                   Sample((_f,), {"dtype": complex64}), Sample((_z,), {"dtype": float32}), Sample((_z,), {"dtype": bool_})))

# A wall for derivatives

stop_gradient = op("stop_gradient", "x", infer=same, ref=lambda x: x, vjp=not_differentiable, elementwise=True,
                   scalar=lambda x: x, samples=(Sample((_f,)), Sample((_i,)), Sample((_z,))))
