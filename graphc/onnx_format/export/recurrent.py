"""Recurrent layers, which are scans of a cell, as ONNX's operators: LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.ir import Graph, Node, Value
from graphc.onnx_format.export.matching import Match, made_by, number, stretched
from graphc.onnx_format.export.writer import Step, Writer
from graphc.rewrite import Var, match
from graphc.types import float32

_HIDDEN, _STATE, _IN, _FORGET, _CELL, _OUT = map(Var, ("hidden", "state", "in", "forget", "cell", "out"))
_NEXT = ops.add(ops.mul(ops.sigmoid(_FORGET), _STATE), ops.mul(ops.sigmoid(_IN), ops.tanh(_CELL)))
_LSTM = ops.mul(ops.sigmoid(_OUT), ops.tanh(_NEXT))

_ROWS = tuple(Var(f"row{i}") for i in range(3))
_BEFORE = tuple(Var(f"before{i}") for i in range(3))
_RESET, _UPDATE = (ops.sigmoid(ops.add(_ROWS[i], _BEFORE[i])) for i in range(2))
_NEW = ops.tanh(ops.add(_ROWS[2], ops.mul(_RESET, _BEFORE[2])))
_GRU = ops.add(_NEW, ops.mul(_UPDATE, ops.sub(_HIDDEN, _NEW)))


@dataclass(frozen=True)
class _Cell:
    """What a step computes of a row and what it was: the operator, and the operands of the scan."""

    op_type: str
    order: tuple[int, ...]
    """ONNX's gates, by the numbers that they have here."""
    weight: Value
    """Of what it was, turned."""
    bias: Value | None = None
    """Added to the product with that, where it is not added to the rows."""
    attributes: tuple[tuple[str, Any], ...] = ()


def match_recurrent(node: Node) -> Match | None:
    """The whole of a scan and the product that makes its rows, in single precision: runtimes have no other."""
    body, carries = node.attrs["body"], node.attrs["carries"]
    if node.attrs["scanned"] != 1 or node.results[0].dtype is not float32 or node.attrs["length"] == 0:
        return None
    cell = _lstm(node, body) if carries == 2 else _gru(node, body) or _rnn(node, body) if carries == 1 else None
    turned, rows = None if cell is None else made_by(cell.weight, "permute"), _projected(node.operands[carries])
    hidden = node.results[0].shape[-1]
    if cell is None or turned is None or rows is None or not isinstance(hidden, int):
        return None
    x, weight, bias = rows
    biases = [bias, cell.bias]
    first = [None if number(value) == 0 else value for value in node.operands[:carries]]
    given = [x, weight, turned.operands[0], *biases, *first]
    operands = tuple(value for value in given if value is not None)

    def write(w: Writer, step: Step) -> list[str]:
        rest = iter(step.names)
        x, weight, recurrent, *names = ("" if value is None else next(rest) for value in given)
        gates = np.concatenate([np.arange(hidden) + i * hidden for i in cell.order])[None]
        chosen, one, zero = w.array(gates), w.array(np.array([1])), w.array(np.array([0]))
        weight, recurrent = (str(w.emit("Gather", name, chosen, axis=0)) for name in (weight, recurrent))
        bias = ""
        if any(names[:2]):
            nothing = w.array(np.zeros(gates.shape, np.float32))
            parts = [w.emit("Gather", name, chosen, axis=0) if name else nothing for name in names[:2]]
            bias = w.emit("Concat", *parts, axis=1)
        states = [w.emit("Unsqueeze", name, zero) if name else "" for name in names[2:]]
        results = w.emit(
            cell.op_type, *_without_last_blanks([x, weight, recurrent, bias, "", *states]), outputs=1 + carries,
            hidden_size=hidden, direction="reverse" if node.attrs["reverse"] else "forward", **dict(cell.attributes))
        return [*(w.emit("Squeeze", name, zero) for name in results[1:]), w.emit("Squeeze", results[0], one)]

    return Match(operands, write)


def _without_last_blanks(names: Sequence[str]) -> Sequence[str]:
    while names and not names[-1]:
        names = names[:-1]
    return names


def _lstm(node: Node, body: Graph) -> _Cell | None:
    hidden, state, rows = body.inputs[:3]
    last = body.outputs[0].node
    found = None if last is None else match(_LSTM, last)
    if last is None or found is None or found["state"] is not state or len(body.outputs) != 3:
        return None
    following = last.operands[1].node
    if following is None or body.outputs[1] is not following.operands[0] or body.outputs[2] is not body.outputs[0]:
        return None
    gates = _parts([found[name] for name in ("in", "forget", "cell", "out")])
    factor = _product(gates, rows, hidden)
    weight = None if factor is None else _outside(factor, node, body)
    return None if weight is None else _Cell("LSTM", (0, 3, 1, 2), weight)


def _gru(node: Node, body: Graph) -> _Cell | None:
    hidden, rows = body.inputs[:2]
    last = body.outputs[0].node
    found = None if last is None else match(_GRU, last)
    if found is None or found["hidden"] is not hidden or len(body.outputs) != 2 or body.outputs[1] is not body.outputs[0]:
        return None
    before = _parts([found[name.name] for name in _BEFORE])
    if before is None or _parts([found[name.name] for name in _ROWS]) is not rows:
        return None
    added, bias = made_by(before, "add"), None
    if added is not None:
        before, bias = added.operands[0], _outside(stretched(added.operands[1]), node, body)
        if bias is None or bias.ndim != 1:
            return None
    product = made_by(before, "matmul")
    weight = None if product is None or product.operands[0] is not hidden else _outside(product.operands[1], node, body)
    return None if weight is None else _Cell("GRU", (1, 0, 2), weight, bias, (("linear_before_reset", 1),))


def _rnn(node: Node, body: Graph) -> _Cell | None:
    hidden, rows = body.inputs[:2]
    last = made_by(body.outputs[0], "tanh", "relu")
    if last is None or len(body.outputs) != 2 or body.outputs[1] is not body.outputs[0]:
        return None
    factor = _product(last.operands[0], rows, hidden)
    weight = None if factor is None else _outside(factor, node, body)
    return None if weight is None else _Cell("RNN", (0,), weight, None, (("activations", [last.op.name.capitalize()]),))


def _parts(values: Sequence[Value]) -> Value | None:
    """What the values are the equal parts of, in order, along its last dimension."""
    slices = [made_by(value, "slice") for value in values]
    size = values[0].shape[-1]
    source = None if slices[0] is None else slices[0].operands[0]
    if source is None or not isinstance(size, int) or source.shape[-1] != size * len(values):
        return None
    for i, part in enumerate(slices):
        if part is None or part.operands[0] is not source or part.result.shape[:-1] != source.shape[:-1]:
            return None
        if part.attrs["starts"][-1] != i * size or part.attrs["stops"][-1] != (i + 1) * size or part.attrs["steps"][-1] != 1:
            return None
    return source


def _product(value: Value | None, rows: Value, hidden: Value) -> Value | None:
    """The factor of rows + hidden @ factor."""
    total = None if value is None else made_by(value, "add")
    product = None if total is None or total.operands[0] is not rows else made_by(total.operands[1], "matmul")
    return product.operands[1] if product is not None and product.operands[0] is hidden else None


def _outside(value: Value, node: Node, body: Graph) -> Value | None:
    """The operand of the scan that an input of its step is at each step."""
    captured = node.attrs["carries"] + node.attrs["scanned"]
    same = dict(zip(body.inputs[captured:], node.operands[captured:]))
    return same.get(value)


def _projected(rows: Value) -> tuple[Value, Value, Value | None] | None:
    """x, w and b of rows that are x @ w.T + b, for x of three dimensions."""
    total = made_by(rows, "add")
    bias = None if total is None else stretched(total.operands[1])
    shaped = made_by(rows if total is None else total.operands[0], "reshape")
    product = None if shaped is None else made_by(shaped.operands[0], "matmul")
    if product is None or rows.ndim != 3 or (bias is not None and bias.ndim != 1):
        return None
    merged, turned = made_by(product.operands[0], "reshape"), made_by(product.operands[1], "permute")
    if merged is None or turned is None:
        return None
    x = merged.operands[0]
    if x.ndim != 3 or list(map(str, x.shape[:2])) != list(map(str, rows.shape[:2])) or turned.operands[0].ndim != 2:
        return None
    return x, turned.operands[0], bias
