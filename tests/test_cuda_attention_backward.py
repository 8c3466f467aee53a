"""The derivative of attention on a GPU: by tensor cores for half precision and TF32."""

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
from graphc.backends.cuda.backend import rendered
from graphc.backends.cuda.program import KernelStep, Rendered, translation_unit
from graphc.ir import Graph
from graphc.kernel import Attention, AttentionBackward

__all__ = ["driver"]
F = nn.functional
attend = F.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def seed() -> None:
    graphc.manual_seed(0)


def exact(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, ct: np.ndarray, mask: np.ndarray | None = None, causal: bool = False
) -> list[np.ndarray]:
    """The result and the derivatives, in double precision; zeros for queries that may look at no key."""
    q, k, v, ct = (x.astype(np.float64) for x in (q, k, v, ct))
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ np.swapaxes(k, -1, -2) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        weights = np.nan_to_num(powers / powers.sum(-1, keepdims=True))
    out = weights @ v
    slopes = weights * (ct @ np.swapaxes(v, -1, -2) - (ct * out).sum(-1, keepdims=True)) * scale
    return [out, slopes @ k, np.swapaxes(slopes, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ ct]


def both(causal: bool = False) -> Callable[..., Any]:
    """The result and the derivatives, of queries, keys, values and a cotangent, and perhaps a mask."""

    def function(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor, ct: graphc.Tensor, *mask: graphc.Tensor) -> Any:
        chosen = mask[0] if mask else None
        out, back = graphc.func.vjp(lambda q, k, v: attend(q, k, v, attn_mask=chosen, is_causal=causal), q, k, v)
        return out, back(ct)

    return function


def made(graph: Graph, numerics: str = "strict") -> Rendered:
    return rendered(graph, Layout((None,) * len(graph.inputs), numerics=numerics))


def functions_of(parts: Rendered, kind: type) -> list[str]:
    """The functions of the kernels of a kind."""
    kernels = parts.program.kernels
    return [parts.functions[step.launch.symbol] for step in parts.steps
            if isinstance(step, KernelStep) and isinstance(kernels[step.number], kind)]


def check(
    driver: EmulatedDriver, function: Callable[..., Any], expected: list[np.ndarray], *tensors: graphc.Tensor,
    numerics: str = "strict",
) -> None:
    """Both passes are computed by tensor cores, up to the rounding of factors."""
    graph = graphc.trace(function, tensors).ir
    for kind in (Attention, AttentionBackward):
        (text,) = functions_of(made(graph, numerics), kind)
        assert "multiply_tiles" in text
    layout = Layout((None,) * len(tensors), numerics=numerics)
    tolerance = 2e-2 if tensors[0].dtype is graphc.bfloat16 else 4e-3
    for got, want in zip(run(driver, graph, [t.numpy() for t in tensors], layout), expected, strict=True):
        limit = tolerance * max(1e-3, float(np.abs(want).max()))
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=limit)


def heads(
    queries: tuple[int, ...], keys: int, width: int, columns: int, dtype: graphc.dtype = graphc.float16
) -> list[graphc.Tensor]:
    *batch, rows = queries
    shapes = (*queries, width), (*batch, keys, width), (*batch, keys, columns), (*batch, rows, columns)
    return [graphc.randn(*shape).to(dtype) for shape in shapes]


def arrays(tensors: list[graphc.Tensor]) -> list[np.ndarray]:
    return [t.numpy() for t in tensors]


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16])
@pytest.mark.parametrize("width", [8, 20, 32, 64, 96, 128, 160, 256])
def test_widths(driver: EmulatedDriver, width: int, dtype: graphc.dtype, causal: bool) -> None:
    tensors = heads((2, 37), 85, width, width, dtype)
    check(driver, both(causal), exact(*arrays(tensors), causal=causal), *tensors)


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_factors_of_11_bits(driver: EmulatedDriver, width: int, causal: bool) -> None:
    tensors = heads((2, 37), 40, width, width, graphc.float32)
    check(driver, both(causal), exact(*arrays(tensors), causal=causal), *tensors, numerics="high")
    for numerics, wide in (("strict", width), ("high", 256)):  # as they are; and where there is no room for a tile
        graph = graphc.trace(both(causal), heads((2, 37), 40, wide, wide, graphc.float32)).ir
        (text,) = functions_of(made(graph, numerics), AttentionBackward)
        assert "multiply_tiles" not in text


@needs_compiler
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (17, 200), (130, 64), (65, 63), (64, 129), (200, 17)])
def test_lengths(driver: EmulatedDriver, queries: int, keys: int) -> None:
    tensors = heads((2, queries), keys, 32, 48)
    for causal in (False, True):
        check(driver, both(causal), exact(*arrays(tensors), causal=causal), *tensors)


@needs_compiler
def test_masks(driver: EmulatedDriver) -> None:
    tensors = heads((2, 3, 37), 70, 64, 64)
    for shape in ((37, 70), (2, 1, 37, 70), (1, 70)):
        mask = graphc.rand(*shape) < 0.6
        mask[..., 0] = True
        check(driver, both(), exact(*arrays(tensors), mask.numpy()), *tensors, mask)


@needs_compiler
def test_queries_that_may_look_nowhere(driver: EmulatedDriver) -> None:
    tensors = heads((40,), 100, 64, 64)
    mask = graphc.ones(40, 100, dtype=graphc.bool)
    mask[3] = False
    mask[5:9, :80] = False
    check(driver, both(), exact(*arrays(tensors), mask.numpy()), *tensors, mask)


@needs_compiler
def test_great_scores(driver: EmulatedDriver) -> None:
    q, k, v, ct = heads((1, 32), 150, 64, 64)
    q, k = q * 6, k * 6
    check(driver, both(), exact(*arrays([q, k, v, ct])), q, k, v, ct)


@needs_compiler
def test_heads_where_they_stand(driver: EmulatedDriver) -> None:
    """All three beside each other, as a layer computes them, and what comes of them computed on the way."""
    x, ct = graphc.randn(2, 33, 3, 4, 32).half(), graphc.randn(2, 33, 4, 32).half()

    def layer(x: graphc.Tensor, ct: graphc.Tensor) -> Any:
        def forward(x: graphc.Tensor) -> graphc.Tensor:
            q, k, v = (x[:, :, i].transpose(1, 2) for i in range(3))
            return attend(q, k, v, is_causal=True).transpose(1, 2) * 2

        out, back = graphc.func.vjp(forward, x)
        return out, back(ct)[0]

    q, k, v = (x.numpy()[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    out, *gradients = exact(q, k, v, ct.numpy().transpose(0, 2, 1, 3) * 2, causal=True)
    expected = [out.transpose(0, 2, 1, 3) * 2, np.stack([g.transpose(0, 2, 1, 3) for g in gradients], 2)]
    check(driver, layer, expected, x, ct)


@needs_compiler
def test_halves_that_are_made_of_inputs(driver: EmulatedDriver) -> None:
    """Rounded on the way to attention, whose kernels want them in memory."""
    tensors = heads((2, 40), 50, 64, 64, graphc.float32)
    halves = [t.half() for t in tensors]

    def function(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor, ct: graphc.Tensor) -> Any:
        return both()(q.half(), k.half(), v.half(), ct.half())

    check(driver, function, exact(*arrays(halves)), *tensors)


@needs_compiler
def test_a_training_step(driver: EmulatedDriver) -> None:
    """Of a layer in half precision: no matrix of all queries and keys is made."""
    shapes = (160, 2, 32), (96, 32), (96,), (32, 32), (32,)
    tensors = [graphc.randn(*shape) * 0.2 for shape in shapes]

    def step(x: graphc.Tensor, *weights: graphc.Tensor) -> Any:
        def loss(into: graphc.Tensor, bias: graphc.Tensor, out: graphc.Tensor, last: graphc.Tensor) -> graphc.Tensor:
            with graphc.autocast("cpu", dtype=graphc.bfloat16):
                result, _ = F.multi_head_attention_forward(
                    x, x, x, 32, 2, into, bias, None, None, False, 0.0, out, last, need_weights=False)
            return result.float().square().mean()

        return graphc.func.grad_and_value(loss, argnums=(0, 1, 2, 3))(*weights)

    graph = graphc.trace(step, tensors).ir
    parts = made(graph)
    for kind in (Attention, AttentionBackward):
        (text,) = functions_of(parts, kind)
        assert "multiply_tiles" in text
    assert max(int(buffer.size) for buffer in parts.program.temporaries) < 2 * 2 * 160 * 160
    gradients, loss = step(*tensors)
    for got, want in zip(run(driver, graph, arrays(tensors)), [*gradients, loss], strict=True):
        limit = 3e-2 * float(want.abs().max().item())
        np.testing.assert_allclose(got, want.numpy(), rtol=3e-2, atol=limit)


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_registers(architecture: str) -> None:
    """Nothing is spilled, of what tensor cores multiply."""
    halves = itertools.product([graphc.float16], ["strict"], [64, 128, 144, 256])
    for dtype, numerics, width in (*halves, *itertools.product([graphc.float32], ["high"], [64, 144])):
        x = graphc.empty(2, 4, 1024, width, dtype=dtype)
        (text,) = functions_of(made(graphc.trace(both(True), [x] * 4).ir, numerics), AttentionBackward)
        (used,) = nvrtc.resources(translation_unit({"attention": text}), architecture).values()
        assert used.spilled == 0 and used.registers <= 255 and "multiply_tiles" in text
