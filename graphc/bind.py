"""Putting numbers in for symbolic sizes, once the shapes of the inputs are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.assumptions import evaluate
from graphc.conditions import WHERE, conditions, written
from graphc.dims import Dim
from graphc.errors import ShapeError
from graphc.ir import Builder, Graph, Value
from graphc.types import Shape, TensorType, dtype_of


def check_inputs(graph: Graph, arrays: Sequence[np.ndarray]) -> None:
    """Count, dtypes and numbers of dimensions of the arrays against the graph's inputs; ShapeError where they differ."""
    if len(arrays) != len(graph.inputs):
        raise ShapeError(f"graph {graph.name!r}: wrong number of inputs", expected=str(len(graph.inputs)), got=str(len(arrays)))
    for value, array in zip(graph.inputs, arrays):
        if dtype_of(array.dtype) is not value.dtype or array.ndim != value.ndim:
            raise ShapeError(
                f"input {value.name or value.index!r} does not fit",
                expected=str(value.type),
                got=str(TensorType(dtype_of(array.dtype), array.shape)),
            )


def bind_sizes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The numbers that symbolic sizes stand for, given the shapes of the inputs; ShapeError where those do not fit."""
    sizes = solve([value.shape for value in graph.inputs], shapes)
    for value, shape in zip(graph.inputs, shapes, strict=True):
        expected = value.type.bind(sizes).shape
        if expected != tuple(shape):
            raise ShapeError(
                f"input {value.name or value.index!r} has the wrong shape",
                expected=str(value.type) + (f" with {sizes}" if sizes else ""),
                got=str(list(shape)),
            )
    check_conditions(graph, sizes)
    return sizes


def check_conditions(graph: Graph, sizes: Mapping[str, int]) -> None:
    """ShapeError where numbers for all symbols break what the graph says of them."""
    failure = evaluate(conditions(value.info for value in graph.inputs), sizes)
    if failure is not None:
        raise ShapeError(f"graph {graph.name!r} does not stand for these sizes", expected=str(failure.relation),
                         got=failure.values())


def solve(patterns: Sequence[Shape], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The numbers that the symbols of some shapes have where these are other shapes: of `2*N + 1` and 7 that of N is 3.
    A symbol that no dimension tells is left out; whether the numbers fit every dimension is for the caller to see."""
    sizes: dict[str, int] = {}
    pending = []
    for pattern, shape in zip(patterns, shapes, strict=True):
        for dim, size in zip(pattern, shape):
            if isinstance(dim, Dim):
                if dim.is_symbol:
                    sizes.setdefault(str(dim), size)
                else:
                    pending.append((dim, size))
    while True:
        left = []
        for dim, size in pending:
            rest = dim.bind(sizes) - size
            if isinstance(rest, Dim):
                found = rest.root()
                if found is None:
                    left.append((dim, size))
                else:
                    sizes[found[0]] = found[1]
        if len(left) == len(pending):
            return sizes
        pending = left


def bind_attributes(attrs: Mapping[str, object], sizes: Mapping[str, int]) -> dict[str, object]:
    """Attributes with numbers put in for symbolic sizes; ShapeError for a size that no input tells."""
    return {name: _bound(attribute, sizes, complete=True) for name, attribute in attrs.items()}


def bind_graph(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph with numbers put in for symbolic sizes; the graph itself if it has none."""
    return _rebuilt(graph, sizes, complete=True)


def substitute(graph: Graph, sizes: Mapping[str, int | Dim]) -> Graph:
    """The graph with other sizes put in for some of its symbols; the graph itself if it has none."""
    return _rebuilt(graph, sizes, complete=False)


def _bound(attribute: object, sizes: Mapping[str, int | Dim], complete: bool) -> object:
    if isinstance(attribute, Dim):
        if complete and (unknown := attribute.symbols() - sizes.keys()):
            raise ShapeError(f"the size {', '.join(sorted(unknown))} is not known", got=f"{attribute} among the attributes",
                             expected="sizes that are dimensions of the inputs")
        return attribute.bind(sizes)
    if isinstance(attribute, Graph):
        return _rebuilt(attribute, sizes, complete)
    return tuple(_bound(item, sizes, complete) for item in attribute) if isinstance(attribute, tuple) else attribute


def is_symbolic(attribute: object) -> bool:
    """Whether a graph, or an attribute of a node, has sizes that are not numbers."""
    if isinstance(attribute, Graph):
        return not all(value.type.is_static for value in attribute.values()) or any(
            is_symbolic(item) for node in attribute.nodes for item in node.attrs.values())
    return isinstance(attribute, Dim) or (isinstance(attribute, tuple) and any(map(is_symbolic, attribute)))


def _bound_info(info: Mapping[str, Any], sizes: Mapping[str, int | Dim]) -> dict[str, Any]:
    """What stands with an input, and the conditions on sizes that are left."""
    left = [bound for condition in conditions([info]) if (bound := condition.bind(sizes)) is not None]
    return {**{key: item for key, item in info.items() if key != WHERE}, **written(left)}


def _rebuilt(graph: Graph, sizes: Mapping[str, int | Dim], complete: bool) -> Graph:
    if not is_symbolic(graph):
        return graph
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type.bind(sizes), **_bound_info(v.info, sizes)) for v in graph.inputs}
    for node in graph.nodes:
        types = [r.type.bind(sizes) for r in node.results]
        attrs = {name: _bound(attribute, sizes, complete) for name, attribute in node.attrs.items()}
        copied = builder.append(node.op, [new[v] for v in node.operands], attrs, types, node.location)
        new.update(zip(node.results, copied.results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)
