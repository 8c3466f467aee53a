"""Runs hand-made kernels as native code, on memory that faults when touched outside of the buffers."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence

import numpy as np
from kernel_interpreter import Machine

from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.program import ENTRY, render
from graphc.backends.llvm.runtime import parallel_for_address
from graphc.backends.llvm.target import Target
from graphc.disk_cache import DiskCache
from graphc.expression import Buffer
from graphc.kernel import Kernel
from graphc.memory import place_temporaries
from graphc.program import Program, verify_kernel

_PAGE = mmap.PAGESIZE
_NO_ACCESS, _READ_WRITE = 0, 3


class Guarded:
    """An array between pages that cannot be accessed; it ends, or begins, right at the page's edge."""

    def __init__(self, array: np.ndarray, at_end: bool) -> None:
        size = -(-max(array.nbytes, 1) // _PAGE) * _PAGE
        self._map = mmap.mmap(-1, size + 2 * _PAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._size = size
        self.address = self._base + _PAGE + (size - array.nbytes if at_end else 0)
        self.shape, self.dtype = array.shape, array.dtype
        ctypes.memset(self._base + _PAGE, 0xA5, size)
        ctypes.memmove(self.address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        self._protect(_NO_ACCESS)

    def _protect(self, rights: int) -> None:
        for page in (self._base, self._base + _PAGE + self._size):
            if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), rights):
                raise OSError("mprotect failed")

    def take(self) -> np.ndarray:
        """The contents; the memory is given back, once it is known that nothing was written beside the array."""
        nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._protect(_READ_WRITE)
        whole = ctypes.string_at(self._base + _PAGE, self._size)
        start = self.address - self._base - _PAGE
        assert set(whole[:start] + whole[start + nbytes :]) <= {0xA5}, "something was written outside of the buffer"
        return np.frombuffer(whole[start : start + nbytes], self.dtype).reshape(self.shape)


def program_of(kernels: Sequence[Kernel], buffers: Sequence[Buffer]) -> Program:
    """The kernels as a program; the buffers are sorted by their roles."""
    for kernel in kernels:
        verify_kernel(kernel)
    roles = {role: tuple(b for b in buffers if b.role == role) for role in ("input", "output", "constant", "temporary")}
    arena = place_temporaries(kernels, roles["temporary"])
    return Program("test", roles["input"], roles["output"], roles["constant"], roles["temporary"], tuple(kernels), arena)


def run_native(
    kernels: Sequence[Kernel], memory: Mapping[Buffer, np.ndarray], temporaries: Sequence[Buffer] = ()
) -> dict[Buffer, np.ndarray]:
    """The outputs of the kernels, run natively twice: with each buffer's end, and its beginning, at the edge of a page.

    `memory` gives the inputs' and constants' contents, and what outputs hold before.
    """
    target = Target.host()
    program = program_of(kernels, [*memory, *temporaries])
    rendered = render(program, target)
    text = str(rendered.module)
    assert text == str(render(program, target).module), "rendering is not deterministic"
    module = compile_module(text, target, imports={"parallel_for": parallel_for_address()}, cache=DiskCache(None, 0))
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(module.address(ENTRY))
    results: list[dict[Buffer, np.ndarray]] = []
    for at_end in (True, False):
        places = {buffer: Guarded(memory[buffer], at_end) for buffer in memory}
        # the arena must begin at a multiple of 64, so its guard is exact where its size is one too
        arena = Guarded(np.zeros(-(-rendered.arena // 64) * 64, np.uint8), at_end)
        tables = [
            (ctypes.c_void_p * max(1, len(group)))(*(places[b].address for b in group))
            for group in (program.inputs, program.outputs, program.constants)
        ]
        assert run(*tables, arena.address) == 0
        arena.take()
        taken = {buffer: place.take() for buffer, place in places.items()}
        for buffer in (*program.inputs, *program.constants):
            np.testing.assert_array_equal(taken[buffer].view(np.uint8), memory[buffer].view(np.uint8))
        results.append({buffer: taken[buffer] for buffer in program.outputs})
    for buffer, first in results[0].items():
        assert first.tobytes() == results[1][buffer].tobytes(), f"{buffer} depends on where it stands"
    return results[0]


def run_interpreted(kernels: Sequence[Kernel], memory: Mapping[Buffer, np.ndarray], temporaries: Sequence[Buffer] = ()) -> dict:
    """The outputs of the kernels by the interpreter."""
    machine = Machine()
    for buffer, array in memory.items():
        machine.memory[buffer] = array.reshape(-1).copy()
    for kernel in kernels:
        local = {s.buffer for s in kernel.statements() if hasattr(s, "buffer") and s.buffer.role == "local"}
        for buffer in (*temporaries, *local):
            machine.memory.setdefault(buffer, np.zeros(buffer.size, buffer.dtype.numpy))
        machine.kernel(kernel)
    return {buffer: machine.memory[buffer] for buffer in memory if buffer.role == "output"}
