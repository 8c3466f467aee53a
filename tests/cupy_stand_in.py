"""CuPy's classes and functions that graphc uses, on the memory of the CPU: tensors on "GPUs" where there is none.

It is strict, as CuPy is: its arrays are no arrays of NumPy's and do not become any, and they compute nothing. Kernels run in
the emulator of `cuda_emulator.py`, or, where many small graphs are run, graphs by the definitions of their ops (`interpreted`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import cuda_emulator
import cupy_functions
import numpy as np
import pytest

import graphc.backend
import graphc.compiler
from graphc import gpu
from graphc.backend import Layout
from graphc.backends.cuda import backend, cupy_driver
from graphc.backends.cuda.cublas import Cublas
from graphc.dims import Dim
from graphc.frontend import device_arrays, device_ops, generator
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.sizes import NumberNeeded


class CUDARuntimeError(RuntimeError):
    """What the runtime raises."""


class _Here(threading.local):
    device = 0

    def __init__(self) -> None:
        self.streams: list[tuple[int, Any]] = []
        self.used: dict[int, Any] = {}


here = _Here()
"""The current GPU and the streams of each thread."""


class _State:
    devices = 2
    memory = 1 << 40
    used: dict[int, int]
    free: dict[tuple[int, int], np.ndarray]
    peers = 0
    downloads = waits = captures = 0
    synchronized = 0
    """The GPU that somebody has waited for last."""
    is_slow = False
    """Whether events that are recorded are still to come."""
    unplanned: list[int]
    """GPUs of which plans of transforms have been let go."""
    emptied: list[int]
    """GPUs whose pools have given memory back."""
    waited: list[tuple[int, Any]]
    """GPUs of which a stream waits for an event."""


state = _State()


class Memory:
    """A block of the pool, in which nothing is zero by chance. As in CuPy's, what was freed last comes again."""

    def __init__(self, size: int, device: int) -> None:
        if state.used.get(device, 0) + size > state.memory:
            raise OutOfMemoryError(size, state.used.get(device, 0))
        self.block = state.free.pop((device, size), None)
        if self.block is None:
            self.block = np.empty(size + 512, np.uint8)
        self.block.fill(0xA5)
        self.ptr = -(-self.block.ctypes.data // 512) * 512
        self.size, self.device_id = size, device
        self._used, self._free = state.used, state.free
        self._used[device] = self._used.get(device, 0) + size

    def __del__(self) -> None:
        if hasattr(self, "_used"):
            self._used[self.device_id] -= self.size
            self._free[self.device_id, self.size] = self.block


class MemoryPointer:
    """A place in a block."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self._offset = mem, offset

    @property
    def ptr(self) -> int:
        return self.mem.ptr + self._offset

    @property
    def device_id(self) -> int:
        return self.mem.device_id

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self._offset + int(offset))


class OutOfMemoryError(MemoryError):
    """What the pool raises."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class _Flags:
    def __init__(self, like: np.ndarray) -> None:
        self.c_contiguous, self.f_contiguous = like.flags.c_contiguous, like.flags.f_contiguous


class ndarray:
    """An array on a GPU: a shape, strides, a dtype and a place in memory, and no arithmetic."""

    __slots__ = ("__weakref__", "data", "dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides")

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        assert order == "C"
        self.dtype = np.dtype(dtype)
        self.itemsize = self.dtype.itemsize
        self.shape = tuple(map(int, shape)) if isinstance(shape, (tuple, list)) else (int(shape),)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.nbytes = self.size * self.itemsize
        if strides is None:
            strides = [self.itemsize * math.prod(self.shape[d + 1 :]) for d in range(self.ndim)]
        self.strides = tuple(map(int, strides))
        self.data = alloc(self.nbytes) if memptr is None else memptr
        byte = np.lib.stride_tricks.as_strided(np.empty(0, self.dtype), self.shape, self.strides)
        self.flags = _Flags(byte)

    @property
    def device(self) -> Device:
        return Device(self.data.device_id)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
                        "explicitly.")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"data": (self.data.ptr, False), "shape": self.shape, "strides": self.strides, "typestr": self.dtype.str,
                "version": 3}

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        return self


def host(array: Any) -> np.ndarray:
    """The memory of a stand-in's array as NumPy sees it, for those who play the GPU."""
    if isinstance(array, np.ndarray):
        raise AssertionError("an array of the CPU was given to the GPU")
    low = array.data.ptr + sum((n - 1) * s for n, s in zip(array.shape, array.strides) if s < 0) * bool(array.size)
    high = array.data.ptr + sum((n - 1) * s for n, s in zip(array.shape, array.strides) if s > 0) * bool(array.size)
    length = high + array.itemsize - low if array.size else 0
    memory = (ctypes.c_uint8 * length).from_address(low) if length else bytearray(1)
    return np.ndarray(array.shape, array.dtype, memory, array.data.ptr - low if length else 0, array.strides)


class Device:
    """A GPU, current within its block."""

    def __init__(self, device: Any = None) -> None:
        self.id = here.device if device is None else int(device)
        self._before: list[int] = []

    compute_capability = "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        return 1 << 30, 1 << 31

    def use(self) -> None:
        here.device = self.id

    def synchronize(self) -> None:
        pass

    def __enter__(self) -> Device:
        if not 0 <= self.id < state.devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before.append(here.device)
        here.device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        here.device = self._before.pop()


class Stream:
    """A queue, whose work is done at once."""

    null: Any = None

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = 0 if null else id(self)
        self.device_id = -1 if null else here.device
        self.done = True
        self.capturing: list[Any] | None = None

    def synchronize(self) -> None:
        assert self.capturing is None
        state.waits += 1
        state.synchronized = self._device()

    def _device(self) -> int:
        """Whose queue it is: of a default stream that of the current GPU."""
        return here.device if self.device_id < 0 else self.device_id

    def record(self, event: Any = None) -> Any:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Any) -> None:
        state.waited.append((self._device(), event))

    def begin_capture(self, mode: int | None = None) -> None:
        self.capturing = []
        state.captures += 1

    def end_capture(self) -> Any:
        launches, self.capturing = self.capturing, None
        assert launches is not None

        class Recorded:
            def launch(self, stream: Any = None) -> None:
                for launch in launches:
                    launch()

        return Recorded()

    def use(self) -> Stream:
        self._check()
        here.used[here.device] = self
        return self

    def _check(self) -> None:
        if self.device_id not in (-1, here.device):
            raise RuntimeError(f"The device that the stream is created on ({self.device_id}) does not match with the current "
                               f"device ({here.device})")

    def __enter__(self) -> Stream:
        self._check()
        here.streams.append((here.device, self))
        return self

    def __exit__(self, *error: object) -> None:
        here.streams.pop()


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Any:
    """The innermost stream of a GPU that was entered, or that was chosen for it."""
    device = here.device if device_id < 0 else device_id
    entered = [stream for of, stream in here.streams if of == device]
    return entered[-1] if entered else here.used.get(device, Stream.null)


class Event:
    """A moment of one GPU."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time = 0.0
        self.done = True
        self.device_id = here.device

    def record(self, stream: Any = None) -> None:
        if (here.device if stream is None else stream._device()) != self.device_id:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
        self.time = time.perf_counter()
        self.done = not state.is_slow

    def synchronize(self) -> None:
        pass


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds from one moment to another."""
    return 1e3 * (end_event.time - start_event.time)


def alloc_pinned_memory(size: int) -> Any:
    """Page-locked memory, in which nothing is zero by chance."""
    return bytearray(b"\xa5" * size)


def alloc(size: int) -> MemoryPointer:
    """Memory on the current GPU."""
    return MemoryPointer(Memory(size, here.device), 0)


def set_allocator(allocator: None) -> None:
    """Take memory from no pool, which the stand-in has none of."""
    assert allocator is None


class Pool:
    """The statistics of the memory of the current GPU."""

    def used_bytes(self) -> int:
        return state.used.get(here.device, 0)

    def total_bytes(self) -> int:
        return state.used.get(here.device, 0) + 512

    def free_bytes(self) -> int:
        return 512

    def free_all_blocks(self, stream: Any = None) -> None:
        state.emptied.append(here.device)


class Module:
    """What code is loaded into; code is the source here, which the emulator compiles."""

    emulator: cuda_emulator.EmulatedDriver

    def load(self, cubin: bytes) -> None:
        self.functions = json.loads(cubin)
        Module.emulator.load(self.functions)

    def get_function(self, name: str) -> Callable[..., None]:
        assert name in self.functions

        def launch(grid: Sequence[int], block: Sequence[int], args: Sequence[Any], **options: Any) -> None:
            assert grid[1:] == block[1:] == (1, 1)

            def run() -> None:
                Module.emulator.launch(None, name, grid[0], block[0], list(args))

            capturing = get_current_stream().capturing
            if capturing is None:
                run()
            else:
                capturing.append(run)

        return launch


class _Cublas:
    """The stand-in for cuBLAS; a stream that is captured keeps its products."""

    def __init__(self, cupy: ModuleType) -> None:
        self._cupy, self._library = cupy, cuda_emulator.cublas()
        Cublas(self._library)  # which says what its functions take
        self._workspace: tuple[Any, ...] = ()
        self.cublasSetWorkspace_v2 = functools.partial(self._set_workspace)
        self.cublasGemmStridedBatchedEx_64 = functools.partial(self._multiply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def _set_workspace(self, *arguments: Any) -> int:
        self._workspace = arguments
        return self._library.cublasSetWorkspace_v2(*arguments)

    def _multiply(self, *arguments: Any) -> int:
        self._cupy.cublas_calls += 1
        capturing = get_current_stream().capturing
        if capturing is None:
            return self._library.cublasGemmStridedBatchedEx_64(*arguments)
        self._cupy.cublas_captures += 1
        workspace = self._workspace

        def replay() -> None:
            assert self._library.cublasSetWorkspace_v2(*workspace) == 0
            assert self._library.cublasGemmStridedBatchedEx_64(*arguments) == 0

        capturing.append(replay)
        return 0


def _runtime() -> ModuleType:
    runtime = ModuleType("cupy.cuda.runtime")
    runtime.CUDARuntimeError = CUDARuntimeError  # type: ignore[attr-defined]
    runtime.memcpyHostToDevice, runtime.memcpyDeviceToHost, runtime.memcpyDeviceToDevice = 1, 2, 3  # type: ignore[attr-defined]

    def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        assert kind in (1, 2, 3)
        state.downloads += kind == 2
        ctypes.memmove(dst, src, size)

    def memcpy_peer(dst: int, dst_device: int, src: int, src_device: int, size: int, stream: int) -> None:
        assert dst_device != src_device
        state.peers += 1
        ctypes.memmove(dst, src, size)

    runtime.memcpyAsync, runtime.memcpyPeerAsync = memcpy_async, memcpy_peer  # type: ignore[attr-defined]
    runtime.memsetAsync = lambda ptr, value, size, stream: ctypes.memset(ptr, value, size)  # type: ignore[attr-defined]
    runtime.getDeviceCount = lambda: state.devices  # type: ignore[attr-defined]
    runtime.getDevice = lambda: here.device  # type: ignore[attr-defined]
    runtime.getDeviceProperties = lambda device: {  # type: ignore[attr-defined]
        "name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 1 << 31, "multiProcessorCount": 4, "warpSize": 32,
    }  # fmt: skip
    runtime.deviceCanAccessPeer = lambda device, peerDevice: 1  # type: ignore[attr-defined]
    runtime.runtimeGetVersion = lambda: 13000  # type: ignore[attr-defined]
    return runtime


def module() -> ModuleType:
    """The package."""
    cupy = ModuleType("cupy")
    cupy.cublas_calls = cupy.cublas_captures = 0  # type: ignore[attr-defined]
    cupy.ndarray = ndarray  # type: ignore[attr-defined]
    cupy.get_default_memory_pool = Pool  # type: ignore[attr-defined]
    cupy.from_dlpack = lambda array, *, device=None, copy=None: array.__dlpack__()  # type: ignore[attr-defined]
    cupy.fft = ModuleType("cupy.fft")  # type: ignore[attr-defined]
    cupy.fft.config = ModuleType("cupy.fft.config")
    cupy.fft.config.clear_plan_cache = lambda: state.unplanned.append(here.device)
    cupy.cuda = ModuleType("cupy.cuda")  # type: ignore[attr-defined]
    for name in ("Device", "Stream", "Event", "get_current_stream", "get_elapsed_time", "alloc", "alloc_pinned_memory",
                 "MemoryPointer", "set_allocator"):
        setattr(cupy.cuda, name, globals()[name])
    cupy.cuda.runtime = _runtime()
    cupy.cuda.memory = ModuleType("cupy.cuda.memory")
    cupy.cuda.memory.OutOfMemoryError = OutOfMemoryError
    cupy.cuda.function = ModuleType("cupy.cuda.function")
    cupy.cuda.function.Module = Module
    return cupy


class Interpreted:
    """A graph on the memory of the stand-in, by the definitions of its ops."""

    preparation = None

    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.graph, self.layout = graph, layout
        self.inputs = tuple(v.type for v in graph.inputs)
        self.outputs = tuple(v.type for v in graph.outputs)

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        arrays = list(map(host, inputs))
        for array, strides, type_ in zip(arrays, self.layout.strides, self.inputs, strict=True):
            assert (array.shape, array.dtype) == (type_.shape, type_.dtype.numpy)
            if strides is None:
                assert array.flags.c_contiguous, "an input is not row-major, as the code takes it to be"
            else:
                assert all(s == t * array.itemsize for s, t, n in zip(array.strides, strides, array.shape) if n > 1)
        for place, found in zip(map(host, outputs), interpret(self.graph, [a.copy() for a in arrays]), strict=True):
            np.copyto(place, found, casting="no")

    def at(self, sizes: Any) -> Interpreted:
        return self

    def entry(self, spec: Any) -> None:
        return None


def interpreted_graph(graph: Graph, layout: Layout) -> Interpreted:
    """What is compiled for a graph of sizes that are numbers."""
    for value in graph.inputs:
        for size in value.shape:
            if isinstance(size, Dim):
                raise NumberNeeded(size)
    return Interpreted(graph, layout)


@contextlib.contextmanager
def installed(interpreted: bool = True, devices: int = 2, cublas: bool = False) -> Iterator[ModuleType]:
    """Have graphc find two GPUs, whose kernels the emulator runs, or whose graphs are run by the ops' definitions; and cuBLAS,
    or not."""
    patch = pytest.MonkeyPatch()
    here.device, state.devices, state.used, state.free, state.peers, state.memory = 0, devices, {}, {}, 0, 1 << 40
    state.waited, state.unplanned, state.emptied, state.is_slow = [], [], [], False
    library = module()
    patch.setitem(sys.modules, "cupy", library)
    patch.setattr(device_arrays, "_cupy", None)
    patch.setattr(cupy_driver.libraries, "load", lambda name: _Cublas(library) if cublas and name == "cublas" else None)
    patch.setattr(device_arrays, "kinds", ())
    _forget()
    if interpreted:
        patch.setattr(backend.CUDABackend, "compile", lambda self, graph, layout, passes=(): interpreted_graph(graph, layout))
    else:
        Module.emulator = cuda_emulator.EmulatedDriver()
        patch.setattr(cupy_driver, "CupyLibraries", cupy_functions.Libraries)
        patch.setattr(cupy_driver, "_code", lambda functions, architecture: json.dumps(functions).encode())
    try:
        yield library
    finally:
        _forget()
        patch.undo()


def _forget() -> None:
    for cache in (device_ops._codes, device_ops._constants, generator._on_gpus, device_arrays._peaks,
                  device_arrays._counted, gpu._reports, gpu.taken):
        cache.clear()
    for name in [name for name in graphc.backend._loaded if name.startswith("cuda")]:
        del graphc.backend._loaded[name]
    graphc.compiler.clear_cache()
