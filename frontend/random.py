"""Random tensors. The stream is a function of the seed and the position alone: the same eagerly and compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, GraphcError, UnsupportedDTypeError
from graphc.frontend.arguments import emit, integer, need_tensor, scalar_type, sizes
from graphc.frontend.composite import composite
from graphc.frontend.copying import contiguous
from graphc.frontend.creation import Device, finished, given_size, kept_dtype
from graphc.frontend.cumulative import cumsum
from graphc.frontend.draws import draw
from graphc.frontend.generator import (
    Generator,
    advance,
    bits,
    default_generator,
    default_on,
    drawn_from,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
    state_for,
)
from graphc.frontend.limits import finfo
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import narrow, part, reshape
from graphc.frontend.pointwise import cast, log1p, sqrt, where
from graphc.frontend.sorting import argsort, searchsorted
from graphc.frontend.tape import without_slope
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import DType, broadcast_shapes, float32, float64, int64, uint64

FUNCTIONS = """
    bernoulli binomial get_rng_state initial_seed manual_seed multinomial normal poisson rand rand_like randint
    randint_like randn randn_like randperm seed set_rng_state
"""
METHODS = "bernoulli multinomial"

__all__ = [
    "Generator", "bernoulli", "binomial", "default_generator", "dropout_mask", "fork_rng", "get_rng_state", "initial_seed",
    "manual_seed", "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "seed", "set_rng_state",
]  # fmt: skip


# What every draw is made of


def unit(shape: tuple[Any, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Uniform on [0, 1): 24 random bits for float32, 53 for float64, 11 and fewer for narrower dtypes; of complex dtypes
    both parts are."""
    if dtype.is_complex:
        real, imaginary = (unit(shape, dtype.to_real(), generator) for _ in range(2))
        return emit(ops.complex, (real, imaginary), {})
    return _drawn(_uniform, shape, _words_of(shape, dtype), generator, dtype)


def _words_of(shape: tuple[Any, ...], dtype: DType) -> tuple[Any, ...]:
    """The shape of the words that uniform numbers are made of."""
    return (2, *shape) if dtype is float64 else shape


def _drawn(rule: Callable[..., Tensor], shape: tuple[Any, ...], words: tuple[Any, ...], generator: Generator | None,
           *values: Any, numbers: tuple[float, ...] = ()) -> Tensor:
    """What a rule draws from a generator, which moves on by so many words."""
    state = state_for(words, generator)
    with no_grad():
        found = draw(rule, state, shape, *values, numbers=numbers)
        advance(state, words)
    return found


@composite
def _uniform(state: Tensor, shape: tuple[Any, ...], dtype: DType) -> Tensor:
    """What `unit` draws from a generator in this state."""
    if dtype is float64:
        words = emit(ops.random_bits, (state,), {"shape": (2, *shape)})
        high, low = (cast(reshape(part(words, 0, i, i + 1), shape), float64) for i in (0, 1))
        # 27 bits of one word above 26 of the other
        return (_floor_divide(high, 32) * 67108864.0 + _floor_divide(low, 64)) * 2.0**-53
    word = emit(ops.random_bits, (state,), {"shape": shape})
    found = cast(emit(ops.shift_right, (word, 8), {}), float32) * 2.0**-24
    if dtype is float32:
        return found
    # as many bits as the dtype has, cut off so that nothing is rounded up to 1
    steps = 2.0 ** (11 if dtype.name == "float16" else 8)
    return cast(emit(ops.floor, (found * steps,), {}) / steps, dtype)


def _floor_divide(x: Tensor, divisor: int) -> Tensor:
    return emit(ops.floor, (x * (1 / divisor),), {})


def gaussian(shape: tuple[Any, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Standard normal, by the transformation of Box and Muller (1958) from two uniform numbers each. The parts of complex
    numbers have half the variance each."""
    if dtype.is_complex:
        real, imaginary = (gaussian(shape, dtype.to_real(), generator) * math.sqrt(0.5) for _ in range(2))
        return emit(ops.complex, (real, imaginary), {})
    return _drawn(_normal, shape, _words_of((2, *shape), dtype), generator, dtype)


@composite
def _normal(state: Tensor, shape: tuple[Any, ...], dtype: DType) -> Tensor:
    """What `gaussian` draws from a generator in this state: sqrt(-2 log(1 - u)) cos(2 pi v). Logarithms and cosines have other
    last bits from one library to the next; sums, products, quotients and square roots do not. So a seed gives the same numbers
    wherever they are drawn: eagerly or compiled, by NumPy, a CPU or a GPU."""
    few = dtype is not float64
    wide = float32 if few else float64
    pair = _uniform(state, (2, *shape), wide)
    left, turn = 1.0 - pair[0], pair[1]  # left is from 2**-53, or 2**-24, up to 1
    exponent: Any = 0.0  # of 1 / left
    for shift in (16, 8, 4, 2, 1) if few else (32, 16, 8, 4, 2, 1):  # until it is from sqrt(1/2) to sqrt(2)
        is_small = left < math.sqrt(0.5) * 2.0 ** (1 - shift)
        left = where(is_small, left * 2.0**shift, left)
        exponent = cast(is_small, wide) * float(shift) + exponent
    # log x = 2 artanh((x - 1) / (x + 1)), and cos(2 pi v) = sin(pi (|2v - 1| - 1/2)), whose argument is exact but for pi
    ratio = (left - 1.0) / (left + 1.0)
    log_left = ratio * _polynomial(ratio * ratio, [2.0 / (2 * k + 1) for k in range(6 if few else 11)])
    angle = (abs(2.0 * turn - 1.0) - 0.5) * math.pi
    sine = angle * _polynomial(angle * angle, [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(7 if few else 11)])
    return cast(sqrt(2.0 * (exponent * math.log(2) - log_left)) * sine, dtype)


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """The sum of coefficients[k] * x ** k, by Horner's rule."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total = (total + coefficient) * x
    return total + coefficients[0]


def integers(low: int, high: int, shape: tuple[Any, ...], generator: Generator | None) -> Tensor:
    """Integers from low up to high - 1, as int64."""
    if low >= high:
        raise GraphcError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    span = high - low
    if span <= 1 << 48:
        return _drawn(_integers, shape, _words_of(shape, float64), generator, numbers=(float(span), low))
    word = _drawn(_words, shape, (2, *shape), generator)
    if span < 1 << 64:
        word = emit(ops.remainder, (word, span), {})
    return cast(word, int64) + low


@composite(large=False)
def _integers(state: Tensor, shape: tuple[Any, ...], span: float, low: int) -> Tensor:
    """What `integers` draws from a generator in this state."""
    return cast(emit(ops.floor, (_uniform(state, shape, float64) * span,), {}), int64) + low


@composite(large=False)
def _words(state: Tensor, shape: tuple[Any, ...]) -> Tensor:
    """Words, uint64, that are drawn from a generator in this state."""
    words = cast(emit(ops.random_bits, (state,), {"shape": (2, *shape)}), uint64)
    above, below = (reshape(part(words, 0, i, i + 1), shape) for i in (0, 1))
    return emit(ops.bitwise_or, (emit(ops.shift_left, (above, 32), {}), below), {})


_C_NAMES = {
    "bool": "bool", "uint8": "unsigned char", "int8": "signed char", "int16": "short", "int32": "int", "int64": "long int",
    "float16": "c10::Half", "bfloat16": "c10::BFloat16", "float32": "float", "float64": "double",
}  # fmt: skip


def check_bounds(low: int, high: int, dtype: DType) -> None:
    """GraphcError unless all integers from low to high - 1 fit the dtype."""
    if dtype.is_complex:
        raise GraphcError("check_random_bounds handles only integral, floating-point and boolean types", got=dtype.name)
    if low >= high:
        raise GraphcError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    least, most = integer_limits(dtype)
    for name, value in (("from", low), ("to - 1", high - 1)):
        if not least <= value <= most:
            raise GraphcError(f"{name} is out of bounds for {_C_NAMES.get(dtype.name, dtype.name)}", got=str(value),
                              expected=f"{least} to {most}")


def integer_limits(dtype: DType) -> tuple[float, float]:
    """The least and the largest number of a dtype."""
    if dtype.kind == "bool":
        return 0, 1
    if dtype.is_floating_point:
        return finfo(dtype).min, finfo(dtype).max
    found = np.iinfo(dtype.numpy)
    return int(found.min), int(found.max)


def largest_exact(dtype: DType) -> int:
    """The largest integer up to which a dtype holds all."""
    if dtype.is_floating_point:
        return 1 << {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype.name]
    return int(integer_limits(dtype)[1])


def check_continuous(dtype: DType, function: str) -> None:
    """UnsupportedDTypeError for integers and bools."""
    if not dtype.is_differentiable:
        raise UnsupportedDTypeError(f'"{function}" not implemented for \'{scalar_type(dtype)}\'',
                                    expected="a floating-point or complex dtype")


# Tensors of a shape


def _place(out: Tensor | None, device: Device) -> Device:
    """Where to draw the numbers for a result that may be written into a tensor."""
    return out.device if device is None and out is not None else device


def rand(*args: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
         dtype: DType | None = None, device: Device = None, requires_grad: bool = False, layout: object = None,
         pin_memory: bool = False) -> Tensor:
    """Numbers uniform on [0, 1), of the default dtype unless one is given, from `generator` or the default one.

    GraphcError for a negative size, UnsupportedDTypeError for integers.

    >>> generator = graphc.manual_seed(0)
    >>> x = graphc.rand(2, 3)
    >>> x.shape, bool((x >= 0).all() and (x < 1).all())
    (graphc.Size([2, 3]), True)
    """
    chosen = kept_dtype(dtype, out, "rand")
    check_continuous(chosen, "rand")
    source = drawn_from(generator, _place(out, device))
    return finished(unit(given_size(args, size, "rand"), chosen, source), out, requires_grad, device)


def randn(*args: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
          dtype: DType | None = None, device: Device = None, requires_grad: bool = False, layout: object = None,
          pin_memory: bool = False) -> Tensor:
    """Normal numbers with mean 0 and standard deviation 1, of the default dtype unless one is given.

    GraphcError for a negative size, UnsupportedDTypeError for integers.

    >>> graphc.randn(2, 3).shape
    graphc.Size([2, 3])
    """
    chosen = kept_dtype(dtype, out, "randn")
    check_continuous(chosen, "randn")
    source = drawn_from(generator, _place(out, device))
    return finished(gaussian(given_size(args, size, "randn"), chosen, source), out, requires_grad, device)


def rand_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
              generator: Generator | None = None, layout: object = None, memory_format: object = None) -> Tensor:
    """Uniform on [0, 1), in the input's shape and dtype.

    UnsupportedDTypeError for integers, ArgumentTypeError for what is no tensor.

    >>> graphc.rand_like(graphc.zeros(2, 3)).shape
    graphc.Size([2, 3])
    """
    return rand(tuple(need_tensor(input, "rand_like")._data.shape), dtype=dtype or input.dtype,
                device=input.device if device is None else device, requires_grad=requires_grad, generator=generator)


def randn_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               generator: Generator | None = None, layout: object = None, memory_format: object = None) -> Tensor:
    """Standard normal, in the input's shape and dtype.

    UnsupportedDTypeError for integers, ArgumentTypeError for what is no tensor.

    >>> graphc.randn_like(graphc.zeros(2, 3)).shape
    graphc.Size([2, 3])
    """
    return randn(tuple(need_tensor(input, "randn_like")._data.shape), dtype=dtype or input.dtype,
                 device=input.device if device is None else device, requires_grad=requires_grad, generator=generator)


def randint(*args: Any, low: int | None = None, high: int | None = None, size: Any = None,
            generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
            device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Integers from `low` (0 unless given) up to but not including `high`, each equally likely: randint(high, size) or
    randint(low, high, size). They are int64 unless a dtype is given.

    ArgumentTypeError for a size that is not of ints.

    >>> bool((graphc.randint(3, 5, (100,)) >= 3).all())
    True
    """
    given = list(args)
    if size is None:
        if not given:
            raise ArgumentTypeError('randint() missing 1 required positional arguments: "size"',
                                    expected="randint(low, high, size) or randint(high, size)")
        size = given.pop()
        if not isinstance(size, (tuple, list)):
            raise ArgumentTypeError("randint(): argument 'size' must be tuple of ints, not "
                                    f"{type(size).__name__}", expected="randint(low, high, size) or randint(high, size)")
    low, high = _ends("randint", given, low, high)
    chosen = int64 if dtype is None and out is None else kept_dtype(dtype, out, "randint")
    check_bounds(low, high, chosen)
    drawn = integers(low, high, sizes((size,), "randint(): argument 'size'"), drawn_from(generator, _place(out, device)))
    return finished(cast(drawn, chosen), out, requires_grad, device)


def _ends(function: str, given: list[Any], low: Any, high: Any) -> tuple[int, int]:
    """Both ends of a range, of which the lower may have been left away."""
    if given:
        high = given.pop()
    if given:
        low = given.pop()
    if high is None:
        raise ArgumentTypeError(f'{function}() missing 1 required positional arguments: "high"')
    return (integer(0 if low is None else low, f"{function}(): argument 'low'"),
            integer(high, f"{function}(): argument 'high'"))


def randint_like(input: Tensor, *args: Any, low: int | None = None, high: int | None = None, dtype: DType | None = None,
                 device: Device = None, requires_grad: bool = False, generator: Generator | None = None,
                 layout: object = None, memory_format: object = None) -> Tensor:
    """`randint` in the input's shape and dtype.

    ArgumentTypeError without an end, GraphcError where the first end is not less than the second.

    >>> graphc.randint_like(graphc.zeros(2, 3), 10).dtype
    graphc.float32
    """
    low, high = _ends("randint_like", list(args), low, high)
    return randint(low, high, tuple(need_tensor(input, "randint_like")._data.shape), dtype=dtype or input.dtype,
                   device=input.device if device is None else device, requires_grad=requires_grad, generator=generator)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
             device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """The numbers from 0 to n - 1 in random order: the order of n random 64-bit keys.

    UnsupportedDTypeError for bools and complex numbers, GraphcError for a negative n, and for one that the dtype cannot hold.

    >>> graphc.randperm(4).sort().values
    tensor([0, 1, 2, 3])
    """
    count = integer(n, "randperm(): argument 'n' (position 1)")
    chosen = int64 if dtype is None and out is None else kept_dtype(dtype, out, "randperm")
    if chosen.is_complex or chosen.kind == "bool":
        raise UnsupportedDTypeError(f'"randperm" not implemented for \'{scalar_type(chosen)}\'')
    check_count(count, chosen)
    order = _drawn(_order, (count,), (2, count), drawn_from(generator, _place(out, device)))
    return finished(cast(order, chosen), out, requires_grad, device)


def _order(state: Tensor, shape: tuple[int]) -> Tensor:
    """The order of random words."""
    return argsort(_words(state, shape), stable=True)


def check_count(count: int, dtype: DType) -> None:
    """GraphcError unless all numbers below `count` can be told apart in the dtype."""
    most = largest_exact(dtype) + 1
    if count > most and dtype.is_floating_point:
        raise GraphcError(f"n cannot be greater than {most} for {scalar_type(dtype)} type.", got=str(count))
    if count > most:
        raise GraphcError(f"value cannot be converted to type {dtype.name}_t without overflow", got=str(count))


# Tensors of parameters, element by element


def _probabilities(input: Tensor) -> None:
    """GraphcError unless the elements are probabilities, as far as they are known."""
    known = input._known()
    if known is not None:
        low, high = known.min(), known.max()
        if not (low >= 0 and high <= 1):
            raise GraphcError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.", expected="probabilities",
                              got=f"numbers from {low} to {high}")


def below(shape: tuple[Any, ...], p: Any, generator: Generator | None) -> Tensor:
    """True with probability p: a number for all elements, or a tensor of one for each."""
    if isinstance(p, Tensor):
        if not p.dtype.is_floating_point:
            raise UnsupportedDTypeError(f'"bernoulli_tensor_cpu_p_" not implemented for \'{scalar_type(p.dtype)}\'')
        _probabilities(p)
    elif not 0 <= p <= 1:
        raise GraphcError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
    with no_grad():
        return unit(shape, float32, generator) < p


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None,
              out: Tensor | None = None) -> Tensor:
    """Ones with the probabilities that the elements give (or `p` everywhere), else zeros, in the input's dtype. GraphcError for
    probabilities outside of [0, 1], UnsupportedDTypeError for integers and complex numbers.

    >>> graphc.bernoulli(graphc.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    if input.dtype.is_complex:
        raise UnsupportedDTypeError(f'"bernoulli_scalar_cpu_" not implemented for \'{scalar_type(input.dtype)}\'')
    drawn = cast(below(tuple(input._data.shape), input if p is None else p, drawn_from(generator, input.device)),
                 input.dtype)
    return finished(without_slope(drawn, (input,), "Bernoulli"), out, False, input.device)


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, out: Tensor | None = None,
           dtype: DType | None = None, device: Device = None, requires_grad: bool = False, layout: object = None,
           pin_memory: bool = False) -> Tensor:
    """Normal with the mean and standard deviation given as numbers (then of shape `size`) or element by element.

    GraphcError for a negative or complex standard deviation; ArgumentTypeError for two numbers without a size.

    >>> graphc.normal(0.0, 1.0, (2, 3)).shape
    graphc.Size([2, 3])
    >>> graphc.normal(graphc.tensor([1.0, 2.0]), 0.0)
    tensor([1., 2.])
    """
    parameters = [x for x in (mean, std) if isinstance(x, Tensor)]
    if not isinstance(std, Tensor):
        check_std("normal", std)
    elif std.dtype.is_complex:
        raise GraphcError("normal expects standard deviation to be non-complex")
    elif (known := std._known()) is not None and (known < 0).any():
        raise GraphcError("normal expects all elements of std >= 0.0", got=str(known.min()))
    if size is not None:
        shape = sizes((size,), "normal(): argument 'size'")
    elif parameters:
        shape = broadcast_shapes(*(tuple(x._data.shape) for x in parameters), op="normal")
    else:
        raise ArgumentTypeError("normal() received an invalid combination of arguments: with two numbers the size is needed",
                                expected="normal(mean, std, size)")
    chosen = kept_dtype(dtype, out, "normal") if not parameters else parameters[0].dtype
    check_continuous(chosen, "normal_kernel_cpu")
    device = parameters[0].device if parameters else device
    with no_grad():
        drawn = cast(gaussian(shape, chosen, drawn_from(generator, _place(out, device))) * std + mean, chosen)
    return finished(without_slope(drawn, parameters, "Normal"), out, requires_grad, device)


def check_std(function: str, std: Any) -> None:
    """GraphcError for a negative standard deviation."""
    if std < 0:
        raise GraphcError(f"{function} expects std >= 0.0, but found std {std:g}")


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None,
                out: Tensor | None = None) -> Tensor:
    """Indices drawn with the weights that each row gives, with or without putting them back, as int64.

    GraphcError for what is not one row of weights or several, for integers, and for more draws than there are elements.

    >>> graphc.multinomial(graphc.tensor([0.0, 1.0, 0.0]), 3, replacement=True)
    tensor([1, 1, 1])
    """
    count = integer(num_samples, "multinomial(): argument 'num_samples' (position 2)")
    if input.ndim not in (1, 2):
        raise GraphcError("prob_dist must be 1 or 2 dim", got=f"shape {list(input.shape)}")
    if not input.dtype.is_floating_point:
        raise GraphcError("multinomial only supports floating-point dtypes for input, got: " + scalar_type(input.dtype))
    if count <= 0:
        raise GraphcError("cannot sample n_sample <= 0 samples", got=str(count))
    if not replacement and count > input.size(-1):
        raise GraphcError("cannot sample n_sample > prob_dist.size(-1) samples without replacement",
                          got=f"{count} of {input.size(-1)}")
    known = input._known()
    if known is not None:
        if (known < 0).any() or not np.isfinite(known).all():
            raise GraphcError("probability tensor contains either `inf`, `nan` or element < 0")
        if (known.sum(-1) <= 0).any():
            raise GraphcError("invalid multinomial distribution (sum of probabilities <= 0)")
    generator = drawn_from(generator, input.device)
    with no_grad():
        weights = cast(input, float64)
        if replacement:
            edges = cumsum(weights, -1)
            edges = edges / narrow(edges, -1, edges.size(-1) - 1, 1)
            drawn = searchsorted(edges, unit((*input.shape[:-1], count), float64, generator), right=True)
        else:
            # the order of exponential waiting times, weights as rates, is that of drawing without replacement
            waits = -log1p(-unit(tuple(input.shape), float64, generator)) / weights
            drawn = contiguous(narrow(argsort(waits, -1, stable=True), -1, 0, count))
    return finished(drawn, out, False, input.device)


def _library(generator: Generator | None, what: str) -> np.random.Generator:
    """NumPy's generator, seeded by the next words of ours."""
    return np.random.Generator(np.random.Philox(bits((4,), generator)._array(what)))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson-distributed numbers with the rates that the elements give, in the input's dtype.

    GraphcError for a negative rate, UnsupportedDTypeError for integers.

    >>> graphc.poisson(graphc.tensor([0.0, 0.0]))
    tensor([0., 0.])
    """
    if not input.dtype.is_floating_point:
        raise UnsupportedDTypeError(f'"poisson_cpu" not implemented for \'{scalar_type(input.dtype)}\'')
    rates = input._array("poisson()").astype(np.float64)
    if (rates < 0).any():
        raise GraphcError("invalid Poisson rate, expected rate to be non-negative", got=str(rates.min()))
    drawn = _library(generator, "poisson()").poisson(rates).astype(input.dtype.numpy)
    return without_slope(wrap(np.asarray(drawn)).to(input.device), (input,), "Poisson")


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed that do so with probability `prob`, in the dtype of `count`.

    GraphcError where the dtypes differ or are of integers, and for probabilities outside of [0, 1].

    >>> graphc.binomial(graphc.tensor([5.0, 5.0]), graphc.tensor([0.0, 1.0]))
    tensor([0., 5.])
    """
    if not count.dtype.is_floating_point or count.dtype is not prob.dtype:
        raise GraphcError("binomial only supports floating-point dtypes for count and prob, and equal ones",
                          got=f"{count.dtype.name} and {prob.dtype.name}")
    _probabilities(prob)
    trials = count._array("binomial()").astype(np.int64)
    chances = prob._array("binomial()").astype(np.float64)
    drawn = _library(generator, "binomial()").binomial(trials, chances).astype(count.dtype.numpy)
    return without_slope(wrap(np.asarray(drawn)).to(count.device), (count, prob), "Binomial")


def dropout_mask(shape: tuple[int, ...], p: float, device: Device = None) -> Tensor:
    """True with probability 1 - p.

    >>> graphc.random.dropout_mask((2,), p=0.0)
    tensor([True, True])
    """
    with no_grad():
        return unit(shape, float32, default_on(device)) >= p
