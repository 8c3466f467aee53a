"""Floating-point operations of graphs, against what they are by the formulas of textbooks."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.flops import graph_flops, node_flops
from graphc.nn import functional as F
from graphc.passes import pipeline


def operations(function: Any, *shapes: tuple[int, ...]) -> Any:
    return graph_flops(graphc.trace(function, tuple(graphc.ones(*shape) for shape in shapes)).ir)


@pytest.mark.parametrize("function, shapes, expected", [
    (lambda x, y: x @ y, [(3, 4), (4, 5)], 2 * 3 * 4 * 5),
    (lambda x, y: x @ y, [(7, 3, 4), (7, 4, 5)], 2 * 7 * 3 * 4 * 5),
    (lambda x, y: graphc.einsum("ij,kj->ik", x, y), [(3, 4), (5, 4)], 2 * 3 * 4 * 5),
    (lambda x, w: F.conv2d(x, w, padding=1), [(2, 3, 8, 8), (5, 3, 3, 3)], 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)),
    (lambda x, w: F.conv2d(x, w, stride=2, groups=3), [(2, 3, 9, 9), (6, 1, 3, 3)], 2 * (2 * 6 * 4 * 4) * (3 * 3)),
    (lambda x: x.exp() + x * 2, [(10, 10)], 300),
    (lambda x: x.sum(0), [(10, 20)], 200),
    (lambda x: x.transpose(0, 1).reshape(-1)[3:].contiguous(), [(10, 20)], 0),
    (lambda x: (x > 0).long().sum(), [(10,)], 10),
])  # fmt: skip
def test_operations(function: Any, shapes: list[tuple[int, ...]], expected: int) -> None:
    assert operations(function, *shapes) == expected


def test_loops_count_for_each_step() -> None:
    one = operations(lambda x: (x * 2 + 1).tanh(), (8,))
    assert operations(lambda x: graphc.scan(lambda c, _: ((c * 2 + 1).tanh(), c), x, graphc.ones(6, 1))[0], (8,)) == 6 * one


def test_attention_counts_for_its_two_products() -> None:
    graph = graphc.trace(lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
                         (graphc.ones(2, 3, 16, 8), graphc.ones(2, 3, 20, 8), graphc.ones(2, 3, 20, 4))).ir  # fmt: skip
    products = 2 * 2 * 3 * 16 * 20 * (8 + 4)
    assert products <= graph_flops(graph) < 1.6 * products
    (fused,) = (node for node in pipeline.run(graph).nodes if node.op.name == "attention")
    assert node_flops(fused) == products


def test_symbolic_sizes() -> None:
    batch = graphc.Dim("batch")
    program = graphc.export(nn.Linear(4, 8), (graphc.ones(2, 4),), dynamic_shapes={"input": {0: batch}})
    assert str(graph_flops(program.graph)) == "72*batch"
