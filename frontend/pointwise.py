"""Functions of one element in each operand; `graphc.frontend.arithmetic` has those that add, multiply and divide."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, DTypeError, GraphcError
from graphc.frontend.arguments import as_operand, emit, promoted
from graphc.frontend.composite import HUGE, composite
from graphc.frontend.limits import finfo
from graphc.frontend.modes import mode
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.viewing import Viewing
from graphc.types import DType, TensorType, bool_, convert, get_default_dtype, uint8

FUNCTIONS = """
    abs can_cast ceil clamp clamp_max clamp_min copysign cos erf exp expm1 floor fmax fmin frac heaviside log log1p
    logaddexp logaddexp2 maximum minimum nan_to_num nextafter positive relu result_type round rsqrt sgn sigmoid sign
    signbit sin sqrt tanh trunc
"""
METHODS = """
    abs ceil clamp clamp_max clamp_min copysign cos erf exp expm1 floor fmax fmin frac heaviside log log1p logaddexp
    logaddexp2 maximum minimum nan_to_num nextafter positive relu round rsqrt sgn sigmoid sign signbit sin sqrt tanh
    trunc
"""
IN_PLACE = """
    abs ceil clamp clamp_max clamp_min copysign cos erf exp expm1 floor frac heaviside log log1p nan_to_num nextafter
    relu round rsqrt sgn sigmoid sign sin sqrt tanh trunc
"""
ALIASES = {"absolute": "abs", "clip": "clamp", "fix": "trunc"}

Number = bool | int | float
Operand = Tensor | Number


def cast(input: Tensor, dtype: DType) -> Tensor:
    """The tensor in another dtype; the tensor itself if it has that dtype already."""
    if input.dtype is dtype:
        return input
    data = input._data
    if type(data) is np.ndarray and dtype.numpy.kind == "f" and data.dtype.kind in "biuf" and _is_ordinary():
        if data.size >= HUGE and data.flags.c_contiguous:
            return _cast_huge(input, dtype)
        return _converted.make(input, convert(data, dtype), {"dtype": dtype})
    return named(emit(ops.cast, (input,), {"dtype": dtype}), "ToCopy")


_converted = Viewing(ops.cast, "ToCopy")


@composite(large=False)
def _cast_huge(input: Tensor, dtype: DType) -> Tensor:
    return named(emit(ops.cast, (input,), {"dtype": dtype}), "ToCopy")


def _is_ordinary() -> bool:
    """Whether nothing is traced or watched, and tensors are not those of inference."""
    return trace_state.tracer is None and not mode.inference


def as_floating(input: Any) -> Any:
    """Integers as the default dtype, as functions with real results take them."""
    if isinstance(input, Tensor) and not input.dtype.is_differentiable:
        return cast(input, get_default_dtype())
    return input


def as_one_dtype(*operands: Operand) -> list[Any]:
    """Tensors of the dtype that a function of all of them computes in, floating point or complex."""
    dtype = promoted(*operands)
    if not dtype.is_differentiable:
        dtype = get_default_dtype()
    return [cast(x, dtype) if isinstance(x, Tensor) else ops.full(TensorType(dtype, ()), x, like=Tensor) for x in operands]


# Functions of one number


def exp(input: Tensor) -> Tensor:
    """e to the power of each element. Integers give float32.

    >>> graphc.exp(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 2.7183])
    """
    return emit(ops.exp, (input,), {})


def expm1(input: Tensor) -> Tensor:
    """exp(input) - 1, exact for small input. Integers give float32.

    >>> graphc.expm1(graphc.tensor([0.0, 1e-6]))
    tensor([0.0000e+00, 1.0000e-06])
    """
    return emit(ops.expm1, (input,), {})


def log(input: Tensor) -> Tensor:
    """The natural logarithm of each element: -inf of 0, nan below. Integers give float32.

    >>> graphc.log(graphc.tensor([1.0, 10.0, 0.0]))
    tensor([0.0000, 2.3026,   -inf])
    """
    return emit(ops.log, (input,), {})


def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact for small input. Integers give float32.

    >>> graphc.log1p(graphc.tensor([0.0, 1e-6]))
    tensor([0.0000e+00, 1.0000e-06])
    """
    return emit(ops.log1p, (input,), {})


def sqrt(input: Tensor) -> Tensor:
    """The square root of each element: nan below 0. Integers give float32.

    >>> graphc.sqrt(graphc.tensor([4, 2]))
    tensor([2.0000, 1.4142])
    """
    return emit(ops.sqrt, (input,), {})


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input): inf of 0, nan below. Integers give float32.

    >>> graphc.rsqrt(graphc.tensor([4.0, 0.0]))
    tensor([0.5000,    inf])
    """
    return emit(ops.rsqrt, (input,), {})


def sin(input: Tensor) -> Tensor:
    """The sine of each element, an angle in radians. Integers give float32.

    >>> graphc.sin(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8415])
    """
    return emit(ops.sin, (input,), {})


def cos(input: Tensor) -> Tensor:
    """The cosine of each element, an angle in radians. Integers give float32.

    >>> graphc.cos(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 0.5403])
    """
    return emit(ops.cos, (input,), {})


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent of each element, from -1 to 1. Integers give float32.

    >>> graphc.tanh(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616])
    """
    return emit(ops.tanh, (input,), {})


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input)), from 0 to 1. Integers give float32.

    >>> graphc.sigmoid(graphc.tensor([0.0, 1.0]))
    tensor([0.5000, 0.7311])
    """
    return emit(ops.sigmoid, (input,), {})


@composite(large=False)
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.logaddexp(graphc.tensor([0.0, 1000.0]), graphc.tensor([0.0, 1000.0]))
    tensor([6.9315e-01, 1.0007e+03])
    """
    return emit(ops.logaddexp, (input, other), {})


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2 ** input + 2 ** other), without overflow.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.logaddexp2(graphc.tensor([3.0]), graphc.tensor([3.0]))
    tensor([4.])
    """
    return emit(ops.logaddexp2, (input, other), {})


def relu(input: Tensor) -> Tensor:
    """Each element where it is positive, else 0; the gradient at 0 is 0.

    UnsupportedDTypeError for bools and complex numbers.

    >>> graphc.relu(graphc.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return emit(ops.relu, (input,), {})


def erf(input: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to each element.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.erf(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8427])
    """
    return emit(ops.erf, (input,), {})


def abs(input: Tensor) -> Tensor:
    """The absolute value of each element; of complex numbers the distance from 0, which is real.

    UnsupportedDTypeError for bools.

    >>> graphc.abs(graphc.tensor([-1.5, 2.0]))
    tensor([1.5000, 2.0000])
    """
    return emit(ops.abs, (input,), {})


@composite(large=False)
def sign(input: Tensor) -> Tensor:
    """The sign of each element: 1, 0 or -1. Of complex numbers, see `sgn`.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.sign(graphc.tensor([-3.0, 0.0, 2.0]))
    tensor([-1.,  0.,  1.])
    """
    return input.clone() if input.dtype is bool_ else emit(ops.sign, (input,), {})


def sgn(input: Tensor) -> Tensor:
    """1, 0 or -1; of a complex number, the number of length 1 in its direction.

    >>> graphc.sgn(graphc.tensor([3 + 4j, 0j]))
    tensor([0.6000+0.8000j, 0.0000+0.0000j])
    """
    return emit(ops.sgn, (input,), {}) if input.dtype.is_complex else named(sign(input), "Sgn")


def signbit(input: Tensor) -> Tensor:
    """Whether the sign is set: of negative numbers, -0.0 and some nan.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.signbit(graphc.tensor([-1.0, -0.0, 0.0]))
    tensor([ True,  True, False])
    """
    return emit(ops.signbit, (input,), {})


def copysign(input: Tensor, other: Operand) -> Tensor:
    """The size of input with the sign of other, zeros included.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.copysign(graphc.tensor([1.0, -2.0]), graphc.tensor([-0.0, 3.0]))
    tensor([-1.,  2.])
    """
    return emit(ops.copysign, (input, other), {})


def positive(input: Tensor) -> Tensor:
    """The input itself. GraphcError for bools.

    >>> graphc.positive(graphc.tensor([-1, 2]))
    tensor([-1,  2])
    """
    if input.dtype is bool_:
        raise GraphcError("The `+` operator, on a bool tensor is not supported.")
    return input


def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The number next to input on the way to other.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.nextafter(graphc.tensor([1.0]), graphc.tensor([2.0])) - 1
    tensor([1.1921e-07])
    """
    return emit(ops.nextafter, (input, other), {})


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where input is negative, 1 where it is positive, and `values` where it is zero.

    DTypeError where the dtypes differ.

    >>> graphc.heaviside(graphc.tensor([-1.0, 0.0, 2.0]), graphc.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    if input.dtype is not values.dtype:
        raise DTypeError("heaviside is not yet implemented for tensors with different dtypes.",
                         got=f"{input.dtype.name} and {values.dtype.name}")
    return where(input == 0, values.detach(), cast(input > 0, input.dtype))


def floor(input: Tensor) -> Tensor:
    """Each element rounded down.

    UnsupportedDTypeError for bools and complex numbers.

    >>> graphc.floor(graphc.tensor([1.7, -1.2]))
    tensor([ 1., -2.])
    """
    return emit(ops.floor, (input,), {})


def ceil(input: Tensor) -> Tensor:
    """Each element rounded up.

    UnsupportedDTypeError for bools and complex numbers.

    >>> graphc.ceil(graphc.tensor([1.2, -1.7]))
    tensor([ 2., -1.])
    """
    return emit(ops.ceil, (input,), {})


def trunc(input: Tensor) -> Tensor:
    """Each element rounded towards zero.

    UnsupportedDTypeError for bools and complex numbers.

    >>> graphc.trunc(graphc.tensor([1.7, -1.7]))
    tensor([ 1., -1.])
    """
    return emit(ops.trunc, (input,), {})


@composite(large=False)
def frac(input: Tensor) -> Tensor:
    """What `trunc` takes away, with the sign of the element.

    DTypeError for integers.

    >>> graphc.frac(graphc.tensor([1.5, -1.25]))
    tensor([ 0.5000, -0.2500])
    """
    if not input.dtype.is_floating_point:
        raise DTypeError(f"frac is not implemented for {input.dtype.name}", expected="a floating-point dtype")
    return named(input - trunc(input), "Frac")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Each element rounded to the nearest integer, halves to the even one; or to a number of decimals.

    DTypeError for integers with `decimals`, UnsupportedDTypeError for bools and complex numbers.

    >>> graphc.round(graphc.tensor([0.5, 1.5, -2.7]))
    tensor([ 0.,  2., -3.])
    >>> graphc.round(graphc.tensor([3.14159]), decimals=2)
    tensor([3.1400])
    """
    if decimals == 0:
        return emit(ops.round, (input,), {})
    if not input.dtype.is_floating_point:
        raise DTypeError(f"round with decimals is not implemented for {input.dtype.name}", expected="a floating-point dtype")
    scale = 10.0 ** builtins.abs(decimals)
    x = cast(input, input.dtype.computes_in)
    out = emit(ops.round, (x * scale,), {}) / scale if decimals > 0 else emit(ops.round, (x / scale,), {}) * scale
    return named(cast(out, input.dtype), "Round")


# Choosing


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of each two elements; nan if one is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.maximum(graphc.tensor([1.0, 5.0]), graphc.tensor([3.0, 2.0]))
    tensor([3., 5.])
    """
    return emit(ops.maximum, (input, other), {})


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of each two elements; nan if one is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.minimum(graphc.tensor([1.0, 5.0]), graphc.tensor([3.0, 2.0]))
    tensor([1., 2.])
    """
    return emit(ops.minimum, (input, other), {})


@composite(large=False)
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of each two elements; the number if one is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.fmax(graphc.tensor([1.0, 5.0]), graphc.tensor([3.0, float("nan")]))
    tensor([3., 5.])
    """
    return named(where((input < other) | ((input != input) & (other == other)), other, input), "Fmax")


@composite(large=False)
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of each two elements; the number if one is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.fmin(graphc.tensor([1.0, 5.0]), graphc.tensor([3.0, float("nan")]))
    tensor([1., 5.])
    """
    return named(where((input > other) | ((input != input) & (other == other)), other, input), "Fmin")


@composite(large=False)
def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """`input` where the condition holds and `other` elsewhere, of shapes that broadcast.

    >>> graphc.where(graphc.tensor([True, False]), graphc.tensor([1.0, 2.0]), 0.0)
    tensor([1., 0.])
    """
    if condition.dtype is uint8:
        condition = cast(condition, bool_)
    return emit(ops.where, (condition, as_operand(input), as_operand(other)), {})


@composite(large=False)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """No less than `min` and no more than `max`, numbers or tensors. The gradient passes where nothing was cut off, the ends
    included, and not where there is nan; that of a tensor `min` or `max` has what was cut off there.

    GraphcError where both bounds are None.

    >>> graphc.clamp(graphc.tensor([-2.0, 0.5, 3.0]), min=0.0, max=1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if min is None and max is None:
        raise GraphcError("clamp: At least one of 'min' or 'max' must not be None")
    dtype = promoted(input, *(end for end in (min, max) if end is not None))
    input = cast(input, dtype)
    if not (_is_number(min) and _is_number(max)):
        return named(_clamp_to_tensors(input, min, max), "Clamp")
    out = where(input == input, input, math.nan) if dtype.is_floating_point else input
    if min is not None:
        out = where(out < min, min, out)
    if max is not None:
        out = where(out > max, max, out)
    return named(out, "Clamp")


def _is_number(end: Operand | None) -> bool:
    """Whether an end is known not to be nan, which everything is clamped to."""
    return not isinstance(end, Tensor) and end == end


def _clamp_to_tensors(x: Tensor, low: Operand | None, high: Operand | None) -> Tensor:
    """`clamp` to ends that have gradients, or may be nan: each element's gradient goes to what the result was taken from, and
    nowhere where one of the three is nan, or where both ends are one and lie above it."""
    out = x.detach()
    if low is not None:
        out = emit(ops.maximum, (out, low.detach() if isinstance(low, Tensor) else low), {})
    if high is not None:
        out = emit(ops.minimum, (out, high.detach() if isinstance(high, Tensor) else high), {})
    if high is None:
        return where(x >= low, x, where(x < low, low, out))
    if low is None:
        return where(x <= high, x, where(x > high, high, out))
    ends = where((x < low) & (low < high), low, where(((x > high) | (high < low)) & (out == out), high, out))
    return where((x >= low) & (x <= high), x, ends)


def where_method(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """The tensor's elements where the condition holds, and `other` elsewhere.

    >>> graphc.tensor([1.0, 2.0]).where(graphc.tensor([True, False]), -1.0)
    tensor([ 1., -1.])
    """
    return where(condition, self, other)


def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """No less than `min`.

    ShapeError where the shapes do not broadcast.

    >>> graphc.clamp_min(graphc.tensor([-2.0, 0.5]), 0.0)
    tensor([0.0000, 0.5000])
    """
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """No more than `max`.

    ShapeError where the shapes do not broadcast.

    >>> graphc.clamp_max(graphc.tensor([0.5, 3.0]), 1.0)
    tensor([0.5000, 1.0000])
    """
    return clamp(input, max=max)


@composite(large=False)
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Numbers in the place of nan and the infinities: by default 0 and the largest and least of the dtype.

    >>> graphc.nan_to_num(graphc.tensor([float("nan"), float("inf"), 1.0]), posinf=1e6)
    tensor([0.0000e+00, 1.0000e+06, 1.0000e+00])
    """
    if input.dtype.is_complex:
        parts = (nan_to_num(emit(part, (input,), {}), nan, posinf, neginf) for part in (ops.real, ops.imag))
        return named(emit(ops.complex, tuple(parts), {}), "NanToNum")
    if not input.dtype.is_floating_point:
        return input.clone()
    largest = finfo(input.dtype).max
    out = where(input != input, 0.0 if nan is None else nan, input)
    out = where(input == math.inf, largest if posinf is None else posinf, out)
    return named(where(input == -math.inf, -largest if neginf is None else neginf, out), "NanToNum")


def result_type(tensor: Operand, other: Operand) -> DType:
    """The dtype that an operation on both would compute in.

    >>> graphc.result_type(graphc.tensor([1, 2]), 1.5)
    graphc.float32
    """
    return promoted(tensor, other)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether promotion's ladder (bool, integers, floats) allows the conversion.

    ArgumentTypeError for what is no dtype.

    >>> graphc.can_cast(graphc.int64, graphc.float32), graphc.can_cast(graphc.float32, graphc.int64)
    (True, False)
    """
    for name, given in (("from_", from_), ("to", to)):
        if not isinstance(given, DType):
            raise ArgumentTypeError(f"can_cast(): argument '{name}' must be a dtype, not {type(given).__name__}")
    if to.category < from_.category:
        return False
    return not (to.kind == "uint" and from_.kind == "int")
