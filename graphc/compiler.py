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

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from graphc import garbage
from graphc.backend import Executable, Layout, get_backend
from graphc.bind import bind_sizes, check_inputs, is_symbolic
from graphc.config import config, note
from graphc.graph_key import Unspelled, graph_key
from graphc.ir import Builder, Graph, Node, attribute_key
from graphc.numerics import divided, pinned
from graphc.op import OpDef
from graphc.types import TensorType, dtype_of
from graphc.variants import SizedExecutable

VERIFIED = "verified "
"""Before the name of a back end, or alone: each run is compared with the definitions of the ops."""
_MOST_KEPT = 1024
_MANY = 200
"""Nodes of a graph whose compilation leaves much unused memory behind."""
_executables: dict[Any, Executable] = {}
_compiling: WeakValueDictionary[Any, threading.Lock] = WeakValueDictionary()
"""A lock for each graph that is being compiled, or looked up, by some thread."""
_lock = threading.Lock()


def executable(graph: Graph, layout: Layout | None = None, *, backend: str | None = None) -> Executable:
    """Compile a graph, or find it compiled already. Threads that ask for the same graph at once compile it once. If sizes of
    the graph are symbols, the executable is for all of them, and code is made as calls come. `backend` may say the numerics,
    too: see `graphc.numerics.pinned`."""
    numerics, chosen = divided(backend)
    layout = replace(layout or Layout.plain(graph), numerics=numerics)
    name = chosen or config.backend
    if name.startswith(VERIFIED):
        from graphc.differential import Verified

        return Verified(graph, layout, f"strict {name.removeprefix(VERIFIED)}")
    key = (name, _graph_key(graph), layout, config.cpu, config.fuel)
    with _lock:
        own_lock = _compiling.setdefault(key, threading.Lock())
    with own_lock:
        found = _executables.get(key)
        if found is None:
            found = _sized(graph, layout, name) if is_symbolic(graph) else _compile(graph, layout, name)
            _keep(_executables, key, found)
        return found


def _graph_key(graph: Graph) -> Any:
    """What equal graphs have in common."""
    try:
        return graph_key(graph)
    except Unspelled:
        return graph.structure()


def _sized(graph: Graph, layout: Layout, name: str) -> SizedExecutable:
    def compile(graph: Graph, layout: Layout) -> Executable:
        if is_symbolic(graph):
            return _compile(graph, layout, name)
        return executable(graph, layout, backend=f"{layout.numerics} {name}")

    return SizedExecutable(graph, layout, compile)


def _keep(cache: dict[Any, Executable], key: Any, made: Executable) -> None:
    """Put something into a cache, in the place of the oldest if that is full: sizes can change without end."""
    with _lock:
        cache[key] = made
        while len(cache) > _MOST_KEPT:
            del cache[next(iter(cache))]


def _compile(graph: Graph, layout: Layout, name: str) -> Executable:
    start = time.perf_counter()
    with garbage.kept_for_now():
        made = get_backend(name).compile(graph, layout)
    if len(graph.nodes) >= _MANY:
        garbage.give_back()
    note(1, f"graphc: {graph.name}: compiled for {name} in {1e3 * (time.perf_counter() - start):.1f} ms")
    return made


def clear_cache() -> None:
    """Forget what has been compiled in this process."""
    with _lock:
        _executables.clear()
        _single.clear()


def _forget_locks() -> None:
    """In a forked child, where the threads that held them do not exist."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _compiling.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


class CompiledGraph:
    """A graph that is called with arrays. Where sizes are symbols, they are what the arrays say at each call."""

    def __init__(self, graph: Graph, backend: str | None = None, steady: Sequence[int] = ()) -> None:
        self.graph = graph
        self.backend = pinned(backend)
        self.steady = tuple(steady) if config.prepare_weights else ()
        self._code: Executable | None = None
        self._prepared: dict[object, np.ndarray] = {}

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The outputs for the given inputs; ShapeError where they do not fit."""
        return self.run(arrays)

    def run(self, arrays: Sequence[np.ndarray], into: Mapping[int, np.ndarray] = MappingProxyType({})) -> list[np.ndarray]:
        """As a call. `into` are arrays that some outputs, by number, are written to; the inputs are not among them."""
        given = [np.asarray(a) for a in arrays]
        check_inputs(self.graph, given)
        shapes = tuple([a.shape for a in given])
        if self._code is None:
            layout = Layout((None,) * len(self.graph.inputs), (), self.steady)
            self._code = executable(self.graph, layout, backend=self.backend)
        if isinstance(self._code, SizedExecutable):
            code = self._code.for_shapes(shapes)
        else:
            bind_sizes(self.graph, shapes)
            code = self._code
        outputs = [into[i] if i in into else np.empty(t.shape, t.dtype.numpy) for i, t in enumerate(code.outputs)]
        inputs = [_plain(a, t) for a, t in zip(given, code.inputs)]
        preparation = code.preparation
        if preparation is None:
            code.run(inputs, outputs)
            return outputs
        prepared = self._prepared.get(preparation.key)
        if prepared is None:
            prepared = self._prepared.setdefault(preparation.key, preparation.prepare(inputs))
        preparation.run(inputs, outputs, prepared)
        return outputs

    def __repr__(self) -> str:
        return f"<compiled {self.graph!r}>"


def compile_graph(graph: Graph, *, backend: str | None = None, steady: Sequence[int] = ()) -> CompiledGraph:
    """A callable for a graph: arrays in, list of arrays out. Code is made at the first call.

    `steady` are the numbers of inputs that hold the same at every call: what depends on them alone is computed at the first.
    """
    return CompiledGraph(graph, backend, steady)


_single: dict[Any, Executable] = {}


def run_op(record: OpDef, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> Any:
    """One op, compiled as a graph of its own: for ops at which NumPy is slow. An array, or a tuple of those that it returns."""
    types = tuple(TensorType(dtype_of(a.dtype), a.shape) for a in arrays)
    key = (record.name, types, tuple((k, attribute_key(a)) for k, a in attrs.items()), config.backend, config.cpu,
           config.numerics)
    compiled = _single.get(key)
    if compiled is None:
        builder = Builder(record.name, locations=False)
        values = [builder.input(None, t) for t in types]
        inferred = record.infer(*types, **attrs)
        node: Node = builder.append(record, values, attrs, inferred if isinstance(inferred, tuple) else (inferred,))
        compiled = executable(builder.finish(node.results))
        _keep(_single, key, compiled)
    results = [np.empty(out.shape, out.dtype.numpy) for out in compiled.outputs]
    compiled.run([_plain(a, t) for a, t in zip(arrays, types)], results)
    return tuple(results) if record.kernel == "control" or len(results) > 1 else results[0]


def _plain(array: np.ndarray, type_: TensorType) -> np.ndarray:
    """The array, row-major, aligned and in this machine's byte order."""
    if array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
        return array
    return np.require(array, type_.dtype.numpy, ["C", "A"])
