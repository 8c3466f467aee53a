"""Graphs of thousands of nodes, in every way in which nodes can follow each other."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import vjp_graph
from graphc.compiler import compile_graph
from graphc.config import config
from graphc.expression import Axis, Buffer, load
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32, int64

STEPS: dict[str, Callable[[Value, int], Value]] = {
    "elementwise": lambda x, i: x * 0.5 + float(i % 3),
    "doubling": lambda x, i: x + x,
    "flips and permutes": lambda x, i: ops.flip(ops.permute(x, (1, 0)), (i % 2,)),
    "reshapes": lambda x, i: ops.permute(ops.reshape(ops.permute(ops.reshape(x, (4, 9)), (1, 0)), (6, 6)), (1, 0)),
    "rolls": lambda x, i: ops.concat(ops.slice(x, (1, 0), (6, 6), (1, 1)), ops.slice(x, (0, 0), (1, 6), (1, 1)), axis=0),
    "pads": lambda x, i: ops.slice(ops.pad(x, (1, 0), (0, 1), 0.0), (i % 2, 1), (6 + i % 2, 7), (1, 1)),
    "reductions": lambda x, i: x - ops.expand(ops.sum(x, (i % 2,)), (6, 6), (i % 2,)) * 0.1,
    "updates": lambda x, i: ops.slice_update(x, ops.slice(x, (0, 0), (1, 6), (1, 1)), (i % 6, 0), (i % 6 + 1, 6), (1, 1)),
    "casts": lambda x, i: ops.cast(ops.cast(x, int64) + i, float32),
}


def chain(step: Callable[[Value, int], Value], count: int) -> Graph:
    b = Builder("chain", locations=False)
    x = b.input("x", TensorType(float32, (6, 6)))
    for i in range(count):
        x = step(x, i)
    return b.finish([x])


@contextmanager
def shallow_stack() -> Iterator[None]:
    """As little stack as a program is left with that calls from far down; node by node, hundreds of them would not fit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 300)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("name", STEPS)
def test_long_chains_need_no_deep_stack(name: str) -> None:
    graph = chain(STEPS[name], 300)
    with shallow_stack():
        backward = vjp_graph(graph)
        assert lower(pipeline.run(graph), Machine()).kernels and lower(pipeline.run(backward), Machine()).kernels


@pytest.mark.parametrize("name", ["elementwise", "flips and permutes", "pads", "casts"])
def test_long_chains_compute_what_they_say(name: str) -> None:
    graph = chain(STEPS[name], 300)
    x = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    for got, expected in zip(compile_graph(graph)(x), interpret(graph, [x])):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_ten_thousand_nodes_are_scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "verify", False)
    graph = chain(STEPS["elementwise"], 3300)
    assert len(graph.nodes) > 9900
    assert lower(pipeline.run(graph), Machine()).kernels


def test_shared_expressions_are_not_printed_each_time() -> None:
    x = load(Buffer("x", float32, 1), Axis("i", 1).value)
    for _ in range(60):
        x = ops.sin(x + x)
    assert len(repr(x)) < 20_000
