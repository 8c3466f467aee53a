"""Numbers for the samples in the ops' records: what the tests that go through all ops run them on."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from graphc.ir import Builder, Graph
from graphc.op import OpDef, Sample
from graphc.types import TensorType, dtype_of


def draw(sample: Sample, seed: str) -> list[np.ndarray]:
    """Arrays for the operands of a sample: the same ones for the same seed."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    arrays = [_array(operand, sample, rng) for operand in sample.operands]
    if sample.hermitian:
        first = arrays[0]
        arrays[0] = first @ first.conj().swapaxes(-1, -2) + np.eye(first.shape[-1], dtype=first.dtype)
    if sample.triangular:
        first = arrays[0]
        arrays[0] = np.tril(first, -1) + 2 * np.eye(first.shape[-1], dtype=first.dtype)
    return arrays


def _array(operand: TensorType | np.ndarray, sample: Sample, rng: np.random.Generator) -> np.ndarray:
    if not isinstance(operand, TensorType):
        return np.asarray(operand)  # numbers that the op may need to be just these
    numbers: Any
    match operand.dtype.kind:
        case "bool":
            numbers = rng.random(operand.shape) < 0.5
        case "int" | "uint":
            numbers = rng.integers(int(sample.low), int(sample.high) + 1, operand.shape)
        case "complex":
            real, imaginary = rng.uniform(sample.low, sample.high, (2, *operand.shape))
            numbers = real + 1j * imaginary
        case _:
            numbers = rng.uniform(sample.low, sample.high, operand.shape)
    return np.asarray(numbers, operand.dtype.numpy)


def graph_of(record: OpDef, sample: Sample, arrays: list[np.ndarray]) -> Graph:
    """A graph of one call of an op, on inputs like the arrays."""
    builder = Builder(record.name)
    operands = [builder.input(f"x{i}", TensorType(dtype_of(a.dtype), a.shape)) for i, a in enumerate(arrays)]
    results = builder.emit(record, tuple(operands), dict(sample.attrs))
    return builder.finish(results if isinstance(results, tuple) else [results])
