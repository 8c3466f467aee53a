"""Sorting, searching and equal elements, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphc
from graphc.autograd import gradcheck

NAN, INF = float("nan"), float("inf")
SMALL = st.integers(-3, 3)


def tensors(dtype: Any = np.int64, least: int = 0) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(dtype, hnp.array_shapes(max_dims=3, min_side=least, max_side=5), elements=SMALL)


@given(tensors(), st.data())
def test_sort_is_stable_both_ways(a: np.ndarray, data: st.DataObject) -> None:
    dim = data.draw(st.integers(-a.ndim, a.ndim - 1))
    x = graphc.from_numpy(a)
    values, indices = x.sort(dim)
    np.testing.assert_array_equal(indices.numpy(), np.argsort(a, dim, kind="stable"))
    np.testing.assert_array_equal(values.numpy(), np.sort(a, dim))
    np.testing.assert_array_equal(x.argsort(dim, descending=True).numpy(), np.argsort(-a, dim, kind="stable"))


MANY = {
    "float32": np.array([0.0, -0.0, 1.5, -1.5, NAN, -NAN, INF, -INF, 1e-45, -1e-45, 3e38], np.float32),
    "float16": np.array([0.0, -0.0, 1.5, NAN, INF, -INF, 6e-8], np.float16),
    "float64": np.array([0.0, -0.0, 1.5, NAN, INF, -INF, 5e-324]),
    "int64": np.array([-(2**63), 2**63 - 1, 0, -1, 1]),
    "small int64": np.arange(-3, 4),
    "uint64": np.array([0, 2**64 - 1, 2**63, 1], np.uint64),
    "uint8": np.arange(250, 256, dtype=np.uint8),
    "int8": np.array([-128, 127, 0, 5], np.int8),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("kind", [*MANY, "distinct float64", "distinct int64", "distinct uint64"])
@pytest.mark.parametrize("shape", [(1500,), (30, 41), (2, 700, 3), (600, 1), (600, 2)])
def test_many_elements_are_in_stable_order(kind: str, shape: tuple[int, ...]) -> None:
    """They are packed with their places, or looked at for equals; NumPy's own stable sort says what is right."""
    rng = np.random.default_rng(0)
    if kind in MANY:
        a = rng.choice(MANY[kind], shape)
    else:
        a = rng.permutation(int(np.prod(shape))).reshape(shape).astype(kind.split()[1]) * 3**35
        a[a == 0] = {"f": np.nan, "i": -7, "u": 2**64 - 1}[a.dtype.kind]
    x = graphc.from_numpy(a)
    for dim in range(a.ndim):
        expected = np.argsort(a, dim, kind="stable")
        backwards = a.shape[dim] - 1 - np.flip(np.argsort(np.flip(a, dim), dim, kind="stable"), dim)
        np.testing.assert_array_equal(x.argsort(dim).numpy(), expected)
        np.testing.assert_array_equal(x.argsort(dim, descending=True).numpy(), backwards)
        for k in (0, 1, a.shape[dim] // 2, a.shape[dim]):
            np.testing.assert_array_equal(x.topk(k, dim, largest=False).indices.numpy(), np.take(expected, range(k), dim))
            np.testing.assert_array_equal(x.topk(k, dim).indices.numpy(), np.take(backwards, range(k), dim))


def test_topk_compiled_is_that_of_eager_code_and_has_a_gradient() -> None:
    def f(x: Any) -> Any:
        values, indices = x.topk(2, 1)
        return values.sum() * indices.sum()

    x = graphc.tensor([[3.0, 1.0, 2.0], [5.0, 9.0, 7.0]], requires_grad=True)
    compiled = graphc.compile(f)
    assert compiled(x).item() == f(x).item() == 21 * 5
    assert graphc.autograd.grad(compiled(x), x)[0].tolist() == [[5, 0, 5], [0, 5, 5]]
    with pytest.raises(RuntimeError, match="out of range"):
        x.topk(4, 1)


def test_nan_is_the_largest_number() -> None:
    x = graphc.tensor([NAN, 1.0, INF, NAN, -INF])
    assert x.argsort().tolist() == [4, 1, 2, 0, 3]
    assert x.argsort(descending=True).tolist() == [0, 3, 2, 1, 4]
    assert x.bfloat16().argsort(descending=True).tolist() == [0, 3, 2, 1, 4]
    assert x.topk(3).indices.tolist() == [0, 3, 2]
    assert x.kthvalue(3).values.item() == INF


def test_numbers_are_sorted_as_vectors_of_one() -> None:
    x = graphc.tensor(3.0)
    for found in (x.sort(), x.topk(1), x.kthvalue(1), x.mode(), x.median(0)):
        assert found.values.item() == 3.0
        assert found.indices.item() == 0
        assert found.indices.shape == ()


def test_topk_and_kthvalue() -> None:
    x = graphc.tensor([[3, 1, 2], [5, 6, 4]])
    assert x.topk(2).values.tolist() == [[3, 2], [6, 5]]
    assert x.topk(1, 0, largest=False).indices.tolist() == [[0, 0, 0]]
    assert x.topk(0).values.shape == (2, 0)
    assert x.kthvalue(2).indices.tolist() == [2, 0]
    assert x.kthvalue(1, 0, keepdim=True).values.tolist() == [[3, 1, 2]]


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.topk(4), RuntimeError, "selected index k out of range"),
    (lambda x: x.kthvalue(0), RuntimeError, r"selected number k out of range for dimension 1"),
    (lambda x: x[:, :0].kthvalue(1), IndexError, "Expected reduction dim 1 to have non-zero size"),
    (lambda x: x.sort(2), IndexError, "Dimension out of range"),
    (lambda x: x.to(graphc.complex64).sort(), RuntimeError, "complex"),
    (lambda x: graphc.searchsorted(x[0], x[0], side="left", right=True), RuntimeError, "opposites"),
    (lambda x: graphc.searchsorted(x, x[0]), RuntimeError, "first N-1 dimensions"),
    (lambda x: graphc.searchsorted(x[0], x[0], sorter=x[0]), RuntimeError, "sorter must be a tensor of long dtype"),
    (lambda x: graphc.bucketize(x, x), RuntimeError, "boundaries tensor must be 1 dimension"),
    (lambda x: graphc.isin(1, 2), TypeError, "must be Tensor"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("function", [
    lambda x: x.sort(0).values, lambda x: x.topk(2, 1, largest=False).values, lambda x: x.kthvalue(2, 1).values, graphc.msort,
])  # fmt: skip
def test_gradients_go_where_elements_came_from(function: Any) -> None:
    x = graphc.from_numpy(np.random.default_rng(0).permutation(12.0 * np.arange(12)).reshape(3, 4)).requires_grad_()
    assert gradcheck(function, (x,))


def test_sorting_compiles() -> None:
    x = graphc.randn(5, 7)
    compiled = graphc.compile(lambda x: (x.sort(0, descending=True).values * 2, x.topk(3).indices))
    for _ in range(2):
        values, indices = compiled(x)
        np.testing.assert_array_equal(values.numpy(), -np.sort(-x.numpy(), 0) * 2)
        np.testing.assert_array_equal(indices.numpy(), np.argsort(-x.numpy(), 1)[:, :3])


def test_out_takes_both_results() -> None:
    values, indices = graphc.empty(3), graphc.empty(3, dtype=graphc.int64)
    graphc.sort(graphc.tensor([2.0, 3.0, 1.0]), out=(values, indices))
    assert (values.tolist(), indices.tolist()) == ([1.0, 2.0, 3.0], [2, 0, 1])


# Searching


@given(hnp.arrays(np.float64, st.integers(0, 6), elements=SMALL), tensors(np.float64), st.booleans())
def test_searchsorted_is_numpys(sequence: np.ndarray, values: np.ndarray, right: bool) -> None:
    sequence = np.sort(sequence)
    expected = np.searchsorted(sequence, values, "right" if right else "left")
    s, v = graphc.from_numpy(sequence), graphc.from_numpy(values)
    np.testing.assert_array_equal(graphc.searchsorted(s, v, right=right).numpy(), expected)
    np.testing.assert_array_equal(graphc.bucketize(v, s, right=right).numpy(), expected)


def test_searchsorted_takes_a_sequence_for_each_row() -> None:
    rows = graphc.tensor([[1, 3, 5], [2, 4, 6]])
    assert graphc.searchsorted(rows, graphc.tensor([[3, 6], [3, 6]])).tolist() == [[1, 3], [1, 2]]
    unsorted = graphc.tensor([5, 1, 3])
    found = graphc.searchsorted(unsorted, 4.5, sorter=unsorted.argsort(), out_int32=True)
    assert (found.item(), found.dtype) == (2, graphc.int32)


@given(tensors(), tensors(), st.booleans())
def test_isin_is_numpys(elements: np.ndarray, among: np.ndarray, invert: bool) -> None:
    found = graphc.isin(graphc.from_numpy(elements), graphc.from_numpy(among), invert=invert)
    np.testing.assert_array_equal(found.numpy(), np.isin(elements, among, invert=invert))


def test_nan_is_in_nothing() -> None:
    assert graphc.isin(graphc.tensor([NAN, 1.0]), graphc.tensor([NAN, 1.0])).tolist() == [False, True]


# Equal elements


@given(tensors())
def test_unique_puts_the_input_together_again(a: np.ndarray) -> None:
    values, inverse, counts = graphc.unique(graphc.from_numpy(a), return_inverse=True, return_counts=True)
    expected, expected_counts = np.unique(a, return_counts=True)
    np.testing.assert_array_equal(values.numpy(), expected)
    np.testing.assert_array_equal(counts.numpy(), expected_counts)
    np.testing.assert_array_equal(values[inverse].numpy(), a)


@given(tensors(least=1), st.data())
def test_unique_slices(a: np.ndarray, data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, a.ndim - 1))
    values, inverse, counts = graphc.from_numpy(a).unique(dim=dim, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(values.numpy(), np.unique(a, axis=dim))
    np.testing.assert_array_equal(values.index_select(dim, inverse).numpy(), a)
    assert counts.sum().item() == a.shape[dim]


def test_unique_consecutive() -> None:
    x = graphc.tensor([[1, 1], [2, 1]])
    values, inverse, counts = graphc.unique_consecutive(x, return_inverse=True, return_counts=True)
    assert (values.tolist(), inverse.tolist(), counts.tolist()) == ([1, 2, 1], [[0, 0], [1, 2]], [2, 1, 1])
    rows = graphc.tensor([[1, 2], [1, 2], [0, 0], [1, 2]])
    assert rows.unique_consecutive(dim=0).tolist() == [[1, 2], [0, 0], [1, 2]]
    assert graphc.tensor([NAN, NAN]).unique().isnan().tolist() == [True, True]


def test_unique_of_nothing() -> None:
    assert [x.shape for x in graphc.unique(graphc.zeros(0, 3), dim=0, return_inverse=True)] == [(0, 3), (0,)]
    with pytest.raises(RuntimeError, match="0 sized dimensions"):
        graphc.unique(graphc.zeros(0, 3), dim=1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("numbers", ["different", "few", "not all numbers", "one"])
def test_the_first_of_many_are_those_of_the_whole_order(dtype: str, numbers: str) -> None:
    rng = np.random.default_rng(3)
    for shape in [(1000,), (7, 300), (3, 90, 100)]:
        x = rng.standard_normal(shape) * 50
        if numbers == "few":
            x = np.round(x / 30)
        elif numbers == "one":
            x = np.zeros(shape)
        elif numbers == "not all numbers" and dtype.startswith("float"):
            x = np.where(rng.random(shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0], shape), x)
        x = np.abs(x).astype(dtype) if dtype in ("uint8", "bool") else x.astype(dtype)
        for dim, most, largest in itertools.product(range(len(shape)), (1, 5, 30), (True, False)):
            count = min(most, shape[dim])
            order = np.argsort(np.flip(x, dim) if largest else x, dim, kind="stable")
            order = shape[dim] - 1 - np.flip(order, dim) if largest else order
            first = np.take(order, np.arange(count), dim)
            values, places = graphc.from_numpy(x).topk(count, dim, largest)
            np.testing.assert_array_equal(places.numpy(), first)
            np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, first, dim))
