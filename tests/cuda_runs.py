"""Kernels of graphs, run by the emulator and compared with the definitions of the ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cuda_emulator import COMPILER, EmulatedDriver
from op_cases import assert_agree

import graphc
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import nvrtc
from graphc.backends.cuda.backend import CUDABackend
from graphc.interpret import interpret
from graphc.ir import Graph

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")
needs_nvrtc = pytest.mark.skipif(not nvrtc.is_available(), reason="NVRTC is not installed: pip install 'graphc[cuda]'")


@functools.cache
def emulator() -> EmulatedDriver:
    """One for all tests: what it has compiled it keeps."""
    return EmulatedDriver()


@pytest.fixture
def driver() -> EmulatedDriver:
    return emulator()


def run(driver: EmulatedDriver, graph: Graph, arrays: Sequence[np.ndarray], layout: Layout | None = None) -> list[np.ndarray]:
    """The results of a graph's kernels, which must not depend on the order in which threads take turns."""
    executable = CUDABackend(driver).compile(graph, layout or Layout.plain(graph))
    results = []
    for driver.downwards in (False, True):
        outputs = [np.empty(t.shape, t.dtype.numpy) for t in executable.outputs]
        executable.run([np.require(a, requirements="C") for a in arrays], outputs)
        results.append(outputs)
    for up, down in zip(*results, strict=True):
        assert up.tobytes() == down.tobytes(), "a barrier is missing"
    return results[0]


def check(driver: EmulatedDriver, function: Callable[..., Any], *tensors: graphc.Tensor) -> None:
    """The kernels of a function agree with the definitions of its ops."""
    graph = graphc.trace(function, tensors).ir
    arrays = [t.detach().numpy() for t in tensors]
    got, expected = run(driver, graph, arrays), interpret(graph, arrays)
    for g, e in zip(got, expected, strict=True):
        if e.dtype.itemsize == 2 and e.dtype.kind not in "iu":  # sums of halves are rounded once here, and often there
            np.testing.assert_allclose(g.astype(np.float64), e.astype(np.float64), rtol=2e-2, atol=2e-2)
        else:
            assert_agree([g], [e])


def trained(device: str, features: tuple[int, int, int], rows: int) -> list[Any]:
    """The losses of five compiled steps of a small perceptron on a device, and some of what it is afterwards."""
    graphc.manual_seed(0)
    first, hidden, last = features
    model = nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last)).to(device)
    stepper = graphc.optim.SGD(model.parameters(), lr=0.1)
    x, y = graphc.randn(rows, first).to(device), (graphc.arange(rows) % last).to(device)

    @graphc.compile
    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        stepper.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        stepper.step()
        return loss

    return [*[step(x, y).item() for _ in range(5)], *model[2].bias.tolist(), *model(x)[0].tolist()]
