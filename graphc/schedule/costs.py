"""What the code of a loop costs, and how many elements it takes at a time."""

from __future__ import annotations

from collections.abc import Iterable

import graphc.expression as ex
from graphc.expression import Axis, Expr
from graphc.op import OPS
from graphc.schedule.machine import Machine
from graphc.sizes import estimate
from graphc.types import int64

SUMS = 4
"""Registers of sums at a time: an addition waits for the one before it, into the same register."""
_RESULTS = 2
"""Registers of results at a time."""
_HEAVY = 5.0
"""Nanoseconds of an op that is a long chain of instructions, such as an elementary function."""
_HEAVY_RESULTS = 4
"""Registers of results of such ops at a time: a core sees few chains at once where they stand one after another in the code,
and overlaps more of them where they stand side by side. Sums of them take one: more have been no faster."""
_WASTE = 1.25
"""How many times as many of them may be computed as with one register at a time: the last ones are masked."""
_MOST = 40
"""Expressions of a loop: where there are more, each takes one register at a time, as there would be too few of them."""


def varying(values: Iterable[Expr], axis: Axis | None) -> dict[Expr, None]:
    """What is computed anew for each value of the axis, in order; everything if there is none."""
    found: dict[Expr, None] = {}
    for e in ex.walk(values):
        if axis is None or e is axis.value or e.op == "accumulator" or any(arg in found for arg in e.args):
            found[e] = None
    return found


def choose_lanes(values: Iterable[Expr], axis: Axis, machine: Machine, *, sums: bool = False) -> int:
    """How many elements to take at a time: as many registers as keep the arithmetic busy, no more than there are, if that is
    known. With `sums`, the values are summed up; if there are fewer than lanes a sum is the same for any number of these: the
    further ones add zeros."""
    seen = varying(values, axis)
    dtypes = (e.dtype.computes_in for e in seen if e.dtype is not int64 or e.op == "load")
    widest = max(dtypes, key=lambda d: d.itemsize, default=int64)
    is_heavy = any(_nanoseconds(e) >= _HEAVY for e in seen)
    registers = (1 if is_heavy else SUMS) if sums else (_HEAVY_RESULTS if is_heavy else _RESULTS)
    if len(seen) > _MOST:
        registers = 1
    one, lanes = machine.lanes(widest), machine.lanes(widest, registers)
    while lanes > 1 and isinstance(axis.extent, int) and lanes >= 2 * axis.extent:
        lanes //= 2
    size = estimate(axis.extent)
    while is_heavy and lanes > one and -(-size // lanes) * lanes > _WASTE * (-(-size // one) * one):
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
