"""Operators that compute element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.protobuf import dtype_of_element
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import REFUSED, reads
from graphc.types import DType, bool_, int64, promote_types

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": ops.abs, "Acos": ops.acos, "Acosh": ops.acosh, "Asin": ops.asin, "Asinh": ops.asinh, "Atan": ops.atan,
    "Atanh": ops.atanh, "BitwiseNot": ops.bitwise_not, "Ceil": ops.ceil, "Cos": ops.cos, "Cosh": ops.cosh, "Erf": ops.erf,
    "Exp": ops.exp, "Floor": ops.floor, "IsNaN": lambda x: ops.ne(x, x), "Log": ops.log, "Neg": ops.neg, "Not": ops.bitwise_not,
    "Reciprocal": lambda x: 1.0 / x, "Relu": ops.relu, "Round": ops.round, "Sigmoid": ops.sigmoid, "Sign": ops.sign,
    "Sin": ops.sin, "Sinh": ops.sinh, "Softsign": lambda x: x / (ops.abs(x) + 1.0), "Sqrt": ops.sqrt, "Tan": ops.tan,
    "Tanh": ops.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": ops.add, "And": ops.bitwise_and, "BitwiseAnd": ops.bitwise_and, "BitwiseOr": ops.bitwise_or,
    "BitwiseXor": ops.bitwise_xor, "Equal": ops.eq, "Greater": ops.gt, "GreaterOrEqual": ops.ge, "Less": ops.lt,
    "LessOrEqual": ops.le, "Mul": ops.mul, "Or": ops.bitwise_or, "Sub": ops.sub, "Xor": ops.bitwise_xor,
}  # fmt: skip


@reads(*_UNARY)
def _unary(c: Call) -> Value:
    return _UNARY[c.op_type](c[0])


@reads(*_BINARY)
def _binary(c: Call) -> Value:
    return _BINARY[c.op_type](*_of_one_dtype(c))


def _of_one_dtype(c: Call) -> tuple[Value, Value]:
    x, y = c[0], c[1]
    if x.dtype is not y.dtype:
        raise BadModel("the operands differ in dtype", got=f"{x.type} and {y.type}")
    axis = c.int("axis")
    if c.opset < 7 and axis is not None and y.ndim < x.ndim:  # where the second operand stands in the first
        y = ops.reshape(y, (*y.shape, *(1 for _ in range(x.ndim - axis - y.ndim))))
    return x, y


@reads("Div")
def _div(c: Call) -> Value:
    """Of integers rounded towards zero."""
    x, y = _of_one_dtype(c)
    if x.dtype.is_differentiable:
        return ops.div(x, y)
    return ops.floor_divide(x - ops.fmod(x, y), y)


@reads("Mod")
def _mod(c: Call) -> Value:
    return ops.fmod(*_of_one_dtype(c)) if c.int("fmod", 0) else ops.remainder(*_of_one_dtype(c))


@reads("Pow")
def _pow(c: Call) -> Value:
    x, y = c[0], c[1]
    if x.dtype is y.dtype:
        return ops.pow(x, y)
    common = promote_types(x.dtype, y.dtype)
    return ops.cast(ops.pow(ops.cast(x, dtype=common), ops.cast(y, dtype=common)), dtype=x.dtype)


@reads("BitShift")
def _bit_shift(c: Call) -> Value:
    shift = {"LEFT": ops.shift_left, "RIGHT": ops.shift_right}.get(c.text("direction"))
    if shift is None:
        raise BadModel("the direction of a shift", expected="LEFT or RIGHT", got=c.text("direction"))
    return shift(c[0], c[1])


@reads("Max", "Min", "Sum", "Mean")
def _many(c: Call) -> Value:
    combine = {"Max": ops.maximum, "Min": ops.minimum}.get(c.op_type, ops.add)
    first, *rest = c.values()
    for x in rest:
        first = combine(first, x)
    return first / len(c.operands) if c.op_type == "Mean" else first


@reads("Where")
def _where(c: Call) -> Value:
    return ops.where(c[0], c[1], c[2])


@reads("Clip")
def _clip(c: Call) -> Value:
    x = c[0]
    low = c.optional(1) if c.has(1) else c.float("min")
    high = c.optional(2) if c.has(2) else c.float("max")
    if low is not None:
        x = ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


@reads("IsInf")
def _is_inf(c: Call) -> Value:
    x = c[0]
    which = [value for value, name in ((math.inf, "detect_positive"), (-math.inf, "detect_negative")) if c.int(name, 1)]
    found = [ops.eq(x, value) for value in which]
    if not found:
        return ops.full(x.type.with_dtype(bool_), False, x)
    return found[0] if len(found) == 1 else ops.bitwise_or(*found)


# Dtypes


def converted(x: Value, dtype: DType) -> Value:
    """The value in another dtype."""
    return x if x.dtype is dtype else ops.cast(x, dtype=dtype)


@reads("Cast")
def _cast(c: Call) -> Value:
    return converted(c[0], dtype_of_element(c.int("to")))


@reads("CastLike")
def _cast_like(c: Call) -> Value:
    return converted(c[0], c.type(1).dtype)


@reads("Identity")
def _identity(c: Call) -> Any:
    return c.operands[0]


@reads("OptionalHasElement")
def _has_element(c: Call) -> np.ndarray:
    """Of a tensor, which is always there where it is given."""
    return np.array(c.has(0))


@reads("OptionalGetElement")
def _get_element(c: Call) -> Any:
    return c.operands[0]


@reads("Dropout")
def _dropout(c: Call) -> Any:
    """What it is outside of training: nothing."""
    if c.has(2) and bool(c.number(2)) and (c.number(1) if c.has(1) else 0.5) != 0:
        raise BadModel("dropout while training draws random numbers", hint=_RANDOM)
    x = c[0]
    return x, ops.full(x.type.with_dtype(bool_) if c.opset >= 10 else x.type, True, x)


# Activations


def softplus(x: Value) -> Value:
    """log(1 + exp(x)), which does not overflow."""
    return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x)))


def elu(x: Value, alpha: float = 1.0) -> Value:
    return ops.where(x < 0, ops.expm1(ops.minimum(x, 0)) * alpha, x)


def hard_sigmoid(x: Value, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return ops.minimum(ops.relu(x * alpha + beta), 1)


@reads("Softplus")
def _softplus(c: Call) -> Value:
    return softplus(c[0])


@reads("LeakyRelu")
def _leaky_relu(c: Call) -> Value:
    x = c[0]
    return ops.where(x < 0, x * c.float("alpha", 0.01), x)


@reads("PRelu")
def _prelu(c: Call) -> Value:
    x, slope = c[0], c[1]
    if c.opset < 7 and slope.ndim == 1 < x.ndim:  # a number for each channel
        slope = ops.reshape(slope, (slope.shape[0], *(1 for _ in range(x.ndim - 2))))
    return ops.where(x < 0, x * slope, x)


@reads("Elu")
def _elu(c: Call) -> Value:
    return elu(c[0], c.float("alpha", 1.0))


@reads("Selu")
def _selu(c: Call) -> Value:
    alpha, gamma = c.float("alpha", 1.67326319217681884765625), c.float("gamma", 1.05070102214813232421875)
    return elu(c[0], alpha) * gamma


@reads("Celu")
def _celu(c: Call) -> Value:
    alpha = c.float("alpha", 1.0)
    return elu(c[0] / alpha, 1.0) * alpha


@reads("HardSigmoid")
def _hard_sigmoid(c: Call) -> Value:
    return hard_sigmoid(c[0], c.float("alpha", 0.2), c.float("beta", 0.5))


@reads("HardSwish")
def _hard_swish(c: Call) -> Value:
    return c[0] * hard_sigmoid(c[0], 1 / 6, 0.5)


@reads("Swish")
def _swish(c: Call) -> Value:
    x, alpha = c[0], c.float("alpha", 1.0)
    return x * ops.sigmoid(x if alpha == 1 else x * alpha)


@reads("Mish")
def _mish(c: Call) -> Value:
    return c[0] * ops.tanh(softplus(c[0]))


@reads("ThresholdedRelu")
def _thresholded_relu(c: Call) -> Value:
    return ops.where(c[0] > c.float("alpha", 1.0), c[0], 0)


@reads("Shrink")
def _shrink(c: Call) -> Value:
    x, bias, bound = c[0], c.float("bias", 0.0), c.float("lambd", 0.5)
    return converted(ops.where(x < -bound, x + bias, ops.where(x > bound, x - bias, 0)), x.dtype)


@reads("Gelu")
def _gelu(c: Call) -> Value:
    x = c[0]
    if c.text("approximate", "none") == "tanh":
        return x * 0.5 * (ops.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)
    return x * 0.5 * (ops.erf(x * math.sqrt(0.5)) + 1.0)


# Numbers from nowhere


@reads("Constant")
def _constant(c: Call) -> Any:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if "value" in c.attributes:
        return c.attribute("value", np.ndarray, None)
    for name, dtype in kinds.items():
        if name in c.attributes:
            return np.array(c.attributes[name], dtype)
    raise BadModel("a constant without a value that is supported", got=", ".join(c.attributes) or "nothing")


@reads("ConstantOfShape")
def _constant_of_shape(c: Call) -> Value:
    value = c.attribute("value", np.ndarray, np.zeros(1, np.float32))
    if value.size != 1:
        raise BadModel("the value of a ConstantOfShape is not one number", got=str(list(value.shape)))
    return ops.broadcast_to(c.scope.builder.constant(value.reshape(())), c.sizes(0))


@reads("Range")
def _range(c: Call) -> Value:
    start, stop, step = c.number(0), c.number(1), c.number(2)
    dtype = c.type(0).dtype
    if step == 0:
        raise BadModel("a range with the step 0")
    if dtype.is_floating_point:
        size: Any = max(0, math.ceil((stop - start) / step))
    else:
        size = -((start - stop) // step)
        size = max(0, size) if isinstance(size, int) else size
    places = ops.iota(shape=(size,), axis=0, dtype=dtype, like=_anything(c))
    if not (isinstance(step, (int, float)) and step == 1):
        places = places * c.scope.builder.constant(step, dtype)
    return places if isinstance(start, (int, float)) and start == 0 else places + c.scope.builder.constant(start, dtype)


def _anything(c: Call) -> Value:
    return c.scope.builder.constant(0, int64)


@reads("EyeLike")
def _eye_like(c: Call) -> Value:
    like = c.type(0)
    dtype = dtype_of_element(c.int("dtype")) if c.int("dtype") is not None else like.dtype
    rows, columns = (ops.iota(shape=like.shape, axis=axis, dtype=int64, like=_anything(c)) for axis in (0, 1))
    return ops.cast(ops.eq(columns - rows, c.int("k", 0)), dtype=dtype)


_RANDOM = "draw the numbers outside of the model, and pass them as an input"
REFUSED.update(dict.fromkeys(
    ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceMap",
     "SplitToSequence"),
    "there are no sequences of tensors: split and concatenate tensors"))
REFUSED.update(dict.fromkeys(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"), _RANDOM))
