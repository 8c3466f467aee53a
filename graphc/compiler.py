"""The driver: from a graph to something that runs, through passes and a back end, with a cache.

>>> import numpy as np
>>> import graphc.ops as ops
>>> from graphc.ir import Builder
>>> from graphc.types import TensorType, float32
>>> b = Builder("double")
>>> x = b.input("x", TensorType(float32, (3,)))
>>> double = compile_graph(b.finish([x + x]), backend="reference")
>>> double(np.array([1, 2, 3], np.float32))
[array([2., 4., 6.], dtype=float32)]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.backend import Executable, Layout, get_backend
from graphc.config import config, note
from graphc.interpret import bind_attributes, bind_sizes, check_inputs
from graphc.ir import Builder, Graph, Node, Value, attribute_key
from graphc.op import OpDef
from graphc.passes import pipeline
from graphc.types import TensorType, dtype_of

_executables: dict[Any, Executable] = {}
_pending: dict[Any, threading.Event] = {}
_lock = threading.Lock()


def executable(graph: Graph, layout: Layout | None = None, *, backend: str | None = None) -> Executable:
    """Compile a graph whose sizes are numbers, or find it compiled already. Threads that ask for the same graph at once
    compile it once."""
    layout = layout or Layout.plain(graph)
    name = backend or config.backend
    key = (name, graph.structure(), layout, config.cpu)
    while True:
        with _lock:
            if key in _executables:
                return _executables[key]
            event = _pending.get(key)
            if event is None:
                _pending[key] = threading.Event()
                break
        event.wait()
    try:
        made = _compile(graph, layout, name)
        with _lock:
            _executables[key] = made
        return made
    finally:
        # also after an error or Ctrl-C: whoever waits tries for himself
        with _lock:
            _pending.pop(key).set()


def _compile(graph: Graph, layout: Layout, name: str) -> Executable:
    start = time.perf_counter()
    made = get_backend(name).compile(pipeline.run(graph), layout)
    note(1, f"graphc: {graph.name}: compiled for {name} in {1e3 * (time.perf_counter() - start):.1f} ms")
    return made


def clear_cache() -> None:
    """Forget what has been compiled in this process."""
    with _lock:
        _executables.clear()


class CompiledGraph:
    """A graph that is called with arrays. Symbolic sizes are bound, and compiled for, at each new set of sizes."""

    def __init__(self, graph: Graph, backend: str | None = None) -> None:
        self.graph = graph
        self.backend = backend
        self._bound: dict[tuple[tuple[int, ...], ...], Executable] = {}

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The outputs for the given inputs; ShapeError where they do not fit."""
        given = [np.asarray(a) for a in arrays]
        check_inputs(self.graph, given)
        shapes = tuple(a.shape for a in given)
        compiled = self._bound.get(shapes)
        if compiled is None:
            bound = bind_graph(self.graph, bind_sizes(self.graph, shapes))
            compiled = self._bound[shapes] = executable(bound, backend=self.backend)
        outputs = [np.empty(tuple(t.shape), t.dtype.numpy) for t in compiled.outputs]
        compiled.run([np.ascontiguousarray(a).reshape(a.shape) for a in given], outputs)
        return outputs

    def __repr__(self) -> str:
        return f"<compiled {self.graph!r}>"


def compile_graph(graph: Graph, *, backend: str | None = None) -> CompiledGraph:
    """A callable for a graph: arrays in, list of arrays out. Code is made at the first call."""
    return CompiledGraph(graph, backend)


def bind_graph(graph: Graph, sizes: dict[str, int]) -> Graph:
    """The graph with numbers put in for symbolic sizes; the graph itself if it has none."""
    if all(value.type.is_static for value in graph.values()):
        return graph
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type.bind(sizes), **v.info) for v in graph.inputs}
    for node in graph.nodes:
        types = [r.type.bind(sizes) for r in node.results]
        attrs = bind_attributes(node.attrs, sizes)
        copied = builder.append(node.op, [new[v] for v in node.operands], attrs, types, node.location)
        new.update(zip(node.results, copied.results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)


_single: dict[Any, Executable] = {}


def run_op(record: OpDef, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> np.ndarray:
    """One op, compiled as a graph of its own: for ops at which NumPy is slow."""
    arrays = [a if a.flags.c_contiguous else np.ascontiguousarray(a) for a in arrays]
    types = tuple(TensorType(dtype_of(a.dtype), a.shape) for a in arrays)
    key = (record.name, types, tuple((k, attribute_key(a)) for k, a in attrs.items()), config.backend, config.cpu)
    compiled = _single.get(key)
    if compiled is None:
        builder = Builder(record.name, locations=False)
        values = [builder.input(None, t) for t in types]
        inferred = record.infer(*types, **attrs)
        node: Node = builder.append(record, values, attrs, (inferred,))
        compiled = _single[key] = executable(builder.finish([node.result]))
    (out,) = compiled.outputs
    result = np.empty(tuple(out.shape), out.dtype.numpy)
    compiled.run(arrays, [result])
    return result
