"""Halves in compiled code: every conversion bit by bit, and fused code that computes what the ops do one by one."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from cpus import code_for

import graphc
import graphc.ops as ops
from graphc.backends.llvm.half import bits_of
from graphc.compiler import compile_graph
from graphc.ir import Builder
from graphc.schedule import Machine, lower
from graphc.types import DType, TensorType, bfloat16, dtype_of, float16, float32, float64

HALVES = pytest.mark.parametrize("half", [float16, bfloat16], ids=lambda d: d.name)


@pytest.fixture(params=["x86-64", "haswell", "native"], autouse=True)
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """Code for CPUs without conversions, with those of float16, and for this one."""
    with code_for(request.param) as name:
        yield name


def computed(function, *arrays: np.ndarray) -> np.ndarray:
    """`function` of ops on graph values, compiled and run."""
    builder = Builder("test")
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    graph = builder.finish([function(*(builder.input(None, type_) for type_ in types))])
    return compile_graph(graph)(*arrays)[0]


def assert_same_bits(actual: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bits; a NaN is any NaN."""
    bits = f"u{wanted.dtype.itemsize}"
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    np.testing.assert_array_equal(actual[~nan].view(bits), wanted[~nan].view(bits))


def every_half(half: DType) -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(half.numpy)


def awkward_floats() -> np.ndarray:
    """float32 around every bfloat16 and every step of float16: exact ones, ties, and next to those; subnormals, NaNs."""
    high = np.arange(0, 1 << 16, 7, dtype=np.uint32)[:, None] << 16
    low = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (high | low).reshape(-1).view(np.float32)


@HALVES
@pytest.mark.parametrize("to", [float32, float64], ids=lambda d: d.name)
def test_widens_every_number(half: DType, to: DType) -> None:
    x = every_half(half)
    with np.errstate(all="ignore"):
        assert_same_bits(computed(lambda v: ops.cast(v, dtype=to), x), x.astype(to.numpy))


@HALVES
def test_rounds_to_nearest_even(half: DType) -> None:
    x = awkward_floats()
    with np.errstate(all="ignore"):
        assert_same_bits(computed(lambda v: ops.cast(v, dtype=half), x), x.astype(half.numpy))


@HALVES
def test_a_nan_stays_one(half: DType) -> None:
    x = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    y = computed(lambda v: ops.cast(v, dtype=half), x)
    assert np.isnan(y).all() and np.signbit(y).tolist() == [False, True, False, True, False]


@HALVES
def test_rounds_once_from_double_and_integers(half: DType) -> None:
    tie = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11, 65519.999999, 3.4e38, 1e300])
    wanted = np.array([float(ml_dtypes.bfloat16(np.float32(1.0078125))), 1.0]) if half is bfloat16 else None
    got = computed(lambda v: ops.cast(v, dtype=half), np.concatenate([tie, -tie]))
    if wanted is not None:
        assert got[:2].astype(np.float64).tolist() == wanted.tolist()
    else:
        assert got[2:5].astype(np.float64).tolist() == [1 + 2.0**-10, 1.0, 65504.0]
    assert np.isinf(got[6]) and np.signbit(got[7:]).all()
    numbers = np.array([0, 1, -1, 257, 2049, 65504, -(1 << 40)])
    with np.errstate(all="ignore"):
        assert_same_bits(computed(lambda v: ops.cast(v, dtype=half), numbers), numbers.astype(np.float32).astype(half.numpy))


@HALVES
@pytest.mark.parametrize("size", [0, 1, 3, 17, 64, 1031])
def test_fused_code_rounds_after_each_op(half: DType, size: int) -> None:
    rng = np.random.default_rng(size)
    x, y = (rng.standard_normal(size).astype(half.numpy) * half.numpy.type(3) for _ in range(2))

    def function(x, y):
        return ops.maximum(-(x * y + x) * y, x / 3.0) - ops.abs(y)

    with np.errstate(all="ignore"):
        wanted = np.maximum(-(x * y + x) * y, x / np.asarray(3.0, half.numpy)) - np.abs(y)
    assert_same_bits(computed(function, x, y), wanted)


@HALVES
def test_sums_go_on_in_single_precision(half: DType) -> None:
    ones = np.ones((3, 4099), half.numpy)
    assert computed(lambda v: ops.sum(v, axes=(1,)), ones).tolist() == [float(half.numpy.type(4099))] * 3
    x = np.array([1.0, np.nan, -np.inf, 7.0] * 50, half.numpy)
    assert np.isnan(computed(lambda v: ops.amax(v, axes=(0,)), x))
    assert computed(lambda v: ops.amin(v, axes=(0,)), x[2:3].repeat(9)) == -np.inf


@HALVES
def test_strided_gathered_and_masked_numbers(half: DType) -> None:
    x = np.arange(7 * 13, dtype=np.float32).astype(half.numpy).reshape(7, 13)
    places = np.array([[5, 0, 12, 3]] * 7)
    assert_same_bits(computed(lambda v: ops.permute(v, (1, 0)) * 2.0, x), x.T * half.numpy.type(2))
    assert_same_bits(computed(lambda v: ops.pad(v, (1, 2), (0, 3), 1.5) + 0.0, x),
                     np.pad(x, ((1, 0), (2, 3)), constant_values=half.numpy.type(1.5)))
    assert_same_bits(computed(lambda v, i: ops.gather(v, i, axis=1), x, places), np.take_along_axis(x, places, 1))


def test_constants_are_rounded_as_they_are_eagerly() -> None:
    for value in (0.0, -0.0, 1.0, 3.140625, -1e-40, 3e38, float("inf"), float("-inf")):
        assert bits_of(float(ml_dtypes.bfloat16(value))) == int(np.asarray(value, bfloat16.numpy).view(np.uint16))
    assert np.isnan(np.array(bits_of(float("nan")), np.uint16).view(bfloat16.numpy))


@HALVES
def test_trains_natively(half: DType) -> None:
    graphc.manual_seed(0)
    layer = graphc.nn.Linear(8, 4).to(half)
    x = graphc.randn(16, 8).to(half)

    def loss(x):
        return (layer(x).relu() ** 2).mean()

    eager = graphc.autograd.grad(loss(x), layer.parameters())
    compiled = graphc.compile(lambda x: graphc.autograd.grad(loss(x), layer.parameters()))(x)
    for a, b in zip(eager, compiled):
        assert a.dtype is b.dtype is half
        graphc.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


@HALVES
def test_nothing_is_left_to_python(half: DType) -> None:
    builder = Builder("test")
    x = builder.input(None, TensorType(half, (64, 64)))
    product = ops.contract(ops.tanh(x), x, "ik,kj->ij")
    program = lower(builder.finish([ops.sum(product, axes=(0,)) + 1.0]), Machine(16))
    assert program.kernels and not list(program.calls())
