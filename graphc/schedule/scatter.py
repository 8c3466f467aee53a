"""Kernels that add or write at places that are data: a copy of the base, and additions in the order of the source."""

from __future__ import annotations

from collections.abc import Mapping

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Expr
from graphc.ir import Node, Value
from graphc.kernel import Kernel, Loop, Loops, Statement, Store
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.machine import Machine
from graphc.schedule.statements import cut_loop
from graphc.schedule.threads import divided_scatter
from graphc.sizes import estimate
from graphc.types import int64

_VECTORS = 4
"""How many vectors of each row a step of the grid adds."""
_COLUMNS = 32
"""How many columns a step of the grid goes along where each has places of its own."""


def scatter_kernel(name: str, node: Node, memory: Mapping[Value, Stored], target: Stored, machine: Machine) -> Kernel:
    """Add `src` into `target`, which holds a copy of the base, or do by it what the op's `step` says. Places out of bounds are
    left out.

    The dimensions beside the scattered one are independent of each other; along it, additions run one after another, so
    that the result does not depend on the number of threads.
    """
    base, index_value, src = node.operands
    axis: int = node.attrs["axis"]
    axes = [Axis(f"i{k}", size) for k, size in enumerate(src.shape)]
    at = tuple(ix.ZERO if a.extent == 1 else a.value for a in axes)
    elements = Elements(memory)
    place = ex.cast(elements.at(index_value, at), int64)
    inside = (place >= 0) & (place < base.shape[axis])
    offset = target.place((*at[:axis], place, *at[axis + 1 :]))
    assert node.op.step is not None
    value = node.op.step(ex.load(target.buffer, offset, inside), elements.at(src, at))
    store = Store(target.buffer, offset, value, inside)
    inner = axes[axis + 1 :]
    grid = tuple(a for k, a in enumerate(axes) if k != axis)
    if machine.threads:
        return divided_scatter(name, grid, axes[axis], place, base.shape[axis], store)
    if inner and not _depends(place, inner[-1]):
        return _by_rows(name, axes, axis, store, machine)
    if inner and target.strides[-1] == 1:
        return _by_columns(name, axes, axis, store)
    loop: Statement = Loop(axes[axis], (store,))
    return Loops(name, grid, (loop,), cost=estimate(axes[axis].extent) * cost([store.value]),
                 work=axes[axis].extent)


def _by_rows(name: str, axes: list[Axis], axis: int, store: Store, machine: Machine) -> Kernel:
    """Whole rows are added, each to one place, as gradients of an embedding are: a step of the grid adds a part of each row."""
    lane_axis = axes[-1]
    lanes = choose_lanes([store.value], lane_axis, machine)
    outer = [a for a in axes[:-1] if a is not axes[axis]]
    width = max(lanes, 1) * _VECTORS
    step, row = cut_loop(lane_axis, width, (store,), lanes)
    body = Loop(axes[axis], (row,))
    nanoseconds = estimate(axes[axis].extent) * _VECTORS * cost([store.value], lane_axis)
    return Loops(name, (*outer, step), (body,), cost=nanoseconds, work=axes[axis].extent)


def _by_columns(name: str, axes: list[Axis], axis: int, store: Store) -> Kernel:
    """Each column has places of its own: a step of the grid goes along few neighbouring ones, in which their part of the result
    stays in a cache, and a line of memory holds several of them."""
    step, columns = cut_loop(axes[-1], _COLUMNS, (store,), 0)
    outer = [a for a in axes[:-1] if a is not axes[axis]]
    work = axes[axis].extent * _COLUMNS
    return Loops(name, (*outer, step), (Loop(axes[axis], (columns,)),), cost=estimate(work) * cost([store.value]), work=work)


def _depends(expr: Expr, axis: Axis) -> bool:
    return any(e.op == "axis" and e.attr is axis for e in expr.walk())
