"""`graphc.special`: the special functions, those that have other names elsewhere among them.

Values are SciPy's, but for what other functions are made of. Integers are taken as the default dtype. All but the
orthogonal polynomials are differentiable to any order; `zeta` and the incomplete gamma functions in the second argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from graphc import ops
from graphc.frontend import activations, arithmetic, elementary, pointwise, reductions
from graphc.frontend.arguments import emit
from graphc.frontend.logic import isinf
from graphc.frontend.movement import expand
from graphc.frontend.pointwise import Operand, as_floating, as_one_dtype, where
from graphc.frontend.public import public
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.op import OpDef
from graphc.types import DType, broadcast_shapes

# What has a name at the top level too

digamma = psi = public(elementary.digamma, "digamma")
erf = public(pointwise.erf, "erf")
erfc = public(elementary.erfc, "erfc")
erfinv = public(elementary.erfinv, "erfinv")
exp2 = public(elementary.exp2, "exp2")
expit = public(pointwise.sigmoid, "expit")
expm1 = public(pointwise.expm1, "expm1")
gammainc = public(arithmetic.igamma, "igamma")
gammaincc = public(arithmetic.igammac, "igammac")
gammaln = public(elementary.lgamma, "gammaln")
i0 = modified_bessel_i0 = public(elementary.i0, "i0")
log1p = public(pointwise.log1p, "log1p")
logit = public(elementary.logit, "logit")
logsumexp = public(reductions.logsumexp, "logsumexp")
multigammaln = public(elementary.mvlgamma, "multigammaln")
polygamma = public(elementary.polygamma, "polygamma")
round = public(pointwise.round, "round")
sinc = public(elementary.sinc, "sinc")
xlogy = public(arithmetic.xlogy, "xlogy")


F = TypeVar("F", bound=Callable[..., Any])


def _public(function: F) -> F:
    """With an `out=` argument, as all functions of the top level have it."""
    return public(function, f"special_{function.__name__}")  # type: ignore[return-value]


def _apply(record: OpDef, name: str, *operands: Any) -> Tensor:
    return named(emit(record, operands, {}), f"Special{name}")


@_public
def softmax(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension.

    UnsupportedError for integers and bools, unless `dtype` converts them; DimError for a dimension that there is not.

    >>> graphc.special.softmax(graphc.tensor([0.0, 0.0]), 0)
    tensor([0.5000, 0.5000])
    """
    return activations.softmax(input, dim, dtype=dtype)


@_public
def log_softmax(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """log(softmax(x)) along a dimension.

    UnsupportedError for integers and bools, unless `dtype` converts them; DimError for a dimension that there is not.

    >>> graphc.special.log_softmax(graphc.tensor([0.0, 0.0]), 0)
    tensor([-0.6931, -0.6931])
    """
    return activations.log_softmax(input, dim, dtype=dtype)


# Entropy and products with logarithms


@_public
def entr(input: Tensor) -> Tensor:
    """-x log(x); 0 at 0, and -inf below.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.entr(graphc.tensor([0.0, 0.5, -1.0]))
    tensor([-0.0000, 0.3466,   -inf])
    """
    return _apply(ops.entr, "Entr", input)


@_public
def xlog1py(input: Operand, other: Operand) -> Tensor:
    """input * log(1 + other), which is 0 for input = 0 unless other is nan.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.xlog1py(graphc.tensor([0.0, 2.0]), graphc.tensor([-1.0, 1.0]))
    tensor([0.0000, 1.3863])
    """
    return _apply(ops.xlog1py, "Xlog1Py", *as_one_dtype(input, other))


@_public
def zeta(input: Operand, other: Operand) -> Tensor:
    """The Hurwitz zeta function: the sum of (k + other) ** -input over k = 0, 1, 2, ...

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.zeta(graphc.tensor([2.0]), 1.0)
    tensor([1.6449])
    """
    return _apply(ops.zeta, "Zeta", *as_one_dtype(input, other))


# The normal distribution


@_public
def erfcx(input: Tensor) -> Tensor:
    """exp(x^2) erfc(x), which neither overflows nor vanishes for large x.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.erfcx(graphc.tensor([0.0, 100.0]))
    tensor([1.0000, 0.0056])
    """
    return _apply(ops.erfcx, "Erfcx", input)


@_public
def ndtr(input: Tensor) -> Tensor:
    """The probability that a normal variable is at most x.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.ndtr(graphc.tensor([0.0, 1.0]))
    tensor([0.5000, 0.8413])
    """
    return named(elementary.erfc(input * -math.sqrt(0.5)) * 0.5, "SpecialNdtr")


@_public
def log_ndtr(input: Tensor) -> Tensor:
    """log(ndtr(x)), exact far below zero too.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.log_ndtr(graphc.tensor([0.0, -30.0]))
    tensor([  -0.6931, -454.3213])
    """
    return _apply(ops.log_ndtr, "LogNdtr", input)


@_public
def ndtri(input: Tensor) -> Tensor:
    """The inverse of `ndtr`; nan outside [0, 1].

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.ndtri(graphc.tensor([0.5, 0.9]))
    tensor([0.0000, 1.2816])
    """
    return _apply(ops.ndtri, "Ndtri", input)


# Bessel and Airy functions


@_public
def i0e(input: Tensor) -> Tensor:
    """exp(-|x|) i0(x).

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.i0e(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 0.4658])
    """
    return _apply(ops.i0e, "I0E", input)


@_public
def i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, of order 1.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.i1(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.5652])
    """
    return _apply(ops.i1, "I1", input)


@_public
def i1e(input: Tensor) -> Tensor:
    """exp(-|x|) i1(x).

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.i1e(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.2079])
    """
    return _apply(ops.i1e, "I1E", input)


modified_bessel_i1 = i1


@_public
def bessel_j0(input: Tensor) -> Tensor:
    """The Bessel function of the first kind, of order 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.bessel_j0(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 0.7652])
    """
    return _apply(ops.j0, "BesselJ0", input)


@_public
def bessel_j1(input: Tensor) -> Tensor:
    """The Bessel function of the first kind, of order 1.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.bessel_j1(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.4401])
    """
    return _apply(ops.j1, "BesselJ1", input)


@_public
def bessel_y0(input: Tensor) -> Tensor:
    """The Bessel function of the second kind, of order 0; nan below 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.bessel_y0(graphc.tensor([1.0, -1.0]))
    tensor([0.0883,    nan])
    """
    return _apply(ops.y0, "BesselY0", input)


@_public
def bessel_y1(input: Tensor) -> Tensor:
    """The Bessel function of the second kind, of order 1; nan below 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.bessel_y1(graphc.tensor([1.0, -1.0]))
    tensor([-0.7812,     nan])
    """
    return _apply(ops.y1, "BesselY1", input)


@_public
def modified_bessel_k0(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind, of order 0; nan below 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.modified_bessel_k0(graphc.tensor([1.0, 2.0]))
    tensor([0.4210, 0.1139])
    """
    return _apply(ops.k0, "ModifiedBesselK0", input)


@_public
def modified_bessel_k1(input: Tensor) -> Tensor:
    """The modified Bessel function of the second kind, of order 1; nan below 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.modified_bessel_k1(graphc.tensor([1.0, 2.0]))
    tensor([0.6019, 0.1399])
    """
    return _apply(ops.k1, "ModifiedBesselK1", input)


@_public
def scaled_modified_bessel_k0(input: Tensor) -> Tensor:
    """exp(x) modified_bessel_k0(x).

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.scaled_modified_bessel_k0(graphc.tensor([1.0, 2.0]))
    tensor([1.1445, 0.8416])
    """
    return _apply(ops.k0e, "ScaledModifiedBesselK0", input)


@_public
def scaled_modified_bessel_k1(input: Tensor) -> Tensor:
    """exp(x) modified_bessel_k1(x).

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.scaled_modified_bessel_k1(graphc.tensor([1.0, 2.0]))
    tensor([1.6362, 1.0335])
    """
    return _apply(ops.k1e, "ScaledModifiedBesselK1", input)


@_public
def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(x) / x, and 1 at 0: the spherical Bessel function of the first kind, of order 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.spherical_bessel_j0(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 0.8415])
    """
    x = as_floating(input)
    infinite = isinf(x)
    return named(where(infinite, 0.0, elementary.sin_ratio(where(infinite, 1.0, x))), "SpecialSphericalBesselJ0")


@_public
def airy_ai(input: Tensor) -> Tensor:
    """The Airy function Ai, which solves y'' = x y and vanishes for large x.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.special.airy_ai(graphc.tensor([0.0, 1.0]))
    tensor([0.3550, 0.1353])
    """
    return _apply(ops.airy_ai, "AiryAi", input)


# Orthogonal polynomials of degree n, which are 0 for n < 0


def _polynomial(kind: str, input: Operand, n: Operand) -> Tensor:
    x, degree = as_one_dtype(input, n)
    shape = broadcast_shapes(tuple(x._data.shape), tuple(degree._data.shape), op=kind)
    return emit(ops.polynomial, (expand(x, shape), expand(degree, shape)), {"kind": kind})


@_public
def chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the first kind: T(cos a) = cos(n a).

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.chebyshev_polynomial_t(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([ 1.0000,  0.5000, -0.5000])
    """
    return _polynomial("chebyshev_t", input, n)


@_public
def chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the second kind: U(cos a) = sin((n + 1) a) / sin(a).

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.chebyshev_polynomial_u(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([1., 1., 0.])
    """
    return _polynomial("chebyshev_u", input, n)


@_public
def chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the third kind: V(cos a) = cos((n + 1/2) a) / cos(a / 2).

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.chebyshev_polynomial_v(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([ 1.,  0., -1.])
    """
    return _polynomial("chebyshev_u", input, n) - _polynomial("chebyshev_u", input, n - 1)


@_public
def chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the fourth kind: W(cos a) = sin((n + 1/2) a) / sin(a / 2).

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.chebyshev_polynomial_w(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([1., 2., 1.])
    """
    return _polynomial("chebyshev_u", input, n) + _polynomial("chebyshev_u", input, n - 1)


@_public
def shifted_chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the first kind of 2 x - 1.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.shifted_chebyshev_polynomial_t(graphc.tensor([0.75]), graphc.tensor([0, 1, 2]))
    tensor([ 1.0000,  0.5000, -0.5000])
    """
    return chebyshev_polynomial_t(input * 2 - 1, n)


@_public
def shifted_chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the second kind of 2 x - 1.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.shifted_chebyshev_polynomial_u(graphc.tensor([0.75]), graphc.tensor([0, 1, 2]))
    tensor([1., 1., 0.])
    """
    return chebyshev_polynomial_u(input * 2 - 1, n)


@_public
def shifted_chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the third kind of 2 x - 1.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.shifted_chebyshev_polynomial_v(graphc.tensor([0.75]), graphc.tensor([0, 1, 2]))
    tensor([ 1.,  0., -1.])
    """
    return chebyshev_polynomial_v(input * 2 - 1, n)


@_public
def shifted_chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """The Chebyshev polynomial of the fourth kind of 2 x - 1.

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.shifted_chebyshev_polynomial_w(graphc.tensor([0.75]), graphc.tensor([0, 1, 2]))
    tensor([1., 2., 1.])
    """
    return chebyshev_polynomial_w(input * 2 - 1, n)


@_public
def hermite_polynomial_h(input: Operand, n: Operand) -> Tensor:
    """The physicist's Hermite polynomial: 1, 2 x, 4 x^2 - 2, ...

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.hermite_polynomial_h(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([ 1.,  1., -1.])
    """
    return _polynomial("hermite_h", input, n)


@_public
def hermite_polynomial_he(input: Operand, n: Operand) -> Tensor:
    """The probabilist's Hermite polynomial: 1, x, x^2 - 1, ...

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.hermite_polynomial_he(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([ 1.0000,  0.5000, -0.7500])
    """
    return _polynomial("hermite_he", input, n)


@_public
def laguerre_polynomial_l(input: Operand, n: Operand) -> Tensor:
    """The Laguerre polynomial: 1, 1 - x, (x^2 - 4 x + 2) / 2, ...

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.laguerre_polynomial_l(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([1.0000, 0.5000, 0.1250])
    """
    return _polynomial("laguerre_l", input, n)


@_public
def legendre_polynomial_p(input: Operand, n: Operand) -> Tensor:
    """The Legendre polynomial: 1, x, (3 x^2 - 1) / 2, ...

    ShapeError where the shapes do not broadcast, UnsupportedDTypeError for complex numbers.

    >>> graphc.special.legendre_polynomial_p(graphc.tensor([0.5]), graphc.tensor([0, 1, 2]))
    tensor([ 1.0000,  0.5000, -0.1250])
    """
    return _polynomial("legendre_p", input, n)


__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t", "chebyshev_polynomial_u",
    "chebyshev_polynomial_v", "chebyshev_polynomial_w", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit",
    "expm1", "gammainc", "gammaincc", "gammaln", "hermite_polynomial_h", "hermite_polynomial_he", "i0", "i0e", "i1", "i1e",
    "laguerre_polynomial_l", "legendre_polynomial_p", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp",
    "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "multigammaln", "ndtr", "ndtri",
    "polygamma", "psi", "round", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w", "sinc", "softmax",
    "spherical_bessel_j0", "xlog1py", "xlogy", "zeta",
]  # fmt: skip
