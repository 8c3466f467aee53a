"""What the kernels of a program share at run time, and the convention by which they are rendered.

A kernel is rendered by a function `render_<kind>(context, kernel, name)`. It adds a function to `context.module`,

    define internal void @name(ptr %context)

which has done all of the kernel's work when it returns. What the function wants to run on several threads it hands to
`Context.parallel_for`, as often as it needs to: that calls a

    void body(ptr %context, i64 %chunk)

for each chunk. The context is a table of addresses: of the scratch memory, of what `host` finds ops by, and of the
kernel's own buffers, in the order of `kernel_key`. So one function serves all kernels that are equal but for their
buffers: the program fills the table before each call, by `Context.fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.target import Target
from graphc.kernel import Buffer, Program

ALIGNMENT = 64
"""Of the arena, and of everything in it."""

_SCRATCH, _HOST, _BUFFERS = range(3)
"""Where in the table the addresses are."""


class Context:
    """The module that a program is rendered into, its target, and where its buffers are."""

    def __init__(self, module: Module, target: Target, program: Program) -> None:
        self.module = module
        self.target = target
        self._constants = len(program.constants)
        self._places: dict[Buffer, tuple[str, int]] = {}
        for field, buffers in (("inputs", program.inputs), ("outputs", program.outputs), ("constants", program.constants)):
            for number, buffer in enumerate(buffers):
                self._places[buffer] = field, number
        for buffer in program.temporaries:
            self._places[buffer] = "arena", buffer.offset
        self._scratch_offset = -(-program.arena // ALIGNMENT) * ALIGNMENT
        self._scratch = 0
        self._slots: dict[Buffer, int] = {}

    @property
    def arena(self) -> int:
        """How many bytes the arena must have: temporaries first, then the scratch memory of the kernels."""
        return self._scratch_offset + self._scratch

    # For the program

    def begin(self, buffers: Sequence[Buffer]) -> None:
        """What is rendered next is a kernel whose table has these buffers."""
        self._slots = {buffer: _BUFFERS + number for number, buffer in enumerate(buffers)}

    def table(self, f: Function, most: int) -> str:
        """A table for kernels with `most` buffers, or fewer, in the program's function: its address. What is the same for all
        kernels is in it."""
        table = f.slot(f"[{_BUFFERS + most} x ptr]")
        self._put(f, table, _SCRATCH, f.value(f"getelementptr i8, ptr %arena, i64 {self._scratch_offset}", "scratch"))
        key = f.value(f"getelementptr ptr, ptr %constants, i64 {self._constants}")
        self._put(f, table, _HOST, f.value(f"load ptr, ptr {key}"))
        return table

    def fill(self, f: Function, table: str, buffers: Sequence[Buffer]) -> None:
        """Put the addresses of buffers into a table, in the program's function."""
        for slot, buffer in enumerate(buffers, _BUFFERS):
            field, number = self._places[buffer]
            if field == "arena":
                address = f.value(f"getelementptr i8, ptr %arena, i64 {number}", "temporary")
            else:
                address = f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr %{field}, i64 {number}')}", "buffer")
            self._put(f, table, slot, address)

    def _put(self, f: Function, table: str, slot: int, address: str) -> None:
        f.do(f"store ptr {address}, ptr {f.value(f'getelementptr ptr, ptr {table}, i64 {slot}')}")

    # For kernels

    def reserve_scratch(self, nbytes: int) -> None:
        """Have at least so many bytes of scratch memory. It is a kernel's own while it runs, and the next one's after."""
        self._scratch = max(self._scratch, -(-nbytes // ALIGNMENT) * ALIGNMENT)

    def scratch(self, f: Function) -> str:
        """The address of the scratch memory, aligned to 64 bytes; for a function whose first parameter is %context."""
        return _slot(f, _SCRATCH, "scratch")

    def pointers(self, f: Function, buffers: Iterable[Buffer]) -> Callable[[Buffer], str]:
        """The base addresses of buffers that are not local; for a function whose first parameter is %context, which
        must stand in its entry block."""
        slots = sorted({self._slots[buffer]: buffer for buffer in buffers}.items())
        return {buffer: _slot(f, slot, "buffer") for slot, buffer in slots}.__getitem__

    def host_key(self, f: Function) -> str:
        """What `host` finds the ops by that it runs."""
        return _slot(f, _HOST, "host")

    def parallel_for(self, f: Function, body: str, chunks: str, context: str = "%context") -> None:
        """Call `body`, the symbol of a `void (ptr context, i64 chunk)`, for each chunk below the i64 operand `chunks`."""
        callee = self.module.declare("parallel_for", "void", ["ptr", "ptr", "i64"])
        f.call("void", callee, ("ptr", body), ("ptr", context), ("i64", chunks))


def _slot(f: Function, number: int, hint: str) -> str:
    return f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr %context, i64 {number}')}", hint)
