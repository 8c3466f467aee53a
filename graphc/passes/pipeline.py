"""The passes by name, and running them one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from graphc.config import config, note
from graphc.fuel import current, limited
from graphc.ir import Graph, map_graphs
from graphc.passes.attention import attention, attention_of_halves
from graphc.passes.control import control
from graphc.passes.cse import cse
from graphc.passes.decompose import decompose
from graphc.passes.fold import fold
from graphc.passes.guard import guard
from graphc.passes.hoist import hoist
from graphc.passes.layout import layout
from graphc.passes.order import DEFAULT
from graphc.passes.prune import prune
from graphc.passes.reshape import reshape
from graphc.passes.simplify import simplify
from graphc.passes.transpose import transpose

PASSES: dict[str, Callable[[Graph], Graph]] = {
    "prune": prune,
    "simplify": simplify,
    "fold": fold,
    "control": control,
    "hoist": hoist,
    "cse": cse,
    "guard": guard,
    "attention": attention,
    "attention_of_halves": attention_of_halves,
    "decompose": decompose,
    "transpose": transpose,
    "reshape": reshape,
    "layout": layout,
}


def everywhere(change: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """Apply a pass to a graph, and to the graphs that its nodes run."""
    return map_graphs(change(graph), lambda inner: everywhere(change, inner))


def run(graph: Graph, names: Sequence[str] = DEFAULT, *, after: Callable[[str, Graph], None] | None = None) -> Graph:
    """Run passes in order. `after(name, graph)` sees the graph after each; `GRAPHC_DEBUG` prints times and graphs,
    `GRAPHC_VERIFY` verifies the graph after each, and `GRAPHC_FUEL` stops the rewriting."""
    if config.fuel >= 0 and current() is None:
        with limited(config.fuel):
            return run(graph, names, after=after)
    for name in names:
        start = time.perf_counter()
        graph = everywhere(PASSES[name], graph)
        note(1, f"graphc: {graph.name}: {name}: {len(graph.nodes)} nodes, {1e3 * (time.perf_counter() - start):.1f} ms")
        note(2, graph)
        if config.verify:
            from graphc.verify import verify

            verify(graph)
        if after is not None:
            after(name, graph)
    return graph
