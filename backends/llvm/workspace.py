"""The memory that a compiled program works in: one arena for an executable, lent to one call at a time.

A call that comes while the arena is lent out, from another thread or from within a call, works in memory of its own.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.objects import address_of
from graphc.backends.llvm.target import Target
from graphc.memory import ALIGNMENT

OUT_OF_MEMORY = -1
"""What `run_program` returns when there is none for a call of its own; a program returns 0 or another positive number."""


class Workspace:
    """The arena of an executable, and a word that says whether it is lent."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._memory = np.empty(nbytes + ALIGNMENT, np.uint8)  # takes no memory before it is used
        start = _address(self._memory)
        self._words = np.array([0, start + -start % ALIGNMENT], np.int64)
        self._run = _module().function("run_program", ctypes.c_int32, *[ctypes.c_void_p] * 5, ctypes.c_int64)

    @property
    def address(self) -> int:
        """Of two words: 1 while the arena is lent, and where it begins."""
        return _address(self._words)

    def run(self, program: int, inputs: Any, outputs: Any, constants: Any) -> int:
        """Call a program, by its address, with the arrays of addresses that it takes; other Python threads go on meanwhile.
        Returns what the program returns."""
        status = self._run(program, inputs, outputs, constants, self.address, self.nbytes)
        if status == OUT_OF_MEMORY:
            raise MemoryError(f"a compiled function needs {self.nbytes} bytes to work in")
        return status


def run_program_address() -> int:
    """The address of `int32_t run_program(program, inputs, outputs, constants, workspace, int64_t bytes)`, which calls a
    program with the arena of the workspace, or with one of its own; it may be called with the GIL held or not."""
    return _module().address("run_program")


@functools.cache
def _module() -> NativeModule:
    imports = {name: address_of(getattr(ctypes.pythonapi, name)) for name in ("PyMem_RawMalloc", "PyMem_RawFree")}
    return compile_module(str(_render()), Target.host(), imports=imports)


def _render() -> Module:
    module = Module("graphc workspaces")
    names = ("program", "inputs", "outputs", "constants", "workspace")
    f = module.function("run_program", [*(("ptr", name) for name in names), ("i64", "bytes")], "i32")

    def run(arena: str) -> str:
        return f.call("i32", "%program", *(("ptr", x) for x in ("%inputs", "%outputs", "%constants", arena)))

    lent, own, exhausted = f.label("lent"), f.label("own"), f.label("exhausted")
    claimed = f.value("cmpxchg ptr %workspace, i64 0, i64 1 acquire monotonic")
    f.branch(f.value(f"extractvalue {{ i64, i1 }} {claimed}, 1"), lent, own)
    f.enter(lent)
    status = run(f.value(f"load ptr, ptr {f.value('getelementptr i64, ptr %workspace, i64 1')}"))
    f.do("store atomic i64 0, ptr %workspace release, align 8")
    f.do(f"ret i32 {status}")
    f.enter(own)
    malloc, free = module.declare("PyMem_RawMalloc", "ptr", ["i64"]), module.declare("PyMem_RawFree", "void", ["ptr"])
    memory = f.call("ptr", malloc, ("i64", f.value(f"add i64 %bytes, {ALIGNMENT}")))
    found = f.label("found")
    f.branch(f.value(f"icmp eq ptr {memory}, null"), exhausted, found)
    f.enter(found)
    start = f.value(f"ptrtoint ptr {memory} to i64")
    skipped = f.value(f"and i64 {f.value(f'sub i64 0, {start}')}, {ALIGNMENT - 1}")
    status = run(f.value(f"getelementptr i8, ptr {memory}, i64 {skipped}"))
    f.call("void", free, ("ptr", memory))
    f.do(f"ret i32 {status}")
    f.enter(exhausted)
    f.do(f"ret i32 {OUT_OF_MEMORY}")
    return module


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
