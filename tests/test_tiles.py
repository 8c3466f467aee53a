"""Maps that read operands along another axis than they write: computed in tiles, which are turned round in registers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_interpreter import run_program

import graphc
import graphc.ops as ops
from graphc.ir import Builder, Graph
from graphc.kernel import Loops
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(shape) * 50).astype(dtype)


def graph(*shapes: tuple[int, ...]) -> Graph:
    b = Builder("test")
    x, y = (b.input(f"x{i}", TensorType(float32, shape)) for i, shape in enumerate(shapes))
    return b.finish([(ops.permute(x, (1, 0)) + y) * 2.0])


@pytest.mark.parametrize("shape", [(64, 64), (65, 33), (130, 17), (4, 300), (300, 4), (3, 400)])
def test_the_schedule_computes_the_sum(shape: tuple[int, int]) -> None:
    x, y = numbers(*shape), numbers(*shape[::-1])
    (got,) = run_program(lower(pipeline.run(graph(shape, shape[::-1])), Machine(vector_bytes=32)), [x, y])
    np.testing.assert_array_equal(got.reshape(y.shape), (x.T + y) * np.float32(2))


def test_what_is_read_across_is_put_on_the_stack() -> None:
    program = lower(pipeline.run(graph((128, 96), (96, 128))), Machine(vector_bytes=32))
    (kernel,) = program.kernels
    assert isinstance(kernel, Loops)
    assert [b.size for b in kernel.accesses if b.role == "local"] == [64 * 48]


def test_kernels_with_tiles_take_little_of_the_stack() -> None:
    b = Builder("test")
    inputs = [b.input(f"x{i}", TensorType(float32, (256, 256))) for i in range(12)]
    program = lower(pipeline.run(b.finish([ops.permute(x, (1, 0)) * 2.0 for x in inputs])), Machine(vector_bytes=64))
    for kernel in program.kernels:
        assert sum(b.nbytes for b in kernel.accesses if b.role == "local") <= 1 << 16


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [
    (64, 64), (33, 65), (100, 17), (255, 257), (5, 500), (500, 5), (31, 37), (129, 4), (7, 300), (301, 67), (1023, 20),
    (129, 67), (143, 70), (181, 181), (513, 33), (256, 65), (1021, 90),
])  # fmt: skip
def test_a_sum_with_a_transposed_operand(shape: tuple[int, int], threads: int) -> None:
    x, y = numbers(*shape), numbers(*shape[::-1])
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        got = graphc.compile(lambda x, y: (x.t() + y) * 2.0)(graphc.tensor(x), graphc.tensor(y))
    finally:
        graphc.set_num_threads(before)
    np.testing.assert_array_equal(got.numpy(), (x.T + y) * np.float32(2))


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.float16, np.int32, np.int64, np.float64])
def test_a_transposed_copy_of_each_dtype(dtype: type) -> None:
    for shape in ((70, 90), (16, 100), (67, 64), (1039, 70)):
        x = numbers(*shape, dtype=dtype)
        np.testing.assert_array_equal(graphc.compile(lambda x: x.t().contiguous())(graphc.tensor(x)).numpy(), x.T)


def test_tiles_that_are_shifted_to_begin_with_lines() -> None:
    shape = (387, 70)
    program = lower(pipeline.run(graph(shape, shape[::-1])), Machine(vector_bytes=64))
    (kernel,) = program.kernels
    assert isinstance(kernel, Loops)
    assert "modulo" in str(kernel)
    x, y = numbers(*shape), numbers(*shape[::-1])
    (got,) = run_program(program, [x, y])
    np.testing.assert_array_equal(got.reshape(y.shape), (x.T + y) * np.float32(2))


def test_shifted_tiles_of_any_number_of_rows() -> None:
    size = graphc.Dim("size", min=1, max=600)
    program = graphc.export(lambda x: x.t() * 2.0, (graphc.ones(387, 70),), dynamic_shapes=({0: size},))
    for rows in (1, 15, 16, 17, 120, 387, 511, 600):
        x = numbers(rows, 70)
        np.testing.assert_array_equal(program(graphc.tensor(x)).numpy(), x.T * np.float32(2))


def test_shifted_tiles_that_are_written_over() -> None:
    x, y = numbers(387, 70), numbers(70, 387)

    def change(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return y.add_(x.t()).mul_(2)

    changed = graphc.tensor(y)
    graphc.compile(change)(graphc.tensor(x), changed)
    np.testing.assert_array_equal(changed.numpy(), (y + x.T) * np.float32(2))


@pytest.mark.parametrize("first", list(itertools.permutations(range(3))))
def test_operands_of_two_orders(first: tuple[int, int, int]) -> None:
    x = numbers(20, 20, 20)
    for second in itertools.permutations(range(3)):
        got = graphc.compile(lambda x, second=second: x.permute(*first) * 2 + x.permute(*second))(graphc.tensor(x))
        np.testing.assert_array_equal(got.numpy(), x.transpose(first) * np.float32(2) + x.transpose(second))


def test_operands_of_other_widths_and_broadcast_ones() -> None:
    x, y, z = numbers(90, 70), numbers(90, 70, dtype=np.int8), numbers(70, 1)
    got = graphc.compile(lambda x, y, z: x.t() * z + y.t())(*map(graphc.tensor, (x, y, z)))
    np.testing.assert_allclose(got.numpy(), x.T * z + y.T, rtol=1e-6)


def test_a_part_of_a_matrix_backwards() -> None:
    x = numbers(200, 150)
    got = graphc.compile(lambda x: x.flip(0)[3:190, 5:140].t() + 1.0)(graphc.tensor(x))
    np.testing.assert_array_equal(got.numpy(), x[::-1][3:190, 5:140].T + np.float32(1))


def test_a_matrix_added_to_its_own_transpose_in_place() -> None:
    x = numbers(150, 150)
    given = graphc.tensor(x.copy())

    @graphc.compile
    def double(x: graphc.Tensor) -> None:
        x += x.t()

    double(given)
    np.testing.assert_array_equal(given.numpy(), x + x.T)


def test_sizes_that_are_not_known() -> None:
    @graphc.compile(dynamic=True)
    def both(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return (x.t() + y) * 2.0

    for shape in ((100, 90), (33, 129), (3, 4), (200, 5), (16, 16), (1, 7)):
        x, y = numbers(*shape), numbers(*shape[::-1])
        np.testing.assert_array_equal(both(graphc.tensor(x), graphc.tensor(y)).numpy(), (x.T + y) * np.float32(2))
