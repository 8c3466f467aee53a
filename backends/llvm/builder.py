"""Building LLVM IR as text.

A `Module` collects functions, declarations and constants; a `Function` is written block by block.
Operands and types are plain strings in LLVM's own spelling ("%x", "<16 x float>"), so what a template
writes is what appears in the listing.

    module = Module("demo")
    f = module.function("axpy", [("i64", "n"), ("ptr", "x")])
    with f.loop("0", "%n") as i:
        p = f.value(f"getelementptr float, ptr %x, i64 {i}")
        v = f.value(f"load float, ptr {p}")
        f.do(f"store float {f.value(f'fadd float {v}, {v}')}, ptr {p}")
    f.do("ret void")
    text = str(module)

Values that change in a loop live in `alloca` slots (`Function.slot`); LLVM's SROA pass turns them into registers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

REFERENCE = re.compile(r"@([\w.$-]+)")
"""The name of a function or variable of the module, in the text of another one."""


def vector(scalar: str, width: int) -> str:
    """The vector type of `width` elements, or the scalar type itself for a width of 1."""
    return scalar if width == 1 else f"<{width} x {scalar}>"


def mangle(type_: str) -> str:
    """A type as it is spelled in an intrinsic's name: `<16 x float>` is `v16f32`, `ptr` is `p0`."""
    short = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16", "ptr": "p0"}
    if type_.startswith("<"):
        count, _, element = type_[1:-1].partition(" x ")
        return f"v{count}{mangle(element)}"
    return short.get(type_, type_)


def literal(value: float | int | bool, scalar: str) -> str:
    """A scalar constant in LLVM's spelling; floating-point numbers are written as their exact bits."""
    if scalar == "float":
        rounded = struct.unpack("<f", struct.pack("<f", value))[0] if abs(value) != float("inf") else value
        return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
    if scalar == "double":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if scalar == "half":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if scalar == "i1":
        return "true" if value else "false"
    return str(int(value))


class Module:
    """The text of one LLVM module. `has_fma` says whether the target multiplies and adds in one instruction:
    where it does not, `llvm.fma` would become a call into the C library. `vector_bytes` is the size of a register."""

    def __init__(self, name: str, has_fma: bool = True, vector_bytes: int = 64) -> None:
        self.name = name
        self.has_fma = has_fma
        self.vector_bytes = vector_bytes
        self.functions: list[Function] = []
        self._names: set[str] = set()
        self.sizes: Any = None  # see `sizes`, which keeps what it knows here and in the functions
        self.declarations: dict[str, str] = {}
        self.globals: dict[str, str] = {}

    def function(
        self,
        name: str,
        params: Sequence[tuple[str, str]],
        result: str = "void",
        *,
        linkage: str = "",
        attributes: str = "nounwind",
    ) -> Function:
        """Begin a function; a parameter is (type with attributes, name), as in ("ptr noalias", "x")."""
        function = Function(self, name, params, result, linkage, attributes)
        self.functions.append(function)
        self._names.add(name)
        return function

    def has(self, name: str) -> bool:
        """Whether a function of this name is already in the module."""
        return name in self._names

    def declare(self, name: str, result: str, params: Sequence[str]) -> str:
        """Declare an external function or an intrinsic once; returns its symbol, `@name`."""
        self.declarations[name] = f"declare {result} @{name}({', '.join(params)})"
        return f"@{name}"

    def constant(self, name: str, definition: str) -> str:
        """Add a private constant, as in constant("table", "[4 x float] [...]"); returns its symbol."""
        self.globals[name] = f"@{name} = private unnamed_addr constant {definition}"
        return f"@{name}"

    def variable(self, name: str, definition: str) -> str:
        """Add an internal variable; returns its symbol."""
        self.globals[name] = f"@{name} = internal global {definition}"
        return f"@{name}"

    def imported(self, name: str, type_: str) -> str:
        """Add a variable that is elsewhere; returns its symbol."""
        self.globals[name] = f"@{name} = external global {type_}"
        return f"@{name}"

    def part(self, functions: Sequence[str]) -> str:
        """The text of these functions, with all that they need of the module."""
        named = {function.name: function for function in self.functions}
        texts: dict[str, str] = {}
        pending = list(functions)
        while pending:
            name = pending.pop()
            if name not in texts:
                made = named.get(name)
                texts[name] = self.globals.get(name) or (self.declarations[name] if made is None else str(made))
                pending += REFERENCE.findall(texts[name])
        return "\n".join([f"; {self.name}: {', '.join(functions)}", *texts.values()]) + "\n"

    def __str__(self) -> str:
        parts = [f"; {self.name}", *self.globals.values(), *map(str, self.functions)]
        defined = {function.name for function in self.functions}
        parts += [text for name, text in self.declarations.items() if name not in defined]
        return "\n".join(parts) + "\n"


class Function:
    """One function under construction. The block named `entry` is open from the start."""

    def __init__(
        self,
        module: Module,
        name: str,
        params: Sequence[tuple[str, str]],
        result: str,
        linkage: str,
        attributes: str,
    ) -> None:
        self.module = module
        self.name = name
        arguments = ", ".join(f"{type_} %{param}" for type_, param in params)
        head = " ".join(filter(None, ("define", linkage, result)))
        self._head = f"{head} @{name}({arguments}) {attributes} {{"
        self.declaration = f"declare {result} @{name}({', '.join(type_ for type_, _ in params)})"
        self.inlined = "alwaysinline" in attributes
        self._slots: list[str] = []
        self.sizes: dict[Any, str] = {}
        self.size_table = ""
        self._lines: list[str] = []
        self._count = 0
        self.current = "entry"

    def fresh(self, hint: str = "t") -> str:
        """A name that is not used yet, without its sigil."""
        self._count += 1
        return f"{hint}.{self._count}"

    def value(self, text: str, hint: str = "t") -> str:
        """Append `%hint.N = text`; returns `%hint.N`."""
        name = f"%{self.fresh(hint)}"
        self._lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self._lines.append(f"  {text}")

    def call(self, result: str, callee: str, *args: tuple[str, str]) -> str:
        """Call `callee` (`@symbol` or `%pointer`) with (type, operand) pairs; returns the result, "" for void."""
        text = f"call {result} {callee}({', '.join(f'{type_} {operand}' for type_, operand in args)})"
        if result == "void":
            self.do(text)
            return ""
        return self.value(text)

    def intrinsic(self, base: str, type_: str, *args: str) -> str:
        """Call an intrinsic overloaded on one type whose operands and result all have it: llvm.fma, llvm.floor."""
        name = self.module.declare(f"{base}.{mangle(type_)}", type_, [type_] * len(args))
        return self.call(type_, name, *((type_, arg) for arg in args))

    def splat(self, scalar: str, operand: str, width: int) -> str:
        """A vector with the operand in each element (the operand itself for a width of 1)."""
        if width == 1:
            return operand
        type_ = vector(scalar, width)
        first = self.value(f"insertelement {type_} poison, {scalar} {operand}, i64 0")
        return self.value(f"shufflevector {type_} {first}, {type_} poison, <{width} x i32> zeroinitializer")

    def slot(self, type_: str, align: int | None = None) -> str:
        """A stack slot in the entry block, for a value that changes in a loop; returns its pointer."""
        name = f"%{self.fresh('slot')}"
        self._slots.append(f"  {name} = alloca {type_}" + (f", align {align}" if align else ""))
        return name

    def at_entry(self, text: str, hint: str = "t") -> str:
        """As `value`, in the entry block: for what is the same throughout the function, and needs only its parameters or
        what stands there already."""
        name = f"%{self.fresh(hint)}"
        self._slots.append(f"  {name} = {text}")
        return name

    def label(self, hint: str = "block") -> str:
        """A new block label, to be opened by `enter`."""
        return self.fresh(hint)

    def enter(self, label: str) -> None:
        """Open the block; the block before it must have ended in a terminator."""
        self._lines.append(f"{label}:")
        self.current = label

    def jump(self, label: str) -> None:
        """End the block with a branch to `label`."""
        self.do(f"br label %{label}")

    def branch(self, condition: str, then: str, otherwise: str) -> None:
        """End the block with a conditional branch."""
        self.do(f"br i1 {condition}, label %{then}, label %{otherwise}")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Run the body only where `condition` (an i1) holds."""
        then, after = self.label("then"), self.label("after")
        self.branch(condition, then, after)
        self.enter(then)
        yield
        self.jump(after)
        self.enter(after)

    @contextmanager
    def repeat(self, hint: str = "repeat") -> Iterator[Callable[[str], None]]:
        """Run the body again and again. Yields a function that goes on where a condition (an i1) holds, and else leaves."""
        head, after = self.label(f"{hint}.head"), self.label(f"{hint}.end")

        def go_on_if(condition: str) -> None:
            body = self.label(f"{hint}.body")
            self.branch(condition, body, after)
            self.enter(body)

        self.jump(head)
        self.enter(head)
        yield go_on_if
        self.jump(head)
        self.enter(after)

    @contextmanager
    def loop(self, start: str, stop: str, step: str = "1", hint: str = "i", *, reduced: bool = True) -> Iterator[str]:
        """A counted loop over i64: yields the index; runs zero times where start >= stop (signed).

        LLVM makes pointers that grow of what is multiplied by the index (strength reduction), which pays where vectors are
        read and written one after another. To look for the best ones takes a fifth of its time: a loop that is not to be
        `reduced` goes on by a step that it cannot see through.
        """
        head, body, after = self.label(f"{hint}.head"), self.label(f"{hint}.body"), self.label(f"{hint}.end")
        index, following = f"%{self.fresh(hint)}", f"%{self.fresh(hint + '.next')}"
        before = self.current
        self.jump(head)
        self.enter(head)
        position = len(self._lines)
        self._lines.append("")  # the phi, whose second predecessor is known only after the body
        condition = self.value(f"icmp slt i64 {index}, {stop}")
        self.branch(condition, body, after)
        self.enter(body)
        yield index
        if reduced:
            self._lines.append(f"  {following} = add nsw i64 {index}, {step}")
        else:
            self._lines.append(f"  {following}.sum = add nsw i64 {index}, {step}")
            self._lines.append(f'  {following} = call i64 asm "", "=r,0"(i64 {following}.sum)')
        self._lines[position] = f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{self.current} ]"
        self.jump(head)
        self.enter(after)

    def __str__(self) -> str:
        return "\n".join([self._head, "entry:", *self._slots, *self._lines, "}"])
