"""Recurrent layers: a scan for each direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import graphc.ops as ops
from graphc.ir import Builder, Value
from graphc.onnx_format.reader.call import Call, part
from graphc.onnx_format.reader.elementwise import converted, elu, hard_sigmoid, softplus
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import TensorType, int64

Activation = Callable[[Value], Value]

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    def default(value: float | None, usual: float) -> float:
        return usual if value is None else value

    known: dict[str, Activation] = {
        "relu": ops.relu, "tanh": ops.tanh, "sigmoid": ops.sigmoid, "softplus": softplus,
        "softsign": lambda x: x / (ops.abs(x) + 1.0),
        "affine": lambda x: x * default(alpha, 1.0) + default(beta, 0.0),
        "leakyrelu": lambda x: ops.where(x < 0, x * default(alpha, 0.01), x),
        "thresholdedrelu": lambda x: ops.where(x > default(alpha, 1.0), x, 0),
        "scaledtanh": lambda x: ops.tanh(x * default(beta, 1.0)) * default(alpha, 1.0),
        "hardsigmoid": lambda x: hard_sigmoid(x, default(alpha, 0.2), default(beta, 0.5)),
        "elu": lambda x: elu(x, default(alpha, 1.0)),
    }  # fmt: skip
    found = known.get(name.lower())
    if found is None:
        raise BadModel(f"the activation {name!r}", expected=", ".join(known))
    return found


@dataclass(frozen=True)
class Cell:
    """One step of a recurrent layer."""

    kind: str
    size: Any
    activations: Sequence[Activation]
    clip: float | None
    linear_before_reset: bool
    couples: bool
    """Whether the forget gate is one less the input gate."""

    def gate(self, x: Value, k: int) -> Value:
        """The k-th of the gates that stand next to each other."""
        return part(x, x.ndim - 1, k * self.size, (k + 1) * self.size)

    def bound(self, x: Value) -> Value:
        return x if self.clip is None else ops.minimum(ops.maximum(x, -self.clip), self.clip)

    def step(self, x: Value, state: Sequence[Value], r: Value, bias: Value, peepholes: Value | None) -> tuple[Value, ...]:
        """From x, the input's part of the gates, and the state to the next state. r is [hidden, gates], `bias` the part of the
        bias that goes with it."""
        h = state[0]
        if self.kind == "RNN":
            return (self.activations[0](self.bound(x + ops.matmul(h, r) + bias)),)
        if self.kind == "GRU":
            return (self._gru(x, h, r, bias),)
        return self._lstm(x + ops.matmul(h, r) + bias, state[1], peepholes)

    def _gru(self, x: Value, h: Value, r: Value, bias: Value) -> Value:
        f, g = self.activations
        two = 2 * self.size
        gates = part(x, 1, 0, two) + ops.matmul(h, part(r, 1, 0, two)) + part(bias, bias.ndim - 1, 0, two)
        update, reset = (f(self.bound(self.gate(gates, k))) for k in (0, 1))
        own, extra = part(r, 1, two, 3 * self.size), part(bias, bias.ndim - 1, two, 3 * self.size)
        before = reset * (ops.matmul(h, own) + extra) if self.linear_before_reset else ops.matmul(reset * h, own) + extra
        new = g(self.bound(self.gate(x, 2) + before))
        return (1.0 - update) * new + update * h

    def _lstm(self, gates: Value, cell: Value, peepholes: Value | None) -> tuple[Value, ...]:
        f, g, last = self.activations

        def at(k: int, seen: Value, hole: int) -> Value:
            value = self.gate(gates, k)
            return self.bound(value if peepholes is None else value + self.gate(peepholes, hole) * seen)

        taken = f(at(0, cell, 0))
        kept = 1.0 - taken if self.couples else f(at(2, cell, 2))
        new = kept * cell + taken * g(self.bound(self.gate(gates, 3)))
        return f(at(1, new, 1)) * last(new), new


def _run(cell: Cell, x: Value, state: Sequence[Value], r: Value, bias: Value, peepholes: Value | None, lengths: Value | None,
         reverse: bool) -> tuple[list[Value], Value]:
    """The last states, and the outputs of all steps."""
    length = x.shape[0]
    same = [r, bias, *([peepholes] if peepholes is not None else []), *([lengths] if lengths is not None else [])]
    rows = [x, *([ops.iota(shape=(length,), axis=0, dtype=int64, like=x)] if lengths is not None else [])]
    builder = Builder(cell.kind.lower(), locations=False)
    carried = [builder.input(None, s.type) for s in state]
    row = [builder.input(None, y.type.with_shape(y.shape[1:])) for y in rows]
    given = [builder.input(None, s.type) for s in same]
    new = cell.step(row[0], carried, given[0], given[1], given[2] if peepholes is not None else None)
    out = new[0]
    if lengths is not None:  # after the end of a sequence the state stays, and the output is zero
        going = ops.reshape(row[1] < given[-1], (x.shape[1], 1))
        new = tuple(ops.where(going, a, b) for a, b in zip(new, carried))
        out = ops.where(going, out, 0)
    body = builder.finish([*new, out])
    results = ops.scan(*state, *rows, *same, body=body, carries=len(state), scanned=len(rows), length=length, reverse=reverse)
    return list(results[: len(state)]), results[-1]


@reads("RNN", "GRU", "LSTM")
def _recurrent(c: Call) -> tuple[Value, ...]:
    kind = c.op_type
    gates = _GATES[kind]
    x = ops.permute(c[0], (1, 0, 2)) if c.int("layout", 0) else c[0]
    batch_first = bool(c.int("layout", 0))
    length, batch, _ = x.shape
    hidden = c.shape(2)[2]
    direction = c.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise BadModel(f"the direction {direction!r}", expected="forward, reverse or bidirectional")
    count = 2 if direction == "bidirectional" else 1
    names = [bytes(name).decode() for name in c.attribute("activations", list, [])] or list(_DEFAULTS[kind]) * count
    each = len(_DEFAULTS[kind])
    if len(names) != each * count:
        raise BadModel("the activations", expected=f"{each * count} of them", got=str(names))
    alphas, betas = (c.attribute(f"activation_{name}", list, []) for name in ("alpha", "beta"))
    lengths = converted(c[4], int64) if c.has(4) else None
    finals: list[list[Value]] = []
    outputs = []
    for d in range(count):
        taken = [_activation(name, alphas[d * each + i] if d * each + i < len(alphas) else None,
                             betas[d * each + i] if d * each + i < len(betas) else None)
                 for i, name in enumerate(names[d * each : (d + 1) * each])]
        cell = Cell(kind, hidden, taken, c.float("clip"), bool(c.int("linear_before_reset", 0)), bool(c.int("input_forget", 0)))
        w, r = (ops.permute(_direction(c[i], d), (1, 0)) for i in (1, 2))
        bias = _direction(c[3], d) if c.has(3) else ops.full(TensorType(x.dtype, (2 * gates * hidden,)), 0, x)
        own, recurrent = part(bias, 0, 0, gates * hidden), part(bias, 0, gates * hidden, 2 * gates * hidden)
        projected = ops.reshape(ops.matmul(ops.reshape(x, (length * batch, x.shape[2])), w), (length, batch, gates * hidden))
        state = [_state(c, i, d, x, batch_first, (batch, hidden)) for i in ((5, 6) if kind == "LSTM" else (5,))]
        peepholes = _direction(c[7], d) if kind == "LSTM" and c.has(7) else None
        backwards = d == 1 or direction == "reverse"
        last, out = _run(cell, projected + own, state, r, recurrent, peepholes, lengths, backwards)
        finals.append(last)
        outputs.append(ops.reshape(out, (length, 1, batch, hidden)))
    whole = outputs[0] if count == 1 else ops.concat(*outputs, axis=1)
    states = [_stacked([final[i] for final in finals]) for i in range(len(finals[0]))]
    if batch_first:
        whole = ops.permute(whole, (2, 0, 1, 3))
        states = [ops.permute(s, (1, 0, 2)) for s in states]
    return (whole, *states)


def _direction(x: Value, d: int) -> Value:
    return ops.reshape(part(x, 0, d, d + 1), tuple(x.shape[1:]))


def _state(c: Call, i: int, d: int, x: Value, batch_first: bool, shape: Any) -> Value:
    if not c.has(i):
        return ops.full(TensorType(x.dtype, shape), 0, x)
    given = ops.permute(c[i], (1, 0, 2)) if batch_first else c[i]
    return ops.broadcast_to(_direction(given, d), shape)


def _stacked(values: list[Value]) -> Value:
    lifted = [ops.reshape(v, (1, *v.shape)) for v in values]
    return lifted[0] if len(lifted) == 1 else ops.concat(*lifted, axis=0)
