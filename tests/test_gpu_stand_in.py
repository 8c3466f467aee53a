"""The GPU's tests, some of them, on a stand-in for CuPy: so what `pytest -m gpu` runs has run before it comes to a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import gpu_checks
import gpu_conformance
import gpu_kernels
import numpy as np
import pytest
from cuda_runs import emulator, needs_compiler
from op_cases import CASES, DIFFERENTIABLE

import graphc
from graphc import nn


@pytest.fixture
def gpu() -> Iterator[Any]:
    """Graphs run by the definitions of their ops."""
    with cupy_stand_in.installed() as cupy:
        yield cupy


@pytest.fixture
def emulated() -> Iterator[Any]:
    """Kernels run by the emulator."""
    with cupy_stand_in.installed(interpreted=False) as cupy:
        yield cupy


@needs_compiler
@pytest.mark.usefixtures("emulated")
def test_ops() -> None:
    assert gpu_kernels.main(["exp-0", "sum-0", "product-40", "attention-40"]) == 4


@needs_compiler
@pytest.mark.parametrize("name", ["svd-0", "svd-1", "eigh-0", "eig-0", "eigvals-0", "lu_factor-0", "inv-1", "argsort-0"])
def test_ops_that_libraries_compute(name: str) -> None:
    gpu_checks.check_op(emulator(), CASES[name])
    if name in DIFFERENTIABLE:
        gpu_checks.check_derivative(emulator(), DIFFERENTIABLE[name])


def test_vectors_may_have_any_sign() -> None:
    x = np.array([[2.0, 1.0], [1.0, 3.0]])
    values, vectors = np.linalg.eigh(x)
    gpu_checks.agree("eigh", [x], [values, -vectors], [values, vectors])
    left, sizes, right = np.linalg.svd(x)
    gpu_checks.agree("svd", [x], [-left, sizes, -right], [left, sizes, right])
    for wrong in ([values, abs(vectors)], [values[::-1], vectors], [values[::-1], vectors[:, ::-1]]):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            gpu_checks.agree("eigh", [x], wrong, [values, vectors])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        gpu_checks.agree("svd", [x], [2 * left, sizes, right / 2], [left, sizes, right])


@needs_compiler
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("dtype", "numerics"), [("bfloat16", "strict"), ("float32", "high")])
def test_attention(dtype: str, numerics: str) -> None:
    gpu_checks.check_attention("cuda", getattr(graphc, dtype), 40, 32, numerics)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("compiled", [False, True])
def test_training(compiled: bool) -> None:
    gpu_checks.check_training("cuda", compiled, steps=3, batch=8)


@pytest.mark.usefixtures("gpu")
def test_memory() -> None:
    model = nn.Linear(4, 4).to("cuda")
    x = graphc.randn(2, 4).to("cuda")
    gpu_checks.check_no_leak(lambda: model(x).sum(), 30, graphc.cuda.memory_allocated)
    kept: list[graphc.Tensor] = []
    with pytest.raises(AssertionError, match="bytes more after 30 calls"):
        gpu_checks.check_no_leak(lambda: kept.append(model(x)), 30, graphc.cuda.memory_allocated)
    gpu_checks.check_out_of_memory("cuda")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_tensors_of_the_conformance_suite(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(np.float32 if dtype == "bfloat16" else dtype)
    tensor = gpu_conformance.make_tensor(graphc, array, dtype)
    assert tensor.is_cuda and tensor.dtype is getattr(graphc, dtype)
    np.testing.assert_array_equal(gpu_conformance.to_numpy(graphc, tensor), array)


def test_the_reason_why_there_is_no_gpu() -> None:
    if not gpu_checks.why_not():
        pytest.skip("there is a GPU")
    assert "CuPy" in gpu_checks.why_not() or "no CUDA device" in gpu_checks.why_not()
    with cupy_stand_in.installed():
        assert gpu_checks.why_not() == ""
    assert {"exp-0", "sum-0"} <= CASES.keys()
