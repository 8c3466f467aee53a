"""What holds on a GPU: run on one by `pytest -m gpu`, and in part on a stand-in by test_gpu_stand_in.py."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from op_cases import Case, assert_agree

import graphc
from graphc import nn
from graphc.autodiff import vjp_graph
from graphc.backend import Layout
from graphc.backends.cuda.backend import CUDABackend
from graphc.backends.cuda.driver import Driver
from graphc.backends.cuda.library_ops import LIBRARY_OPS
from graphc.errors import GraphcError
from graphc.gpu import import_cupy
from graphc.interpret import interpret
from graphc.ir import Graph

F = nn.functional


def why_not() -> str:
    """Why nothing can run on a GPU here; empty where it can."""
    try:
        import_cupy()
    except GraphcError as error:
        return str(error).splitlines()[0]
    return ""


# Graphs


def run(driver: Driver, graph: Graph, arrays: Sequence[np.ndarray], times: int = 3) -> list[np.ndarray]:
    """The results of a graph, which are the same bits each time: of kernels that are launched one by one, and together."""
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    inputs = []
    for array in arrays:
        inputs.append(memory := driver.allocate(max(1, array.nbytes)))
        driver.upload(driver.address(memory), np.require(array, requirements="C"))
    outputs = [driver.allocate(max(1, t.dtype.itemsize * int(np.prod(t.shape)))) for t in executable.outputs]
    results: list[list[np.ndarray]] = []
    for _ in range(times):
        executable.run(inputs, outputs)
        results.append([np.empty(t.shape, t.dtype.numpy) for t in executable.outputs])
        for memory, result in zip(outputs, results[-1], strict=True):
            if result.nbytes:
                driver.download(driver.address(memory), result)
    for again in results[1:]:
        assert [a.tobytes() for a in again] == [a.tobytes() for a in results[0]], "results differ from run to run"
    return results[0]


VECTORS = {"svd": (0, 2), "eigh": (1,), "eig": (1,)}
"""Results that are vectors of any sign."""


def check_op(driver: Driver, case: Case) -> None:
    """An op computes what it is defined to."""
    agree(case.record.name, case.arrays, run(driver, case.graph(), case.arrays), interpret(case.graph(), case.arrays))


def check_derivative(driver: Driver, case: Case) -> None:
    """So does its derivative, as far as that does not depend on signs."""
    graph = vjp_graph(case.graph())
    rng = np.random.default_rng(1)
    cotangents = [rng.uniform(0.5, 1.5, v.shape).astype(v.dtype.numpy) for v in graph.inputs[len(case.arrays) :]]
    for j in VECTORS.get(case.record.name, ()):
        cotangents[j][...] = 0
    if case.record.name in ("eig", "eigvals"):  # in any order
        cotangents[0][...] = 1
    arrays = [*case.arrays, *cotangents]
    got, expected = run(driver, graph, arrays), interpret(graph, arrays)
    if case.record.name in LIBRARY_OPS:
        close(got, expected)
    else:
        assert_agree(got, expected)


def agree(name: str, operands: Sequence[np.ndarray], got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Results of an op are those expected, but for what nothing says: the signs of vectors and the order of eigenvalues."""
    if name not in LIBRARY_OPS:
        assert_agree(got, expected)
        return
    for g, e in zip(got, expected, strict=True):
        assert (g.shape, g.dtype) == (e.shape, e.dtype)
    if name == "svd":
        left, values, right = got
        size = values.shape[-1]
        close([left[..., :size] * values[..., None, :] @ right[..., :size, :]], [operands[0]])
        for square in left.conj().swapaxes(-1, -2) @ left, right @ right.conj().swapaxes(-1, -2):
            close([square], [np.zeros_like(square) + np.eye(square.shape[-1], dtype=square.dtype)])
    elif name in VECTORS:
        values, vectors = got
        close([operands[0] @ vectors], [vectors * values[..., None, :]])
    others = [j for j in range(len(got)) if j not in VECTORS.get(name, ())]
    ordered = np.sort if name in ("eig", "eigvals") else np.asarray
    close([ordered(got[j]) for j in others], [ordered(expected[j]) for j in others])


def close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Two libraries' results, by other ways: equal integers, and numbers to two thirds of their digits."""
    for g, e in zip(got, expected, strict=True):
        few = float(np.finfo(e.dtype).eps) ** (2 / 3) if e.dtype.kind in "fc" else 0.0
        scale = np.abs(e[np.isfinite(e)]).max(initial=1.0) if e.dtype.kind in "fc" else 0.0
        np.testing.assert_allclose(g, e, rtol=few, atol=few * scale)


BY_TENSOR_CORES = {
    **{f"product-{size}": (lambda x, y: x @ y, [(size, size + 8), (size + 8, size)]) for size in (40, 100)},
    **{f"attention-{width}": (lambda *each: _attention(*each), [(2, 70, width)] * 4) for width in (40, 64, 128, 256)},
}
"""Functions of halves, and the shapes of their arguments."""


def run_by_tensor_cores(driver: Driver, name: str) -> list[np.ndarray]:
    """The results of one of them."""
    function, shapes = BY_TENSOR_CORES[name]
    tensors = [graphc.randn(*shape).half() for shape in shapes]
    return run(driver, graphc.trace(function, tensors).ir, [t.numpy() for t in tensors])


# Tensors


class Classifier(nn.Module):
    """Of the images of examples/data, without chance: so two devices can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.head(F.max_pool2d(self.norm(self.conv(x)).relu(), 2).flatten(1))


def digits() -> ModuleType:
    """The example that trains on digits."""
    spec = importlib.util.spec_from_file_location("digits", Path(__file__).parents[1] / "examples" / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(device: str, compiled: bool, steps: int, batch: int, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """The losses of a training."""
    graphc.manual_seed(0)
    model = Classifier().to(device)
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run_step = graphc.compile(step) if compiled else step
    losses = []
    for k in range(steps):
        rows = np.arange(k * batch, (k + 1) * batch) % len(images)
        x, y = (graphc.tensor(part[rows]).to(device) for part in (images, labels))
        losses.append(run_step(x, y).item())
    return losses


def check_training(device: str, compiled: bool, steps: int, batch: int) -> None:
    """The losses are those on the CPU, and fall."""
    (images, labels), _ = digits().load_digits()
    losses = train(device, compiled, steps, batch, images, labels)
    expected = train("cpu", False, steps, batch, images, labels)
    np.testing.assert_allclose(losses[:10], expected[:10], rtol=1e-3)
    if steps >= 100:
        assert np.mean(losses[-10:]) < 0.2 * losses[0]


def _attention(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor, ct: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
    """The result and the derivatives."""
    out, back = graphc.func.vjp(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
    return out, *back(ct)


def check_attention(device: str, dtype: graphc.dtype, length: int, width: int, numerics: str = "strict") -> None:
    """Attention and its derivative are what they are in single precision on the CPU, but for the rounding of factors."""
    graphc.manual_seed(0)
    tensors = [graphc.randn(2, 3, length, width).to(dtype) for _ in range(4)]
    expected = _attention(*(t.float() for t in tensors))
    few = 2e-2 if dtype is graphc.bfloat16 else 4e-3
    compiled = graphc.compile(_attention, numerics=numerics)
    for got, want in zip(compiled(*(t.to(device) for t in tensors)), expected, strict=True):
        limit = few * float(want.abs().max().item())
        np.testing.assert_allclose(got.float().cpu().numpy(), want.numpy(), rtol=few, atol=limit)


def check_no_leak(function: Callable[[], object], calls: int, used: Callable[[], int]) -> None:
    """Memory in use does not grow with calls."""
    for _ in range(20):
        function()
    gc.collect()
    before = used()
    for _ in range(calls):
        function()
    gc.collect()
    assert used() <= before, f"{used() - before} bytes more after {calls} calls"


def check_out_of_memory(device: str) -> None:
    """What does not fit is an error that says so, after which everything works as before."""
    x = graphc.ones(1000).to(device)
    try:
        graphc.empty(1 << 45, dtype=graphc.float32, device=device)
    except graphc.cuda.OutOfMemoryError as error:
        assert "out of memory" in str(error)
    else:
        raise AssertionError("128 TB of memory were there")
    assert (x * 2).sum().item() == 2000
