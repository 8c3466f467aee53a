"""CuPy's functions of arrays, and NVIDIA's libraries that it computes by."""

from __future__ import annotations

import functools
import importlib
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.backends.cuda.library_ops import Placed
from graphc.gpu import import_cupy, out_of_memory


class CupyLibraries:
    """`graphc.backends.cuda.library_ops.Libraries`, which are loaded when the first op needs them."""

    def __init__(self) -> None:
        self.cupy = import_cupy()
        self.special = importlib.import_module("cupyx.scipy.special")
        self._errstate = importlib.import_module("cupyx").errstate
        self._found: dict[str, bool] = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def linalg(self) -> Any:
        """cupyx.scipy.linalg, which cannot be imported without cuBLAS."""
        return importlib.import_module("cupyx.scipy.linalg")

    def has(self, needs: Sequence[str]) -> bool:
        """Whether CuPy can compile kernels, those of halves included, and these libraries are there; a warning says what is
        missing."""
        with self._lock:
            return all(self._has(name) for name in ("kernels", *needs))

    def _has(self, name: str) -> bool:
        if name not in self._found:
            try:
                self._load(name)
                self._found[name] = True
            except (ImportError, self.cupy.cuda.compiler.CompileException) as error:
                self._found[name] = False
                why = str(error).strip().partition("\n")[0]
                warnings.warn(f"the CPU computes ops that CuPy has no {name} for: {why}\nWhat is missing comes by pip install "
                              "'graphc[cuda]'", RuntimeWarning, stacklevel=2)
        return self._found[name]

    def _load(self, name: str) -> None:
        match name:
            case "kernels":
                self.cupy.ones(1, np.float16) + self.cupy.ones(1, np.float16)
            case "cufft":
                getattr(self.cupy.cuda, name)
            case _:
                getattr(importlib.import_module("cupy_backends.cuda.libs"), name)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """cuSOLVER's error codes are errors, which CuPy does not look at otherwise; CuPy's own of memory is ours."""
        try:
            with self._errstate(linalg="raise"):
                yield
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(error) from error

    def array(self, placed: Placed) -> Any:
        """An array over memory of the current GPU. Who calls sees to it that the memory lasts."""
        cuda = self.cupy.cuda
        low = sum((n - 1) * step for n, step in zip(placed.shape, placed.strides) if step < 0)
        high = sum((n - 1) * step for n, step in zip(placed.shape, placed.strides) if step > 0)
        nbytes = (high - low + placed.dtype.itemsize) * bool(math.prod(placed.shape))
        memory = cuda.UnownedMemory(placed.address + low, nbytes, None, cuda.runtime.getDevice())
        return self.cupy.ndarray(placed.shape, placed.dtype, memptr=cuda.MemoryPointer(memory, -low), strides=placed.strides)
