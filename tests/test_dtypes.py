"""Dtypes: promotion, the halves and how they are computed with, limits, the default, and conversions."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc.types import DTYPES, TensorType, promote_types, result_type

HALVES = pytest.mark.parametrize("half", [graphc.float16, graphc.bfloat16])

# Promotion


@pytest.mark.parametrize("a, b, expected", [
    ("uint8", "int8", "int16"), ("int8", "int64", "int64"), ("int64", "float16", "float16"), ("float16", "bfloat16", "float32"),
    ("float64", "complex64", "complex128"), ("float16", "complex32", "complex32"), ("bfloat16", "complex32", "complex64"),
    ("float32", "complex32", "complex64"), ("int64", "complex32", "complex32"), ("bool", "complex64", "complex64"),
    ("float64", "complex32", "complex128"), ("complex32", "complex64", "complex64"), ("bool", "uint8", "uint8"),
])  # fmt: skip
def test_promotion(a: str, b: str, expected: str) -> None:
    assert promote_types(DTYPES[a], DTYPES[b]) is promote_types(DTYPES[b], DTYPES[a]) is DTYPES[expected]


@pytest.mark.parametrize("operands, expected", [
    (["int64", 1.5], "float32"), (["float16", 1.5], "float16"), (["float64", 1j], "complex128"), (["float16", 1j], "complex32"),
    (["bfloat16", 1j], "complex64"), (["int64", 1j], "complex64"), (["complex64", 1.5], "complex64"), (["bool", 2], "int64"),
    (["float32", "float64[]"], "float32"), (["float64", "complex64[]"], "complex128"), (["int32", "float16[]"], "float16"),
    (["int64[]", "int32[]"], "int64"), (["uint8", "int64[]"], "uint8"),
])  # fmt: skip
def test_numbers_and_tensors_without_dimensions_count_by_their_category(operands: list[object], expected: str) -> None:
    described = [
        x if not isinstance(x, str) else TensorType(DTYPES[x.removesuffix("[]")], () if x.endswith("[]") else (2,))
        for x in operands
    ]
    assert result_type(described) is DTYPES[expected]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_results_have_the_promoted_dtype_eagerly_and_compiled(name: str) -> None:
    x = graphc.ones(3, dtype=DTYPES[name])
    for number in (2, 1.5, 1j):
        wanted = result_type([TensorType(x.dtype, (3,)), number])

        def add(x: graphc.Tensor, number: complex = number) -> graphc.Tensor:
            return x + number

        for result in (add(x), graphc.compile(add)(x)):
            assert result.dtype is wanted and result.to(graphc.complex128).tolist() == [1 + number] * 3


# Halves


@HALVES
def test_halves_round_once(half: graphc.DType) -> None:
    x = graphc.tensor(np.linspace(-3, 3, 50), dtype=half)
    wide = x.float()
    for narrow, exact in [(x.exp(), wide.exp()), (x * x + 0, (wide * wide)), (x * 0.3, wide * 0.3), (x / 3.1, wide / 3.1),
                          (x.sum(), wide.sum()), (x.mean(), wide.mean()), (x.var(), wide.var()), (x.sigmoid(), wide.sigmoid()),
                          (x.cumsum(0), wide.cumsum(0)), (x @ x, wide @ wide)]:  # fmt: skip
        assert narrow.dtype is half
        np.testing.assert_array_equal(narrow.float().numpy(), exact.to(half).float().numpy())


@HALVES
def test_sums_of_halves_do_not_stall(half: graphc.DType) -> None:
    ones = graphc.ones(5000, dtype=half)
    rounded = graphc.tensor(5000.0).to(half).item()
    assert ones.sum().item() == rounded and ones.mean().item() == 1 and (ones @ ones).item() == rounded


@HALVES
def test_numbers_beside_halves_are_exact(half: graphc.DType) -> None:
    """0.3 is no half: the product is that of 0.3 itself, in eager and in compiled code, and in place."""
    x = graphc.tensor(np.linspace(1, 2, 97), dtype=half)
    expected = (x.float() * 0.3).to(half)
    for found in (x * 0.3, graphc.compile(lambda x: x * 0.3)(x), x.clone().mul_(0.3)):
        assert found.dtype is half and graphc.equal(found, expected)
    assert graphc.equal(x == 1.0078125, x.float() == 1.0078125)


def test_bfloat16_goes_everywhere() -> None:
    x = graphc.tensor([1.0, -2.5, 3.140625], dtype=graphc.bfloat16)
    assert x.element_size() == 2 and x.is_floating_point() and x.tolist() == [1.0, -2.5, 3.140625] and x[1].item() == -2.5
    assert x.numpy().dtype == ml_dtypes.bfloat16 and graphc.from_numpy(x.numpy()).dtype is graphc.bfloat16
    assert x.sort()[0].tolist() == [-2.5, 1.0, 3.140625] and x.argmax().item() == 2 and x.relu().max().item() == 3.140625
    assert x[x > 0].tolist() == [1.0, 3.140625] and graphc.cat([x, x]).dtype is graphc.bfloat16
    assert graphc.stack([x, x]).sum(0).tolist() == [2.0, -5.0, 6.28125] and (x % 2).tolist() == [1.0, 1.5, 1.140625]


def test_bfloat16_trains() -> None:
    layer = graphc.nn.Linear(3, 2).bfloat16()
    optimizer = graphc.optim.SGD(layer.parameters(), lr=0.1)
    x = graphc.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 2.0]], dtype=graphc.bfloat16)

    @graphc.compile
    def step() -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (layer(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(40)]
    assert layer.weight.grad.dtype is graphc.bfloat16 and losses[-1] < 0.05 * losses[0]


def test_complex32_is_computed_with_in_complex64() -> None:
    z = graphc.tensor([1 + 2j, 3]).to(graphc.complex32)
    assert z.element_size() == 4 and z.tolist() == [1 + 2j, 3] and z.real.dtype is graphc.float16
    assert (z * z).dtype is graphc.complex32 and (z * z).tolist() == [-3 + 4j, 9] and z.sum().item() == 4 + 2j
    assert z.abs().dtype is graphc.float16 and (z == 3).tolist() == [False, True]
    assert graphc.compile(lambda z: z * 2.5)(z).tolist() == [2.5 + 5j, 7.5]
    with pytest.raises(TypeError, match="unsupported ScalarType ComplexHalf"):
        z.numpy()


# The default


def test_the_default_dtype_is_that_of_python_floats() -> None:
    @graphc.compile
    def half(x: graphc.Tensor) -> graphc.Tensor:
        return x * 0.5

    ints = graphc.tensor([1, 2])
    try:
        for dtype in (graphc.float64, graphc.float32, graphc.bfloat16):
            graphc.set_default_dtype(dtype)
            assert graphc.get_default_dtype() is dtype
            made = [graphc.tensor(1.5), graphc.ones(2), graphc.rand(2), ints * 0.5, ints.sqrt(), ints / 2, half(ints),
                    graphc.linspace(0, 1, 3), graphc.Tensor([1, 2]), graphc.nn.Linear(1, 1).weight]
            assert [x.dtype for x in made] == [dtype] * len(made)
            assert graphc.tensor(1j).dtype is dtype.to_complex() is (ints * 1j).dtype
            assert repr(graphc.tensor([0.5])) == "tensor([0.5000])"
    finally:
        graphc.set_default_dtype(graphc.float32)
    assert (ints * 0.5).dtype is graphc.float32 and half(ints).dtype is graphc.float32
    for wrong in (graphc.int64, graphc.complex64, "float32"):
        with pytest.raises(TypeError, match="only floating-point types"):
            graphc.set_default_dtype(wrong)  # type: ignore[arg-type]


# Limits


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float32, graphc.float64, graphc.bfloat16])
def test_finfo(dtype: graphc.DType) -> None:
    found = graphc.finfo(dtype)
    expected = ml_dtypes.finfo(dtype.numpy)
    assert (found.eps, found.max, found.min) == (float(expected.eps), float(expected.max), float(expected.min))
    assert found.tiny == found.smallest_normal == float(expected.smallest_normal) and found.bits == dtype.bits
    assert graphc.finfo(dtype.to_complex()).dtype == dtype.to_complex().to_real().name
    assert graphc.tensor(found.max, dtype=dtype).isfinite().item() and found.dtype == dtype.name


def test_finfo_and_iinfo_print_and_refuse() -> None:
    assert repr(graphc.finfo()) == ("finfo(resolution=1e-06, min=-3.40282e+38, max=3.40282e+38, eps=1.19209e-07, "
                                    "smallest_normal=1.17549e-38, tiny=1.17549e-38, dtype=float32)")
    assert repr(graphc.iinfo(graphc.int16)) == "iinfo(min=-32768, max=32767, dtype=int16)"
    assert graphc.iinfo(graphc.uint16).max == 65535 and graphc.iinfo(graphc.int64).bits == 64
    with pytest.raises(TypeError, match="requires a floating point input type"):
        graphc.finfo(graphc.int32)
    for wrong in (graphc.float32, graphc.bool):
        with pytest.raises(TypeError, match=r"requires an integer input type|not supported by iinfo"):
            graphc.iinfo(wrong)


# Conversions


@pytest.mark.parametrize("name, dtype", [
    ("bool", "bool"), ("byte", "uint8"), ("char", "int8"), ("short", "int16"), ("int", "int32"), ("long", "int64"),
    ("half", "float16"), ("bfloat16", "bfloat16"), ("float", "float32"), ("double", "float64"), ("chalf", "complex32"),
    ("cfloat", "complex64"), ("cdouble", "complex128"),
])  # fmt: skip
def test_conversion_methods(name: str, dtype: str) -> None:
    x = graphc.tensor([0.0, 1.0, 2.0])
    made = getattr(x, name)()
    assert made.dtype is DTYPES[dtype] and made.to(graphc.complex128).tolist() == ([0, 1, 1] if name == "bool" else [0, 1, 2])
    assert getattr(made, name)() is made and made.to(made.dtype) is made and made.to(made.dtype, copy=True) is not made


def test_what_to_takes() -> None:
    x = graphc.ones(2, 3)
    assert x.to(float).dtype is graphc.float64 and x.to("cpu", graphc.int8).dtype is graphc.int8
    assert x.to(graphc.zeros(1, dtype=graphc.int16)).dtype is graphc.int16 and x.to(device="cpu") is x
    assert x.to(graphc.float32, False, True) is not x and x.type_as(graphc.tensor(1j)).dtype is graphc.complex64
    assert x.t().double().stride() == (1, 3) and x.t().double(memory_format=graphc.contiguous_format).stride() == (2, 1)
    for wrong in ([1], {}, 1.5):
        with pytest.raises(TypeError, match="invalid combination of arguments"):
            x.to(wrong)


def test_the_old_names_of_dtypes() -> None:
    x = graphc.FloatTensor([1, 2])
    assert x.dtype is graphc.float32 and graphc.LongTensor(2, 3).shape == (2, 3) and x.type() == "graphc.FloatTensor"
    assert isinstance(x, graphc.FloatTensor) and not isinstance(x, graphc.LongTensor)
    assert x.type("graphc.BFloat16Tensor").dtype is graphc.bfloat16 and x.type(graphc.IntTensor).dtype is graphc.int32
    assert graphc.typename(x) == "graphc.FloatTensor" and x.cdouble().type() == "graphc.ComplexDoubleTensor"
    with pytest.raises(ValueError, match="invalid type"):
        x.type("Float")


def test_memory_formats() -> None:
    x = graphc.arange(24.0).reshape(1, 2, 3, 4).requires_grad_()
    last = x.to(memory_format=graphc.channels_last)
    assert last.stride() == (24, 1, 8, 2) and last.is_contiguous(memory_format=graphc.channels_last)
    assert not last.is_contiguous() and graphc.equal(last, x) and last.dim_order() == (0, 2, 3, 1)
    assert graphc.zeros_like(last).stride() == last.stride() == x.contiguous(memory_format=graphc.channels_last).stride()
    assert last.contiguous().stride() == x.stride() == graphc.ones_like(last, memory_format=graphc.contiguous_format).stride()
    (last * 2).sum().backward()
    assert x.grad.unique().tolist() == [2.0]


def test_special_values_survive() -> None:
    x = graphc.tensor([math.inf, -math.inf, math.nan, -0.0, 1e30])
    half = x.bfloat16()
    assert half.isinf().tolist() == [True, True, False, False, False] and half.isnan().tolist()[2]
    assert math.copysign(1, half[3].item()) == -1 and x.half()[4].item() == math.inf
    assert graphc.tensor([math.nan, 0.0, 0.5]).bool().tolist() == [True, False, True]
