"""Products of a matrix and a vector, and by a few rows: the matrix is read once, in the order in which it stands in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def whole_numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


def compiled(function: Callable[..., graphc.Tensor], *arrays: np.ndarray) -> np.ndarray:
    """The result, which is the same bits for one thread and for two."""
    before = graphc.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            graphc.set_num_threads(threads)
            results.append(graphc.compile(function)(*map(graphc.tensor, arrays)).numpy())
    finally:
        graphc.set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes()
    return results[0]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("k", "n"), [(512, 300), (513, 301), (3000, 70), (20000, 16), (16, 5000), (8, 2000), (3000, 5)])
def test_both_orders_of_the_matrix_on_both_sides(rows: int, k: int, n: int) -> None:
    x, w, b = numbers(rows, k), numbers(n, k), numbers(n)
    want = np.maximum(x.astype(np.float64) @ w.T + b, 0)
    wt, xt = np.ascontiguousarray(w.T), np.ascontiguousarray(x.T)
    for got in (
        compiled(lambda x, w, b: graphc.relu(x @ w.t() + b), x, w, b),
        compiled(lambda x, w, b: graphc.relu(x @ w + b), x, wt, b),
        compiled(lambda w, x, b: graphc.relu(w @ x + b[:, None]), w, xt, b).T,
        compiled(lambda w, x, b: graphc.relu(w.t() @ x + b[:, None]), wt, xt, b).T,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=5e-3)


def test_a_matrix_by_a_vector() -> None:
    w, v, u = numbers(700, 900), numbers(900), numbers(700)
    np.testing.assert_allclose(compiled(lambda w, v: w @ v, w, v), w.astype(np.float64) @ v, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(compiled(lambda w, u: u @ w, w, u), u.astype(np.float64) @ w, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(compiled(lambda w, u: w.t() @ u, w, u), u.astype(np.float64) @ w, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [3, 100])
def test_vectors_that_do_not_stand_as_the_matrix_does(n: int) -> None:
    """They are put in its order first."""
    image, w = whole_numbers(1, 7, 7, 64), whole_numbers(n, 64 * 49)
    flat = image.transpose(0, 3, 1, 2).reshape(1, -1)
    got = compiled(lambda x, w: x.permute(0, 3, 1, 2).flatten(1) @ w.t(), image, w)
    np.testing.assert_array_equal(got, flat @ w.T)
    got = compiled(lambda x, w: w @ (2 * x + 1).permute(0, 3, 1, 2).flatten(), image, w)
    np.testing.assert_array_equal(got, (w @ (2 * flat.T + 1))[:, 0])
    got = compiled(lambda x, w: graphc.relu(x) @ w, flat, np.ascontiguousarray(w.T))
    np.testing.assert_array_equal(got, np.maximum(flat, 0) @ w.T)


def test_batches_of_vectors_that_do_not_stand_as_the_matrices_do() -> None:
    x, w = whole_numbers(3, 300), whole_numbers(3, 70, 300)
    want = np.einsum("bk,bnk->bn", x[:, ::-1], w)
    got = compiled(lambda x, w: graphc.einsum("bk,bnk->bn", x.flip(1), w), x, w)
    np.testing.assert_array_equal(got, want)
    turned = np.ascontiguousarray(w.swapaxes(1, 2))
    got = compiled(lambda x, w: graphc.einsum("bk,bkn->bn", x.flip(1), w), x, turned)
    np.testing.assert_array_equal(got, want)


def test_a_long_dot_product() -> None:
    v = numbers(300_007)
    np.testing.assert_allclose(compiled(lambda a, b: a @ b, v, v), v.astype(np.float64) @ v, rtol=1e-5)


def test_batches() -> None:
    q, k, p = numbers(2, 3, 1, 64), numbers(2, 3, 200, 64), numbers(2, 3, 1, 200)
    np.testing.assert_allclose(compiled(lambda q, k: q @ k.transpose(-1, -2), q, k), q @ k.swapaxes(-1, -2), atol=1e-4)
    np.testing.assert_allclose(compiled(lambda p, k: p @ k, p, k), p @ k, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_dtypes(dtype: type) -> None:
    x, w = (numbers(2, 300) * 4).astype(dtype), (numbers(100, 300) * 4).astype(dtype)
    got = compiled(lambda x, w: x @ w.t(), x, w)
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype(np.float64), x.astype(np.float64) @ w.T.astype(np.float64), rtol=2e-3, atol=0.5)
