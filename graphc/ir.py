"""The tensor graph: values, nodes, graphs, and the builder that makes them.

A graph is an immutable, ordered list of nodes in static single assignment form. A pass takes a graph and returns
another one. Broadcasts and casts are nodes of their own: the operands of an elementwise op have one shape and one dtype.

>>> from graphc.ir import Builder
>>> from graphc.types import TensorType, float32
>>> import graphc.ops as ops
>>> b = Builder("double")
>>> x = b.input("x", TensorType(float32, (2, 3)))
>>> print(b.finish([ops.add(x, x)]))
graph @double(%x: float32[2, 3]) -> float32[2, 3] {
  %0 = add(%x, %x) : float32[2, 3]
  return %0
}
"""

from __future__ import annotations

import re
import types as python_types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, Location, TraceError, VerifyError, user_location
from graphc.op import OPS, OpDef, common_dtype, emit, working_dtype
from graphc.operators import Operators
from graphc.types import (
    DType,
    Shape,
    Size,
    TensorType,
    broadcast_shapes,
    complex32,
    complex64,
    dtype_of,
    float64,
    is_stretched,
    scalar_array,
    scalar_dtype,
)

_NOTHING: Mapping[str, Any] = python_types.MappingProxyType({})


class Value(Operators):
    """An edge of the graph: an input, or a result of a node. Compared by identity."""

    __slots__ = ("__weakref__", "builder", "index", "info", "name", "node", "type")
    __array_ufunc__ = None  # an ndarray on the left of an operator leaves it to ours

    def __init__(
        self,
        type_: TensorType,
        node: Node | None,
        index: int,
        name: str | None = None,
        info: Mapping[str, Any] = _NOTHING,
        builder: Builder | None = None,
    ) -> None:
        self.type = type_
        self.node = node
        self.index = index
        """Which result of its node, or which input of its graph."""
        self.name = name
        self.info = info
        """What an input stands for, such as {"param": "fc.weight"}."""
        self.builder = builder

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def __graphc_emitter__(self) -> Builder:
        if self.builder is None:
            made = self.node.location if self.node is not None else None
            raise TraceError(
                f"a value was used outside the trace that made it: {self!r}" + (f", made at {made}" if made else ""),
                expected="a tensor with numbers",
                got="a value that stands for numbers of a later run",
                hint="return it from the function that is traced, instead of keeping it in a variable outside",
            )
        return self.builder

    def __repr__(self) -> str:
        return f"%{self.name or self.index}: {self.type}"


class Node:
    """One operation: an op's record, operands, attributes, and the values that it defines."""

    __slots__ = ("attrs", "location", "op", "operands", "results")

    def __init__(
        self,
        record: OpDef,
        operands: Sequence[Value],
        attrs: Mapping[str, Any],
        types: Sequence[TensorType],
        location: Location | None,
        builder: Builder | None,
    ) -> None:
        self.op = record
        self.operands = tuple(operands)
        # that of another node, which nobody can change, serves this one as well
        self.attrs = attrs if type(attrs) is python_types.MappingProxyType else python_types.MappingProxyType(dict(attrs))
        self.location = location
        if len(types) == 1:
            self.results: tuple[Value, ...] = (Value(types[0], self, 0, None, _NOTHING, builder),)
        else:
            self.results = tuple([Value(t, self, i, None, _NOTHING, builder) for i, t in enumerate(types)])

    @property
    def result(self) -> Value:
        """The one result; VerifyError if there are several."""
        if len(self.results) != 1:
            raise VerifyError(f"{self.op.name} has {len(self.results)} results")
        return self.results[0]

    def __repr__(self) -> str:
        operands = ", ".join(f"%{v.name or v.index}" for v in self.operands)
        return f"<{self.op.name}({operands}) : {', '.join(str(r.type) for r in self.results)}>"


class Graph:
    """An immutable graph. Equal graphs have equal inputs, nodes and outputs; locations in the source do not count."""

    __slots__ = ("_structure", "inputs", "key", "name", "nodes", "output_names", "outputs")

    def __init__(
        self,
        name: str,
        inputs: Sequence[Value],
        nodes: Sequence[Node],
        outputs: Sequence[Value],
        output_names: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self.output_names = tuple(output_names) if output_names else None
        self._structure: tuple[Any, ...] | None = None
        self.key: str | None = None
        """What `graph_key` has found; None before."""

    def values(self) -> Iterator[Value]:
        """Inputs, then the results of the nodes, in order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results

    def walk(self) -> Iterator[Node]:
        """The nodes, each followed by those of the graphs that it runs."""
        for node in self.nodes:
            yield node
            for attribute in node.attrs.values():
                if isinstance(attribute, Graph):
                    yield from attribute.walk()

    def uses(self) -> dict[Value, int]:
        """How often each value is used, as an operand or as an output."""
        count = dict.fromkeys(self.values(), 0)
        for node in self.nodes:
            for operand in node.operands:
                count[operand] += 1
        for value in self.outputs:
            count[value] += 1
        return count

    def structure(self) -> tuple[Any, ...]:
        """A hashable description, equal for equal graphs."""
        if self._structure is None:
            number = {value: i for i, value in enumerate(self.values())}
            self._structure = (
                self.name,
                tuple(
                    (v.name, v.type, tuple((k, attribute_key(a)) for k, a in sorted(v.info.items()))) for v in self.inputs
                ),
                tuple(
                    (
                        node.op.name,
                        tuple(number[v] for v in node.operands),
                        tuple((k, attribute_key(a)) for k, a in sorted(node.attrs.items())),
                        tuple((r.type, r.name) for r in node.results),
                    )
                    for node in self.nodes
                ),
                tuple(number[v] for v in self.outputs),
                self.output_names,
            )
        return self._structure

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.structure() == other.structure()

    def __hash__(self) -> int:
        return hash(self.structure())

    def __str__(self) -> str:
        from graphc.text import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self.inputs)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs>"


_LONGEST_KEY = 256
_STEPS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}
"""The ops that compute the steps of a `DimNumber`."""


def attribute_key(attribute: Any) -> Any:
    """An attribute as something hashable that tells 1 from 1.0 and True, and 0.0 from -0.0, and equates NaNs."""
    if isinstance(attribute, np.ndarray):
        contents = attribute.tobytes()
        if len(contents) > _LONGEST_KEY:
            import hashlib  # which loads OpenSSL

            contents = hashlib.blake2b(contents, digest_size=32).digest()
        return (attribute.dtype.str, attribute.shape, contents)
    if isinstance(attribute, tuple):
        return tuple(map(attribute_key, attribute))
    if isinstance(attribute, float):
        return ("float", attribute.hex())
    if isinstance(attribute, complex):
        return ("complex", attribute.real.hex(), attribute.imag.hex())
    if isinstance(attribute, (bool, int)):
        return (type(attribute).__name__, attribute)
    return attribute


class Builder:
    """Makes one graph, node by node. It is the emitter of its values: `ops.exp(value)` appends a node here."""

    priority = 10

    def __init__(self, name: str = "main", *, locations: bool = True) -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self._locations = locations
        self.location: Location | None = None
        """Where new nodes are said to come from; by default the user's line that is running."""
        self._scalars: dict[Any, Value] = {}

    def input(self, name: str | None, type_: TensorType, /, **info: Any) -> Value:
        """Add an input; `info` is kept with it and printed."""
        value = Value(type_, None, len(self.inputs), name, python_types.MappingProxyType(info), self)
        self.inputs.append(value)
        return value

    def append(
        self,
        record: OpDef,
        operands: Sequence[Value],
        attrs: Mapping[str, Any],
        types: Sequence[TensorType],
        location: Location | None = None,
    ) -> Node:
        """Append a node as it stands, without inference."""
        node = Node(record, operands, attrs, types, location, self)
        self.nodes.append(node)
        return node

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Append a node for the op, with the casts, broadcasts and constants that it needs."""
        if record.elementwise:
            operands, narrow = self._broadcast(record, args)
        else:
            operands, narrow = self._widen(record, tuple(map(self.lift, args)))
            # what is written with a node, and not computed, has to be a number
            attrs = {name: float(item) if isinstance(item, DimNumber) else item for name, item in attrs.items()}
        inferred = record.infer(*(v.type for v in operands), **attrs)
        several = isinstance(inferred, tuple)
        location = self.location or (user_location() if self._locations else None)
        node = self.append(record, operands, attrs, inferred if several else (inferred,), location)
        results = tuple(node.results) if narrow is None else tuple(_narrowed(value, narrow) for value in node.results)
        return results if several else results[0]

    def lift(self, arg: Any) -> Value:
        """An argument as a value of this graph: a number or an array becomes a constant."""
        if isinstance(arg, Value):
            if arg.builder is not self:
                arg.__graphc_emitter__  # noqa: B018  (raises where the other graph is finished)
                raise TraceError(f"a value of another graph was used: {arg!r} is not in graph {self.name!r}")
            return arg
        if isinstance(arg, (bool, int, float, complex, np.generic, np.ndarray)):
            return self.constant(np.asarray(arg))
        if isinstance(arg, (Dim, DimNumber)):
            return self.constant(arg)
        raise ArgumentTypeError(
            f"graph {self.name!r} cannot hold a {type(arg).__name__}", expected="a graph value, a number or an array"
        )

    def constant(self, value: Any, dtype: DType | None = None) -> Value:
        """A constant node that holds a copy of the value; equal scalars share one. A symbolic size becomes a `size` node, and
        what is computed from sizes the nodes that compute it, as Python would."""
        if isinstance(value, Dim):
            return self.emit(OPS["size"], (), {"value": value, "dtype": dtype or scalar_dtype(value)})
        if isinstance(value, DimNumber):
            dtype = dtype or scalar_dtype(value)
            computed = value.emit(self._step)
            return computed if dtype is float64 else emit(OPS["cast"], computed, dtype=dtype)
        if isinstance(value, (bool, int, float, complex)):
            dtype = dtype or scalar_dtype(value)
            array = scalar_array(value, dtype)
        else:
            dtype = dtype or dtype_of(np.asarray(value).dtype)
            array = np.array(value, dtype.numpy, order="C")
        array.setflags(write=False)
        key = (dtype.name, array.tobytes()) if array.ndim == 0 else None
        if key is not None and key in self._scalars:
            return self._scalars[key]
        result = self.append(OPS["constant"], (), {"value": array}, (TensorType(dtype, array.shape),)).result
        if key is not None:
            self._scalars[key] = result
        return result

    def _step(self, step: str, left: Any, right: Any) -> Value:
        """A step of arithmetic in the precision of Python's floats."""
        left, right = (x if isinstance(x, Value) else self.constant(x, float64) for x in (left, right))
        return self.emit(OPS[_STEPS[step]], (left, right), {})

    def _broadcast(self, record: OpDef, args: tuple[Any, ...]) -> tuple[tuple[Value, ...], DType | None]:
        """The operands of an elementwise op, cast to one dtype and broadcast to one shape; and the dtype that the result is
        to be cast to, where that is another one."""
        values = [arg if isinstance(arg, (bool, int, float, complex, Dim, DimNumber)) else self.lift(arg) for arg in args]
        described: list[Any] = [v.type if isinstance(v, Value) else v for v in values]
        common = common_dtype(record, described)
        dtype = working_dtype(record, described, common)
        shape = broadcast_shapes(*(t.shape if isinstance(t, TensorType) else () for t in described), op=record.name)
        out = []
        for i, value in enumerate(values):
            if not isinstance(value, Value):
                value = self.constant(value, dtype)
            if value.dtype is not dtype and record.operands[i] not in record.keeps:
                value = emit(OPS["cast"], value, dtype=dtype)
            out.append(self._stretch(value, shape) if is_stretched(value.shape, shape) else value)
        return tuple(out), None if dtype is common else common

    def _widen(self, record: OpDef, operands: tuple[Value, ...]) -> tuple[tuple[Value, ...], DType | None]:
        """The operands of another op in dtypes that it computes in; and what the results are to be cast to, as above."""
        if not record.computes or all(value.dtype is not complex32 for value in operands):
            return operands, None
        cast = OPS["cast"]
        return tuple(emit(cast, v, dtype=complex64) if v.dtype is complex32 else v for v in operands), complex32

    def _stretch(self, value: Value, shape: tuple[Size, ...]) -> Value:
        return emit(OPS["broadcast_to"], value, shape=shape)

    def finish(self, outputs: Iterable[Value], output_names: Sequence[str] | None = None) -> Graph:
        """The graph. Its values take no further part in building."""
        graph = Graph(self.name, self.inputs, self.nodes, [self.lift(v) for v in outputs], output_names)
        self.abandon()
        return graph

    def abandon(self) -> None:
        """Cut the values loose: using one later is an error that says so."""
        for value in self.inputs:
            value.builder = None
        for node in self.nodes:
            for value in node.results:
                value.builder = None


def _narrowed(value: Value, dtype: DType) -> Value:
    """What was computed in a wider dtype, rounded; integers and booleans, and parts of complex numbers, as such."""
    if not value.dtype.is_differentiable:
        return value
    return emit(OPS["cast"], value, dtype=dtype if value.dtype.is_complex else dtype.to_real())


def rebuild(
    graph: Graph,
    visit: Callable[[Builder, Node, tuple[Value, ...]], Sequence[Value] | None],
    *,
    name: str | None = None,
    outputs: Sequence[Value] | None = None,
) -> Graph:
    """Copy a graph node by node. `visit(builder, node, operands)` may return other values for the node's results, or
    None to copy it; `outputs` are values of the old graph."""
    builder = Builder(name or graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    for node in graph.nodes:
        operands = tuple([new[v] for v in node.operands])
        builder.location = node.location
        results = visit(builder, node, operands)
        if results is None:
            results = copy_node(builder, node, operands).results
        new.update(zip(node.results, results))
    chosen = graph.outputs if outputs is None else outputs
    return builder.finish([new[v] for v in chosen], graph.output_names if outputs is None else None)


def copy_node(builder: Builder, node: Node, operands: Sequence[Value]) -> Node:
    """Append a copy of the node with other operands of the same types; its results keep their names."""
    results = node.results
    copied = Node(node.op, operands, node.attrs, [r.type for r in results], node.location, builder)
    builder.nodes.append(copied)
    for old in results:
        if old.name is not None:
            copied.results[old.index].name = old.name
    return copied


def inline(graph: Graph, values: Sequence[Any], like: Any) -> list[Any]:
    """Apply the ops of a graph to values of any kind, in the place of its inputs: on values of a graph its nodes are appended
    to that, with their locations, and tensors are computed with. `like` is any value of that kind. Returns what the outputs
    have become."""
    known = dict(zip(graph.inputs, values, strict=True))
    builder = like.builder if isinstance(like, Value) else None
    around = None if builder is None else builder.location
    for node in graph.nodes:
        if builder is not None:
            builder.location = node.location or around
        results = node.op(*(known[v] for v in node.operands), like=like, **node.attrs)
        known.update(zip(node.results, results if isinstance(results, tuple) else (results,)))
    if builder is not None:
        builder.location = around
    return [known[v] for v in graph.outputs]


def with_inputs(graph: Graph, types: Sequence[TensorType], places: Mapping[int, int]) -> Graph:
    """The graph with inputs of these types: input `i` of it is now input `places[i]`. It must not need any other."""
    builder = Builder(graph.name, locations=False)
    inputs = [builder.input(None, type_) for type_ in types]
    new = {graph.inputs[i]: inputs[place] for i, place in places.items()}
    for node in graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in graph.outputs])


def map_graphs(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with other graphs as attributes of its nodes; the graph itself if none is another one."""
    changed: dict[Node, dict[str, Any]] = {}
    for node in graph.nodes:
        if own := {name: a for name, a in node.attrs.items() if isinstance(a, Graph)}:
            new = {name: change(a) for name, a in own.items()}
            if any(new[name] is not own[name] for name in own):
                changed[node] = new
    if not changed:
        return graph

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node not in changed:
            return None
        attrs = {**node.attrs, **changed[node]}
        copied = builder.append(node.op, operands, attrs, [r.type for r in node.results], node.location)
        for old, made in zip(node.results, copied.results):
            made.name = old.name
        return copied.results

    return rebuild(graph, visit)


_IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*")


def is_name(text: str) -> bool:
    """Whether an input may be called so."""
    return _IDENTIFIER.fullmatch(text) is not None
