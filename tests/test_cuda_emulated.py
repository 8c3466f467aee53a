"""Tensors on a GPU with the kernels that would run there: a stand-in for CuPy, and the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import DimError

F = nn.functional
pytestmark = pytest.mark.skipif(cupy_stand_in.cuda_emulator.COMPILER is None, reason="the emulator needs g++")


@pytest.fixture(autouse=True)
def gpus() -> Iterator[Any]:
    with cupy_stand_in.installed(interpreted=False) as cupy:
        yield cupy


def test_eager_ops_are_kernels() -> None:
    x = graphc.randn(3, 4)
    y = x.cuda()
    np.testing.assert_allclose((y.t()[1:] * 2.5).sum(1).tolist(), (x.t()[1:] * 2.5).sum(1).tolist(), rtol=1e-5)
    for z in (x, y):
        z[::2] += 1
        z.t()[0].mul_(3.0)
    np.testing.assert_allclose(y.tolist(), x.tolist(), rtol=1e-6)
    assert y.sort(1).values.tolist() == y.cpu().sort(1).values.tolist()  # by the host
    graphc.manual_seed(1)
    drawn = graphc.rand(5, device="cuda")
    graphc.manual_seed(1)
    assert drawn.tolist() == graphc.rand(5).tolist()
    assert cupy_stand_in.Module.emulator.launches > 5


def test_an_index_out_of_bounds_is_an_error() -> None:
    table = graphc.randn(5, 2, device="cuda")
    assert table[graphc.tensor([4, -5], device="cuda")].tolist() == table.cpu()[[4, 0]].tolist()
    with pytest.raises(DimError, match="out of bounds"):
        table.gather(0, graphc.tensor([[7, 0]], device="cuda"))
    assert (table + 1).is_cuda  # the process goes on


def test_a_training_step_is_replayed() -> None:
    def run(device: str) -> list[Any]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(device)
        stepper = graphc.optim.SGD(model.parameters(), lr=0.1)
        x, y = graphc.randn(6, 4).to(device), (graphc.arange(6) % 3).to(device)

        @graphc.compile
        def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
            stepper.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            stepper.step()
            return loss

        return [*[step(x, y).item() for _ in range(5)], *model[2].bias.tolist()]

    with graphc.cuda.stream(graphc.cuda.Stream()):
        there = run("cuda")
    np.testing.assert_allclose(there, run("cpu"), rtol=1e-4, atol=1e-6)
    assert cupy_stand_in.Module.emulator.launches > 10
