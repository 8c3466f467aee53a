"""What is left of a program once its kernels are object code: all that it takes to load and to run it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm.jit import UnitKeys
from graphc.backends.llvm.program import Rendered
from graphc.dims import Dim
from graphc.errors import Location
from graphc.kernel import Attention, AttentionBackward, Call, Control, Gemm, Kernel
from graphc.program import Program
from graphc.sizes import estimate
from graphc.types import Size

_GEMM_SPEED = 16.0
"""Multiplications and additions in a nanosecond, of a slow core."""
_HOST_CALL = 10_000.0
"""Nanoseconds that an op takes which Python computes, at least."""
_STEPS = 1000
"""How often a loop runs that ends when its condition fails: nobody knows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a check of the program says where it fails."""

    problem: str
    expected: str
    at: Location | None


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A compiled program without its kernels."""

    name: str
    units: UnitKeys
    """Its object code."""
    arena: int
    """How many bytes it works in; 0 where that depends on symbols."""
    symbols: tuple[str, ...] | None
    """Those that sizes are made of, in the order of the table of sizes; None where all sizes are numbers."""
    facts: Mapping[Dim, bool]
    """What is taken for granted of the symbols: whether sizes are >= 0."""
    words: int
    """How many words the table of sizes has."""
    prepared: int
    """How many bytes what is computed once takes."""
    prepared_from: tuple[int, ...]
    """The numbers of the inputs that this depends on."""
    constants: tuple[np.ndarray, ...]
    calls: tuple[Call, ...]
    """What is left to Python."""
    failures: tuple[Failure, ...]
    """By the number of the check that fails, counted from 0."""
    cost: tuple[tuple[Size, float], ...]
    """Sizes, and how many nanoseconds one thread takes for each unit of these, roughly."""

    def nanoseconds(self) -> float:
        """How long one thread takes for a run, roughly; of symbols, those of the facts that are relied on count."""
        return sum(estimate(size) * nanoseconds for size, nanoseconds in self.cost)


def artifact(program: Program, rendered: Rendered, units: UnitKeys) -> Artifact:
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
