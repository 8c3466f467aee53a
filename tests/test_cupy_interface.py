"""That CuPy has what graphc asks of it, with the parameters that its stand-in has, by which all else is tested: read from the
installed package, which needs no GPU."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import cupy_stand_in
import ml_dtypes
import numpy as np
import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'graphc[cuda]'")
ROOT = Path(__file__).parent.parent
ASKED = re.compile(
    r"(?<![.\w])(?:(?:device_arrays\.|gpu\.)?(?:import_)?cupy\(\)|self\._?cupy|_cupy|library|cupy)\.((?:\w+\.)*\w+)"
    r"|(?<![.\w])(cuda\.(?:\w+\.)*\w+)|(?<![.\w])(runtime\.\w+)"
)


def asked() -> Iterator[str]:
    """What the package's files have of CuPy, by its name there."""
    for folder in ("graphc", "frontend", "backends"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if not re.search(r"^(?!\s*#).*(import_cupy\(|cupy\(\))", text, re.MULTILINE) or "benchmark" in path.parts:
                continue
            code = re.sub(r'"""(?:.|\n)*?"""', "", text)
            for of_package, of_cuda, of_runtime in ASKED.findall(code):
                yield of_package or of_cuda or f"cuda.{of_runtime}"


def found(name: str) -> Any:
    place: Any = cupy
    for part in name.split("."):
        place = getattr(place, part)
    return place


def test_it_has_what_is_asked() -> None:
    names = sorted(set(asked()))
    assert {"cuda.runtime.memcpyPeerAsync", "cuda.Event", "ndarray", "from_dlpack", "cuda.function.Module",
            "cuda.memory.OutOfMemoryError", "cuda.runtime.deviceCanAccessPeer"} <= set(names)
    for name in names:
        found(name)


def parameters(function: Any) -> list[str] | None:
    """The names of a function's parameters, of functions in C from the first line of what they say of themselves; None where
    that does not say."""
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        head = re.match(r"[\w.]+\((.*?)\)", function.__doc__ or "")
        if head is None:
            return None
        names = [part.partition("=")[0].split()[-1] for part in head[1].split(",") if part.strip() not in ("", "*", "/")]
    names = [name for name in names if name not in ("self", "args", "kwargs", "options")]
    return [name.replace("_", "").lower() for name in names]


def pairs() -> Iterator[tuple[str, Any, Any]]:
    """The stand-in's functions, classes and methods, and those of CuPy's in whose place they stand."""

    def of_module(name: str, module: ModuleType, real: Any) -> Iterator[tuple[str, Any, Any]]:
        for part, thing in vars(module).items():
            if part.startswith(("_", "cublas_")):
                continue
            inside = f"{name}.{part}".lstrip(".")
            assert hasattr(real, part), inside
            if isinstance(thing, ModuleType):
                yield from of_module(inside, thing, getattr(real, part))
            else:
                yield inside, thing, getattr(real, part)

    yield from of_module("", cupy_stand_in.module(), cupy)
    for kind in (cupy_stand_in.Stream, cupy_stand_in.Event, cupy_stand_in.Device):
        for part, thing in vars(kind).items():
            if isinstance(thing, FunctionType) and (part == "__init__" or not part.startswith("_")):
                yield f"{kind.__name__}.{part}", thing, getattr(getattr(cupy.cuda, kind.__name__), part)
    for part in ("used_bytes", "total_bytes", "free_bytes", "free_all_blocks"):
        yield f"MemoryPool.{part}", getattr(cupy_stand_in.Pool, part), getattr(cupy.cuda.MemoryPool, part)
    yield "Module.load", cupy_stand_in.Module.load, cupy.cuda.function.Module.load
    yield "Module.get_function", cupy_stand_in.Module.get_function, cupy.cuda.function.Module.get_function


def test_the_stand_in_has_its_parameters() -> None:
    compared = set()
    for name, ours, theirs in pairs():
        if not isinstance(ours, FunctionType):
            continue
        wanted, real = parameters(ours), parameters(theirs)
        if real is not None and name not in ("Device.__init__", "get_default_memory_pool"):
            assert wanted == real[: len(wanted or ())], name
            compared.add(name)
    assert {"cuda.runtime.memcpyAsync", "cuda.runtime.memcpyPeerAsync", "cuda.runtime.memsetAsync", "Event.__init__",
            "Stream.__init__", "Stream.begin_capture", "cuda.get_elapsed_time", "cuda.alloc_pinned_memory"} <= compared


def test_methods_that_only_instances_have() -> None:
    for method in (cupy.cuda.Stream.end_capture, cupy.cuda.graph.Graph.launch, cupy.cuda.Stream.synchronize):
        assert callable(method)
    for kind, names in ((cupy.cuda.Device, "id compute_capability mem_info use synchronize"), (cupy.cuda.Stream, "done"),
                        (cupy.cuda.Event, "done"), (cupy.cuda.MemoryPointer, "ptr mem device_id")):
        assert all(hasattr(kind, name) for name in names.split())
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.bool_, np.uint64, np.complex64])
def test_arrays_over_given_memory(dtype: Any) -> None:
    """Shapes, strides and places as graphc makes them, of every kind of dtype; nobody reads the memory."""
    place, size = 1 << 20, np.dtype(dtype).itemsize
    memory = cupy.cuda.UnownedMemory(place, 4096, None, 0)
    make: Callable[..., Any] = cupy.ndarray
    plain = make((2, 3), np.dtype(dtype), memptr=cupy.cuda.MemoryPointer(memory, 0))
    assert (plain.shape, plain.dtype, plain.itemsize, plain.nbytes) == ((2, 3), np.dtype(dtype), size, 6 * size)
    assert plain.strides == (3 * size, size) and plain.flags.c_contiguous and plain.data.device_id == 0
    view = make((3, 2), plain.dtype, memptr=plain.data + size, strides=(-size, 0))
    assert view.strides == (-size, 0) and view.data.ptr == place + size and not view.flags.c_contiguous
    assert type(view.data) is cupy.cuda.MemoryPointer and view.data.mem is memory
    assert make((), np.dtype(dtype), memptr=plain.data).shape == ()
