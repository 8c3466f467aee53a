"""Comparisons, tests of each element, logic and bits."""

from __future__ import annotations

import math
from typing import Any

from graphc import ops
from graphc.errors import DTypeError, GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.pointwise import Operand, abs, as_floating
from graphc.frontend.tensor import Tensor
from graphc.types import TensorType, bool_

FUNCTIONS = """
    allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq equal ge gt isclose
    isfinite isinf isnan isneginf isposinf isreal le logical_and logical_not logical_or logical_xor lt ne
"""
METHODS = FUNCTIONS
IN_PLACE = """
    bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq ge gt le logical_and
    logical_not logical_or logical_xor lt ne
"""
ALIASES = {
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
}


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
    """Whether each element is infinite; of a complex number, either part."""
    return eq(abs(input), math.inf) if input.dtype.is_differentiable else ne(input, input)


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor nan; of a complex number, both parts."""
    if input.dtype.is_complex:
        return isfinite(emit(ops.real, (input,), {})) & isfinite(emit(ops.imag, (input,), {}))
    return lt(abs(input), math.inf) if input.dtype.is_floating_point else eq(input, input)


def isposinf(input: Tensor) -> Tensor:
    """Whether each element is positive infinity."""
    return _equal_infinity("isposinf", input, math.inf)


def isneginf(input: Tensor) -> Tensor:
    """Whether each element is negative infinity."""
    return _equal_infinity("isneginf", input, -math.inf)


def _equal_infinity(name: str, input: Tensor, infinity: float) -> Tensor:
    if input.dtype.is_complex:
        raise DTypeError(f"{name} does not support complex inputs.", got=input.dtype.name)
    return eq(input, infinity) if input.dtype.is_floating_point else ne(input, input)


def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part of each element is zero; true of all that is not complex."""
    if input.dtype.is_complex:
        return eq(emit(ops.imag, (input,), {}), 0)
    return ops.full(TensorType(bool_, tuple(input._data.shape)), True, like=Tensor)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, for each element."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise GraphcError(f"{name} must be greater than or equal to zero, but got {value}")
    if input.dtype is not other.dtype:
        raise GraphcError(f"{input.dtype.name} did not match {other.dtype.name}", hint="convert one with .to(dtype)")
    close = input == other
    if equal_nan and input.dtype.is_differentiable:
        close = close | (isnan(input) & isnan(other))
    x, y = as_floating(input), as_floating(other)
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
