"""Finding the first rewrite that makes a graph compute something else.

A compilation is repeated with `GRAPHC_FUEL` set to other numbers of rewrites, by bisection: some twelve times for a graph of
thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from graphc.bind import bind_graph, bind_sizes
from graphc.compiler import clear_cache
from graphc.config import override
from graphc.differential import Failure, check
from graphc.fuel import Rewrite, limited
from graphc.ir import Graph
from graphc.passes import pipeline


@dataclass(frozen=True)
class Culprit:
    """What makes a graph fail."""

    failure: Failure
    rewrite: Rewrite | None
    """The first rewrite with which it fails; None if it fails without any: then it is the back end, or a pass that has to
    run."""
    rewrites: int
    """How many there are in all."""

    def __str__(self) -> str:
        if self.rewrite is None:
            return f"{self.failure}\nit fails without any of the {self.rewrites} rewrites: look at the back end"
        return f"{self.failure}\nthe first of {self.rewrites} rewrites with which it fails is {self.rewrite}"


def bisect(graph: Graph, arrays: Sequence[np.ndarray], *, backend: str | None = None) -> Culprit | None:
    """The first rewrite with which the compiled graph fails on these inputs, as `check` of `graphc.differential` sees it; None
    if it does not fail."""
    graph = bind_graph(graph, bind_sizes(graph, [np.shape(array) for array in arrays]))

    def failure(fuel: int) -> Failure | None:
        with override(fuel=fuel):
            clear_cache()
            return check(graph, arrays, backend=backend)

    found = failure(-1)
    if found is None:
        return None
    total = _count(graph)
    # with `good` rewrites it works, with `bad` it fails
    good, bad = -1, total
    while bad - good > 1:
        middle = (good + bad) // 2
        now = failure(middle)
        if now is None:
            good = middle
        else:
            bad, found = middle, now
    return Culprit(found, _rewrite(graph, bad) if bad else None, total)


def _count(graph: Graph) -> int:
    """How many rewrites the passes do."""
    with limited(-1) as fuel:
        _try_passes(graph)
    return fuel.spent


def _rewrite(graph: Graph, number: int) -> Rewrite | None:
    with limited(number) as fuel:
        _try_passes(graph)
    return fuel.last


def _try_passes(graph: Graph) -> None:
    with suppress(Exception):  # the rewrite that is looked for may be what raises: it has been counted
        pipeline.run(graph)
