"""Masked loads and stores that are wider than a register, on memory that faults when touched outside of buffers."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernels import run_native

from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.interpret import interpret
from graphc.ir import Builder
from graphc.ops import pad
from graphc.schedule import Machine, lower
from graphc.types import DType, TensorType, bool_, float16, float32, float64, int8

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
