"""CuPy's functions of arrays, and NVIDIA's libraries that it computes by."""

from __future__ import annotations

import functools
import importlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.backends.cuda.library_ops import Placed, Refused
from graphc.gpu import import_cupy, out_of_memory

_LEAST = 14
"""The version of CuPy whose functions are what the ops expect of them."""


class _Streams(threading.local):
    """Of each thread."""

    def __init__(self) -> None:
        self.transformed: dict[int, int] = {}
        """By GPU, the stream of the last transform."""


class CupyLibraries:
    """`graphc.backends.cuda.library_ops.Libraries`, which are loaded when the first op needs them."""

    def __init__(self) -> None:
        self.cupy = import_cupy()
        self.special = importlib.import_module("cupyx.scipy.special")
        self._errstate = importlib.import_module("cupyx").errstate
        self._found: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._streams = _Streams()

    @functools.cached_property
    def linalg(self) -> Any:
        """cupyx.scipy.linalg, which cannot be imported without cuBLAS."""
        return importlib.import_module("cupyx.scipy.linalg")

    @property
    def fft(self) -> Any:
        """cupy.fft. It keeps plans by thread and GPU, with the memory that they work in, which two streams would write to side
        by side: those of another stream are let go, and their memory is that stream's again."""
        cuda, fft, streams = self.cupy.cuda, self.cupy.fft, self._streams.transformed
        device, stream = cuda.runtime.getDevice(), cuda.get_current_stream().ptr
        if streams.get(device, stream) != stream:
            fft.config.clear_plan_cache()
        streams[device] = stream
        return fft

    def has(self, needs: Sequence[str]) -> bool:
        """Whether CuPy can compile kernels, those of halves included, and these libraries are there; a warning says what is
        missing."""
        with self._lock:
            return all(self._has(name) for name in ("kernels", *needs))

    def _has(self, name: str) -> bool:
        if name not in self._found:
            try:
                with self._refusing():
                    self._load(name)
                self._found[name] = True
            except (ImportError, Refused, self.cupy.cuda.compiler.CompileException) as error:
                self._found[name] = False
                why = str(error).strip().partition("\n")[0]
                warnings.warn(f"the CPU computes ops that CuPy has no {name} for: {why}\nWhat is missing comes by pip install "
                              "'graphc[cuda]'", RuntimeWarning, stacklevel=2)
        return self._found[name]

    def _load(self, name: str) -> None:
        match name:
            case "kernels":
                if int(self.cupy.__version__.partition(".")[0]) < _LEAST:
                    raise ImportError(f"CuPy {self.cupy.__version__} is installed, and {_LEAST} or later is needed")
                self.cupy.ones(1, np.float16) + self.cupy.ones(1, np.float16)
            case "cufft":
                getattr(self.cupy.cuda, name)
            case _:
                getattr(importlib.import_module("cupy_backends.cuda.libs"), name)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """cuSOLVER's error codes are errors, which CuPy does not look at otherwise; CuPy's own of memory is ours, and what its
        libraries lack or cannot go on with a Refused."""
        with self._refusing(), self._errstate(linalg="raise"):
            yield

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        cuda = self.cupy.cuda
        try:
            yield
        except cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(error) from error
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError):
            raise  # no library's: the GPU cannot go on
        except RuntimeError as error:
            raise Refused(str(error)) from error

    def array(self, placed: Placed) -> Any:
        """An array over memory of the current GPU. Who calls sees to it that the memory lasts."""
        cuda = self.cupy.cuda
        low, high = placed.bounds
        memory = cuda.UnownedMemory(low, high - low, None, cuda.runtime.getDevice())
        pointer = cuda.MemoryPointer(memory, placed.address - low)
        return self.cupy.ndarray(placed.shape, placed.dtype, memptr=pointer, strides=placed.strides)
