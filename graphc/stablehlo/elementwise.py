"""Elementwise ops that are more than one operation."""

from __future__ import annotations

import math

import numpy as np

from graphc.stablehlo.table import writes
from graphc.stablehlo.writer import Operand, Step, Writer
from graphc.types import DTYPES, DType, bool_, int64, uint64

_DIRECTIONS = {"eq": "EQ", "ne": "NE", "lt": "LT", "le": "LE", "gt": "GT", "ge": "GE"}


@writes(*_DIRECTIONS)
def _compare(w: Writer, step: Step) -> Operand:
    return w.compare(_DIRECTIONS[step.node.op.name], *step.operands)


@writes("cast")
def _cast(w: Writer, step: Step) -> Operand:
    (x,), dtype = step.operands, step.attrs["dtype"]
    if dtype is bool_:
        return w.compare("NE", x, w.number(0, x.type))
    if x.type.dtype.is_complex and not dtype.is_complex:
        x = w.emit("real", x, type=step.type.with_dtype(DTYPES["float32" if x.type.dtype.itemsize == 8 else "float64"]))
    if x.type.dtype.is_floating_point and dtype.kind in ("int", "uint"):
        return _to_integer(w, x, dtype)
    return w.cast(x, dtype)


def _to_integer(w: Writer, x: Operand, dtype: DType) -> Operand:
    """Numbers that do not fit lose upper bits, as in NumPy; StableHLO would take the nearest that fits."""
    wrapped = w.cast(w.cast(x, int64), dtype)
    return w.select(w.compare("LT", x, w.number(0, x.type)), wrapped, w.cast(x, dtype)) if dtype is uint64 else wrapped


@writes("conj")
def _conj(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    if not x.type.dtype.is_complex:
        return x
    part = x.type.with_dtype(DTYPES["float32" if x.type.dtype.itemsize == 8 else "float64"])
    return w.emit("complex", w.emit("real", x, type=part), w.same("negate", w.emit("imag", x, type=part)), type=x.type)


_ROUNDED = {"floor": "floor", "ceil": "ceil", "round": "round_nearest_even"}


@writes(*_ROUNDED)
def _rounded(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    return w.same(_ROUNDED[step.node.op.name], x) if x.type.dtype.is_floating_point else x


@writes("abs")
def _abs(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    return x if x.type.dtype.kind in ("uint", "bool") else w.emit("abs", x, type=step.type)


@writes("trunc")
def _trunc(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    if not x.type.dtype.is_floating_point:
        return x
    return w.select(w.compare("LT", x, w.number(0, x.type)), w.same("ceil", x), w.same("floor", x))


@writes("exp2")
def _exp2(w: Writer, step: Step) -> Operand:
    return w.same("power", w.number(2, step.type), step.operands[0])


@writes("log2", "log10")
def _log(w: Writer, step: Step) -> Operand:
    base = {"log2": 2, "log10": 10}[step.node.op.name]
    return w.same("divide", w.same("log", step.operands[0]), w.number(math.log(base), step.type))


@writes("shift_right")
def _shift_right(w: Writer, step: Step) -> Operand:
    is_signed = step.type.dtype.kind == "int"
    return w.same("shift_right_arithmetic" if is_signed else "shift_right_logical", *step.operands)


@writes("remainder")
def _remainder(w: Writer, step: Step) -> Operand:
    """The remainder of the divisor's sign."""
    return _modulo(w, *step.operands)


def _modulo(w: Writer, x: Operand, y: Operand) -> Operand:
    rest, zero = w.same("remainder", x, y), w.number(0, x.type)
    is_zero = w.compare("EQ", rest, zero)
    if x.type.dtype.kind == "uint":
        return rest
    other_side = w.emit("xor", w.compare("LT", rest, zero), w.compare("LT", y, zero), type=x.type.with_dtype(bool_))
    moves = w.emit("and", other_side, w.emit("not", is_zero, type=is_zero.type), type=is_zero.type)
    moved = w.select(moves, w.same("add", rest, y), rest)
    return w.select(is_zero, _with_sign(w, rest, y), moved) if x.type.dtype.is_floating_point else moved


@writes("floor_divide")
def _floor_divide(w: Writer, step: Step) -> Operand:
    x, y = step.operands
    if not x.type.dtype.is_floating_point:
        return w.same("divide", w.same("subtract", x, _modulo(w, x, y)), y)
    # as NumPy does: the quotient without the remainder is a whole number but for rounding
    quotient = w.same("divide", w.same("subtract", x, _modulo(w, x, y)), y)
    low = w.same("floor", quotient)
    above = w.compare("GT", w.same("subtract", quotient, low), w.number(0.5, x.type))
    whole = w.select(above, w.same("add", low, w.number(1, x.type)), low)
    plain = w.same("divide", x, y)
    whole = w.select(w.compare("EQ", quotient, w.number(0, x.type)), _with_sign(w, w.number(0, x.type), plain), whole)
    return w.select(w.compare("EQ", y, w.number(0, x.type)), plain, whole)


@writes("copysign")
def _copysign(w: Writer, step: Step) -> Operand:
    return _with_sign(w, *step.operands)


def _with_sign(w: Writer, x: Operand, y: Operand) -> Operand:
    """The magnitude of x with the sign of y."""
    width = 8 * x.type.dtype.itemsize
    words = x.type.with_dtype(DTYPES[f"uint{width}"])
    magnitude, sign = w.number(np.uint64((1 << (width - 1)) - 1), words), w.number(np.uint64(1 << (width - 1)), words)
    a, b = (w.emit("bitcast_convert", v, type=words) for v in (x, y))
    bits = w.same("or", w.same("and", a, magnitude), w.same("and", b, sign))
    return w.emit("bitcast_convert", bits, type=x.type)


@writes("signbit")
def _signbit(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    if not x.type.dtype.is_floating_point:
        return w.compare("LT", x, w.number(0, x.type))
    words = x.type.with_dtype(DTYPES[f"int{8 * x.type.dtype.itemsize}"])
    return w.compare("LT", w.emit("bitcast_convert", x, type=words), w.number(0, words))


@writes("polygamma")
def _polygamma(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    return w.emit("chlo.polygamma", w.number(step.attrs["n"], x.type), x, type=x.type)


@writes("view_as_real")
def _view_as_real(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    type_ = step.type.with_shape(x.type.shape)
    parts = [w.reshape(w.emit(part, x, type=type_), (*x.type.shape, 1)) for part in ("real", "imag")]
    return w.concatenate(parts, x.type.ndim)


@writes("view_as_complex")
def _view_as_complex(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    rest = list(x.type.shape[:-1])
    parts = [
        w.reshape(w.slice(x, [0] * len(rest) + [k], [*rest, k + 1], [1] * x.type.ndim), rest) for k in range(2)
    ]
    return w.emit("complex", *parts, type=step.type)
