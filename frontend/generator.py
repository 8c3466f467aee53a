"""Generators of random numbers, and the default one.

A generator's state is a tensor int64[2], the seed and the number of Philox blocks used (see `graphc.ops.random`). A draw
reads bits from it and moves it on in place, so inside a trace the state is lifted, changed and written back like any
buffer.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc import gpu, ops
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays, device_ops
from graphc.frontend.arguments import emit
from graphc.frontend.inplace import assign, bump
from graphc.frontend.modes import no_grad
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active, suspended
from graphc.ops.random import blocks

Device = str | int | devices.device | None


class Generator(PrintsSettings):
    """A stream of random numbers of its own.

    BackendError for a device that is not there.

    >>> generator = graphc.Generator().manual_seed(0)
    >>> first = graphc.rand(2, generator=generator)
    >>> graphc.equal(first, graphc.rand(2, generator=generator.manual_seed(0)))
    True
    """

    def __init__(self, device: Device = "cpu") -> None:
        self._state = wrap(device_ops.moved(np.array([_DEFAULT_SEED, 0], np.int64), devices.gpu_of(device)))

    def _printed_settings(self) -> dict[str, Any]:
        return {"device": str(self.device)}

    @property
    def device(self) -> devices.device:
        """Where the generator lives: tensors drawn from it do, too."""
        return self._state.device

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed from its beginning; returns the generator."""
        try:
            value = operator.index(seed)
        except TypeError:
            raise GraphcError(f"manual_seed expected a long, but got {type(seed).__name__}") from None
        if not -(1 << 63) <= value < 1 << 64:
            raise ArgumentError("Overflow when unpacking long long: the seed does not fit into 64 bits", got=str(seed))
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
        return wrap(np.array(self._state._array("get_state()")).view(np.uint8))

    def set_state(self, new_state: Tensor) -> None:
        """Go back to a state that `get_state` gave."""
        if not isinstance(new_state, Tensor):
            raise ArgumentTypeError(f"expected a graphc.ByteTensor, but got {type(new_state).__name__}")
        array = new_state._array("set_state()")
        if array.dtype != np.uint8:
            raise ArgumentTypeError("RNG state must be a graphc.ByteTensor", got=new_state.dtype.name)
        if array.shape != (16,):
            raise GraphcError("RNG state is wrong size: it must be the 16 bytes that get_state() returns",
                              got=f"shape {list(new_state.shape)}")
        with no_grad():
            assign(self._state, wrap(array.copy().view(np.int64)))

    def clone_state(self) -> Generator:
        """Another generator at the same place of the same stream."""
        other = Generator(self.device)
        other.set_state(self.get_state())
        return other

    def __reduce__(self) -> Any:
        return _restore, (self.get_state().numpy(), str(self.device))


def _restore(state: np.ndarray, device: str = "cpu") -> Generator:
    generator = Generator(device)
    generator.set_state(wrap(state))
    return generator


_DEFAULT_SEED = 67280421310721
"""The seed of a generator that nobody seeded."""

default_generator = Generator()
"""What draws without a generator of their own come from, on the CPU."""
_on_gpus: dict[int, Generator] = {}


def default_on(device: Device) -> Generator:
    """The default generator of a device; of the default one if none is named. All have the same stream of numbers."""
    index = devices.gpu_of(device)
    if index < 0:
        return default_generator
    if index not in _on_gpus:
        with suspended():
            _on_gpus[index] = Generator(devices.device("cuda", index)).manual_seed(_first_seed)
    return _on_gpus[index]


def defaults() -> list[Generator]:
    """The default generators: that of the CPU first, then those of the GPUs, if any of these is in use."""
    for index in range(gpu.device_count()) if device_arrays.kinds else ():
        default_on(devices.device("cuda", index))
    return [default_generator, *_on_gpus.values()]


def drawn_from(generator: Generator | None, device: Device) -> Generator:
    """What to draw from for a tensor on a device; GraphcError for a generator of another one."""
    if generator is None:
        return default_on(device)
    if isinstance(generator, Generator) and device is not None:
        index, own = devices.gpu_of(device), generator.device
        if index != (own.index if own.type == "cuda" else -1):
            raise GraphcError(f"Expected a '{devices.device(device).type}' device type for generator but found '{own.type}'",
                              hint=f"Generator(device='{device}')")
    return generator


_first_seed = _DEFAULT_SEED


def manual_seed(seed: int) -> Generator:
    """Seed the default generators, of the CPU and of all GPUs; returns that of the CPU.

    GraphcError for a seed that is no int, ArgumentError for one that 64 bits do not hold.

    >>> _ = graphc.manual_seed(0)
    >>> first = graphc.rand(2)
    >>> _ = graphc.manual_seed(0)
    >>> graphc.equal(first, graphc.rand(2))
    True
    """
    global _first_seed  # noqa: PLW0603  (the seed of generators that are still to be made)
    default_generator.manual_seed(seed)
    _first_seed = seed
    for generator in _on_gpus.values():
        generator.manual_seed(seed)
    return default_generator


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed.

    >>> isinstance(graphc.seed(), int)
    True
    """
    return default_generator.seed()


def initial_seed() -> int:
    """The default generator's seed.

    >>> _ = graphc.manual_seed(7)
    >>> graphc.initial_seed()
    7
    """
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, as bytes.

    >>> state = graphc.get_rng_state()
    >>> first = graphc.rand(2)
    >>> graphc.set_rng_state(state)
    >>> graphc.equal(first, graphc.rand(2))
    True
    """
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Go back to a state of the default generator.

    ArgumentTypeError for what is no state.

    >>> state = graphc.get_rng_state()
    >>> graphc.set_rng_state(state)
    """
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = (), enabled: bool = True) -> Iterator[None]:
    """A block after which the default generator is where it was before.

    >>> with graphc.random.fork_rng():
    ...     inside = graphc.rand(2)
    >>> graphc.equal(inside, graphc.rand(2))
    True
    """
    if not enabled:
        yield
        return
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


def bits(shape: tuple[Any, ...], generator: Generator | None = None) -> Tensor:
    """Random words, uint32; moves the generator on."""
    state = state_for(shape, generator)
    with no_grad():
        words = emit(ops.random_bits, (state,), {"shape": shape})
        advance(state, shape)
    return words


def advance(state: Tensor, shape: tuple[Any, ...]) -> None:
    """Move the state of a generator on by the words of a draw."""
    used = blocks(math.prod(shape))
    if type(state._data) is np.ndarray and isinstance(used, int) and active() is None:
        state._data[1] += used
        bump(state)
        return
    # the second number, after the seed; a symbolic size is an operand
    moved = np.array([0, used], np.int64) if isinstance(used, int) else emit(ops.mul, (np.array([0, 1]), used), {})
    assign(state, emit(ops.add, (state, moved), {}))


def state_for(shape: tuple[Any, ...], generator: Generator | None) -> Tensor:
    """The state of what numbers of a shape are drawn from."""
    if generator is None:
        generator = default_on(None)
    elif not isinstance(generator, Generator):
        raise ArgumentTypeError("generator: not a Generator", expected="graphc.Generator() or None",
                                got=type(generator).__name__)
    for size in shape:
        if isinstance(size, int) and size < 0:
            raise GraphcError(f"Trying to create tensor with negative dimension {size}: {list(shape)}")
    return generator._state
