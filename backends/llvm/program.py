"""A whole program as one native function.

    i32 run(ptr inputs, ptr outputs, ptr constants, ptr arena)

The first three are arrays of base addresses, in the program's order; `arena` points to memory for the temporaries. It
runs the kernels one after another and returns 0; or, where a check of the program fails, its number counted from 1; or
`host.FAILED`. Of symbols from outside it needs `parallel_for`, whose address is `runtime.parallel_for_address()`, and
`host_call`, which `host` tells of. How kernels are rendered is told in `context`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass

from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.context import Context
from graphc.backends.llvm.gemm import render_gemm
from graphc.backends.llvm.host import render_call
from graphc.backends.llvm.loops import render_loops
from graphc.backends.llvm.target import Target
from graphc.kernel import Call, Gemm, Program, writes
from graphc.kernel_key import kernel_key

ENTRY = "run"
"""The name of the function in the module."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The module of a program, and how many bytes its arena must have, aligned to 64."""

    module: Module
    arena: int


def render(program: Program, target: Target) -> Rendered:
    """Render a program for a target. The text is the same each time, so that its object code can be kept. Kernels that do
    the same with other buffers are one function."""
    module = Module(program.name, target.has_fma, target.vector_bytes)
    context = Context(module, target, program)
    f = module.function(ENTRY, [("ptr", name) for name in ("inputs", "outputs", "constants", "arena")], "i32")
    table = context.table(f, max((len(kernel.accesses) for kernel in program.kernels), default=0))
    rendered: dict[Hashable, str] = {}
    called = 0
    for number, kernel in enumerate(program.kernels):
        name = f"kernel{number}.{re.sub(r'[^A-Za-z0-9_.]', '_', kernel.name)}"
        if isinstance(kernel, Call):
            buffers = list(kernel.accesses)
            context.begin(buffers)
            render_call(context, kernel, name, called)
            called += 1
            context.fill(f, table, buffers)
            _stop_if_not_zero(f, f.call("i32", f"@{name}", ("ptr", table)))
            continue
        key, buffers = kernel_key(kernel)
        if key not in rendered:
            rendered[key] = name
            context.begin(buffers)
            if isinstance(kernel, Gemm):
                render_gemm(context, kernel, name)
            else:
                render_loops(context, kernel, name)
        context.fill(f, table, buffers)
        f.call("void", f"@{rendered[key]}", ("ptr", table))
        for status, check in enumerate(program.checks, 1):
            if check.buffer in writes(kernel):
                place = f.value(f"getelementptr i8, ptr %arena, i64 {check.buffer.offset}")
                wrong = f.value(f"icmp ne i8 {f.value(f'load i8, ptr {place}')}, 0")
                _stop_if_not_zero(f, f.value(f"select i1 {wrong}, i32 {status}, i32 0"))
    f.do("ret i32 0")
    return Rendered(module, context.arena)


def _stop_if_not_zero(f: Function, status: str) -> None:
    failed, passed = f.label("failed"), f.label("passed")
    f.branch(f.value(f"icmp ne i32 {status}, 0"), failed, passed)
    f.enter(failed)
    f.do(f"ret i32 {status}")
    f.enter(passed)
