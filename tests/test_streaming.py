"""Large results, which are written past the caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc.backend import get_backend
from graphc.backends.llvm.streaming import what_to_stream
from graphc.backends.llvm.target import Target
from graphc.kernel import Loops
from graphc.passes import pipeline
from graphc.schedule import Machine, lower

LARGE = 24 << 18
"""As many numbers of four bytes are streamed."""


def loops(function: Callable[..., graphc.Tensor], *shapes: tuple[int, ...]) -> list[Loops]:
    graph = graphc.trace(function, tuple(graphc.empty(*shape) for shape in shapes)).ir
    kernels = lower(pipeline.run(graph), Machine(vector_bytes=64)).kernels
    return [kernel for kernel in kernels if isinstance(kernel, Loops)]


@pytest.mark.parametrize("function", [lambda x: x * 2.0 + 1.0, lambda x: x.softmax(-1), lambda x: x.t() + 1.0])
@pytest.mark.parametrize("target, streams", [("x86-64-v3", True), ("x86-64-v2", True), ("aarch64", False)])
def test_large_results_are_streamed(function: Callable[..., graphc.Tensor], target: str, streams: bool) -> None:
    (large,), (small,) = loops(function, (4096, 2048)), loops(function, (2048, 2048))
    assert bool(what_to_stream(large, Target.for_export(target))) == streams
    assert not what_to_stream(small, Target.for_export(target))


def test_partial_sums_are_not_streamed_however_often_they_are_written() -> None:
    kernels = loops(lambda x: x.sum(0), (65536, 1024))
    assert not any(what_to_stream(kernel, Target.for_export("x86-64-v3")) for kernel in kernels)


@pytest.mark.skipif(Target.host().architecture != "x86_64", reason="only x86-64 has such stores")
def test_streamed_stores_are_followed_by_a_fence() -> None:
    code = {}
    for rows in (1024, 4096):
        graph = graphc.trace(lambda x: x * 2.0 + 1.0, (graphc.empty(rows, 2048),)).ir
        code[rows] = "".join(kernel.assembly for kernel in get_backend("llvm").code(pipeline.run(graph)))
    assert "movnt" in code[4096] and code[4096].rindex("sfence") > code[4096].rindex("movnt")
    assert "movnt" not in code[1024] and "sfence" not in code[1024]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(LARGE,), (LARGE + 5,), (2897, 2909), (4096, 2064)])
def test_what_is_streamed_is_right(shape: tuple[int, ...], threads: int) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        got = graphc.compile(lambda x: (x * 2.0, x > 0.0, x.double()))(graphc.tensor(x))
        turned = graphc.compile(lambda x: x.t() * 2.0)(graphc.tensor(x)) if len(shape) == 2 else None
    finally:
        graphc.set_num_threads(before)
    for result, expected in zip(got, (x * 2, x > 0, x.astype(np.float64))):
        np.testing.assert_array_equal(result.numpy(), expected)
    if turned is not None:
        np.testing.assert_array_equal(turned.numpy(), x.T * 2)


@pytest.mark.parametrize("beyond", [0, 4, 16, 32])
def test_arrays_are_changed_in_place_wherever_they_begin(beyond: int) -> None:
    whole = np.random.default_rng(0).standard_normal(LARGE + 64, np.float32)
    first = (-whole.ctypes.data % 64 + beyond) // 4
    tensor, expected = graphc.from_numpy(whole)[first : first + LARGE], whole[first : first + LARGE] * 3
    assert tensor.data_ptr() % 64 == beyond
    graphc.compile(lambda x: x.mul_(3.0))(tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_what_is_streamed_is_read_by_the_next_kernel() -> None:
    x = np.random.default_rng(0).standard_normal((4096, 2048), np.float32)

    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        y = x.softmax(-1)
        return y, y.sum(0)

    for _ in range(3):
        y, total = graphc.compile(f)(graphc.tensor(x))
        np.testing.assert_allclose(total.numpy(), y.numpy().sum(0, dtype=np.float64), rtol=1e-5)
