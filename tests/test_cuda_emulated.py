"""Tensors on a GPU with the kernels that would run there: a stand-in for CuPy, and the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from cuda_runs import trained

import graphc
from graphc.errors import DimError

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
        return trained(device, features=(4, 8, 3), rows=6)

    with graphc.cuda.stream(graphc.cuda.Stream()):
        there = run("cuda")
    np.testing.assert_allclose(there, run("cpu"), rtol=1e-4, atol=1e-6)
    assert cupy_stand_in.Module.emulator.launches > 10
