"""The driver of an NVIDIA GPU, by way of CuPy: its memory pool, its streams, and the CUDA driver that it loads."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from graphc.backends.cuda import libraries, nvrtc
from graphc.backends.cuda.cublas import WORKSPACE, Cublas, is_recent
from graphc.backends.cuda.cupy_libraries import CupyLibraries
from graphc.backends.cuda.products import Product
from graphc.backends.cuda.program import translation_unit
from graphc.disk_cache import DiskCache, cache_key
from graphc.errors import BackendError
from graphc.gpu import import_cupy, look, out_of_memory, report, take

_TOGETHER = 16
"""Functions that are compiled at a time."""
_LEAST = 80
"""The compute capability, times ten, of GPUs that have what kernels are made of: copies to shared memory that go on beside the
code, and tensor cores for bfloat16 and TF32."""


class CupyDriver:
    """The GPU that is current when a method is called, and its current stream."""

    def __init__(self) -> None:
        self._cupy = import_cupy()
        self._pointer = self._cupy.cuda.MemoryPointer
        self._functions: dict[tuple[int, str], Any] = {}
        self._lock = threading.Lock()
        library = libraries.load("cublas")
        self._cublas = Cublas(library) if library is not None and is_recent(library) else None
        self.workspace = 0 if self._cublas is None else WORKSPACE

    def load(self, functions: Mapping[str, str]) -> int:
        """Compile those functions that are not known yet on this device, or take their code from the disk cache."""
        device = self._cupy.cuda.Device()
        capability = int(device.compute_capability)
        if capability < _LEAST:
            raise BackendError(f"kernels cannot run on cuda:{device.id}, a GPU of compute capability {capability / 10}",
                               expected=f"{_LEAST / 10} or later, as of an A100", hint="compute on the CPU: device='cpu'")
        with self._lock:
            new = [symbol for symbol in functions if (device.id, symbol) not in self._functions]
            parts = [new[first : first + _TOGETHER] for first in range(0, len(new), _TOGETHER)]
            architecture = f"sm_{device.compute_capability}"
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                codes = list(pool.map(lambda part: _code({s: functions[s] for s in part}, architecture), parts))
            for part, code in zip(parts, codes, strict=True):
                module = self._cupy.cuda.function.Module()
                module.load(code)
                for symbol in part:
                    self._functions[device.id, symbol] = module.get_function(symbol)
        return device.id

    def launch(self, module: int, symbol: str, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        """Launch a function on the current stream."""
        self._functions[module, symbol]((blocks, 1, 1), (threads, 1, 1), tuple(arguments))

    def multiply(
        self, product: Product, sizes: Mapping[str, int], addresses: tuple[int, int, int], workspace: int
    ) -> None:
        """Launch a product on the current stream."""
        assert self._cublas is not None
        self._cublas.multiply(self._cupy.cuda.Device().id, self._stream(), product, sizes, addresses, workspace)

    @functools.cached_property
    def libraries(self) -> CupyLibraries:
        """CuPy's functions."""
        return CupyLibraries()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture what `run` launches in a CUDA graph."""
        stream = self._cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                run()
            finally:
                graph = stream.end_capture()
        return graph.launch

    def allocate(self, nbytes: int) -> Any:
        """Memory of CuPy's pool; OutOfMemoryError where there is not enough."""
        try:
            memory = self._cupy.cuda.alloc(nbytes)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(error) from error
        take(memory.device_id, nbytes)
        return memory

    def address(self, memory: Any) -> int:
        """Where memory of the pool, or an array, begins."""
        return memory.ptr if type(memory) is self._pointer else memory.data.ptr

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy from the host, after the kernels before."""
        self._copy(address, array.ctypes.data, array.nbytes, self._cupy.cuda.runtime.memcpyHostToDevice)

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy to the host, after the kernels before."""
        self._copy(array.ctypes.data, address, array.nbytes, self._cupy.cuda.runtime.memcpyDeviceToHost)

    def report(self, address: int, count: int, then: Callable[[np.ndarray], None]) -> None:
        """Copy to page-locked memory, which nobody waits for."""
        cuda, stream = self._cupy.cuda, self._stream()
        numbers = np.frombuffer(cuda.alloc_pinned_memory(count), np.uint8, count)
        cuda.runtime.memcpyAsync(numbers.ctypes.data, address, count, cuda.runtime.memcpyDeviceToHost, stream)
        moment = cuda.Event(disable_timing=True)
        moment.record()
        report(moment, numbers, then, (cuda.runtime.getDevice(), stream))

    def moment(self) -> Any:
        """An event on the current stream."""
        moment = self._cupy.cuda.Event()
        moment.record()
        return moment

    def seconds(self, start: Any, stop: Any) -> float:
        """Between two events."""
        stop.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1e3

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy on the GPU."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(target, source, nbytes, runtime.memcpyDeviceToDevice, self._stream())

    def clear(self, target: int, nbytes: int) -> None:
        """Set memory of the GPU to zero."""
        self._cupy.cuda.runtime.memsetAsync(target, 0, nbytes, self._stream())

    def _copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        """Copy, and wait until that is done: the host's memory may be gone, or be looked at, after it."""
        self._cupy.cuda.runtime.memcpyAsync(target, source, nbytes, kind, self._stream())
        self._cupy.cuda.get_current_stream().synchronize()
        look()

    def _stream(self) -> int:
        return self._cupy.cuda.get_current_stream().ptr


def _code(functions: Mapping[str, str], architecture: str) -> bytes:
    """The code of functions, from the disk cache if it is there."""
    source, cache = translation_unit(functions), DiskCache.configured()
    key = cache_key("cuda", architecture, str(nvrtc.version()), *nvrtc.OPTIONS, source)
    code = cache.get(key)
    if code is None:
        code = nvrtc.compile_source(source, architecture)
        cache.put(key, code)
    return code
