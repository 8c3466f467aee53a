"""A whole program as one native function.

    i32 run(ptr inputs, ptr outputs, ptr constants, ptr arena)

The first three are arrays of base addresses, in the program's order; `arena` points to memory for the temporaries. It
runs the kernels one after another and returns 0; or, where a check of the program fails, its number counted from 1; or
`host.FAILED`. Of symbols from outside it needs `parallel_for`, whose address is `runtime.parallel_for_address()`, and
`host_call`, which `host` tells of. How kernels are rendered is told in `context`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.context import Context
from graphc.backends.llvm.gemm import render_gemm
from graphc.backends.llvm.host import render_call
from graphc.backends.llvm.loops import render_loops
from graphc.backends.llvm.target import Target
from graphc.kernel import Buffer, Call, Gemm, Program, writes
from graphc.kernel_key import kernel_key

ENTRY = "run"
"""The name of the function in the module."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The module of a program, and how many bytes its arena must have, aligned to 64."""

    module: Module
    arena: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One kernel: the function that it is, and its buffers in the order in which that counts them."""

    symbol: str
    buffers: list[Buffer]
    fails: bool
    """Whether the function returns a status."""
    checks: list[tuple[int, Buffer]]
    """What is checked then: the status of a run that ends there, and the buffer."""


def render(program: Program, target: Target) -> Rendered:
    """Render a program for a target. The text is the same each time, so that its object code can be kept.

    Kernels that do the same with other buffers are one function. Which are called, and with what, stands in tables:
    as instructions, thousands of calls would keep the optimiser busy for longer than the kernels do.
    """
    module = Module(program.name, target.has_fma, target.vector_bytes)
    context = Context(module, target, program)
    f = module.function(ENTRY, [("ptr", name) for name in ("inputs", "outputs", "constants", "arena")], "i32")
    fields = f.slot("[4 x ptr]")
    for number, name in enumerate(("inputs", "outputs", "constants", "arena")):
        f.do(f"store ptr %{name}, ptr {f.value(f'getelementptr ptr, ptr {fields}, i64 {number}')}")
    steps = _render_kernels(context, program)
    table = context.table(f, fields, max((len(step.buffers) for step in steps), default=0))
    _write_tables(context, steps)
    fill = context.fill()
    first = 0
    for last, step in enumerate(steps, 1):
        if last < len(steps) and not (step.fails or step.checks or steps[last].fails):
            continue
        if step.fails:
            _stop_if_not_zero(f, _call(f, "i32", fill, fields, table, str(first)))
        else:
            with f.loop(str(first), str(last), hint="kernel") as number:
                _call(f, "void", fill, fields, table, number)
        first = last
        for status, buffer in step.checks:
            place = f.value(f"getelementptr i8, ptr %arena, i64 {buffer.offset}")
            wrong = f.value(f"icmp ne i8 {f.value(f'load i8, ptr {place}')}, 0")
            _stop_if_not_zero(f, f.value(f"select i1 {wrong}, i32 {status}, i32 0"))
    f.do("ret i32 0")
    return Rendered(module, context.arena)


def _render_kernels(context: Context, program: Program) -> list[_Step]:
    rendered: dict[Hashable, str] = {}
    steps: list[_Step] = []
    calls = 0
    for number, kernel in enumerate(program.kernels):
        name = f"kernel{number}.{re.sub(r'[^A-Za-z0-9_.]', '_', kernel.name)}"
        if isinstance(kernel, Call):
            buffers = list(kernel.accesses)
            context.begin(buffers)
            render_call(context, kernel, name, calls)
            calls += 1
            steps.append(_Step(name, buffers, True, []))
            continue
        key, buffers = kernel_key(kernel)
        if key not in rendered:
            rendered[key] = name
            context.begin(buffers)
            if isinstance(kernel, Gemm):
                render_gemm(context, kernel, name)
            else:
                render_loops(context, kernel, name)
        written = writes(kernel) if program.checks else ()
        checks = [(status, check.buffer) for status, check in enumerate(program.checks, 1) if check.buffer in written]
        steps.append(_Step(rendered[key], buffers, False, checks))
    return steps


def _write_tables(context: Context, steps: Sequence[_Step]) -> None:
    """The functions of the steps, where their buffers are, one after another, and where each step's begin."""
    places = [context.place(buffer) for step in steps for buffer in step.buffers]
    starts = list(itertools.accumulate((len(step.buffers) for step in steps), initial=0))
    for name, type_, items in (("functions", "ptr", [f"@{step.symbol}" for step in steps]),
                               ("places", "i64", places), ("starts", "i64", starts)):
        context.module.constant(name, f"[{len(items)} x {type_}] [{', '.join(f'{type_} {item}' for item in items)}]")


def _call(f: Function, result: str, fill: str, fields: str, table: str, number: str) -> str:
    """Call the function of a step, with its buffers in the table."""
    start, stop = (
        f.value(f"load i64, ptr {f.value(f'getelementptr i64, ptr @starts, i64 {i}')}")
        for i in (number, f.value(f"add i64 {number}, 1"))
    )
    places = f.value(f"getelementptr i64, ptr @places, i64 {start}")
    f.call("void", fill, ("ptr", fields), ("ptr", table), ("ptr", places), ("i64", f.value(f"sub i64 {stop}, {start}")))
    function = f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr @functions, i64 {number}')}")
    return f.call(result, function, ("ptr", table))


def _stop_if_not_zero(f: Function, status: str) -> None:
    failed, passed = f.label("failed"), f.label("passed")
    f.branch(f.value(f"icmp ne i32 {status}, 0"), failed, passed)
    f.enter(failed)
    f.do(f"ret i32 {status}")
    f.enter(passed)
