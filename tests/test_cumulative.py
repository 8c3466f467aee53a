"""Running sums, products and extremes, differences, areas and slopes, against NumPy and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphc
from graphc.autograd import gradcheck, gradgradcheck
from graphc.config import override

NAN, INF = float("nan"), float("inf")
SHAPE = (3, 4, 2)


def array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE)


def watched(a: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(a.copy()).requires_grad_()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sums_and_products(dim: int) -> None:
    a = array()
    x = graphc.from_numpy(a)
    np.testing.assert_allclose(x.cumsum(dim).numpy(), np.cumsum(a, dim))
    np.testing.assert_allclose(x.cumprod(dim).numpy(), np.cumprod(a, dim))
    np.testing.assert_allclose(x.logcumsumexp(dim).numpy(), np.log(np.cumsum(np.exp(a), dim)))


def test_dtypes_of_sums() -> None:
    assert graphc.tensor([True, True]).cumsum(0).tolist() == [1, 2]
    assert graphc.tensor([1, 2], dtype=graphc.int8).cumsum(0).dtype is graphc.int64
    assert graphc.tensor([1.5, 2.0]).cumsum(0, dtype=graphc.int32).tolist() == [1, 3]
    assert graphc.tensor(2.0).cumprod(0).item() == 2.0
    x = graphc.tensor([1, 2, 3], dtype=graphc.int16)
    assert x.cumsum_(0) is x
    assert (x.tolist(), x.dtype) == ([1, 3, 6], graphc.int16)


def test_half_precision_is_added_up_in_single() -> None:
    x = graphc.full((4000,), 1.0, dtype=graphc.bfloat16)
    assert x.cumsum(0)[-1].item() == 4000.0


RUNNING = {
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cummax": lambda x, dim: tuple(x.cummax(dim)),
    "cummin": lambda x, dim: tuple(x.cummin(dim)),
    "cumprod": lambda x, dim: (x / 3 if x.is_floating_point() else x).cumprod(dim),
    "logcumsumexp": lambda x, dim: x.logcumsumexp(dim) if x.is_floating_point() else x.float().logcumsumexp(dim),
    "of functions": lambda x, dim: ((x.float() / 9).sin().cumprod(dim) + 2).log() * x.float().cos().cumsum(dim),
    "fused": lambda x, dim: (x.exp() if x.is_floating_point() else x + 1).cumsum(dim).float() * 2 - x,
    "twice": lambda x, dim: x.cumsum(dim).cumsum(0),
    "transposed": lambda x, dim: x.t().cumsum(dim).t() if x.ndim == 2 else x.cumsum(dim),
}


def close(found: Any, expected: Any, dtype: Any) -> None:
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
        assert a.dtype is b.dtype
        tolerance = 2e-2 if dtype in (graphc.bfloat16, graphc.float16) else 1e-4
        np.testing.assert_allclose(a.double().numpy(), b.double().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.bfloat16, graphc.int64])
def test_running_kernels_give_what_numpy_gives(name: str, dtype: Any) -> None:
    graphc.manual_seed(0)
    for shape in [(7,), (0, 3), (33, 65), (2, 3, 17)]:
        x = (graphc.randn(shape) * 3).to(dtype) if dtype.is_floating_point else graphc.randint(0, 9, shape).to(dtype)
        if dtype.is_floating_point and x.numel() > 20:
            x[..., x.shape[-1] // 2] = NAN
        for dim in range(len(shape)):
            with override(backend="reference"):
                expected = graphc.compile(RUNNING[name])(x, dim)
            close(graphc.compile(RUNNING[name])(x, dim), expected, dtype)


def test_running_kernels_serve_sizes_that_change() -> None:
    f = graphc.compile(lambda x: x.cumsum(0) + x.cummax(1)[0], dynamic=True)
    for shape in [(3, 5), (70, 33), (1, 1), (129, 2)]:
        x = graphc.randn(shape)
        expected = np.cumsum(x.numpy(), 0) + np.maximum.accumulate(x.numpy(), 1)
        np.testing.assert_allclose(f(x).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert f.explain().count("traced because of") <= 2


@pytest.mark.parametrize("name", ["cumprod", "logcumsumexp"])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
def test_running_products_and_sums_of_exponentials_are_as_good_as_in_higher_precision(name: str, dtype: Any) -> None:
    graphc.manual_seed(1)
    for shape, dim in [((300, 70), 0), ((300, 70), 1), ((3, 41, 65), 1)]:
        x = (graphc.rand(shape, dtype=dtype) + 0.5) if name == "cumprod" else graphc.randn(shape, dtype=dtype) * 200
        wide = x.numpy().astype(np.longdouble)
        expected = np.cumprod(wide, dim) if name == "cumprod" else np.logaddexp.accumulate(wide, dim)
        found = graphc.compile(lambda x, dim=dim: getattr(x, name)(dim))(x)
        eps = 1e-7 if dtype is graphc.float32 else 1e-13
        np.testing.assert_allclose(found.numpy(), expected.astype(found.numpy().dtype), rtol=eps, atol=eps)


@pytest.mark.parametrize("numbers", [
    [-INF, -INF, 2.0, -INF, 3.0], [1.0, INF, 2.0, -INF], [-INF, INF, NAN, 1.0], [INF, INF, -INF], [NAN, INF, 1.0],
    [-1000.0, 0.0, 1000.0, 999.0, -1000.0, 1001.0], [800.0, -800.0, INF, 5.0], [-INF], [0.0, -0.0],
])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_logcumsumexp_knows_infinities(numbers: list[float], dtype: str) -> None:
    f = graphc.compile(lambda x, dim: x.logcumsumexp(dim))
    with np.errstate(invalid="ignore"):
        expected = np.logaddexp.accumulate(np.array(numbers)).astype(dtype)
    row = np.tile(np.array(numbers, dtype), (9, 1))
    np.testing.assert_allclose(f(graphc.from_numpy(row), 1).numpy(), np.tile(expected, (9, 1)), rtol=1e-6)
    np.testing.assert_allclose(f(graphc.from_numpy(row.T.copy()), 0).numpy(), np.tile(expected, (9, 1)).T, rtol=1e-6)


@pytest.mark.parametrize("function", [lambda x: x.cumprod(0), lambda x: x.cumprod(1), lambda x: x.logcumsumexp(1)])
def test_compiled_running_kernels_are_differentiated(function: Any) -> None:
    x = graphc.randn(5, 9, dtype=graphc.float64, requires_grad=True)
    with graphc.no_grad():
        x[2, 3] = x[2, 5] = x[4, 4] = 0
    assert gradcheck(graphc.compile(function), (x,))


def test_a_running_sum_may_be_written_over_what_it_is_made_of() -> None:
    def step(x: Any) -> None:
        x.cumsum_(1)

    x = graphc.randn(40, 70)
    expected = np.cumsum(x.numpy().copy(), 1)
    graphc.compile(step)(x)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_logcumsumexp_is_stable() -> None:
    x = graphc.tensor([-INF, -1000.0, -1000.0, 1000.0, -INF], dtype=graphc.float64, requires_grad=True)
    out = x.logcumsumexp(0)
    np.testing.assert_allclose(out.detach().numpy(), [-INF, -1000.0, -1000.0 + np.log(2), 1000.0, 1000.0])
    out[1:].sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [0.0, 1.5, 0.5, 2.0, 0.0])


@pytest.mark.parametrize("function", [
    lambda x: x.cumsum(1), lambda x: x.cumprod(0), lambda x: x.cumprod(1), lambda x: x.logcumsumexp(1),
    lambda x: x.cummax(1).values, lambda x: x.cummin(0).values, lambda x: x.diff(2, 1), lambda x: graphc.gradient(x, dim=1)[0],
    lambda x: graphc.trapezoid(x, dim=0), lambda x: graphc.cumulative_trapezoid(x, dx=0.5, dim=1), lambda x: x.prod(1),
])  # fmt: skip
def test_gradients(function: Any) -> None:
    assert gradcheck(function, (watched(array()),))
    assert gradgradcheck(function, (watched(array()),))


@pytest.mark.parametrize("function", [lambda x: x.cumprod(0), lambda x: x.prod(), lambda x: x.prod(0)])
@pytest.mark.parametrize("numbers", [[2.0, 0.0, 3.0, 4.0], [0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
def test_products_have_gradients_through_zeros(function: Any, numbers: list[float]) -> None:
    x = graphc.tensor(numbers, dtype=graphc.float64, requires_grad=True)
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


def test_complex_products_are_differentiated() -> None:
    z = graphc.from_numpy(array(1)[..., 0] + 1j * array(2)[..., 0]).requires_grad_()
    assert gradcheck(lambda z: z.cumprod(1), (z,))
    assert gradcheck(lambda z: z.prod(0), (z,))


def test_running_extremes_take_the_last_of_equals_and_keep_nan() -> None:
    values, indices = graphc.tensor([1.0, 1.0, 0.0, NAN, 5.0]).cummax(0)
    assert indices.tolist() == [0, 1, 1, 3, 3]
    np.testing.assert_array_equal(values.numpy(), [1.0, 1.0, 1.0, NAN, NAN])
    assert graphc.tensor([3, 5, 2, 2]).cummin(0).indices.tolist() == [0, 0, 2, 3]
    assert graphc.zeros(0, 2).cummax(0).values.shape == (0, 2)


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=5), elements=st.integers(-5, 5)), st.integers(0, 3))
def test_differences(a: np.ndarray, n: int) -> None:
    np.testing.assert_array_equal(graphc.from_numpy(a).diff(n).numpy(), np.diff(a, n) if n <= a.shape[-1] else a[..., :0])


def test_differences_with_ends() -> None:
    x = graphc.tensor([1, 4])
    assert x.diff(prepend=graphc.tensor([0]), append=graphc.tensor([9, 9])).tolist() == [1, 3, 5, 0]
    assert graphc.tensor([True, False, False]).diff().tolist() == [True, False]


def test_areas() -> None:
    y, x = array(), np.sort(array(1)[0, :, 0])
    t, s = graphc.from_numpy(y), graphc.from_numpy(x)
    np.testing.assert_allclose(graphc.trapezoid(t, s, dim=1).numpy(), np.trapezoid(y, x, axis=1))
    np.testing.assert_allclose(graphc.trapz(t, dx=0.5, dim=0).numpy(), np.trapezoid(y, dx=0.5, axis=0))
    whole = graphc.cumulative_trapezoid(t, s, dim=1)
    assert whole.shape == (3, 3, 2)
    np.testing.assert_allclose(whole[:, -1].numpy(), np.trapezoid(y, x, axis=1))
    assert graphc.trapezoid(graphc.zeros(2, 0)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("edge_order", [1, 2])
def test_slopes_are_numpys(edge_order: int) -> None:
    a, x = array(), np.cumsum(np.random.default_rng(3).uniform(0.5, 2.0, 4))
    t = graphc.from_numpy(a)
    for ours, theirs in zip(graphc.gradient(t[:, :, 0], spacing=(2.0, 0.5), edge_order=edge_order),
                            np.gradient(a[:, :, 0], 2.0, 0.5, edge_order=edge_order), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs)
    (ours,) = graphc.gradient(t, spacing=[graphc.from_numpy(x)], dim=1, edge_order=edge_order)
    np.testing.assert_allclose(ours.numpy(), np.gradient(a, x, axis=1, edge_order=edge_order))


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.diff(-1), RuntimeError, "order must be non-negative"),
    (lambda x: graphc.tensor(1.0).diff(), RuntimeError, "at least one-dimensional"),
    (lambda x: x.long().logcumsumexp(0), RuntimeError, "not implemented"),
    (lambda x: x.cumsum(3), IndexError, "Dimension out of range"),
    (lambda x: graphc.trapezoid(x, x[0, :, 0]), RuntimeError, "one `x` value for each sample point"),
    (lambda x: graphc.trapezoid(x, x, dx=1), TypeError, "invalid combination"),
    (lambda x: graphc.gradient(x, edge_order=3), RuntimeError, "edge_order=1 and edge_order=2"),
    (lambda x: graphc.gradient(x, edge_order=2), RuntimeError, r"at least edge_order\+1"),
    (lambda x: graphc.gradient(x, spacing=[1.0], dim=(0, 1)), RuntimeError, "to have the same length"),
    (lambda x: graphc.gradient(x, dim=(0, -3)), RuntimeError, "appears multiple times"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.from_numpy(array()))


def test_scans_compile_with_their_gradients() -> None:
    def loss(x: graphc.Tensor) -> graphc.Tensor:
        return (x.cumsum(0) * x.cumprod(1)).logcumsumexp(1).sum() + x.cummax(0).values.prod()

    a = array()[..., 0]
    expected = watched(a)
    loss(expected).backward()

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        return graphc.autograd.grad(loss(x), x)[0]

    np.testing.assert_allclose(step(watched(a)).detach().numpy(), expected.grad.numpy(), rtol=1e-10)
