"""Attention on a GPU: by tensor cores for half precision and TF32, and number by number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import driver, needs_compiler, needs_nvrtc, run

import graphc
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import nvrtc
from graphc.backends.cuda.backend import CUDABackend, rendered
from graphc.backends.cuda.program import KernelStep, Rendered, translation_unit
from graphc.ir import Graph

__all__ = ["driver"]
F = nn.functional
attend = F.scaled_dot_product_attention


def exact(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None, causal: bool = False) -> np.ndarray:
    """In double precision."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True) @ v


def made(graph: Graph, numerics: str = "strict") -> Rendered:
    return rendered(graph, Layout((None,) * len(graph.inputs), numerics=numerics))


def check(
    driver: EmulatedDriver, function: Callable[..., Any], expected: np.ndarray, *tensors: graphc.Tensor,
    numerics: str = "strict", kernels: int = 2,
) -> None:
    """A function is computed by tensor cores, whatever the order of threads, up to the rounding of factors."""
    graph = graphc.trace(function, tensors).ir
    layout = Layout((None,) * len(tensors), numerics=numerics)
    parts = made(graph, numerics)
    assert "multiply_tiles" in "".join(parts.functions.values()) and len(parts.steps) == kernels
    executable = CUDABackend(driver).compile(graph, layout)
    results = []
    for driver.downwards in (False, True):
        result = np.empty(executable.outputs[0].shape, executable.outputs[0].dtype.numpy)
        executable.run([np.require(t.numpy(), requirements="C") for t in tensors], [result])
        results.append(result)
    assert results[0].tobytes() == results[1].tobytes(), "a barrier is missing"
    tolerance = 2e-2 if tensors[0].dtype is graphc.bfloat16 else 3e-3
    np.testing.assert_allclose(results[0].astype(np.float64), expected, rtol=tolerance, atol=tolerance)


def heads(*shapes: tuple[int, ...], dtype: graphc.dtype = graphc.float16) -> list[graphc.Tensor]:
    return [graphc.randn(*shape).to(dtype) for shape in shapes]


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16])
@pytest.mark.parametrize("width", [8, 20, 32, 64, 96, 128, 256])
def test_widths(driver: EmulatedDriver, width: int, dtype: graphc.dtype, causal: bool) -> None:
    q, k, v = heads((2, 37, width), (2, 85, width), (2, 85, width), dtype=dtype)
    expected = exact(q.numpy(), k.numpy(), v.numpy(), causal=causal)
    check(driver, lambda q, k, v: attend(q, k, v, is_causal=causal), expected, q, k, v)


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [32, 64, 128, 240])
def test_factors_of_11_bits(driver: EmulatedDriver, width: int, causal: bool) -> None:
    q, k, v = heads((2, 37, width), (2, 40, width), (2, 40, width), dtype=graphc.float32)
    expected = exact(q.numpy(), k.numpy(), v.numpy(), causal=causal)
    check(driver, lambda q, k, v: attend(q, k, v, is_causal=causal), expected, q, k, v, numerics="high", kernels=1)
    assert "multiply_tiles" not in "".join(made(graphc.trace(attend, (q, k, v)).ir).functions.values())


@needs_compiler
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (17, 200), (130, 64), (65, 63)])
def test_lengths(driver: EmulatedDriver, queries: int, keys: int) -> None:
    q, k, v = heads((2, queries, 32), (2, keys, 32), (2, keys, 48))
    for causal in (False, True):
        expected = exact(q.numpy(), k.numpy(), v.numpy(), causal=causal)
        check(driver, lambda q, k, v, causal=causal: attend(q, k, v, is_causal=causal), expected, q, k, v)


@needs_compiler
def test_masks(driver: EmulatedDriver) -> None:
    q, k, v = heads((2, 3, 37, 64), (2, 3, 70, 64), (2, 3, 70, 64))
    for shape in ((37, 70), (2, 1, 37, 70), (1, 70)):
        mask = graphc.rand(*shape) < 0.6
        mask[..., 0] = True
        expected = exact(q.numpy(), k.numpy(), v.numpy(), mask.numpy())
        check(driver, lambda q, k, v, m: attend(q, k, v, attn_mask=m), expected, q, k, v, mask)


@needs_compiler
def test_queries_that_may_look_nowhere(driver: EmulatedDriver) -> None:
    """A first tile without keys for some, and no keys at all for one: PyTorch's answer is 0."""
    q, k, v = heads((40, 64), (100, 64), (100, 64))
    mask = graphc.ones(40, 100, dtype=graphc.bool)
    mask[3] = False
    mask[5:9, :80] = False
    expected = np.nan_to_num(exact(q.numpy(), k.numpy(), v.numpy(), mask.numpy()), nan=0.0)
    check(driver, lambda q, k, v, m: attend(q, k, v, attn_mask=m), expected, q, k, v, mask)


@needs_compiler
def test_great_scores(driver: EmulatedDriver) -> None:
    q, k, v = heads((1, 32, 32), (1, 150, 32), (1, 150, 32))
    q, k = q * 30, k * 30
    check(driver, attend, exact(q.numpy(), k.numpy(), v.numpy()), q, k, v)


@needs_compiler
def test_heads_where_they_stand(driver: EmulatedDriver) -> None:
    """Between rows, and all three beside each other, as a layer computes them; and where rows are not aligned."""
    x = graphc.randn(2, 33, 3, 4, 32).half()

    def split(x: graphc.Tensor) -> graphc.Tensor:
        q, k, v = (x[:, :, i].transpose(1, 2) for i in range(3))
        return attend(q, k, v, is_causal=True)

    q, k, v = (x.numpy()[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    check(driver, split, exact(q, k, v, causal=True), x)
    for width in (36, 41):
        q, k, v = heads((33, width + 1), (33, width + 1), (33, width + 1))
        expected = exact(*(t.numpy()[:, 1:] for t in (q, k, v)))
        check(driver, lambda q, k, v: attend(q[:, 1:], k[:, 1:], v[:, 1:]), expected, q, k, v)


@needs_compiler
def test_arrays_that_are_not_aligned(driver: EmulatedDriver) -> None:
    graph = graphc.trace(attend, heads((40, 64), (40, 64), (40, 64))).ir
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((3, 40 * 64 + 8)).astype(np.float16)
    q, k, v = (row[-row.ctypes.data // 2 % 8 + 1 :][: 40 * 64].reshape(40, 64) for row in memory)
    result = np.empty((40, 64), np.float16)
    executable.run([q, k, v], [result])
    np.testing.assert_allclose(result, exact(q, k, v), rtol=3e-3, atol=3e-3)


@needs_compiler
def test_attention_of_several_dtypes_beside_each_other(driver: EmulatedDriver) -> None:
    """Of the same shapes: each has a function of its own."""
    kinds = [graphc.float16, graphc.bfloat16, graphc.float32]
    tensors = [t for dtype in kinds for t in heads((2, 20, 32), (2, 20, 32), (2, 20, 32), dtype=dtype)]
    graph = graphc.trace(lambda *each: tuple(attend(*each[i : i + 3]) for i in (0, 3, 6)), tensors).ir
    arrays = [t.numpy() for t in tensors]
    for i, got in zip((0, 3, 6), run(driver, graph, arrays), strict=True):
        np.testing.assert_allclose(got.astype(np.float64), exact(*arrays[i : i + 3]), rtol=2e-2, atol=2e-2)


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_registers(architecture: str) -> None:
    """Nothing is spilled, and a multiprocessor has room for two blocks at the least."""
    for (dtype, numerics), width in itertools.product(
        [(graphc.bfloat16, "strict"), (graphc.float16, "strict"), (graphc.float32, "high")], [64, 128, 256]
    ):
        x = graphc.empty(2, 4, 1024, width, dtype=dtype)
        parts = made(graphc.trace(lambda q, k, v: attend(q, k, v, is_causal=True), (x, x, x)).ir, numerics)
        assert all(isinstance(step, KernelStep) for step in parts.steps)
        for used in nvrtc.resources(translation_unit(parts.functions), architecture).values():
            assert used.spilled == 0 and used.registers <= 255


def test_matrices_that_others_need_are_kept() -> None:
    """Weights that are a result, too, and those of a derivative for which the result is not computed."""
    q, k, v = heads((40, 64), (40, 64), (40, 64))

    def both(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        weights = (q @ k.T).softmax(-1)
        return weights @ v, weights

    for function in (both, graphc.func.grad(lambda q, k, v: attend(q, k, v).float().sum())):
        kernels = made(graphc.trace(function, (q, k, v)).ir).program.kernels
        assert not any(type(kernel).__name__ == "Attention" for kernel in kernels)
