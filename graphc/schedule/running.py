"""Kernels for what is made of all elements up to each place along a dimension, such as their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Accumulator, Axis, Expr
from graphc.ir import Node, Value
from graphc.kernel import Accumulate, Loop, Loops, Reset, Statement, Store
from graphc.ops.cumulative import accumulated_in
from graphc.schedule.costs import SUMS, choose_lanes, cost
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.layout import memory_order
from graphc.schedule.loops import reduction_of
from graphc.schedule.machine import Machine
from graphc.schedule.statements import cut_loop
from graphc.sizes import estimate


def running_kernel(
    name: str, node: Node, values: Sequence[Value], memory: Mapping[Value, Stored], targets: Mapping[Value, Stored],
    machine: Machine,
) -> Loops:
    """Go along the dimension one by one, and store what there is so far, or `values` that are computed of it element by
    element: for one row, or for neighbouring columns in lanes."""
    result = node.result
    axes = [Axis(f"i{k}", size) for k, size in enumerate(result.shape)]
    along = axes[node.attrs["axis"]]
    at = tuple(ix.ZERO if a.extent == 1 else a.value for a in axes)
    accumulator, value = _taken_in(node, [Elements(memory).at(v, at) for v in node.operands])
    so_far = ex.cast(accumulator.value, result.dtype)
    elements = Elements(memory, {result: lambda _: so_far})
    stores = [Store(targets[v].buffer, targets[v].place(at), elements.at(v, at)) for v in values]
    body: tuple[Statement, ...] = (Reset(accumulator), Loop(along, (Accumulate(accumulator, value), *stores)))
    grid = [axes[k] for k in memory_order(targets[values[0]].strides) if axes[k] is not along]
    computed = [value, *(store.value for store in stores)]
    nanoseconds = estimate(along.extent) * (1 + cost(computed))
    if not grid or machine.threads or ix.stride(stores[0].offset, grid[-1]) != 1:
        return Loops(name, tuple(grid), body, cost=nanoseconds, work=along.extent)
    lanes = choose_lanes(computed, grid[-1], machine, sums=True)
    step, columns = cut_loop(grid[-1], max(lanes, 1), body, lanes)
    return Loops(name, (*grid[:-1], step), (columns,), cost=nanoseconds * SUMS, work=along.extent)


def _taken_in(node: Node, elements: Sequence[Expr]) -> tuple[Accumulator, Expr]:
    """What goes along the dimension, and what it takes in of the operands' elements at a place."""
    record, dtype = node.op, node.result.dtype
    if record.step is None:
        reduction = reduction_of(node)
        wide = accumulated_in(dtype) if reduction == "sum" else dtype.computes_in
        return Accumulator("acc", reduction, wide), ex.cast(elements[0], wide)
    accumulator = Accumulator("acc", "last", accumulated_in(dtype), record.initial)
    return accumulator, record.step(accumulator.value, *(ex.cast(e, accumulator.dtype) for e in elements))
