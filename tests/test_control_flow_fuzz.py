"""Random programs that branch, loop, count and change state by what they compute: compiled, they do what they do eagerly."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from graphc import nn
from graphc.frontend import branching

POINTWISE: list[Callable[[Any], Any]] = [
    lambda x: x.sin(), lambda x: x.abs(), lambda x: x * 1.5, lambda x: x - 0.3, lambda x: -x, lambda x: x.tanh(),
]  # fmt: skip
KINDS = ["pointwise", "state", "if", "while", "item", "in place", "write state", "index", "count", "view", "where", "float",
         "compare item", "return"]  # fmt: skip


class Program:
    """A list of steps, and the state that they read and change."""

    def __init__(self, seed: int) -> None:
        choose = random.Random(seed)
        self.steps = [(choose.choice(KINDS), choose.random(), choose.randrange(6)) for _ in range(choose.randint(3, 9))]
        self.buffer = graphc.zeros(3)
        self.weight = nn.Parameter(graphc.full((3,), 0.5))

    def __call__(self, x: Any) -> Any:
        y, total = x, 0.0
        for kind, number, k in self.steps:
            match kind:
                case "pointwise":
                    y = POINTWISE[k](y)
                case "state":
                    y = y * self.weight + x if k % 2 else y + self.buffer
                case "if":
                    y = POINTWISE[k](y) if y.sum() > number - 0.5 else y + number
                case "while":
                    rounds = 0
                    while y.abs().sum() > 1 + number and rounds < 4:
                        y, rounds = y * 0.6, rounds + 1
                case "item":
                    y = y * y.mean().item()
                    total = total + y[0].item()
                case "in place":
                    y = y * 1
                    y[k % 3] = number
                    y.mul_(1 + number)
                case "write state":
                    with graphc.no_grad():
                        self.buffer.add_(y.detach() * 0.1)
                case "index":
                    y = y + y[y.argmax()]
                case "count":
                    for _ in range(int(y.abs().sum() * 1.5) % 4):
                        y = y + 0.1
                case "view":
                    y = (y.view(3, 1) * 2).reshape(3)
                case "where":
                    y = graphc.where(y > number, y, y * 0.5)
                case "float" if k == 0:
                    y = y * float(y[0])
                case "compare item" if y[0].item() > number:
                    y = y * 0.9
                case "return" if k == 0 and y.sum() < 0:
                    return y, total
        return y, total


def run(seed: int, compiled: bool) -> list[Any]:
    program = Program(seed)
    function = graphc.compile(program) if compiled else program
    choose = random.Random(seed + 1)
    starts = [[choose.uniform(-2, 2) for _ in range(3)] for _ in range(4)]
    happened = []
    for start in starts * 3:
        x = graphc.tensor(start, requires_grad=bool(seed % 2))
        program.weight.grad = None
        y, total = function(x)
        if y.requires_grad:
            y.sum().backward()
        grads = [None if t.grad is None else t.grad.tolist() for t in (x, program.weight)]
        happened.append([y.tolist(), total, grads, program.buffer.tolist()])
    return happened


def close(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(close, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=2e-3, abs_tol=1e-4) or not math.isfinite(left) or abs(left) > 1e8
    return bool(left == right)


@given(st.integers(0, 1 << 30))
@settings(max_examples=12)
def test_random_programs(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branching, "_WORTH_RECORDING", 0)
        compiled = run(seed, compiled=True)
    for call, (want, got) in enumerate(zip(run(seed, compiled=False), compiled, strict=True)):
        assert close(want, got), f"call {call}: {want} eagerly, {got} compiled"
