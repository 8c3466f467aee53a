"""Running a graph node by node with each op's NumPy definition: slow, obvious, and the oracle for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Graph, Value
from graphc.types import TensorType, dtype_of


def bind_sizes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The numbers that symbolic sizes stand for, given the shapes of the inputs."""
    from graphc.dims import Dim

    sizes: dict[str, int] = {}
    for value, shape in zip(graph.inputs, shapes, strict=True):
        for dim, size in zip(value.shape, shape):
            if isinstance(dim, Dim) and len(dim.symbols()) == 1 and dim == Dim.symbol(*dim.symbols()):
                sizes.setdefault(str(dim), size)
    for value, shape in zip(graph.inputs, shapes, strict=True):
        expected = value.type.bind(sizes).shape
        if expected != tuple(shape):
            raise ShapeError(
                f"input {value.name or value.index!r} has the wrong shape",
                expected=str(value.type) + (f" with {sizes}" if sizes else ""),
                got=str(list(shape)),
            )
    return sizes


def interpret(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of the graph for the given inputs."""
    arrays = [np.asarray(array) for array in arrays]
    check_inputs(graph, arrays)
    sizes = bind_sizes(graph, [array.shape for array in arrays])
    known: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays))
    for node in graph.nodes:
        results = node.op.ref(*(known[v] for v in node.operands), **bind_attributes(node.attrs, sizes))
        for value, array in zip(node.results, results if isinstance(results, tuple) else (results,)):
            known[value] = np.asarray(array)
    return [known[value] for value in graph.outputs]


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


def bind_attributes(attrs: Mapping[str, object], sizes: Mapping[str, int]) -> dict[str, object]:
    """Attributes with numbers put in for symbolic sizes."""
    from graphc.dims import Dim

    def bind(attribute: object) -> object:
        if isinstance(attribute, Dim):
            return attribute.bind(sizes)
        return tuple(map(bind, attribute)) if isinstance(attribute, tuple) else attribute

    return {name: bind(attribute) for name, attribute in attrs.items()} if sizes else dict(attrs)
