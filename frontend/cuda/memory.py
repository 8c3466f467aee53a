"""The memory of GPUs: that of tensors comes from CuPy's pool, which keeps what is freed for the next ones."""

from __future__ import annotations

from typing import Any

from graphc.errors import OutOfMemoryError as OutOfMemoryError
from graphc.frontend import device_arrays
from graphc.frontend.cuda.devices import is_available, number


def _pool(figure: str, device: Any) -> int:
    if not is_available():
        return 0
    with device_arrays.on(number(device)):
        return int(getattr(device_arrays.cupy().get_default_memory_pool(), figure)())


def memory_allocated(device: Any = None) -> int:
    """Bytes of a GPU's memory that tensors take, and what compiled functions need between calls; 0 without a GPU.

    >>> graphc.cuda.memory_allocated() >= 0
    True
    """
    return _pool("used_bytes", device)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that were taken when a tensor was made, since `reset_peak_memory_stats()`.

    >>> graphc.cuda.max_memory_allocated() >= 0
    True
    """
    return max(device_arrays.peak(number(device)), memory_allocated(device)) if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """Bytes of a GPU's memory that the pool holds, taken and free ones.

    >>> graphc.cuda.memory_reserved() >= 0
    True
    """
    return _pool("total_bytes", device)


def max_memory_reserved(device: Any = None) -> int:
    """Bytes of a GPU's memory that the pool holds: it gives none back but by `empty_cache()`, so these are the most since.

    >>> graphc.cuda.max_memory_reserved() >= 0
    True
    """
    return memory_reserved(device)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Have `max_memory_allocated()` begin again with what is taken now.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.reset_peak_memory_stats()
    """
    if is_available():
        device_arrays.forget_peak(number(device))


reset_max_memory_allocated = reset_peak_memory_stats


def memory_stats(device: Any = None) -> dict[str, int]:
    """The figures above by PyTorch's names for them.

    >>> if graphc.cuda.is_available():
    ...     figures = graphc.cuda.memory_stats()
    """
    allocated, reserved = memory_allocated(device), memory_reserved(device)
    return {
        "allocated_bytes.all.current": allocated, "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": reserved, "reserved_bytes.all.peak": max_memory_reserved(device),
        "inactive_split_bytes.all.current": reserved - allocated,
    }  # fmt: skip


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes of a GPU's memory that are free, and all that it has, whoever uses it.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     free, total = graphc.cuda.mem_get_info()
    """
    free, total = device_arrays.cupy().cuda.Device(number(device)).mem_info
    return int(free), int(total)


def empty_cache() -> None:
    """Give what the pool holds of all GPUs, and nobody uses, back to them. Nobody uses what this thread's Fourier transforms
    have kept for those that come.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.empty_cache()
    """
    for index in device_arrays.used():
        with device_arrays.on(index):
            device_arrays.cupy().fft.config.clear_plan_cache()
            device_arrays.cupy().get_default_memory_pool().free_all_blocks()


def ipc_collect() -> None:
    """Free what other processes have let go of: nothing, for they are sent copies.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.ipc_collect()
    """
