"""A small graph for a bug report, from a function whose compiled form fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ir
from graphc.autodiff import vjp_graph
from graphc.delta_debugging import Minimal, minify_graph
from graphc.errors import ArgumentError
from graphc.frontend import define
from graphc.frontend.recording import Recording
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace import graph_name


def minify(function: Callable[..., Any] | define.Graph, inputs: Sequence[Any], *, backend: str | None = None) -> Minimal:
    """Make the graph of a function small that fails when it is compiled: by other results than the ops are defined to have, by
    an error, or by a crash.

    The function is traced with these inputs, and not run; a training step may be one, and its state stays as it is. Where the
    forward pass does not fail, the backward pass is tried. The result's `report()` is text for a bug report, with the graph,
    its inputs, and how it fails; `save(path)` writes that, and the numbers of the inputs where they matter.

    Raises ArgumentError where nothing fails, and TraceError where the function cannot be one graph.

    >>> import graphc
    >>> graphc.minify(lambda x: x.exp() * 2, (graphc.ones(3),))
    Traceback (most recent call last):
    graphc.errors.ArgumentError: 'lambda' does not fail on these inputs...
    """
    if isinstance(function, define.Graph):
        graph = function.ir
        captured = {function.find(name): tensor for name, tensor in function.captured.items()}
        if len(inputs) + len(captured) != len(graph.inputs):
            raise ArgumentError("minify: the inputs are not those of the graph", got=str(len(inputs)),
                                expected=f"{len(graph.inputs) - len(captured)}, as graph.inputs has")
        fed = iter(inputs)
        given = [captured[v] if v in captured else next(fed) for v in graph.inputs]
        arrays = [np.asarray(x._data if isinstance(x, Tensor) else x) for x in given]
        return _first_failing([(graph, arrays)], graph.name, backend)
    recording = Recording(function, graph_name(function), tuple(inputs), {}, backend, watched=False)
    capture = recording.capture
    arrays = [np.asarray(tensor._data) for tensor in capture.tensors(recording.leaves)]
    cases = [(recording.graph, arrays)]
    how = capture.differentiable
    if how is not None:
        seeds = [how.whole.outputs[j].type for j in how.seeded]
        ones = [np.ones(t.shape, t.dtype.numpy) for t in seeds]
        cases.append((vjp_graph(how.whole, how.wanted, how.seeded), [*arrays, *ones]))
    return _first_failing(cases, recording.graph.name, backend)


def _first_failing(cases: Sequence[tuple[ir.Graph, list[np.ndarray]]], name: str, backend: str | None) -> Minimal:
    for graph, arrays in cases:
        try:
            return minify_graph(graph, arrays, backend=backend)
        except ArgumentError as error:
            reason = error
    raise ArgumentError(f"{name!r} does not fail on these inputs, as one graph by itself", expected="a function that fails",
                        hint="pass inputs that it fails on; with compile(..., verify=True) each call is checked") from reason
