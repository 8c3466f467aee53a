"""A whole program as one native function.

    i32 run(ptr inputs, ptr outputs, ptr constants, ptr arena)

The first three are arrays of base addresses, in the program's order; `arena` points to memory for the temporaries. It
runs the kernels one after another and returns 0; or, where a check of the program fails, its number counted from 1; or
`host.FAILED`. For prepared buffers there are one more input, the address of their memory, and one more function of the same
parameters, `precompute`, which fills them. For symbolic sizes there are one more input, the last, and one more function, of
which `sizes` tells. Of symbols from
outside it needs `parallel_for`, whose address is `runtime.parallel_for_address()`, and `host_call`, which `host` tells of.
How kernels are rendered is told in `context`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphc.backends.llvm.artifact import ENTRY, PRECOMPUTE
from graphc.backends.llvm.attention import render_attention
from graphc.backends.llvm.attention_backward import render_attention_backward
from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.context import FIELDS, Context, input_words
from graphc.backends.llvm.control import Inner, render_control
from graphc.backends.llvm.gemm import packing_symbol, render_gemm
from graphc.backends.llvm.host import render_call
from graphc.backends.llvm.kernel_clock import timed
from graphc.backends.llvm.loops import render_loops
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.target import Target
from graphc.expression import Buffer
from graphc.kernel import Attention, AttentionBackward, Call, Control, Gemm, Kernel, writes
from graphc.kernel_key import Place, kernel_key
from graphc.memory import place_scratch
from graphc.program import Program
from graphc.sizes import greatest, is_static
from graphc.types import Size

_MOST_DIRECT = 24
"""Kernels of a program inside another that it calls without tables."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The module of a program, how many bytes its arena must have, aligned to 64, and how many words its table of sizes."""

    module: Module
    arena: Size
    sizes: int = 0
    symbols: tuple[str, ...] = ()
    """The functions of the program's kernels."""


@dataclass(frozen=True, slots=True)
class _Code:
    """The function that a kernel is: its symbol, its buffers, and the bytes of scratch memory that it needs."""

    symbol: str
    places: list[Place]
    scratch: Size


@dataclass(frozen=True, slots=True)
class _Step:
    """One kernel: the function that it is, and its buffers in the order in which that counts them."""

    symbol: str
    scratch: Size
    """How many bytes of scratch memory it needs."""
    buffers: list[Buffer]
    shifts: list[int]
    """By how many bytes each is moved for it."""
    fails: bool
    """Whether the function returns a status."""
    checks: list[tuple[int, Buffer]]
    """What is checked then: the status of a run that ends there, and the buffer."""


def render(program: Program, target: Target, *, hosted: bool = True) -> Rendered:
    """Render a program for a target. The text is the same each time, so that its object code can be kept. What is not `hosted`
    runs without a Python process: it has no ops left to Python, and its loops look for no signals.

    Kernels that do the same with other buffers are one function. Which are called, and with what, stands in tables:
    as instructions, thousands of calls would keep the optimiser busy for longer than the kernels do. Programs inside, which
    may run for each step of a loop, are functions of their own, and those of few kernels have no tables.
    """
    module = Module(program.name, target.has_fma, target.vector_bytes)
    programs = _Programs(module, target, hosted)
    arena = programs.render(program, ENTRY)
    symbols = tuple(programs.symbols)
    if program.facts is None:
        return Rendered(module, arena, symbols=symbols)
    module.sizes.render(module, arena, program.facts.at_least_zero)
    return Rendered(module, arena, len(module.sizes), symbols)


class _Programs:
    """Renders a program, and those inside of it, into one module."""

    def __init__(self, module: Module, target: Target, hosted: bool) -> None:
        self._module = module
        self._target = target
        self._hosted = hosted
        self._calls = 0
        """How many ops have been left to Python so far."""
        self._inner = 0
        self._timed = 0
        """How many kernels a clock numbers so far: those of the program, then those of programs inside (`inner_kernels`)."""
        self.symbols: list[str] = []
        """The functions of the kernels of the program that is not inside another."""

    def render(self, program: Program, symbol: str) -> Size:
        """Add a program to the module as a function of this name; returns how many bytes its arena must have."""
        context = Context(self._module, self._target, program, self._hosted)
        prefix = "" if symbol == ENTRY else f"{symbol}."
        first = self._timed
        self._timed += len(program.kernels)
        functions: dict[Hashable, _Code] = {}
        if program.prepared:
            once = self._kernels(context, program, program.preparation, f"{PRECOMPUTE}.", functions)
        steps = self._kernels(context, program, program.kernels, prefix, functions)
        if symbol == ENTRY:
            self.symbols = [step.symbol for step in steps]
        scratch = _scratch(context, program, steps)
        ends = {offset + step.scratch for offset, step in zip(scratch, steps)}
        if program.prepared:
            once += _packing(program, functions)
            behind = [context.behind] * len(once)
            ends |= {context.behind + step.scratch for step in once}
            self._function(context, program, PRECOMPUTE, once, behind, f"{PRECOMPUTE}.", 0)
        self._function(context, program, symbol, steps, scratch, prefix, first)
        return functools.reduce(greatest, sorted(ends, key=str), context.behind)

    def _function(
        self, context: Context, program: Program, symbol: str, steps: Sequence[_Step], scratch: Sequence[Size], prefix: str,
        first: int,
    ) -> None:
        """A function that takes the steps, with their scratch memory at these offsets. A clock numbers them from `first` on."""
        linkage = "" if symbol in (ENTRY, PRECOMPUTE) else "internal"
        f = self._module.function(symbol, [("ptr", name) for name in FIELDS], "i32", linkage=linkage)
        if program.symbols:
            last = f.at_entry(f"getelementptr ptr, ptr %inputs, i64 {input_words(program) - 1}")
            f.size_table = f.at_entry(f"load ptr, ptr {last}", "sizes")
        fields = f.slot("[4 x ptr]")
        for number, name in enumerate(FIELDS):
            f.do(f"store ptr %{name}, ptr {f.value(f'getelementptr ptr, ptr {fields}, i64 {number}')}")
        table = context.table(f, fields, max((len(step.buffers) for step in steps), default=0))
        direct = linkage and len(steps) <= _MOST_DIRECT
        if not direct:
            _write_tables(context, steps, scratch, prefix)
            fill = context.fill()

        def call_all(clock: str | None) -> None:
            if direct:
                self._call_directly(f, context, steps, scratch, table, first, clock)
            else:
                self._calls_of(f, steps, fill, fields, table, prefix, first, clock)
            f.do("ret i32 0")

        clock = self._clock(f, program)
        if clock is not None:
            profiled, plain = f.label("profiled"), f.label("plain")
            f.branch(f.value(f"icmp ne ptr {clock}, null"), profiled, plain)
            f.enter(profiled)
            call_all(clock)
            f.enter(plain)
        call_all(None)

    def _call_directly(
        self, f: Function, context: Context, steps: Sequence[_Step], scratch: Sequence[Size], table: str, first: int,
        clock: str | None,
    ) -> None:
        """Call one kernel after another without tables, each recorded by the clock, if there is one."""
        for number, (step, offset) in enumerate(zip(steps, scratch, strict=True), first):
            context.put(f, table, offset, step.buffers, step.shifts)
            with timed(f, clock, str(number)):
                status = f.call("i32" if step.fails else "void", f"@{step.symbol}", ("ptr", table))
            if step.fails:
                _stop_if_not_zero(f, status)
            _check(f, step)

    def _calls_of(
        self, f: Function, steps: Sequence[_Step], fill: str, fields: str, table: str, prefix: str, base: int, clock: str | None
    ) -> None:
        """The same by tables."""
        once = prefix == f"{PRECOMPUTE}."
        first = 0
        for last, step in enumerate(steps, 1):
            if last < len(steps) and not (step.fails or step.checks or steps[last].fails):
                continue
            if step.fails:
                with timed(f, clock, str(-1 - first if once else base + first)):
                    status = _call(f, "i32", fill, fields, table, str(first), prefix)
                _stop_if_not_zero(f, status)
            else:
                with f.loop(str(first), str(last), hint="kernel") as number:
                    counted = number
                    if clock is not None and (once or base):
                        counted = f.value(f"xor i64 {number}, -1" if once else f"add i64 {number}, {base}")
                    with timed(f, clock, counted):
                        _call(f, "void", fill, fields, table, number, prefix)
            first = last
            _check(f, step)

    def _clock(self, f: Function, program: Program) -> str | None:
        """The address of a program's clock (see `kernel_clock`), behind the key of its ops."""
        if not self._hosted:
            return None
        return f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr %constants, i64 {len(program.constants) + 1}')}")

    def _inner_program(self, program: Program) -> Inner:
        self._inner += 1
        symbol = f"inner{self._inner}"
        return Inner(f"@{symbol}", self.render(program, symbol), program)

    def _kernels(
        self, context: Context, program: Program, kernels: Sequence[Kernel], prefix: str,
        rendered: dict[Hashable, _Code],
    ) -> list[_Step]:
        """Add functions for kernels to the module, and to `rendered`, by what they do and with their buffers."""
        steps: list[_Step] = []
        for number, kernel in enumerate(kernels):
            name = f"{prefix}kernel{number}.{re.sub(r'[^A-Za-z0-9_.]', '_', kernel.name)}"
            if isinstance(kernel, (Call, Control)):
                buffers = list(kernel.accesses)
                if isinstance(kernel, Call):
                    context.begin(buffers)
                    render_call(context, kernel, name, self._calls)
                    self._calls += 1
                else:
                    inner = {attribute: self._inner_program(p) for attribute, p in kernel.programs.items()}
                    context.begin(buffers)
                    first = program.checks.index(kernel.checks[0]) if kernel.checks else 0
                    render_control(context, kernel, inner, name, first)
                steps.append(_Step(name, context.needed, buffers, list(map(_offset, buffers)), True, []))
                continue
            key, places = kernel_key(kernel)
            buffers = [place.buffer for place in places]
            if key not in rendered:
                context.begin(buffers)
                if isinstance(kernel, Gemm):
                    render_gemm(context, kernel, name)
                elif isinstance(kernel, Attention):
                    render_attention(context, kernel, name)
                elif isinstance(kernel, AttentionBackward):
                    render_attention_backward(context, kernel, name)
                else:
                    render_loops(context, kernel, name)
                rendered[key] = _Code(name, places, context.needed)
            written = writes(kernel) if program.checks else ()
            checks = [(status, check.buffer) for status, check in enumerate(program.checks, 1) if check.buffer in written]
            known = rendered[key]
            steps.append(_Step(known.symbol, known.scratch, buffers, _shifts(places, known.places), False, checks))
        return steps


def _scratch(context: Context, program: Program, steps: Sequence[_Step]) -> list[Size]:
    """Where the steps' scratch memory begins: between the temporaries, or behind them where it takes symbols to say where they
    are."""
    needed = [step.scratch for step in steps]
    if not is_static(program.arena, *needed, *(b.offset for b in program.temporaries), *(b.size for b in program.temporaries)):
        return [context.behind] * len(steps)
    return list(place_scratch(program.kernels, program.temporaries, needed))


def _packing(program: Program, functions: dict[Hashable, _Code]) -> list[_Step]:
    """What fills the panels of products."""
    steps: list[_Step] = []
    filled: set[Buffer] = set()
    for kernel in program.kernels:
        if isinstance(kernel, Gemm) and not filled.issuperset(filter(None, kernel.panels)):
            filled.update(filter(None, kernel.panels))
            key, places = kernel_key(kernel)
            known = functions[key]
            buffers = [place.buffer for place in places]
            shifts = _shifts(places, known.places)
            steps.append(_Step(packing_symbol(known.symbol), known.scratch, buffers, shifts, False, []))
    return steps


def _shifts(places: Sequence[Place], first: Sequence[Place]) -> list[int]:
    """By how many bytes the buffers of a kernel are moved for a function that was made for others."""
    return [(p.origin - q.origin) * p.buffer.dtype.itemsize + _offset(p.buffer) for p, q in zip(places, first, strict=True)]


def _offset(buffer: Buffer) -> int:
    """Where a prepared buffer begins in the memory of all of them, or a temporary in that of an output; others are found by
    their own addresses."""
    return buffer.offset if buffer.role == "prepared" or buffer.host is not None else 0


def _check(f: Function, step: _Step) -> None:
    for status, buffer in step.checks:
        place = f.value(f"getelementptr i8, ptr %arena, i64 {size_operand(f, buffer.offset)}")
        wrong = f.value(f"icmp ne i8 {f.value(f'load i8, ptr {place}')}, 0")
        _stop_if_not_zero(f, f.value(f"select i1 {wrong}, i32 {status}, i32 0"))


def _write_tables(context: Context, steps: Sequence[_Step], scratch: Sequence[Size], prefix: str) -> None:
    """The functions of the steps, where their scratch memory and their buffers are, one after another, and where each step's
    begin."""
    places: list[str] = []
    starts = [0]
    for step, offset in zip(steps, scratch, strict=True):
        places.append(f"[i64 {context.place_in_arena(offset)}, i64 0]")
        places += [f"[i64 {context.place(b)}, i64 {shift}]" for b, shift in zip(step.buffers, step.shifts, strict=True)]
        starts.append(len(places))
    for name, type_, items in (("functions", "ptr", [f"@{step.symbol}" for step in steps]),
                               ("places", "[2 x i64]", places), ("starts", "i64", starts)):
        items_text = ", ".join(f"{type_} {item}" for item in items)
        context.module.constant(f"{prefix}{name}", f"[{len(items)} x {type_}] [{items_text}]")


def _call(f: Function, result: str, fill: str, fields: str, table: str, number: str, prefix: str) -> str:
    """Call the function of a step, with its buffers in the table."""
    start, stop = (
        f.value(f"load i64, ptr {f.value(f'getelementptr i64, ptr @{prefix}starts, i64 {i}')}")
        for i in (number, f.value(f"add i64 {number}, 1"))
    )
    places = f.value(f"getelementptr [2 x i64], ptr @{prefix}places, i64 {start}")
    f.call("void", fill, ("ptr", fields), ("ptr", table), ("ptr", places), ("i64", f.value(f"sub i64 {stop}, {start}")))
    function = f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr @{prefix}functions, i64 {number}')}")
    return f.call(result, function, ("ptr", table))


def _stop_if_not_zero(f: Function, status: str) -> None:
    failed, passed = f.label("failed"), f.label("passed")
    f.branch(f.value(f"icmp ne i32 {status}, 0"), failed, passed)
    f.enter(failed)
    f.do(f"ret i32 {status}")
    f.enter(passed)
