"""NVIDIA's run-time compiler, which works without a GPU: from CUDA C++ to the code of an architecture."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from graphc.backends.cuda import libraries
from graphc.errors import BackendError, CompileError

OPTIONS = ("--std=c++17", "--fmad=false")
"""Products are added as they stand, with two roundings, but where kernels ask for one: as on the CPU."""


@cache
def _library() -> ctypes.CDLL:
    """NVRTC: of NVIDIA's own packages, or of the system."""
    library = libraries.load("nvrtc")
    if library is None:
        raise BackendError("the compiler for CUDA kernels, NVRTC, is not installed", hint="pip install 'graphc[cuda]'")
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def is_available() -> bool:
    """Whether there is a compiler."""
    try:
        _library()
    except BackendError:
        return False
    return True


def version() -> tuple[int, int]:
    """The compiler's."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_source(source: str, architecture: str) -> bytes:
    """The code (a cubin) of CUDA C++ for an architecture such as "sm_90"; CompileError, with what the compiler says, where
    it is wrong."""
    with _compiled(source, architecture) as program:
        return _bytes(program, "CUBIN")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a thread of a kernel takes: registers, and bytes of memory for those that it has no room for."""

    registers: int
    spilled: int


def resources(source: str, architecture: str) -> dict[str, Resources]:
    """What the kernels of a source take, by name."""
    with _compiled(source, architecture, "--ptxas-options=-v") as program:
        log = _bytes(program, "ProgramLog").decode(errors="replace")
    found = re.findall(r"function '(\w+)' for.*?(\d+) bytes spill stores.*?Used (\d+) registers", log, re.DOTALL)
    return {name: Resources(int(registers), int(spilled)) for name, spilled, registers in found}


@contextmanager
def _compiled(source: str, architecture: str, *further: str) -> Iterator[ctypes.c_void_p]:
    library, program = _library(), ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"graphc.cu", 0, None, None))
    try:
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}", *further)]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            log = _bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise CompileError(f"NVRTC does not compile a kernel for {architecture}: {_name(status)}\n{log}")
        yield program
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _bytes(program: ctypes.c_void_p, what: str) -> bytes:
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, content))
    return content.raw


def _name(status: int) -> str:
    return _library().nvrtcGetErrorString(status).decode()


def _check(status: int) -> None:
    if status:
        raise BackendError(f"NVRTC: {_name(status)}")
