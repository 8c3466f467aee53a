"""Groups of axes, counted as one: the rows, columns and steps of a matrix product may each have several axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from graphc import index
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.integers import Integers
from graphc.expression import Axis, Expr
from graphc.types import Size, int64

Axes = tuple[Axis, ...]


def extent(axes: Sequence[Axis]) -> Size:
    """How many positions a group has; the last axis runs fastest."""
    return math.prod(axis.extent for axis in axes)


def collapse(axes: Axes, roots: Sequence[Expr]) -> tuple[Axes, tuple[Expr, ...]]:
    """As few axes as the expressions can do with, which run over the same positions, and the expressions over those.

    Axes of extent 1 are left out, and two neighbours become one axis where every index grows evenly across them, as
    those of the rows and columns of a contiguous matrix do.
    """
    out: list[Axis] = []
    for axis in axes:
        if axis.extent == 1:
            roots = [index.substitute(root, {axis.value: index.ZERO}) for root in roots]
            continue
        if out and _runs_on(out[-1], axis, roots):
            outer = out.pop()
            merged = Axis(f"{outer.name}.{axis.name}", outer.extent * axis.extent)
            values = {outer.value: index.ZERO, axis.value: merged.value}
            roots = [index.substitute(root, values) for root in roots]
            axis = merged
        out.append(axis)
    return tuple(out), tuple(roots)


def _runs_on(outer: Axis, inner: Axis, roots: Sequence[Expr]) -> bool:
    for position in _indices(roots):
        atoms, _ = index.terms(position)
        if atoms.get(outer.value, 0) != atoms.get(inner.value, 0) * inner.extent:
            return False
    return True


def _indices(roots: Sequence[Expr]) -> Iterator[Expr]:
    """The sums of multiples in the expressions that are not parts of greater ones."""
    yield from (root for root in roots if root.dtype is int64)
    for root in roots:
        for e in root.walk():
            if e.dtype is int64 and (e.op == "add" or (e.op == "mul" and e.args[1].op in ("constant", "size"))):
                continue
            yield from (arg for arg in e.args if arg.dtype is int64)


def ordered(expr: Expr, axes: Sequence[Axis]) -> Expr:
    """The expression with the terms of every index in the order of the axes, those of outer loops first: what is the same
    throughout an inner loop is then a part that can be computed outside of it."""
    rank = {axis: number for number, axis in enumerate(axes)}

    def innermost(atom: Expr) -> int:
        return max((rank.get(e.attr, -1) for e in atom.walk() if e.op == "axis"), default=-1)

    done: dict[Expr, Expr] = {}
    for e in expr.walk():
        rebuilt = Expr(e.op, tuple(done[arg] for arg in e.args), e.dtype, e.attr) if e.args else e
        if e.dtype is int64 and e.op == "add":
            atoms, offset = index.terms(rebuilt)
            rebuilt = index.from_terms(dict(sorted(atoms.items(), key=lambda term: innermost(term[0]))), offset)
        done[e] = rebuilt
    return done[expr]


def locate(f: Function, axes: Sequence[Axis], position: str) -> list[str]:
    """The values of a group's axes at a position, which must be inside the group."""
    integers = Integers(f)
    values: list[str] = []
    for axis in reversed(axes[1:]):
        values.append(integers.remainder(position, axis.extent))
        position = integers.divide(position, axis.extent)
    return [*([position] if axes else []), *reversed(values)]
