"""Random tensors. The stream is a function of the seed and the position alone: the same eagerly and compiled.

A generator's state is a tensor int64[2], the seed and the number of Philox blocks used (see `graphc.ops.random`). A draw
reads bits from it and moves it on in place, so inside a trace the state is lifted, changed and written back like any
buffer.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend.arguments import emit, sizes
from graphc.frontend.creation import given_size
from graphc.frontend.inplace import assign, refuse, write_out
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import part, reshape
from graphc.frontend.pointwise import cast, cos, log, sqrt
from graphc.frontend.tensor import Tensor, wrap
from graphc.ops.random import blocks
from graphc.types import DType, broadcast_shapes, float32, float64, get_default_dtype, int64

FUNCTIONS = """
    bernoulli get_rng_state initial_seed manual_seed multinomial normal rand rand_like randint randint_like randn
    randn_like randperm seed set_rng_state
"""
METHODS = "bernoulli bernoulli_ exponential_ multinomial normal_ random_ uniform_"

Device = str | devices.device | None


class Generator:
    """A stream of random numbers of its own."""

    def __init__(self, device: Device = "cpu") -> None:
        devices.check(device)
        self._state = wrap(np.array([_DEFAULT_SEED, 0], np.int64))

    @property
    def device(self) -> devices.device:
        """Where the generator lives."""
        return devices.CPU

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed from its beginning; returns the generator."""
        value = int(seed)
        if not -(1 << 63) <= value < 1 << 64:
            raise GraphcError("Overflow when unpacking long: the seed does not fit into 64 bits", got=str(seed))
        with no_grad():
            fresh = np.array([value - (1 << 64) if value >= 1 << 63 else value, 0], np.int64)
            assign(self._state, wrap(fresh))
        return self

    def seed(self) -> int:
        """Start a stream from a seed that the operating system gives; returns it."""
        value = int.from_bytes(os.urandom(7), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return int(self._state._array("initial_seed()")[0]) & 0xFFFFFFFFFFFFFFFF

    def get_state(self) -> Tensor:
        """The state as a tensor of bytes."""
        return wrap(self._state._array("get_state()").copy().view(np.uint8))

    def set_state(self, new_state: Tensor) -> None:
        """Go back to a state that `get_state` gave."""
        array = new_state._array("set_state()")
        if array.dtype != np.uint8 or array.shape != (16,):
            raise GraphcError("RNG state must be the 16 bytes that get_state() returns", got=f"{new_state.dtype.name}"
                              f"{list(new_state.shape)}")
        with no_grad():
            assign(self._state, wrap(array.copy().view(np.int64)))

    def clone_state(self) -> Generator:
        """Another generator at the same place of the same stream."""
        other = Generator()
        other.set_state(self.get_state())
        return other

    def __reduce__(self) -> Any:
        return _restore, (self.get_state().numpy(),)


def _restore(state: np.ndarray) -> Generator:
    generator = Generator()
    generator.set_state(wrap(state))
    return generator


_DEFAULT_SEED = 67280421310721
"""The seed of a generator that nobody seeded."""

default_generator = Generator()
"""What draws without a generator of their own come from."""


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, as bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Go back to a state of the default generator."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = (), enabled: bool = True) -> Any:
    """A block after which the default generator is where it was before."""
    if not enabled:
        yield
        return
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


# Draws


def bits(shape: tuple[Any, ...], generator: Generator | None = None) -> Tensor:
    """Random words, uint32; moves the generator on."""
    state = (generator or default_generator)._state
    with no_grad():
        words = emit(ops.random_bits, (state,), {"shape": shape})
        used = np.array([0, blocks(math.prod(shape))], np.int64)
        assign(state, emit(ops.add, (state, used), {}))
    return words


def _unit(shape: tuple[Any, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Uniform on [0, 1): 24 random bits for float32 and narrower, 53 for float64."""
    if dtype is float64:
        words = bits((2, *shape), generator)
        high, low = (cast(reshape(part(words, 0, i, i + 1), shape), float64) for i in (0, 1))
        # 27 bits of one word above 26 of the other
        return (_floor_divide(high, 32) * 67108864.0 + _floor_divide(low, 64)) * 2.0**-53
    word = bits(shape, generator)
    unit = cast(emit(ops.shift_right, (word, 8), {}), float32) * 2.0**-24
    if dtype is float32:
        return unit
    # fewer bits, cut off so that nothing is rounded up to 1
    return cast(emit(ops.floor, (unit * 2048.0,), {}) * 2.0**-11, dtype)


def _floor_divide(x: Tensor, divisor: int) -> Tensor:
    return emit(ops.floor, (x * (1 / divisor),), {})


def _gaussian(shape: tuple[Any, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Standard normal, by the transformation of Box and Muller (1958) from two uniform numbers each."""
    wide = float64 if dtype is float64 else float32
    pair = _unit((2, *shape), wide, generator)
    radius, angle = (reshape(part(pair, 0, i, i + 1), shape) for i in (0, 1))
    return cast(sqrt(-2.0 * log(1.0 - radius)) * cos(angle * (2 * math.pi)), dtype)


def _finished(made: Tensor, out: Tensor | None, requires_grad: bool) -> Tensor:
    if out is not None:
        return write_out(made, out)
    return made.requires_grad_() if requires_grad else made


def _floating(dtype: DType | None, function: str) -> DType:
    chosen = dtype or get_default_dtype()
    if not chosen.is_floating_point:
        raise GraphcError(f'"{function}" is not implemented for {chosen.name}', expected="a floating-point dtype")
    return chosen


def rand(*args: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
         dtype: DType | None = None, device: Device = None, requires_grad: bool = False, layout: object = None,
         pin_memory: bool = False) -> Tensor:
    """Uniform on [0, 1)."""
    devices.check(device)
    return _finished(_unit(given_size(args, size, "rand"), _floating(dtype, "rand"), generator), out, requires_grad)


def randn(*args: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
          dtype: DType | None = None, device: Device = None, requires_grad: bool = False, layout: object = None,
          pin_memory: bool = False) -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    devices.check(device)
    return _finished(_gaussian(given_size(args, size, "randn"), _floating(dtype, "randn"), generator), out, requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
              generator: Generator | None = None, memory_format: object = None) -> Tensor:
    """Uniform on [0, 1), in the input's shape and dtype."""
    return rand(tuple(input._data.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad,
                generator=generator)


def randn_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               generator: Generator | None = None, memory_format: object = None) -> Tensor:
    """Standard normal, in the input's shape and dtype."""
    return randn(tuple(input._data.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad,
                 generator=generator)


def _integers(low: int, high: int, shape: tuple[Any, ...], generator: Generator | None) -> Tensor:
    """Integers from low up to high - 1, as int64: a 53-bit fraction of the range."""
    if low >= high:
        raise GraphcError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    unit = _unit(shape, float64, generator)
    return cast(emit(ops.floor, (unit * float(high - low),), {}), int64) + low


def randint(*args: Any, low: int | None = None, high: int | None = None, size: Any = None,
            generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
            device: Device = None, requires_grad: bool = False, layout: object = None) -> Tensor:
    """Integers from `low` (0 unless given) up to but not including `high`: randint(low, high, size) or randint(high, size)."""
    given = list(args)
    if size is None:
        if not given:
            raise ArgumentTypeError("randint: the size is missing", expected="randint(low, high, size) or randint(high, size)")
        size = given.pop()
    if given:
        high = given.pop()
    if given:
        low = given.pop()
    if high is None:
        raise ArgumentTypeError("randint: the upper end is missing", expected="randint(low, high, size) or randint(high, size)")
    devices.check(device)
    drawn = _integers(low or 0, high, sizes((size,), "size"), generator)
    return _finished(cast(drawn, dtype or int64), out, requires_grad)


def randint_like(input: Tensor, *args: int, low: int | None = None, high: int | None = None, dtype: DType | None = None,
                 device: Device = None, requires_grad: bool = False) -> Tensor:
    """`randint` in the input's shape and dtype."""
    return randint(*args, tuple(input._data.shape), low=low, high=high, dtype=dtype or input.dtype, device=device,
                   requires_grad=requires_grad)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
             device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """The numbers from 0 to n - 1 in random order: the order of n random 64-bit keys."""
    devices.check(device)
    keys = bits((2, n), generator)._array("randperm()").astype(np.uint64)
    order = np.argsort((keys[0] << np.uint64(32)) | keys[1], kind="stable").astype(np.int64)
    return _finished(cast(wrap(order), dtype or int64), out, requires_grad)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None,
              out: Tensor | None = None) -> Tensor:
    """Ones with the probabilities that the elements give (or `p` everywhere), else zeros, in the input's dtype."""
    chance: Any = input if p is None else p
    known = input._known()
    if p is None and known is not None:
        low, high = known.min(), known.max()
        if not (low >= 0 and high <= 1):
            raise GraphcError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.", expected="probabilities",
                              got=f"numbers from {low} to {high}")
    with no_grad():
        drawn = _unit(tuple(input._data.shape), float32, generator) < chance
    return _finished(cast(drawn, input.dtype), out, False)


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, out: Tensor | None = None,
           dtype: DType | None = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """Normal with the mean and standard deviation given as numbers (then of shape `size`) or element by element."""
    if not isinstance(std, Tensor) and std < 0:
        raise GraphcError(f"normal expects std >= 0.0, but found std {std}")
    if isinstance(std, Tensor) and (known := std._known()) is not None and (known < 0).any():
        raise GraphcError("normal expects all elements of std >= 0.0")
    if size is not None:
        shape = sizes((size,), "size")
    else:
        shapes = [x._data.shape for x in (mean, std) if isinstance(x, Tensor)]
        if not shapes:
            raise ArgumentTypeError("normal: with two numbers the size is needed", expected="normal(mean, std, size)")
        shape = broadcast_shapes(*map(tuple, shapes))
    chosen = dtype or next((x.dtype for x in (mean, std) if isinstance(x, Tensor)), get_default_dtype())
    return _finished(_gaussian(shape, chosen, generator) * std + mean, out, requires_grad)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Tensor:
    """Indices drawn with the weights that each row gives, with or without putting them back."""
    if not input.dtype.is_floating_point:
        raise GraphcError(f"multinomial only supports floating-point dtypes for input, got: {input.dtype.name}")
    weights = input._array("multinomial()").astype(np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if (rows < 0).any() or not np.isfinite(rows).all():
        raise GraphcError("probability tensor contains either `inf`, `nan` or element < 0")
    if (rows.sum(1) <= 0).any():
        raise GraphcError("invalid multinomial distribution (sum of probabilities <= 0)")
    if num_samples <= 0:
        raise GraphcError("cannot sample n_sample <= 0 samples")
    if replacement:
        unit = _unit((len(rows), num_samples), float64, generator)._array("multinomial()")
        edges = np.cumsum(rows / rows.sum(1, keepdims=True), 1)
        edges /= edges[:, -1:]
        drawn = np.stack([np.searchsorted(e, u, side="right") for e, u in zip(edges, unit)])
    else:
        if num_samples > rows.shape[1]:
            raise GraphcError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
        # the order of exponential waiting times, weights as rates, is that of drawing without replacement
        unit = _unit(rows.shape, float64, generator)._array("multinomial()")
        with np.errstate(divide="ignore"):
            waits = -np.log1p(-unit) / rows
        drawn = np.argsort(waits, 1, kind="stable")[:, :num_samples]
    return wrap(drawn.astype(np.int64).reshape(*weights.shape[:-1], num_samples))


# In place


def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers uniform on [a, b)."""
    refuse(self)
    if a > b:
        raise GraphcError(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}")
    unit = _unit(tuple(self._data.shape), _floating(self.dtype, "uniform_"), generator)
    return assign(self, unit * (b - a) + a)


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with normal numbers."""
    refuse(self)
    if std < 0:
        raise GraphcError(f"normal expects std >= 0.0, but found std {std}")
    return assign(self, _gaussian(tuple(self._data.shape), _floating(self.dtype, "normal_"), generator) * std + mean)


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with ones of probability p, and zeros."""
    refuse(self)
    drawn = _unit(tuple(self._data.shape), float32, generator) < p
    return assign(self, cast(drawn, self.dtype))


def random_(self: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with integers from `from_` up to but not including `to`; `random_(to)` starts at 0."""
    refuse(self)
    if to is None and from_:
        from_, to = 0, from_
    if to is None:
        kind = self.dtype
        to = 2 if kind.kind == "bool" else (1 << {16: 11, 32: 24, 64: 53}[kind.bits]) + 1 if kind.is_floating_point \
            else int(np.iinfo(kind.numpy).max)
    return assign(self, _integers(from_, to, tuple(self._data.shape), generator))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with exponentially distributed numbers of rate lambd."""
    refuse(self)
    if lambd <= 0:
        raise GraphcError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    unit = _unit(tuple(self._data.shape), _floating(self.dtype, "exponential_"), generator)
    return assign(self, log(1.0 - unit) * (-1.0 / lambd))


def dropout_mask(shape: tuple[int, ...], p: float) -> Tensor:
    """True with probability 1 - p."""
    with no_grad():
        return _unit(shape, float32, None) >= p

