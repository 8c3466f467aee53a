"""Reductions: values against NumPy, dtypes, empty tensors, ties and nan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphc
from graphc.autograd import gradcheck, gradgradcheck

NAN, INF = float("nan"), float("inf")
NUMBERS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=st.sampled_from([-2.0, 0.0, 0.5, 3.0]))


@given(NUMBERS, st.data(), st.booleans())
def test_reductions_are_numpys(a: np.ndarray, data: st.DataObject, keepdim: bool) -> None:
    dim = data.draw(st.integers(-a.ndim, a.ndim - 1))
    x = graphc.from_numpy(a)
    for ours, theirs in (
        (x.sum, np.sum), (x.mean, np.mean), (x.prod, np.prod), (x.amax, np.max), (x.amin, np.min), (x.all, np.all),
        (x.any, np.any), (x.argmax, np.argmax), (x.argmin, np.argmin),
    ):  # fmt: skip
        np.testing.assert_allclose(ours(dim, keepdim).numpy(), theirs(a, axis=dim, keepdims=keepdim))
    least, largest = x.aminmax(dim=dim, keepdim=keepdim)
    np.testing.assert_array_equal(largest.numpy() - least.numpy(), np.ptp(a, dim, keepdims=keepdim))
    values, indices = x.max(dim)
    np.testing.assert_array_equal(values.numpy(), np.max(a, dim))
    np.testing.assert_array_equal(indices.numpy(), np.argmax(a, dim))


def test_dtypes() -> None:
    small = graphc.tensor([200, 100], dtype=graphc.uint8)
    assert (small.sum().item(), small.prod().item()) == (300, 20000)
    assert graphc.tensor([True, True]).sum().dtype is graphc.int64
    assert graphc.tensor([1.5, 2.5]).sum(dtype=graphc.int32).item() == 3
    assert small.all().dtype is graphc.uint8
    assert graphc.tensor([1, 0]).any().dtype is graphc.bool
    assert graphc.full((4000,), 1.0, dtype=graphc.bfloat16).sum().item() == 4000.0
    assert graphc.tensor([1 + 1j, 2]).sum().item() == 3 + 1j
    assert graphc.tensor([1 + 1j, 2]).prod().item() == 2 + 2j


def test_of_nothing() -> None:
    x = graphc.zeros(0, 2)
    assert x.sum(0).tolist() == [0, 0]
    assert x.prod(0).tolist() == [1, 1]
    assert x.all().item() is True
    assert x.any().item() is False
    assert x.logsumexp(0).tolist() == [-INF, -INF]
    assert x.amax(1).shape == (0,)
    assert x.max(1).values.shape == (0,)
    assert x.mean().isnan()


def test_all_and_any_over_no_dimensions_change_nothing() -> None:
    assert graphc.tensor([[1, 0]]).all(dim=()).tolist() == [[True, False]]
    assert graphc.tensor([[1, 0]]).any(dim=(0, 1)).item() is True


def test_numbers_reduce_to_themselves() -> None:
    x = graphc.tensor(3.0)
    values, indices = x.max(0)
    assert [y.item() for y in (x.sum(0), x.prod(-1), x.amax(0), values, indices)] == [3, 3, 3, 3, 0]
    assert indices.shape == ()


def test_nan_wins() -> None:
    x = graphc.tensor([1.0, NAN, 3.0])
    assert x.max(0).indices.item() == 1
    assert x.argmin().item() == 1
    assert x.amax().isnan()
    assert x.bfloat16().argmax().item() == 1


def test_gradients_of_extremes_are_shared_where_no_index_is_asked_for() -> None:
    x = graphc.tensor([3.0, 1.0, 3.0], requires_grad=True)
    for function, expected in (
        (lambda x: x.max(), [0.5, 0.0, 0.5]), (lambda x: x.amax(0), [0.5, 0.0, 0.5]),
        (lambda x: x.max(0).values, [1.0, 0.0, 0.0]), (lambda x: graphc.max(x, other=x.detach() + 1).sum(), [0.0, 0.0, 0.0]),
    ):  # fmt: skip
        assert graphc.autograd.grad(function(x), x)[0].tolist() == expected


@pytest.mark.parametrize("function", [
    lambda x: x.logsumexp(1), lambda x: x.prod(1), lambda x: x.var(0), lambda x: x.std(), lambda x: x.nanmean(1),
    lambda x: x.sum_to_size(3, 1),
])  # fmt: skip
def test_gradients(function: Any) -> None:
    x = graphc.from_numpy(np.random.default_rng(0).normal(size=(3, 4))).requires_grad_()
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.sum((0, -2)), RuntimeError, "dim 0 appears multiple times"),
    (lambda x: x.prod((0, 1)), TypeError, "must be int"),
    (lambda x: x.amax(3), IndexError, "Dimension out of range"),
    (lambda x: x[:0].amax(), RuntimeError, "Specify the reduction dim with the 'dim' argument"),
    (lambda x: x[:0].argmax(0), IndexError, "Expected reduction dim 0 to have non-zero size"),
    (lambda x: x.bool().argmax(), RuntimeError, "does not support bool input"),
    (lambda x: x.to(graphc.complex64).amax(), RuntimeError, "no order"),
    (lambda x: x.to(graphc.complex64).nansum(), RuntimeError, "complex"),
    (lambda x: x.long().nanmean(), RuntimeError, "floating point or complex"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.ones(2, 3))
