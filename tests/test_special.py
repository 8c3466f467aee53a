"""Special functions and windows: against SciPy, formulas, and each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special

import graphc
from graphc.types import float64

TOP = {"digamma": "psi", "erfc": "erfc", "erfinv": "erfinv", "i0": "i0", "lgamma": "gammaln"}
UNARY = {
    "bessel_j0": "j0", "bessel_j1": "j1", "bessel_y0": "y0", "bessel_y1": "y1", "digamma": "psi", "entr": "entr", "erf": "erf",
    "erfc": "erfc", "erfcx": "erfcx", "erfinv": "erfinv", "exp2": "exp2", "expit": "expit", "expm1": "expm1",
    "gammaln": "gammaln", "i0": "i0", "i0e": "i0e", "i1": "i1", "i1e": "i1e", "log1p": "log1p", "log_ndtr": "log_ndtr",
    "logit": "logit", "modified_bessel_i0": "i0", "modified_bessel_i1": "i1", "modified_bessel_k0": "k0",
    "modified_bessel_k1": "k1", "ndtr": "ndtr", "ndtri": "ndtri", "psi": "psi", "scaled_modified_bessel_k0": "k0e",
    "scaled_modified_bessel_k1": "k1e",
}
POLYNOMIALS = {
    "chebyshev_polynomial_t": "eval_chebyt", "chebyshev_polynomial_u": "eval_chebyu", "hermite_polynomial_h": "eval_hermite",
    "hermite_polynomial_he": "eval_hermitenorm", "laguerre_polynomial_l": "eval_laguerre",
    "legendre_polynomial_p": "eval_legendre", "shifted_chebyshev_polynomial_t": "eval_sh_chebyt",
    "shifted_chebyshev_polynomial_u": "eval_sh_chebyu",
}
NUMBERS = np.array([0.0, 0.1, 0.5, 0.9, -0.3, -1.0, 1.0, 2.5, -3.7, 20.0])


def double(values: Any, **options: Any) -> Any:
    return graphc.tensor(np.asarray(values), dtype=float64, **options)


def derivative(function: Any, x: Any, order: int = 1) -> np.ndarray:
    leaf = double(x, requires_grad=True)
    out = function(leaf)
    for _ in range(order):
        (out,) = graphc.autograd.grad(out.sum(), leaf, create_graph=True)
    return out.detach().numpy()


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name: str) -> None:
    function, definition = getattr(graphc.special, name), getattr(scipy.special, UNARY[name])
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6), (np.float16, 2e-3)):
        x = NUMBERS.astype(dtype)
        got = function(graphc.tensor(x))
        assert got.numpy().dtype == dtype
        with np.errstate(all="ignore"):
            expected = definition(x.astype(np.float64)).astype(dtype)
        np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance)
    whole = function(graphc.tensor([1, 2, 3]))
    assert whole.dtype is graphc.float32
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(whole.numpy(), definition(np.array([1.0, 2, 3])), rtol=1e-5)
    assert function(graphc.zeros(0, 2)).shape == (0, 2)
    assert function(graphc.tensor(0.5)).shape == ()
    out = graphc.zeros(2)
    assert function(graphc.tensor([0.25, 0.5]), out=out) is out and out[0] == function(graphc.tensor(0.25))
    with pytest.raises(TypeError, match="must be Tensor, not float"):
        function(0.5)


@pytest.mark.parametrize("name", TOP)
def test_names_at_the_top_level_and_methods(name: str) -> None:
    x = graphc.tensor([0.3, 0.6])
    expected = getattr(scipy.special, TOP[name])(x.numpy())
    for got in (getattr(graphc, name)(x), getattr(x, name)(), getattr(x.clone(), f"{name}_")()):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*UNARY, "spherical_bessel_j0", "airy_ai"])
def test_derivatives(name: str) -> None:
    function, step = getattr(graphc.special, name), 1e-5
    x = np.array([0.2, 0.45, 0.7, 0.85])

    def values(x: np.ndarray) -> np.ndarray:
        return function(double(x)).numpy()

    first = (values(x + step) - values(x - step)) / (2 * step)
    np.testing.assert_allclose(derivative(function, x), first, rtol=1e-6, atol=1e-8)
    second = (derivative(function, x + step) - derivative(function, x - step)) / (2 * step)
    np.testing.assert_allclose(derivative(function, x, 2), second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e", "bessel_j0", "bessel_j1"])
def test_slopes_at_zero(name: str) -> None:
    assert derivative(getattr(graphc.special, name), 0.0) == (0.5 if "1" in name else 0)


def test_the_normal_distribution_far_out() -> None:
    x = double([-40.0, -10.0, 0.0, 10.0])
    np.testing.assert_allclose(graphc.special.ndtr(x).numpy(), scipy.special.ndtr(x.numpy()), rtol=1e-12)
    np.testing.assert_allclose(graphc.special.log_ndtr(x).numpy(), scipy.special.log_ndtr(x.numpy()), rtol=1e-12)
    np.testing.assert_allclose(derivative(graphc.special.log_ndtr, [-40.0]), [40.02496], rtol=1e-6)
    np.testing.assert_allclose(graphc.erfc(double([10.0, 26.0])).numpy(), scipy.special.erfc([10.0, 26.0]), rtol=1e-12)


def test_lgamma_at_the_ends() -> None:
    assert graphc.lgamma(graphc.tensor([math.inf, -math.inf, 0.0, -1.0])).tolist() == [math.inf] * 4
    assert graphc.digamma(graphc.tensor(0.0)).item() == -math.inf
    assert math.isnan(graphc.digamma(graphc.tensor(-2.0)).item())


@pytest.mark.parametrize("n", range(5))
def test_polygamma(n: int) -> None:
    x = np.array([0.3, 1.0, 2.5, 11.0])
    in_namespace = graphc.special.polygamma(n, double(x))
    for got in (graphc.polygamma(n, double(x)), double(x).polygamma(n), double(x).polygamma_(n), in_namespace):
        np.testing.assert_allclose(got.numpy(), scipy.special.polygamma(n, x), rtol=1e-12)
    np.testing.assert_allclose(
        derivative(lambda x: graphc.polygamma(n, x), x), scipy.special.polygamma(n + 1, x), rtol=1e-12)
    assert graphc.polygamma(n, graphc.tensor([2])).dtype is graphc.float32
    with pytest.raises(RuntimeError, match="does not support negative n"):
        graphc.polygamma(-1, double(x))


def test_polygamma_left_of_zero() -> None:
    x = -0.3
    reflected = math.pi**2 / math.sin(math.pi * x) ** 2 - scipy.special.polygamma(1, 1 - x)
    assert graphc.polygamma(1, double(x)).item() == pytest.approx(reflected)


@pytest.mark.parametrize("p", [1, 2, 5])
def test_mvlgamma(p: int) -> None:
    x = np.array([2.5, 3.0, 7.25])
    expected = [scipy.special.multigammaln(v, p) for v in x]
    np.testing.assert_allclose(graphc.mvlgamma(double(x), p).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(graphc.special.multigammaln(double(x), p).numpy(), expected, rtol=1e-12)
    slopes = sum(scipy.special.psi(x - i / 2) for i in range(p))
    np.testing.assert_allclose(derivative(lambda x: graphc.mvlgamma(x, p), x), slopes, rtol=1e-12)
    with pytest.raises(RuntimeError, match="greater than or equal to 1"):
        graphc.mvlgamma(double(x), 0)


def test_incomplete_gamma_functions() -> None:
    a, x = np.array([0.5, 1.0, 2.0, 4.5])[:, None], np.array([0.1, 1.0, 3.0, 9.0])
    np.testing.assert_allclose(graphc.igamma(double(a), double(x)).numpy(), scipy.special.gammainc(a, x), rtol=1e-12)
    np.testing.assert_allclose(double(a).igammac(double(x)).numpy(), scipy.special.gammaincc(a, x), rtol=1e-12)
    density = x ** (a - 1) * np.exp(-x) / scipy.special.gamma(a)
    spread = np.broadcast_to(x, density.shape)
    np.testing.assert_allclose(derivative(lambda x: graphc.special.gammainc(double(a), x), spread), density, rtol=1e-10)
    np.testing.assert_allclose(derivative(lambda x: graphc.special.gammaincc(double(a), x), spread), -density, rtol=1e-10)
    assert derivative(lambda x: graphc.igamma(double(1.0), x), 0.0) == 1
    ends = graphc.igamma(double([0.0, 0.0, 2.0, 2.0, -1.0]), double([0.0, 1.0, 0.0, math.inf, 1.0])).numpy()
    np.testing.assert_array_equal(ends, [math.nan, 1, 0, 1, math.nan])


@pytest.mark.parametrize("name", ["igamma", "igammac"])
def test_the_derivative_that_nobody_has_written_down(name: str) -> None:
    a, x = double([1.5], requires_grad=True), double([2.0], requires_grad=True)
    out = getattr(graphc, name)(a, x)
    with pytest.raises(RuntimeError, match=f"the derivative for '{name}: input' is not implemented"):
        out.sum().backward()
    compiled = graphc.compile(getattr(graphc, name))
    with pytest.raises(RuntimeError, match="is not implemented"):
        compiled(a, x).sum().backward()


def test_zeta() -> None:
    x, q = np.array([1.5, 2.0, 3.5])[:, None], np.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(graphc.special.zeta(double(x), double(q)).numpy(), scipy.special.zeta(x, q), rtol=1e-12)
    assert graphc.special.zeta(2, double(1.0)).item() == pytest.approx(math.pi**2 / 6)
    assert graphc.special.zeta(double([math.inf, 2.0, 1.0]), math.inf).isnan().tolist() == [True, True, False]
    assert graphc.special.zeta(double(2.0), 1).item() == pytest.approx(math.pi**2 / 6)
    np.testing.assert_allclose(
        derivative(lambda q: graphc.special.zeta(2.5, q), q), -2.5 * scipy.special.zeta(3.5, q), rtol=1e-12)
    with pytest.raises(TypeError, match="must be Tensor, not int"):
        graphc.special.zeta(2, 1)


def test_xlog1py() -> None:
    x, y = np.array([0.0, 0.0, 0.0, 1.5]), np.array([-1.0, 3.0, math.nan, -0.5])
    np.testing.assert_allclose(graphc.special.xlog1py(double(x), double(y)).numpy(), [0, 0, math.nan, 1.5 * math.log(0.5)])
    assert graphc.special.xlog1py(2, double(1.0)).item() == pytest.approx(2 * math.log(2))
    np.testing.assert_allclose(derivative(lambda y: graphc.special.xlog1py(2.0, y), [0.5, 3.0]), [2 / 1.5, 0.5])


def test_entr() -> None:
    assert graphc.special.entr(graphc.tensor([0.0, -1.0, 1.0])).tolist() == [0, -math.inf, 0]
    np.testing.assert_allclose(derivative(graphc.special.entr, [0.5, 2.0]), [-math.log(0.5) - 1, -math.log(2) - 1])


def test_spherical_bessel() -> None:
    x = graphc.tensor([0.0, 1e-3, 2.0, math.inf, -math.inf, math.nan], dtype=float64)
    expected = [1, math.sin(1e-3) / 1e-3, math.sin(2) / 2, 0, 0, math.nan]
    np.testing.assert_allclose(graphc.special.spherical_bessel_j0(x).numpy(), expected, rtol=1e-12)


def test_airy() -> None:
    x = np.array([-3.0, 0.0, 1.0])
    np.testing.assert_allclose(graphc.special.airy_ai(double(x)).numpy(), scipy.special.airy(x)[0], rtol=1e-12)
    np.testing.assert_allclose(derivative(graphc.special.airy_ai, x, 2), x * scipy.special.airy(x)[0], atol=1e-12)


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_orthogonal_polynomials(name: str) -> None:
    function, definition = getattr(graphc.special, name), getattr(scipy.special, POLYNOMIALS[name])
    x, n = np.array([-1.0, -0.3, 0.0, 0.8, 1.0, 2.0])[:, None], np.arange(6)
    np.testing.assert_allclose(function(double(x), graphc.tensor(n)).numpy(), definition(n, x), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(function(double(x), 3).numpy(), definition(3, x), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(function(0.5, double(n)).numpy(), definition(n, 0.5), rtol=1e-10)
    assert function(double(0.5), -1).item() == 0


def test_chebyshev_polynomials_of_the_third_and_fourth_kind() -> None:
    angle, n = np.linspace(0.1, 3.0, 5)[:, None], np.arange(5)
    x, degrees = double(np.cos(angle)), graphc.tensor(n)
    third, fourth = np.cos((n + 0.5) * angle) / np.cos(angle / 2), np.sin((n + 0.5) * angle) / np.sin(angle / 2)
    np.testing.assert_allclose(graphc.special.chebyshev_polynomial_v(x, degrees).numpy(), third, rtol=1e-9)
    np.testing.assert_allclose(graphc.special.chebyshev_polynomial_w(x, degrees).numpy(), fourth, rtol=1e-9)
    half = (x + 1) / 2
    np.testing.assert_allclose(graphc.special.shifted_chebyshev_polynomial_v(half, degrees).numpy(), third, rtol=1e-9)
    np.testing.assert_allclose(graphc.special.shifted_chebyshev_polynomial_w(half, degrees).numpy(), fourth, rtol=1e-9)


def test_softmax_and_sums_by_their_other_names() -> None:
    x = graphc.tensor([[1.0, 2.0], [0.5, -1.0]])
    assert graphc.special.softmax(x, 1).tolist() == graphc.softmax(x, 1).tolist()
    assert graphc.special.log_softmax(x, dim=0).tolist() == graphc.log_softmax(x, 0).tolist()
    assert graphc.special.logsumexp(x, 1).tolist() == graphc.logsumexp(x, 1).tolist()
    assert graphc.special.softmax(graphc.tensor([1, 2]), 0, dtype=graphc.float64).dtype is float64
    assert graphc.special.round(x * 0.55, decimals=1).tolist() == graphc.round(x * 0.55, decimals=1).tolist()


def test_compiled_programs_call_back_for_them() -> None:
    def function(x: Any, y: Any) -> Any:
        inner = graphc.lgamma(x * 2) + graphc.special.i1e(y) * graphc.polygamma(1, x + y)
        return (graphc.special.ndtri(graphc.sigmoid(inner)) + graphc.igamma(y.detach(), x)).sum(1)

    rng = np.random.default_rng(5)
    x, y = (double(rng.uniform(0.5, 2, (3, 4)), requires_grad=True) for _ in range(2))
    compiled = graphc.compile(function)
    for _ in range(2):
        np.testing.assert_allclose(compiled(x, y).detach().numpy(), function(x, y).detach().numpy(), rtol=1e-12)
        found = graphc.autograd.grad(compiled(x, y).sum(), (x, y))
        for got, expected in zip(found, graphc.autograd.grad(function(x, y).sum(), (x, y)), strict=True):
            np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-10)


# Windows

WINDOWS: dict[str, Any] = {
    "bartlett": "bartlett", "blackman": "blackman", "cosine": "cosine", "hamming": "hamming", "hann": "hann",
    "nuttall": "nuttall", "gaussian": ("gaussian", 1.0), "kaiser": ("kaiser", 12.0),
    "general_hamming": ("general_hamming", 0.54),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str, symmetric: bool) -> None:
    function = getattr(graphc.signal.windows, name)
    for length in (0, 1, 2, 3, 10, 11):
        got = function(length, sym=symmetric, dtype=float64)
        expected = scipy.signal.get_window(WINDOWS[name], length, fftbins=not symmetric) if length else np.empty(0)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-14)
    assert function(4).dtype is graphc.float32
    assert function(4, requires_grad=True).requires_grad


def test_windows_with_parameters() -> None:
    windows = graphc.signal.windows
    for symmetric in (True, False):
        pairs = [
            (windows.gaussian(9, std=2.5, sym=symmetric), ("gaussian", 2.5)),
            (windows.kaiser(9, beta=3.0, sym=symmetric), ("kaiser", 3.0)),
            (windows.exponential(9, tau=2.0, sym=symmetric), ("exponential", None, 2.0)),
            (windows.general_cosine(9, a=[0.5, 0.3, 0.2], sym=symmetric), ("general_cosine", [0.5, 0.3, 0.2])),
            (windows.general_hamming(9, alpha=0.7, sym=symmetric), ("general_hamming", 0.7)),
        ]
        for got, description in pairs:
            np.testing.assert_allclose(got.numpy(), scipy.signal.get_window(description, 9, fftbins=not symmetric), atol=1e-6)
    off_center = windows.exponential(5, center=1.0, tau=2.0, sym=False)
    np.testing.assert_allclose(off_center.numpy(), np.exp(-np.abs(np.arange(5) - 1) / 2), rtol=1e-6)


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda w: w.hann(-1), ValueError, "requires non-negative window length, got M=-1"),
    (lambda w: w.hann(3, dtype=graphc.float16), ValueError, "expects float32 or float64 dtypes"),
    (lambda w: w.exponential(3, tau=0), ValueError, "Tau must be positive"),
    (lambda w: w.exponential(3, center=1), ValueError, "Center must be None for symmetric windows"),
    (lambda w: w.gaussian(3, std=-1), ValueError, "Standard deviation must be positive"),
    (lambda w: w.kaiser(3, beta=-1), ValueError, "beta must be non-negative"),
    (lambda w: w.general_cosine(3, a=[]), ValueError, "Coefficients cannot be empty"),
    (lambda w: w.general_cosine(3, a=3), TypeError, "Coefficients must be a list/tuple"),
])  # fmt: skip
def test_windows_that_cannot_be(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.signal.windows)


@pytest.mark.parametrize("name", ["bartlett", "blackman", "hamming", "hann", "kaiser"])
def test_windows_of_old(name: str) -> None:
    old, new = getattr(graphc, f"{name}_window"), getattr(graphc.signal.windows, name)
    for length in (0, 1, 2, 7):
        np.testing.assert_array_equal(old(length).numpy(), new(length, sym=False).numpy())
        np.testing.assert_array_equal(old(length, False).numpy(), new(length).numpy())
    assert old(4, dtype=graphc.float16).dtype is graphc.float16
    with pytest.raises(RuntimeError, match="requires non-negative window_length"):
        old(-1)
    with pytest.raises(RuntimeError, match="expects floating point dtypes"):
        old(3, dtype=graphc.int64)
    with pytest.raises(TypeError):
        old(3.5)


def test_windows_of_old_with_parameters() -> None:
    np.testing.assert_allclose(graphc.hamming_window(4, True, 0.5, 0.3).numpy(), [0.2, 0.5, 0.8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(graphc.kaiser_window(3, False, beta=2.0).numpy(), scipy.signal.windows.kaiser(3, 2.0), rtol=1e-6)
    out = graphc.zeros(3, dtype=float64)
    assert graphc.hann_window(3, out=out) is out and out[1].item() == pytest.approx(0.75)


def test_windows_inside_compiled_code() -> None:
    x = graphc.tensor(np.arange(6.0))
    compiled = graphc.compile(lambda x: x * graphc.hann_window(6, dtype=float64) * graphc.kaiser_window(6, dtype=float64))
    expected = np.arange(6) * scipy.signal.get_window("hann", 6) * scipy.signal.get_window(("kaiser", 12.0), 6)
    np.testing.assert_allclose(compiled(x).numpy(), expected, atol=1e-14)
