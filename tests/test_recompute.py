"""Keeping less for the backward pass: budgets of memory, and checkpoints inside compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops as ops
from graphc import nn
from graphc.autodiff import split_vjp
from graphc.errors import ArgumentError
from graphc.frontend.compiled import Compiled
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.recompute import budgeted, chain, kept, recompute
from graphc.types import TensorType, float32
from graphc.utils.checkpoint import checkpoint, checkpoint_sequential
from graphc.verify import verify

F = nn.functional
WIDTH, DEPTH, ROWS = 64, 4, 128


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


Step = Callable[[graphc.Tensor], graphc.Tensor]


def training(run: Callable[[nn.Sequential, graphc.Tensor], graphc.Tensor], dropout: float = 0.0) -> tuple[Step, nn.Sequential]:
    graphc.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(DEPTH) for layer in (Block(), nn.Dropout(dropout))))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.05)

    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (run(model, x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, model


def plain(model: nn.Sequential, x: graphc.Tensor) -> graphc.Tensor:
    return model(x)


def block_by_block(model: nn.Sequential, x: graphc.Tensor) -> graphc.Tensor:
    for block in model:
        x = checkpoint(block, x, use_reentrant=False)
    return x


def reentrant(model: nn.Sequential, x: graphc.Tensor) -> graphc.Tensor:
    x = x.detach().requires_grad_()
    for block in model:
        x = checkpoint(block, x, use_reentrant=True)
    return x


def in_segments(model: nn.Sequential, x: graphc.Tensor) -> graphc.Tensor:
    return checkpoint_sequential(model, 4, x, use_reentrant=False)


def arena(compiled: Any) -> int:
    """The bytes that are planned for everything between kernels."""
    graphs = [g for found in compiled._graphs.values() for g in found if isinstance(g, Compiled)]
    (graph,) = graphs
    return graph.compiled().program.arena


def trained(step: Step, **options: Any) -> tuple[list[float], int]:
    compiled = graphc.compile(step, **options)
    graphc.manual_seed(1)
    x = graphc.randn(ROWS, WIDTH)
    losses = [compiled(x).item() for _ in range(2)]
    return losses, arena(compiled)


@pytest.mark.parametrize("run", [block_by_block, reentrant, in_segments])
def test_checkpoints_are_not_inlined_away(run: Callable[..., graphc.Tensor]) -> None:
    losses, most = trained(training(plain)[0])
    again, least = trained(training(run)[0])
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    assert least < 0.7 * most


def test_checkpoints_draw_the_same_numbers_again() -> None:
    step, _ = training(block_by_block, dropout=0.5)
    losses, _ = trained(step)
    step, _ = training(plain, dropout=0.5)
    expected, _ = trained(step)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_budget_lessens_the_arena() -> None:
    sizes = []
    for budget in (None, 1.0, 0.5, 0.2):
        losses, size = trained(training(plain)[0], memory_budget=budget)
        sizes.append(size)
        if budget is None:
            expected = losses
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
    whole, same, most, least = sizes
    assert same == whole
    assert least < 0.6 * whole
    assert least < most < 0.9 * whole


def test_a_budget_between_forward_and_backward() -> None:
    def run(budget: float | int | None) -> tuple[list[np.ndarray], int]:
        _, model = training(plain)
        compiled = graphc.compile(model, memory_budget=budget)
        x = graphc.randn(ROWS, WIDTH, generator=graphc.Generator().manual_seed(3))
        loss = (compiled(x) ** 2).mean()
        ((graph,),) = compiled._compiled._graphs.values()
        loss.backward()
        how = graph.capture.differentiable
        nbytes = sum(graph.graph.outputs[j].type.nbytes for j in how.kept)
        return [p.grad.numpy() for p in model.parameters()], nbytes

    expected, whole = run(None)
    for budget, most in ((0.5, 0.5 * whole), (0.0, ROWS * WIDTH * 4), (whole // 3, whole // 3)):
        grads, nbytes = run(budget)
        assert nbytes <= most
        for got, right in zip(grads, expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("budget", [-1, 1.5, -0.5, True, "half", None])
def test_budgets_are_checked(budget: Any) -> None:
    if budget is None:
        graphc.compile(lambda x: x, memory_budget=None)
        return
    with pytest.raises(ArgumentError, match="memory_budget"):
        graphc.compile(lambda x: x, memory_budget=budget)


def chained(count: int) -> Graph:
    builder = Builder("chained")
    x = builder.input("x", TensorType(float32, (16,)))
    for _ in range(count):
        x = ops.tanh(ops.mul(x, x))
    return builder.finish([x])


@pytest.mark.parametrize("budget", [0, 64, 0.0, 0.25, 0.5, 1.0])
def test_graphs_split_by_a_budget(budget: float | int) -> None:
    graph = chained(12)
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    seed = np.ones(16, np.float32)

    def gradient() -> tuple[np.ndarray, int]:
        forward, backward, numbers, taken = split_vjp(graph, [0], [0])
        verify(forward)
        verify(backward)
        results = interpret(forward, [x])
        (found,) = interpret(backward, [*(results[j] for j in numbers), *([x] if taken else []), seed])
        return found, sum(forward.outputs[j].type.nbytes for j in numbers if j)

    expected, whole = gradient()
    with budgeted(budget):
        found, nbytes = gradient()
    np.testing.assert_array_equal(found, expected)
    assert nbytes <= (budget * whole if isinstance(budget, float) else budget)


def test_what_frees_most_for_least_goes_first() -> None:
    builder = Builder("choice")
    x, w = builder.input("x", TensorType(float32, (64, 64))), builder.input("w", TensorType(float32, (64, 64)))
    product = ops.matmul(x, w)
    cheap = ops.relu(product)
    graph = builder.finish([cheap])
    inputs = set(graph.inputs)
    assert kept([product, cheap], (), inputs, 0.5) == {product}
    assert kept([product, cheap], (), inputs, 0) == set()
    assert kept([product, cheap], {product}, inputs, 0) == {product}
    assert kept([product], (), {x}, 0) == {product}, "w is not there any more"
    nodes = chain([cheap], {*inputs, product})
    assert nodes is not None
    assert [node.op.name for node in nodes] == ["relu"]


def test_what_is_recomputed_waits() -> None:
    builder = Builder("step")
    x = builder.input("x", TensorType(float32, (16,)))
    y = ops.exp(x)
    total = ops.sum(y, axes=(0,))
    boundary = len(builder.nodes)
    back = ops.mul(ops.broadcast_to(ops.tanh(total), (16,)), y)
    graph = builder.finish([back])
    again = recompute(graph, boundary, 0)
    verify(again)
    names = [node.op.name for node in again.nodes]
    assert names.count("exp") == 2
    assert "fence" in names
    values = np.linspace(0, 1, 16, dtype=np.float32)
    np.testing.assert_array_equal(interpret(again, [values])[0], interpret(graph, [values])[0])
    assert recompute(graph, boundary, 1.0) is graph
