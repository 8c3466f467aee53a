"""Arrays in the memory of GPUs, which are CuPy's. Here they are made, copied and seen in other ways; nothing is computed.

Only memory is CuPy's here: its arrays know shapes, strides, dtypes (bfloat16 is that of ml_dtypes, as on the CPU) and the
pool that the memory comes from. What is computed, graphs compute: see `graphc.frontend.device_ops`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc import gpu
from graphc.gpu import import_cupy, look

kinds: tuple[type, ...] = ()
"""The classes of arrays on GPUs: none before the first of them is made."""
_cupy: Any = None
_peaks: dict[int, int] = {}
_counted: dict[int, tuple[int, int]] = {}
"""What was in use of each GPU's memory when that was counted last, and what had been taken by then."""


def cupy() -> Any:
    """CuPy; BackendError where it is not installed, or finds no GPU."""
    global _cupy, kinds  # noqa: PLW0603  (what is found once)
    if _cupy is None:
        _cupy = import_cupy()
        kinds = (_cupy.ndarray,)
    return _cupy


def _forget_cupy() -> None:
    """In a forked child, which has to ask anew, and is told that there are no GPUs for it."""
    global _cupy  # noqa: PLW0603
    _cupy = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_cupy)


def is_on_device(data: Any) -> bool:
    """Whether it is an array on a GPU."""
    return type(data) in kinds


def is_array(data: Any) -> bool:
    """Whether it is an array, on the CPU or a GPU, and not a value of a graph."""
    return isinstance(data, np.ndarray) or type(data) in kinds


def index_of(array: Any) -> int:
    """The number of the GPU that an array lies on; -1 for the CPU."""
    return -1 if isinstance(array, np.ndarray) else array.data.device_id


@contextlib.contextmanager
def on(device: int) -> Iterator[None]:
    """Work on a GPU."""
    with cupy().cuda.Device(device):
        yield


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
    """New memory, row-major; OutOfMemoryError where there is not enough."""
    library = cupy()
    with library.cuda.Device(device):
        try:
            array = library.ndarray(shape, dtype)
        except library.cuda.memory.OutOfMemoryError as error:
            raise gpu.out_of_memory(error) from error
        gpu.take(device, array.nbytes)
        known, before = _counted.get(device, (0, 0))
        if known + gpu.taken[device] - before > _peaks.get(device, -1):  # else even if nothing was given back, there is room
            _count(device)
    return array


def _count(device: int) -> None:
    """Ask the pool of the current GPU what is in use, which it finds by going through all of it: so not each time."""
    taken = gpu.taken.get(device, 0)
    used = cupy().get_default_memory_pool().used_bytes()
    _counted[device] = used, taken
    _peaks[device] = max(used, _peaks.get(device, 0))


def peak(device: int) -> int:
    """The most bytes of the pool that were in use on a GPU when an array was made."""
    return _peaks.get(device, 0)


def used() -> list[int]:
    """The GPUs that there have been arrays on."""
    return sorted(_peaks)


def forget_peak(device: int) -> None:
    """Begin again with what is in use now."""
    with on(device):
        _peaks[device] = 0
        _count(device)


# To and from the CPU


def upload(array: np.ndarray, device: int) -> Any:
    """A row-major copy on a GPU."""
    array = np.asarray(array, order="C")
    made = empty(array.shape, array.dtype, device)
    if array.nbytes:
        runtime = cupy().cuda.runtime
        with on(device):
            _copy(made.data.ptr, array.ctypes.data, array.nbytes, runtime.memcpyHostToDevice)
    return made


def download(array: Any) -> np.ndarray:
    """A copy on the CPU. Of an array with gaps, these are copied too: make it row-major first if they are large."""
    low, high = byte_bounds(array)
    memory = np.empty(high - low, np.uint8)
    if memory.nbytes:
        with on(index_of(array)):
            _copy(memory.ctypes.data, low, memory.nbytes, cupy().cuda.runtime.memcpyDeviceToHost)
    start = array.data.ptr - low if memory.nbytes else 0
    found: np.ndarray = np.ndarray(array.shape, array.dtype, memory, start, array.strides)
    return found if found.flags.c_contiguous else found.copy()


def overwrite(array: Any, numbers: np.ndarray) -> None:
    """Write the numbers of an array on the CPU over a row-major one of the same shape and dtype."""
    numbers = np.asarray(numbers, order="C")
    if numbers.nbytes:
        with on(index_of(array)):
            _copy(array.data.ptr, numbers.ctypes.data, numbers.nbytes, cupy().cuda.runtime.memcpyHostToDevice)


def known_on_host(data: Any) -> np.ndarray:
    """The numbers of an array, which may not be written to if they are a copy."""
    if isinstance(data, np.ndarray):
        return data
    copy = download(data)
    copy.flags.writeable = False
    return copy


def to_device(array: Any, device: int) -> Any:
    """A row-major copy of a row-major array on another GPU: after what is queued on the current streams of both, and before
    what comes on either. Nobody waits for it."""
    library = cupy()
    own = index_of(array)
    made = empty(array.shape, array.dtype, device)
    if array.nbytes:
        with on(device):
            there = library.cuda.get_current_stream()
            free = library.cuda.Event(disable_timing=True)
            free.record(there)
        with on(own):
            here = library.cuda.get_current_stream()
            here.wait_event(free)  # kernels before may still use what the memory was given back by
            library.cuda.runtime.memcpyPeerAsync(made.data.ptr, device, array.data.ptr, own, array.nbytes, here.ptr)
            done = library.cuda.Event(disable_timing=True)
            done.record(here)
        with on(device):  # default streams have one name on all GPUs
            there.wait_event(done)
    return made


def duplicate(array: Any) -> Any:
    """A copy on the same GPU, its elements in the same order of memory."""
    low, high = byte_bounds(array)
    made = empty((high - low,), np.dtype(np.uint8), index_of(array))
    if made.size:
        runtime = cupy().cuda.runtime
        with on(index_of(array)):
            stream = cupy().cuda.get_current_stream().ptr
            runtime.memcpyAsync(made.data.ptr, low, high - low, runtime.memcpyDeviceToDevice, stream)
    return view(made, array.shape, array.strides, array.data.ptr - low, array.dtype)


def _copy(target: int, source: int, nbytes: int, kind: int) -> None:
    """Copy after the kernels before, wait until that is done, and hear what they have found wrong."""
    library = cupy()
    stream = library.cuda.get_current_stream()
    library.cuda.runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)
    stream.synchronize()
    look()


def clear(array: Any) -> None:
    """Make all bytes of a row-major array zero."""
    library = cupy()
    if array.nbytes:
        with on(index_of(array)):
            library.cuda.runtime.memsetAsync(array.data.ptr, 0, array.nbytes, library.cuda.get_current_stream().ptr)


# Views


def view(array: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, dtype: Any = None) -> Any:
    """The memory of an array from a byte on, in another way."""
    return cupy().ndarray(shape, array.dtype if dtype is None else dtype, memptr=array.data + offset, strides=strides)


def viewed(array: Any, function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The view of an array that a function of NumPy's makes of one of its shape and strides; None if it makes a copy."""
    low, high = byte_bounds(array)
    memory = _nothing(high - low)
    like: np.ndarray = np.ndarray(array.shape, array.dtype, memory, array.data.ptr - low if array.size else 0, array.strides)
    seen = function(like)
    own, (start, stop) = like.__array_interface__["data"][0], byte_bounds(seen)
    first = own - (array.data.ptr - low if array.size else 0)
    if seen.size and not first <= start <= stop <= first + len(memory):
        return None
    offset = seen.__array_interface__["data"][0] - own if seen.size else 0
    return view(array, seen.shape, seen.strides, offset, seen.dtype)


_memory: Any = b""


def _nothing(nbytes: int) -> Any:
    """Address space for arrays that nobody reads."""
    global _memory  # noqa: PLW0603
    memory = _memory
    if len(memory) < nbytes:
        import mmap

        size = 1 << max(16, (nbytes - 1).bit_length())
        flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_NORESERVE} if hasattr(mmap, "MAP_NORESERVE") else {}
        memory = _memory = mmap.mmap(-1, size, **flags)
    return memory


def byte_bounds(array: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array, and of the one after the last."""
    start: int = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    if not array.size:
        return start, start
    reach = [(n - 1) * step for n, step in zip(array.shape, array.strides)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + array.itemsize


def may_overlap(left: Any, right: Any) -> bool:
    """Whether two arrays may have a byte in common."""
    if index_of(left) != index_of(right):
        return False
    (low, high), (start, stop) = byte_bounds(left), byte_bounds(right)
    return low < stop and start < high
