"""Medians, quantiles, counts, histograms, covariances and variances, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphc
from graphc.autograd import gradcheck

NAN, INF = float("nan"), float("inf")


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def watched(a: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(a.copy()).requires_grad_()


# Order statistics


def test_the_median_is_the_lower_one_in_the_middle() -> None:
    assert graphc.tensor([4, 1, 3, 2]).median().item() == 2
    values, indices = graphc.tensor([[4.0, 1.0, 3.0], [0.0, 5.0, 9.0]]).median(1, keepdim=True)
    assert (values.tolist(), indices.tolist()) == ([[3.0], [5.0]], [[2], [1]])
    assert np.isnan(graphc.tensor([]).median().item())


def test_medians_and_nan() -> None:
    x = graphc.tensor([[1.0, NAN, 3.0, NAN], [4.0, 2.0, 3.0, 1.0]])
    assert x.median(1).indices.tolist() == [1, 1]
    assert x.nanmedian(1).values.tolist() == [1.0, 2.0]
    assert np.isnan(x.median().item())
    assert x.nanmedian().item() == 2.0
    assert graphc.tensor([NAN, NAN]).nanmedian(0).indices.item() == 0


def test_the_gradient_of_a_median_is_shared_by_equals() -> None:
    x = graphc.tensor([1.0, 2.0, 2.0, 3.0], requires_grad=True)
    x.median().backward()
    assert x.grad.tolist() == [0.0, 0.5, 0.5, 0.0]
    x.grad = None
    x.median(0).values.backward()
    assert x.grad.sum().item() == 1.0


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(0, 3)))
def test_the_mode_is_the_least_of_the_most_frequent(a: np.ndarray) -> None:
    values, indices = graphc.from_numpy(a).mode()
    for row, value, index in zip(a.reshape(-1, a.shape[-1]), values.reshape(-1).tolist(), indices.reshape(-1).tolist()):
        numbers, counts = np.unique(row, return_counts=True)
        assert value == numbers[counts.argmax()]
        assert index == np.flatnonzero(row == value)[-1]


@pytest.mark.parametrize("how", ["linear", "lower", "higher", "midpoint", "nearest"])
@pytest.mark.parametrize("dim", [None, 0, -1])
def test_quantiles_are_numpys(how: Any, dim: int | None) -> None:
    a, q = array(5, 4), np.array([0.0, 0.3, 0.5, 1.0])
    x = graphc.from_numpy(a)
    for keepdim in (False, True):
        ours = x.quantile(graphc.from_numpy(q), dim, keepdim, interpolation=how)
        np.testing.assert_allclose(ours.numpy(), np.quantile(a, q, dim, method=how, keepdims=keepdim))
        np.testing.assert_allclose(x.quantile(0.3, dim, keepdim, interpolation=how).numpy(),
                                   np.quantile(a, 0.3, dim, method=how, keepdims=keepdim))


def test_quantiles_and_nan() -> None:
    a = array(4, 6)
    a[1, 2] = a[1, 4] = a[2] = NAN
    x = graphc.from_numpy(a)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(x.quantile(0.4, 1).numpy(), np.quantile(a, 0.4, 1))
    assert x.nanquantile(0.4, 1)[2].isnan()
    np.testing.assert_allclose(x.nanquantile(0.4, 1)[[0, 1, 3]].numpy(), np.nanquantile(a[[0, 1, 3]], 0.4, 1))


def test_quantiles_have_gradients_by_elements_and_by_the_quantile() -> None:
    assert gradcheck(lambda x, q: x.quantile(q, 0), (watched(array(7, 2)), watched(np.array([0.21, 0.77]))))
    assert gradcheck(lambda x: x.nanquantile(0.4), (watched(array(7)),))


def test_order_statistics_compile() -> None:
    x = graphc.from_numpy(array(5, 6))
    compiled = graphc.compile(lambda x: (x.median(1).values, x.round().mode(0).values, x.quantile(0.3, 1)))
    for _ in range(2):
        for ours, expected in zip(compiled(x), (x.median(1).values, x.round().mode(0).values, x.quantile(0.3, 1)), strict=True):
            np.testing.assert_allclose(ours.numpy(), expected.numpy())


# Counting


def test_bincount() -> None:
    x = graphc.tensor([1, 1, 3])
    assert x.bincount(minlength=6).tolist() == [0, 2, 0, 1, 0, 0]
    assert x.bincount(graphc.tensor([1, 2, 4])).dtype is graphc.float64
    assert x.bincount(graphc.tensor([0.5, 1.0, 4.0])).tolist() == [0.0, 1.5, 0.0, 4.0]
    assert graphc.tensor([], dtype=graphc.int64).bincount().tolist() == []


def test_histc() -> None:
    x = graphc.tensor([0.0, 1.0, 2.0, 2.0, 7.0, NAN])
    assert x.histc(2, 0, 2).tolist() == [1.0, 3.0]
    assert x[:4].histc(2).tolist() == [1.0, 3.0]
    assert graphc.tensor([2.0, 2.0]).histc(3).tolist() == [0.0, 2.0, 0.0]
    assert graphc.tensor([]).histc(2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("density", [False, True])
def test_histograms_are_numpys(density: bool) -> None:
    a, w = array(200), np.random.default_rng(1).uniform(size=200)
    x, weight = graphc.from_numpy(a), graphc.from_numpy(w)
    for bins, limits in ((7, None), (5, (-1.0, 2.0))):
        hist, edges = x.histogram(bins, range=limits, weight=weight, density=density)
        expected = np.histogram(a, bins, limits, density, w)
        np.testing.assert_allclose(hist.numpy(), expected[0])
        np.testing.assert_allclose(edges.numpy(), expected[1])
    edges = np.array([-1.0, 0.0, 0.1, 3.0])
    np.testing.assert_allclose(x.histogram(graphc.from_numpy(edges), density=density).hist.numpy(),
                               np.histogram(a, edges, density=density)[0])


def test_histograms_of_points_are_numpys() -> None:
    a = array(300, 2)
    x = graphc.from_numpy(a)
    hist, edges = graphc.histogramdd(x, [3, 4], density=True)
    expected, expected_edges = np.histogramdd(a, [3, 4], density=True)
    np.testing.assert_allclose(hist.numpy(), expected)
    for ours, theirs in zip(edges, expected_edges, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs)
    assert graphc.histogramdd(x.reshape(3, 100, 2), 5, range=[-1.0, 1.0, 0.0, 2.0]).hist.shape == (5, 5)


# Moments


@pytest.mark.parametrize("correction", [0, 1, 2])
@pytest.mark.parametrize("dim", [None, 1, (0, 2)])
def test_variances_are_numpys(correction: int, dim: Any) -> None:
    a = array(3, 4, 5)
    x = graphc.from_numpy(a)
    np.testing.assert_allclose(x.var(dim, correction=correction).numpy(), np.var(a, dim, ddof=correction))
    np.testing.assert_allclose(x.std(dim, correction=correction, keepdim=True).numpy(),
                               np.std(a, dim, ddof=correction, keepdims=True))
    deviation, mean = graphc.std_mean(x, dim, correction=correction)
    np.testing.assert_allclose(deviation.numpy(), np.std(a, dim, ddof=correction))
    np.testing.assert_allclose(mean.numpy(), np.mean(a, dim))


def test_complex_moments() -> None:
    a = array(4, 5) + 1j * array(4, 5, seed=1)
    z = graphc.from_numpy(a)
    np.testing.assert_allclose(z.var(0).numpy(), np.var(a, 0, ddof=1))
    np.testing.assert_allclose(z.mean(1).numpy(), np.mean(a, 1))
    np.testing.assert_allclose(z.cov().numpy(), np.cov(a))
    np.testing.assert_allclose(z.logsumexp(1).numpy(), np.log(np.exp(a).sum(1)))


def test_constant_numbers_have_a_deviation_without_slope() -> None:
    x = graphc.ones(4, requires_grad=True)
    x.std().backward()
    assert x.grad.tolist() == [0.0] * 4


def test_covariances_are_numpys() -> None:
    a, frequencies, weights = array(3, 6), np.array([1, 2, 0, 3, 1, 1]), np.array([0.5, 1.0, 2.0, 0.1, 1.0, 3.0])
    x, f, w = map(graphc.from_numpy, (a, frequencies, weights))
    np.testing.assert_allclose(x.cov().numpy(), np.cov(a))
    np.testing.assert_allclose(x.cov(correction=0, fweights=f).numpy(), np.cov(a, ddof=0, fweights=frequencies))
    np.testing.assert_allclose(x.cov(fweights=f, aweights=w).numpy(), np.cov(a, fweights=frequencies, aweights=weights))
    np.testing.assert_allclose(x.corrcoef().numpy(), np.corrcoef(a))
    assert x[0].cov().shape == ()
    assert gradcheck(lambda x: x.corrcoef(), (watched(a),))
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert graphc.tensor([1.0]).cov().isnan()


def test_sums_without_nan() -> None:
    x = graphc.tensor([[1.0, NAN, 3.0], [NAN, NAN, NAN]])
    assert x.nansum(1).tolist() == [4.0, 0.0]
    assert x.nanmean(1)[0].item() == 2.0
    assert x.nanmean(1)[1].isnan()
    assert x.count_nonzero(0).tolist() == [2, 2, 2]


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.median(2), IndexError, "Dimension out of range"),
    (lambda x: x[:, :0].mode(), IndexError, "Expected reduction dim 1 to have non-zero size"),
    (lambda x: x.quantile(1.5), RuntimeError, r"range \[0, 1\]"),
    (lambda x: x.quantile(graphc.tensor([0.5, -1.0])), RuntimeError, r"range \[0, 1\]"),
    (lambda x: x.quantile(0.5, interpolation="best"), RuntimeError, "interpolation must be one of"),
    (lambda x: x.long().quantile(0.5), RuntimeError, "float or double"),
    (lambda x: x.double().quantile(graphc.tensor(0.5)), RuntimeError, "same dtype"),
    (lambda x: x.bincount(), RuntimeError, "not implemented"),
    (lambda x: x.long().bincount(), RuntimeError, "1-d non-negative integral"),
    (lambda x: x.histc(0), RuntimeError, "bins must be > 0"),
    (lambda x: x.histc(2, 3, 1), RuntimeError, "max must be larger than min"),
    (lambda x: (x / 0).histc(2), RuntimeError, "is not finite"),
    (lambda x: x.histogram(x[0].double()), RuntimeError, "same dtype"),
    (lambda x: x.histogram(2, weight=x[0]), RuntimeError, "same shape as the input"),
    (lambda x: graphc.histogramdd(x, [1, 2]), RuntimeError, "size of bins"),
    (lambda x: x.reshape(2, 1, 3).cov(), RuntimeError, "two or fewer dimensions"),
    (lambda x: x.cov(fweights=graphc.tensor([1, -1, 1])), RuntimeError, "cannot be negative"),
    (lambda x: x.cov(aweights=graphc.tensor([1.0])), RuntimeError, "same numel"),
    (lambda x: x.long().var(), RuntimeError, "floating point and complex"),
    (lambda x: x.long().mean(), RuntimeError, "could not infer output dtype"),
    (lambda x: x[:0].max(0), IndexError, r"max\(\): Expected reduction dim 0 to have non-zero size"),
    (lambda x: x[:0].aminmax(), RuntimeError, "no identity"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.arange(6.0).reshape(2, 3))


def test_numpys_names_of_dimensions() -> None:
    x = graphc.arange(6.0).reshape(2, 3)
    assert x.max(axis=1, keepdims=True).indices.tolist() == [[2], [2]]
    assert graphc.argmax(x, axis=0).tolist() == [1, 1, 1]
    assert graphc.stack([x, x], axis=2).shape == (2, 3, 2)
    with pytest.raises(TypeError):
        x.flatten(axis=0)
