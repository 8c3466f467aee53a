"""From a graph to the text of its code: the passes, the schedule and all that writes code.

It takes time to load all that. A process that finds on disk what others have compiled never does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from graphc.backend import Layout
from graphc.backends.llvm.artifact import Artifact, Failure
from graphc.backends.llvm.jit import UnitKeys, unit_keys
from graphc.backends.llvm.panels import keep_panels
from graphc.backends.llvm.program import Rendered, render
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.units import Units, divide
from graphc.config import note
from graphc.ir import Graph
from graphc.kernel import Attention, AttentionBackward, Call, Control, Gemm, Kernel
from graphc.memory import share_outputs
from graphc.passes.pipeline import run as run_passes
from graphc.program import Program
from graphc.schedule import lower
from graphc.types import Size

_GEMM_SPEED = 16.0
"""Multiplications and additions in a nanosecond, of a slow core."""
_HOST_CALL = 10_000.0
"""Nanoseconds that an op takes which Python computes, at least."""
_STEPS = 1000
"""How often a loop runs that ends when its condition fails: nobody knows."""


def make_program(graph: Graph, layout: Layout, passes: Sequence[str], target: Target) -> Program:
    """The kernels of a graph."""
    graph = run_passes(graph, passes)
    start = time.perf_counter()
    program = lower(graph, target.scheduled(layout.numerics), strides=layout.strides, donated=dict(layout.donated),
                    steady=layout.steady)
    program = keep_panels(program, target)
    share_outputs(program, dict(layout.donated))
    note(1, f"graphc: {graph.name}: {len(program.kernels)} kernels in {1e3 * (time.perf_counter() - start):.1f} ms")
    note(3, program)
    return program


def make_units(program: Program, target: Target) -> tuple[Artifact, Units]:
    """The code of kernels, as text in units, and what there is to keep of them beside it."""
    rendered = render(program, target)
    units = divide(rendered.module)
    return _artifact(program, rendered, unit_keys(units, target)), units


def _artifact(program: Program, rendered: Rendered, units: UnitKeys) -> Artifact:
    """What there is to keep of a program."""
    once = program.once()
    return Artifact(
        program.name, units,
        arena=rendered.arena if isinstance(rendered.arena, int) else 0,
        symbols=None if program.facts is None else program.symbols,
        facts={} if program.facts is None else dict(program.facts.at_least_zero),
        words=rendered.sizes,
        prepared=program.prepared,
        prepared_from=tuple(i for i, buffer in enumerate(program.inputs) if buffer in once),
        constants=tuple(np.ascontiguousarray(buffer.data) for buffer in program.constants),
        calls=tuple(program.calls()),
        failures=tuple(Failure(check.problem, check.expected, check.at) for check in program.checks),
        cost=_cost(program),
    )  # fmt: skip


def _cost(program: Program) -> tuple[tuple[Size, float], ...]:
    total: dict[Size, float] = {}
    for kernel in program.kernels:
        for size, nanoseconds in _kernel_cost(kernel):
            if isinstance(size, int):
                size, nanoseconds = 1, size * nanoseconds
            total[size] = total.get(size, 0.0) + nanoseconds
    return tuple(total.items())


def _kernel_cost(kernel: Kernel) -> Iterator[tuple[Size, float]]:
    if isinstance(kernel, Gemm):
        yield math.prod(a.extent for a in (*kernel.batch, *kernel.m, *kernel.n, *kernel.k)), 1 / _GEMM_SPEED
    elif isinstance(kernel, (Attention, AttentionBackward)):
        yield kernel.products, 1 / _GEMM_SPEED
    elif isinstance(kernel, Call):
        yield 1, _HOST_CALL
    elif isinstance(kernel, Control):
        steps = kernel.attrs.get("length", _STEPS)
        for inner in kernel.programs.values():
            yield from ((steps * size, nanoseconds) for size, nanoseconds in _cost(inner))
    else:
        yield math.prod(axis.extent for axis in kernel.grid), kernel.cost
