"""GPUs: there is no CUDA back end for eager tensors, and these functions say so."""

from __future__ import annotations

from typing import Any

from graphc.errors import BackendError
from graphc.frontend.cuda import amp as amp


def is_available() -> bool:
    """Whether tensors can live on a GPU here."""
    return False


def is_initialized() -> bool:
    """Whether a GPU has been used."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether a GPU computes in bfloat16: there is none."""
    return False


def device_count() -> int:
    """How many GPUs there are to use."""
    return 0


def _none() -> BackendError:
    return BackendError("no CUDA device can be used here", hint="ask graphc.cuda.is_available() first")


def current_device() -> int:
    """The number of the GPU in use: an error without one."""
    raise _none()


def set_device(device: Any) -> None:
    """Choose the GPU to use: an error without one."""
    raise _none()


def get_device_name(device: Any = None) -> str:
    """The name of a GPU: an error without one."""
    raise _none()


def get_device_properties(device: Any = None) -> Any:
    """What a GPU can do: an error without one."""
    raise _none()


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The version of a GPU's architecture: an error without one."""
    raise _none()


def manual_seed(seed: int) -> None:
    """Seed the generator of the current GPU: without one there is nothing to seed."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs: without one there is nothing to seed."""


def empty_cache() -> None:
    """Give unused GPU memory back: without a GPU there is none."""


def synchronize(device: Any = None) -> None:
    """Wait for the GPU: without one there is nothing to wait for."""


def memory_allocated(device: Any = None) -> int:
    """Bytes of GPU memory that tensors take."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes of GPU memory that tensors have taken."""
    return 0


def memory_reserved(device: Any = None) -> int:
    """Bytes of GPU memory that are held."""
    return 0


def reset_peak_memory_stats(device: Any = None) -> None:
    """Forget the most bytes taken."""
