"""Reductions of long columns, which go through the rows in pieces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernel_interpreter import run_program

import graphc
import graphc.ops as ops
from graphc.ir import Builder
from graphc.kernel import Loops
from graphc.passes import pipeline
from graphc.schedule import Machine, columns, lower
from graphc.types import TensorType, float32

SHAPES = [
    (2048, 64), (1000, 1000), (1021, 523), (64, 5000), (67, 4099), (200, 1025), (5000, 70), (16384, 8), (20011, 17), (2081, 63),
]  # fmt: skip


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def compiled(function: Callable[..., graphc.Tensor], threads: int, *arrays: np.ndarray) -> np.ndarray:
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        return graphc.compile(function)(*map(graphc.tensor, arrays)).numpy()
    finally:
        graphc.set_num_threads(before)


def test_rows_are_read_in_their_order() -> None:
    b = Builder("test")
    x = b.input("x", TensorType(float32, (300, 500)))
    first, last = lower(pipeline.run(b.finish([ops.sum(x, (0,))])), Machine(vector_bytes=32)).kernels
    assert isinstance(first, Loops) and isinstance(last, Loops)
    assert [axis.name for axis in first.grid] == ["piece", "i0.block"]


@pytest.mark.parametrize("shape", [(104, 150), (131, 70), (509, 17)])
def test_the_schedule_computes_the_sum(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("_FEWEST", 1 << 12), ("_PIECE", 1 << 11), ("_WIDEST", 64)):  # an interpreter takes long for more
        monkeypatch.setattr(columns, name, size)
    b = Builder("test")
    x = b.input("x", TensorType(float32, shape))
    array = numbers(*shape)
    (got,) = run_program(lower(pipeline.run(b.finish([ops.sum(x, (0,))])), Machine(vector_bytes=64)), [array])
    np.testing.assert_allclose(got, array.astype(np.float64).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_the_same_bits_for_any_number_of_threads(shape: tuple[int, int]) -> None:
    x = numbers(*shape)
    got = compiled(lambda x: ((x - x.mean(0)) ** 2).mean(0).sqrt(), 2, x)
    np.testing.assert_allclose(got, x.astype(np.float64).std(0), rtol=1e-5)
    assert compiled(lambda x: ((x - x.mean(0)) ** 2).mean(0).sqrt(), 1, x).tobytes() == got.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_extrema(shape: tuple[int, int]) -> None:
    x = numbers(*shape)
    x[shape[0] // 2, 5] = np.nan
    np.testing.assert_array_equal(compiled(lambda x: x.amax(0), 2, x), x.max(0))
    np.testing.assert_array_equal(compiled(lambda x: x.amin(0) + 1.0, 2, x), x.min(0) + np.float32(1))


def test_other_dtypes() -> None:
    x = np.random.default_rng(1).integers(-100, 100, (999, 301)).astype(np.int16)
    np.testing.assert_array_equal(compiled(lambda x: x.sum(0), 2, x), x.sum(0))
    np.testing.assert_array_equal(compiled(lambda x: x.any(0), 2, x > 98), (x > 98).any(0))
    half = numbers(999, 301).astype(np.float16)
    np.testing.assert_allclose(compiled(lambda x: x.sum(0), 2, half), half.astype(np.float64).sum(0), rtol=1e-2, atol=0.1)


def test_columns_of_a_stack_of_matrices() -> None:
    x = numbers(3, 2000, 100)
    np.testing.assert_allclose(compiled(lambda x: x.sum(1), 2, x), x.astype(np.float64).sum(1), rtol=1e-3, atol=1e-3)


def test_rows_of_a_transposed_matrix_are_columns() -> None:
    x = numbers(700, 300)
    np.testing.assert_allclose(compiled(lambda x: x.t().sum(1), 2, x), x.astype(np.float64).sum(0), rtol=1e-3, atol=1e-3)


# Very few columns: rows side by side

FEW = [(20000, 1), (8192, 2), (5461, 3), (5462, 3), (30011, 5), (16385, 7), (1401, 12), (70001, 15), (4000, 17), (2501, 31)]


@pytest.mark.parametrize("shape", FEW)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8", "float16"])
def test_rows_of_few_columns_are_taken_side_by_side(shape: tuple[int, int], dtype: str) -> None:
    array = (10 * numbers(*shape)).astype(dtype)
    wide = array.astype(np.float64)
    tolerance = {"rtol": 2e-3, "atol": 1e-1} if dtype == "float16" else {"rtol": 1e-4, "atol": 1e-1}
    got = compiled(lambda x: (2 * x.sum(0)).to(graphc.float64), 2, array)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(got, (2 * wide.sum(0)).astype("float16" if dtype == "float16" else "float64"), **tolerance)
    np.testing.assert_array_equal(compiled(lambda x: x.amax(0), 2, array), array.max(0))
    np.testing.assert_array_equal(compiled(lambda x: x.amin(0), 1, array), array.min(0))


def test_sums_of_few_columns_are_the_same_bits_for_any_number_of_threads() -> None:
    for shape in FEW:
        x = numbers(*shape)
        np.testing.assert_array_equal(*(compiled(lambda x: x.exp().sum(0), threads, x) for threads in (1, 2)))


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
@pytest.mark.parametrize("shape", [(700, 3), (701, 3), (333, 7)])
def test_the_schedule_of_few_columns(shape: tuple[int, int], vector_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_FEWEST_FOLDED", 1 << 10)
    b = Builder("test")
    x = b.input("x", TensorType(float32, shape))
    program = lower(pipeline.run(b.finish([ops.sum(x, (0,))])), Machine(vector_bytes=vector_bytes))
    is_few = shape[1] < 2 * (vector_bytes // 8)  # sums are of float64
    assert len(program.kernels) == 1 + is_few  # sums side by side, and the sum of these
    array = numbers(*shape)
    (got,) = run_program(program, [array])
    np.testing.assert_allclose(got, array.astype(np.float64).sum(0), rtol=1e-4, atol=1e-4)


def test_what_depends_on_the_column_is_not_taken_side_by_side() -> None:
    x, w = numbers(30011, 3), numbers(3)
    np.testing.assert_allclose(compiled(lambda x, w: ((x - w) ** 2).sum(0), 2, x, w), ((x - w).astype(np.float64) ** 2).sum(0),
                               rtol=1e-5)
    broadcast = np.broadcast_to(w, (30011, 3))
    np.testing.assert_allclose(compiled(lambda x: x.sum(0), 2, broadcast), 30011 * w.astype(np.float64), rtol=1e-4)
    turned = np.asfortranarray(x)
    np.testing.assert_allclose(compiled(lambda x: x.sum(0), 2, turned), x.astype(np.float64).sum(0), rtol=1e-4, atol=1e-2)


def test_a_sum_of_everything_along_two_axes() -> None:
    x = numbers(64, 20000)[:, ::3]
    np.testing.assert_allclose(compiled(lambda x: x.sum(), 2, x), x.astype(np.float64).sum(), rtol=1e-3, atol=1e-1)
