"""CuPy, which graphc has GPUs by: found when it is first needed, with an error that says how to get what is missing."""

from __future__ import annotations

from typing import Any

from graphc.errors import BackendError

_EITHER = "choose the device: 'cuda' if graphc.cuda.is_available() else 'cpu'"


def import_cupy() -> Any:
    """CuPy; BackendError where it is not installed, or finds no GPU."""
    try:
        import cupy
    except ImportError as error:
        raise BackendError("CUDA needs CuPy, which is not installed",
                           hint=f"pip install 'graphc[cuda]', or {_EITHER}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
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
