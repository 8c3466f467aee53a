"""Recurrent networks: one step of each kind of cell, and layers of them over sequences.

The weights of a layer in one direction are listed in PyTorch's order: weight_ih [gates, input], weight_hh [gates, hidden],
then bias_ih and bias_hh [gates] if there are biases, then weight_hr [projection, hidden] if the output is projected. The
gates lie below each other: of an LSTM input, forget, cell, output; of a GRU reset, update, new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.dims import Dim
from graphc.errors import GraphcError
from graphc.frontend.composite import composite
from graphc.frontend.control_flow import in_graph, scan
from graphc.frontend.copying import flip
from graphc.frontend.dropout import dropout
from graphc.frontend.joining import cat, stack
from graphc.frontend.matrices import linear
from graphc.frontend.movement import part, transpose
from graphc.frontend.pointwise import relu, sigmoid, tanh
from graphc.frontend.splitting import chunk, split, unbind
from graphc.frontend.tensor import Tensor
from graphc.frontend.through_time import is_plain, layer
from graphc.types import Size

FUNCTIONS = "gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell"

State = tuple[Tensor, ...]
"""What a cell carries from step to step: (h,), for an LSTM (h, c)."""


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    hr: Tensor | None = None


_FEWEST = 4
"""Steps that become a loop where a network is traced. Fewer are written down one after the other."""

Step = Callable[[Tensor, State, Weights], State]
"""One step: from the projection of the input (all of it that needs no state) and the state to the next state."""


@dataclass(frozen=True)
class Cell:
    """A kind of cell: how many gates it has, and its step."""

    gates: int
    step: Step
    joined_biases: bool = True
    """Whether bias_hh can be added to the projection of the input, so that no step has to."""

    def projected(self, input: Tensor, weights: Weights) -> Tensor:
        """What all steps need of the input, at once."""
        bias = weights.bias_ih
        if bias is not None and weights.bias_hh is not None and self.joined_biases:
            bias = bias + weights.bias_hh
        return linear(input, weights.ih, bias)


@composite
def _gates(x: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    return x + linear(h, weight)


@composite
def _tanh_step(x: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    return tanh(x + linear(h, weight))


@composite
def _relu_step(x: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    return relu(x + linear(h, weight))


@composite
def _next_cell(gates: Tensor, c: Tensor) -> Tensor:
    enter, keep, new, _ = chunk(gates, 4, -1)
    return sigmoid(keep) * c + sigmoid(enter) * tanh(new)


@composite
def _next_hidden(gates: Tensor, c: Tensor) -> Tensor:
    size = c._data.shape[-1]
    return sigmoid(part(gates, gates.dim() - 1, 3 * size, 4 * size)) * tanh(c)


def _lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    h, c = state
    gates = _gates(x, h, weights.hh)
    c = _next_cell(gates, c)
    h = _next_hidden(gates, c)
    return (h if weights.hr is None else linear(h, weights.hr)), c


@composite
def _gru_step(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x_reset, x_update, x_new = chunk(x, 3, -1)
    h_reset, h_update, h_new = chunk(linear(h, weight, bias), 3, -1)
    new = tanh(x_new + sigmoid(x_reset + h_reset) * h_new)
    return new + sigmoid(x_update + h_update) * (h - new)


RNN_TANH = Cell(1, lambda x, state, weights: (_tanh_step(x, state[0], weights.hh),))
RNN_RELU = Cell(1, lambda x, state, weights: (_relu_step(x, state[0], weights.hh),))
LSTM = Cell(4, _lstm_step)
GRU = Cell(3, lambda x, state, weights: (_gru_step(x, state[0], weights.hh, weights.bias_hh),),
           joined_biases=False)  # the reset gate multiplies a part of bias_hh


def _lstm_steps(inputs: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`through_time.layer`, step by step."""
    hidden, last = _over_time(LSTM, unbind(inputs), (h, c), Weights(weight, weight), packed=False)
    return stack(hidden), last[0], last[1]


def _is_long(steps: Size) -> bool:
    """Whether a network becomes a loop where it is traced; one of unknown length does."""
    return isinstance(steps, Dim) or steps >= _FEWEST


def run(cell: Cell, sequence: Tensor, batch_sizes: Sequence[int] | None, state: State, layers: Sequence[Sequence[Weights]],
        dropout_p: float = 0.0) -> tuple[Tensor, State]:
    """Layers of cells over a sequence [T, N, input], from states [layers * directions, N, hidden].

    With `batch_sizes` the sequence is packed, [sum of batch_sizes, input]: step t has the first batch_sizes[t] members of
    the batch, which are in the order of decreasing length. `layers` lists each layer's directions. Returns the last layer's
    outputs, the directions beside each other, and the last states.
    """
    starts = [unbind(s) for s in state]
    lasts: list[State] = []
    for depth, directions in enumerate(layers):
        if depth > 0 and dropout_p > 0.0:
            sequence = dropout(sequence, dropout_p)
        outputs: list[Tensor] = []
        for weights in directions:
            start = tuple(s[len(lasts)] for s in starts)
            backwards = len(outputs) == 1
            inputs = cell.projected(sequence, weights)
            if batch_sizes is None and in_graph() and _is_long(inputs._data.shape[0]):
                last, whole = _scanned(cell, inputs, start, weights, backwards)
                outputs.append(whole)
                lasts.append(last)
                continue
            if cell is LSTM and batch_sizes is None and weights.hr is None and is_plain(inputs, *start, weights.hh):
                h, c = start
                whole, h, c = layer(flip(inputs, 0) if backwards else inputs, h, c, weights.hh, _lstm_steps)
                outputs.append(flip(whole, 0) if backwards else whole)
                lasts.append((h, c))
                continue
            steps = list(unbind(inputs) if batch_sizes is None else split(inputs, batch_sizes))
            each, last = _over_time(cell, steps[::-1] if backwards else steps, start, weights, batch_sizes is not None)
            if backwards:
                each.reverse()
            outputs.append(stack(each) if batch_sizes is None else cat(each))
            lasts.append(last)
        sequence = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
    return sequence, tuple(stack(last) for last in zip(*lasts))


def _scanned(cell: Cell, inputs: Tensor, start: State, weights: Weights, backwards: bool) -> tuple[State, Tensor]:
    """All steps of one layer in one direction as a loop in the graph: the last state, and the outputs [T, N, hidden]."""

    def step(state: State, x: Tensor) -> tuple[State, Tensor]:
        state = cell.step(x, state, weights)
        return state, state[0]

    return scan(step, start, inputs, reverse=backwards)


def _over_time(cell: Cell, steps: Sequence[Tensor], start: State, weights: Weights, packed: bool) -> tuple[list[Tensor], State]:
    """All steps of one layer in one direction, in the order given: the outputs, and the last state."""
    if not packed:
        state, hidden = start, []
        for x in steps:
            state = cell.step(x, state, weights)
            hidden.append(state[0])
        return hidden, state
    # members of the batch end (or, going backwards, begin) at different steps: always those with the highest numbers
    present = steps[0]._data.shape[0]
    state = tuple(part(s, 0, 0, present) for s in start)
    hidden, ended = [], []
    for x in steps:
        size = x._data.shape[0]
        if size < present:
            ended.append(tuple(part(s, 0, size, present) for s in state))
            state = tuple(part(s, 0, 0, size) for s in state)
        elif size > present:
            state = tuple(cat([s, part(first, 0, present, size)]) for s, first in zip(state, start))
        present = size
        state = cell.step(x, state, weights)
        hidden.append(state[0])
    ended.append(state)
    return hidden, tuple(cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*reversed(ended)))


def grouped(weights: Sequence[Tensor], has_biases: bool, num_layers: int, bidirectional: bool,
            projected: bool = False) -> list[list[Weights]]:
    """A flat list of weights, layer by layer and direction by direction."""
    each, directions = 2 + 2 * has_biases + projected, 1 + bidirectional
    if len(weights) != each * directions * num_layers:
        raise GraphcError("a recurrent network has another number of weights", got=str(len(weights)),
                          expected=f"{each} for each of {num_layers} layers in {directions} directions")

    def one(i: int) -> Weights:
        mine = weights[i * each : (i + 1) * each]
        bias_ih, bias_hh = mine[2:4] if has_biases else (None, None)
        return Weights(mine[0], mine[1], bias_ih, bias_hh, mine[-1] if projected else None)

    return [[one(layer * directions + d) for d in range(directions)] for layer in range(num_layers)]


def _layers(cell: Cell, input: Tensor, state: State, params: Sequence[Tensor], has_biases: bool, num_layers: int,
            dropout_p: float, train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, State]:
    projected = cell is LSTM and state[0]._data.shape[-1] != state[1]._data.shape[-1]
    layers = grouped(params, has_biases, num_layers, bidirectional, projected)
    sequence = transpose(input, 0, 1) if batch_first else input
    out, last = run(cell, sequence, None, state, layers, dropout_p if train else 0.0)
    return transpose(out, 0, 1) if batch_first else out, last


def rnn_tanh(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float,
             train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Layers of tanh cells over [T, N, input] from `hx` [layers * directions, N, hidden]: all outputs, and the last states.

    >>> cell = [graphc.ones(3, 2), graphc.ones(3, 3), graphc.zeros(3), graphc.zeros(3)]
    >>> outputs, last = graphc.rnn_tanh(graphc.ones(5, 1, 2), graphc.zeros(1, 1, 3), cell, True, 1, 0.0, False, False, False)
    >>> outputs.shape, last.shape
    (graphc.Size([5, 1, 3]), graphc.Size([1, 1, 3]))
    """
    out, last = _layers(RNN_TANH, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    return out, last[0]


def rnn_relu(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float,
             train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor]:
    """As `rnn_tanh`, with relu.

    >>> cell = [graphc.ones(3, 2), graphc.ones(3, 3), graphc.zeros(3), graphc.zeros(3)]
    >>> outputs, last = graphc.rnn_relu(graphc.ones(5, 1, 2), graphc.zeros(1, 1, 3), cell, True, 1, 0.0, False, False, False)
    >>> outputs.shape, last.shape
    (graphc.Size([5, 1, 3]), graphc.Size([1, 1, 3]))
    """
    out, last = _layers(RNN_RELU, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    return out, last[0]


def gru(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float,
        train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor]:
    """As `rnn_tanh`, with gated recurrent units.

    >>> cell = [graphc.ones(9, 2), graphc.ones(9, 3), graphc.zeros(9), graphc.zeros(9)]
    >>> outputs, last = graphc.gru(graphc.ones(5, 1, 2), graphc.zeros(1, 1, 3), cell, True, 1, 0.0, False, False, False)
    >>> outputs.shape, last.shape
    (graphc.Size([5, 1, 3]), graphc.Size([1, 1, 3]))
    """
    out, last = _layers(GRU, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    return out, last[0]


def lstm(input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float,
         train: bool, bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `rnn_tanh`, with LSTM cells: `hx` is the pair of hidden and cell states; outputs, last hidden, last cell states.

    >>> cell = [graphc.ones(12, 2), graphc.ones(12, 3), graphc.zeros(12), graphc.zeros(12)]
    >>> start = (graphc.zeros(1, 1, 3), graphc.zeros(1, 1, 3))
    >>> outputs, hidden, memory = graphc.lstm(graphc.ones(5, 1, 2), start, cell, True, 1, 0.0, False, False, False)
    >>> outputs.shape, memory.shape
    (graphc.Size([5, 1, 3]), graphc.Size([1, 1, 3]))
    """
    out, last = _layers(LSTM, input, tuple(hx), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    return out, last[0], last[1]


def _one_step(cell: Cell, input: Tensor, state: State, *weights: Any) -> State:
    w = Weights(*weights)
    return cell.step(cell.projected(input, w), state, w)


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """tanh(w_ih x + b_ih + w_hh h + b_hh).

    >>> graphc.rnn_tanh_cell(graphc.ones(1, 2), graphc.zeros(1, 3), graphc.ones(3, 2), graphc.ones(3, 3))
    tensor([[0.9640, 0.9640, 0.9640]])
    """
    return _one_step(RNN_TANH, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """relu(w_ih x + b_ih + w_hh h + b_hh).

    >>> graphc.rnn_relu_cell(graphc.ones(1, 2), graphc.zeros(1, 3), graphc.ones(3, 2), graphc.ones(3, 3))
    tensor([[2., 2., 2.]])
    """
    return _one_step(RNN_RELU, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """A step of a gated recurrent unit (Cho et al. 2014).

    >>> graphc.gru_cell(graphc.ones(1, 2), graphc.zeros(1, 3), graphc.zeros(9, 2), graphc.zeros(9, 3))
    tensor([[0., 0., 0.]])
    """
    return _one_step(GRU, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def lstm_cell(input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
              b_hh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A step of an LSTM (Hochreiter and Schmidhuber 1997): from (h, c) to the next.

    >>> start = (graphc.zeros(1, 3), graphc.zeros(1, 3))
    >>> hidden, memory = graphc.lstm_cell(graphc.ones(1, 2), start, graphc.zeros(12, 2), graphc.zeros(12, 3))
    >>> hidden
    tensor([[0., 0., 0.]])
    """
    h, c = _one_step(LSTM, input, tuple(hx), w_ih, w_hh, b_ih, b_hh)
    return h, c
