"""A language model of characters: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997."""

from __future__ import annotations

import graphc
from graphc import Tensor, nn

State = tuple[Tensor, Tensor]


class CharLSTM(nn.Module):
    """Characters int64[T, N] and a state to logits [T, N, ntoken] and the state after them."""

    def __init__(
        self, ntoken: int, ninp: int = 64, nhid: int = 256, nlayers: int = 2, dropout: float = 0.0, tie_weights: bool = False
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        if tie_weights:
            if nhid != ninp:
                raise ValueError(f"tied weights need nhid == ninp, got {nhid} and {ninp}")
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, input: Tensor, hidden: State | None = None) -> tuple[Tensor, State]:
        output, hidden = self.rnn(self.drop(self.encoder(input)), hidden)
        return self.decoder(self.drop(output)), hidden

    def init_hidden(self, batch: int) -> State:
        """The state before the first character."""
        shape = (self.rnn.num_layers, batch, self.rnn.hidden_size)
        return graphc.zeros(shape), graphc.zeros(shape)
