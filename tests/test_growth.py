"""A program that goes on for long holds no more memory than one that has just begun."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F

CALLS = int(os.environ.get("GRAPHC_TEST_CALLS", "100"))
"""In each of five rounds. The variable is for more of them by hand."""


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def eager() -> Callable[[int], Any]:
    x = graphc.randn(3, 4)
    return lambda i: F.softmax(x * 2.0 + float(i), dim=-1).sum().item()


def eager_training() -> Callable[[int], Any]:
    net = model()
    optimizer = graphc.optim.Adam(net.parameters(), lr=1e-3)
    x, y = graphc.randn(5, 4), graphc.randint(0, 2, (5,))

    def step(i: int) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def compiled() -> Callable[[int], Any]:
    function = graphc.compile(lambda x, k: graphc.relu(x @ x.t()) * k)
    x = graphc.randn(6, 6)
    return lambda i: function(x, float(i % 2))


def compiled_with_gradients() -> Callable[[int], Any]:
    net = graphc.compile(model())
    x = graphc.randn(5, 4)

    def step(i: int) -> None:
        x.grad = None
        net(x.requires_grad_()).square().sum().backward()

    return step


def compiled_training() -> Callable[[int], Any]:
    step = eager_training()
    train = graphc.compile(lambda: step(0))
    return lambda i: train()


def changing_sizes() -> Callable[[int], Any]:
    function = graphc.compile(lambda x: F.layer_norm(x, (x.shape[1],)).sum(0))
    return lambda i: function(graphc.ones(1 + i % 13, 2 + i % 7))


def asking_for_numbers() -> Callable[[int], Any]:
    def function(x: Any) -> Any:
        total = (x * x).sum()
        return x * 2 if total.item() > 1 else x - 1

    fast = graphc.compile(function)
    return lambda i: fast(graphc.full((3,), float(i % 2)))


def exceptions() -> Callable[[int], Any]:
    function = graphc.compile(lambda x, y: x @ y)
    x, right, wrong = graphc.ones(2, 3), graphc.ones(3, 2), graphc.ones(2, 3)

    def step(i: int) -> None:
        function(x, right)
        with pytest.raises(RuntimeError):
            function(x, wrong)
        with pytest.raises(RuntimeError):
            x + graphc.ones(7)

    return step


def views_and_changes() -> Callable[[int], Any]:
    x = graphc.zeros(4, 4)

    def step(i: int) -> None:
        x[i % 4].add_(1.0)
        x.t()[:2].mul_(0.5)
        np.asarray(x)

    return step


def retracing() -> Callable[[int], Any]:
    """A function that is traced again and again, and lets go of what it was traced for."""
    def step(i: int) -> None:
        scale = float(i % 3)
        graphc.compile(lambda x: x * scale)(graphc.ones(3))

    return step


def control_flow() -> Callable[[int], Any]:
    function = graphc.compile(lambda x: graphc.while_loop(lambda y: y.sum() < 100, lambda y: y * 2, (x,))[0])
    eager = graphc.func.vmap(lambda x: graphc.cond(x > 1, lambda: x * 2, lambda: x - 1))
    return lambda i: (function(graphc.full((3,), 1.0 + i % 5)), eager(graphc.arange(3.0)))


PROGRAMS = [eager, eager_training, compiled, compiled_with_gradients, compiled_training, changing_sizes, asking_for_numbers,
            exceptions, views_and_changes, retracing, control_flow]  # fmt: skip


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_memory_does_not_grow(make: Callable[[], Callable[[int], Any]]) -> None:
    graphc.manual_seed(0)
    step = make()
    numbers = itertools.count()

    def held() -> np.ndarray:
        """After so many calls more: how many objects there are, and how many blocks of memory Python has."""
        for _ in range(CALLS):
            step(next(numbers))
        gc.collect()
        return np.array([len(gc.get_objects()), sys.getallocatedblocks()])

    held()
    before, *after = [held() for _ in range(4)]
    # what is made once, such as native code, is not made in each of the rounds; Python's own lists of free blocks fill slowly
    objects, blocks = np.diff([before, *after], axis=0).min(axis=0)
    assert objects < CALLS // 10 and blocks < CALLS // 2, f"{objects} more objects, {blocks} more blocks in {CALLS} calls"
