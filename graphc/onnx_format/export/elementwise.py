"""Elementwise ops as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import graphc.ops as ops
from graphc.ir import Builder
from graphc.onnx_format.export.table import expands, writes
from graphc.onnx_format.export.writer import Step, Writer, widened
from graphc.types import TensorType, bool_, int32, int64, uint64

UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log", "neg": "Neg",
    "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt",
    "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
BINARY = {"div": "Div", "maximum": "Max", "minimum": "Min", "mul": "Mul", "pow": "Pow", "sub": "Sub", "add": "Add"}
COMPARE = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
ON_BOOLS = {"add": "Or", "mul": "And", "maximum": "Or", "minimum": "And"}
BITS = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor"}
_ROUNDING = ("ceil", "floor", "round", "trunc")


@writes(*UNARY)
def _unary(w: Writer, step: Step) -> str:
    if step.op.name in _ROUNDING and not step.dtype.is_floating_point:
        return step.names[0]
    if step.op.name == "relu" and not step.dtype.is_floating_point:  # ONNX's is for floats and, of late, some integers
        return str(w.emit("Max", step.names[0], w.number(0, step.dtype)))
    if step.op.name == "neg" and step.dtype.kind == "uint":
        return widened(w, step, lambda names: str(w.emit("Neg", *names)))
    return str(w.emit(UNARY[step.op.name], *step.names))


@writes(*BINARY)
def _binary(w: Writer, step: Step) -> str:
    if step.dtype is bool_:
        return str(w.emit(ON_BOOLS[step.op.name], *step.names))
    if step.op.name == "pow":
        return widened(w, step, lambda names: str(w.emit("Pow", *names)))
    return str(w.emit(BINARY[step.op.name], *step.names))


@writes(*COMPARE, "ne")
def _compare(w: Writer, step: Step) -> str:
    name = step.op.name
    if name == "ne":
        return str(w.emit("Not", w.emit("Equal", *step.names)))
    names = step.names
    if step.dtype is bool_ and name != "eq":  # ONNX has no order of bools
        names = tuple(w.cast(x, int32) for x in names)
    return str(w.emit(COMPARE[name], *names))


@writes(*BITS)
def _bits(w: Writer, step: Step) -> str:
    return str(w.emit(f"{'' if step.dtype is bool_ else 'Bitwise'}{BITS[step.op.name]}", *step.names))


@writes("bitwise_not")
def _bitwise_not(w: Writer, step: Step) -> str:
    return str(w.emit("Not" if step.dtype is bool_ else "BitwiseNot", *step.names))


@writes("where")
def _where(w: Writer, step: Step) -> str:
    return str(w.emit("Where", *step.names))


@writes("cast")
def _cast(w: Writer, step: Step) -> str:
    return w.cast(step.names[0], step.type.dtype)


@writes("stop_gradient", "copy", "fence", "transfer", "in_range")
def _same(w: Writer, step: Step) -> str:
    return step.names[0]


@writes("rsqrt")
def _rsqrt(w: Writer, step: Step) -> str:
    return str(w.emit("Reciprocal", w.emit("Sqrt", *step.names)))


@writes("trunc")
def _trunc(w: Writer, step: Step) -> str:
    if not step.dtype.is_floating_point:
        return step.names[0]
    return str(w.emit("Mul", w.emit("Sign", *step.names), w.emit("Floor", w.emit("Abs", *step.names))))


@writes("fmod")
def _fmod(w: Writer, step: Step) -> str:
    return str(w.emit("Mod", *step.names, fmod=1))


@writes("remainder")
def _remainder(w: Writer, step: Step) -> str:
    """Of the divisor's sign; ONNX's for floats has that of the dividend."""
    if not step.dtype.is_floating_point:
        return str(w.emit("Mod", *step.names, fmod=0))
    x, y = step.names
    rest, zero = w.emit("Mod", x, y, fmod=1), w.number(0, step.dtype)
    differ = w.emit("Xor", w.emit("Less", rest, zero), w.emit("Less", y, zero))
    wrong = w.emit("And", w.emit("Not", w.emit("Equal", rest, zero)), differ)
    return str(w.emit("Where", wrong, w.emit("Add", rest, y), rest))


@writes("floor_divide")
def _floor_divide(w: Writer, step: Step) -> str:
    if step.dtype.is_floating_point:
        return str(w.emit("Floor", w.emit("Div", *step.names)))
    x, y = step.names
    return str(w.emit("Div", w.emit("Sub", x, w.emit("Mod", x, y, fmod=0)), y))


@writes("shift_left", "shift_right")
def _shift(w: Writer, step: Step) -> str:
    """ONNX shifts unsigned integers alone. To the right, negative ones are shifted with all bits turned."""
    x, y = step.names
    dtype = step.dtype
    left = step.op.name == "shift_left"
    if dtype.kind == "uint":
        return str(w.emit("BitShift", x, y, direction="LEFT" if left else "RIGHT"))
    by = w.cast(y, uint64)
    if left:
        return w.cast(w.emit("BitShift", w.cast(x, uint64), by, direction="LEFT"), dtype)
    wide = w.cast(x, int64)
    below = w.emit("Less", wide, w.number(0, int64))
    plain = w.emit("Where", below, w.emit("BitwiseNot", wide), wide)
    shifted = w.cast(w.emit("BitShift", w.cast(plain, uint64), by, direction="RIGHT"), int64)
    return w.cast(w.emit("Where", below, w.emit("BitwiseNot", shifted), shifted), dtype)


@writes("signbit")
def _signbit(w: Writer, step: Step) -> str:
    if step.dtype is bool_:
        return str(w.emit("And", step.names[0], w.number(False, bool_)))
    zero = w.number(0, step.dtype)
    below = w.emit("Less", step.names[0], zero)
    if not step.dtype.is_floating_point:
        return str(below)
    # of a negative zero the reciprocal says it
    at_zero = w.emit("And", w.emit("Equal", step.names[0], zero), w.emit("Less", w.emit("Reciprocal", *step.names), zero))
    return str(w.emit("Or", below, at_zero))


# In other words


@expands("exp2")
def _exp2(x: Any) -> Any:
    return ops.pow(ops.full(x.type, 2, x), x)


@expands("expm1")
def _expm1(x: Any) -> Any:
    """tanh(x / 2) * (exp(x) + 1), which does not cancel near 0."""
    return ops.tanh(x * 0.5) * (ops.exp(x) + 1)


@expands("log1p")
def _log1p(x: Any) -> Any:
    """log(1 + x), corrected by what 1 + x has lost (Goldberg 1991: "What every computer scientist should know", theorem 4)."""
    u = x + 1
    exact = ops.eq(u, 1) | ops.eq(u, math.inf)
    return ops.where(exact, x, ops.log(u) * x / ops.where(exact, 1.0, u - 1))


@expands("log2")
def _log2(x: Any) -> Any:
    return ops.log(x) * (1 / math.log(2))


@expands("log10")
def _log10(x: Any) -> Any:
    return ops.log(x) * (1 / math.log(10))


@expands("erfc")
def _erfc(x: Any) -> Any:
    return 1 - ops.erf(x)


@expands("atan2")
def _atan2(y: Any, x: Any) -> Any:
    """By the arc tangent of the smaller of the two over the larger, and the octant."""
    a, b = ops.abs(x), ops.abs(y)
    top, least = ops.maximum(a, b), ops.minimum(a, b)
    ratio = ops.where(ops.eq(least, top), ops.where(ops.eq(top, 0), 0.0, 1.0), least / ops.where(ops.eq(top, 0), 1.0, top))
    angle = ops.atan(ratio)
    angle = ops.where(b > a, math.pi / 2 - angle, angle)
    angle = ops.where(ops.signbit(x), math.pi - angle, angle)
    return ops.where(ops.signbit(y), -angle, angle)


@expands("copysign")
def _copysign(x: Any, y: Any) -> Any:
    return ops.where(ops.signbit(y), -ops.abs(x), ops.abs(x))


@expands("gcd")
def _gcd(x: Any, y: Any) -> Any:
    """Euclid's algorithm, on all pairs until the last one is done."""
    wide = TensorType(int64, x.type.shape)
    a, b = (ops.abs(ops.cast(v, dtype=int64)) for v in (x, y))
    going = Builder("going", locations=False)
    going.input(None, wide)
    rest = going.input(None, wide)
    condition = going.finish([ops.amax(ops.cast(ops.ne(rest, 0), dtype=int64), tuple(range(rest.ndim))) > 0])
    turn = Builder("turn", locations=False)
    left, right = turn.input(None, wide), turn.input(None, wide)
    zero = ops.eq(right, 0)
    body = turn.finish([ops.where(zero, left, right), ops.where(zero, 0, ops.remainder(left, ops.where(zero, 1, right)))])
    return ops.cast(ops.while_loop(a, b, condition=condition, body=body, carries=2)[0], dtype=x.dtype)
