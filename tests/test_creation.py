"""Making tensors: dtypes and shapes of what is made, layouts, ranges, and the arguments that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc


@pytest.mark.parametrize("data, dtype, expected", [
    (1, "int64", 1), (1.5, "float32", 1.5), (True, "bool", True), (1j, "complex64", 1j), ([], "float32", []),
    ([[], []], "float32", [[], []]), ([True, 2], "int64", [1, 2]), ([True, 2.5], "float32", [1.0, 2.5]),
    ([1, 2j], "complex64", [1, 2j]), (range(3), "int64", [0, 1, 2]), ((1, (2)), "int64", [1, 2]), (-(2**63), "int64", -(2**63)),
    (np.float16(1.5), "float16", 1.5), ([np.float64(1), 2], "float64", [1.0, 2.0]), ([np.int32(1), 2.5], "float32", [1.0, 2.5]),
    (np.ones((2, 1), np.uint16), "uint16", [[1], [1]]), ([np.ones(2), np.zeros(2)], "float64", [[1.0, 1.0], [0.0, 0.0]]),
])  # fmt: skip
def test_tensor_of_values(data: Any, dtype: str, expected: Any) -> None:
    made = graphc.tensor(data)
    assert made.dtype is getattr(graphc, dtype) and made.tolist() == expected


def test_tensor_of_tensors_of_one_element() -> None:
    made = graphc.tensor([graphc.tensor(1), graphc.tensor([2.5]), 3])
    assert made.dtype is graphc.float32 and made.tolist() == [1.0, 2.5, 3.0]
    with pytest.raises(ValueError, match="only one element tensors"):
        graphc.tensor([graphc.ones(2), graphc.ones(2)])


@pytest.mark.parametrize("data, kind, words", [
    ("a", TypeError, "invalid data type 'str'"), ([1, None], RuntimeError, "Could not infer dtype of NoneType"),
    ({1}, RuntimeError, "Could not infer dtype of set"), (2**63, ValueError, "Overflow when unpacking"),
    ([2**70, 1], ValueError, "Overflow when unpacking"), ([[1, 2], [3]], ValueError, "expected sequence of length 2 at dim 1"),
    ([1, [2]], TypeError, "'list' object"), (np.array(["a"]), TypeError, "can't convert np.ndarray of type"),
])  # fmt: skip
def test_data_that_is_no_tensor(data: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        graphc.tensor(data)


@pytest.mark.parametrize("make", [
    lambda: graphc.tensor([300], dtype=graphc.uint8), lambda: graphc.full((2,), 256, dtype=graphc.uint8),
    lambda: graphc.zeros(2, dtype=graphc.int8).fill_(200), lambda: graphc.full((2,), 1e40),
    lambda: graphc.full((1,), math.nan, dtype=graphc.int32),
    lambda: graphc.full((2,), 1j, dtype=graphc.float32), lambda: graphc.zeros(2).half().fill_(1e6),
])  # fmt: skip
def test_numbers_must_fit(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="without overflow"):
        make()


def test_what_fits_is_cut_off_or_wrapped() -> None:
    assert graphc.full((1,), 2.7, dtype=graphc.int64).tolist() == [2]
    assert graphc.zeros(1, dtype=graphc.uint8).fill_(-1).tolist() == [255] == graphc.tensor([-1], dtype=graphc.uint8).tolist()
    assert graphc.full((1,), math.inf).tolist() == [math.inf]
    assert math.copysign(1, graphc.full((1,), -0.0).item()) == -1


@pytest.mark.parametrize("make, words", [
    (lambda: graphc.zeros(2.5), r"zeros\(\): argument 'size' \(position 1\) must be tuple of ints, not float"),
    (lambda: graphc.ones("a"), "must be tuple of ints, not str"), (lambda: graphc.empty([2, 3.0]), "not float"),
    (lambda: graphc.zeros(True), "not bool"), (lambda: graphc.zeros(), 'missing 1 required positional arguments: "size"'),
    (lambda: graphc.zeros(2, dtype="float"), "argument 'dtype' must be graphc.dtype, not str"),
    (lambda: graphc.full(2, 3), r"full\(\): argument 'size' \(position 1\) must be tuple of ints, not int"),
    (lambda: graphc.full((2,), graphc.ones(2)), "must be Number, not Tensor"),
    (lambda: graphc.eye(2.5), "must be int, not float"),
    (lambda: graphc.zeros_like([1]), "must be Tensor, not list"), (lambda: graphc.arange("a"), "must be Number, not str"),
])  # fmt: skip
def test_arguments_of_wrong_types(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("make, words", [
    (lambda: graphc.zeros(-1), "must be non-negative"), (lambda: graphc.eye(2, -1), "m must be greater or equal to 0"),
    (lambda: graphc.arange(3, 1), "upper bound and lower bound inconsistent"), (lambda: graphc.arange(1, 3, 0), "nonzero"),
    (lambda: graphc.arange(0, math.inf), "unsupported range"), (lambda: graphc.linspace(0, 1, -1), "must be non-negative"),
    (lambda: graphc.linspace(graphc.ones(2), 1, 3), "only supports 0-dimensional start"),
    (lambda: graphc.arange(5, dtype=graphc.bool), "not implemented for"), (lambda: graphc.tril(graphc.ones(3)), "at least 2"),
    (lambda: graphc.tril_indices(-1, 2), "row must be non-negative"), (lambda: graphc.ones(2, device="cuda"), "CUDA"),
    (lambda: graphc.ones(2, device="tpu"), "device type at start of device string"),
    (lambda: graphc.empty_strided((2, 3), (1,)), "must match dimensionality of strides"),
    (lambda: graphc.empty_permuted((2, 3), (0, 0)), "Duplicate dim"), (lambda: graphc.empty_permuted((2,), (0, 1)), "length"),
    (lambda: graphc.ones(2, dtype=graphc.int64, requires_grad=True), "Only Tensors of floating point and complex dtype"),
    (lambda: graphc.zeros(2, dtype=graphc.float64, out=graphc.zeros(2)), "does not match dtype of out parameter"),
])  # fmt: skip
def test_arguments_of_wrong_values(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        make()


def test_python_types_are_dtypes() -> None:
    made = [graphc.zeros(1, dtype=kind).dtype for kind in (bool, int, float, complex)]
    assert made == [graphc.bool, graphc.int64, graphc.float64, graphc.complex128]


def test_layouts() -> None:
    x = graphc.ones(2, 3).t()
    for like in (graphc.zeros_like(x), graphc.ones_like(x), graphc.full_like(x, 2), graphc.empty_like(x), x.clone(), x + 1):
        assert like.shape == (3, 2) and like.stride() == (1, 3)
    assert graphc.ones_like(graphc.ones(2, 3).expand(4, 2, 3)).stride() == (6, 3, 1)
    assert graphc.empty_strided((2, 3), (1, 4)).stride() == (1, 4) == x.new_empty_strided((2, 3), (1, 4)).stride()
    assert graphc.empty_permuted((2, 3, 4), (0, 2, 1)).stride() == (12, 1, 3)
    assert graphc.empty_strided((0, 3), (1, 1)).numel() == 0 and graphc.empty_strided((3,), (0,)).fill_ is not None


def test_new_tensors_take_the_dtype_of_an_old_one() -> None:
    x = graphc.zeros(2, dtype=graphc.int16)
    for made in (x.new_zeros(2, 3), x.new_ones((2, 3)), x.new_empty(size=(2, 3)), x.new_full((2, 3), 7), x.new(2, 3)):
        assert made.dtype is graphc.int16 and made.shape == (2, 3)
    assert x.new_tensor([1.5]).tolist() == [1] and x.new([1, 2]).tolist() == [1, 2]
    assert x.new_zeros(1, dtype=graphc.float64).dtype is graphc.float64


# Ranges


@pytest.mark.parametrize("args, expected", [
    ((3,), [0, 1, 2]), ((1, 3), [1, 2]), ((5, 0, -2), [5, 3, 1]), ((3.0,), [0.0, 1.0, 2.0]),
    ((0, 1, 0.25), [0.0, 0.25, 0.5, 0.75]), ((2**60, 2**60 + 2), [2**60, 2**60 + 1]), ((0,), []),
])  # fmt: skip
def test_arange(args: tuple[Any, ...], expected: list[float]) -> None:
    made = graphc.arange(*args)
    floating = any(isinstance(x, float) for x in args)
    assert made.tolist() == expected and made.dtype is (graphc.float32 if floating else graphc.int64)
    assert graphc.compile(lambda: graphc.arange(*args))().tolist() == expected


def test_arange_in_other_dtypes() -> None:
    assert graphc.arange(1.5, 4, dtype=graphc.int64).tolist() == [1, 2, 3]
    assert graphc.arange(0, 5, 2, dtype=graphc.bfloat16).tolist() == [0.0, 2.0, 4.0]
    assert graphc.arange(graphc.tensor(3.0)).tolist() == [0.0, 1.0, 2.0]
    out = graphc.empty(0, dtype=graphc.float64)
    assert graphc.arange(3, out=out) is out and out.tolist() == [0.0, 1.0, 2.0]
    with pytest.warns(UserWarning, match="range is deprecated"):
        assert graphc.range(0, 3).tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("start, end, steps", [(0, 1, 5), (-3.5, 2, 7), (2, 2, 3), (0, 1, 1), (0, 1, 0), (1, 1e6, 11)])
def test_linspace(start: float, end: float, steps: int) -> None:
    made = graphc.linspace(start, end, steps)
    np.testing.assert_allclose(made.numpy(), np.linspace(start, end, steps), rtol=1e-6)
    if steps > 1:
        assert made[0].item() == start and made[-1].item() == end
    logarithms = graphc.logspace(0, 2, steps, base=2.0, dtype=graphc.float64)
    np.testing.assert_allclose(logarithms.numpy(), np.logspace(0, 2, steps, base=2.0))


def test_linspace_of_integers_and_complex_numbers() -> None:
    assert graphc.linspace(0, 10, 4, dtype=graphc.int64).tolist() == [0, 3, 6, 10]
    z = graphc.linspace(0, 1 + 1j, 3)
    assert z.dtype is graphc.complex64 and z.tolist() == [0, 0.5 + 0.5j, 1 + 1j]
    np.testing.assert_allclose(graphc.logspace(0, 1j, 3).numpy(), 10 ** (np.arange(3) * 0.5j), rtol=1e-6)
    assert graphc.linspace(graphc.tensor(0.0), graphc.tensor(1.0), 3).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("rows, columns, offset", [(3, 3, 0), (2, 4, 1), (4, 2, -1), (0, 3, 0), (3, 3, 5), (3, 3, -5)])
def test_triangles(rows: int, columns: int, offset: int) -> None:
    x = graphc.arange(float(rows * columns)).reshape(rows, columns) + 1
    for cut, indices, of_numpy in ((graphc.tril, graphc.tril_indices, np.tril), (graphc.triu, graphc.triu_indices, np.triu)):
        expected = of_numpy(x.numpy(), offset)
        np.testing.assert_array_equal(cut(x, offset).numpy(), expected)
        places = indices(rows, columns, offset)
        assert places.dtype is graphc.int64 and places.shape[0] == 2
        np.testing.assert_array_equal(np.stack(np.nonzero(expected)), places.numpy())
    assert graphc.eye(rows, columns, dtype=graphc.cfloat).tolist() == np.eye(rows, columns).tolist()


# Devices


def test_devices() -> None:
    d = graphc.device("cuda", 1)
    assert d == graphc.device("cuda:1") and (d.type, d.index, str(d)) == ("cuda", 1, "cuda:1")
    assert repr(d) == "device(type='cuda', index=1)" and graphc.device(type="cpu") == graphc.get_default_device()
    with graphc.device("cpu"):
        assert graphc.ones(1).device.type == "cpu"
    for wrong, words in (("cuda:", "Invalid device string"), ("cuda:-1", "Invalid device string"), ("CPU", "Expected one of")):
        with pytest.raises(RuntimeError, match=words):
            graphc.device(wrong)
    with pytest.raises(RuntimeError, match="must not be negative"):
        graphc.device("cuda", -1)
    with pytest.raises(TypeError, match=r"'index' .* must be int"):
        graphc.device("cuda", "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="invalid combination"):
        graphc.device(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="CUDA"):
        graphc.set_default_device("cuda")
    assert not graphc.cuda.is_available() and graphc.cuda.device_count() == 0 and graphc.cuda.memory_allocated() == 0
    with pytest.raises(RuntimeError, match="CUDA"):
        graphc.cuda.current_device()


def test_fill_is_a_function_that_gradients_flow_through() -> None:
    x = graphc.ones(2, 3, requires_grad=True)
    value = graphc.tensor(2.0, requires_grad=True)
    made = graphc.fill(x, value)
    (made * graphc.arange(6.0).reshape(2, 3)).sum().backward()
    assert made.tolist() == [[2.0] * 3] * 2 and x.grad.tolist() == [[0.0] * 3] * 2 and value.grad.item() == 15
