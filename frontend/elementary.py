"""Functions of one number beyond exp, log, sin and cos: circles, hyperbolas, the gamma and the error function."""

from __future__ import annotations

import math

from graphc import ops
from graphc.errors import GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.pointwise import as_floating, cast, clamp, log, log1p, sin, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

FUNCTIONS = """
    acos acosh asin asinh atan atanh cosh deg2rad digamma erfc erfinv exp2 i0 lgamma log10 log2 logit mvlgamma polygamma
    rad2deg sinc sinh tan
"""
METHODS = """
    acos acosh asin asinh atan atanh cosh deg2rad digamma erfc erfinv exp2 i0 lgamma log10 log2 logit mvlgamma
    rad2deg sinc sinh tan
"""
IN_PLACE = METHODS
ALIASES = {
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctanh": "atanh",
}

# Circles and hyperbolas


def tan(input: Tensor) -> Tensor:
    """The tangent of each element, an angle in radians. Integers give float32.

    >>> graphc.tan(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5574])
    """
    return emit(ops.tan, (input,), {})


def asin(input: Tensor) -> Tensor:
    """The angle from -pi/2 to pi/2 whose sine is input; nan outside [-1, 1]. Integers give float32.

    >>> graphc.asin(graphc.tensor([0.0, 1.0, 2.0]))
    tensor([0.0000, 1.5708,    nan])
    """
    return emit(ops.asin, (input,), {})


def acos(input: Tensor) -> Tensor:
    """The angle from 0 to pi whose cosine is input; nan outside [-1, 1]. Integers give float32.

    >>> graphc.acos(graphc.tensor([1.0, 0.0, 2.0]))
    tensor([0.0000, 1.5708,    nan])
    """
    return emit(ops.acos, (input,), {})


def atan(input: Tensor) -> Tensor:
    """The angle between -pi/2 and pi/2 whose tangent is input. Integers give float32.

    >>> graphc.atan(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7854])
    """
    return emit(ops.atan, (input,), {})


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine, (e^x - e^-x) / 2. Integers give float32.

    >>> graphc.sinh(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 1.1752])
    """
    return emit(ops.sinh, (input,), {})


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine, (e^x + e^-x) / 2. Integers give float32.

    >>> graphc.cosh(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 1.5431])
    """
    return emit(ops.cosh, (input,), {})


def asinh(input: Tensor) -> Tensor:
    """The number whose hyperbolic sine is input. Integers give float32.

    >>> graphc.asinh(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8814])
    """
    return emit(ops.asinh, (input,), {})


def acosh(input: Tensor) -> Tensor:
    """The number of at least 0 whose hyperbolic cosine is input; nan below 1. Integers give float32.

    >>> graphc.acosh(graphc.tensor([1.0, 2.0, 0.0]))
    tensor([0.0000, 1.3170,    nan])
    """
    return emit(ops.acosh, (input,), {})


def atanh(input: Tensor) -> Tensor:
    """The number whose hyperbolic tangent is input; nan outside [-1, 1]. Integers give float32.

    >>> graphc.atanh(graphc.tensor([0.0, 0.5, 2.0]))
    tensor([0.0000, 0.5493,    nan])
    """
    return emit(ops.atanh, (input,), {})


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians. Integers give float32.

    >>> graphc.deg2rad(graphc.tensor([180.0, 90.0]))
    tensor([3.1416, 1.5708])
    """
    return named(input * (math.pi / 180), "Deg2Rad")


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees. Integers give float32.

    >>> graphc.rad2deg(graphc.tensor([3.141593, 1.570796]))
    tensor([180.0000,  90.0000])
    """
    return named(input * (180 / math.pi), "Rad2Deg")


def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0. Integers give float32.

    >>> graphc.sinc(graphc.tensor([0.0, 0.5]))
    tensor([1.0000, 0.6366])
    """
    return named(sin_ratio(as_floating(input) * math.pi), "Sinc")


def sin_ratio(angle: Tensor) -> Tensor:
    """sin(a) / a, and 1 at 0: near zero by its series, whose derivatives are right there too."""
    square = angle * angle
    near = (abs(square) if angle.dtype.is_complex else square) < 1e-3
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    divisor = where(near, 1.0, angle)
    return where(near, series, sin(divisor) / divisor)


# Powers and logarithms


def exp2(input: Tensor) -> Tensor:
    """2 to the power of each element. Integers give float32.

    >>> graphc.exp2(graphc.tensor([0.0, 3.0]))
    tensor([1., 8.])
    """
    return emit(ops.exp2, (input,), {})


def log2(input: Tensor) -> Tensor:
    """The logarithm of each element to base 2. Integers give float32.

    >>> graphc.log2(graphc.tensor([2, 1]))
    tensor([1., 0.])
    """
    return emit(ops.log2, (input,), {})


def log10(input: Tensor) -> Tensor:
    """The logarithm of each element to base 10. Integers give float32.

    >>> graphc.log10(graphc.tensor([10, 1]))
    tensor([1., 0.])
    """
    return emit(ops.log10, (input,), {})


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)); with `eps`, x is kept between eps and 1 - eps.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.logit(graphc.tensor([0.5, 0.9]))
    tensor([0.0000, 2.1972])
    >>> graphc.logit(graphc.tensor([0.0, 1.0]), eps=0.1)
    tensor([-2.1972,  2.1972])
    """
    x = as_floating(input)
    if eps is not None:
        return named(log((kept := clamp(x, eps, 1 - eps)) / (1 - kept)), "Logit")
    x = x * cast(where((x < 0) | (x > 1), math.nan, 1.0), x.dtype)  # neither a value nor a slope
    return named(log(x) - log1p(-x), "Logit")


# The error function's and the gamma function's relatives, Bessel's


@composite(large=False)
def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), exact for large input too.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.erfc(graphc.tensor([0.0, 5.0]))
    tensor([1.0000e+00, 1.5375e-12])
    """
    return emit(ops.erfc, (input,), {})


def erfinv(input: Tensor) -> Tensor:
    """The number whose error function is input; nan outside [-1, 1].

    UnsupportedDTypeError for complex numbers.

    >>> graphc.erfinv(graphc.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4769])
    """
    return emit(ops.erfinv, (input,), {})


def lgamma(input: Tensor) -> Tensor:
    """The logarithm of the absolute value of the gamma function.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.lgamma(graphc.tensor([1.0, 5.0]))
    tensor([0.0000, 3.1781])
    """
    return emit(ops.lgamma, (input,), {})


def digamma(input: Tensor) -> Tensor:
    """The derivative of the logarithm of the gamma function.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.digamma(graphc.tensor([1.0, 2.0]))
    tensor([-0.5772,  0.4228])
    """
    return emit(ops.digamma, (input,), {})


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma.

    ArgumentError for a negative order, GraphcError for one that is no int.

    >>> graphc.polygamma(1, graphc.tensor([1.0]))
    tensor([1.6449])
    """
    if n == 0:
        return digamma(input)
    return emit(ops.polygamma, (as_floating(input),), {"n": n})


def polygamma_method(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of digamma.

    >>> graphc.tensor([1.0]).polygamma(1)
    tensor([1.6449])
    """
    return polygamma(n, self)


def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p:
    log(pi) p (p - 1) / 4 + the sum of lgamma(x - i / 2) for i from 0 to p - 1.

    GraphcError for a p below 1.

    >>> graphc.mvlgamma(graphc.tensor([2.0, 3.0]), p=2)
    tensor([0.4516, 1.5502])
    """
    if p < 1:
        raise GraphcError("p has to be greater than or equal to 1", got=f"p = {p}")
    x = as_floating(input)
    out = lgamma(x)
    for i in range(1, p):
        out = out + lgamma(x - i / 2)
    return named(out + math.log(math.pi) * p * (p - 1) / 4, "Mvlgamma")


def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, of order 0.

    UnsupportedDTypeError for complex numbers.

    >>> graphc.i0(graphc.tensor([0.0, 1.0]))
    tensor([1.0000, 1.2661])
    """
    return emit(ops.i0, (input,), {})
