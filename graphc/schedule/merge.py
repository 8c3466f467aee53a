"""Run neighbouring kernels step by step together, so that what one writes is still in the cache when the next reads it.

A softmax is scheduled as a maximum, a sum of exponentials and a division, each over all rows; merged, the three are done
for one row and then for the next. What only the merged kernel needs is kept on the stack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise

import graphc.index as ix
import graphc.kernel as kernel
from graphc.kernel import Accumulate, Axis, Buffer, Expr, Kernel, Loop, Loops, Statement, Store, expressions
from graphc.memory import live_ranges
from graphc.schedule.statements import substitute_statements

_LOCAL_BYTES = 1 << 14
"""How much of the stack one buffer may take."""


def merge_kernels(
    kernels: Sequence[Kernel], temporaries: Sequence[Buffer], same_memory: Mapping[Buffer, Buffer]
) -> tuple[list[Kernel], list[Buffer]]:
    """Merge neighbours where each step reads and overwrites only what the same step has touched.

    `same_memory` maps a donated output to the input that it overwrites. Returns the kernels, and the temporaries that are
    left.
    """
    merged: list[Kernel] = []
    for current in kernels:
        last = merged[-1] if merged else None
        if isinstance(last, Loops) and isinstance(current, Loops) and (both := _merge(last, current, same_memory)):
            merged[-1] = both
        else:
            merged.append(current)
    return _make_local(merged, temporaries)


def _merge(first: Loops, second: Loops, same_memory: Mapping[Buffer, Buffer]) -> Loops | None:
    """The two as one kernel, or None where the steps depend on each other."""
    if not first.grid or [a.extent for a in first.grid] != [a.extent for a in second.grid]:
        return None
    axes = {b.value: a.value for a, b in zip(first.grid, second.grid)}
    body = substitute_statements(second.body, axes)
    second = Loops(second.name, first.grid, body, second.cost)
    early, late = _accesses(first, same_memory), _accesses(second, same_memory)
    for buffer in early.keys() & late.keys():
        touched = [*early[buffer], *late[buffer]]
        if any(writes for _, writes in touched) and not _apart([offset for offset, _ in touched], first.grid):
            return None
    return Loops(f"{first.name}.{second.name}", first.grid, (*first.body, *body), first.cost + second.cost)


def _accesses(loops: Loops, same_memory: Mapping[Buffer, Buffer]) -> dict[Buffer, list[tuple[Expr, bool]]]:
    """The offsets at which each buffer is read (False) and written (True)."""
    found: dict[Buffer, list[tuple[Expr, bool]]] = {}
    for statement in loops.statements():
        if isinstance(statement, Store):
            found.setdefault(same_memory.get(statement.buffer, statement.buffer), []).append((statement.offset, True))
    for root in expressions(loops):
        for e in root.walk():
            if e.op == "load":
                found.setdefault(same_memory.get(e.attr, e.attr), []).append((e.args[0], False))
    return found


def _apart(offsets: Sequence[Expr], grid: Sequence[Axis]) -> bool:
    """Whether different steps of the grid touch different parts of a buffer."""
    return _part(offsets, grid) is not None


def _part(offsets: Sequence[Expr], grid: Sequence[Axis]) -> int | None:
    """The size of the part of a buffer that each step has for itself; None where the parts are not apart."""
    wide = [a for a in grid if a.extent > 1]
    steps: list[int] | None = None
    for offset in offsets:
        own = [ix.stride(offset, axis) for axis in wide]
        if any(s is None or s <= 0 for s in own) or (steps is not None and own != steps):
            return None
        steps = [s for s in own if s is not None]
    if not steps:
        return None
    # nested like the digits of a number: each axis steps over all that the later ones reach
    order = sorted(zip(steps, wide), key=lambda pair: -pair[0])
    for (outer, _), (inner, axis) in pairwise(order):
        if outer < inner * axis.extent:
            return None
    size = order[-1][0]
    for offset in offsets:
        rest = ix.substitute(offset, {axis.value: ix.ZERO for axis in wide})
        low, high = ix.bounds(rest)
        if low < 0 or high >= size:
            return None
    return size


def _make_local(kernels: list[Kernel], temporaries: Sequence[Buffer]) -> tuple[list[Kernel], list[Buffer]]:
    """Put temporaries that live within the steps of one kernel on its stack."""
    ranges = live_ranges(kernels, temporaries)
    kept = [b for b in temporaries if b in ranges]
    for number, current in enumerate(kernels):
        if not isinstance(current, Loops) or not current.grid:
            continue
        accesses = _accesses(current, {})
        locals_: dict[Buffer, tuple[Buffer, int]] = {}
        for buffer in kept:
            if ranges[buffer] != (number, number) or buffer not in accesses:
                continue
            size = _part([offset for offset, _ in accesses[buffer]], current.grid)
            if size is not None and size * buffer.dtype.itemsize <= _LOCAL_BYTES:
                locals_[buffer] = (Buffer(buffer.name, buffer.dtype, size, "local"), size)
        if locals_:
            kept = [b for b in kept if b not in locals_]
            own = {b: local for b, (local, _) in locals_.items()}
            body = _relocate(current.body, own, {a.value: ix.ZERO for a in current.grid})
            kernels[number] = dataclasses.replace(current, body=body)
    return kernels, kept


def _relocate(
    body: Sequence[Statement], own: Mapping[Buffer, Buffer], start: Mapping[Expr, Expr]
) -> tuple[Statement, ...]:
    """Turn accesses of some buffers into accesses of local ones, whose offsets do not depend on the grid."""

    def move(root: Expr) -> Expr:
        done: dict[Expr, Expr] = {}
        for e in root.walk():
            args = tuple(done[a] for a in e.args)
            if e.op == "load" and e.attr in own:
                done[e] = kernel.load(own[e.attr], ix.substitute(args[0], start), *args[1:])
            else:
                done[e] = e if args == e.args else Expr(e.op, args, e.dtype, e.attr)
        return done[root]

    out: list[Statement] = []
    for s in body:
        match s:
            case Store():
                offset = ix.substitute(move(s.offset), start) if s.buffer in own else move(s.offset)
                out.append(Store(own.get(s.buffer, s.buffer), offset, move(s.value), s.mask and move(s.mask)))
            case Accumulate():
                out.append(Accumulate(s.accumulator, move(s.value)))
            case Loop():
                out.append(Loop(s.axis, _relocate(s.body, own, start), s.lanes, s.limit and move(s.limit)))
            case _:
                out.append(s)
    return tuple(out)
