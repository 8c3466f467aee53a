"""Products that are left to cuBLAS: which, what it is told of them, and what they are beside kernels and in CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cuda_emulator
import cupy_stand_in
import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import check, needs_compiler, trained

import graphc
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import libraries, products
from graphc.backends.cuda.backend import CUDABackend, rendered
from graphc.backends.cuda.cublas import Cublas, is_recent
from graphc.backends.cuda.program import KernelStep, ProductStep
from graphc.errors import BackendError
from graphc.interpret import interpret

pytestmark = needs_compiler
F = nn.functional
FLOATS = [graphc.float16, graphc.bfloat16, graphc.float32, graphc.float64]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> EmulatedDriver:
    """With cuBLAS, which is better for all products."""
    monkeypatch.setattr(products, "_is_worth_it", lambda kernel, store, tf32: True)
    return EmulatedDriver(with_cublas=True)


def steps(function: Callable[..., Any], *tensors: graphc.Tensor) -> list[Any]:
    return list(rendered(graphc.trace(function, tensors).ir, cublas=True).steps)


ORDERS: dict[str, Callable[..., Any]] = {
    "plain": lambda x, y: x @ y,
    "right turned": lambda x, y: x @ y.transpose(-1, -2).contiguous().transpose(-1, -2),
    "left turned": lambda x, y: x.transpose(-1, -2).contiguous().transpose(-1, -2) @ y,
    "both turned": lambda x, y: (y.transpose(-1, -2) @ x.transpose(-1, -2)),
    "result turned": lambda x, y: (x @ y).transpose(-1, -2).contiguous(),
    "rows left out": lambda x, y: x[..., 3:, :] @ y[..., 1:41],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_matrices_where_they_stand(driver: EmulatedDriver, order: str, dtype: graphc.dtype, batch: tuple[int, ...]) -> None:
    x, y = (graphc.randint(-3, 4, (*batch, *s)).to(dtype) for s in ((34, 20), (20, 47)))
    check(driver, ORDERS[order], x, y)
    assert driver.products == 2


def test_batches(driver: EmulatedDriver) -> None:
    """One matrix for a whole batch, several dimensions of it, and heads that stand between rows."""
    x, y = graphc.randn(2, 3, 32, 40), graphc.randn(40, 48)
    check(driver, lambda x, y: x @ y, x, y)
    check(driver, lambda x, y: graphc.einsum("bhmk,kn->bhmn", x, y), x, y)
    check(driver, lambda x, y: x @ y, x, graphc.randn(2, 3, 40, 33))
    assert driver.products == 6
    heads = graphc.randn(5, 32, 3, 40)  # of one batch: no two dimensions of it are needed
    check(driver, lambda q, k: graphc.einsum("qhd,khd->hqk", q, k), heads[0], heads[1])
    assert driver.products == 8


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float32])
def test_results_are_computed_where_sums_are(driver: EmulatedDriver, dtype: graphc.dtype) -> None:
    x, w, b = (graphc.randn(s).to(dtype) for s in ((33, 40), (48, 40), (48,)))
    check(driver, lambda x, w, b: F.gelu(F.linear(x, w, b)), x, w, b)
    check(driver, lambda x, w, b: x.softmax(1) @ w.T + b.sin(), x, w, b)
    assert driver.products == 4


def test_what_is_read_is_not_written_over(driver: EmulatedDriver) -> None:
    """An optimizer's step writes over the parameters that it reads beside a product."""
    graph = graphc.trace(lambda p, x, y: p - 0.5 * (x @ y), (graphc.ones(40, 30), graphc.ones(40, 33), graphc.ones(33, 30))).ir
    rng = np.random.default_rng(0)
    p, x, y = (rng.standard_normal(s).astype(np.float32) for s in ((40, 30), (40, 33), (33, 30)))
    (expected,) = interpret(graph, [p, x, y])
    CUDABackend(driver).compile(graph, Layout((None,) * 3, donated=((0, 0),))).run([p, x, y], [p])
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-5)
    assert driver.products == 0


def test_operands_that_are_computed_are_left_to_kernels(driver: EmulatedDriver) -> None:
    x, w = graphc.randn(2, 6, 13, 11), graphc.randn(8, 6, 3, 3)
    check(driver, lambda x, w: F.conv2d(x, w, padding=1), x, w)
    check(driver, lambda x, y: (x @ y).sum(), graphc.randint(0, 9, (40, 40)), graphc.randint(0, 9, (40, 40)))
    assert driver.products == 0


def test_factors_of_11_bits_where_they_are_allowed(driver: EmulatedDriver) -> None:
    x, y = graphc.randn(40, 72), graphc.randn(72, 50)
    graph = graphc.trace(lambda x, y: x @ y, (x, y)).ir
    exact = np.empty((40, 50), np.float32)
    rounded = np.empty((40, 50), np.float32)
    CUDABackend(driver).compile(graph, Layout((None, None))).run([x.numpy(), y.numpy()], [exact])
    CUDABackend(driver).compile(graph, Layout((None, None), numerics="high")).run([x.numpy(), y.numpy()], [rounded])
    (expected,) = interpret(graph, [x.numpy(), y.numpy()])
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-5)
    assert 1e-5 < np.abs(rounded - expected).max() < 1e-1


def test_sizes_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_is_worth_it", lambda kernel, store, tf32: True)
    with cupy_stand_in.installed(interpreted=False, cublas=True) as cupy:
        f = graphc.compile(lambda x, w, b: F.linear(x, w, b).relu(), dynamic=True)
        w, b = graphc.randn(48, 40), graphc.randn(48)
        for rows in (33, 34, 50):
            x = graphc.randn(rows, 40)
            result = f(x.cuda(), w.cuda(), b.cuda())
            np.testing.assert_allclose(result.tolist(), F.linear(x, w, b).relu().tolist(), rtol=1e-4, atol=1e-4)
        assert cupy.cublas_calls == 3


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(products, "_is_worth_it", lambda kernel, store, tf32: True)
    with cupy_stand_in.installed(interpreted=False, cublas=True) as cupy:
        yield cupy


def test_training(gpus: Any) -> None:
    def run(device: str) -> list[Any]:
        return trained(device, features=(33, 40, 36), rows=34)

    there = run("cuda")
    np.testing.assert_allclose(there, run("cpu"), rtol=1e-4, atol=1e-5)
    assert gpus.cublas_calls > 10


def test_products_in_a_cuda_graph(gpus: Any) -> None:
    """They are captured with the kernels beside them, and use memory of their own each time."""
    x, w = graphc.ones(34, 40), graphc.ones(40, 36)
    graph = graphc.trace(lambda x, w: ((x * 2).sin() @ w + w.sum(), (x @ w).exp()), (x, w)).ir
    executable = CUDABackend().compile(graph, Layout((None, None)))
    arrays = [gpus.ndarray(t.shape, t.dtype.numpy) for t in (*executable.inputs, *executable.outputs)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        inputs = [rng.standard_normal(a.shape).astype(np.float32) / 6 for a in arrays[:2]]
        for array, numbers in zip(arrays, inputs):
            cupy_stand_in.host(array)[...] = numbers
        executable.run(arrays[:2], arrays[2:])
        for array, expected in zip(arrays[2:], interpret(graph, inputs), strict=True):
            np.testing.assert_allclose(cupy_stand_in.host(array), expected, rtol=1e-4, atol=1e-5)
    assert gpus.cublas_calls == 4  # two at once, and two captured, which were launched three times
    assert gpus.cublas_captures == 2


def test_large_products_alone_are_worth_it() -> None:
    def kinds(function: Callable[..., Any], *shapes: tuple[int, ...]) -> list[type]:
        return [type(step) for step in steps(function, *(graphc.empty(s, dtype=graphc.bfloat16) for s in shapes))]

    assert kinds(lambda x, y: x @ y, (64, 64), (64, 64)) == [KernelStep]
    assert kinds(lambda x, y: x @ y, (4096, 4096), (4096, 4096)) == [ProductStep]
    assert kinds(lambda x, w, b: F.linear(x, w, b), (4096, 4096), (4096, 4096), (4096,)) == [ProductStep, KernelStep]
    assert kinds(lambda x, w, b: F.linear(x, w, b), (16384, 64), (1024, 64), (1024,)) == [KernelStep]


def test_source_shows_the_kernels_without_cublas() -> None:
    source = graphc.compile(lambda x: x @ x, backend="cuda").source(graphc.empty(4096, 4096))
    assert source.count("__global__") == 1
    name = re.search(r"__global__ void __launch_bounds__\([\d, ]+\) (\w+)\(", source)
    assert name is not None and source.startswith(f"// {name[1]}: cuBLAS computes this product instead")
    assert "cuBLAS" not in graphc.compile(lambda x: x @ x, backend="cuda").source(graphc.empty(40, 40))


def test_what_cublas_refuses_is_an_error_that_names_the_call() -> None:
    step = steps(lambda x, y: x @ y, graphc.empty(4096, 4096), graphc.empty(4096, 4096))[0]
    with pytest.raises(BackendError, match="cublasSetWorkspace_v2: an unsupported value"):
        Cublas(cuda_emulator.cublas()).multiply(0, 1, step.product, {}, (0, 0, 0), 8)


def test_the_latest_version_of_a_library_is_loaded_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the folders are called in which packages of several libraries for Python have brought theirs."""
    for name in ("cu13/libcublas.so.13", "cublas/libcublas.so.12", "cu9/libcublas.so.9", "cu13/libcublasLt.so.13"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(libraries, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    monkeypatch.setattr(libraries.ctypes.util, "find_library", lambda name: None)
    assert [str(path)[-2:] for path in libraries._candidates("cublas")] == ["13", "12", ".9"]


def test_the_installed_library_has_what_is_called() -> None:
    library = libraries.load("cublas")
    if library is None:
        pytest.skip("cuBLAS is not installed: pip install 'graphc[cuda]'")
    assert is_recent(library) and not is_recent(SimpleNamespace())  # type: ignore[arg-type]
    Cublas(library)
