"""Running graphs that were written by hand."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.assumptions import Relation
from graphc.bind import bind_sizes
from graphc.compiler import compile_graph
from graphc.config import config
from graphc.dims import Dim, answering
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError, ShapeError, TraceError, VerifyError
from graphc.frontend.define import Graph
from graphc.frontend.definition import Definition
from graphc.frontend.described import as_dtype
from graphc.frontend.device import spelled
from graphc.frontend.placement import Part, PlacedGraph, devices_of, on_host
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.subgraph import Subgraph, cut, shape_text
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace_inputs import Captured, Gradient, Lifted, Number
from graphc.frontend.tracer import activated, active
from graphc.ir import Value
from graphc.types import DType, TensorType, bool_, convert

_MOST_CHECKED = 1 << 10
"""Combinations of sizes that a program remembers to fit."""


@dataclass(frozen=True)
class Run:
    """What one run of a session did."""

    executed_nodes: list[str]
    """The names of the nodes that were executed, in order."""
    devices: dict[str, str]
    """Where each of them ran: "cpu:0", "cpu:1"."""
    parts: tuple[Part, ...]
    """What each device did, in the order in which it was done. A graph on one device is run as a whole."""

    def __repr__(self) -> str:
        where = ", ".join(dict.fromkeys(self.devices.values()))
        return f"<Run: {len(self.executed_nodes)} nodes{f' on {where}' if where else ''}>"


class _Program:
    """A subgraph with its code."""

    def __init__(self, subgraph: Subgraph, backend: str | None) -> None:
        self.subgraph = subgraph
        self.names = list(subgraph.names)
        self.devices = {name: spelled(node.results[0].type.device) for name, node in zip(self.names, subgraph.graph.nodes)}
        self.checked: set[Any] = set()
        """The sizes that fit, with the number of conditions that they were held against."""
        self.placed: PlacedGraph | None = None
        if len(devices_of(subgraph.graph)) > 1:
            self.placed = PlacedGraph(subgraph.graph, backend)
        else:
            self.code = compile_graph(on_host(subgraph.graph), backend=backend)

    def __call__(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], tuple[Part, ...]]:
        if self.placed is None:
            return self.code(*arrays), ()
        outputs, parts = self.placed(*arrays)
        return outputs, tuple(parts)


class Session:
    """Runs a graph: `session.run(fetches, feed_dict)`. Code is made once for each set of fetches, feeds and sizes.

    ArgumentTypeError for what is no graph.

    >>> import graphc
    >>> with graphc.Graph() as graph:
    ...     x = graphc.placeholder("x", (None,))
    ...     doubled = x * 2
    ...     total = doubled.sum()
    >>> session = graphc.Session(graph)
    >>> session.run({"total": total, "parts": [doubled]}, feed_dict={x: [1, 2]})
    {'total': array(6., dtype=float32), 'parts': [array([2., 4.], dtype=float32)]}
    >>> session.run(total, feed_dict={doubled: [5, 6]})
    array(11., dtype=float32)
    >>> session.last_run.executed_nodes
    ['sum']
    """

    def __init__(self, graph: Graph, *, backend: str | None = None) -> None:
        if not isinstance(graph, Graph):
            raise ArgumentTypeError(f"Session: a {type(graph).__name__} is not a graph", expected="a graphc.Graph",
                                    hint="graphc.trace(function, example_inputs) makes one of a function")
        self.graph = graph
        self.backend = backend
        self.last_run: Run | None = None
        """What the latest run did."""
        self._programs: dict[Any, _Program] = {}
        self._lock = threading.Lock()

    def run(self, fetches: Any, feed_dict: Mapping[Any, Any] | None = None) -> Any:
        """Compute values of the graph.

        fetches
            A value, its name, or a tensor from outside that the graph uses; or several, nested in tuples, lists and dicts.
            Only the nodes that they depend on run. An outside tensor that the graph changes in place is changed in those
            runs that fetch it or compute with what it becomes, and by a module whose result they compute.
        feed_dict
            What placeholders stand for, by value or by name: arrays, nested lists, numbers, tensors. They are converted to
            the declared dtype where nothing but precision is lost. Any other value of the graph can be fed, too: then it
            is not computed.

        Returns NumPy arrays, nested as the fetches. Raises TraceError, ShapeError and DTypeError, which are RuntimeErrors,
        that name the feed that is missing, unknown or does not fit.
        """
        tracer = active()
        if tracer is not None and not isinstance(tracer, Definition):
            raise TraceError("Session.run() inside a function that is being traced: its results would become constants",
                             hint="run the session outside, or call the model itself")
        with activated(None), answering(None):
            leaves, structure = flatten(fetches)
            wanted = [self._fetched(leaf) for leaf in leaves]
            fed = self._fed(feed_dict or {})
            program = self._program(wanted, fed)
            results = self._run(program, fed)
        return unflatten(structure, results[: len(leaves)])

    # Before

    def _fetched(self, leaf: Any) -> Value:
        if isinstance(leaf, str):
            return self.graph.find(leaf)
        if isinstance(leaf, Tensor):
            return self.graph.value(leaf)
        hint = "gradients() gives None for an input that the results do not depend on: leave it out" if leaf is None else None
        raise ArgumentTypeError(f"cannot fetch a {type(leaf).__name__}", got=repr(leaf), hint=hint,
                                expected="values of the graph, or their names, nested in tuples, lists and dicts")

    def _fed(self, feeds: Mapping[Any, Any]) -> dict[Value, np.ndarray]:
        if not isinstance(feeds, Mapping):
            raise ArgumentTypeError(f"feed_dict is a {type(feeds).__name__}", expected="a dict, as in {x: array}")
        fed: dict[Value, np.ndarray] = {}
        for key, given in feeds.items():
            if not isinstance(key, (str, Tensor)):
                raise ArgumentTypeError(f"cannot feed a {type(key).__name__}", got=repr(key),
                                        expected="values of the graph, or their names, as keys")
            value = self.graph.find(key) if isinstance(key, str) else self.graph.value(key)
            if value in fed:
                raise ArgumentError(f"{self._described(value)} is fed twice", hint="by itself, or by its name")
            fed[value] = self._array(value, given)
        return fed

    def _array(self, value: Value, given: Any) -> np.ndarray:
        """What is fed for a value, as an array of its dtype and of a shape that fits."""
        where = self._described(value)
        if isinstance(given, Tensor):
            if not isinstance(given._data, np.ndarray):
                raise TraceError(f"{where} is fed a value that stands for numbers of a later run: {given!r}",
                                 expected="an array, a list, a number or a tensor with numbers")
            array = given._data
        else:
            try:
                array = np.asarray(given)
            except (ValueError, TypeError) as error:
                raise ArgumentError(f"{where} is fed what is no array: {error}", expected=_shown(value)) from None
        array = _converted(array, value.dtype, where)
        fits = array.ndim == value.ndim and all(isinstance(s, Dim) or s == n for s, n in zip(value.shape, array.shape))
        if not fits:
            raise ShapeError(f"{where} does not take this shape", expected=f"shape {shape_text(value)}",
                             got=f"shape {array.shape}")
        return array

    def _described(self, value: Value) -> str:
        kind = "value" if self.graph.placeholder_of(value) is None else "placeholder"
        return f"{kind} {self.graph.name_of(value)!r}"

    def _program(self, fetches: Sequence[Value], fed: Mapping[Value, np.ndarray]) -> _Program:
        key = (self.graph.definition.builder.revision, tuple(fetches), frozenset(fed), config.numerics)
        found = self._programs.get(key)
        if found is None:
            with self._lock:
                found = self._programs.get(key)
                if found is None:
                    found = self._programs[key] = _Program(cut(self.graph, fetches, fed), self.backend)
        return found

    # During

    def _run(self, program: _Program, fed: Mapping[Value, np.ndarray]) -> list[np.ndarray]:
        subgraph = program.subgraph
        sources = {lifted.value: lifted for lifted in self.graph.definition.inputs}
        arrays = [fed[value] if value in fed else self._captured(sources[value]) for value in subgraph.inputs]
        seen = (len(self.graph.definition.sizes.guards), *(array.shape for array in arrays))
        if seen not in program.checked:
            self._check_sizes(subgraph, arrays)
            if len(program.checked) >= _MOST_CHECKED:
                program.checked.clear()
            program.checked.add(seen)
        if subgraph.updates:
            with self.graph.changing:
                # as late as possible: another run may have changed them
                arrays = [fed[value] if value in fed else self._captured(sources[value]) for value in subgraph.inputs]
                results, parts = self._executed(program, arrays)
                for lifted, j in subgraph.updates:
                    _write(lifted, results[j])
        else:
            results, parts = self._executed(program, arrays)
        self.last_run = Run(list(program.names), dict(program.devices), parts)
        return results

    def _executed(self, program: _Program, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], tuple[Part, ...]]:
        try:
            return program(arrays)
        except VerifyError as error:  # a type rule that is applied to the sizes that were fed
            raise ShapeError(f"the sizes that were fed do not fit: {error.problem}", expected=error.expected, got=error.got,
                             at=error.location) from None

    def _captured(self, lifted: Lifted) -> np.ndarray:
        """What a tensor from outside holds now."""
        source = lifted.source
        name, type_ = self.graph.name_of(lifted.value), lifted.value.type
        if isinstance(source, Number):
            return np.asarray(source.mapping[source.key], np.float64)
        if isinstance(source, Captured):
            array = source.tensor._data
        else:
            assert isinstance(source, Gradient) and isinstance(source.owner, Captured)
            grad = source.owner.tensor.grad
            if grad is None:
                raise GraphcError(f"the graph reads a gradient, {name!r}, that was there when it was written, and is None now")
            array = grad._data
        if array.shape != type_.shape or array.dtype != type_.dtype.numpy:
            raise ShapeError(f"the tensor that graph {self.graph.name!r} calls {name!r} has changed since it was written",
                             expected=str(type_), got=str(TensorType(as_dtype(array.dtype), array.shape)),
                             hint="write the graph anew, or keep the tensor's shape and dtype")
        return array

    def _check_sizes(self, subgraph: Subgraph, arrays: Sequence[np.ndarray]) -> None:
        """ShapeError, in the user's words, where sizes do not go together or break what the graph takes for granted."""
        sizes = self.graph.definition.sizes
        try:
            known = bind_sizes(subgraph.graph, [array.shape for array in arrays])
        except ShapeError as error:
            equal = "; ".join(f"{sizes.spell(str(r))}{f' since {r.location}' if r.location else ''}" for r in sizes.equalities)
            raise ShapeError(f"sizes that were fed do not go together: {error.problem}",
                             expected=sizes.spell(str(error.expected)), got=error.got,
                             hint=f"the graph needs {equal}" if equal else None) from None
        for number, guard in enumerate(sizes.guards):
            if sizes.matters(number, subgraph.numbers):
                _check(guard.bind(sizes.solved), known, sizes.spell)

    def __repr__(self) -> str:
        return f"<Session of graph {self.graph.name!r}: {len(self._programs)} programs>"


def _check(guard: Relation | None, known: Mapping[str, int], spell: Any) -> None:
    if guard is None or not guard.difference.symbols() <= known.keys() or not guard.fails(known):
        return
    sides = [f"{spell(str(side))} is {side.bind(known)}" for side in guard.sides() if isinstance(side, Dim)]
    raise ShapeError(f"sizes that were fed break what the graph takes for granted: {spell(str(guard))}",
                     expected=spell(str(guard)), got=" and ".join(sides), at=guard.location,
                     hint="declare the size as a number, and write a graph for each such size")


def _converted(array: np.ndarray, dtype: DType, where: str) -> np.ndarray:
    """The array in the declared dtype, row by row in memory of its own byte order."""
    if array.dtype == dtype.numpy:
        return array
    if array.dtype.kind not in "biufcV":
        raise DTypeError(f"{where} is fed what is not made of numbers", expected=dtype.name, got=f"dtype {array.dtype}")
    found = as_dtype(array.dtype)
    if found.category > dtype.category and array.size:
        raise DTypeError(f"{where} does not take {found.name}: something would be lost", expected=dtype.name, got=found.name,
                         hint=f"convert it before: array.astype({dtype.numpy.name!r})")
    if dtype.kind in ("int", "uint") and found is not bool_ and array.size:
        limits = np.iinfo(dtype.numpy)
        if array.min() < limits.min or array.max() > limits.max:
            raise DTypeError(f"{where} is fed integers that {dtype.name} does not hold",
                             expected=f"numbers from {limits.min} to {limits.max}", got=f"{array.min()} to {array.max()}")
    return convert(array, dtype)


def _shown(value: Value) -> str:
    return f"an array of {value.dtype.name} and shape {shape_text(value)}"


def _write(lifted: Lifted, new: np.ndarray) -> None:
    """Change a tensor from outside in place."""
    tensor = lifted.tensor
    assert tensor is not None
    if not tensor._data.flags.writeable:
        raise ArgumentTypeError("a graph changes a tensor in place whose memory is read-only", hint="clone() it")
    np.copyto(tensor._data, new)
    tensor._version_counter().count += 1
