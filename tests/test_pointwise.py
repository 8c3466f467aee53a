"""Elementwise functions of the front end, by NumPy's values, formulas and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc

SPECIALS = np.array([0.0, -0.0, 0.3, -0.7, 1.0, -1.0, 2.5, -17.25, 1e-8, 150.0, -150.0, np.inf, -np.inf, np.nan])
ELEMENTARY = {
    "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan, "atanh": np.arctanh,
    "cosh": np.cosh, "deg2rad": np.deg2rad, "exp2": np.exp2, "log10": np.log10, "log2": np.log2, "rad2deg": np.rad2deg,
    "sinc": np.sinc, "sinh": np.sinh, "tan": np.tan,
}
PAIRS = {
    "atan2": np.arctan2, "copysign": np.copysign, "fmod": np.fmod, "hypot": np.hypot, "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2, "nextafter": np.nextafter, "fmax": np.fmax, "fmin": np.fmin, "remainder": np.remainder,
}


def numbers(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def slope(function: Any, x: np.ndarray) -> np.ndarray:
    """The derivative of an elementwise function of float64 numbers, by central differences."""
    step = 1e-6
    high, low = (numbers(function(graphc.tensor(x + d))) for d in (step, -step))
    return (high - low) / (2 * step)


def check_gradient(function: Any, x: Any, order: int = 2) -> None:
    """Gradients up to an order against differences of the one below."""
    values = np.array(x, np.float64)
    for _ in range(order):
        leaf = graphc.tensor(values, requires_grad=True)
        (found,) = graphc.autograd.grad(function(leaf).sum(), leaf)
        np.testing.assert_allclose(numbers(found), slope(function, values), rtol=1e-5, atol=1e-7)
        lower = function

        def function(x: Any, lower: Any = lower) -> Any:
            x = x if x.requires_grad else x.detach().requires_grad_()
            return graphc.autograd.grad(lower(x).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("name", ELEMENTARY)
def test_values_of_elementary_functions(name: str, dtype: type) -> None:
    x = SPECIALS.astype(dtype)
    with np.errstate(all="ignore"):
        expected = ELEMENTARY[name](x.astype(np.float64)).astype(dtype)
        expected = ELEMENTARY[name](x) if name == "sinc" and dtype is not np.float16 else expected
    tolerance = 8 * np.finfo(dtype).eps
    for got in (getattr(graphc, name)(graphc.tensor(x)), getattr(graphc.tensor(x), name)()):
        assert got.numpy().dtype == dtype
        np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance * 20)


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_of_integers_and_in_place(name: str) -> None:
    whole = getattr(graphc, name)(graphc.tensor([1, 0, 1]))
    assert whole.dtype is graphc.float32
    with np.errstate(all="ignore"):
        expected = ELEMENTARY[name](np.array([1.0, 0, 1]))
    np.testing.assert_allclose(whole.numpy(), expected, rtol=1e-6, atol=1e-6)
    x = graphc.tensor([0.5, 0.25])
    fresh = getattr(x, name)()
    assert getattr(x, f"{name}_")() is x
    np.testing.assert_array_equal(x.numpy(), fresh.numpy())
    with pytest.raises(RuntimeError, match="can't be cast"):
        getattr(graphc.tensor([1, 0]), f"{name}_")()
    out = graphc.zeros(2)
    assert getattr(graphc, name)(graphc.tensor([0.5, 0.25]), out=out) is out
    assert getattr(graphc, name)(graphc.zeros(0, 3)).shape == (0, 3)
    assert getattr(graphc, name)(graphc.tensor(0.5)).shape == ()


@pytest.mark.parametrize("name", ELEMENTARY)
def test_gradients_of_elementary_functions(name: str) -> None:
    low, high = {"acosh": (1.2, 4), "log2": (0.2, 3), "log10": (0.2, 3)}.get(name, (-0.9, 0.9))
    check_gradient(getattr(graphc, name), np.linspace(low, high, 6), order=1 if name in ("deg2rad", "rad2deg") else 2)


def test_sinc_is_smooth_at_zero() -> None:
    check_gradient(graphc.sinc, [0.0, 1e-4, -0.009, 0.0101])
    x = graphc.tensor(0.0, dtype=graphc.float64, requires_grad=True)
    (first,) = graphc.autograd.grad(graphc.sinc(x), x, create_graph=True)
    (second,) = graphc.autograd.grad(first, x)
    assert first.item() == 0
    assert second.item() == pytest.approx(-math.pi**2 / 3)


@pytest.mark.parametrize("name", PAIRS)
def test_values_of_functions_of_two_numbers(name: str) -> None:
    x, y = SPECIALS[:, None].astype(np.float32), SPECIALS.astype(np.float32)
    with np.errstate(all="ignore"):
        expected = PAIRS[name](x, y)
    for got in (getattr(graphc, name)(graphc.tensor(x), graphc.tensor(y)), getattr(graphc.tensor(x), name)(graphc.tensor(y))):
        np.testing.assert_allclose(got.numpy(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["atan2", "copysign", "fmod", "hypot", "ldexp", "logaddexp", "logaddexp2", "remainder", "xlogy"])
def test_gradients_of_functions_of_two_numbers(name: str) -> None:
    function, other = getattr(graphc, name), graphc.tensor([0.7, 1.3, 0.45], dtype=graphc.float64)
    linear = ("copysign", "fmod", "remainder")
    check_gradient(lambda x: function(x, other), [0.6, 1.7, 3.1], order=1 if name in (*linear, "ldexp") else 2)
    check_gradient(lambda x: function(other, x), [0.6, 1.7, 3.1], order=1 if name in linear else 2)


def test_logaddexp_has_second_derivatives_where_both_are_equal() -> None:
    check_gradient(lambda x: graphc.logaddexp(x, graphc.tensor(1.0, dtype=graphc.float64)), [1.0])


def test_slopes_at_the_origin() -> None:
    x, y = (graphc.zeros(1, requires_grad=True) for _ in range(2))
    assert [g.item() for g in graphc.autograd.grad(graphc.atan2(x, y).sum(), (x, y))] == [0, 0]
    x = graphc.tensor([0.0, 0.0], requires_grad=True)
    (found,) = graphc.autograd.grad(graphc.xlogy(x, graphc.tensor([0.0, 2.0])).sum(), x)
    assert found.tolist() == [0, pytest.approx(math.log(2))]


def test_xlogy_takes_numbers_on_either_side() -> None:
    assert graphc.xlogy(graphc.tensor([0.0, 2.0]), 3).tolist() == [0, pytest.approx(2 * math.log(3))]
    assert graphc.xlogy(2, graphc.tensor([1, 3])).tolist() == [0, pytest.approx(2 * math.log(3))]
    assert math.isnan(graphc.xlogy(0, graphc.tensor(math.nan)).item())


def test_only_floating_point_is_taken_by_some() -> None:
    for name in ("hypot", "logaddexp", "logaddexp2", "nextafter"):
        with pytest.raises(RuntimeError, match="not implemented"):
            getattr(graphc, name)(graphc.tensor([1]), graphc.tensor([2]))
    with pytest.raises(RuntimeError, match="not implemented"):
        graphc.frac(graphc.tensor([1]))
    for name in ("floor", "ceil", "trunc", "round"):
        assert getattr(graphc, name)(graphc.tensor([3, -4])).tolist() == [3, -4]
        with pytest.raises(RuntimeError, match="not implemented"):
            getattr(graphc, name)(graphc.tensor([True]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_divisors_and_multiples(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0 if dtype is np.uint8 else -11, 12, 40).astype(dtype) for _ in range(2))
    x[:2] = 0
    y[1:3] = 0
    a, b = graphc.tensor(x), graphc.tensor(y)
    assert graphc.gcd(a, b).numpy().tolist() == np.gcd(x, y).tolist()
    assert graphc.lcm(a, b).numpy().tolist() == np.lcm(x, y).tolist()
    with pytest.raises(RuntimeError, match="not implemented"):
        graphc.gcd(a.float(), b.float())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_division_with_rounding(dtype: type) -> None:
    x, y = np.arange(-9 if dtype is not np.uint8 else 0, 10).astype(dtype), np.array(4, dtype)
    a = graphc.tensor(x)
    for other in (graphc.tensor(y), 4):
        assert graphc.div(a, other, rounding_mode="trunc").tolist() == np.trunc(x / np.float64(4)).tolist()
        assert graphc.div(a, other, rounding_mode="floor").tolist() == np.floor(x / np.float64(4)).tolist()
        assert graphc.fmod(a, other).tolist() == np.fmod(x, y).tolist()
    assert graphc.div(a, 4, rounding_mode="trunc").numpy().dtype == dtype
    with pytest.raises(RuntimeError, match="rounding_mode to be one of None, 'trunc', or 'floor'"):
        graphc.div(a, 4, rounding_mode="round")


@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide"])
def test_integers_divided_by_zero(name: str) -> None:
    function = getattr(graphc, name)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        function(graphc.tensor([1]), graphc.tensor([0]))
    with pytest.raises(ZeroDivisionError):
        function(graphc.tensor([1]), 0)


def test_frexp_and_ldexp_are_inverse() -> None:
    x = np.array([0.0, 5.0, -0.1, 1e-40, 3e38, np.inf], np.float32)
    mantissa, exponent = graphc.frexp(graphc.tensor(x))
    expected = np.frexp(x)
    assert exponent.dtype is graphc.int32 and exponent.tolist() == expected[1].tolist()
    np.testing.assert_array_equal(mantissa.numpy(), expected[0])
    np.testing.assert_array_equal(graphc.ldexp(mantissa, exponent).numpy(), x)
    assert graphc.ldexp(graphc.tensor([1e-40, 0.0]), graphc.tensor([200, 1000])).tolist() == [
        pytest.approx(1e-40 * 2.0**200, rel=1e-4), 0]
    check_gradient(lambda x: graphc.frexp(x).mantissa, [0.3, 5.0, -9.0], order=1)
    with pytest.raises(RuntimeError, match="only supports floating-point dtypes"):
        graphc.frexp(graphc.tensor([1]))


def test_heaviside() -> None:
    x = graphc.tensor([-1.5, 0.0, 2.0, math.nan])
    assert graphc.heaviside(x, graphc.tensor(0.5)).tolist() == [0, 0.5, 1, 0]
    assert graphc.heaviside(graphc.tensor([-1, 0, 3]), graphc.tensor([7])).tolist() == [0, 7, 1]
    with pytest.raises(RuntimeError, match="not yet implemented for tensors with different dtypes"):
        graphc.heaviside(x, graphc.tensor(1))


def test_signs() -> None:
    x = graphc.tensor([1.0, -2.0, 0.0, -0.0])
    assert graphc.signbit(x).tolist() == [False, True, False, True]
    assert graphc.signbit(graphc.tensor([-1, 0, 1])).tolist() == [True, False, False]
    assert graphc.signbit(graphc.tensor([200], dtype=graphc.uint8)).tolist() == [False]
    assert graphc.sgn(x).tolist() == [1, -1, 0, 0]
    assert graphc.copysign(x, -1).tolist() == [-1, -2, -0.0, -0.0]
    assert graphc.copysign(graphc.tensor([1, 2]), -1.5).dtype is graphc.float32
    assert graphc.positive(x) is x
    with pytest.raises(RuntimeError, match="on a bool tensor is not supported"):
        +graphc.tensor([True])


def test_neighbours() -> None:
    x = graphc.tensor([1.0, 1.0, 0.0], requires_grad=True)
    out = graphc.nextafter(x, graphc.tensor([2.0, 1.0, -1.0]))
    assert out.tolist() == [1 + 2.0**-23, 1, -(2.0**-149)]
    out.sum().backward()
    assert x.grad.tolist() == [1, 0, 1]


def test_clamp_with_tensors() -> None:
    x = graphc.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 1.0, 1.0], requires_grad=True)
    low = graphc.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 3.0, math.nan], requires_grad=True)
    high = graphc.tensor([3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 3.0], requires_grad=True)
    out = graphc.clamp(x, low, high)
    assert out.tolist()[:6] == [1, 1, 2, 3, 3, 2] and math.isnan(out[6])
    out[:6].sum().backward()
    assert x.grad.tolist()[:6] == [0, 1, 1, 1, 0, 0]
    assert low.grad.tolist()[:6] == [1, 0, 0, 0, 0, 0]
    assert high.grad.tolist()[:6] == [0, 0, 0, 0, 1, 1]


def test_clamp_promotes_and_keeps_nan() -> None:
    assert graphc.clamp(graphc.tensor([1, 5]), 1.5).tolist() == [1.5, 5]
    assert graphc.clamp(graphc.tensor([1, 5]), max=graphc.tensor([2.5])).tolist() == [1, 2.5]
    assert math.isnan(graphc.clamp(graphc.tensor(math.nan), 0, 1).item())
    assert math.isnan(graphc.clamp(graphc.tensor(0.5), math.nan, 1).item())
    with pytest.raises(RuntimeError, match="At least one of 'min' or 'max' must not be None"):
        graphc.clamp(graphc.tensor([1.0]))


def test_lerp() -> None:
    start, end = graphc.tensor([1.0, 2.0]), graphc.tensor([5.0, 4.0])
    assert graphc.lerp(start, end, 0.25).tolist() == [2, 2.5]
    assert graphc.lerp(start, end, graphc.tensor([0.75, 1.0])).tolist() == [4, 4]
    with pytest.raises(RuntimeError, match="expected dtype float32 for `end` but got dtype float64"):
        graphc.lerp(start, end.double(), 0.5)
    with pytest.raises(RuntimeError, match="not implemented"):
        graphc.lerp(graphc.tensor([1]), graphc.tensor([2]), 0.5)


def test_round_to_decimals() -> None:
    x = graphc.tensor([1.255, -1.245, 2.5, 12345.678], dtype=graphc.float64)
    assert graphc.round(x, decimals=2).tolist() == [pytest.approx(v) for v in (1.25, -1.25, 2.5, 12345.68)]
    assert graphc.round(x, decimals=-2).tolist() == [0, 0, 0, 12300]
    assert graphc.round(graphc.tensor([150.0], dtype=graphc.float16), decimals=3).tolist() == [150]
    with pytest.raises(RuntimeError, match="not implemented"):
        graphc.round(graphc.tensor([1]), decimals=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_nan_to_num(dtype: str) -> None:
    x = graphc.tensor([1.0, math.nan, math.inf, -math.inf], dtype=getattr(graphc, dtype))
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}.get(dtype) or float(np.finfo(dtype).max)
    assert graphc.nan_to_num(x).double().tolist() == [1, 0, largest, -largest]
    assert graphc.nan_to_num(x, 2.0, 3.0, 4.0).double().tolist() == [1, 2, 3, 4]
    assert graphc.nan_to_num(graphc.tensor([3])).tolist() == [3]


def test_logit() -> None:
    x = graphc.tensor([0.1, 0.5, -0.1, 1.1], dtype=graphc.float64, requires_grad=True)
    out = graphc.logit(x)
    assert out.tolist()[:2] == [pytest.approx(math.log(1 / 9)), 0] and out[2:].isnan().all()
    (found,) = graphc.autograd.grad(out.sum(), x)
    assert found.tolist()[:2] == [pytest.approx(1 / 0.09), 4] and found[2:].isnan().all()
    assert graphc.logit(x, 0.2).tolist()[2:] == [pytest.approx(-math.log(4)), pytest.approx(math.log(4))]
    assert graphc.logit(x.half()).dtype is graphc.float16


def test_scaled_sums() -> None:
    x = graphc.tensor([1, 2], dtype=graphc.uint8)
    assert graphc.add(x, x, alpha=2).tolist() == [3, 6]
    assert graphc.rsub(x, 9, alpha=2).tolist() == [7, 5]
    assert graphc.add(graphc.tensor([True, False]), graphc.tensor([False, False]), alpha=2).tolist() == [True, False]
    assert graphc.addcmul(x, x, x, value=1.5).tolist() == [2, 6]
    for name in ("add", "sub", "rsub"):
        with pytest.raises(RuntimeError, match="alpha must not be a floating point number"):
            getattr(graphc, name)(x, x, alpha=1.5)
    with pytest.raises(RuntimeError, match="Boolean alpha only supported for Boolean results"):
        graphc.add(x, x, alpha=True)


def test_two_numbers() -> None:
    assert graphc.add(1, 2).dtype is graphc.int64
    assert graphc.sub(2.5, 1).tolist() == 1.5
    for name in ("pow", "remainder", "atan2", "maximum", "bitwise_and"):
        with pytest.raises(TypeError, match="must be Tensor, not int"):
            getattr(graphc, name)(3, 2)


def test_tests_of_each_element() -> None:
    x = graphc.tensor([1.0, math.nan, math.inf, -math.inf])
    assert graphc.isnan(x).tolist() == [False, True, False, False]
    assert graphc.isinf(x).tolist() == [False, False, True, True]
    assert graphc.isfinite(x).tolist() == [True, False, False, False]
    assert graphc.isposinf(x).tolist() == [False, False, True, False]
    assert graphc.isneginf(x).tolist() == [False, False, False, True]
    assert graphc.isreal(x).tolist() == [True] * 4
    assert graphc.isposinf(graphc.tensor([1])).tolist() == [False]
    z = graphc.tensor([1 + 0j, 1 + 2j, complex(math.inf, 1), complex(0, math.nan)])
    assert graphc.isreal(z).tolist() == [True, False, False, False]
    assert graphc.isinf(z).tolist() == [False, False, True, False]
    assert graphc.isfinite(z).tolist() == [True, True, False, False]
    with pytest.raises(RuntimeError, match="does not support complex inputs"):
        graphc.isposinf(z)


@pytest.mark.parametrize("name", ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "log2", "log10", "sinh", "tan"])
def test_complex_numbers(name: str) -> None:
    z = np.array([0.3 + 0.4j, -1.2 + 0.5j, 2 - 0.7j])
    leaf = graphc.tensor(z, requires_grad=True)
    out = getattr(graphc, name)(leaf)
    np.testing.assert_allclose(numbers(out), ELEMENTARY[name](z), rtol=1e-12)
    (found,) = graphc.autograd.grad(graphc.real(out).sum(), leaf)
    step = 1e-6
    real, imaginary = (
        (ELEMENTARY[name](z + d).real - ELEMENTARY[name](z - d).real) / (2 * step) for d in (step, step * 1j))
    np.testing.assert_allclose(numbers(found), real + 1j * imaginary, rtol=1e-7)


def test_compiled_as_eagerly() -> None:
    def function(x: Any, y: Any) -> Any:
        angle = graphc.atan2(x, y) + graphc.hypot(x, y) - graphc.logaddexp2(x, y)
        return graphc.clamp(angle, y, x.abs()) + graphc.sinc(x) * graphc.frexp(y).mantissa + graphc.fmod(x, y)

    rng = np.random.default_rng(3)
    x, y = (graphc.tensor(rng.normal(size=(4, 5)), requires_grad=True) for _ in range(2))
    compiled = graphc.compile(function)
    expected = graphc.autograd.grad(function(x, y).sum(), (x, y))
    np.testing.assert_allclose(numbers(compiled(x, y)), numbers(function(x, y)), rtol=1e-12)
    for got, e in zip(graphc.autograd.grad(compiled(x, y).sum(), (x, y)), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), e.numpy(), rtol=1e-10)


def test_aliases() -> None:
    for other, name in {"arccos": "acos", "arctan2": "atan2", "absolute": "abs", "divide": "div", "true_divide": "div",
                        "greater_equal": "ge", "fix": "trunc", "clip": "clamp"}.items():
        assert getattr(graphc, other) is getattr(graphc, name)
        assert getattr(graphc.Tensor, other) is getattr(graphc.Tensor, name)
    assert graphc.Tensor.arccosh_ is graphc.Tensor.acosh_


def test_functions_that_change_their_argument() -> None:
    x = graphc.tensor([0.25, 4.0])
    assert graphc.sqrt_(x) is x and x.tolist() == [0.5, 2]
    assert graphc.clamp_(x, max=1) is x and x.tolist() == [0.5, 1]
