"""Define-then-run: graphs that are written inside a `with` block, and run by a `Session` later.

>>> import graphc
>>> graph = graphc.Graph()
>>> with graph:
...     x = graphc.placeholder("x", (None, 3))
...     y = (x * 2).sum(dim=1)
>>> y
tensor(..., size=(None,), dtype=graphc.float32, name='sum')
>>> graphc.Session(graph).run(y, feed_dict={x: [[1, 2, 3], [4, 5, 6]]})
array([12., 30.], dtype=float32)
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc import ir
from graphc.conditions import WHERE, conditions, written
from graphc.dims import Dim, answering
from graphc.errors import ArgumentError, ArgumentTypeError, AutogradError, Location, ShapeError, TraceError, user_location
from graphc.frontend.arguments import given_dtype
from graphc.frontend.definition import Definition, GraphBuilder
from graphc.frontend.device import HOST, placement, spelled
from graphc.frontend.static_gradients import backward_nodes
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace_inputs import Captured
from graphc.frontend.tracer import activated, active
from graphc.ir import Value
from graphc.parse import parse_graph
from graphc.text import value_names
from graphc.types import DType, TensorType, get_default_dtype


@dataclass(frozen=True)
class GraphNode:
    """One node of a graph, as `Graph.nodes` lists it."""

    name: str
    op: str
    """The op's name; "placeholder" for what is fed, "captured" for a tensor from outside."""
    inputs: tuple[str, ...]
    """The names of the nodes whose results it takes, in order."""
    type: TensorType
    """Of its (first) result."""
    location: Location | None = None
    """The user's line that made it."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu:0", "cpu:1"."""
        return spelled(self.type.device)

    def __repr__(self) -> str:
        return f"<{self.name} = {self.op}({', '.join(self.inputs)}) : {self.type}>"


class Graph:
    """A graph that is written by hand: what runs inside `with graph:` is recorded, and computes nothing.

    Values in it are tensors without numbers. They go through the same operators, functions and modules as others, and
    `Session(graph).run` computes them. Tensors from outside are referred to: each run sees what they hold then, and changes
    them where the graph does so in place. Entering the graph again adds to it.

    `str(graph)` is its textual form, which `parse_ir` reads; graphs of the same text are equal. `graph.ir` is the graph of the
    compiler, with which passes and back ends work.

    >>> with graphc.Graph() as graph:
    ...     x = graphc.placeholder("x", (2,))
    ...     y = x * 2
    >>> graphc.Session(graph).run(y, {x: [1.0, 2.0]})
    array([2., 4.], dtype=float32)
    """

    __hash__ = None  # type: ignore[assignment]  # graphs with the same nodes are equal, and a graph grows

    def __init__(self, name: str = "main") -> None:
        self._definition = Definition(name, self)
        self._placeholders: dict[Value, Placeholder] = {}
        self._outputs: tuple[Tensor, ...] = ()
        self._output_names: tuple[str, ...] | None = None
        self._by_name: dict[str, Value] = {}
        self._names: dict[Value, str] = {}
        self._named = (-1, -1)
        self._blocks: list[ExitStack] = []
        self._lock = threading.RLock()
        self.changing = threading.Lock()
        """Held by a run that changes tensors from outside."""

    @staticmethod
    def from_ir(graph: ir.Graph, captured: Sequence[Tensor] = ()) -> Graph:
        """A graph of the compiler, to be run by sessions. Its last inputs are the `captured` tensors; the others are fed."""
        made = Graph(graph.name)
        builder = made._definition.builder
        count = len(graph.inputs) - len(captured)
        new: dict[Value, Value] = {}
        for i, value in enumerate(graph.inputs):
            new[value] = builder.copy_input(value)
            made._definition.sizes.adopt(str(value.name), value.shape)
            if i < count:
                made._placeholders[new[value]] = Placeholder(wrap(new[value]), None)
            else:
                made._definition.adopt(captured[i - count], new[value])
        for condition in conditions(value.info for value in graph.inputs):
            made._definition.sizes.state(condition)
        for node in graph.nodes:
            new.update(zip(node.results, builder.copy(node, [new[v] for v in node.operands])))
        made._outputs = tuple(made._placeholders[new[v]].tensor if new[v] in made._placeholders else wrap(new[v])
                              for v in graph.outputs)
        made._output_names = graph.output_names
        return made

    # Writing

    def __enter__(self) -> Graph:
        self._lock.acquire()
        block = ExitStack()
        block.enter_context(activated(self._definition))
        block.enter_context(answering(self._definition.sizes))
        if not self._blocks:
            block.enter_context(self._definition.watching_modules())
        self._blocks.append(block)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._blocks.pop().close()
        if not self._blocks:
            self._definition.forget_histories()
        self._lock.release()

    def name_scope(self, name: str) -> AbstractContextManager[None]:
        """What is recorded in the block is called `name.` and so on, within the names of the blocks around it.

        >>> import graphc
        >>> graph = graphc.Graph()
        >>> with graph, graph.name_scope("encoder"):
        ...     x = graphc.placeholder("x", (2,))
        ...     with graph.name_scope("layer1"):
        ...         y = x.exp()
        >>> x.name, y.name
        ('encoder.x', 'encoder.layer1.exp')
        """
        if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*", name):
            raise ArgumentError("name_scope: not a name", expected="letters, digits, underscores and points", got=repr(name))
        return self._scope(name)

    @contextmanager
    def _scope(self, name: str) -> Iterator[None]:
        builder = self._definition.builder
        before = builder.scope
        builder.scope = f"{before}{name}."
        try:
            yield
        finally:
            builder.scope = before

    def placeholder(self, name: str, shape: Sequence[int | str | Dim | None], dtype: DType | None = None) -> Tensor:
        """See `graphc.placeholder`."""
        definition = self._definition
        builder = definition.builder
        if not isinstance(name, str) or not ir.is_name(name):
            raise ArgumentError("a placeholder's name is not an identifier", got=repr(name),
                                expected="letters, digits and underscores, as in 'x'")
        full = builder.scope + name
        if builder.is_taken(full):
            raise TraceError(f"graph {builder.name!r} has a node {full!r} already",
                             expected="a name of its own for each placeholder",
                             hint="choose another name, or write it inside `with graph.name_scope(...)`")
        if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
            raise ArgumentTypeError(f"placeholder {full!r}: the shape is not a tuple", expected="sizes, as in (None, 3)",
                                    got=repr(shape))
        dtype = given_dtype(dtype, "placeholder") or get_default_dtype()
        sizes = tuple(self._size(full, i, size) for i, size in enumerate(shape))
        value = builder.input(builder.unique(name), TensorType(dtype, sizes, placement() or HOST))
        tensor = wrap(value)
        self._placeholders[value] = Placeholder(tensor, user_location())
        return tensor

    def _size(self, name: str, axis: int, size: Any) -> int | Dim:
        sizes = self._definition.sizes
        if size is None:
            words = f"{name}.shape[{axis}]"
            return sizes.declare(f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{axis}", words)
        if isinstance(size, str):
            if not size.isidentifier():
                raise ArgumentError(f"placeholder {name!r}: a size is called {size!r}",
                                    expected="an identifier, as in ('batch', 3)")
            return Dim.symbol(size) if size in sizes.hints else sizes.declare(size, size)
        if isinstance(size, Dim):
            return size
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise ArgumentTypeError(f"placeholder {name!r}: a size is a {type(size).__name__}",
                                    expected="numbers, None for any size, or names of sizes", got=repr(size))
        if size < 0:
            raise ShapeError(f"placeholder {name!r}: negative size {size}", expected="numbers from 0 on, or None for any size",
                             got=str(size))
        return int(size)

    def gradients(self, ys: Any, xs: Sequence[Tensor], grad_ys: Any = None) -> list[Tensor | None]:
        """See `graphc.gradients`."""
        results = list(ys) if isinstance(ys, (list, tuple)) else [ys]
        seeds = [None] * len(results) if grad_ys is None else list(grad_ys) if isinstance(ys, (list, tuple)) else [grad_ys]
        if len(seeds) != len(results):
            raise AutogradError(f"gradients: {len(seeds)} of grad_ys for {len(results)} of ys", expected="one for each")
        builder, sizes = self._definition.builder, self._definition.sizes
        with self, self._scope("gradients"):
            values = [self.value(y) for y in results]
            for y, value in zip(results, values):
                if not value.dtype.is_differentiable:
                    raise AutogradError(f"gradients: {self.name_of(value)!r} cannot be differentiated",
                                        expected="a floating-point or complex dtype", got=str(y.dtype))
            cotangents = [ops.full(v.type, 1, like=v) if s is None else self._seed(s, v) for s, v in zip(seeds, values)]
            with sizes.in_rule():  # derivatives follow rules, as types do
                sources = [self._source(x, values) for x in xs]
                used = [source for source in sources if source is not None]
                found = dict(zip(used, backward_nodes(builder, self._definition.calls, values, cotangents, used)))
            made = [None if source is None else found[source] for source in sources]
            return [None if value is None else wrap(value) for value in made]

    def _seed(self, given: Any, value: Value) -> Value:
        """The cotangent that was given for a value."""
        seed = self.value(given) if isinstance(given, Tensor) else self._definition.builder.constant(given, value.dtype)
        if seed.shape != value.shape:
            raise ShapeError("gradients: a seed does not have the shape of its value", expected=str(value.type),
                             got=str(seed.type))
        return seed

    def _source(self, x: Any, values: Sequence[Value]) -> Value | None:
        """What is differentiated by: for a tensor from outside that the graph changes, what it held before, unless the results
        depend on what it holds after; None for one that the graph does not use."""
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"gradients: cannot differentiate by a {type(x).__name__}",
                                    expected="values of the graph, or tensors that it uses")
        if isinstance(x._data, np.ndarray) and not self._definition.knows(x):
            return None
        current, lifted = self.value(x), self._definition.lifted(x)
        return current if lifted is None or _depends(values, current) else lifted.value

    # Reading

    @property
    def name(self) -> str:
        return self._definition.builder.name

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The placeholders, in order: what is fed."""
        return tuple(placeholder.tensor for placeholder in self._placeholders.values())

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The results of the function that was traced; a graph that is written by hand has none."""
        return self._outputs

    @property
    def captured(self) -> dict[str, Tensor]:
        """The tensors from outside that the graph refers to, by the names of their nodes."""
        return {self.name_of(x.value): x.source.tensor for x in self._definition.inputs if isinstance(x.source, Captured)}

    @property
    def changed(self) -> tuple[Tensor, ...]:
        """The tensors from outside that the graph changes in place. Fetching one changes it in that run."""
        found = {id(e.lifted): e.lifted.tensor for e in self._definition.effects}
        return tuple(tensor for tensor in found.values() if tensor is not None)

    @property
    def nodes(self) -> list[GraphNode]:
        """The inputs, then the other nodes in order of definition."""
        names = self._all_names()
        builder = self._definition.builder
        listed = [GraphNode(names[value], "placeholder" if value in self._placeholders else "captured", (), value.type,
                            self._placeholders[value].location if value in self._placeholders else None)
                  for value in builder.inputs]
        for node in builder.nodes:
            inputs = tuple(names[v if v.node is None else v.node.results[0]] for v in node.operands)
            listed.append(GraphNode(names[node.results[0]], node.op.name, inputs, node.results[0].type, node.location))
        return listed

    @property
    def ir(self) -> ir.Graph:
        """The graph as it is now, as the compiler has it."""
        builder, sizes = self._definition.builder, self._definition.sizes
        with self:
            outputs = [self.value(tensor) for tensor in self._outputs]
        told = next((value for value in builder.inputs if not value.type.is_static), None)
        if told is not None:  # what is taken for granted stands with the first input of unknown size
            told.info = {**{key: item for key, item in told.info.items() if key != WHERE}, **written(sizes.conditions())}
        return ir.Graph(builder.name, builder.inputs, builder.nodes, outputs, self._output_names)

    def __getitem__(self, name: str) -> Tensor:
        """The value of that name."""
        value = self.find(name)
        return self._placeholders[value].tensor if value in self._placeholders else wrap(value)

    def find(self, name: str) -> Value:
        """The value of that name, as the compiler has it; TraceError if there is none."""
        self._all_names()
        found = self._by_name.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._by_name, 1)
            raise TraceError(f"graph {self.name!r} has no value {name!r}", hint=f"did you mean {near[0]!r}?" if near else None,
                             expected=f"one of {', '.join(map(repr, list(self._by_name)[:8]))}"
                                      f"{', ...' if len(self._by_name) > 8 else ''}")
        return found

    def value(self, tensor: Tensor) -> Value:
        """What a tensor holds at the end of the graph: one of its values, or a tensor from outside that it uses."""
        data = tensor._data
        owner = getattr(data, "builder", None)
        if isinstance(data, np.ndarray) and not self._definition.knows(tensor):
            raise TraceError(f"graph {self.name!r} does not use this tensor", got=f"a tensor of shape {list(tensor.shape)}",
                             expected="a value of the graph, its name, or a tensor that the graph refers to")
        if not isinstance(data, np.ndarray) and owner is not self._definition.builder:
            other = f"graph {owner.name!r}" if owner is not None else "a trace that is over"
            raise TraceError(f"a value of another graph was used: it belongs to {other}, not to graph {self.name!r}",
                             got=repr(tensor) if owner is not None else repr(data),
                             hint="make it inside `with graph:` of this graph, or feed it through a placeholder")
        with self:
            return self._definition.value(tensor)

    def name_of(self, value: Value) -> str:
        """What a value is called."""
        return self._all_names()[value]

    def placeholder_of(self, value: Value) -> Placeholder | None:
        """What a value was declared as, if it is to be fed."""
        return self._placeholders.get(value)

    def _all_names(self) -> Mapping[Value, str]:
        builder = self._definition.builder
        size = len(builder.inputs), len(builder.nodes)
        if size != self._named:
            with self._lock:
                written = value_names(ir.Graph("", builder.inputs, builder.nodes, ()))
                self._names = {v: _plain(v, text) for v, text in written.items()}
                self._by_name = {name: value for value, name in self._names.items()}
                self._named = size
        return self._names

    @property
    def definition(self) -> Definition:
        """The tracer that records what is written."""
        return self._definition

    def __eq__(self, other: object) -> bool:
        return self.ir == other.ir if isinstance(other, Graph) else NotImplemented

    def __str__(self) -> str:
        return str(self.ir)

    def __repr__(self) -> str:
        counts = f"{len(self._placeholders)} placeholders, {len(self._definition.builder.nodes)} nodes"
        captured = len(self._definition.builder.inputs) - len(self._placeholders)
        return f"<Graph {self.name!r}: {counts}{f', {captured} captured tensors' if captured else ''}>"


@dataclass(frozen=True, eq=False)
class Placeholder:
    """A value to be fed, and the line that declared it."""

    tensor: Tensor
    location: Location | None


def _plain(value: Value, text: str) -> str:
    """A name as it is written in text, without the signs around it."""
    return str(value.name) if value.name is not None and not text.rpartition("~")[2].isdigit() else text[1:]


def _depends(results: Sequence[Value], source: Value) -> bool:
    """Whether one of the values is computed from the source."""
    seen: set[Value] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value is source:
            return True
        if value not in seen:
            seen.add(value)
            pending.extend(() if value.node is None else value.node.operands)
    return False


def current_graph(what: str) -> Graph:
    """The graph that this thread is writing; TraceError if there is none."""
    tracer = active()
    if not isinstance(tracer, Definition):
        raise TraceError(f"{what} outside of any graph", expected="a line inside `with graph:`", hint="graph = graphc.Graph()")
    return tracer.graph


def placeholder(name: str, shape: Sequence[int | str | None], dtype: DType | None = None) -> Tensor:
    """A value of the graph that is being written, to be fed when it runs.

    name
        Unique in the graph.
    shape
        None stands for any size. A string names a size that can be any, but is the same wherever it has that name.
    dtype
        The default dtype if it is not given.

    TraceError outside of a graph that is being written.

    >>> import graphc
    >>> with graphc.Graph() as graph:
    ...     x = graphc.placeholder("x", ("batch", 3))
    ...     t = graphc.placeholder("t", ("batch",), graphc.int64)
    >>> x.name, x.shape, t.dtype
    ('x', graphc.Size([None, 3]), graphc.int64)
    """
    return current_graph("placeholder()").placeholder(name, shape, dtype)


def gradients(ys: Any, xs: Any, grad_ys: Any = None) -> list[Tensor | None]:
    """Add the derivatives of (the sum of) `ys` with respect to each of `xs` to their graph, and return their values.

    ys, xs
        A value of a graph, or several. `xs` may also be tensors from outside that the graph uses.
    grad_ys
        The cotangents of `ys`; ones by default.

    None stands for an input that `ys` do not depend on. The results can be differentiated again.

    TraceError outside of a graph that is being written.

    >>> import graphc
    >>> with graphc.Graph() as graph:
    ...     x = graphc.placeholder("x", ())
    ...     (slope,) = graphc.gradients(x**3, [x])
    ...     (curvature,) = graphc.gradients(slope, [x])
    >>> graphc.Session(graph).run([slope, curvature], {x: 2.0})
    [array(12., dtype=float32), array(12., dtype=float32)]
    """
    first = ys[0] if isinstance(ys, (list, tuple)) and ys else ys
    builder = getattr(getattr(first, "_data", None), "builder", None)
    graph = builder.definition.graph if isinstance(builder, GraphBuilder) else current_graph("gradients()")
    return graph.gradients(ys, list(xs) if isinstance(xs, (list, tuple)) else [xs], grad_ys)


def parse_ir(text: str) -> Graph:
    """The graph that a text holds, as `str(graph)` writes it; its inputs are placeholders.

    Raises ParseError, a ValueError, with line and column.

    >>> graph = graphc.parse_ir('''graph @double(%x: float32[2]) -> float32[2] {
    ...   %0 = add(%x, %x) : float32[2]
    ...   return %0
    ... }''')
    >>> graphc.Session(graph).run(graph.outputs[0], {graph.inputs[0]: [1.0, 2.0]})
    array([2., 4.], dtype=float32)
    """
    return Graph.from_ir(parse_graph(text))
