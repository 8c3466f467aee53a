"""The reference back end: each op by its NumPy definition, one after another. Slow, and right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.backend import Layout
from graphc.dims import Dim
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.passes import pipeline
from graphc.passes.order import DEFAULT
from graphc.sizes import NumberNeeded
from graphc.specs import CallSpec, EagerSpec, EntrySpec, RecordedSpec, RuleSpec, SubscriptSpec, TensorClass, ViewSpec


class ReferenceExecutable:
    """A graph that is interpreted."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inputs = tuple(v.type for v in graph.inputs)
        self.outputs = tuple(v.type for v in graph.outputs)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Interpret, then copy the results to where they belong: a donated output may be an input's memory."""
        results = [
            np.array(result) if any(np.may_share_memory(result, array) for array in inputs) else result
            for result in interpret(self.graph, inputs)
        ]
        for target, result in zip(outputs, results):
            np.copyto(target, result)

    @property
    def preparation(self) -> None:
        """None: the graph is interpreted anew each time."""

    def at(self, sizes: Mapping[str, int]) -> ReferenceExecutable:
        """There are no symbols."""
        del sizes
        return self

    def entry(self, spec: EntrySpec) -> None:
        """Everything goes by way of Python."""
        del spec


class ReferenceBackend:
    """Needs nothing but NumPy."""

    name = "reference"

    def compile(self, graph: Graph, layout: Layout, passes: Sequence[str] = DEFAULT) -> ReferenceExecutable:
        """There is nothing to compile: any layout will do. Sizes have to be numbers."""
        del layout
        graph = pipeline.run(graph, passes)
        for value in graph.inputs:
            for size in value.shape:
                if isinstance(size, Dim):
                    raise NumberNeeded(size)
        return ReferenceExecutable(graph)

    def source(self, graph: Graph, layout: Layout | None = None) -> str:
        """The graph, which is interpreted as it is."""
        del layout
        return str(graph)

    def subscript(self, spec: SubscriptSpec) -> None:
        """None: Python makes parts of tensors."""
        del spec

    def view(self, spec: ViewSpec) -> None:
        """None: Python makes views."""

    def eager(self, spec: EagerSpec) -> None:
        """NumPy is what eager ops run on anyway."""
        del spec

    def engine(self, tensors: TensorClass) -> None:
        """None: Python runs nodes."""
        del tensors

    def rules(self, spec: RuleSpec | CallSpec) -> None:
        """None, as there is no engine."""
        del spec

    def recorded(self, spec: RecordedSpec) -> None:
        """None: Python records."""
        del spec

    def set_num_threads(self, threads: int) -> None:
        """NumPy's own threads are NumPy's affair."""
        del threads

    def get_num_threads(self) -> int:
        """One: ops run one after another."""
        return 1


def create() -> ReferenceBackend:
    """The back end."""
    return ReferenceBackend()
