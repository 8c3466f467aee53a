"""Statements with other leaves in their expressions, and loops cut into steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import graphc.index as ix
from graphc.expression import Axis, Expr
from graphc.kernel import Accumulate, Loop, Statement, Store
from graphc.sizes import ceil_div
from graphc.types import Size, int64


def substitute_statements(body: Sequence[Statement], values: Mapping[Expr, Expr]) -> tuple[Statement, ...]:
    """Replace leaves in statements."""
    return tuple(_substitute(body, values, {}))


def cut_loop(axis: Axis, size: Size, body: Sequence[Statement], lanes: int) -> tuple[Axis, Loop]:
    """A loop along an axis in steps of `size`: the axis of the steps, and the loop that is one of them."""
    step, within = Axis(f"{axis.name}.block", ceil_div(axis.extent, size)), Axis(axis.name, size)
    whole = {axis.value: ix.plus(ix.times(step.value, size), within.value)}
    return step, Loop(within, substitute_statements(body, whole), lanes, last_limit(axis.extent, step, size))


def last_limit(extent: Size, step: Axis, size: Size) -> Expr | None:
    """Where a loop of `size` stops, which is earlier in the last of the steps that go through an extent; None where all of them
    are whole."""
    if step.extent * size == extent:
        return None
    if step.extent == 1:  # which has all of it
        return ix.number(extent)
    left = ix.plus(ix.times(step.value, -size), extent)
    return Expr("minimum", (left, ix.number(size)), int64)


def with_loads(root: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """An expression with other values in the place of loads, which are taken as they stand: their offsets stay."""
    done: dict[Expr, Expr] = {}
    for e in root.walk():
        args = tuple(done[a] for a in e.args)
        done[e] = values.get(e) or (e if args == e.args else Expr(e.op, args, e.dtype, e.attr))
    return done[root]


def _substitute(
    body: Sequence[Statement], values: Mapping[Expr, Expr], done: dict[Expr, Expr]
) -> Iterator[Statement]:
    for s in body:
        match s:
            case Store():
                offset, value = ix.substitute(s.offset, values, done), ix.substitute(s.value, values, done)
                yield Store(s.buffer, offset, value, s.mask and ix.substitute(s.mask, values, done))
            case Accumulate():
                yield Accumulate(s.accumulator, ix.substitute(s.value, values, done))
            case Loop():
                inner = tuple(_substitute(s.body, values, done))
                yield Loop(s.axis, inner, s.lanes, s.limit and ix.substitute(s.limit, values, done))
            case _:
                yield s
