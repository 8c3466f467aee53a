"""Functions of one element in each operand."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import DTypeError, GraphcError
from graphc.frontend.arguments import as_operand, emit, promoted
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, float32, float64, uint8

FUNCTIONS = """
    add addcdiv addcmul abs allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor can_cast ceil clamp clamp_max clamp_min cos cosh deg2rad div eq equal erf erfc exp exp2 expm1
    float_power floor floor_divide fmax fmin fmod frac ge gt isclose isfinite isinf isnan isneginf isposinf le lerp
    log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor logit lt maximum minimum mul
    nan_to_num ne neg pow rad2deg reciprocal relu remainder result_type round rsqrt rsub sigmoid sign sin sinh sqrt
    square sub tan tanh trunc
"""
METHODS = """
    abs add addcdiv addcmul allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor ceil clamp clamp_max clamp_min cos cosh deg2rad div eq equal erf erfc exp exp2 expm1 float_power
    floor floor_divide fmax fmin fmod frac ge gt isclose isfinite isinf isnan isneginf isposinf le lerp log log10
    log1p log2 logaddexp logical_and logical_not logical_or logical_xor logit lt maximum minimum mul nan_to_num ne
    neg pow rad2deg reciprocal relu remainder round rsqrt sigmoid sign sin sinh sqrt square sub tan tanh trunc
"""
IN_PLACE = """
    abs addcdiv addcmul bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil
    clamp clamp_max clamp_min cos cosh deg2rad eq erf erfc exp exp2 expm1 float_power floor floor_divide fmod frac
    ge gt le lerp log log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt nan_to_num ne neg pow
    rad2deg reciprocal relu remainder round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc
"""
ALIASES = {
    "absolute": "abs", "clip": "clamp", "divide": "div", "fix": "trunc", "greater": "gt", "greater_equal": "ge",
    "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "sgn": "sign",
    "subtract": "sub", "true_divide": "div",
}

Number = bool | int | float
Operand = Tensor | Number


def cast(input: Tensor, dtype: DType) -> Tensor:
    """The tensor in another dtype; the tensor itself if it has that dtype already."""
    if input.dtype is dtype:
        return input
    return named(emit(ops.cast, (input,), {"dtype": dtype}), "ToCopy")


def _floating(input: Any) -> Any:
    """Integers as float32, as functions with real results take them."""
    if isinstance(input, Tensor) and not input.dtype.is_floating_point:
        return cast(input, float32)
    return input


# Arithmetic


def add(input: Operand, other: Operand, *more: Operand, alpha: Number = 1) -> Tensor:
    """input + alpha * other."""
    if more:  # the order of old: add(input, alpha, other)
        other, alpha = more[0], other  # type: ignore[assignment]
    if alpha != 1:
        other = _scaled("add", input, other, alpha)
    return emit(ops.add, (input, other), {})


def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other."""
    if alpha != 1:
        other = _scaled("sub", input, other, alpha)
    try:
        return emit(ops.sub, (input, other), {})
    except DTypeError:
        raise GraphcError("Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
                          "`logical_xor()` operator instead.") from None


def _scaled(name: str, input: Any, other: Any, alpha: Number) -> Any:
    if isinstance(alpha, float) and not promoted(input, other).is_floating_point:
        raise GraphcError(f"{name}: For integral input tensors, argument alpha must not be a floating point number.")
    return other * alpha


def rsub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other - alpha * input."""
    return named(sub(other, input if alpha == 1 else input * alpha), "Rsub")


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other."""
    return emit(ops.mul, (input, other), {})


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; with `rounding_mode` "trunc" or "floor" rounded towards zero or down."""
    if rounding_mode is None:
        return emit(ops.div, (input, other), {})
    if rounding_mode == "floor":
        return without_slope(floor_divide(input, other), (input, other), "Div")
    if rounding_mode != "trunc":
        raise GraphcError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                          f"{rounding_mode!r}")
    dtype = promoted(input, other)
    if dtype.is_floating_point:
        return named(trunc(emit(ops.div, (input, other), {})), "Div")
    quotient = floor_divide(input, other)
    # towards zero instead of down: one more where there is a rest and the signs differ
    adjust = ((remainder(input, other) != 0) & ((input < 0) ^ (other < 0)))
    return quotient + cast(adjust, dtype)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """input / other, rounded down."""
    return emit(ops.floor_divide, (input, other), {})


def remainder(input: Operand, other: Operand) -> Tensor:
    """What is left of input after whole multiples of other; it has the sign of other."""
    return emit(ops.remainder, (input, other), {})


def fmod(input: Tensor, other: Operand) -> Tensor:
    """What is left of input after whole multiples of other; it has the sign of input."""
    rest = remainder(abs(input), abs(other) if isinstance(other, Tensor) else builtins.abs(other))
    return named(where(input < 0, -rest, rest), "Fmod")


def neg(input: Tensor) -> Tensor:
    """-input."""
    if input.dtype is bool_:
        raise GraphcError("Negation, the `-` operator, on a bool tensor is not supported",
                          hint="use the `~` or `logical_not()` operator instead")
    return emit(ops.neg, (input,), {})


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power of exponent."""
    if isinstance(exponent, (int, float)) and not isinstance(exponent, bool) and isinstance(input, Tensor):
        if isinstance(exponent, int) and exponent < 0 and not input.dtype.is_floating_point:
            raise GraphcError("Integers to negative integer powers are not allowed.", hint="convert the input to a float dtype")
        if input.dtype is bool_:
            input = cast(input, promoted(input, exponent))
    return emit(ops.pow, (input, exponent), {})


def square(input: Tensor) -> Tensor:
    """input ** 2."""
    return pow(input, 2)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, computed in float64."""
    base = cast(input, float64) if isinstance(input, Tensor) else float(input)
    return pow(base, cast(exponent, float64) if isinstance(exponent, Tensor) else float(exponent))


def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return named(div(1, input), "Reciprocal")


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    product = tensor1 * tensor2
    return named(input + (product if value == 1 else product * value), "Addcmul")


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    if not promoted(tensor1, tensor2).is_floating_point:
        raise GraphcError("Integer division with addcdiv is no longer supported", hint="convert the operands to a float dtype")
    quotient = (tensor1 if value == 1 else tensor1 * value) / tensor2
    return named(input + quotient, "Addcdiv")


def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input)."""
    difference = end - input
    if isinstance(weight, Tensor):
        near = input + weight * difference
        return named(where(abs(weight) < 0.5, near, end - difference * (1 - weight)), "Lerp")
    if weight < 0.5:
        return named(input + weight * difference, "Lerp")
    return named(end - difference * (1 - weight), "Lerp")


# Functions of one number


def exp(input: Tensor) -> Tensor:
    """e to the power of input."""
    return emit(ops.exp, (input,), {})


def expm1(input: Tensor) -> Tensor:
    """exp(input) - 1, exact for small input."""
    return emit(ops.expm1, (input,), {})


def exp2(input: Tensor) -> Tensor:
    """2 to the power of input."""
    return named(pow(2.0, _floating(input)), "Exp2")


def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return emit(ops.log, (input,), {})


def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact for small input."""
    return emit(ops.log1p, (input,), {})


def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return named(log(input) * (1 / math.log(2)), "Log2")


def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return named(log(input) * (1 / math.log(10)), "Log10")


def sqrt(input: Tensor) -> Tensor:
    """The square root."""
    return emit(ops.sqrt, (input,), {})


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return emit(ops.rsqrt, (input,), {})


def sin(input: Tensor) -> Tensor:
    """The sine."""
    return emit(ops.sin, (input,), {})


def cos(input: Tensor) -> Tensor:
    """The cosine."""
    return emit(ops.cos, (input,), {})


def tan(input: Tensor) -> Tensor:
    """The tangent."""
    return named(sin(input) / cos(input), "Tan")


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine, (e^x - e^-x) / 2."""
    return named((exp(input) - exp(-_floating(input))) * 0.5, "Sinh")


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine, (e^x + e^-x) / 2."""
    return named((exp(input) + exp(-_floating(input))) * 0.5, "Cosh")


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return emit(ops.tanh, (input,), {})


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input))."""
    return emit(ops.sigmoid, (input,), {})


def relu(input: Tensor) -> Tensor:
    """input where it is positive, else 0."""
    return emit(ops.relu, (input,), {})


def erf(input: Tensor) -> Tensor:
    """The error function."""
    return emit(ops.erf, (input,), {})


def erfc(input: Tensor) -> Tensor:
    """1 - erf(input)."""
    return named(1 - erf(input), "Erfc")


def abs(input: Tensor) -> Tensor:
    """The absolute value."""
    return emit(ops.abs, (input,), {})


def sign(input: Tensor) -> Tensor:
    """1, 0 or -1."""
    return input.clone() if input.dtype is bool_ else emit(ops.sign, (input,), {})


def floor(input: Tensor) -> Tensor:
    """Rounded down."""
    return emit(ops.floor, (input,), {})


def ceil(input: Tensor) -> Tensor:
    """Rounded up."""
    return emit(ops.ceil, (input,), {})


def trunc(input: Tensor) -> Tensor:
    """Rounded towards zero."""
    return emit(ops.trunc, (input,), {})


def frac(input: Tensor) -> Tensor:
    """What trunc() takes away."""
    return named(input - trunc(input), "Frac")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to the nearest integer, halves to the even one; or to a number of decimals."""
    if not input.dtype.is_floating_point:
        return input.clone()
    if decimals == 0:
        return emit(ops.round, (input,), {})
    scale = 10.0 ** builtins.abs(decimals)
    if decimals > 0:
        return named(emit(ops.round, (input * scale,), {}) / scale, "Round")
    return named(emit(ops.round, (input / scale,), {}) * scale, "Round")


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return named(input * (math.pi / 180), "Deg2Rad")


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return named(input * (180 / math.pi), "Rad2Deg")


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)); with `eps`, x is kept between eps and 1 - eps."""
    x = _floating(input)
    if eps is not None:
        return named(log((kept := clamp(x, eps, 1 - eps)) / (1 - kept)), "Logit")
    x = x * where((x < 0) | (x > 1), math.nan, 1.0)  # neither a value nor a slope
    return named(log(x / (1 - x)), "Logit")


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow."""
    top = maximum(input, other)
    difference = -abs(input - other)
    return named(where(isinf(top) & (input == other), top, top + log1p(exp(difference))), "Logaddexp")


# Choosing


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of each two elements; nan if one is nan."""
    return emit(ops.maximum, (input, other), {})


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of each two elements; nan if one is nan."""
    return emit(ops.minimum, (input, other), {})


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of each two elements; the number if one is nan."""
    return named(where(isnan(input) | (input < other), other, input), "Fmax")


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of each two elements; the number if one is nan."""
    return named(where(isnan(input) | (input > other), other, input), "Fmin")


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """`input` where the condition holds and `other` elsewhere."""
    if condition.dtype is uint8:
        condition = cast(condition, bool_)
    return emit(ops.where, (condition, as_operand(input), as_operand(other)), {})


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """No less than `min` and no more than `max`. The gradient passes where nothing was cut off, the ends included."""
    if min is None and max is None:
        raise GraphcError("clamp: At least one of 'min' or 'max' must not be None")
    dtype = promoted(input, *(end for end in (min, max) if end is not None))
    input = cast(input, dtype)
    out = input
    if min is not None:
        out = where(input < min, min, out)
    if max is not None:
        out = where(out > max, max, out)
    return named(out, "Clamp")


def where_method(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """The tensor's elements where the condition holds, and `other` elsewhere."""
    return where(condition, self, other)


def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """No less than `min`."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """No more than `max`."""
    return clamp(input, max=max)


def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Numbers in the place of nan and the infinities: by default 0 and the largest and least of the dtype."""
    if not input.dtype.is_floating_point:
        return input.clone()
    limits = np.finfo(input.dtype.numpy)
    out = where(isnan(input), 0.0 if nan is None else nan, input)
    out = where(input == math.inf, float(limits.max) if posinf is None else posinf, out)
    return named(where(input == -math.inf, float(limits.min) if neginf is None else neginf, out), "NanToNum")


# Comparisons and logic


def eq(input: Tensor, other: Operand) -> Tensor:
    """input == other, for each element."""
    return emit(ops.eq, (input, other), {})


def ne(input: Tensor, other: Operand) -> Tensor:
    """input != other, for each element."""
    return emit(ops.ne, (input, other), {})


def lt(input: Tensor, other: Operand) -> Tensor:
    """input < other, for each element."""
    return emit(ops.lt, (input, other), {})


def le(input: Tensor, other: Operand) -> Tensor:
    """input <= other, for each element."""
    return emit(ops.le, (input, other), {})


def gt(input: Tensor, other: Operand) -> Tensor:
    """input > other, for each element."""
    return emit(ops.gt, (input, other), {})


def ge(input: Tensor, other: Operand) -> Tensor:
    """input >= other, for each element."""
    return emit(ops.ge, (input, other), {})


def isnan(input: Tensor) -> Tensor:
    """Whether each element is not a number."""
    return ne(input, input)


def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite."""
    return eq(abs(input), math.inf) if input.dtype.is_floating_point else ne(input, input)


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor nan."""
    return lt(abs(input), math.inf) if input.dtype.is_floating_point else eq(input, input)


def isposinf(input: Tensor) -> Tensor:
    """Whether each element is positive infinity."""
    return eq(input, math.inf)


def isneginf(input: Tensor) -> Tensor:
    """Whether each element is negative infinity."""
    return eq(input, -math.inf)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, for each element."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise GraphcError(f"{name} must be greater than or equal to zero, but got {value}")
    if input.dtype is not other.dtype:
        raise GraphcError(f"{input.dtype.name} did not match {other.dtype.name}", hint="convert one with .to(dtype)")
    close = input == other
    if equal_nan and input.dtype.is_floating_point:
        close = close | (isnan(input) & isnan(other))
    x, y = _floating(input), _floating(other)
    return close | (isfinite(x - y) & (abs(x - y) <= atol + abs(rtol * y)))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal."""
    return input.shape == other.shape and bool((input == other).all())


def _truth(input: Operand) -> Any:
    return ne(input, 0) if isinstance(input, Tensor) and input.dtype is not bool_ else input


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are nonzero."""
    return emit(ops.bitwise_and, (_truth(input), _truth(other)), {})


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether at least one is nonzero."""
    return emit(ops.bitwise_or, (_truth(input), _truth(other)), {})


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one is nonzero."""
    return emit(ops.bitwise_xor, (_truth(input), _truth(other)), {})


def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero."""
    return emit(ops.bitwise_not, (_truth(input),), {})


def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """Bit by bit and; logical and of bools."""
    return emit(ops.bitwise_and, (input, other), {})


def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """Bit by bit or; logical or of bools."""
    return emit(ops.bitwise_or, (input, other), {})


def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """Bit by bit exclusive or."""
    return emit(ops.bitwise_xor, (input, other), {})


def bitwise_not(input: Tensor) -> Tensor:
    """Every bit turned; logical not of bools."""
    return emit(ops.bitwise_not, (input,), {})


def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input * 2 ** other."""
    return emit(ops.shift_left, (input, other), {})


def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input // 2 ** other."""
    return emit(ops.shift_right, (input, other), {})


def result_type(tensor1: Operand, tensor2: Operand) -> DType:
    """The dtype that an operation on both would compute in."""
    return promoted(tensor1, tensor2)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether promotion's ladder (bool, integers, floats) allows the conversion."""
    if to.category < from_.category:
        return False
    return not (to.kind == "uint" and from_.kind == "int")

