"""Kernels for scatter_add: a copy of the base, and additions in the order of the source."""

from __future__ import annotations

from collections.abc import Mapping

import graphc.index as ix
import graphc.kernel as kernel
from graphc.ir import Node, Value
from graphc.kernel import Axis, Kernel, Loop, Loops, Statement, Store
from graphc.schedule.costs import cost
from graphc.schedule.elements import Elements, Stored
from graphc.sizes import estimate
from graphc.types import int64


def scatter_kernel(name: str, node: Node, memory: Mapping[Value, Stored], target: Stored) -> Kernel:
    """Add `src` into `target`, which holds a copy of the base. Places out of bounds are left out.

    The dimensions beside the scattered one are independent of each other; along it, additions run one after another, so
    that the result does not depend on the number of threads.
    """
    base, index_value, src = node.operands
    axis: int = node.attrs["axis"]
    axes = [Axis(f"i{k}", size) for k, size in enumerate(src.shape)]
    at = tuple(ix.ZERO if a.extent == 1 else a.value for a in axes)
    elements = Elements(memory)
    place = kernel.cast(elements.at(index_value, at), int64)
    inside = (place >= 0) & (place < base.shape[axis])
    offset = target.place((*at[:axis], place, *at[axis + 1 :]))
    store = Store(target.buffer, offset, kernel.load(target.buffer, offset, inside) + elements.at(src, at), inside)
    loop: Statement = Loop(axes[axis], (store,))
    grid = tuple(a for k, a in enumerate(axes) if k != axis)
    return Loops(name, grid, (loop,), cost=estimate(axes[axis].extent) * cost([store.value]),
                 work=axes[axis].extent)
