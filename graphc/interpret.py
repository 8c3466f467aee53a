"""Running a graph node by node with each op's NumPy definition: slow, obvious, and the oracle for everything else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.bind import bind_attributes, bind_sizes, check_inputs
from graphc.ir import Graph, Value


def interpret(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of the graph for the given inputs."""
    known = evaluate(graph, arrays)
    return [known[value] for value in graph.outputs]


def evaluate(graph: Graph, arrays: Sequence[np.ndarray]) -> dict[Value, np.ndarray]:
    """All values of the graph for the given inputs."""
    arrays = [np.asarray(array) for array in arrays]
    check_inputs(graph, arrays)
    sizes = bind_sizes(graph, [array.shape for array in arrays])
    known: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays))
    with np.errstate(all="ignore"):  # infinities and NaNs are results like others
        for node in graph.nodes:
            results = node.op.ref(*(known[v] for v in node.operands), **bind_attributes(node.attrs, sizes))
            for value, array in zip(node.results, results if isinstance(results, tuple) else (results,)):
                known[value] = np.asarray(array)
    return known
