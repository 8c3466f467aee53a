"""The default generators of GPUs. With one seed, all devices have the same stream of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.frontend import device as devices
from graphc.frontend.cuda.devices import device_count, is_available, number
from graphc.frontend.generator import Generator, default_on
from graphc.frontend.tensor import Tensor


def _generator(device: Any = None) -> Generator:
    return default_on(devices.device("cuda", number(device)))


def manual_seed(seed: int) -> None:
    """Seed the generator of the current GPU: without one there is nothing to seed.

    >>> graphc.cuda.manual_seed(0)
    """
    if is_available():
        _generator().manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs.

    >>> graphc.cuda.manual_seed_all(0)
    """
    for index in range(device_count()):
        _generator(index).manual_seed(seed)


def seed() -> None:
    """Seed the generator of the current GPU from the operating system.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.seed()
    """
    if is_available():
        _generator().seed()


def seed_all() -> None:
    """Seed the generators of all GPUs with one number of the operating system's.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.seed_all()
    """
    if is_available():
        manual_seed_all(_generator(0).seed())


def initial_seed() -> int:
    """The seed of the current GPU's generator.

    >>> if graphc.cuda.is_available():
    ...     number = graphc.cuda.initial_seed()
    """
    return _generator().initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of a GPU's generator, as bytes.

    >>> if graphc.cuda.is_available():
    ...     state = graphc.cuda.get_rng_state()
    """
    return _generator(device).get_state()


def get_rng_state_all() -> list[Tensor]:
    """The states of all GPUs' generators.

    >>> if graphc.cuda.is_available():
    ...     states = graphc.cuda.get_rng_state_all()
    """
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Go back to a state of a GPU's generator.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.set_rng_state(graphc.cuda.get_rng_state())
    """
    _generator(device).set_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Go back to states of all GPUs' generators.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.set_rng_state_all(graphc.cuda.get_rng_state_all())
    """
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
