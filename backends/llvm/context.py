"""What the kernels of a program share at run time, and the convention by which they are rendered.

A kernel is rendered by a function `render_<kind>(context, kernel, name)`. It adds a function to `context.module`,

    define internal void @name(ptr %context)

which has done all of the kernel's work when it returns. What the function wants to run on several threads it hands to
`Context.parallel_for`, as often as it needs to: that calls a

    void body(ptr %context, i64 %chunk)

for each chunk. The context is a table of addresses: of what `host` finds ops by, of the table of sizes, of the clock, if the
kernel runs programs, of the scratch memory, and of the kernel's own buffers, in the order of `kernel_key`. So one function
serves all kernels that are equal but for their buffers: the program fills the table before each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphc.backends.llvm import sizes
from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.target import Target
from graphc.dims import Dim
from graphc.expression import Buffer
from graphc.kernel import Control
from graphc.program import Program
from graphc.sizes import ceil_div, greatest
from graphc.types import Size

ALIGNMENT = 64
"""Of the arena, and of everything in it."""

# What a program is given: the first three are arrays of addresses.
_INPUTS, _OUTPUTS, _CONSTANTS, _ARENA = range(4)
FIELDS = ("inputs", "outputs", "constants", "arena")
"""The parameters of a program."""
_SIZED = 4  # the arena, at an offset that stands in the table of sizes
_FIELD_BITS = 3
_WORD = 8
"""Bytes of a word of the table of sizes."""
# Where in a kernel's table the addresses are. From the scratch memory on they are the kernel's own.
HOST_SLOT, _SIZES, _CLOCK, _SCRATCH, _BUFFERS = range(5)
assert _SIZES == sizes.SLOT


def input_words(program: Program) -> int:
    """How many addresses a program is given as inputs: its own, that of the prepared buffers, and that of the sizes."""
    return len(program.inputs) + (program.prepared > 0) + bool(program.symbols)


class Context:
    """The module that a program is rendered into, its target, and where its buffers are. It is `hosted` if it runs in a
    Python process."""

    def __init__(self, module: Module, target: Target, program: Program, hosted: bool = True) -> None:
        self.module = module
        self.target = target
        self.hosted = hosted
        pointer = target.pointer_bytes
        self._constants = len(program.constants)
        self._clocked = hosted and any(isinstance(kernel, Control) for kernel in (*program.preparation, *program.kernels))
        self._places: dict[Buffer, tuple[int, Size]] = {}
        for field, buffers in ((_INPUTS, program.inputs), (_OUTPUTS, program.outputs), (_CONSTANTS, program.constants)):
            for number, buffer in enumerate(buffers):
                self._places[buffer] = field, pointer * number
        for buffer in program.temporaries:
            self._places[buffer] = (_ARENA, buffer.offset) if buffer.host is None else self._places[buffer.host]
        self._prepared = _INPUTS, pointer * len(program.inputs)
        self._inputs = input_words(program) - 1 if program.symbols else None
        self.behind: Size = ceil_div(program.arena, ALIGNMENT) * ALIGNMENT
        """Where memory begins that no temporary uses."""
        self.needed: Size = 0
        """The bytes of scratch memory for the kernel that is rendered."""
        if program.facts is not None and module.sizes is None:
            module.sizes = sizes.SizeTable(program.symbols)
        self._slots: dict[Buffer, int] = {}

    # For the program

    def begin(self, buffers: Sequence[Buffer]) -> None:
        """What is rendered next is a kernel whose table has these buffers."""
        self.needed = 0
        self._slots = {buffer: _BUFFERS + number for number, buffer in enumerate(buffers)}

    def place(self, buffer: Buffer) -> int:
        """Where a buffer is, for `fill`: what it is counted from in the last bits, and how many bytes from there."""
        return self._place(*(self._prepared if buffer.role == "prepared" else self._places[buffer]))

    def place_in_arena(self, offset: Size) -> int:
        """Where the byte of the arena is, likewise."""
        return self._place(_ARENA, offset)

    def _place(self, field: int, offset: Size) -> int:
        if isinstance(offset, Dim):
            field, offset = _SIZED, self.module.sizes.place(offset) * _WORD
        return offset << _FIELD_BITS | field

    def table(self, f: Function, fields: str, most: int) -> str:
        """A table for kernels with `most` buffers, or fewer: its address. What is the same for all kernels is in it."""
        table = f.slot(f"[{_BUFFERS + most} x ptr]")
        constants = f.value(f"load ptr, ptr {_place(f, fields, _CONSTANTS)}")
        if self._inputs is not None:
            inputs = f.value(f"load ptr, ptr {_place(f, fields, _INPUTS)}")
            f.do(f"store ptr {f.value(f'load ptr, ptr {_place(f, inputs, self._inputs)}')}, ptr {_place(f, table, _SIZES)}")
        host = f.value(f"load ptr, ptr {_place(f, constants, self._constants)}")
        f.do(f"store ptr {host}, ptr {_place(f, table, HOST_SLOT)}")
        if self._clocked:
            clock = f.value(f"load ptr, ptr {_place(f, constants, self._constants + 1)}")
            f.do(f"store ptr {clock}, ptr {_place(f, table, _CLOCK)}")
        return table

    def put(self, f: Function, table: str, scratch: Size, buffers: Sequence[Buffer], shifts: Sequence[int]) -> None:
        """Put the addresses of a kernel's scratch memory, by its offset, and of its buffers into a table, in the function of a
        program: what `fill` does, as instructions of their own."""
        own = f.value(f"getelementptr i8, ptr %arena, i64 {sizes.size_operand(f, scratch)}")
        f.do(f"store ptr {own}, ptr {_place(f, table, _SCRATCH)}")
        for slot, (buffer, shift) in enumerate(zip(buffers, shifts, strict=True), _BUFFERS):
            field, offset = self._prepared if buffer.role == "prepared" else self._places[buffer]
            address = f.value(f"getelementptr i8, ptr %{FIELDS[field]}, i64 {offset}")
            if field != _ARENA:
                address = f.value(f"load ptr, ptr {address}")
            if shift:
                address = f.value(f"getelementptr i8, ptr {address}, i64 {shift}")
            f.do(f"store ptr {address}, ptr {_place(f, table, slot)}")

    def fill(self) -> str:
        """Add a function that puts the addresses of a kernel's scratch memory and buffers into a table; returns its symbol.

        void fill(ptr fields, ptr table, ptr places, i64 count): `fields` are the inputs, outputs, constants and the arena;
        of the places each is two numbers, that of `place`, and by how many bytes the address is moved
        """
        if self.module.has("fill"):
            return "@fill"
        f = self.module.function("fill", [("ptr", "fields"), ("ptr", "table"), ("ptr", "places"), ("i64", "count")],
                                 linkage="internal")
        slots = _place(f, "%table", _SCRATCH)
        address = f.slot("ptr")
        with f.loop("0", "%count") as i:
            entry = f.value(f"getelementptr [2 x i64], ptr %places, i64 {i}")
            place = f.value(f"load i64, ptr {entry}")
            shift = f.value(f"load i64, ptr {f.value(f'getelementptr i64, ptr {entry}, i64 1')}")
            field = f.value(f"and i64 {place}, {(1 << _FIELD_BITS) - 1}")
            offset = f.slot("i64")
            f.do(f"store i64 {f.value(f'ashr i64 {place}, {_FIELD_BITS}')}, ptr {offset}")
            if self.module.sizes is not None:
                with f.when(f.value(f"icmp eq i64 {field}, {_SIZED}")):
                    known = f.value(f"load ptr, ptr {_place(f, '%table', _SIZES)}")
                    word = f.value(f"getelementptr i8, ptr {known}, i64 {f.value(f'load i64, ptr {offset}')}")
                    f.do(f"store i64 {f.value(f'load i64, ptr {word}')}, ptr {offset}")
                field = f.intrinsic("llvm.umin", "i64", field, str(_ARENA))
            base = f.value(f"load ptr, ptr {_place(f, '%fields', field)}")
            there = f.value(f"getelementptr i8, ptr {base}, i64 {f.value(f'load i64, ptr {offset}')}")
            f.do(f"store ptr {there}, ptr {address}")
            with f.when(f.value(f"icmp ne i64 {field}, {_ARENA}")):
                f.do(f"store ptr {f.value(f'load ptr, ptr {there}')}, ptr {address}")
            moved = f.value(f"getelementptr i8, ptr {f.value(f'load ptr, ptr {address}')}, i64 {shift}")
            f.do(f"store ptr {moved}, ptr {_place(f, slots, i)}")
        f.do("ret void")
        return "@fill"

    # For kernels

    def reserve_scratch(self, nbytes: Size) -> None:
        """Have at least so many bytes of scratch memory for the kernel, which are its own while it runs."""
        self.needed = greatest(self.needed, ceil_div(nbytes, ALIGNMENT) * ALIGNMENT)

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
        return _slot(f, HOST_SLOT, "host")

    def clock(self, f: Function) -> str | None:
        """The address of the program's clock (see `kernel_clock`), or null, for a kernel that runs programs."""
        return _slot(f, _CLOCK, "clock") if self.hosted else None

    def parallel_for(self, f: Function, body: str, chunks: str, context: str = "%context") -> None:
        """Call `body`, the symbol of a `void (ptr context, i64 chunk)`, for each chunk below the i64 operand `chunks`."""
        callee = self.module.declare("parallel_for", "void", ["ptr", "ptr", "i64"])
        f.call("void", callee, ("ptr", body), ("ptr", context), ("i64", chunks))


def _slot(f: Function, number: int, hint: str) -> str:
    return f.value(f"load ptr, ptr {_place(f, '%context', number)}", hint)


def _place(f: Function, table: str, number: int | str) -> str:
    return f.value(f"getelementptr ptr, ptr {table}, i64 {number}")
