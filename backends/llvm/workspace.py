"""The memory that compiled programs work in: arenas, each lent to one call at a time.

A small arena is an executable's own. Large ones are one and the same for all executables, as large as the largest of them
needs: programs mostly run one after another, and a training step compiled in several versions would keep memory for each.
A call that comes while the arena is lent out, from another thread or from within a call, works in memory of its own. A call
that needs more than there is puts a larger arena in the place of the old one.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import Any

import numpy as np

from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.objects import address_of
from graphc.backends.llvm.target import Target
from graphc.memory import ALIGNMENT

OUT_OF_MEMORY = -1
"""What `run_program` returns when there is none for a call of its own; a program returns 0 or another positive number."""
_SHARED_BYTES = 1 << 20
"""From how many bytes on an arena is shared."""
_sharing: weakref.WeakSet[Workspace] = weakref.WeakSet()
"""Those that share the large one."""


class Workspace:
    """The arena of an executable, and a word that says whether it is lent."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        if nbytes < _SHARED_BYTES:
            self._memory = np.empty(nbytes + ALIGNMENT, np.uint8)
            start = _address(self._memory)
            self._words = np.array([0, start + -start % ALIGNMENT, nbytes, 0], np.int64)
            weakref.finalize(self, _free, self._words).atexit = False
        else:
            self._words = _shared_words()
            _sharing.add(self)
            weakref.finalize(self, _free_what_nobody_needs, nbytes).atexit = False
        self._run = _module().function("run_program", ctypes.c_int32, *[ctypes.c_void_p] * 5, ctypes.c_int64)

    @property
    def address(self) -> int:
        """Of four words: 1 while the arena is lent, where it begins, how many bytes it has, and the memory that a call has made
        for it, to be freed."""
        return _address(self._words)

    def run(self, program: int, inputs: Any, outputs: Any, constants: Any, nbytes: int | None = None) -> int:
        """Call a program, by its address, with the arrays of addresses that it takes; other Python threads go on meanwhile.
        Returns what the program returns. `nbytes` is what it needs, if not what the workspace was made for."""
        needed = self.nbytes if nbytes is None else nbytes
        status = self._run(program, inputs, outputs, constants, self.address, needed)
        if status == OUT_OF_MEMORY:
            raise MemoryError(f"a compiled function needs {needed} bytes to work in")
        return status


def run_program_address() -> int:
    """The address of `int32_t run_program(program, inputs, outputs, constants, workspace, int64_t bytes)`, which calls a
    program with the arena of the workspace, or with one of its own; it may be called with the GIL held or not."""
    return _module().address("run_program")


@functools.cache
def _shared_words() -> np.ndarray:
    return np.zeros(4, np.int64)


def _free(words: np.ndarray) -> None:
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address_of(ctypes.pythonapi.PyMem_RawFree))(int(words[3]))


def _free_what_nobody_needs(nbytes: int) -> None:
    """Free the shared arena, which the next call makes anew, where the one that needed so much is gone, and all that are left
    need less."""
    words = _shared_words()
    if words[2] == nbytes and all(workspace.nbytes < nbytes for workspace in list(_sharing)):
        _module().function("free_arena", None, ctypes.c_void_p)(_address(words))


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

    def aligned(memory: str) -> str:
        begin = f.value(f"ptrtoint ptr {memory} to i64")
        skipped = f.value(f"and i64 {f.value(f'sub i64 0, {begin}')}, {ALIGNMENT - 1}")
        return f.value(f"getelementptr i8, ptr {memory}, i64 {skipped}")

    lent, grow, fits, own, exhausted = (f.label(hint) for hint in ("lent", "grow", "fits", "own", "exhausted"))
    malloc, free = module.declare("PyMem_RawMalloc", "ptr", ["i64"]), module.declare("PyMem_RawFree", "void", ["ptr"])
    start, size, made = (f.value(f"getelementptr i64, ptr %workspace, i64 {word}") for word in (1, 2, 3))
    claimed = f.value("cmpxchg ptr %workspace, i64 0, i64 1 acquire monotonic")
    f.branch(f.value(f"extractvalue {{ i64, i1 }} {claimed}, 1"), lent, own)
    f.enter(lent)
    f.branch(f.value(f"icmp ugt i64 %bytes, {f.value(f'load i64, ptr {size}')}"), grow, fits)
    f.enter(grow)  # first give back what there is, so that both need not fit
    f.call("void", free, ("ptr", f.value(f"load ptr, ptr {made}")))
    f.do(f"store i64 0, ptr {size}")
    f.do(f"store ptr null, ptr {made}")
    memory = f.call("ptr", malloc, ("i64", f.value(f"add i64 %bytes, {ALIGNMENT}")))
    with f.when(f.value(f"icmp eq ptr {memory}, null")):
        f.do("store atomic i64 0, ptr %workspace release, align 8")
        f.jump(exhausted)
        f.enter(f.label("dead"))
    f.do(f"store ptr {memory}, ptr {made}")
    f.do(f"store i64 %bytes, ptr {size}")
    f.do(f"store ptr {aligned(memory)}, ptr {start}")
    f.jump(fits)
    f.enter(fits)
    status = run(f.value(f"load ptr, ptr {start}"))
    f.do("store atomic i64 0, ptr %workspace release, align 8")
    f.do(f"ret i32 {status}")
    f.enter(own)
    memory = f.call("ptr", malloc, ("i64", f.value(f"add i64 %bytes, {ALIGNMENT}")))
    found = f.label("found")
    f.branch(f.value(f"icmp eq ptr {memory}, null"), exhausted, found)
    f.enter(found)
    status = run(aligned(memory))
    f.call("void", free, ("ptr", memory))
    f.do(f"ret i32 {status}")
    f.enter(exhausted)
    f.do(f"ret i32 {OUT_OF_MEMORY}")
    _render_free(module, free)
    return module


def _render_free(module: Module, free: str) -> None:
    """`void free_arena(workspace)`: give the memory back, unless it is lent."""
    f = module.function("free_arena", [("ptr", "workspace")])
    size, made = (f.value(f"getelementptr i64, ptr %workspace, i64 {word}") for word in (2, 3))
    claimed = f.value("cmpxchg ptr %workspace, i64 0, i64 1 acquire monotonic")
    with f.when(f.value(f"extractvalue {{ i64, i1 }} {claimed}, 1")):
        f.call("void", free, ("ptr", f.value(f"load ptr, ptr {made}")))
        f.do(f"store i64 0, ptr {size}")
        f.do(f"store ptr null, ptr {made}")
        f.do("store atomic i64 0, ptr %workspace release, align 8")
    f.do("ret void")


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
