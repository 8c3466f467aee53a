"""The code of a program's kernels, to read."""

from __future__ import annotations

from graphc.backends.llvm.jit import emit_assemblies
from graphc.backends.llvm.program import render
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.units import texts
from graphc.kernel_info import KernelCode, describe
from graphc.program import Program


def listing(program: Program, target: Target, assembly: bool) -> list[KernelCode]:
    """The kernels with their LLVM IR and, if wanted, their assembly. Kernels that are one function have the same."""
    rendered = render(program, target)
    code = texts(rendered.module, dict.fromkeys(rendered.symbols))
    assembled = dict.fromkeys(code, "")
    if assembly:
        assembled = dict(zip(code, emit_assemblies(list(code.values()), target, name=program.name), strict=True))
    return [
        KernelCode(info, code[symbol], assembled[symbol])
        for info, symbol in zip(describe(program), rendered.symbols, strict=True)
    ]
