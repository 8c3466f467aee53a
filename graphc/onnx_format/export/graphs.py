"""Writing a graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dims import Dim
from graphc.errors import GraphcError, UnsupportedError
from graphc.ir import Graph, Node, Value
from graphc.onnx_format.export.matching import Match, stretched
from graphc.onnx_format.export.norms import spelled_out
from graphc.onnx_format.export.patterns import match
from graphc.onnx_format.export.table import EXPANSIONS, MISSING, WRITERS
from graphc.onnx_format.export.writer import Step, Writer, builder_for
from graphc.types import Size, is_one


def write_nodes(w: Writer, graph: Graph, names: Sequence[str]) -> list[str]:
    """Append the nodes of a graph whose inputs are known by these names; the names of its outputs."""
    graph = spelled_out(graph)
    known: dict[Value, str] = dict(zip(graph.inputs, names, strict=True))
    for node, found in _planned(graph, w.opset):
        step = Step(node.op, found.operands, tuple(known[v] for v in found.operands), node.attrs,
                    tuple(r.type for r in node.results), node.location)
        results = _written(w, step) if found.write is None else found.write(w, step)
        known.update(zip(node.results, (results,) if isinstance(results, str) else results, strict=True))
    return [known[v] for v in graph.outputs]


def _planned(graph: Graph, opset: int) -> list[tuple[Node, Match]]:
    """The nodes to write, in order, and what each reads: nodes that become part of another one are left out."""
    needed = set(graph.outputs)
    planned = []
    for node in reversed(graph.nodes):
        if any(result in needed for result in node.results):
            found = match(node, opset, needed) or Match(_without_broadcasts(node))
            needed.update(found.operands)
            planned.append((node, found))
    return planned[::-1]


def _written(w: Writer, step: Step) -> Any:
    if any(type_.dtype.is_complex for type_ in (*(value.type for value in step.operands), *step.types)):
        raise _missing(step, "keep real and imaginary parts in a dimension of their own", " on complex numbers")
    write = WRITERS.get(step.op.name)
    results = None if write is None else write(w, step)
    if results is not None:
        return results
    expanded = _expanded(step)
    if expanded is None:
        raise _missing(step, MISSING.get(step.op.name, "compute this part outside of the exported function"))
    return write_nodes(w, expanded, step.names)


def _expanded(step: Step) -> Graph | None:
    """The step as a graph of simpler ops."""
    record = step.op
    make = EXPANSIONS.get(record.name) or (record.scalar if record.elementwise else None) or record.decompose
    if make is None:
        return None
    builder, operands = builder_for(step)
    results = make(*operands, **step.attrs)
    if results is None:
        return None
    return builder.finish(results if isinstance(results, tuple) else (results,))


def _missing(step: Step, hint: str, what: str = "") -> GraphcError:
    got = ", ".join(str(value.type) for value in step.operands)
    return UnsupportedError(f"ONNX has no operator for {step.op.name}{what}", got=f"{step.op.name}({got})", hint=hint,
                            at=step.location)


def _without_broadcasts(node: Node) -> tuple[Value, ...]:
    """The operands, before they were stretched, where ONNX's operator stretches them by itself."""
    if node.op.name == "matmul":
        return _matrices(node)
    operands = list(node.operands)
    if not node.op.elementwise or len(operands) < 2:
        return node.operands
    sources = [stretched(v) for v in operands]
    shape = node.results[0].shape
    for i, source in enumerate(sources):
        others = [v.shape for k, v in enumerate(sources) if k != i]
        if not _reaches(shape, [source.shape, *others]) and source is not operands[i]:
            sources[i] = operands[i]
    return tuple(sources)


def _reaches(shape: Sequence[Size], shapes: Sequence[Sequence[Size]]) -> bool:
    """Whether operands of these shapes are stretched to that shape by each other."""
    return all(
        is_one(size) or any(len(other) >= back and _same(other[-back], size) for other in shapes)
        for back, size in enumerate(reversed(shape), 1)
    ) and any(len(other) == len(shape) for other in shapes)


def _same(left: Size, right: Size) -> bool:
    """By their form: nobody is asked."""
    if isinstance(left, Dim) and isinstance(right, Dim):
        return left.terms == right.terms
    return isinstance(left, int) and isinstance(right, int) and left == right


def _matrices(node: Node) -> tuple[Value, ...]:
    """Operands of a product of matrices, without a batch that the other one has."""
    left, right = node.operands
    for i, value in enumerate((right, left)):
        source = stretched(value)
        if source is not value and source.ndim >= 2 and all(map(_same, source.shape[-2:], value.shape[-2:])):
            return (left, source) if i == 0 else (source, right)
    return node.operands
