"""CuPy, which graphc has GPUs by: found when it is first needed, with an error that says how to get what is missing. And what
kernels have to say that nobody waits for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import numpy as np

from graphc.errors import BackendError, OutOfMemoryError

_EITHER = "choose the device: 'cuda' if graphc.cuda.is_available() else 'cpu'"
_asked: list[int] = []
"""The process that has asked the driver for GPUs, if one has: the driver answers no process that is forked from it."""


def import_cupy() -> Any:
    """CuPy; BackendError where it is not installed, or finds no GPU, and in a process that was forked when CUDA was in use."""
    if _asked and _asked[0] != os.getpid():
        raise BackendError("CUDA cannot be used in this process: it was forked from one that had used CUDA before",
                           hint="start processes by multiprocessing.get_context('spawn'), or ask for GPUs after the fork alone")
    try:
        import cupy
    except ImportError as error:
        raise BackendError("CUDA needs CuPy, which is not installed",
                           hint=f"pip install 'graphc[cuda]', or {_EITHER}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        _asked[:] = [os.getpid()]
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"no CUDA device can be used here: {error}",
                           hint="install NVIDIA's driver (`nvidia-smi` shows whether it finds a GPU), or " + _EITHER) from error
    if not count:
        raise BackendError("no CUDA device can be used here: there is none", hint=_EITHER)
    return cupy


def device_count() -> int:
    """How many GPUs can be used: none where CuPy or the driver is missing."""
    try:
        return import_cupy().cuda.runtime.getDeviceCount()
    except BackendError:
        return 0


taken: dict[int, int] = {}
"""How many bytes of each GPU's memory have ever been taken, whether or not they have been given back."""
_UNIT = 512


def take(device: int, nbytes: int) -> None:
    """Count memory that has been taken from CuPy's pool, which gives it in units."""
    taken[device] = taken.get(device, 0) + -(-nbytes // _UNIT) * _UNIT


def out_of_memory(error: Exception) -> OutOfMemoryError:
    """What is raised for CuPy's error."""
    return OutOfMemoryError(f"CUDA out of memory: {error}",
                            hint="free tensors, use smaller batches, or call graphc.cuda.empty_cache()")


class Moment(Protocol):
    """A place in the order of a GPU's work, such as CuPy's events."""

    @property
    def done(self) -> bool:
        """Whether the work before it is done."""
        ...


_reports: dict[Hashable, deque[tuple[Moment, np.ndarray, Callable[[np.ndarray], None]]]] = {}
"""By the queue of a GPU's work: what is reported there comes in order, but not before or after what others report."""


def report(moment: Moment, numbers: np.ndarray, then: Callable[[np.ndarray], None], queue: Hashable = None) -> None:
    """Have `then` called with numbers that are there from a moment of a queue on: by the first `look` after it."""
    _reports.setdefault(queue, deque()).append((moment, numbers, then))


def look() -> None:
    """Take note of what kernels have reported that are done, and raise what is wrong. Who has waited for a GPU looks, and who
    launches more."""
    for reports in list(_reports.values()):
        while reports:
            try:
                reported = reports.popleft()
            except IndexError:  # another thread has looked
                break
            moment, numbers, then = reported
            if not moment.done:
                reports.appendleft(reported)
                break
            then(numbers)
