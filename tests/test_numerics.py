"""`numerics="fast"` and its kin: how it is chosen, what it computes, and that nothing stale is found when it changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpus import code_for

import graphc
from graphc import nn, runtime
from graphc.backend import Layout
from graphc.backends.llvm.artifact_cache import artifact_key
from graphc.backends.llvm.target import Target
from graphc.compiler import clear_cache, compile_graph
from graphc.config import config, override
from graphc.errors import ArgumentError
from graphc.passes.order import DEFAULT

F = graphc.nn.functional
ROUNDED = 1 / 127
"""Of the sum of the absolute products: by how much rounding the factors to bfloat16 changes a sum, at most."""

rounds_factors = pytest.mark.skipif(not Target.host().multiplies_pairs, reason="the CPU has no instructions for bfloat16")


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with override(numerics="strict"):
        yield


@pytest.fixture(params=["native", "znver4", "haswell", "x86-64"])
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    with code_for(request.param) as name:
        yield name


def matrices(m: int = 40, k: int = 60, n: int = 50) -> tuple[graphc.Tensor, graphc.Tensor]:
    rng = np.random.default_rng(m * k + n)
    return tuple(graphc.from_numpy(rng.standard_normal(shape, np.float32)) for shape in ((m, k), (k, n)))  # type: ignore[return-value]


def product(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
    return x @ w


def is_rounded(result: graphc.Tensor, x: graphc.Tensor, w: graphc.Tensor) -> bool:
    """Whether a product was computed of rounded factors; in any case it has to be within the bound."""
    a, b = (t.detach().numpy().astype(np.float64) for t in (x, w))
    error = np.abs(result.detach().numpy() - a @ b) / (np.abs(a) @ np.abs(b))
    assert error.max() < ROUNDED
    return bool(error.max() > 1e-5)


def convolved(x: np.ndarray, w: np.ndarray, **settings: Any) -> np.ndarray:
    """In float64, by numpy."""
    types = (x.astype(np.float64), w.astype(np.float64))
    return F.conv2d(*map(graphc.from_numpy, types), **settings).numpy()


# How it is chosen


def test_unknown_numerics_are_refused_wherever_they_are_given() -> None:
    for wrong in ("fats", "medium", "", None, 1):
        with pytest.raises(ArgumentError, match="'strict', 'high', 'fast'"):
            config.numerics = wrong  # type: ignore[assignment]
        with pytest.raises(ArgumentError, match="'strict', 'high', 'fast'"), override(numerics=wrong):
            pass
    with pytest.raises(ArgumentError, match="'strict', 'high', 'fast'"):
        graphc.compile(product, numerics="fats")
    for unknown in ("fast", ["high"], None):
        with pytest.raises(RuntimeError, match="'highest', 'high', 'medium'"):
            graphc.set_float32_matmul_precision(unknown)
    assert config.numerics == "strict"
    with pytest.raises(ArgumentError, match="verify"):
        graphc.compile(product, numerics="fast", verify=True)


def test_the_environment_chooses() -> None:
    def run(numerics: str) -> subprocess.CompletedProcess[str]:
        code = "import graphc; print(graphc.get_float32_matmul_precision())"
        return subprocess.run([sys.executable, "-P", "-c", code], env={**os.environ, "GRAPHC_NUMERICS": numerics},
                              capture_output=True, text=True, check=False)

    assert run("fast").stdout == "medium\n"
    wrong = run("no")
    assert wrong.returncode != 0
    assert "GRAPHC_NUMERICS" in wrong.stderr


def test_pytorchs_names() -> None:
    for precision, numerics in (("medium", "fast"), ("high", "high"), ("highest", "strict")):
        graphc.set_float32_matmul_precision(precision)
        assert config.numerics == numerics
        assert graphc.get_float32_matmul_precision() == precision


@rounds_factors
def test_one_function_is_told() -> None:
    x, w = matrices()
    fast, plain = graphc.compile(product, numerics="fast"), graphc.compile(product)
    for _ in range(4):  # the last ones come natively
        assert is_rounded(fast(x, w), x, w)
        assert not is_rounded(plain(x, w), x, w)
    with override(numerics="fast"):
        assert not is_rounded(graphc.compile(product, numerics="strict")(x, w), x, w)
        assert not is_rounded(graphc.compile(product, verify=True)(x, w), x, w)


@rounds_factors
@pytest.mark.parametrize("dynamic", [None, True])
def test_changing_the_setting_traces_again(dynamic: bool | None) -> None:
    x, w = matrices()
    f = graphc.compile(product, dynamic=dynamic)
    for _ in range(2):
        for numerics in ("strict", "fast"):
            with override(numerics=numerics):
                for _ in range(4):
                    assert is_rounded(f(x, w), x, w) == (numerics == "fast")
    assert "the numerics was 'strict', is 'fast'" in f.explain()


@rounds_factors
def test_a_function_in_parts() -> None:
    def f(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        y = x @ w
        return x @ w if y.sum() > 1e9 else y + x @ w - y

    x, w = matrices()
    compiled = graphc.compile(f)
    for _ in range(2):
        for numerics in ("strict", "fast"):
            with override(numerics=numerics):
                compiled(x, w)  # what is new may be computed op by op
                for _ in range(4):
                    assert is_rounded(compiled(x, w), x, w) == (numerics == "fast")


@rounds_factors
def test_a_function_that_changes_the_setting_itself() -> None:
    x, w = matrices()

    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        graphc.set_float32_matmul_precision("medium")
        return x + 1

    for _ in range(3):
        graphc.set_float32_matmul_precision("highest")
        f(x)
        assert config.numerics == "fast"
        assert is_rounded(graphc.compile(product)(x, w), x, w)


@rounds_factors
def test_code_that_is_made_later_is_for_the_setting_of_the_trace() -> None:
    x, w = (m.requires_grad_() for m in matrices())
    f = graphc.compile(product)
    with override(numerics="fast"):
        y = f(x, w)
    y.backward(ct := graphc.ones_like(y) * 1.001)  # made here, of the trace there
    assert x.grad is not None
    assert is_rounded(x.grad, ct, w.detach().T)


@rounds_factors
def test_a_session_sees_the_change() -> None:
    x, w = matrices()
    with graphc.Graph() as graph:
        given = graphc.placeholder("given", x.shape)
        result = given @ w
    session = graphc.Session(graph)
    for numerics in ("strict", "fast", "strict"):
        with override(numerics=numerics):
            assert is_rounded(graphc.tensor(session.run(result, feed_dict={given: x})), x, w) == (numerics == "fast")


@rounds_factors
def test_who_runs_a_file_chooses(tmp_path: Path) -> None:
    x, w = matrices()
    graphc.save(graphc.export(lambda x: x @ w, (x,)), tmp_path / "product.gcz")
    for numerics in ("strict", "fast"):
        program = runtime.load(tmp_path / "product.gcz", numerics=numerics)
        assert is_rounded(graphc.from_numpy(program(x.numpy())), x, w) == (numerics == "fast")
    with override(numerics="fast"):
        program = runtime.load(tmp_path / "product.gcz")
    assert is_rounded(graphc.from_numpy(program(x.numpy())), x, w)
    with pytest.raises(ArgumentError, match="fats"):
        runtime.load(tmp_path / "product.gcz", numerics="fats")


@rounds_factors
def test_eager_convolutions_see_the_change() -> None:
    rng = np.random.default_rng(0)
    x, w = (graphc.from_numpy(rng.standard_normal(s, np.float32)) for s in ((1, 32, 30, 30), (32, 32, 1, 1)))
    results: dict[str, list[bytes]] = {"strict": [], "fast": []}
    for _ in range(3):
        for numerics, found in results.items():
            with override(numerics=numerics):
                found += [F.conv2d(x, w).numpy().tobytes() for _ in range(8)]  # with the weights kept from the fourth on
    assert len(set(results["strict"])) == len(set(results["fast"])) == 1
    assert results["strict"][0] != results["fast"][0]


# Caches


def test_the_disk_cache_keeps_them_apart(tmp_path: Path) -> None:
    x, w = matrices()
    graph = graphc.trace(product, (x, w)).ir
    with override(cache_dir=tmp_path, verify=False, debug=0):
        layouts = [Layout((None, None), numerics=numerics) for numerics in ("strict", "high", "fast")]
        keys = {artifact_key(graph, layout, DEFAULT, Target.host()) for layout in layouts}
        assert len(keys) == 3
        assert None not in keys
        for _ in range(2):  # the second time from the disk
            for numerics in ("strict", "fast"):
                clear_cache()
                (result,) = compile_graph(graph, backend=f"{numerics} llvm")(x.numpy(), w.numpy())
                rounded = numerics == "fast" and Target.host().multiplies_pairs
                assert is_rounded(graphc.from_numpy(result), x, w) == rounded
    clear_cache()


# What it computes


@pytest.mark.parametrize(
    ("m", "k", "n"), [(17, 64, 31), (1, 300, 200), (128, 1, 256), (33, 1025, 65), (256, 48, 1), (5, 7, 1000)]
)
def test_products(cpu: str, m: int, k: int, n: int) -> None:
    x, w = matrices(m, k, n)
    before = product(x, w).numpy()
    strict = graphc.compile(product)(x, w).numpy()
    is_rounded(graphc.compile(product, numerics="fast")(x, w), x, w)
    assert graphc.compile(product, numerics="high")(x, w).numpy().tobytes() == strict.tobytes()
    np.testing.assert_allclose(strict, before, rtol=0, atol=1e-4)


def test_other_dtypes_are_computed_as_ever() -> None:
    rng = np.random.default_rng(0)
    for dtype in (graphc.float64, graphc.float16, graphc.bfloat16, graphc.int32, graphc.complex64):
        x, w = (graphc.from_numpy(4 * rng.standard_normal((40, 40))).to(dtype) for _ in range(2))
        results = [graphc.compile(product, numerics=n)(x, w) for n in ("strict", "high", "fast")]
        assert len({r.view(graphc.uint8).numpy().tobytes() for r in results}) == 1
        assert results[0].dtype is dtype


def test_batches_and_einsum(cpu: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape, np.float32) for shape in ((3, 20, 30), (3, 30, 40)))
    found = graphc.compile(lambda x, y: graphc.einsum("bij,bjk->bki", x, y), numerics="fast")(*map(graphc.from_numpy, (x, y)))
    error = np.abs(found.numpy() - np.einsum("bij,bjk->bki", x.astype(np.float64), y))
    assert (error <= ROUNDED * np.einsum("bij,bjk->bki", np.abs(x), np.abs(y))).all()


@pytest.mark.parametrize("numerics", ["high", "fast"])
@pytest.mark.parametrize(("channels", "size", "kernel", "settings"), [
    ((1, 1), 7, 3, {}), ((3, 17), 30, 3, {"padding": 1}), ((17, 3), 9, 3, {"padding": 2}), ((16, 16), 1, 3, {"padding": 1}),
    ((16, 32), 13, 3, {"padding": 1}), ((32, 32), 14, 3, {}), ((64, 64), 7, 3, {"padding": 1}),
    ((16, 16), 224, 3, {"padding": 1}), ((32, 32), 15, 3, {"stride": 2, "padding": 1}),
    ((32, 32), 15, 3, {"dilation": 2}), ((32, 32), 15, 3, {"groups": 2}),
    ((32, 32), 12, 1, {}), ((16, 16), 12, 5, {"padding": 2}), ((16, 32), (5, 22), 3, {"padding": (0, 1)}),
])  # fmt: skip
def test_convolutions(numerics: str, channels: tuple[int, int], size: Any, kernel: int, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    sizes = size if isinstance(size, tuple) else (size, size)
    groups = settings.get("groups", 1)
    x = rng.standard_normal((2 if max(sizes) < 100 else 1, channels[0], *sizes), np.float32)
    w = rng.standard_normal((channels[1], channels[0] // groups, kernel, kernel), np.float32)
    tensors = [graphc.from_numpy(array) for array in (x, w)]
    found = graphc.compile(lambda x, w: F.conv2d(x, w, **settings), numerics=numerics)(*tensors).numpy()
    error = np.abs(found - convolved(x, w, **settings))
    scale = convolved(np.abs(x), np.abs(w), **settings)
    assert found.shape == scale.shape
    if numerics == "fast" and Target.host().multiplies_pairs:
        assert (error <= ROUNDED * scale).all()
    else:
        assert error.max() <= 3e-6 * scale.max()


@pytest.mark.parametrize("numerics", ["high", "fast"])
def test_gradients(numerics: str) -> None:
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape, np.float32) for shape in ((2, 32, 14, 14), (32, 32, 3, 3), (32,))]

    def f(x: graphc.Tensor, w: graphc.Tensor, b: graphc.Tensor) -> graphc.Tensor:
        return (F.relu(F.conv2d(x, w, b, padding=1) + x) ** 2).mean()

    def gradients(function: Callable[..., graphc.Tensor], dtype: graphc.dtype) -> list[np.ndarray]:
        tensors = [graphc.from_numpy(array).to(dtype).requires_grad_() for array in start]
        function(*tensors).backward()
        return [tensor.grad.numpy() for tensor in tensors if tensor.grad is not None]

    exact = gradients(f, graphc.float64)
    found = gradients(graphc.compile(f, numerics=numerics), graphc.float32)
    most = 2e-2 if numerics == "fast" and Target.host().multiplies_pairs else 1e-4
    for one, other in zip(exact, found, strict=True):
        assert np.abs(one - other).max() <= most * np.abs(one).max()


def test_a_training_step() -> None:
    graphc.manual_seed(0)
    convolutions = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 64, 4))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.05)
    x, y = graphc.randn(8, 3, 8, 8), graphc.arange(8) % 4

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    compiled = graphc.compile(step, numerics="fast")
    losses = [compiled(x, y).item() for _ in range(30)]
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("numerics", ["high", "fast"])
def test_the_same_bits_for_any_number_of_threads(numerics: str) -> None:
    before = graphc.get_num_threads()
    rng = np.random.default_rng(0)
    x, w = (graphc.from_numpy(rng.standard_normal(s, np.float32)) for s in ((2, 64, 28, 28), (64, 64, 3, 3)))
    f = graphc.compile(lambda x, w: F.conv2d(x, w, padding=1), numerics=numerics)
    found = set()
    try:
        for threads in (1, 2, 3):
            graphc.set_num_threads(threads)
            found |= {f(x, w).numpy().tobytes() for _ in range(3)}
    finally:
        graphc.set_num_threads(before)
    assert len(found) == 1


def test_symbolic_sizes() -> None:
    rng = np.random.default_rng(0)
    w = graphc.from_numpy(rng.standard_normal((16, 16, 3, 3), np.float32))
    f = graphc.compile(lambda x: F.conv2d(x, w, padding=1), dynamic=True, numerics="fast")
    for batch, size in ((1, 8), (2, 9), (5, 17)):
        x = rng.standard_normal((batch, 16, size, size), np.float32)
        error = np.abs(f(graphc.from_numpy(x)).numpy() - convolved(x, w.numpy(), padding=1))
        assert (error <= ROUNDED * convolved(np.abs(x), np.abs(w.numpy()), padding=1) + 1e-4).all()
