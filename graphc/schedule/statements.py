"""Statements with other leaves in their expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import graphc.index as ix
from graphc.kernel import Accumulate, Expr, Loop, Statement, Store


def substitute_statements(body: Sequence[Statement], values: Mapping[Expr, Expr]) -> tuple[Statement, ...]:
    """Replace leaves in statements."""
    return tuple(_substitute(body, values, {}))


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
