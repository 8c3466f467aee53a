"""What is computed once: all that depends on steady inputs alone, such as the weights of a model that is only run.

The kernels that compute it are taken out of the program. What they write is kept in memory that outlives calls, and they run
again when a steady input has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from graphc.expression import Axis, Buffer, walk
from graphc.ir import Graph, Node, Value
from graphc.kernel import Gemm, Kernel, Loop, Loops, Statement, expressions, reads, writes
from graphc.memory import ALIGNMENT
from graphc.sizes import is_static

_SMALL = 1 << 14
"""Elements of a value that is kept whatever it takes to compute: reading it costs no time to speak of."""
_CHEAP = 1.0
"""Nanoseconds an element of an op on a large value that is sooner done at each call than kept and read."""


def steady_values(graph: Graph, inputs: Collection[int]) -> set[Value]:
    """The values that depend on these inputs, by their numbers, and on constants alone."""
    steady = {graph.inputs[i] for i in inputs}
    constants: set[Value] = set()
    for node in graph.nodes:
        if not node.operands:
            if node.op.name == "constant":
                constants.update(node.results)
        elif _can_wait(node) and all(v in steady or v in constants for v in node.operands):
            (steady if any(v in steady for v in node.operands) else constants).update(node.results)
    return steady


def _can_wait(node: Node) -> bool:
    """Whether a node computes the same whenever it runs, by code."""
    types = [v.type for v in (*node.operands, *node.results)]
    return node.op.kernel not in ("host", "control") and all(t.is_static and t.dtype.has_code for t in types)


def kept_values(graph: Graph, steady: Collection[Value]) -> set[Value]:
    """Those steady values which others are computed from that are better kept than computed with these."""
    kept: set[Value] = set()
    for node in graph.nodes:
        if any(v in steady for v in node.results):
            continue
        for value in node.operands:
            made = value.node
            if value in steady and made is not None and not (made.op.only_moves and not made.op.pointwise):
                costs = made.op.nanoseconds > _CHEAP and node.op.kernel != "contract"  # packing sees to that
                if made.op.is_anchor or costs or value.type.size <= _SMALL:
                    kept.add(value)
    return kept


@dataclass(frozen=True)
class Division:
    """A program's kernels in two parts."""

    once: Sequence[Kernel]
    always: Sequence[Kernel]
    kept: Sequence[Buffer]
    """What the first part writes and the second one reads."""


def divide(kernels: Sequence[Kernel], steady: Collection[Buffer], checked: Collection[Buffer]) -> Division:
    """Take out the kernels that depend on steady inputs, constants and numbers alone, and write to temporaries, none that is
    `checked` at each run."""
    if not steady:
        return Division([], list(kernels), [])
    written: dict[Buffer, int] = {}
    for kernel in kernels:
        for buffer in _written(kernel):
            written[buffer] = written.get(buffer, 0) + 1
    once = [kernel for kernel in kernels if isinstance(kernel, (Loops, Gemm)) and _has_numbers(kernel)]
    while True:
        # what all writers of are taken out; one that needs what remains, or shares its result with it, remains as well
        left = dict(written)
        for kernel in once:
            for buffer in _written(kernel):
                left[buffer] -= 1
        fitting = [
            kernel for kernel in once
            if all(b in steady or b.role in ("constant", "local") or left.get(b) == 0 for b in reads(kernel))
            and all(b.role == "temporary" and left[b] == 0 and b not in checked for b in _written(kernel))
        ]  # fmt: skip
        if len(fitting) == len(once):
            break
        once = fitting
    taken = set(map(id, once))
    always = [kernel for kernel in kernels if id(kernel) not in taken]
    made = {buffer: None for kernel in once for buffer in sorted(_written(kernel), key=lambda b: b.name)}
    read = {buffer for kernel in always for buffer in reads(kernel)}
    return Division(once, always, [buffer for buffer in made if buffer in read])


def keep(buffers: Sequence[Buffer], start: int = 0) -> int:
    """Give buffers a place in memory that outlives calls, from a byte on; returns the byte behind the last."""
    for buffer in buffers:
        assert isinstance(buffer.nbytes, int)
        buffer.role = "prepared"
        buffer.offset = start
        start += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    return start


def _written(kernel: Kernel) -> set[Buffer]:
    return {buffer for buffer in writes(kernel) if buffer.role != "local"}


def _has_numbers(kernel: Loops | Gemm) -> bool:
    """Whether no size is a symbol."""
    axes = [*kernel.grid] if isinstance(kernel, Loops) else [*kernel.batch, *kernel.m, *kernel.n, *kernel.k]
    axes += _axes(kernel.body if isinstance(kernel, Loops) else kernel.epilogue)
    sizes = [axis.extent for axis in axes] + [buffer.size for buffer in kernel.accesses]
    return is_static(*sizes) and all(e.op != "size" for e in walk(expressions(kernel)))


def _axes(body: Sequence[Statement]) -> Iterator[Axis]:
    for statement in body:
        if isinstance(statement, Loop):
            yield statement.axis
            yield from _axes(statement.body)
