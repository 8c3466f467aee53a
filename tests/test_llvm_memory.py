"""Masked loads and stores that are wider than a register, on memory that faults when touched outside of buffers."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernels import run_native

from graphc import ops
from graphc.backends.llvm.target import Target
from graphc.compiler import executable
from graphc.config import override
from graphc.interpret import interpret
from graphc.ir import Builder
from graphc.ops import pad
from graphc.schedule import Machine, lower
from graphc.types import DType, TensorType, bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8

CPUS = ["x86-64", "haswell", "native"] if Target.host().architecture == "x86_64" else ["generic", "native"]


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("dtype", [bool_, int8, float16, float32, float64], ids=str)
@pytest.mark.parametrize("length", [1, 3, 5, 8, 13])
def test_rows_between_padding(cpu: str, dtype: DType, length: int) -> None:
    """Which lanes are read changes from row to row, and whole registers of them are never."""
    for low, high in ((2, 2), (0, 4), (4, 0), (9, 9)):
        b = Builder("padded")
        x = b.input("x", TensorType(dtype, (3, length)))
        graph = b.finish([pad(x, (1, low), (2, high), 0)])
        array = (np.arange(3 * length) % 5 - 2).reshape(3, length).astype(dtype.numpy)
        with override(cpu=cpu):
            program = lower(graph, Machine(vector_bytes=Target.host().vector_bytes))
            memory = {program.inputs[0]: array.reshape(-1)}
            memory |= {out: np.ones(out.size, out.dtype.numpy) for out in program.outputs}
            (result,) = run_native(program.kernels, memory, program.temporaries).values()
        (expected,) = interpret(graph, [array])
        np.testing.assert_array_equal(result.reshape(expected.shape), expected)


@pytest.mark.parametrize("length", [65_537, 262_145, 600_001])
@pytest.mark.parametrize("dtype", [int32, int16, int8, uint8], ids=str)
def test_nothing_is_written_beyond_a_single_last_lane_of_truncated_numbers(dtype: DType, length: int) -> None:
    """LLVM makes a scalar store of it, of the number as it was before."""
    builder = Builder("narrowed")
    wide = builder.input("x", TensorType(int64, (length,)))
    code = executable(builder.finish([ops.cast(wide * 3, dtype=dtype)]))
    beyond = 64
    memory = np.full(length * dtype.itemsize + beyond, 0xA5, np.uint8)
    numbers = np.arange(length)
    code.run([numbers], [out := memory[:-beyond].view(dtype.numpy)])
    np.testing.assert_array_equal(out, (numbers * 3).astype(dtype.numpy))
    assert (memory[-beyond:] == 0xA5).all()


@pytest.mark.parametrize("dtype", [bfloat16, float16, int16, bool_], ids=str)
@pytest.mark.parametrize("columns", [9, 17, 65])
def test_rows_that_end_in_a_single_lane_leave_the_next_ones_alone(dtype: DType, columns: int) -> None:
    """The last lane of a row is stored after the first ones of the next row."""
    builder = Builder("rounded")
    x = builder.input("x", TensorType(float64, (3, columns)))
    running = ops.cumsum(ops.exp(ops.log(x)), axis=0)  # functions are computed in one register at a time
    code = executable(builder.finish([running > 0 if dtype is bool_ else ops.cast(running, dtype=dtype)]))
    numbers = np.arange(1.0, 3 * columns + 1).reshape(3, columns)
    code.run([numbers], [out := np.zeros((3, columns), dtype.numpy)])
    expected = np.cumsum(numbers, 0)
    wanted = expected > 0 if dtype is bool_ else expected.astype(dtype.numpy)
    np.testing.assert_allclose(out.astype(float), wanted.astype(float), rtol=1e-2, atol=1)


def test_a_draw_of_random_numbers_stays_within_its_memory() -> None:
    state = np.array([1, 2])
    for length in (65_537, 1_050_625):
        builder = Builder("drawn")
        code = executable(builder.finish([ops.random_bits(builder.input("s", TensorType(int64, (2,))), shape=(length,))]))
        memory = np.full(length + 16, 0xA5A5A5A5, np.uint32)
        code.run([state], [memory[:-16]])
        np.testing.assert_array_equal(memory[:-16], ops.random_bits.ref(state, shape=(length,)))
        assert (memory[-16:] == 0xA5A5A5A5).all()
