"""An LSTM layer over a whole sequence as one node of the tape.

Step by step on the tape, a layer would have some nodes for each step, and add up the weights' gradient step by step. Here
the steps back give the gradients of the gates alone; the weights' gradient is one product at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.frontend import engine
from graphc.frontend.composite import composite
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.joining import cat
from graphc.frontend.matrices import linear, mm
from graphc.frontend.modes import enable_grad, mode, no_grad
from graphc.frontend.node import Node, edge_to, history, node_class
from graphc.frontend.pointwise import sigmoid, tanh
from graphc.frontend.splitting import chunk
from graphc.frontend.tape import Saved, freed_error
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import float32, float64

Steps = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""The layer step by step: (projection of the input [T, N, 4 H], h, c, weight_hh) to (outputs [T, N, H], last h, last c)."""


@composite
def _step(x: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """A step, and with it all that the step back needs."""
    enter, keep, new, leave = chunk(x + linear(h, weight), 4, -1)
    enter, keep, new, leave = sigmoid(enter), sigmoid(keep), tanh(new), sigmoid(leave)
    c = keep * c + enter * new
    return leave * tanh(c), c, enter, keep, new, leave


@composite
def _step_back(dh_out: Tensor, dh: Tensor, dc: Tensor, enter: Tensor, keep: Tensor, new: Tensor, leave: Tensor, before: Tensor,
               c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates, and of h and c before the step, by those of h and c after it."""
    dh = dh + dh_out
    squashed = tanh(c)
    dc = dc + dh * leave * (1 - squashed * squashed)
    gates = cat([dc * new * enter * (1 - enter), dc * before * keep * (1 - keep), dc * enter * (1 - new * new),
                 dh * squashed * leave * (1 - leave)], -1)
    return gates, mm(gates, weight), dc * keep


class _Layer(Node):
    """The node: what the steps left, and the inputs, for derivatives of higher order."""

    __slots__ = ("kept", "outputs", "saved", "steps")

    def __init__(self, inputs: tuple[Tensor, ...], steps: Steps, kept: list[tuple[Tensor, ...]]) -> None:
        Node.__init__(self, tuple([edge_to(x) for x in inputs]))
        self.outputs = 3  # type: ignore[misc]
        self.saved: list[Saved] | None = [Saved(x) for x in inputs]
        self.steps = steps
        self.kept = kept

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.saved is None:
            raise freed_error(self.name())
        inputs = [saved.unpack(self) for saved in self.saved]
        if mode.grad or active() is not None:
            return self._recorded(inputs, cotangents)
        _, h, c, weight = inputs
        out, dh, dc = cotangents
        nothing = wrap(np.zeros(h._data.shape, h._data.dtype))
        dh, dc = nothing if dh is None else dh, nothing if dc is None else dc
        gates: list[Tensor] = []
        for t in range(len(self.kept) - 1, -1, -1):
            before = c if t == 0 else self.kept[t - 1][1]
            _, after, enter, keep, new, leave = self.kept[t]
            found, dh, dc = _step_back(nothing if out is None else wrap(out._data[t]), dh, dc, enter, keep, new, leave, before,
                                       after, weight)
            gates.append(found)
        along = np.stack([g._data for g in reversed(gates)])
        hidden = np.concatenate([h._data, *(kept[0]._data for kept in self.kept[:-1])])
        slope = mm(wrap(along.reshape(-1, along.shape[2]).T), wrap(hidden))
        return [wrap(along), dh, dc, slope]

    def _recorded(self, inputs: list[Tensor], cotangents: list[Any]) -> Sequence[Any]:
        """The same as a function of the inputs, so that it can be differentiated again."""
        with enable_grad():
            results = self.steps(*inputs)
        roots = [(history(y), ct) for y, ct in zip(results, cotangents) if ct is not None]
        wanted = [i for i, x in enumerate(inputs) if history(x) is not None]
        found = engine.run(roots, keep_graph=True, create_graph=True, inputs=[history(inputs[i]) for i in wanted],
                           accumulate=False)
        slopes = dict(zip(wanted, found))
        return [slopes.get(i) for i in range(len(inputs))]

    def free(self) -> None:
        self.saved = None
        self.kept = []

    @property
    def is_freed(self) -> bool:
        return self.saved is None


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are numbers, and of one dtype, that a layer can be run on as a whole: nobody traces, maps or watches."""
    first = tensors[0].dtype
    return (first in (float32, float64) and active() is None and not mode.inference and not saved_hooks.stack
            and all(type(x._data) is np.ndarray and x._data.size and x.dtype is first for x in tensors))


def layer(projected: Tensor, h: Tensor, c: Tensor, weight: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM layer over the projection of its input, [T, N, 4 H], from the states h and c [N, H]: all outputs [T, N, H],
    and the last states. `steps` does the same one by one."""
    inputs = (projected, h, c, weight)
    kept: list[tuple[Tensor, ...]] = []
    with no_grad():
        state: tuple[Tensor, ...] = (wrap(h._data), wrap(c._data))
        fixed = wrap(weight._data)
        for x in projected._data:
            state = _step(wrap(x), state[0], state[1], fixed)
            kept.append(state)
    out = wrap(np.stack([made[0]._data for made in kept]))
    results = (out, wrap(state[0]._data.copy()), wrap(state[1]._data.copy()))
    if mode.grad and any(edge_to(x) is not None for x in inputs):
        node = node_class("LstmBackward0", _Layer)(inputs, steps, kept)
        for i, result in enumerate(results):
            result._node = node
            result._state().index = i
    return results
