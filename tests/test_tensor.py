"""Tensors: types, memory, promotion, conversion to and from NumPy and Python."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import DTypeError, GraphcError, ShapeError

DTYPES = [graphc.bool, graphc.uint8, graphc.int8, graphc.int16, graphc.int32, graphc.int64, graphc.float16, graphc.float32,
          graphc.float64]


def test_tensor_of_python_numbers_has_the_default_dtypes() -> None:
    assert graphc.tensor([1, 2]).dtype is graphc.int64
    assert graphc.tensor([1.0, 2]).dtype is graphc.float32
    assert graphc.tensor([True]).dtype is graphc.bool
    assert graphc.tensor([]).dtype is graphc.float32
    assert graphc.tensor(np.float64(1)).dtype is graphc.float64
    assert graphc.tensor([np.float64(1), 2.0]).dtype is graphc.float64
    assert graphc.tensor([[graphc.tensor(1), 2]]).tolist() == [[1, 2]]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (7,), (2, 3, 5)])
def test_memory_is_shared_with_numpy_both_ways(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.float32)
    x = graphc.from_numpy(array)
    assert x.shape == shape and x.numpy() is array
    array += 1
    assert (x == 1).all()
    x.mul_(3)
    assert (array == 3).all()


def test_from_numpy_keeps_strides_and_refuses_foreign_byte_orders() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)[:, ::-1, ::2]
    x = graphc.from_numpy(array)
    np.testing.assert_array_equal(x.numpy(), array)
    assert not x.is_contiguous() and x.contiguous().is_contiguous()
    with pytest.raises(ValueError, match="byte order"):
        graphc.from_numpy(np.zeros(2, ">f4"))
    with pytest.raises(ValueError, match="multiples"):
        graphc.from_numpy(np.zeros(5, np.dtype([("a", "f4"), ("b", "i2")]))["a"])
    with pytest.raises(TypeError, match="ndarray"):
        graphc.from_numpy([1, 2])


def test_tensor_copies() -> None:
    array = np.zeros(3)
    x = graphc.tensor(array)
    array += 1
    assert x.tolist() == [0, 0, 0]


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1], 2], [[[1]], [[1, 2]]]])
def test_ragged_data_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="expected sequence of length"):
        graphc.tensor(data)


def test_data_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="invalid data type"):
        graphc.tensor(["a"])


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion_of_tensors_never_leaks_numpys(a: graphc.DType, b: graphc.DType) -> None:
    """PyTorch's ladder: float over integer over bool, and the wider of one kind (uint8 with int8 is int16)."""
    got = (graphc.ones(2, dtype=a) * graphc.ones(2, dtype=b)).dtype
    assert got is graphc.promote_types(a, b) is graphc.result_type(graphc.ones(1, dtype=a), graphc.ones(1, dtype=b))
    if a.kind != "bool" and b.kind != "bool":
        assert got.kind == ("float" if "float" in (a.kind, b.kind) else got.kind)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number, kind", [(True, 0), (2, 1), (1.5, 2)])
def test_python_numbers_promote_by_kind_only(dtype: graphc.DType, number: float, kind: int) -> None:
    got = (graphc.ones(3, dtype=dtype) * number).dtype
    natural = {0: graphc.bool, 1: graphc.int64, 2: graphc.float32}[kind]
    assert got is (dtype if dtype.category >= kind else natural)
    scalar = graphc.tensor(number, dtype=graphc.float64 if kind == 2 else None)
    with_0d = (graphc.ones(3, dtype=dtype) * scalar).dtype
    assert with_0d is (dtype if dtype.category >= kind else scalar.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_have_the_dtype_of_the_type_rule(dtype: graphc.DType) -> None:
    x = graphc.ones(3, dtype=dtype)
    floating = dtype if dtype.is_floating_point else graphc.float32
    assert x.exp().dtype is floating and x.sqrt().dtype is floating and (x / x).dtype is floating
    assert x.sum().dtype is (dtype if dtype.is_floating_point else graphc.int64)
    assert (x > 0).dtype is graphc.bool
    if dtype.kind != "bool":
        assert x.argmax().dtype is graphc.int64
        for result in (-x, x.abs(), x.sign(), x.relu(), x // x, x % x, x**2, x.max(), x.min()):
            assert result.dtype is dtype


def test_integers_wrap_around() -> None:
    assert (graphc.tensor([255], dtype=graphc.uint8) + 1).tolist() == [0]
    assert (graphc.tensor([1], dtype=graphc.uint8) + 300).tolist() == [45]
    assert (graphc.tensor([1], dtype=graphc.int8) * -129).tolist() == [127]


def test_no_warnings_for_infinities_and_nan(recwarn: pytest.WarningsRecorder) -> None:
    zero = graphc.zeros(2)
    assert (1 / zero).tolist() == [np.inf, np.inf]
    assert (zero / zero).isnan().all() and (-1 - zero).log().isnan().all()
    assert (graphc.full((2,), 1e38) * 10).isinf().all()
    assert graphc.tensor([1e10]).int().numel() == 1
    assert not recwarn.list


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(ShapeError, match=r"tensor a \(3\) must match the size of tensor b \(4\) at non-singleton dimension 1"):
        graphc.ones(2, 3) + graphc.ones(2, 4)


def test_operators_with_foreign_objects_are_type_errors() -> None:
    x = graphc.ones(2)
    for operate in (lambda: x + "a", lambda: None * x, lambda: x < [], lambda: x @ 3):
        with pytest.raises((TypeError, GraphcError)):
            operate()
    assert (x == "a") is False and (x != None) is True  # noqa: E711


def test_arrays_on_either_side_make_tensors() -> None:
    x, a = graphc.ones(2), np.full(2, 2.0)
    for result in (x + a, a + x, x * np.float32(3), np.float32(3) * x):
        assert isinstance(result, graphc.Tensor)


def test_sizes_are_tuples_that_count() -> None:
    size = graphc.zeros(2, 3).shape
    assert size == (2, 3) and size.numel() == 6 and isinstance(size[:1], graphc.Size) and isinstance(size + (1,), graphc.Size)  # noqa: RUF005
    assert repr(size) == "graphc.Size([2, 3])" and pickle.loads(pickle.dumps(size)) == size


def test_one_element_becomes_a_number() -> None:
    assert int(graphc.tensor([[3]])) == 3 and float(graphc.tensor(2.5)) == 2.5 and [10, 20][graphc.tensor(1)] == 20
    with pytest.raises(RuntimeError, match="cannot be converted to Scalar"):
        graphc.ones(2).item()
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(graphc.zeros(0))
    with pytest.raises(TypeError, match="index"):
        [1][graphc.tensor(0.0)]


@pytest.mark.parametrize("convert", [int, float, complex, math.floor])
@pytest.mark.parametrize("several", [graphc.tensor([1, 2]), graphc.zeros(0), graphc.tensor([1j, 2j])],
                         ids=["ints", "none", "complex"])
def test_a_python_number_of_several_elements(convert: Callable[[Any], Any], several: graphc.Tensor) -> None:
    """As in PyTorch a ValueError; `item()` raises a RuntimeError that is none."""
    with pytest.raises(ValueError, match="only one element tensors can be converted to Python scalars"):
        convert(several)
    with pytest.raises(ValueError, match="only one element tensors"):
        graphc.compile(lambda x: x + convert(x))(several)
    with pytest.raises(RuntimeError, match="cannot be converted to Scalar") as error:
        several.item()
    assert not isinstance(error.value, ValueError)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("view", [
    lambda x: x[1:], lambda x: x.t(), lambda x: x.detach(), lambda x: x.detach()[:, ::2], lambda x: x.expand(2, 2, 3),
    lambda x: x.as_strided((2, 2), (2, 1), 1),
], ids=["slice", "transposed", "detached", "detached slice", "expanded", "strided"])
@pytest.mark.parametrize("first", [False, True], ids=["view last", "view first"])
def test_deep_copies_share_memory_as_the_tensors_do(view: Any, first: bool, compiled: bool) -> None:
    def step(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        pair = [x, view(x)]
        one, other = copy.deepcopy(pair[::-1])[::-1] if first else copy.deepcopy(pair)
        one[0].zero_()
        one[1].mul_(3)
        return one.clone(), other.clone()

    x = graphc.arange(1.0, 7).view(2, 3)
    one, other = (graphc.compile(step) if compiled else step)(x)
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert one.tolist() == [[0, 0, 0], [12, 15, 18]]
    assert other.tolist() == view(one).tolist()


def test_deep_copies_of_what_lies_in_the_same_memory() -> None:
    y = graphc.ones(3, requires_grad=True) * 2
    one, other = copy.deepcopy([y.detach(), y.detach()[1:]])  # the tensor that the memory was made for cannot be copied
    other.zero_()
    assert one.tolist() == [2, 0, 0]
    with pytest.raises(GraphcError, match="graph leaves"):
        copy.deepcopy([y.detach(), y])
    x = graphc.ones(3)
    leaf, whole = copy.deepcopy([x.detach().requires_grad_(), x])
    (leaf * whole).sum().backward()
    assert (leaf.is_leaf, leaf.requires_grad, whole.requires_grad, leaf.grad.tolist()) == (True, True, False, [1] * 3)
    weight = graphc.nn.Parameter(graphc.ones(3))
    own, rest, part = copy.deepcopy([weight, weight.detach(), weight.detach()[1:]])  # a parameter's copy is by itself
    rest.zero_()
    assert (own.tolist(), part.tolist()) == ([1] * 3, [0] * 2)
    assert isinstance(own, graphc.nn.Parameter) and not isinstance(rest, graphc.nn.Parameter)


def test_copies_and_pickles() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other is not x and other.tolist() == [1, 2] and other.requires_grad and other.data_ptr() != x.data_ptr()
    assert copy.deepcopy(x).grad.tolist() == [2, 4]
    layer = graphc.nn.Linear(2, 1)
    again = pickle.loads(pickle.dumps(layer))
    assert isinstance(again.weight, graphc.nn.Parameter) and again.weight.tolist() == layer.weight.tolist()
    with pytest.raises(RuntimeError, match="leaves"):
        copy.deepcopy(x * 2)


def test_attributes_of_ones_own() -> None:
    x = graphc.ones(1)
    x.note = "mine"
    assert x.note == "mine"
    with pytest.raises(AttributeError, match="nothing"):
        graphc.ones(1).nothing  # noqa: B018


def test_casts_truncate_and_test_for_zero() -> None:
    x = graphc.tensor([-1.9, 0.0, 0.4, 2.9])
    assert x.int().tolist() == [-1, 0, 0, 2] and x.bool().tolist() == [True, False, True, True]
    assert x.float() is x and x.to(graphc.float32) is x and x.to(graphc.float32, copy=True) is not x
    assert x.to(graphc.ones(1, dtype=graphc.float64)).dtype is graphc.float64


def test_devices() -> None:
    assert graphc.device("cuda", 1) == graphc.device("cuda:1") != graphc.device("cuda:0")
    assert graphc.device(graphc.device("cpu")) == graphc.device("cpu")
    for bad in ("gpu", "cuda:x", "cuda:", "cpu:0:1", ""):
        with pytest.raises(RuntimeError, match="device"):
            graphc.device(bad)
    with pytest.raises(RuntimeError, match="is_available"):
        graphc.ones(2).cuda()


def test_out_arguments() -> None:
    x, out = graphc.ones(3), graphc.empty(3)
    assert graphc.add(x, 1, out=out) is out and out.tolist() == [2, 2, 2]
    assert graphc.add(x, 1, out=graphc.empty(0)).shape == (3,)
    with pytest.raises(DTypeError, match="can't be cast"):
        graphc.add(x, 1, out=graphc.empty(3, dtype=graphc.int32))
    values, indices = graphc.empty(0), graphc.empty(0, dtype=graphc.int64)
    graphc.max(graphc.tensor([[1.0, 3.0]]), 1, out=(values, indices))
    assert values.tolist() == [3] and indices.tolist() == [1]


def test_functions_refuse_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"exp\(\): argument 'input' .* must be Tensor, not int"):
        graphc.exp(1)
    with pytest.raises(TypeError, match="maximum"):
        graphc.maximum(graphc.ones(1), 2)
    assert graphc.pow(2, graphc.tensor([3.0])).tolist() == [8] and graphc.sub(1, other=graphc.ones(1)).tolist() == [0]


def test_names_that_do_not_exist_say_where_to_look() -> None:
    with pytest.raises(AttributeError, match=r"Tensor\.add_"):
        graphc.add_  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        graphc.nonsense  # noqa: B018


def test_python_functions_of_elements() -> None:
    x = graphc.arange(4.0).view(2, 2)
    version = x._version
    assert x.apply_(lambda v: v * v) is x and x.tolist() == [[0.0, 1.0], [4.0, 9.0]] and x._version > version
    assert x.map_(graphc.tensor([1.0, 2.0]), lambda a, b: a - b).tolist() == [[-1.0, -1.0], [3.0, 7.0]]
    with pytest.raises(RuntimeError, match="leaf"):
        graphc.ones(2, requires_grad=True).apply_(abs)


def test_resizing() -> None:
    x = graphc.arange(6)
    assert x.resize_(2, 2) is x and x.tolist() == [[0, 1], [2, 3]]
    assert x.resize_((5,)).shape == (5,) and x[:4].tolist() == [0, 1, 2, 3] and x.resize_(0).numel() == 0
    with pytest.raises(RuntimeError, match="require grad"):
        graphc.ones(2, requires_grad=True).resize_(1)
