"""Translate sequences into reversed ones with a transformer. Weights and data are NumPy's, so that the losses can be compared
with those that PyTorch 2.13 has printed."""
import math

import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence

PAD, BOS, EOS, WORDS = 0, 1, 2, 12
WIDTH = 16
PYTORCH = [2.4825, 2.4941, 2.5110, 2.4908]


class Positions(nn.Module):
    def __init__(self, width, longest=32):
        super().__init__()
        place = torch.arange(longest).unsqueeze(1)
        rate = torch.exp(-torch.arange(0, width, 2) * math.log(10000) / width)
        table = torch.zeros(longest, 1, width)
        table[:, 0, 0::2] = torch.sin(place * rate)
        table[:, 0, 1::2] = torch.cos(place * rate)
        self.register_buffer("table", table)

    def forward(self, x):
        return x + self.table[: x.size(0)]


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=PAD)
        self.positions = Positions(WIDTH)
        self.transformer = nn.Transformer(d_model=WIDTH, nhead=2, num_encoder_layers=1, num_decoder_layers=1,
                                          dim_feedforward=32, dropout=0.0)
        self.out = nn.Linear(WIDTH, WORDS)

    def forward(self, source, target):
        causal = nn.Transformer.generate_square_subsequent_mask(target.size(0))
        padded = (source == PAD).transpose(0, 1)
        hidden = self.transformer(self.embed(source), self.embed(target), tgt_mask=causal, src_key_padding_mask=padded,
                                  tgt_key_padding_mask=(target == PAD).transpose(0, 1), memory_key_padding_mask=padded)
        return self.out(hidden)

    def embed(self, tokens):
        return self.positions(self.words(tokens) * math.sqrt(WIDTH))


def batches(rng, count):
    for _ in range(count):
        sequences = [torch.from_numpy(rng.integers(3, WORDS, rng.integers(3, 6))) for _ in range(16)]
        source = pad_sequence(sequences, padding_value=PAD)
        target = pad_sequence([torch.cat([torch.tensor([BOS]), s.flip(0), torch.tensor([EOS])]) for s in sequences],
                              padding_value=PAD)
        yield source, target


def main():
    rng = np.random.default_rng(0)
    model = Translator()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * 0.1))
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    losses = []
    for source, target in batches(rng, 120):
        optimizer.zero_grad()
        logits = model(source, target[:-1])
        loss = criterion(logits.reshape(-1, WORDS), target[1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if len(losses) <= len(PYTORCH):
            print(f"{loss.item():.4f}")
            assert abs(loss.item() - PYTORCH[len(losses) - 1]) < 2e-4
    assert losses[-1] < 0.95 * losses[0], losses
    model.eval()
    with torch.inference_mode():
        source, _ = next(batches(rng, 1))
        tokens = torch.full((1, source.size(1)), BOS)
        for _ in range(3):
            tokens = torch.cat([tokens, model(source, tokens)[-1:].argmax(-1)])
    assert tokens.shape == (4, 16) and tokens.dtype == torch.int64
    print("passed")


if __name__ == "__main__":
    main()
