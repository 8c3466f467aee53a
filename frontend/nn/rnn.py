"""Recurrent layers and cells."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError, ShapeError
from graphc.frontend import recurrent
from graphc.frontend.autocast import lowered
from graphc.frontend.creation import empty, zeros
from graphc.frontend.indexing import index_select
from graphc.frontend.modes import mode
from graphc.frontend.movement import squeeze, transpose, unsqueeze
from graphc.frontend.nn import init
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.utils.rnn import PackedSequence
from graphc.frontend.recurrent import Cell
from graphc.frontend.tensor import Tensor
from graphc.types import DType

CELLS = {"RNN_TANH": recurrent.RNN_TANH, "RNN_RELU": recurrent.RNN_RELU, "LSTM": recurrent.LSTM, "GRU": recurrent.GRU}


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common: the weights of all layers and directions, and the way through them.

    Weights are called weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, weight_ih_l0_reverse, ... and begin
    uniform within 1 / sqrt(hidden_size).

    ArgumentError for another mode, for sizes that are not positive, and a dropout outside [0, 1]; at a call for a sequence that
    is not of two or three dimensions. ArgumentTypeError for a `hidden_size` that is no int.

    >>> layer = nn.RNNBase("GRU", 4, 8)
    >>> outputs, last = layer(graphc.zeros(5, 2, 4))
    >>> outputs.shape, last.shape
    (graphc.Size([5, 2, 8]), graphc.Size([1, 2, 8]))
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: DType | None = None) -> None:
        super().__init__()
        if mode not in CELLS:
            raise ArgumentError(f"Unrecognized RNN mode: {mode}", expected=", ".join(CELLS))
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ArgumentError("dropout should be a number in range [0, 1] representing the probability of an element being "
                                "zeroed", got=repr(dropout))
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                          f"num_layers greater than 1, but got dropout={dropout} and num_layers=1", stacklevel=3)
        if not isinstance(hidden_size, int):
            raise ArgumentTypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
        if input_size <= 0:
            raise ArgumentError("input_size must be greater than zero", got=str(input_size))
        if hidden_size <= 0:
            raise ArgumentError("hidden_size must be greater than zero", got=str(hidden_size))
        if num_layers <= 0:
            raise ArgumentError("num_layers must be greater than zero", got=str(num_layers))
        if proj_size < 0:
            raise ArgumentError("proj_size should be a positive integer or zero to disable projections", got=str(proj_size))
        if proj_size >= hidden_size:
            raise ArgumentError("proj_size has to be smaller than hidden_size", got=f"{proj_size} >= {hidden_size}")
        if proj_size and mode != "LSTM":
            raise ArgumentError("proj_size argument is only supported for LSTM, not RNN or GRU",
                                got=f"proj_size={proj_size} for {mode}")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        for name, shape in self._shapes():
            setattr(self, name, Parameter(empty(*shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The weights, in order."""
        gates, directions = CELLS[self.mode].gates * self.hidden_size, 1 + self.bidirectional
        out = self.proj_size or self.hidden_size
        found: list[tuple[str, tuple[int, ...]]] = []
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else out * directions
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[:directions]:
                found += [(f"weight_ih{suffix}", (gates, width)), (f"weight_hh{suffix}", (gates, out))]
                if self.bias:
                    found += [(f"bias_ih{suffix}", (gates,)), (f"bias_hh{suffix}", (gates,))]
                if self.proj_size:
                    found.append((f"weight_hr{suffix}", (self.proj_size, self.hidden_size)))
        return found

    def _get_flat_weights(self) -> list[Tensor]:
        return [getattr(self, name) for name, _ in self._shapes()]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights by layer and direction."""
        flat: Any = self._get_flat_weights()
        each = 2 + 2 * self.bias + bool(self.proj_size)
        return [flat[i : i + each] for i in range(0, len(flat), each)]

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Does nothing: weights need not lie in one piece of memory."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Outputs and last states, for an input [T, N, input_size], [N, T, input_size] with `batch_first`, [T, input_size]
        or a PackedSequence, from the states hx, by default zeros."""
        pair = self.mode == "LSTM"
        packed = isinstance(input, PackedSequence)
        order = input.sorted_indices if packed else None
        sequence = input.data if packed else input
        if not packed and sequence.dim() not in (2, 3):
            raise ArgumentError(f"{self._get_name()}: Expected input to be 2D or 3D, got {sequence.dim()}D instead")
        alone = not packed and sequence.dim() == 2
        given: tuple[Tensor, ...] | None = None
        if hx is not None:
            given = self._given(tuple(hx) if pair else (hx,), alone, packed)
        if alone:
            sequence = unsqueeze(sequence, 1)
        elif self.batch_first and not packed:
            sequence = transpose(sequence, 0, 1)
        sizes = input.sizes() if packed else None
        batch = sizes[0] if sizes is not None else sequence._data.shape[1]
        self._check_input(sequence, packed)
        weights = self._get_flat_weights()
        if mode.autocast is not None and pair:  # of the recurrent networks, it is LSTM that is a product to autocast
            sequence, *weights = (lowered(x, mode.autocast) for x in (sequence, *weights))
            given = None if given is None else tuple(lowered(s, mode.autocast) for s in given)
        state = self._start(given, batch, sequence, order)
        layers = recurrent.grouped(weights, self.bias, self.num_layers, self.bidirectional,
                                   bool(self.proj_size))
        out, last = recurrent.run(CELLS[self.mode], sequence, sizes, state, layers, self.dropout if self.training else 0.0)
        if packed:
            last = tuple(_reordered(s, input.unsorted_indices) for s in last)
            made: Any = input.with_data(out)
        elif alone:
            made, last = squeeze(out, 1), tuple(squeeze(s, 1) for s in last)
        else:
            made = transpose(out, 0, 1) if self.batch_first else out
        return made, (last if pair else last[0])

    def _given(self, state: tuple[Tensor, ...], alone: bool, packed: bool) -> tuple[Tensor, ...]:
        """States with a batch dimension."""
        wanted = 2 if alone else 3
        if not packed and any(s.dim() != wanted for s in state):
            kind = "unbatched 2-D" if alone else "batched 3-D"
            names, got = ("hx and cx", f"({', '.join(f'{s.dim()}-D' for s in state)}) tensors")
            if len(state) == 1:
                names, got = "hx", f"{state[0].dim()}-D tensor"
            raise ShapeError(f"For {kind} input, {names} should also be {wanted}-D but got {got}")
        return tuple(unsqueeze(s, 1) for s in state) if alone else state

    def _check_input(self, sequence: Tensor, packed: bool) -> None:
        shape = sequence._data.shape
        if len(shape) != (2 if packed else 3):
            raise ShapeError(f"input must have {2 if packed else 3} dimensions, got {len(shape)}")
        if shape[-1] != self.input_size:
            raise ShapeError(f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {shape[-1]}")
        if shape[0] == 0:
            raise ShapeError("Expected sequence length to be larger than 0 in RNN")
        weight = self.weight_ih_l0
        if sequence.dtype is not weight.dtype and mode.autocast is None:
            raise ArgumentError(f"RNN input dtype ({sequence.dtype}) does not match weight dtype ({weight.dtype}). Convert "
                                f"input: input.to({weight.dtype}), or convert model: model.to({sequence.dtype})")

    def _start(self, given: tuple[Tensor, ...] | None, batch: Any, sequence: Tensor,
               order: Tensor | None) -> tuple[Tensor, ...]:
        """The first states: those given, in the order of the packed sequence, or zeros."""
        rows = self.num_layers * (1 + self.bidirectional)
        shapes = [(rows, batch, self.proj_size or self.hidden_size), (rows, batch, self.hidden_size)]
        if given is None:
            shapes = shapes[: 1 + (self.mode == "LSTM")]
            return tuple(zeros(shape, dtype=sequence.dtype, device=sequence.device) for shape in shapes)
        for i, (state, shape) in enumerate(zip(given, shapes)):
            if tuple(state._data.shape) != shape:
                name = "hidden size" if len(given) == 1 else f"hidden[{i}] size"
                raise ShapeError(f"Expected {name} {shape}, got {list(state.shape)}")
        return tuple(_reordered(state, order) for state in given)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0),
                              ("bidirectional", False)):
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value}")
        return ", ".join(parts)


def _reordered(state: Tensor, order: Tensor | None) -> Tensor:
    return state if order is None else index_select(state, 1, order)


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu in tanh's place, in `num_layers` layers (Elman 1990).

    ArgumentError for another nonlinearity, and where RNNBase has one.

    >>> outputs, last = nn.RNN(4, 8)(graphc.zeros(5, 2, 4))
    >>> outputs.shape, last.shape
    (graphc.Size([5, 2, 8]), graphc.Size([1, 2, 8]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: DType | None = None, *, proj_size: int = 0) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), in `num_layers` layers.

    Returns the outputs and the pair of last hidden and last cell states. With `proj_size` the hidden state is projected to
    that size (Sak et al. 2014).

    >>> outputs, (hidden, memory) = nn.LSTM(4, 8, num_layers=2, batch_first=True)(graphc.zeros(2, 5, 4))
    >>> outputs.shape, hidden.shape, memory.shape
    (graphc.Size([2, 5, 8]), graphc.Size([2, 2, 8]), graphc.Size([2, 2, 8]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
                         device, dtype)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014), in `num_layers` layers.

    >>> outputs, last = nn.GRU(4, 8, bidirectional=True)(graphc.zeros(5, 2, 4))
    >>> outputs.shape, last.shape
    (graphc.Size([5, 2, 16]), graphc.Size([2, 2, 8]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: DType | None = None, *,
                 proj_size: int = 0) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
                         device, dtype)


class RNNCellBase(Module):
    """What the cells have in common: weight_ih, weight_hh, bias_ih and bias_hh, uniform within 1 / sqrt(hidden_size).

    >>> nn.RNNCellBase(4, 8, num_chunks=1).weight_hh.shape
    graphc.Size([8, 8])
    """

    _gates: ClassVar[int] = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, num_chunks: int | None = None,
                 device: Any = None, dtype: DType | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = (self._gates if num_chunks is None else num_chunks) * hidden_size
        self.weight_ih = Parameter(empty(rows, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(rows, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _stepped(self, cell: Cell, input: Tensor, states: Sequence[Tensor] | None, count: int) -> tuple[Tensor, ...]:
        """The next states of an input [N, input_size] or [input_size], from states of as many dimensions, or zeros."""
        if input.dim() not in (1, 2):
            raise ArgumentError(f"{self._get_name()}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for s in states or ():
            if s.dim() not in (1, 2):
                raise ArgumentError(f"{self._get_name()}: Expected hidden to be 1D or 2D, got {s.dim()}D instead")
        alone = input.dim() == 1
        x = unsqueeze(input, 0) if alone else input
        rows, width = x._data.shape
        if width != self.input_size:
            raise ShapeError(f"input has inconsistent input_size: got {width} expected {self.input_size}")
        state: tuple[Tensor, ...]
        if states is None:
            state = (zeros(rows, self.hidden_size, dtype=input.dtype, device=input.device),) * count
        else:
            state = tuple(unsqueeze(s, 0) if alone else s for s in states)
        for i, s in enumerate(state):
            if s._data.shape[0] != rows:
                raise ShapeError(f"Input batch size {rows} doesn't match hidden{i} batch size {s._data.shape[0]}")
            if s._data.shape[-1] != self.hidden_size:
                raise ShapeError(f"hidden{i} has inconsistent hidden_size: got {s._data.shape[-1]}, expected "
                                 f"{self.hidden_size}")
        weights = recurrent.Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        state = cell.step(cell.projected(x, weights), state, weights)
        return tuple(squeeze(s, 0) for s in state) if alone else state

    def extra_repr(self) -> str:
        bias = "" if self.bias else f", bias={self.bias}"
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return f"{self.input_size}, {self.hidden_size}{bias}" + (
            "" if nonlinearity == "tanh" else f", nonlinearity={nonlinearity}")


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in tanh's place.

    GraphcError, at a call, for another nonlinearity.

    >>> nn.RNNCell(4, 8)(graphc.zeros(2, 4)).shape
    graphc.Size([2, 8])
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        cell = {"tanh": recurrent.RNN_TANH, "relu": recurrent.RNN_RELU}.get(self.nonlinearity)
        if cell is None:
            raise GraphcError(f"Unknown nonlinearity: {self.nonlinearity}")
        return self._stepped(cell, input, None if hx is None else (hx,), 1)[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM: from (h, c) to the next.

    >>> hidden, memory = nn.LSTMCell(4, 8)(graphc.zeros(2, 4))
    >>> hidden.shape, memory.shape
    (graphc.Size([2, 8]), graphc.Size([2, 8]))
    """

    _gates = 4

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._stepped(recurrent.LSTM, input, hx, 2)
        return h, c


class GRUCell(RNNCellBase):
    """One step of a gated recurrent unit.

    >>> nn.GRUCell(4, 8)(graphc.zeros(2, 4), graphc.zeros(2, 8)).shape
    graphc.Size([2, 8])
    """

    _gates = 3

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._stepped(recurrent.GRU, input, None if hx is None else (hx,), 1)[0]
