"""Control flow: operators with graphs inside of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim
from graphc.ir import Builder, Graph, Value, inline
from graphc.onnx_format.reader.call import Call, Inner
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import TensorType, bool_, int64


def _graph(c: Call, name: str) -> Any:
    found = c.attributes.get(name)
    if found is None or not hasattr(found, "node"):
        raise BadModel(f"the attribute {name} is not a graph")
    return found


@reads("If")
def _if(c: Call) -> Any:
    """One branch alone where it is known which."""
    then, otherwise = _graph(c, "then_branch"), _graph(c, "else_branch")
    condition = c.known(0)
    if condition is not None and condition.size == 1:
        return tuple(c.graphs.inline(then if bool(condition.reshape(-1)[0]) else otherwise, c.scope))
    branches = [c.graphs.inner(proto, c.scope, ()) for proto in (then, otherwise)]
    captured: dict[str, Value] = {}
    for branch in branches:
        captured |= dict(zip(branch.captured, branch.values))
    graphs = [_taking(branch, captured) for branch in branches]
    if [v.type for v in graphs[0].outputs] != [v.type for v in graphs[1].outputs]:
        got = " and ".join(str([v.type for v in graph.outputs]) for graph in graphs)
        raise BadModel("the branches of an If differ in the types of their results", got=got)
    return ops.cond(ops.reshape(c[0], ()), *captured.values(), then=graphs[0], otherwise=graphs[1])


def _taking(branch: Inner, captured: dict[str, Value]) -> Graph:
    """The graph as one of all captured values."""
    builder = Builder(branch.graph.name, locations=False)
    inputs = {name: builder.input(None, value.type) for name, value in captured.items()}
    like = next(iter(inputs.values()), None)
    return builder.finish(inline(branch.graph, [inputs[name] for name in branch.captured], _like(builder, like)))


def _like(builder: Builder, value: Value | None) -> Value:
    return builder.constant(0, int64) if value is None else value


@reads("Loop")
def _loop(c: Call) -> Any:
    """As long as its number of steps is known and its condition stays true, a scan; else a while_loop, which has no rows."""
    body = _graph(c, "body")
    state = [c[i] for i in range(2, len(c.operands))]
    types = [TensorType(int64, ()), TensorType(bool_, ()), *(v.type for v in state)]
    inner = c.graphs.inner(body, c.scope, types)
    carries = len(state)
    rows = len(inner.graph.outputs) - 1 - carries
    if rows < 0 or [v.type for v in inner.graph.outputs[1 : 1 + carries]] != [v.type for v in state]:
        raise BadModel("the body of a Loop returns other values than it takes", expected=str([v.type for v in state]),
                       got=str([v.type for v in inner.graph.outputs[1 : 1 + carries]]))
    unchanged = _stays_true(inner.graph)
    look = c.content if rows and unchanged else c.known  # how many rows there are has to be known
    trips = look(0) if c.has(0) else None
    first = look(1) if c.has(1) else np.array(True)
    if trips is not None and unchanged and first is not None and bool(first.reshape(-1)[0]):
        number = trips.reshape(-1)[0]
        return _counted(c, inner, state, number if isinstance(number, Dim) else max(0, int(number)))
    if rows:
        raise BadModel("a Loop that collects rows, and ends when its condition says so: how many there are is not known",
                       hint="a number of steps that is known, and a condition that stays true")
    return _conditional(c, inner, state)


def _stays_true(graph: Graph) -> bool:
    """Whether a body returns its condition as it is, or true."""
    going = graph.outputs[0]
    if going is graph.inputs[1]:
        return True
    node = going.node
    return node is not None and node.op.name == "constant" and bool(np.all(node.attrs["value"]))


def _counted(c: Call, inner: Inner, state: Sequence[Value], length: Any) -> Any:
    builder = Builder(inner.graph.name, locations=False)
    carried = [builder.input(None, v.type) for v in state]
    step = builder.input(None, TensorType(int64, ()))
    captured = [builder.input(None, v.type) for v in inner.values]
    _, *results = inline(inner.graph, [step, builder.constant(True, bool_), *carried, *captured], step)
    body = builder.finish(results)
    steps = ops.iota(shape=(length,), axis=0, dtype=int64, like=c.scope.builder.constant(0, int64))
    return ops.scan(*state, steps, *inner.values, body=body, carries=len(state), scanned=1, length=length, reverse=False)


def _conditional(c: Call, inner: Inner, state: Sequence[Value]) -> Any:
    going = ops.reshape(c[1], ()) if c.has(1) else c.scope.builder.constant(True, bool_)
    count = c.scope.builder.constant(0, int64)
    most = ops.reshape(c[0], ()) if c.has(0) else c.scope.builder.constant((1 << 63) - 1, int64)
    operands = [count, going, *state, most, *inner.values]
    types = [v.type for v in operands]
    carries = 2 + len(state)

    def start(name: str) -> tuple[Builder, list[Value]]:
        builder = Builder(name, locations=False)
        return builder, [builder.input(None, type_) for type_ in types]

    builder, values = start("condition")
    condition = builder.finish([(values[0] < values[carries]) & values[1]])
    builder, values = start("body")
    again, *new = inline(inner.graph, [*values[:carries], *values[carries + 1 :]], values[0])
    body = builder.finish([values[0] + 1, ops.reshape(again, ()), *new])
    return ops.while_loop(*operands, condition=condition, body=body, carries=carries)[2:]


@reads("Scan")
def _scan(c: Call) -> Any:
    if c.opset < 9:
        return _batched_scan(c)
    proto = _graph(c, "body")
    count = c.int("num_scan_inputs")
    values = c.values()
    if count is None or not 0 < count <= len(values):
        raise BadModel("num_scan_inputs", expected=f"1 to {len(values)}", got=str(count))
    state, rows = values[: len(values) - count], values[len(values) - count :]
    axes = c.ints("scan_input_axes", (0,) * count)
    rows = [_front(x, c.checked_axis(axis, x.ndim)) for x, axis in zip(rows, axes, strict=True)]
    backwards = c.ints("scan_input_directions", (0,) * count)
    rows = [ops.flip(x, (0,)) if turned else x for x, turned in zip(rows, backwards, strict=True)]
    types = [*(v.type for v in state), *(x.type.with_shape(x.shape[1:]) for x in rows)]
    inner = c.graphs.inner(proto, c.scope, types)
    results = ops.scan(*state, *rows, *inner.values, body=inner.graph, carries=len(state), scanned=count,
                       length=rows[0].shape[0], reverse=False)
    made = list(results[len(state) :])
    turned_back = c.ints("scan_output_directions", (0,) * len(made))
    places = c.ints("scan_output_axes", (0,) * len(made))
    for i, (x, turned, axis) in enumerate(zip(made, turned_back, places, strict=True)):
        x = ops.flip(x, (0,)) if turned else x
        made[i] = _to(x, c.checked_axis(axis, x.ndim))
    return (*results[: len(state)], *made)


def _front(x: Value, axis: int) -> Value:
    return x if axis == 0 else ops.permute(x, (axis, *(i for i in range(x.ndim) if i != axis)))


def _to(x: Value, axis: int) -> Value:
    """The first dimension moved."""
    order = list(range(1, x.ndim))
    order.insert(axis, 0)
    return x if axis == 0 else ops.permute(x, tuple(order))


def _batched_scan(c: Call) -> Any:
    """Version 8, with a batch in front of everything: one sequence of it is like another one, so it has to be one alone."""
    proto, count = _graph(c, "body"), c.int("num_scan_inputs")
    values = [c[i] for i in range(1, len(c.operands))]
    if c.has(0) or c.ints("directions") or any(v.shape[0] != 1 for v in values):
        raise BadModel("a Scan of version 8 over a batch", hint="convert the model to a later version of the operators")
    values = [ops.reshape(v, tuple(v.shape[1:])) for v in values]
    state, rows = values[: len(values) - count], values[len(values) - count :]
    types = [*(v.type for v in state), *(x.type.with_shape(x.shape[1:]) for x in rows)]
    inner = c.graphs.inner(proto, c.scope, types)
    results = ops.scan(*state, *rows, *inner.values, body=inner.graph, carries=len(state), scanned=count,
                       length=rows[0].shape[0], reverse=False)
    return tuple(ops.reshape(r, (1, *r.shape)) for r in results)
