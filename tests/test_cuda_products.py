"""Matrix products and convolutions as CUDA kernels: operands in every order, of every dtype, in tiles of every size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import check, driver, needs_compiler, needs_nvrtc
from op_cases import assert_agree

import graphc
import graphc.ops as ops
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import gemm, nvrtc
from graphc.backends.cuda.backend import MACHINE, PASSES, CUDABackend
from graphc.backends.cuda.program import Rendered, render, translation_unit
from graphc.backends.cuda.run import Runner
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.passes import pipeline
from graphc.schedule import lower
from graphc.types import TensorType

__all__ = ["driver"]
F = nn.functional
ORDERS = {
    "rows and columns": lambda x, y: x @ y.transpose(-1, -2).contiguous(),
    "rows and rows": lambda x, y: x @ y.transpose(-1, -2),
    "columns and columns": lambda x, y: x.transpose(-1, -2).contiguous().transpose(-1, -2) @ y.transpose(-1, -2).contiguous(),
}


def kernels(graph: Graph, tf32: bool = False) -> Rendered:
    return render(lower(pipeline.run(graph, PASSES), MACHINE), tf32)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float16])
@pytest.mark.parametrize("enough", [1, 1000], ids=["large tiles", "small tiles"])
def test_operands_in_each_order(
    driver: EmulatedDriver, order: str, dtype: graphc.dtype, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sizes for which operands are copied 16 bytes at a time, and of others."""
    monkeypatch.setattr(gemm, "_ENOUGH", enough)
    for m, k, n in ((136, 72, 144), (70, 33, 129)):
        x, y = (graphc.randint(-3, 4, s).to(dtype) for s in ((m, k), (n, k)))
        check(driver, lambda x, y: ORDERS[order](x, y) * 2 + 1, x, y)


@needs_compiler
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.bfloat16, graphc.float64, graphc.int32, graphc.int8])
@pytest.mark.parametrize("size", [(1, 40, 40, 40), (3, 40, 100, 17), (2, 64, 48, 64)])
def test_dtypes(driver: EmulatedDriver, size: tuple[int, int, int, int], dtype: graphc.dtype) -> None:
    batch, m, k, n = size
    x, y = (graphc.randint(-3, 4, s).to(dtype) for s in ((batch, m, k), (batch, n, k)))
    check(driver, lambda x, y: (x @ y.transpose(1, 2)).relu(), x, y)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
def test_factors_of_11_bits(driver: EmulatedDriver, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "_ENOUGH", 1)
    x, y = graphc.randn(136, 72), graphc.randn(144, 72)
    graph = graphc.trace(ORDERS[order], (x, y)).ir
    made = kernels(graph, tf32=True)
    assert "tf32_t()" in "".join(made.functions.values())
    result = np.empty((136, 144), np.float32)
    Runner(made, driver).at({}).run([x.numpy(), y.numpy()], [result])
    (expected,) = interpret(graph, [x.numpy(), y.numpy()])
    products = np.abs(x.numpy()) @ np.abs(y.numpy()).T
    assert (np.abs(result - expected) <= products * 2.0**-10).all()
    assert (result != expected).any()


@needs_compiler
def test_convolutions(driver: EmulatedDriver) -> None:
    x, w = graphc.randn(2, 6, 13, 11), graphc.randn(8, 3, 3, 3)
    check(driver, lambda x, w: F.conv2d(x, w, padding=1, stride=2, groups=2), x, w)
    check(driver, graphc.func.grad(lambda x, w: F.conv2d(x, w, padding=1, groups=2).square().sum(), (0, 1)), x, w)
    x, w = graphc.randn(2, 16, 9, 9), graphc.randn(24, 16, 3, 3)  # channels that are copied 16 bytes at a time
    check(driver, lambda x, w: F.conv2d(F.conv2d(x, w, padding=1).relu(), w.new_ones(8, 24, 3, 3), padding=1), x, w)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "tf32"])
@pytest.mark.parametrize("images", [(2, 16, 9, 9), (3, 5, 7, 11)])
def test_convolutions_on_tensor_cores(
    driver: EmulatedDriver, dtype: str, images: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, and the gradients of both operands, are products of tiles, whose factors are gathered on the way."""
    monkeypatch.setattr(gemm, "_ENOUGH", 1)
    kind = graphc.float32 if dtype == "tf32" else getattr(graphc, dtype)
    x, w = graphc.randn(images).to(kind), graphc.randn(24, images[1], 3, 3).to(kind)

    def loss(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return (F.conv2d(x, w, padding=1, stride=2) * 0.1).float().square().sum()

    functions: tuple[Callable[..., Any], ...] = (lambda x, w: F.conv2d(x, w, padding=1), graphc.func.grad(loss, (0, 1)))
    for function, products in zip(functions, (1, 3)):
        graph = graphc.trace(function, (x, w)).ir
        made = kernels(graph, tf32=dtype == "tf32")
        assert sum("multiply_tiles(" in text for text in made.functions.values()) == products
        arrays = [x.numpy(), w.numpy()] if dtype != "bfloat16" else [t._data for t in (x, w)]
        results = [np.empty(v.shape, v.dtype.numpy) for v in graph.outputs]
        Runner(made, driver).at({}).run(arrays, results)
        exact = [np.asarray(t, np.float64) for t in arrays]
        wide = graphc.trace(function, tuple(graphc.tensor(a) for a in exact)).ir
        for result, expected in zip(results, interpret(wide, exact), strict=True):
            error = np.abs(result.astype(np.float64) - expected).max()
            assert error <= {"float16": 4e-3, "bfloat16": 3e-2, "tf32": 3e-3}[dtype] * np.abs(expected).max()


@needs_compiler
@pytest.mark.parametrize("shift", [0, 1])
def test_arrays_that_are_not_aligned(driver: EmulatedDriver, shift: int) -> None:
    graph = graphc.trace(lambda x, y: x @ y, (graphc.ones(40, 64), graphc.ones(64, 80))).ir
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    memory = np.random.default_rng(0).standard_normal(40 * 64 + 8).astype(np.float32)
    start = -memory.ctypes.data // 4 % 4 + shift
    x, y = memory[start : start + 40 * 64].reshape(40, 64), np.ones((64, 80), np.float32)
    result = np.empty((40, 80), np.float32)
    executable.run([x, y], [result])
    assert_agree([result], interpret(graph, [x, y]))


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("order", ORDERS)
def test_registers(order: str, architecture: str) -> None:
    """Two blocks of the largest tiles have room on a multiprocessor, nothing is spilled, and operands are copied beside."""
    x = graphc.ones(4096, 4096)
    for each, tf32 in ((x, False), (x, True), (x.half(), False)):
        function: Callable[..., graphc.Tensor] = ORDERS[order]
        made = kernels(graphc.trace(function, (each, each)).ir, tf32)
        source = translation_unit(made.functions)
        assert "copy_vector<" in source
        for used in nvrtc.resources(source, architecture).values():
            assert used.spilled == 0 and used.registers <= 128


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_registers_of_convolutions(architecture: str) -> None:
    x, w = graphc.ones(8, 64, 56, 56), graphc.ones(128, 64, 3, 3)

    def loss(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return F.conv2d(x, w, padding=1, stride=2).float().square().sum()

    for tensors, tf32 in (((x.half(), w.half()), False), ((x, w), True)):
        functions = kernels(graphc.trace(graphc.func.grad(loss, (0, 1)), tensors).ir, tf32).functions
        source = translation_unit({name: text for name, text in functions.items() if "multiply_tiles(" in text})
        found = nvrtc.resources(source, architecture)
        assert len(found) == 3, found
        # the gradient of images, whose factors are gathered and results spread, keeps some numbers that places are made of
        assert sorted(used.spilled > 0 for used in found.values()) <= [False, False, True], found
        assert max(used.spilled for used in found.values()) <= 400, found


@needs_nvrtc
@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float32])
def test_rows_beyond_32_bits(dtype: graphc.dtype) -> None:
    """They are counted in 64 bits, where there are so many: with the margin of the last tile."""
    for rows, int_type in (((1 << 31) - 200, "int"), ((1 << 31) - 8, "long long"), (3 << 30, "long long")):
        builder = Builder("product")
        x, y = (builder.input(name, TensorType(dtype, shape)) for name, shape in (("x", (rows, 64)), ("y", (64, 72))))
        source = translation_unit(kernels(builder.finish([builder.emit(ops.matmul, (x, y), {})])).functions)
        assert set(re.findall(r"const (int|long long) (?:m0|outer|m\d+) =", source)) == {int_type}
        nvrtc.compile_source(source, "sm_90")
