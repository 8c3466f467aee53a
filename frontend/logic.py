"""Comparisons, tests of each element, logic and bits."""

from __future__ import annotations

import math
from typing import Any

from graphc import ops
from graphc.errors import DTypeError, GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.device_arrays import is_on_device
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
    """input == other, for each element. The result is of bools.

    ShapeError where the shapes do not broadcast.

    >>> graphc.eq(graphc.tensor([1, 2]), graphc.tensor([1, 3]))
    tensor([ True, False])
    """
    return emit(ops.eq, (input, other), {})


def ne(input: Tensor, other: Operand) -> Tensor:
    """input != other, for each element. The result is of bools.

    ShapeError where the shapes do not broadcast.

    >>> graphc.ne(graphc.tensor([1, 2]), graphc.tensor([1, 3]))
    tensor([False,  True])
    """
    return emit(ops.ne, (input, other), {})


def lt(input: Tensor, other: Operand) -> Tensor:
    """input < other, for each element.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.lt(graphc.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return emit(ops.lt, (input, other), {})


def le(input: Tensor, other: Operand) -> Tensor:
    """input <= other, for each element.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.le(graphc.tensor([1, 2, 3]), 2)
    tensor([ True,  True, False])
    """
    return emit(ops.le, (input, other), {})


def gt(input: Tensor, other: Operand) -> Tensor:
    """input > other, for each element.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.gt(graphc.tensor([1, 2, 3]), 2)
    tensor([False, False,  True])
    """
    return emit(ops.gt, (input, other), {})


def ge(input: Tensor, other: Operand) -> Tensor:
    """input >= other, for each element.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.ge(graphc.tensor([1, 2, 3]), 2)
    tensor([False,  True,  True])
    """
    return emit(ops.ge, (input, other), {})


def isnan(input: Tensor) -> Tensor:
    """Whether each element is not a number.

    >>> graphc.isnan(graphc.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return ne(input, input)


def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite; of a complex number, either part.

    >>> graphc.isinf(graphc.tensor([1.0, float("-inf")]))
    tensor([False,  True])
    """
    return eq(abs(input), math.inf) if input.dtype.is_differentiable else ne(input, input)


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor nan; of a complex number, both parts.

    >>> graphc.isfinite(graphc.tensor([1.0, float("inf"), float("nan")]))
    tensor([ True, False, False])
    """
    if input.dtype.is_complex:
        return isfinite(emit(ops.real, (input,), {})) & isfinite(emit(ops.imag, (input,), {}))
    return lt(abs(input), math.inf) if input.dtype.is_floating_point else eq(input, input)


def isposinf(input: Tensor) -> Tensor:
    """Whether each element is positive infinity.

    DTypeError for complex numbers.

    >>> graphc.isposinf(graphc.tensor([float("inf"), float("-inf")]))
    tensor([ True, False])
    """
    return _equal_infinity("isposinf", input, math.inf)


def isneginf(input: Tensor) -> Tensor:
    """Whether each element is negative infinity.

    DTypeError for complex numbers.

    >>> graphc.isneginf(graphc.tensor([float("inf"), float("-inf")]))
    tensor([False,  True])
    """
    return _equal_infinity("isneginf", input, -math.inf)


def _equal_infinity(name: str, input: Tensor, infinity: float) -> Tensor:
    if input.dtype.is_complex:
        raise DTypeError(f"{name} does not support complex inputs.", got=input.dtype.name)
    return eq(input, infinity) if input.dtype.is_floating_point else ne(input, input)


def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part of each element is zero; true of all that is not complex.

    >>> graphc.isreal(graphc.tensor([1 + 1j, 2 + 0j]))
    tensor([False,  True])
    """
    if input.dtype.is_complex:
        return eq(emit(ops.imag, (input,), {}), 0)
    everywhere = ops.full(TensorType(bool_, tuple(input._data.shape)), True, like=Tensor)
    return everywhere.to(input.device) if is_on_device(input._data) else everywhere


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, for each element; infinities are close to themselves, nan where
    `equal_nan`.

    GraphcError where the dtypes differ, and for a negative tolerance.

    >>> graphc.isclose(graphc.tensor([1.0, 2.0]), graphc.tensor([1.000001, 2.1]))
    tensor([ True, False])
    """
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
    """Whether all elements are close, as `isclose` says: a bool.

    GraphcError where the dtypes differ.

    >>> graphc.allclose(graphc.tensor([1.0, 2.0]), graphc.tensor([1.000001, 2.0]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal: a bool.

    >>> graphc.equal(graphc.tensor([1, 2]), graphc.tensor([1, 2]))
    True
    """
    return input.shape == other.shape and bool(_all_equal(input, other))


@composite(large=False)
def _all_equal(input: Tensor, other: Tensor) -> Tensor:
    return (input == other).all()


def _truth(input: Operand) -> Any:
    return ne(input, 0) if isinstance(input, Tensor) and input.dtype is not bool_ else input


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are nonzero.

    ShapeError where the shapes do not broadcast.

    >>> graphc.logical_and(graphc.tensor([1, 0, 2]), graphc.tensor([1, 1, 0]))
    tensor([ True, False, False])
    """
    return emit(ops.bitwise_and, (_truth(input), _truth(other)), {})


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether at least one is nonzero.

    ShapeError where the shapes do not broadcast.

    >>> graphc.logical_or(graphc.tensor([1, 0, 0]), graphc.tensor([1, 1, 0]))
    tensor([ True,  True, False])
    """
    return emit(ops.bitwise_or, (_truth(input), _truth(other)), {})


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one is nonzero.

    ShapeError where the shapes do not broadcast.

    >>> graphc.logical_xor(graphc.tensor([1, 0, 2]), graphc.tensor([1, 1, 0]))
    tensor([False,  True,  True])
    """
    return emit(ops.bitwise_xor, (_truth(input), _truth(other)), {})


def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero.

    >>> graphc.logical_not(graphc.tensor([1, 0]))
    tensor([False,  True])
    """
    return emit(ops.bitwise_not, (_truth(input),), {})


def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """Bit by bit and, of integers; logical and of bools. Floats are an error.

    UnsupportedDTypeError for floating-point and complex numbers, ShapeError where the shapes do not broadcast.

    >>> graphc.bitwise_and(graphc.tensor([12]), graphc.tensor([10]))
    tensor([8])
    """
    return emit(ops.bitwise_and, (input, other), {})


def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """Bit by bit or, of integers; logical or of bools. Floats are an error.

    UnsupportedDTypeError for floating-point and complex numbers, ShapeError where the shapes do not broadcast.

    >>> graphc.bitwise_or(graphc.tensor([12]), graphc.tensor([10]))
    tensor([14])
    """
    return emit(ops.bitwise_or, (input, other), {})


def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """Bit by bit exclusive or, of integers and bools. Floats are an error.

    UnsupportedDTypeError for floating-point and complex numbers, ShapeError where the shapes do not broadcast.

    >>> graphc.bitwise_xor(graphc.tensor([12]), graphc.tensor([10]))
    tensor([6])
    """
    return emit(ops.bitwise_xor, (input, other), {})


def bitwise_not(input: Tensor) -> Tensor:
    """Every bit turned, of integers; logical not of bools. Floats are an error.

    UnsupportedDTypeError for floating-point and complex numbers.

    >>> graphc.bitwise_not(graphc.tensor([0, 5]))
    tensor([-1, -6])
    """
    return emit(ops.bitwise_not, (input,), {})


def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input * 2 ** other.

    UnsupportedDTypeError for floating-point and complex numbers, ShapeError where the shapes do not broadcast.

    >>> graphc.bitwise_left_shift(graphc.tensor([1, 3]), 2)
    tensor([ 4, 12])
    """
    return emit(ops.shift_left, (input, other), {})


def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input // 2 ** other.

    UnsupportedDTypeError for floating-point and complex numbers, ShapeError where the shapes do not broadcast.

    >>> graphc.bitwise_right_shift(graphc.tensor([8, -8]), 2)
    tensor([ 2, -2])
    """
    return emit(ops.shift_right, (input, other), {})
