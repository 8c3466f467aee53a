"""log, its family and the inverse hyperbolic functions as vector code.

A number is written 2^n m with m in [sqrt(1/2), sqrt(2)), f = m - 1, and log(1 + f) = f + f^2 R(f).
"""

from __future__ import annotations

import math

from graphc.backends.llvm.lanes import Bits, Lanes, Mask, Real, RealLike
from graphc.backends.llvm.math_exp import LN2

# (log(1 + f) - f) / f^2 for 1 + f in [sqrt(1/2), sqrt(2)], degrees 8 and 19; the constant term is exactly -1/2.
# Error of log(1 + f) 2^-27.1 and 2^-56.4
LOG = {
    "float": (-0.5, 0.33333355, -0.25000852, 0.19999763, -0.16621315, 0.14228088, -0.1320345, 0.12615147, -0.07353797),
    "double": (
        -0.5, 0.3333333333333307, -0.24999999999987255, 0.20000000000095142, -0.16666666669943656,
        0.14285714276631992, -0.12499999682362517, 0.1111111134542409, -0.10000015655158734, 0.09090917733943879,
        -0.08332898928449797, 0.07691641144344401, -0.0714973867342761, 0.06683479553115854, -0.06193038278564624,
        0.05673426502009811, -0.0570167233161253, 0.0650366946936157, -0.059167787797170565, 0.025580778242003135,
    ),
}  # fmt: skip


# log10(2) as a head short enough for n * head to be exact, and the rest; log2 needs no such pair, log has LN2
LOG10_2 = {
    "float": (0.30103302001953125, -3.0243555e-06),
    "double": (0.30102999566395283, 2.8363394551044964e-14),
}
# 1 / ln2 and 1 / ln10 rounded, and what the rounding lost
LOG2_E = {
    "float": (1.4426950216293335, 1.925963e-08),
    "double": (1.4426950408889634, 2.0355273740931033e-17),
}
LOG10_E = {
    "float": (0.4342944920063019, -1.010305e-08),
    "double": (0.4342944819032518, 1.098319650216765e-17),
}


def reduce(v: Lanes, x: Real) -> tuple[Real, Real, Bits]:
    """m, n and the bits n + bias of x = 2^n m for a normal x > 0, m in [sqrt(1/2), sqrt(2)); anything for another x."""
    fmt = v.format
    root = fmt.bits_of(math.sqrt(0.5))
    offset = x.bits() + (fmt.bits_of(1.0) - root)
    m = ((offset & ((1 << fmt.mantissa) - 1)) + root).as_real()
    exponent = offset >> fmt.mantissa
    n = (exponent | fmt.bits_of(2.0**fmt.mantissa)).as_real() - (2.0**fmt.mantissa + fmt.bias)
    return m, n, exponent


def reduce_any(v: Lanes, x: Real) -> tuple[Real, Real]:
    """m and n of x = 2^n m for any x > 0, subnormal too."""
    shift = float(v.format.precision)
    small = x < v.format.smallest_normal
    m, n, _ = reduce(v, v.select(small, x * 2.0**shift, x))
    return m, n - v.select(small, shift, 0.0)


def series(v: Lanes, m: Real, n: Real) -> tuple[Real, Real]:
    """f and the rest of log(2^n m) = n * LN2's head + (f + rest)."""
    f = m - 1.0
    return f, v.fma(f * f, v.polynomial(f, LOG[v.scalar]), n * LN2[v.scalar][1])


def _with_edges(v: Lanes, x: Real, result: Real) -> Real:
    """The logarithm's values where `x` is no positive finite number."""
    result = v.select(x > 0.0, result, v.select(x.equals(0.0), -math.inf, math.nan))
    return v.select(x.equals(math.inf), math.inf, result)


def log(v: Lanes, x: Real) -> Real:
    m, n = reduce_any(v, x)
    f, tail = series(v, m, n)
    return _with_edges(v, x, v.fma(n, LN2[v.scalar][0], f + tail))


def _log_to_base(v: Lanes, x: Real, unit: tuple[float, float], factor: tuple[float, float]) -> Real:
    """n * unit + log(m) * factor, each constant a head and a rest."""
    m, n = reduce_any(v, x)
    f = m - 1.0
    product, error = v.two_prod(f, factor[0])
    curve = f * f * v.polynomial(f, LOG[v.scalar])
    tail = v.fma(n, unit[1], v.fma(curve, factor[0], v.fma(f, factor[1], error)))
    return _with_edges(v, x, v.fma(n, unit[0], product + tail))


def log2(v: Lanes, x: Real) -> Real:
    return _log_to_base(v, x, (1.0, 0.0), LOG2_E[v.scalar])


def log10(v: Lanes, x: Real) -> Real:
    return _log_to_base(v, x, LOG10_2[v.scalar], LOG10_E[v.scalar])


def log_of_sum(v: Lanes, high: Real, low: RealLike, doubled: Mask | None = None) -> Real:
    """log(1 + high + low) for a finite sum above 0, with |low| a rounding error of `high`; plus ln2 where `doubled`."""
    total, error = v.two_sum(1.0, high)
    m, n, exponent = reduce(v, total)
    f = m - 1.0
    # the part lost in `total`, relative to 2^n; for a large sum it does not count, and its scale is no normal number
    lost = (error + low) * ((2 * v.format.bias - exponent) << v.format.mantissa).as_real()
    lost = v.select(high < 2.0 ** (2 * v.format.precision), lost, 0.0)
    if doubled is not None:
        n = n + v.select(doubled, 1.0, 0.0)
    head, rest = LN2[v.scalar]
    # 1 - f + f^2 is near enough to 1 / m for a term of this size
    tail = v.fma(n, rest, lost * v.fma(f, f - 1.0, 1.0))
    return v.fma(n, head, f + v.fma(f * f, v.polynomial(f, LOG[v.scalar]), tail))


def log1p(v: Lanes, x: Real) -> Real:
    result = log_of_sum(v, x, 0.0).copysign(x)
    result = v.select(x > -1.0, result, v.select(x.equals(-1.0), -math.inf, math.nan))
    return v.select(x.equals(math.inf), math.inf, result)


def _is_large(v: Lanes, x: Real) -> Mask:
    """Where x^2 + 1 and x^2 - 1 are x^2 in the logarithm's precision."""
    return x > 2.0 ** (v.format.precision // 2 + 2)


def asinh(v: Lanes, x: Real) -> Real:
    a = abs(x)
    large = _is_large(v, a)
    b = v.select(large, 1.0, a)
    square = b * b
    high, low = v.fast_two_sum(b, square / ((square + 1.0).sqrt() + 1.0))
    result = log_of_sum(v, v.select(large, a - 1.0, high), v.select(large, 0.0, low), large)
    return v.select(a < math.inf, result, a).copysign(x)


def acosh(v: Lanes, x: Real) -> Real:
    large = _is_large(v, x)
    t = v.select(large, 1.0, x) - 1.0
    # root + root_low = sqrt(t (t + 2)): near 1 the result is proportional to it
    factor, factor_low = v.two_sum(t, 2.0)
    square, error = v.two_prod(t, factor)
    error = v.fma(t, factor_low, error)
    root = square.sqrt()
    product, product_error = v.two_prod(root, root)
    root_low = ((square - product) - product_error + error) * (0.5 / v.greatest(root, v.format.smallest_normal))
    high, low = v.two_sum(root, t)
    result = log_of_sum(v, v.select(large, x - 1.0, high), v.select(large, 0.0, low + root_low), large)
    return v.select(x >= 1.0, v.select(x < math.inf, result, x), math.nan)


def atanh(v: Lanes, x: Real) -> Real:
    a = abs(x)
    # q + q_low = 2 a / (1 - a)
    divisor = 1.0 - a
    divisor_low = (1.0 - divisor) - a
    inverse = 1.0 / divisor
    q = (a + a) * inverse
    product, error = v.two_prod(q, divisor)
    q_low = ((((a + a) - product) - error) - q * divisor_low) * inverse
    result = 0.5 * log_of_sum(v, q, q_low)
    return v.select(a < 1.0, result, v.select(a.equals(1.0), math.inf, math.nan)).copysign(x)


FUNCTIONS = {
    "log": log,
    "log2": log2,
    "log10": log10,
    "log1p": log1p,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
}
