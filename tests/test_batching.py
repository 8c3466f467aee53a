"""Batching: an op on a batch of operands gives what it gives for each of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from op_samples import draw

from graphc.batching import apply_batched
from graphc.interpret import interpret
from graphc.ir import Builder
from graphc.op import OPS, OpDef, Sample, not_differentiable, op
from graphc.types import TensorType, dtype_of, float32, float64

SIZE = 3


def run(record: OpDef, arrays: list[np.ndarray], batched: tuple[bool, ...] | None, attrs: Any) -> list[np.ndarray]:
    """The op on arrays, by a graph and the interpreter; with `batched`, by way of its batching rule."""
    builder = Builder("main")
    values = [builder.input(None, TensorType(dtype_of(a.dtype), a.shape)) for a in arrays]
    if batched is None:
        found = record(*values, **attrs)
    else:
        size = next(a.shape[0] for a, own in zip(arrays, batched) if own)
        found = apply_batched(record, size, values, batched, attrs)
    return interpret(builder.finish(found if isinstance(found, tuple) else [found]), arrays)


CASES = {
    f"{record.name}-{n}": (record, sample)
    for record in OPS.values() for n, sample in enumerate(record.samples) if sample.operands and record.name != "random_bits"
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_calls_is_one_call(name: str) -> None:
    record, sample = CASES[name]
    calls = [draw(sample, f"{name}-{i}") for i in range(SIZE)]
    count = len(sample.operands)
    choices = [c for c in itertools.product((True, False), repeat=count) if any(c) and (count < 4 or sum(c) in (1, count))]
    for batched in choices:
        operands = [np.stack([call[k] for call in calls]) if own else calls[0][k] for k, own in enumerate(batched)]
        together = run(record, operands, batched, sample.attrs)
        for i in range(SIZE):
            alone = run(record, [x[i] if own else x for x, own in zip(operands, batched)], None, sample.attrs)
            for whole, part in zip(together, alone, strict=True):
                assert whole.shape == (SIZE, *part.shape)
                assert whole.dtype == part.dtype
                np.testing.assert_allclose(whole[i], part, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_none(name: str) -> None:
    record, sample = CASES[name]
    arrays = draw(sample, name)
    empty = [np.zeros((0, *a.shape), a.dtype) for a in arrays]
    for whole, part in zip(run(record, empty, (True,) * len(arrays), sample.attrs), run(record, arrays, None, sample.attrs)):
        assert whole.shape == (0, *part.shape)
        assert whole.dtype == part.dtype


def test_promotion_sees_the_elements() -> None:
    """A float64 number beside a float32 vector gives float32, also where the numbers form a vector."""
    numbers, vector = np.arange(3.0), np.ones(3, np.float32)
    (found,) = run(OPS["mul"], [numbers, vector], (True, False), {})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.outer(numbers, vector))


def test_ops_without_a_rule_run_one_by_one() -> None:
    """The sum of all elements says nothing of dimensions: the batch must not be summed."""
    total = op("total_for_a_test", "x", infer=lambda x: TensorType(x.dtype, ()), ref=lambda x: np.sum(x),
               vjp=not_differentiable, samples=(Sample((TensorType(float64, (2, 2)),)),))
    try:
        x = np.arange(12.0).reshape(3, 2, 2)
        np.testing.assert_array_equal(run(total, [x], (True,), {})[0], x.sum((1, 2)))
    finally:
        del OPS[total.name]


@pytest.mark.parametrize("name, kept", [("sum", 1), ("matmul", 3), ("gather", 2), ("conv", 9), ("slice", 1)])
def test_a_batch_is_no_loop(name: str, kept: int) -> None:
    record = OPS[name]
    sample = record.samples[0]
    builder = Builder("main")
    operands = []
    for operand in sample.operands:
        type_ = operand if isinstance(operand, TensorType) else TensorType(dtype_of(operand.dtype), operand.shape)
        operands.append(builder.input(None, type_.with_shape((50, *type_.shape))))
    apply_batched(record, 50, operands, (True,) * len(operands), sample.attrs)
    assert len(builder.nodes) <= kept
    builder.abandon()


def test_examples_that_share_a_kernel_are_one_convolution() -> None:
    builder = Builder("main")
    x = builder.input(None, TensorType(float32, (4, 2, 3, 6, 5)))
    w = builder.input(None, TensorType(float32, (4, 3, 3, 2)))
    apply_batched(OPS["conv"], 4, [x, w], (True, False), OPS["conv"].samples[0].attrs)
    assert [node.op.name for node in builder.nodes] == ["reshape", "conv", "reshape"]
    builder.abandon()
