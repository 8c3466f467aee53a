"""Reverse mode as a graph transformation, against finite differences, to second order."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops as ops
from graphc.autodiff import split_vjp, vjp_graph
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.types import TensorType, float32, float64, int64


def differences(graph: Graph, arrays: list[np.ndarray], cotangents: list[np.ndarray], i: int) -> np.ndarray:
    """Central differences of <cotangents, graph(arrays)> by input i."""
    slope = np.zeros_like(arrays[i])
    for at in np.ndindex(arrays[i].shape):
        total = []
        for step in (1e-6, -1e-6):
            moved = [a.copy() for a in arrays]
            moved[i][at] += step
            total.append(sum((o * c).sum() for o, c in zip(interpret(graph, moved), cotangents)))
        slope[at] = (total[0] - total[1]) / 2e-6
    return slope


def check(graph: Graph, arrays: list[np.ndarray], order: int = 2) -> None:
    rng = np.random.default_rng(3)
    cotangents = [rng.standard_normal(v.shape) for v in graph.outputs]
    backward = vjp_graph(graph)
    found = interpret(backward, [*arrays, *cotangents])
    for i, slope in enumerate(found):
        np.testing.assert_allclose(slope, differences(graph, arrays, cotangents, i), rtol=1e-5, atol=1e-6)
    if order > 1:
        check(backward, [*arrays, *cotangents], order - 1)


def build(*shapes: tuple[int, ...]) -> tuple[Builder, list[Value], list[np.ndarray]]:
    b = Builder("f")
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
    return b, [b.input(f"x{i}", TensorType(float64, s)) for i, s in enumerate(shapes)], arrays


FUNCTIONS = {
    "broadcast": lambda x, y: x * y + ops.exp(y),
    "matmul": lambda x, y: ops.tanh(ops.matmul(x, ops.permute(x * y, (1, 0)))),
    "reductions": lambda x, y: ops.sum(x * x, (0,)) / ops.sum(y, (0,)),
    "amax": lambda x, y: ops.amax(x, (0,)) * ops.amin(y, (0,)),
    "pow": lambda x, y: ops.pow(x, y) + ops.pow(x, 3.0),
    "slices": lambda x, y: ops.slice_update(x, ops.slice(x * y, (0, 1), (2, 3), (1, 1)), (1, 0), (3, 2), (1, 1)),
    "concat": lambda x, y: ops.concat(x * x, ops.pad(y, (0, 1), (0, 1), 0.0), axis=0) * 2.0,
    "windows": lambda x, y: ops.fold(ops.window(x * x, 0, 2, 1, 1), 0, 4, 1, 1) * ops.sum(y, (0, 1)),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_first_and_second_order(name: str) -> None:
    b, (x, y), arrays = build((3, 4), (1, 4) if name != "concat" else (2, 2))
    check(b.finish([FUNCTIONS[name](x, y)]), arrays)


def test_gather_and_scatter() -> None:
    b, (x,), arrays = build((3, 4))
    index = b.constant(np.array([[1, 3], [0, 0], [2, 1]]))
    check(b.finish([ops.gather(x * x, index, 1)]), arrays)


def test_convolution() -> None:
    b, (x, w), arrays = build((2, 2, 5), (3, 2, 2))
    attrs = {"stride": (2,), "padding": ((1, 0),), "dilation": (1,), "groups": 1}
    check(b.finish([ops.conv(x, w, **attrs)]), arrays)


def test_what_does_not_depend_gets_zeros() -> None:
    b, (x, _), arrays = build((2,), (3,))
    (dx, dy) = interpret(vjp_graph(b.finish([x * 2.0])), [*arrays, np.ones(2)])
    np.testing.assert_array_equal(dx, [2, 2])
    np.testing.assert_array_equal(dy, np.zeros(3))


def test_mixed_dtypes_come_back_in_the_operand_dtype() -> None:
    b = Builder("f")
    x = b.input("x", TensorType(float32, (3,)))
    n = b.input("n", TensorType(int64, (3,)))
    out = ops.cast(x, float64) * 2.0 + ops.cast(n, float64)
    backward = vjp_graph(b.finish([out]))
    assert [v.type for v in backward.outputs] == [TensorType(float32, (3,))]


def test_split_computes_what_the_whole_does() -> None:
    b, (x, w), arrays = build((4, 3), (3, 2))
    graph = b.finish([ops.tanh(ops.matmul(x, w)) * 2.0, ops.sum(ops.exp(x), (0,))])
    forward, backward, kept, taken = split_vjp(graph, [0, 1], [0, 1])
    cotangents = [np.ones((4, 2)), np.ones(3)]
    results = interpret(forward, arrays)
    found = interpret(backward, [*(results[j] for j in kept), *(arrays[i] for i in taken), *cotangents])
    for got, want in zip(found, interpret(vjp_graph(graph), [*arrays, *cotangents])):
        np.testing.assert_allclose(got, want)
    names = [node.op.name for node in backward.nodes]
    assert "matmul" in names and "tanh" not in names  # what takes long is kept
    assert "exp" in names and len(kept) == 1  # what takes little is done again
