"""What the code of a loop costs, and how many elements it takes at a time."""

from __future__ import annotations

from collections.abc import Iterable

import graphc.expression as ex
from graphc.expression import Axis, Expr
from graphc.op import OPS
from graphc.schedule.machine import Machine
from graphc.types import int64

_HEAVY = 5.0
"""Nanoseconds of an op that keeps the arithmetic busy with one register."""


def varying(values: Iterable[Expr], axis: Axis | None) -> dict[Expr, None]:
    """What is computed anew for each value of the axis, in order; everything if there is none."""
    found: dict[Expr, None] = {}
    for e in ex.walk(values):
        if axis is None or e is axis.value or e.op == "accumulator" or any(arg in found for arg in e.args):
            found[e] = None
    return found


def choose_lanes(values: Iterable[Expr], axis: Axis, machine: Machine, registers: int = 2) -> int:
    """How many elements to take at a time: as many registers as keep the arithmetic busy, no more than there are, if that is
    known. If there are fewer than lanes a sum is the same for any number of these: the further ones add zeros."""
    seen = varying(values, axis)
    dtypes = (e.dtype.computes_in for e in seen if e.dtype is not int64 or e.op == "load")
    widest = max(dtypes, key=lambda d: d.itemsize, default=int64)
    if len(seen) > 40 or any(_nanoseconds(e) >= _HEAVY for e in seen):
        registers = 1
    lanes = machine.lanes(widest, registers)
    while lanes > 1 and isinstance(axis.extent, int) and lanes >= 2 * axis.extent:
        lanes //= 2
    return lanes


def cost(values: Iterable[Expr], axis: Axis | None = None) -> float:
    """Nanoseconds that one vector of results along the axis takes, roughly."""
    return sum(map(_nanoseconds, varying(values, axis)))


def _nanoseconds(e: Expr) -> float:
    """What a vector of this expression takes, given its operands."""
    if e.op == "load":
        return 1.3
    return max(0.3, OPS[e.op].nanoseconds) if e.op in OPS else 0.3
