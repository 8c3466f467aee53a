"""What is stored along with large products, and what in a pass of its own."""

from __future__ import annotations

import numpy as np

import graphc.ops as ops
from graphc.compiler import compile_graph
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.kernel import Gemm, Loops, Store
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32

MACHINE = Machine(vector_bytes=16)


def check(graph: Graph, arrays: list[np.ndarray]) -> list[Loops | Gemm]:
    """Compiled and interpreted results agree; returns the kernels."""
    for got, want in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    return list(lower(pipeline.run(graph), MACHINE).kernels)


def build(*shapes: tuple[int, ...]) -> tuple[Builder, list[Value], list[np.ndarray]]:
    b = Builder("test")
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return b, [b.input(f"x{i}", TensorType(float32, shape)) for i, shape in enumerate(shapes)], arrays


def optimizer_step(rows: int, columns: int) -> tuple[Builder, list[Value], list[np.ndarray]]:
    """The gradient of a matrix of weights, and a step of Adam with it."""
    b, (x, ct, w, m, v), arrays = build((16, rows), (16, columns), *[(rows, columns)] * 3)
    arrays[4] = np.abs(arrays[4])
    gradient = ops.matmul(ops.permute(x, (1, 0)), ct)
    mean = m + (gradient - m) * 0.1
    square = v * 0.999 + gradient * gradient * 0.001
    return b, [w - mean * 0.01 / (ops.sqrt(square) + 1e-8), mean, square], arrays


def test_an_optimizer_step_on_large_weights_is_a_pass_of_its_own() -> None:
    b, results, arrays = optimizer_step(256, 160)
    product, step = check(b.finish(results), arrays)
    assert isinstance(product, Gemm) and len(product.epilogue) <= 2
    assert isinstance(step, Loops) and len([s for s in step.statements() if isinstance(s, Store)]) >= 2


def test_an_optimizer_step_on_small_weights_is_an_epilogue() -> None:
    b, results, arrays = optimizer_step(64, 48)
    (product,) = check(b.finish(results), arrays)
    assert isinstance(product, Gemm) and len(product.epilogue) == 4


def test_a_residual_is_an_epilogue() -> None:
    b, (x, w, bias, residual), arrays = build((256, 16), (16, 160), (160,), (256, 160))
    (product,) = check(b.finish([ops.matmul(x, w) + bias + residual]), arrays)
    assert isinstance(product, Gemm)


def test_what_is_cheap_to_compute_from_a_value_in_memory_is_not_stored_beside_it() -> None:
    b, (x, y), arrays = build((256, 160), (160,))
    h = x + y
    half = h * 0.5
    kernels = check(b.finish([ops.exp(h), ops.sum(half * ops.tanh(h), (0,)), ops.sum(half, (1,))]), arrays)
    stored = {s.buffer for k in kernels for s in k.statements() if isinstance(s, Store) and s.buffer.size == h.type.size}
    assert len([buffer for buffer in stored if buffer.role == "temporary"]) <= 2  # h and its tanh


def test_an_update_in_place_follows_what_it_is_computed_from() -> None:
    b, (x, y, w), _ = build((256, 160), (256, 160), (256, 160))
    gradient = ops.exp(x)
    later = ops.sum(ops.tanh(gradient * y), (1,))
    graph = pipeline.run(b.finish([ops.exp(later), w - gradient * 0.1]))
    program = lower(graph, MACHINE, donated={1: 2})
    writers = [k for k, kernel in enumerate(program.kernels) if program.outputs[1] in kernel.accesses]
    assert writers and writers[-1] < len(program.kernels) - 1


def test_several_values_that_are_cheap_to_compute_from_one_are_kept_as_that_one() -> None:
    """As for GELU's derivative: 0.5 * x and x / sqrt(2) are wanted once before and once after another product."""
    b, (x, w, bias, v), arrays = build((64, 32), (32, 96), (96,), (96, 96))
    hidden = ops.matmul(x, w) + bias
    half, scaled = hidden * 0.5, hidden * 0.7071
    gelu = half * (ops.erf(scaled) + 1.0)
    slope = ops.matmul(gelu, v) * half * ops.exp(-(scaled * scaled))
    kernels = check(b.finish([slope]), arrays)
    stored = {s.buffer for kernel in kernels for s in (kernel.epilogue if isinstance(kernel, Gemm) else kernel.statements())
              if isinstance(s, Store) and s.buffer.role == "temporary"}  # fmt: skip
    assert len(stored) == 2, "what the first product comes to, and what the second one reads"


def test_what_is_normalised_is_not_kept_beside_what_is_centered() -> None:
    b, (x, y, weight), arrays = build((256, 160), (160, 160), (160,))
    centered = x - ops.reshape(ops.sum(x, (1,)), (256, 1)) / 160.0
    scale = ops.rsqrt(ops.reshape(ops.sum(centered * centered, (1,)), (256, 1)) / 160.0)
    normal = centered * scale
    slope = ops.matmul(normal * weight, y)
    kernels = check(b.finish([ops.sum(slope * normal, (0,)), ops.sum(slope * centered, (1,))]), arrays)
    stored = {s.buffer for kernel in kernels for s in (kernel.epilogue if isinstance(kernel, Gemm) else kernel.statements())
              if isinstance(s, Store) and s.buffer.role == "temporary" and s.buffer.size == x.type.size}  # fmt: skip
    assert len(stored) == 3, "what is centered, what is multiplied, and what that comes to"
