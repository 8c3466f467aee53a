"""What a loop asks memory for ahead of time, where the hardware does not see by itself what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import graphc.index as ix
from graphc.expression import Expr, walk
from graphc.kernel import Accumulate, Loop, Loops, Statement, Store
from graphc.op import OPS
from graphc.sizes import estimate
from graphc.types import Size

_SHORTEST_ROW = 1024
"""Bytes of a row whose fetching ahead pays."""
_DISTANCE = 3072
"""Bytes by which a loop that computes much fetches ahead."""
_MUCH = 5.0
"""Nanoseconds of an op, such as an elementary function, during which a processor does not get far enough ahead by itself."""
_MUCH_TO_STORE = 8.5
"""Of all ops of such a loop together, if it stores what it computes: then it waits for memory in any case."""
_LONG = 4 * _DISTANCE
"""Bytes that such a loop goes through at least."""
_FAR = 32_768
"""Bytes of a vector that a loop cannot read from the level-1 cache again, beside the rows of a matrix."""

Fetched = Mapping[Loop, list[tuple[Expr, Size]]]
"""For loops in lanes: loads, and by how many elements to go further."""


def what_to_fetch(kernel: Loops) -> Fetched:
    """What the loops of a kernel fetch."""
    fetched: dict[Loop, dict[Expr, Size]] = {}
    for loop, load, step in (*_next_rows(kernel), *_streams(kernel)):
        fetched.setdefault(loop, {}).setdefault(load, step)
    return {loop: list(steps.items()) for loop, steps in fetched.items()}


def _next_rows(kernel: Loops) -> Iterator[tuple[Loop, Expr, Size]]:
    """Rows of memory that several loops of a step go through, while the last one does: the row of the next step.

    Where a row is read once, hardware fetches ahead well enough; where it is read in several passes, nothing asks for memory
    during all passes but the first.
    """
    axes = [axis for axis in kernel.grid if axis.extent not in (0, 1)]
    passes: dict[tuple[object, Size], list[tuple[Loop, Expr]]] = {}
    for loop in kernel.body if axes else ():
        if not isinstance(loop, Loop) or loop.lanes < 2:
            continue
        known = {loop.axis, *kernel.grid}
        for load in _loads(loop.body):
            offset, step = load.args[0], ix.stride(load.args[0], axes[-1])
            if step is None or any(e.op == "axis" and e.attr not in known for e in offset.walk()):
                continue  # a loop within this one goes through the rows
            adjacent = step == loop.axis.extent and ix.stride(offset, loop.axis) == 1
            if adjacent and estimate(step) * load.dtype.itemsize >= _SHORTEST_ROW:
                passes.setdefault((load.attr, step), []).append((loop, load))
    for (_, step), found in passes.items():
        loop, load = found[-1]
        if len({one for one, _ in found}) > 1:
            yield loop, load, step


def _streams(kernel: Loops) -> Iterator[tuple[Loop, Expr, Size]]:
    """What long loops read that compute much of each number: while they do, few loads are on their way. And rows of matrices
    beside which long vectors are read again and again: few loads are left for memory."""
    for loop in kernel.statements():
        if not isinstance(loop, Loop) or loop.lanes < 2:
            continue
        values = [statement.value for statement in loop.body if isinstance(statement, Accumulate | Store)]
        if len(values) < len(loop.body):
            continue
        loads = [load for load in _loads(loop.body) if ix.stride(load.args[0], loop.axis) == 1]
        rows = [load for load in loads if any(e.op == "axis" and e.attr is not loop.axis for e in load.args[0].walk())]
        nanoseconds = [OPS[e.op].nanoseconds for e in walk(values) if e.op in OPS and e.dtype.is_floating_point]
        stores = any(isinstance(statement, Store) for statement in loop.body)
        if max(nanoseconds, default=0.0) >= _MUCH and (not stores or sum(nanoseconds) >= _MUCH_TO_STORE):
            fetched, least = loads, _LONG
        elif stores:
            continue
        else:
            fetched, least = rows if len(rows) < len(loads) else [], _FAR
        for load in fetched:
            size = load.dtype.itemsize
            if estimate(loop.axis.extent) * size >= least:
                yield loop, load, _DISTANCE // size


def _loads(body: tuple[Statement, ...]) -> list[Expr]:
    """The loads of statements from memory that others see, too, each once."""
    roots: list[Expr] = []
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        match statement:
            case Store():
                roots += filter(None, (statement.offset, statement.value, statement.mask))
            case Accumulate():
                roots.append(statement.value)
            case Loop():
                stack += reversed(statement.body)
    return [e for e in walk(roots) if e.op == "load" and e.attr.role != "local"]
