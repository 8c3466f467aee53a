"""What the kernels of a program share at run time, and the convention by which they are rendered.

A kernel is rendered by a function `render_<kind>(context, kernel, name)`. It adds a function to `context.module`,

    define internal void @name(ptr %context)

which has done all of the kernel's work when it returns; a program calls its kernels one after another. What the function
wants to run on several threads it hands to `Context.parallel_for`, as often as it needs to: that calls a

    void body(ptr %context, i64 %chunk)

for each chunk. Both find their memory by `Context.pointers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.target import Target
from graphc.kernel import Buffer, Program

ALIGNMENT = 64
"""Of the arena, and of everything in it."""

# The context itself: four pointers, as `run` is given them. The first three are arrays of base addresses.
_INPUTS, _OUTPUTS, _CONSTANTS, _ARENA = range(4)


class Context:
    """The module that a program is rendered into, its target, and where its buffers are."""

    def __init__(self, module: Module, target: Target, program: Program) -> None:
        self.module = module
        self.target = target
        self._constants = len(program.constants)
        self._places: dict[Buffer, tuple[int, int]] = {}
        for field, buffers in ((_INPUTS, program.inputs), (_OUTPUTS, program.outputs), (_CONSTANTS, program.constants)):
            for number, buffer in enumerate(buffers):
                self._places[buffer] = field, number
        for buffer in program.temporaries:
            self._places[buffer] = _ARENA, buffer.offset
        self._scratch_offset = -(-program.arena // ALIGNMENT) * ALIGNMENT
        self._scratch = 0

    @property
    def arena(self) -> int:
        """How many bytes the arena must have: temporaries first, then the scratch memory of the kernels."""
        return self._scratch_offset + self._scratch

    def reserve_scratch(self, nbytes: int) -> None:
        """Have at least so many bytes of scratch memory. It is a kernel's own while it runs, and the next one's after."""
        self._scratch = max(self._scratch, -(-nbytes // ALIGNMENT) * ALIGNMENT)

    def scratch(self, f: Function) -> str:
        """The address of the scratch memory, aligned to 64 bytes; for a function whose first parameter is %context."""
        arena = _field(f, _ARENA)
        return f.value(f"getelementptr i8, ptr {arena}, i64 {self._scratch_offset}", "scratch")

    def pointers(self, f: Function, buffers: Iterable[Buffer]) -> Callable[[Buffer], str]:
        """The base addresses of buffers that are not local; for a function whose first parameter is %context, which
        must stand in its entry block."""
        places = {buffer: self._places[buffer] for buffer in buffers}
        fields = {field: _field(f, field) for field in sorted({field for field, _ in places.values()})}
        known: dict[Buffer, str] = {}
        for buffer, (field, number) in sorted(places.items(), key=lambda item: item[1]):
            base = fields[field]
            if field == _ARENA:
                known[buffer] = f.value(f"getelementptr i8, ptr {base}, i64 {number}", "temporary")
            else:
                place = f.value(f"getelementptr ptr, ptr {base}, i64 {number}")
                known[buffer] = f.value(f"load ptr, ptr {place}", "buffer")
        return known.__getitem__

    def host_key(self, f: Function) -> str:
        """The pointer behind the constants, which `host` finds the ops by that it runs."""
        place = f.value(f"getelementptr ptr, ptr {_field(f, _CONSTANTS)}, i64 {self._constants}")
        return f.value(f"load ptr, ptr {place}")

    def parallel_for(self, f: Function, body: str, chunks: str, context: str = "%context") -> None:
        """Call `body`, the symbol of a `void (ptr context, i64 chunk)`, for each chunk below the i64 operand `chunks`."""
        callee = self.module.declare("parallel_for", "void", ["ptr", "ptr", "i64"])
        f.call("void", callee, ("ptr", body), ("ptr", context), ("i64", chunks))


def _field(f: Function, number: int) -> str:
    return f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr %context, i64 {number}')}", "base")
