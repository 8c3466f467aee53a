"""Control flow as ONNX nodes with graphs inside, which read what is outside by its name: captured operands are not passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.onnx_format.export.graphs import write_nodes
from graphc.onnx_format.export.movement import count
from graphc.onnx_format.export.table import writes
from graphc.onnx_format.export.values import value_info
from graphc.onnx_format.export.writer import Step, Writer
from graphc.onnx_format.protobuf import onnx
from graphc.types import TensorType, bool_, int64


def _finish(
    inner: Writer, name: str, inputs: Sequence[Any], extra: Sequence[tuple[str, TensorType]], outputs: Sequence[str],
    types: Sequence[TensorType],
) -> Any:
    """A GraphProto of what has been written. Each output gets a name of its own, defined inside."""
    described = []
    for output, type_ in (*extra, *zip(outputs, types)):
        described.append(value_info(inner.emit("Identity", output), type_))
    return onnx("onnx.helper").make_graph(inner.nodes, name, list(inputs), described)


@writes("cond")
def _cond(w: Writer, step: Step) -> Any:
    branches = {}
    for attribute, name in (("then_branch", "then"), ("else_branch", "otherwise")):
        inner, graph = Writer(w.model, w), step.attrs[name]
        outputs = write_nodes(inner, graph, step.names[1:])
        branches[attribute] = _finish(inner, graph.name, [], [], outputs, step.types)
    return w.emit("If", step.names[0], outputs=len(step.types), **branches)


@writes("while_loop")
def _while_loop(w: Writer, step: Step) -> Any:
    carries, condition, body = (step.attrs[name] for name in ("carries", "condition", "body"))
    same = step.names[carries:]
    (going,) = write_nodes(w, condition, step.names)
    inner = Writer(w.model, w)
    types = [TensorType(int64, ()), TensorType(bool_, ()), *(v.type for v in step.operands[:carries])]
    names = [w.model.free(name) for name in ("iteration", "going", *("carry" for _ in range(carries)))]
    state = write_nodes(inner, body, [*names[2:], *same])
    (again,) = write_nodes(inner, condition, [*state, *same])
    inputs = [value_info(name, type_) for name, type_ in zip(names, types)]
    graph = _finish(inner, body.name, inputs, [(again, TensorType(bool_, ()))], state, types[2:])
    return w.emit("Loop", "", going, *step.names[:carries], outputs=carries, body=graph)


@writes("scan")
def _scan(w: Writer, step: Step) -> Any:
    carries, scanned, body, length = (step.attrs[name] for name in ("carries", "scanned", "body", "length"))
    state, rows, same = step.names[:carries], step.names[carries : carries + scanned], step.names[carries + scanned :]
    names = [w.model.free("carry") for _ in state] + [w.model.free("row") for _ in rows]
    types = [value.type for value in body.inputs[: carries + scanned]]
    inner = Writer(w.model, w)
    outputs = write_nodes(inner, body, [*names, *same])
    if not rows:  # ONNX counts the steps by what is scanned
        rows, names, types = (count(w, length),), [*names, w.model.free("row")], [*types, TensorType(int64, ())]
    inputs = [value_info(name, type_) for name, type_ in zip(names, types)]
    graph = _finish(inner, body.name, inputs, [], outputs, [v.type for v in body.outputs])
    backwards: dict[str, Any] = {}
    if step.attrs["reverse"]:
        backwards["scan_input_directions"] = [1] * len(rows)
        if len(outputs) > carries:
            backwards["scan_output_directions"] = [1] * (len(outputs) - carries)
    return w.emit("Scan", *state, *rows, outputs=len(outputs), body=graph, num_scan_inputs=len(rows), **backwards)
