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
    return _loop(w, step, len(step.names), keeps=False)


@writes("while_loop_vjp")
def _while_loop_vjp(w: Writer, step: Step) -> Any:
    """The loop, which keeps what it carries before each step as a row; then one over the rows, from the last."""
    carries, body, backward = (step.attrs[name] for name in ("carries", "body", "backward"))
    count = len(body.inputs)
    kept = _loop(w, step, count, keeps=True)[carries:]
    steps = w.emit("Squeeze", w.emit("Shape", kept[0], start=0, end=1))
    last = w.emit("Sub", steps, w.number(1, int64))
    given = step.names[count:]
    zero = [w.expand(w.number(0, t.dtype), TensorType(t.dtype, ()), t.shape) for t in step.types[len(given) :]]
    inner, inputs, names = _loop_body(w, step.types)
    at = inner.emit("Sub", last, names[0])
    state = [inner.emit("Gather", rows, at, axis=0) for rows in kept]
    outputs = write_nodes(inner, backward, [*state, *step.names[carries:count], *names[2:]])
    graph = _finish(inner, backward.name, inputs, [(names[1], TensorType(bool_, ()))], outputs, step.types)
    return w.emit("Loop", steps, "", *given, *zero, outputs=len(outputs), body=graph)


def _loop(w: Writer, step: Step, count: int, *, keeps: bool) -> Any:
    """The loop of the first operands, which may keep what it carries: its results are followed by these rows then."""
    carries, condition, body = (step.attrs[name] for name in ("carries", "condition", "body"))
    same = step.names[carries:count]
    (going,) = write_nodes(w, condition, step.names[:count])
    types = [v.type for v in step.operands[:carries]]
    inner, inputs, names = _loop_body(w, types)
    state = write_nodes(inner, body, [*names[2:], *same])
    (again,) = write_nodes(inner, condition, [*state, *same])
    outputs = [*state, *names[2:]] if keeps else state
    graph = _finish(inner, body.name, inputs, [(again, TensorType(bool_, ()))], outputs, [*types, *types])
    return w.emit("Loop", "", going, *step.names[:carries], outputs=len(outputs), body=graph)


def _loop_body(w: Writer, types: Sequence[TensorType]) -> tuple[Writer, list[Any], list[str]]:
    """The graph of a loop's step, to be written: its inputs, and their names; the first two are the number of the step, and
    whether the loop goes on."""
    names = [w.model.free(name) for name in ("iteration", "going", *("carry" for _ in types))]
    of_every_loop = TensorType(int64, ()), TensorType(bool_, ())
    return Writer(w.model, w), [value_info(name, type_) for name, type_ in zip(names, (*of_every_loop, *types))], names


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
