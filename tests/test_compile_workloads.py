"""Whole forwards and training steps of models compile to one graph, traced no more after the second call, with the numbers of
eager code: tiny forms of common models, twenty steps of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.config import override
from graphc.nn import functional as F

STEPS = 20
Workload = tuple[Callable[..., Any], tuple[Any, ...]]


def step_of(model: nn.Module, loss_of: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def perceptron() -> Workload:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    step = step_of(model, nn.CrossEntropyLoss(), graphc.optim.Adam(model.parameters(), lr=1e-2))
    return step, (graphc.randn(12, 8), graphc.randint(0, 4, (12,)))


def perceptron_with_momentum() -> Workload:
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    step = step_of(model, nn.MSELoss(), graphc.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9))
    return step, (graphc.randn(20, 2), graphc.randn(20, 1))


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Any) -> Any:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + identity)


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        Block(4, 4, 1), Block(4, 8, 2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def residual_training() -> Workload:
    model = residual()
    step = step_of(model, nn.CrossEntropyLoss(), graphc.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9))
    return step, (graphc.randn(4, 3, 16, 16), graphc.randint(0, 5, (4,)))


def without_gradients(model: nn.Module) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        with graphc.no_grad():
            return model(x)

    return forward


def residual_inference() -> Workload:
    return without_gradients(residual().eval()), (graphc.randn(2, 3, 16, 16),)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("mask", graphc.tril(graphc.ones(context, context)).view(1, 1, context, context))

    def forward(self, x: Any) -> Any:
        batch, length, width = x.shape
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in self.qkv(x).split(width, dim=2))
        a = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(width // self.heads))
        a = a.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        return self.proj((F.softmax(a, dim=-1) @ v).transpose(1, 2).contiguous().view(batch, length, width))


class Layer(nn.Module):
    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 2, context)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, words: int = 11, width: int = 8, context: int = 6) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(words, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(Layer(width, context), Layer(width, context))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, index: Any) -> Any:
        x = self.tokens(index) + self.positions(graphc.arange(index.shape[1]))
        return self.head(self.norm(self.layers(x)))


def transformer_training() -> Workload:
    model = GPT()
    loss_of = lambda logits, y: F.cross_entropy(logits.view(-1, 11), y.view(-1))  # noqa: E731
    step = step_of(model, loss_of, graphc.optim.AdamW(model.parameters(), lr=3e-3))
    return step, (graphc.randint(0, 11, (2, 6)), graphc.randint(0, 11, (2, 6)))


def transformer_inference() -> Workload:
    return without_gradients(GPT().eval()), (graphc.randint(0, 11, (1, 5)),)


def tanh_gelu() -> Workload:
    def gelu(a: Any, b: Any, c: Any) -> Any:
        x = a * b + c
        return 0.5 * x * (1.0 + graphc.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    return gelu, tuple(graphc.randn(100) for _ in range(3))


def normalised() -> Workload:
    return (lambda x, w, b: F.gelu(F.layer_norm(x, (16,), w, b))), (graphc.randn(5, 16), graphc.randn(16), graphc.randn(16))


def columns() -> Workload:
    return (lambda x: ((x - x.mean(0)) ** 2).mean(0).sqrt()), (graphc.randn(40, 7),)


def product() -> Workload:
    return (lambda x, w, b: graphc.relu(x @ w + b)), (graphc.randn(8, 12), graphc.randn(12, 9), graphc.randn(9))


def transposed() -> Workload:
    return (lambda x, y: (x.t() + y) * 2.0), (graphc.randn(9, 9), graphc.randn(9, 9))


@pytest.mark.parametrize("make", [
    perceptron, perceptron_with_momentum, residual_training, residual_inference, transformer_training, transformer_inference,
    tanh_gelu, normalised, columns, product, transposed,
])  # fmt: skip
def test_a_workload_is_one_graph_with_the_numbers_of_eager_code(make: Callable[[], Workload]) -> None:
    curves = []
    for compiled in (False, True):
        graphc.manual_seed(0)
        function, args = make()
        if compiled:
            function = graphc.compile(function, fullgraph=True)
        curves.append([function(*args).detach().numpy().copy() for _ in range(2)])
        with override(retrace=False):
            curves[-1] += [function(*args).detach().numpy().copy() for _ in range(STEPS - 2)]
        if compiled:
            assert repr(function).endswith(": 1 graph>") and len(function._tracings.all) <= 2
    for eager, found in zip(*curves, strict=True):
        np.testing.assert_allclose(found, eager, rtol=1e-4, atol=1e-4)
