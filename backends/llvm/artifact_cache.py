"""Artifacts on disk: a graph that some process has compiled is loaded by others, without passes, schedule and rendering.

An entry is found by all that decides what is made of a graph. It is kept where the object code is, and under the same
conditions: whatever is wrong with it, the graph is compiled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.backend import Layout
from graphc.backends.llvm.artifact import Artifact
from graphc.backends.llvm.artifact_file import Unwritable, read_artifact, write_artifact
from graphc.backends.llvm.codegen import GENERATOR
from graphc.backends.llvm.target import Target
from graphc.config import config
from graphc.disk_cache import DiskCache, cache_key
from graphc.fuel import current
from graphc.graph_key import Unspelled, graph_key, spelled
from graphc.ir import Graph
from graphc.sizes import current_facts
from graphc.sources import sources_key
from graphc.types import get_default_dtype

_MOST_CONSTANTS = 1 << 26
"""Bytes of constants of what is kept: more would fill the cache with them."""


def artifact_key(graph: Graph, layout: Layout, passes: Sequence[str], target: Target) -> str | None:
    """By what the artifact of a graph is found; None if there can be none: where ops are the user's own, which may be others
    tomorrow, and where somebody watches the compilation."""
    if DiskCache.configured().directory is None or config.debug >= 2 or config.verify or config.fuel >= 0 or current():
        return None
    sources = sources_key(os.path.dirname(__file__))
    if sources is None or any(node.op not in ops.PRIMITIVES for node in graph.walk()):
        return None
    facts = current_facts()
    example = () if facts is None else tuple(sorted(facts.example.items()))
    try:
        return cache_key(
            "artifact", sources, GENERATOR, sys.version, np.__version__,
            target.key, " ".join(sorted(target.enabled)), f"{target.l1_bytes} {target.l2_bytes}",
            get_default_dtype().name, " ".join(passes), graph_key(graph),
            spelled((layout.strides, layout.donated, layout.steady)), layout.numerics, spelled((facts is None, example)),
        )  # fmt: skip
    except Unspelled:
        return None


def kept_artifact(key: str, graph: Graph) -> Artifact | None:
    """What is kept under a key of this graph."""
    data = DiskCache.configured().get(key)
    return None if data is None else read_artifact(data, graph)


def keep_artifact(key: str, made: Artifact, graph: Graph) -> None:
    """Keep what has been made of a graph, if it can be written."""
    if sum(constant.nbytes for constant in made.constants) > _MOST_CONSTANTS:
        return
    try:
        data = write_artifact(made, graph)
    except Unwritable:
        return
    DiskCache.configured().put(key, data)
