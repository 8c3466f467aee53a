"""Arithmetic of two operands and more, element by element."""

from __future__ import annotations

import builtins
from typing import Any

from graphc import ops
from graphc.errors import DTypeError, GraphcError
from graphc.frontend import return_types
from graphc.frontend.arguments import emit, promoted
from graphc.frontend.composite import composite
from graphc.frontend.pointwise import Number, Operand, abs, as_one_dtype, cast, clamp, trunc, where
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor
from graphc.types import bool_, complex128, float64

FUNCTIONS = """
    add addcdiv addcmul atan2 div float_power floor_divide fmod frexp gcd hypot igamma igammac lcm ldexp lerp mul neg
    pow reciprocal remainder rsub square sub xlogy
"""
METHODS = """
    add addcdiv addcmul atan2 div float_power floor_divide fmod frexp gcd hypot igamma igammac lcm ldexp lerp mul neg
    pow reciprocal remainder square sub xlogy
"""
IN_PLACE = """
    addcdiv addcmul atan2 float_power floor_divide fmod gcd hypot igamma igammac lcm ldexp lerp neg pow reciprocal
    remainder square xlogy
"""
ALIASES = {"arctan2": "atan2", "divide": "div", "multiply": "mul", "negative": "neg", "subtract": "sub", "true_divide": "div"}


def add(input: Operand, other: Operand, *more: Operand, alpha: Number = 1) -> Tensor:
    """input + alpha * other, element by element, of shapes that broadcast and dtypes that are promoted.

    ShapeError where the shapes do not broadcast; GraphcError for an alpha that is a float beside integers, or a bool beside
    numbers.

    >>> graphc.add(graphc.tensor([1.0, 2.0]), graphc.tensor([[10.0], [20.0]]), alpha=2)
    tensor([[21., 22.],
            [41., 42.]])
    """
    if more:  # the order of old: add(input, alpha, other)
        other, alpha = more[0], other  # type: ignore[assignment]
    if alpha != 1 or alpha is True:
        other = _scaled("add", input, other, alpha)
    return emit(ops.add, (input, other), {})


def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other, element by element, of shapes that broadcast and dtypes that are promoted.

    ShapeError where the shapes do not broadcast; GraphcError for bools, and for an alpha that is a float beside integers.

    >>> graphc.sub(graphc.tensor([5, 7]), graphc.tensor([1, 2]))
    tensor([4, 5])
    """
    if alpha != 1 or alpha is True:
        other = _scaled("sub", input, other, alpha)
    try:
        return emit(ops.sub, (input, other), {})
    except DTypeError:
        raise GraphcError("Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
                          "`logical_xor()` operator instead.") from None


def _scaled(name: str, input: Any, other: Any, alpha: Number) -> Any:
    dtype = promoted(input, other)
    if isinstance(alpha, bool) and dtype is not bool_:
        raise GraphcError("Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, (float, complex)) and not dtype.is_differentiable:
        raise GraphcError(f"{name}: For integral input tensors, argument alpha must not be a floating point number.")
    return other * (bool(alpha) if dtype is bool_ else alpha)


def rsub(input: Tensor, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other - alpha * input.

    GraphcError for bools, and for an alpha that is a float beside integers.

    >>> graphc.rsub(graphc.tensor([1.0, 2.0]), 10)
    tensor([9., 8.])
    """
    return named(sub(other, input if alpha == 1 else _scaled("rsub", other, input, alpha)), "Rsub")


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other, element by element, of shapes that broadcast and dtypes that are promoted.

    ShapeError where the shapes do not broadcast.

    >>> graphc.mul(graphc.tensor([1.0, 2.0]), graphc.tensor([[3.0], [4.0]]))
    tensor([[3., 6.],
            [4., 8.]])
    """
    return emit(ops.mul, (input, other), {})


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, element by element; with `rounding_mode` "trunc" or "floor" rounded towards zero or down. Integers
    divide to float32, or to integers with a rounding mode.

    GraphcError for another rounding mode.

    >>> graphc.div(graphc.tensor([7, -7]), 2)
    tensor([ 3.5000, -3.5000])
    >>> graphc.div(graphc.tensor([7, -7]), 2, rounding_mode="floor")
    tensor([ 3, -4])
    """
    if rounding_mode is None:
        return emit(ops.div, (input, other), {})
    if rounding_mode == "floor":
        return without_slope(floor_divide(input, other), (input, other), "Div")
    if rounding_mode != "trunc":
        raise GraphcError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                          f"{rounding_mode!r}")
    if promoted(input, other).is_floating_point:
        return without_slope(trunc(emit(ops.div, (input, other), {})).detach(), (input, other), "Div")
    # what is left of whole multiples towards zero has the sign of input
    return floor_divide(input - emit(ops.fmod, (input, other), {}), other)


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """input / other, rounded down, in the operands' promoted dtype.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.floor_divide(graphc.tensor([7, -7]), 2)
    tensor([ 3, -4])
    """
    return emit(ops.floor_divide, (input, other), {})


def remainder(input: Operand, other: Operand) -> Tensor:
    """What is left of input after whole multiples of other; it has the sign of other.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.remainder(graphc.tensor([7, -7]), 3)
    tensor([1, 2])
    """
    return emit(ops.remainder, (input, other), {})


def fmod(input: Tensor, other: Operand) -> Tensor:
    """What is left of input after whole multiples of other; it has the sign of input.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.fmod(graphc.tensor([7, -7]), 3)
    tensor([ 1, -1])
    """
    return emit(ops.fmod, (input, other), {})


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers; that of 0 and 0 is 0.

    DTypeError for what are no integers, ShapeError where the shapes do not broadcast.

    >>> graphc.gcd(graphc.tensor([12, 0]), graphc.tensor([18, 0]))
    tensor([6, 0])
    """
    return emit(ops.gcd, (input, other), {})


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers; 0 if one of them is 0.

    DTypeError for what are no integers, ShapeError where the shapes do not broadcast.

    >>> graphc.lcm(graphc.tensor([4, 0]), graphc.tensor([6, 5]))
    tensor([12,  0])
    """
    divisor = gcd(input, other)
    return named(abs(floor_divide(input, where(divisor == 0, 1, divisor)) * other), "Lcm")


def neg(input: Tensor) -> Tensor:
    """-input. GraphcError for bools.

    >>> graphc.neg(graphc.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """
    if input.dtype is bool_:
        raise GraphcError("Negation, the `-` operator, on a bool tensor is not supported",
                          hint="use the `~` or `logical_not()` operator instead")
    return emit(ops.neg, (input,), {})


@composite(large=False)
def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power of exponent, element by element.

    ShapeError where the shapes do not broadcast; GraphcError for integers to a negative integer power.

    >>> graphc.pow(graphc.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.])
    >>> graphc.pow(2, graphc.tensor([0, 1, 2]))
    tensor([1, 2, 4])
    """
    if isinstance(exponent, (int, float)) and not isinstance(exponent, bool) and isinstance(input, Tensor):
        if isinstance(exponent, int) and exponent < 0 and not input.dtype.is_floating_point:
            raise GraphcError("Integers to negative integer powers are not allowed.", hint="convert the input to a float dtype")
        if input.dtype is bool_:
            input = cast(input, promoted(input, exponent))
    return emit(ops.pow, (input, exponent), {})


def square(input: Tensor) -> Tensor:
    """input ** 2.

    >>> graphc.square(graphc.tensor([1.0, -3.0]))
    tensor([1., 9.])
    """
    return pow(input, 2)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, computed in float64, or in complex128 if one of them is complex.

    ShapeError where the shapes do not broadcast.

    >>> graphc.float_power(graphc.tensor([4, 9]), 0.5)
    tensor([2., 3.], dtype=graphc.float64)
    """
    wide = complex128 if promoted(input, exponent).is_complex else float64
    base, power = (cast(x, wide) if isinstance(x, Tensor) else wide.numpy.type(x).item() for x in (input, exponent))
    return pow(base, power)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input. Integers give float32.

    >>> graphc.reciprocal(graphc.tensor([2.0, 4.0]))
    tensor([0.5000, 0.2500])
    """
    return named(div(1, input), "Reciprocal")


@composite(large=False)
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2.

    >>> graphc.addcmul(graphc.tensor([1.0, 1.0]), graphc.tensor([2.0, 3.0]), graphc.tensor([4.0, 5.0]), value=10)
    tensor([ 81., 151.])
    """
    dtype = promoted(input, tensor1, tensor2)
    product = cast(tensor1, dtype) * cast(tensor2, dtype)
    if isinstance(value, float) and not dtype.is_differentiable:
        value = int(value)
    return named(input + (product if value == 1 else product * value), "Addcmul")


@composite(large=False)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2.

    GraphcError for integers, which would have to be divided.

    >>> graphc.addcdiv(graphc.tensor([1.0, 1.0]), graphc.tensor([6.0, 8.0]), graphc.tensor([2.0, 4.0]), value=10)
    tensor([31., 21.])
    """
    if not promoted(tensor1, tensor2).is_differentiable:
        raise GraphcError("Integer division with addcdiv is no longer supported", hint="convert the operands to a float dtype")
    dtype = promoted(input, tensor1, tensor2)
    tensor1, tensor2 = cast(tensor1, dtype), cast(tensor2, dtype)
    quotient = (tensor1 if value == 1 else tensor1 * value) / tensor2
    return named(input + quotient, "Addcdiv")


@composite(large=False)
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input), computed from the nearer of the two.

    DTypeError for integers, and where the dtypes differ.

    >>> graphc.lerp(graphc.tensor([0.0, 10.0]), graphc.tensor([1.0, 20.0]), 0.25)
    tensor([ 0.2500, 12.5000])
    """
    for name, operand in (("end", end), ("weight", weight)):
        if isinstance(operand, Tensor) and operand.dtype is not input.dtype:
            raise DTypeError(f"expected dtype {input.dtype.name} for `{name}` but got dtype {operand.dtype.name}")
    if not input.dtype.is_differentiable:
        raise DTypeError(f"lerp is not implemented for {input.dtype.name}", expected="a floating-point or complex dtype")
    difference = end - input
    if isinstance(weight, Tensor):
        near = input + weight * difference
        return named(where(abs(weight) < 0.5, near, end - difference * (1 - weight)), "Lerp")
    if builtins.abs(weight) < 0.5:
        return named(input + weight * difference, "Lerp")
    return named(end - difference * (1 - weight), "Lerp")


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other.

    ShapeError where the shapes do not broadcast.

    >>> graphc.ldexp(graphc.tensor([1.0, 3.0]), graphc.tensor([2, -1]))
    tensor([4.0000, 1.5000])
    """
    x, power = as_one_dtype(input, other)
    if other.dtype.is_differentiable:
        return named(x * emit(ops.exp2, (power,), {}), "Ldexp")
    # in steps: 2 ** other may be too large for the dtype, or too small, where the product is not
    step = {"float16": 15, "float64": 700}.get(x.dtype.name, 100)
    for _ in range(3):
        part = clamp(power, -step, step)
        x, power = x * emit(ops.exp2, (part,), {}), power - part
    return named(x, "Ldexp")


def frexp(input: Tensor) -> Any:
    """Mantissa, of a size from 0.5 to 1, and exponent, an int32, with input = mantissa * 2 ** exponent.

    DTypeError for what is not floating-point.

    >>> mantissa, exponent = graphc.frexp(graphc.tensor([6.0, 0.25]))
    >>> mantissa, exponent
    (tensor([0.7500, 0.5000]), tensor([ 3, -1], dtype=graphc.int32))
    """
    exponent = emit(ops.exponent, (input,), {})
    return return_types.frexp(named(ldexp(input, -exponent), "Frexp"), exponent)


@composite(large=False)
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input ** 2 + other ** 2), without overflow on the way.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for integers and complex numbers.

    >>> graphc.hypot(graphc.tensor([3.0]), graphc.tensor([4.0]))
    tensor([5.])
    """
    return emit(ops.hypot, (input, other), {})


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle from -pi to pi of the point with the ordinate `input` and the abscissa `other`.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.atan2(graphc.tensor([1.0, -1.0]), graphc.tensor([0.0, 1.0]))
    tensor([ 1.5708, -0.7854])
    """
    return emit(ops.atan2, (input, other), {})


def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), which is 0 for input = 0 unless other is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.xlogy(graphc.tensor([0.0, 2.0]), graphc.tensor([0.0, 1.0]))
    tensor([0., 0.])
    """
    return emit(ops.xlogy, tuple(as_one_dtype(input, other)), {})


def igamma(input: Tensor, other: Tensor) -> Tensor:
    """The regularised lower incomplete gamma function P(a, x) of a = input and x = other: the integral of
    t^(a-1) e^-t / gamma(a) from 0 to x. It is differentiable in x.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.igamma(graphc.tensor([1.0]), graphc.tensor([2.0]))
    tensor([0.8647])
    """
    return emit(ops.igamma, tuple(as_one_dtype(input, other)), {})


def igammac(input: Tensor, other: Tensor) -> Tensor:
    """The regularised upper incomplete gamma function, 1 - igamma(input, other).

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.igammac(graphc.tensor([1.0]), graphc.tensor([2.0]))
    tensor([0.1353])
    """
    return emit(ops.igammac, tuple(as_one_dtype(input, other)), {})
