"""Elementwise ops: one number in each operand makes one number of the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.op import Sample, not_differentiable, op
from graphc.ops.creation import zeros_like
from graphc.types import DType, TensorType, bool_, float32, float64, int32, int64, uint8

_f = TensorType(float32, (3, 5))
_d = TensorType(float64, (4,))
_i = TensorType(int64, (7,))
_b = TensorType(bool_, (7,))


def same(x: TensorType, *_: TensorType) -> TensorType:
    """The result's type is that of the first operand."""
    return x


def boolean(x: TensorType, *_: TensorType) -> TensorType:
    """The result is a boolean for each element."""
    return x.with_dtype(bool_)


def _only(name: str, allowed: str, *kinds: str) -> Callable[..., TensorType]:
    """The type rule of an op that is defined on some kinds of dtype alone."""

    def infer(x: TensorType, *_: TensorType) -> TensorType:
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name} is not defined on {x.dtype.name}", expected=allowed, got=str(x))
        return x

    return infer


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without NumPy's warnings of division by zero and the like: the result says inf or nan."""

    def ref(*arrays: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    ref.ufunc = function  # type: ignore[attr-defined]  # for callers that have silenced the warnings already
    return ref


# Arithmetic

add = op("add", "x y", infer=same, ref=_quiet(np.add), elementwise=True,
         vjp=(lambda ct: ct, lambda ct: ct), samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))
sub = op("sub", "x y", infer=_only("sub", "a numeric dtype", "int", "uint", "float"), ref=_quiet(np.subtract),
         elementwise=True, vjp=(lambda ct: ct, lambda ct: -ct), samples=(Sample((_f, _f)), Sample((_i, _i))))
mul = op("mul", "x y", infer=same, ref=_quiet(np.multiply), elementwise=True,
         vjp=(lambda ct, y: ct * y, lambda ct, x: ct * x), samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))
div = op("div", "x y", infer=same, ref=_quiet(np.divide), elementwise=True, nanoseconds=2.3, floating=True,
         vjp=(lambda ct, y: ct / y, lambda ct, y, out: -ct * out / y),
         samples=(Sample((_f, _f), low=0.5), Sample((_d, _d), low=0.5)))
neg = op("neg", "x", infer=_only("neg", "a numeric dtype", "int", "uint", "float"), ref=np.negative, elementwise=True,
         vjp=lambda ct: -ct, samples=(Sample((_f,)), Sample((_i,))))


def _sign(x: np.ndarray) -> Any:
    return np.subtract(x > 0, x < 0, dtype=np.int8).astype(x.dtype)  # of nan it is 0


sign = op("sign", "x", infer=_only("sign", "a numeric dtype", "int", "uint", "float"), ref=_sign, elementwise=True,
          vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,), low=0.5), Sample((_i,))),
          scalar=lambda x: where(x > 0, 1, where(x < 0, -1, zeros_like(x))))
abs = op("abs", "x", infer=_only("abs", "a numeric dtype", "int", "uint", "float"), ref=np.abs, elementwise=True,
         vjp=lambda ct, x: ct * sign(x), samples=(Sample((_f,), low=0.5), Sample((_i,))))


def _pow(x: np.ndarray, y: np.ndarray) -> Any:
    # NumPy refuses integers to negative integer powers; PyTorch truncates 1/x**n: 1, -1, or 0
    if x.dtype.kind in "iu" and y.dtype.kind == "i" and (y < 0).any():
        ones = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0))
        return np.where(y < 0, ones, np.power(x, np.maximum(y, 0))).astype(x.dtype)
    if y.ndim == 0 and x.dtype.kind == "f":
        return x ** y.item()  # NumPy squares and takes roots directly where the exponent is a number
    return np.power(x, y)


def _base_vjp(ct: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):
        return zeros_like(ct) if y == 0 else ct * (y * pow(x, y - 1))
    return where(eq(y, 0), 0.0, ct * y * pow(x, y - 1))


def _exponent_vjp(ct: Any, x: Any, y: Any, out: Any) -> Any:
    if isinstance(x, (int, float)):
        if x == 0:
            return where(ge(y, 0), 0.0, ct * out * -math.inf)
        return ct * out * math.log(x) if x > 0 else ct * math.nan
    return where(eq(x, 0) & ge(y, 0), 0.0, ct * out * log(x))


pow = op("pow", "x y", infer=_only("pow", "a numeric dtype", "int", "uint", "float"), ref=_quiet(_pow),
         elementwise=True, nanoseconds=25,
         vjp=(_base_vjp, _exponent_vjp),
         samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=0, high=5)))


def _floor_divide(x: np.ndarray, y: np.ndarray) -> Any:
    if x.dtype.kind != "f" and (y == 0).any():
        raise ZeroDivisionError("floor_divide: an integer was divided by zero")
    return np.floor_divide(x, y)


def _remainder(x: np.ndarray, y: np.ndarray) -> Any:
    if x.dtype.kind != "f" and (y == 0).any():
        raise ZeroDivisionError("remainder: an integer was divided by zero")
    return np.remainder(x, y)


floor_divide = op("floor_divide", "x y", infer=_only("floor_divide", "a numeric dtype", "int", "uint", "float"),
                  ref=_quiet(_floor_divide), elementwise=True, nanoseconds=20, vjp=not_differentiable,
                  samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=1, high=9)))
remainder = op("remainder", "x y", infer=_only("remainder", "a numeric dtype", "int", "uint", "float"),
               ref=_quiet(_remainder), elementwise=True, nanoseconds=20,
               vjp=(lambda ct: ct, lambda ct, x, y: -ct * floor(x / y)),
               samples=(Sample((_f, _f), low=0.5), Sample((_i, _i), low=1, high=9)))

# Functions of one number

exp = op("exp", "x", infer=same, ref=_quiet(np.exp), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, out: ct * out, samples=(Sample((_f,)), Sample((_d,))))
expm1 = op("expm1", "x", infer=same, ref=_quiet(np.expm1), elementwise=True, nanoseconds=6.3, floating=True,
           vjp=lambda ct, out: ct * (out + 1), samples=(Sample((_f,)),))
log = op("log", "x", infer=same, ref=_quiet(np.log), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: ct / x, samples=(Sample((_f,), low=0.5), Sample((_d,), low=0.5)))
log1p = op("log1p", "x", infer=same, ref=_quiet(np.log1p), elementwise=True, nanoseconds=6.3, floating=True,
           vjp=lambda ct, x: ct / (x + 1), samples=(Sample((_f,), low=-0.5),))
sqrt = op("sqrt", "x", infer=same, ref=_quiet(np.sqrt), elementwise=True, nanoseconds=2.3, floating=True,
          vjp=lambda ct, out: ct * 0.5 / out, samples=(Sample((_f,), low=0.5),))
rsqrt = op("rsqrt", "x", infer=same, ref=_quiet(lambda x: np.reciprocal(np.sqrt(x))),
           elementwise=True, nanoseconds=2.3, floating=True,
           vjp=lambda ct, x, out: ct * -0.5 * out / x, samples=(Sample((_f,), low=0.5),),
           scalar=lambda x: 1.0 / sqrt(x))
sin = op("sin", "x", infer=same, ref=_quiet(np.sin), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: ct * cos(x), samples=(Sample((_f,)),))
cos = op("cos", "x", infer=same, ref=_quiet(np.cos), elementwise=True, nanoseconds=6.3, floating=True,
         vjp=lambda ct, x: -ct * sin(x), samples=(Sample((_f,)),))
tanh = op("tanh", "x", infer=same, ref=_quiet(np.tanh), elementwise=True, nanoseconds=6.3, floating=True,
          vjp=lambda ct, out: ct * (1 - out * out), samples=(Sample((_f,)), Sample((_d,))))


def _sigmoid(x: np.ndarray) -> Any:
    # of -|x| alone, so that exp never overflows
    small = np.exp(-np.abs(x))
    return (np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)


sigmoid = op("sigmoid", "x", infer=same, ref=_quiet(_sigmoid), elementwise=True, nanoseconds=6.3, floating=True,
             vjp=lambda ct, out: ct * out * (1 - out), samples=(Sample((_f,)), Sample((_d,))))


def _erf(x: np.ndarray) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


erf = op("erf", "x", infer=same, ref=_quiet(_erf), elementwise=True, nanoseconds=6.3, floating=True, costly=True,
         vjp=lambda ct, x: ct * (2 / math.sqrt(math.pi)) * exp(-x * x), samples=(Sample((_f,)), Sample((_d,))))
relu = op("relu", "x", infer=_only("relu", "a numeric dtype", "int", "uint", "float"),
          ref=lambda x: np.maximum(x, x.dtype.type(0)), elementwise=True,
          vjp=lambda ct, out: where(out > 0, ct, 0.0), samples=(Sample((_f,)), Sample((_i,))),
          scalar=lambda x: maximum(x, 0))

# Rounding: their derivative is zero wherever they have one

floor = op("floor", "x", infer=same, ref=np.floor, elementwise=True, vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,)),))
ceil = op("ceil", "x", infer=same, ref=np.ceil, elementwise=True, vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,)),))
trunc = op("trunc", "x", infer=same, ref=np.trunc, elementwise=True, vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,)),))
round = op("round", "x", infer=same, ref=np.rint, elementwise=True, vjp=lambda ct: zeros_like(ct), samples=(Sample((_f,)),))

# Choosing

maximum = op("maximum", "x y", infer=same, ref=np.maximum, elementwise=True,
             vjp=(lambda ct, x, y: where(x > y, ct, where(eq(x, y), ct * 0.5, 0.0)),
                  lambda ct, x, y: where(y > x, ct, where(eq(x, y), ct * 0.5, 0.0))),
             samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))
minimum = op("minimum", "x y", infer=same, ref=np.minimum, elementwise=True,
             vjp=(lambda ct, x, y: where(x < y, ct, where(eq(x, y), ct * 0.5, 0.0)),
                  lambda ct, x, y: where(y < x, ct, where(eq(x, y), ct * 0.5, 0.0))),
             samples=(Sample((_f, _f)), Sample((_i, _i)), Sample((_b, _b))))


def _where(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError("where: the condition is not boolean", expected="bool", got=str(condition),
                         hint="compare it with something, as in x > 0")
    return x


where = op("where", "condition x y", infer=_where, ref=np.where, elementwise=True, keeps="condition",
           vjp=(None, lambda ct, condition: where(condition, ct, 0.0), lambda ct, condition: where(condition, 0.0, ct)),
           samples=(Sample((TensorType(bool_, (3, 5)), _f, _f)), Sample((_b, _i, _i))))

# Comparisons

_compare: dict[str, Any] = {"infer": boolean, "elementwise": True, "vjp": not_differentiable,
                            "samples": (Sample((_f, _f)), Sample((_i, _i), low=0, high=3), Sample((_b, _b)))}
eq = op("eq", "x y", ref=np.equal, **_compare)
ne = op("ne", "x y", ref=np.not_equal, **_compare)
lt = op("lt", "x y", ref=np.less, **_compare)
le = op("le", "x y", ref=np.less_equal, **_compare)
gt = op("gt", "x y", ref=np.greater, **_compare)
ge = op("ge", "x y", ref=np.greater_equal, **_compare)

# Bits, and logic on booleans


def _bitwise(name: str) -> Callable[..., TensorType]:
    return _only(name, "bool or an integer dtype", "bool", "int", "uint")


_bits: dict[str, Any] = {"elementwise": True, "vjp": not_differentiable, "samples": (Sample((_i, _i)), Sample((_b, _b)))}
bitwise_and = op("bitwise_and", "x y", infer=_bitwise("bitwise_and"), ref=np.bitwise_and, **_bits)
bitwise_or = op("bitwise_or", "x y", infer=_bitwise("bitwise_or"), ref=np.bitwise_or, **_bits)
bitwise_xor = op("bitwise_xor", "x y", infer=_bitwise("bitwise_xor"), ref=np.bitwise_xor, **_bits)
bitwise_not = op("bitwise_not", "x", infer=_bitwise("bitwise_not"), ref=np.bitwise_not, elementwise=True,
                 vjp=not_differentiable, samples=(Sample((_i,)), Sample((_b,))))
_shift: dict[str, Any] = {"elementwise": True, "vjp": not_differentiable, "samples": (Sample((_i, _i), low=0, high=9),)}
shift_left = op("shift_left", "x y", infer=_only("shift_left", "an integer dtype", "int", "uint"), ref=np.left_shift, **_shift)
shift_right = op("shift_right", "x y", infer=_only("shift_right", "an integer dtype", "int", "uint"), ref=np.right_shift,
                 **_shift)

# Conversion


def _cast_ref(x: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(dtype.numpy)


def _cast_lower(read: Any, index: Any, types: Any, dtype: DType) -> Any:
    return cast(read(0, index), dtype=dtype)


cast = op("cast", "x", "dtype", infer=lambda x, dtype: x.with_dtype(dtype), ref=_cast_ref, vjp=lambda ct: ct,
          lower=_cast_lower, pointwise=True, nanoseconds=0,
          samples=(Sample((_f,), {"dtype": float64}), Sample((_f,), {"dtype": int32}), Sample((_i,), {"dtype": float32}),
                   Sample((_i,), {"dtype": bool_}), Sample((_b,), {"dtype": float32}), Sample((_f,), {"dtype": uint8}, 0, 9)))

# A wall for derivatives

stop_gradient = op("stop_gradient", "x", infer=same, ref=lambda x: x, vjp=not_differentiable, elementwise=True,
                   scalar=lambda x: x, samples=(Sample((_f,)), Sample((_i,))))
