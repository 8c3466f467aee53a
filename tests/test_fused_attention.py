"""Attention as one kernel: recognised where it is written out, and the same numbers without the matrix of weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops as ops
from graphc import runtime
from graphc.compiler import compile_graph
from graphc.config import override
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.kernel import Attention, AttentionBackward
from graphc.parse import parse_graph
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, bool_, float32

F = graphc.nn.functional


SIZES = [(16, 16, 4, 4), (17, 31, 5, 3), (64, 64, 64, 64), (131, 257, 33, 67), (100, 300, 16, 1), (300, 100, 1, 16),
         (129, 128, 64, 64)]  # fmt: skip


def graph_of(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray, causal: bool = False, zeros: bool = False
) -> Graph:
    b = Builder("attention")
    operands = [b.input(f"x{i}", TensorType(float32, x.shape)) for i, x in enumerate((q, k, v))]
    if mask:
        chosen = b.input("mask", TensorType(bool_, mask[0].shape))
    else:
        chosen = ops.reshape(ops.constant(value=np.array(True), like=operands[0]), (1,) * q.ndim)
    return b.finish(ops.attention(*operands, chosen, scale=0.2, causal=causal, zeros=zeros))


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["", "all", "keys"])
def test_the_kernel_computes_what_the_op_is_defined_to(sizes: tuple[int, int, int, int], causal: bool, masked: str) -> None:
    queries, keys, width, columns = sizes
    arrays = draw((2, queries, width), (2, keys, width), (2, keys, columns))
    if masked:
        shape = (2, queries, keys) if masked == "all" else (1, 1, keys)
        mask = np.random.default_rng(1).random(shape) < 0.7
        mask[..., 0] = True
        arrays.append(mask)
    graph = graph_of(*arrays, causal=causal)
    assert "attention" in [node.op.name for node in pipeline.run(graph).nodes]
    for got, want in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def derivative_of(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, ct: np.ndarray, *mask: np.ndarray, causal: bool = False, zeros: bool = False
) -> Graph:
    b = Builder("derivative")
    operands = [b.input(f"x{i}", TensorType(float32, x.shape)) for i, x in enumerate((q, k, v, ct))]
    slope = operands.pop()
    if mask:
        operands.append(b.input("mask", TensorType(bool_, mask[0].shape)))
    else:
        operands.append(ops.reshape(ops.constant(value=np.array(True), like=slope), (1,) * q.ndim))
    out, lse = ops.attention(*operands, scale=0.2, causal=causal, zeros=zeros)
    inner = ops.sum(ops.mul(out, slope), (q.ndim - 1,))
    return b.finish(ops.attention_backward(*operands, slope, lse, inner, scale=0.2, causal=causal))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["", "all", "keys", "triangle"])
def test_the_kernel_of_the_derivative(sizes: tuple[int, int, int, int], causal: bool, masked: str) -> None:
    queries, keys, width, columns = sizes
    arrays = draw((2, queries, width), (2, keys, width), (2, keys, columns), (2, queries, columns))
    if masked:
        shape = (1, 1, keys) if masked == "keys" else (2, queries, keys)
        mask = np.broadcast_to(np.tri(queries, keys) > 0, shape) if masked == "triangle" else (
            np.random.default_rng(1).random(shape) < 0.7)
        mask = mask.copy()
        mask[..., 0] = True
        arrays.append(mask)
    graph = derivative_of(*arrays, causal=causal)
    assert "attention_backward" in [node.op.name for node in pipeline.run(graph).nodes]
    for got, want in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("batch", [(1,), (3, 4), (5, 4)])
@pytest.mark.parametrize("width", [16, 20])
def test_the_derivative_of_few_matrices_and_of_many(batch: tuple[int, ...], width: int) -> None:
    arrays = draw((*batch, 70, width), (*batch, 200, width), (*batch, 200, 8), (*batch, 70, 8))
    graph = derivative_of(*arrays)
    for got, want in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("zeros", [False, True])
def test_the_derivative_by_a_query_that_may_look_at_no_key(zeros: bool) -> None:
    arrays = draw((1, 130, 8), (1, 150, 8), (1, 150, 8), (1, 130, 8))
    mask = np.ones((1, 130, 150), bool)
    mask[0, 3] = mask[0, 100:] = False
    mask[0, 20, :60] = mask[0, 40:98, 70:] = False
    graph = derivative_of(*arrays, mask, zeros=zeros)
    found, wanted = compile_graph(graph)(*arrays, mask), interpret(graph, [*arrays, mask])
    assert np.isnan(wanted[2]).all() != zeros
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_query_that_may_look_at_no_key(zeros: bool) -> None:
    arrays = draw((1, 40, 8), (1, 50, 8), (1, 50, 8))
    mask = np.ones((1, 40, 50), bool)
    mask[0, 3] = False
    mask[0, 20, :48] = False  # nothing in the first blocks of keys
    graph = graph_of(*arrays, mask, zeros=zeros)
    (got, lse), (want, sums) = compile_graph(graph)(*arrays, mask), interpret(graph, [*arrays, mask])
    assert lse[0, 3] == sums[0, 3] == (math.inf if zeros else -math.inf)
    assert (got[0, 3] == 0).all() if zeros else np.isnan(got[0, 3]).all()
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(lse, sums, rtol=2e-5, atol=2e-6)


def test_what_is_not_finite_stays_where_it_is() -> None:
    q, k, v = draw((1, 20, 8), (1, 200, 8), (1, 200, 8))
    q[0, 2, 3] = np.nan
    v[0, 5, 1] = np.inf
    graph = graph_of(q, k, v)
    (got, _), (want, _) = compile_graph(graph)(q, k, v), interpret(graph, [q, k, v])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = draw((1, 16, 8), (1, 200, 8), (1, 200, 8))
    graph = graph_of(q * 300, k * 300, v)
    (got, _), (want, _) = compile_graph(graph)(q * 300, k * 300, v), interpret(graph, [q * 300, k * 300, v])
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def handwritten(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """As in nanoGPT."""
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    scores = scores.masked_fill(mask[:, :, : q.size(-2), : k.size(-2)] == 0, float("-inf"))
    return F.softmax(scores, dim=-1) @ v


WAYS: dict[str, Callable[..., Any]] = {
    "plain": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v),
    "causal": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
    "mask": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask > 0),
    "padding": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, :, -1:] > 0),
    "handwritten": handwritten,
}


def kernels_of(function: Callable[..., Any], *args: graphc.Tensor) -> list[Any]:
    graph = pipeline.run(parse_graph(str(graphc.trace(function, args))))
    return list(lower(graph, Machine(vector_bytes=16)).kernels)


@pytest.mark.parametrize("way", WAYS)
def test_attention_is_recognised(way: str) -> None:
    q, k, v = (graphc.tensor(x) for x in draw((2, 3, 33, 8), (2, 3, 40, 8), (2, 3, 40, 8)))
    mask = graphc.tensor(np.random.default_rng(0).random((1, 1, 33, 40)) < 0.8).float()
    assert sum(isinstance(kernel, Attention) for kernel in kernels_of(WAYS[way], q, k, v, mask)) == 1
    got = graphc.compile(WAYS[way])(q, k, v, mask)
    np.testing.assert_allclose(got.numpy(), WAYS[way](q, k, v, mask).numpy(), rtol=2e-5, atol=2e-6)


def step(way: str) -> Callable[..., Any]:
    """Attention and its derivative."""

    def function(q: Any, k: Any, v: Any, mask: Any, ct: Any) -> Any:
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = WAYS[way](q, k, v, mask)
        out.backward(ct)
        return out.detach(), q.grad, k.grad, v.grad

    return function


@pytest.mark.parametrize("way", WAYS)
def test_the_derivative_is_recognised(way: str) -> None:
    q, k, v, ct = (graphc.tensor(x) for x in draw((2, 3, 33, 8), (2, 3, 40, 8), (2, 3, 40, 8), (2, 3, 33, 8)))
    mask = graphc.tensor(np.random.default_rng(0).random((1, 1, 33, 40)) < 0.8).float()
    kernels = kernels_of(step(way), q, k, v, mask, ct)
    for kind in (Attention, AttentionBackward):
        assert sum(isinstance(kernel, kind) for kernel in kernels) == 1
    for got, want in zip(graphc.compile(step(way))(q, k, v, mask, ct), step(way)(q, k, v, mask, ct), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-4, atol=2e-6)


def test_the_derivative_by_some_of_them() -> None:
    def function(q: Any, k: Any, v: Any, ct: Any, wanted: int) -> Any:
        q, k, v = (x.detach().requires_grad_(i == wanted) for i, x in enumerate((q, k, v)))
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(ct)
        return (q, k, v)[wanted].grad

    q, k, v, ct = (graphc.tensor(x) for x in draw(*[(2, 40, 8)] * 4))
    for wanted in range(3):
        got = graphc.compile(function)(q, k, v, ct, wanted)
        np.testing.assert_allclose(got.numpy(), function(q, k, v, ct, wanted).numpy(), rtol=1e-4, atol=2e-6)


def test_weights_that_are_used_beside_the_derivative_are_computed() -> None:
    def function(q: Any, k: Any, v: Any, ct: Any) -> Any:
        q = q.detach().requires_grad_()
        weights = F.softmax(q @ k.transpose(-2, -1), dim=-1)
        (weights @ v).backward(ct)
        return weights.detach(), q.grad

    arrays = [graphc.tensor(x) for x in draw(*[(40, 8)] * 4)]
    assert not any(isinstance(kernel, Attention) for kernel in kernels_of(function, *arrays))
    for got, want in zip(graphc.compile(function)(*arrays), function(*arrays), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-4, atol=2e-6)


def called(function: Callable[..., Any], *args: graphc.Tensor) -> list[np.ndarray]:
    """The result of a function and its gradients, of the first order and the second."""
    args = tuple(x.detach().requires_grad_() for x in args)
    out = function(*args)
    first = graphc.autograd.grad((out * out).sum(), args, create_graph=True)
    second = graphc.autograd.grad(sum((x * x).sum() for x in first), args)
    return [x.detach().numpy() for x in (out, *first, *second)]


@pytest.mark.parametrize("way", ["compiled", "eager"])
def test_the_derivative_from_outside(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    module = sys.modules["graphc.schedule.lower"]
    kernels = module.attention_kernels  # type: ignore[attr-defined]

    def noted(name: str, node: Any, *rest: Any) -> Any:
        made.append(node.op.name)
        return kernels(name, node, *rest)

    monkeypatch.setattr(module, "attention_kernels", noted)
    shape = (2, 5, 80, 24) if way == "compiled" else (2, 5, 81, 24)  # of its own: what is made already is not made again
    arrays = [graphc.tensor(x) for x in draw(*[shape] * 3)]

    def function(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> graphc.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    with override(cache_dir=None):
        found = called(graphc.compile(function) if way == "compiled" else function, *arrays)
    assert {"attention", "attention_backward"} <= set(made)
    with override(fuse_eager=False):
        wanted = called(function, *arrays)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6 * np.abs(want).max())


def test_heads_are_read_where_they_stand() -> None:
    def heads(x: graphc.Tensor) -> graphc.Tensor:
        q, k, v = (part.view(2, 32, 3, 8).transpose(1, 2) for part in x.split(24, dim=2))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 32, 24)

    x = graphc.tensor(draw((2, 32, 72))[0])
    kernels = kernels_of(heads, x)
    assert [type(kernel) for kernel in kernels[:1]] == [Attention] and len(kernels) <= 2
    np.testing.assert_allclose(graphc.compile(heads)(x).numpy(), heads(x).numpy(), rtol=2e-5, atol=2e-6)


def test_weights_that_are_used_are_computed() -> None:
    def both(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        weights = F.softmax(q @ k.transpose(-2, -1), dim=-1)
        return weights @ v, weights

    arrays = [graphc.tensor(x) for x in draw((33, 8), (40, 8), (40, 8))]
    assert not any(isinstance(kernel, Attention) for kernel in kernels_of(both, *arrays))
    for got, want in zip(graphc.compile(both)(*arrays), both(*arrays), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("sizes", [(1, 1), (0, 20), (20, 0), (1, 40), (15, 16)])
def test_what_is_too_small_is_computed_by_simpler_ops(sizes: tuple[int, int]) -> None:
    arrays = draw((2, sizes[0], 4), (2, sizes[1], 4), (2, sizes[1], 4))
    graph = graph_of(*arrays, causal=bool(sizes[1]))
    assert not any(node.op is ops.attention for node in pipeline.run(graph).nodes)
    for got, want in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_the_matrix_of_weights_is_not_in_memory() -> None:
    q, k, v = (graphc.tensor(x) for x in draw(*[(1, 2, 4096, 16)] * 3))
    graph = pipeline.run(parse_graph(str(graphc.trace(WAYS["causal"], (q, k, v, q)))))
    program = lower(graph, Machine(vector_bytes=64))
    assert all(buffer.size <= q.numel() for buffer in program.temporaries)


@pytest.mark.parametrize("heads", [3, 9])
def test_threads_do_not_change_the_bits(heads: int) -> None:
    q, k, v = (graphc.tensor(x) for x in draw(*[(2, heads, 200, 32)] * 3))
    compiled = graphc.compile(step("causal"))

    def function(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> list[bytes]:
        return [x.numpy().tobytes() for x in compiled(q, k, v, q, v)]

    threads = graphc.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            graphc.set_num_threads(count)
            results.append(function(q, k, v))
    finally:
        graphc.set_num_threads(threads)
    assert results[0] == results[1]


def test_gradients_of_the_op() -> None:
    arrays = draw((2, 4, 3), (2, 5, 3), (2, 5, 2))
    tensors = [graphc.tensor(x.astype(np.float64), requires_grad=True) for x in arrays]
    mask = graphc.tensor(np.random.default_rng(0).random((1, 4, 5)) < 0.7)
    for causal in (False, True):
        def function(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor, causal: bool = causal) -> graphc.Tensor:
            return ops.attention(q, k, v, mask, scale=0.3, causal=causal, zeros=True)

        assert graphc.autograd.gradcheck(function, tensors)


def test_a_saved_module_computes_it(tmp_path: Path) -> None:
    module = graphc.nn.TransformerEncoderLayer(32, 2, 48, batch_first=True).eval()
    x = graphc.tensor(draw((2, 24, 32))[0])
    graphc.save(graphc.export(module, (x,)), tmp_path / "layer.gcz")
    got = runtime.load(tmp_path / "layer.gcz")(x.numpy())
    np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=2e-5, atol=2e-5)


def test_the_text_reads_back() -> None:
    graph = graph_of(*draw((2, 20, 4), (2, 24, 4), (2, 24, 4)), np.ones((1, 1, 24), bool), causal=True)
    assert parse_graph(str(graph)) == graph
