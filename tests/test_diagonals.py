"""Diagonals, strided views, and parts written over: values, shared memory and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.autograd import gradcheck, gradgradcheck


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def watched(a: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(a.copy()).requires_grad_()


@given(st.integers(0, 4), st.integers(0, 4), st.integers(-5, 5))
def test_diagonals_are_numpys(rows: int, columns: int, offset: int) -> None:
    a = np.arange(rows * columns).reshape(rows, columns)
    x = graphc.from_numpy(a)
    np.testing.assert_array_equal(x.diagonal(offset).numpy(), np.diagonal(a, offset))
    np.testing.assert_array_equal(x.diag(offset).numpy(), np.diag(a, offset))
    np.testing.assert_array_equal(x.diagflat(offset).numpy(), np.diagflat(a, offset))
    np.testing.assert_array_equal(graphc.diag(x.reshape(-1), offset).numpy(), np.diag(a.reshape(-1), offset))


def test_diagonals_of_batches() -> None:
    a = array(2, 3, 4)
    x = graphc.from_numpy(a)
    np.testing.assert_array_equal(x.diagonal(-1, 2, 0).numpy(), np.diagonal(a, -1, 2, 0))
    embedded = x.diag_embed(1, 0, -2)
    assert embedded.shape == (5, 2, 5, 3)
    np.testing.assert_array_equal(embedded.diagonal(1, 0, -2).numpy(), a)
    assert embedded.count_nonzero().item() == a.size


def test_a_diagonal_shares_memory() -> None:
    x = graphc.zeros(3, 3)
    x.diagonal().add_(1)
    x.diagonal(1)[0] = 5
    assert x.tolist() == [[1, 5, 0], [0, 1, 0], [0, 0, 1]]
    assert x.diagonal().data_ptr() == x.data_ptr()
    assert x.diag().data_ptr() != x.data_ptr()
    y = graphc.zeros(2, 2, requires_grad=True)
    z = y * 1
    z.diagonal().mul_(0).add_(3)
    (z * z).sum().backward()
    assert y.grad.tolist() == [[0, 0], [0, 0]]
    assert x.fill_diagonal_(7) is x
    assert x.diagonal().tolist() == [7, 7, 7]
    assert graphc.zeros(5, 2).fill_diagonal_(1, wrap=True).tolist() == [[1, 0], [0, 1], [0, 0], [1, 0], [0, 1]]
    assert graphc.zeros(3, 3, 3).fill_diagonal_(2).nonzero().tolist() == [[0] * 3, [1] * 3, [2] * 3]


def test_parts_written_over() -> None:
    x = graphc.zeros(3, 4)
    assert x.select_scatter(graphc.ones(3), 1, -1).tolist() == [[0, 0, 0, 1]] * 3
    assert x.slice_scatter(graphc.ones(3, 2), 1, 0, 4, 2).tolist() == [[1, 0, 1, 0]] * 3
    assert x.diagonal_scatter(graphc.tensor([1.0, 2.0]), -1).tolist() == [[0] * 4, [1, 0, 0, 0], [0, 2, 0, 0]]
    assert x.as_strided_scatter(graphc.ones(2), (2,), (5,), 1).nonzero().tolist() == [[0, 1], [1, 2]]
    assert x.count_nonzero().item() == 0


def test_strided_views_share_memory() -> None:
    x = graphc.arange(6)
    windows = x.as_strided((4, 3), (1, 1))
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    windows[0, 1] = 9
    assert x.tolist() == [0, 9, 2, 3, 4, 5]
    assert x[2:].as_strided((2,), (2,)).tolist() == [2, 4]
    assert x[2:].as_strided((2,), (2,), 0).tolist() == [0, 2]
    assert x.reshape(2, 3).t().as_strided((2, 2), (3, 1), 1).tolist() == [[9, 2], [4, 5]]
    assert x[::2].as_strided((3,), (1,)).tolist() == [0, 9, 2]


@pytest.mark.parametrize("function", [
    lambda x: x.diagonal(-1, 2, 0), lambda x: x[0].diag(1), lambda x: x.diag_embed(), lambda x: x.as_strided((2, 3), (1, 5), 2),
    lambda x: x[1].as_strided((4, 3), (1, 1)), lambda x: x.select_scatter(x[:, 0] * 2, 1, 2),
    lambda x: x.slice_scatter(x[:, :1] * 2, 1, 1, 3, 2), lambda x: x.diagonal_scatter(x.sum((1, 2)).expand(4, 2) ** 2),
])  # fmt: skip
def test_gradients(function: Any) -> None:
    assert gradcheck(function, (watched(array(2, 3, 4)),))
    assert gradgradcheck(function, (watched(array(2, 3, 4)),))


def test_views_compile() -> None:
    def function(x: graphc.Tensor) -> Any:
        return x.diagonal(1) * 2, x.diag_embed()[0], x.as_strided((2, 3), (1, 4), 1) + 1, x.fill_diagonal_(3.0)

    x = graphc.from_numpy(array(4, 4))
    compiled, kept = graphc.compile(function), x.clone()
    expected = [y.clone() for y in function(x.clone())]
    for ours, wanted in zip(compiled(kept), expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), wanted.numpy())
    assert kept.diagonal().tolist() == [3.0] * 4


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.diagonal(0, 1, 1), RuntimeError, "cannot be identical 1, 1"),
    (lambda x: x.diagonal(0, 0, 5), IndexError, "Dimension out of range"),
    (lambda x: x.reshape(1, 2, 3).diag(), RuntimeError, r"Supports 1D or 2D tensors. Got 3D"),
    (lambda x: x.diagonal_scatter(graphc.ones(3)), RuntimeError, r"src size = \[3\], slice size = \[2\]"),
    (lambda x: x.select_scatter(graphc.ones(3), 0, 5), IndexError, "index 5 out of range"),
    (lambda x: x.as_strided((2, 4), (3, 1)), RuntimeError, "out of bounds for storage of size 6"),
    (lambda x: x.as_strided((2,), (1, 1)), RuntimeError, "mismatch in length"),
    (lambda x: x.as_strided((2,), (-1,)), RuntimeError, "Negative strides"),
    (lambda x: x[0].fill_diagonal_(1), RuntimeError, "larger than 1"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.ones(2, 3))
