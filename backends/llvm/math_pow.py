"""pow as vector code: 2^n m to the power y is e^(y log m + y n ln2), the logarithm in twice the working precision."""

from __future__ import annotations

import math

from graphc.backends.llvm.lanes import Lanes, Mask, Real
from graphc.backends.llvm.math_exp import EXP_RANGE, LN2, expm1_polynomial, scale
from graphc.backends.llvm.math_exp import reduce as reduce_exp
from graphc.backends.llvm.math_log import reduce_any as reduce_log

# (atanh s - s - s^3 / 3) / s^5 in s^2 for |s| <= (sqrt(2) - 1) / (sqrt(2) + 1), degrees 2 and 6; error of
# atanh s 2^-36.7 and 2^-66.2
ATANH = {
    "float": (0.20000078, 0.1427342, 0.11712258),
    "double": (
        0.20000000000001183, 0.14285714285027598, 0.1111111126338088, 0.09090891919198583, 0.07693389605222477,
        0.0662817714801886, 0.06600140078339188,
    ),
}  # fmt: skip

# 1 / 3 rounded, and what the rounding lost
THIRD = {"float": (0.3333333432674408, -9.934107e-09), "double": (0.3333333333333333, 1.850371707708594e-17)}


def _log(v: Lanes, x: Real) -> tuple[Real, Real]:
    """log x = high + low for a positive finite x, as n ln2 + 2 atanh s with s = (m - 1) / (m + 1)."""
    m, n = reduce_log(v, x)
    f = m - 1.0
    divisor, divisor_low = v.fast_two_sum(1.0, m)
    inverse = 1.0 / divisor
    s = f * inverse
    product, error = v.two_prod(s, divisor)
    s_low = (((f - product) - error) - s * divisor_low) * inverse
    square, square_low = v.two_prod(s, s)
    square_low = v.fma(s + s, s_low, square_low)
    # 1/3 + s^2 Q(s^2), times s^3
    third, third_low = THIRD[v.scalar]
    quotient = v.polynomial(square, ATANH[v.scalar])
    factor, factor_low = v.fast_two_sum(third, square * quotient)
    factor_low = v.fma(square_low, quotient, factor_low + third_low)
    curve, curve_low = v.two_prod(square, factor)
    curve_low = v.fma(square, factor_low, v.fma(square_low, factor, curve_low))
    cubic, cubic_low = v.two_prod(s, curve)
    cubic_low = v.fma(s, curve_low, v.fma(s_low, curve, cubic_low))
    high, low = v.fast_two_sum(s, cubic)
    low = low + (cubic_low + s_low)
    head, rest = LN2[v.scalar]
    high, error = v.fast_two_sum(n * head, high + high)
    return v.fast_two_sum(high, v.fma(n, rest, low + low) + error)


def _is_integer(v: Lanes, magnitude: Real) -> Mask:
    limit = 2.0**v.format.mantissa
    return (magnitude >= limit) | ((magnitude + limit) - limit).equals(magnitude)


def pow(v: Lanes, x: Real, y: Real) -> Real:
    a = abs(x)
    high, low = _log(v, a)
    high = v.select(a.equals(0.0), -math.inf, v.select(a < math.inf, high, math.inf))
    # a larger y gives 0, 1 or inf just the same, and none of the steps below overflows with this one
    y_bound = 2.0 ** (v.format.bias // 2)
    y_held = v.clamp(y, -y_bound, y_bound)
    product, error = v.two_prod(y_held, high)
    error = v.fma(y_held, low, error)
    error = v.select(abs(product) < v.format.bias + 100.0, error, 0.0)  # inf - inf otherwise
    r, r_low, n = reduce_exp(v, v.clamp(product, *EXP_RANGE[v.scalar]), error)
    result = scale(expm1_polynomial(v, r, r_low) + 1.0, n)

    y_size = abs(y)
    integer = _is_integer(v, y_size)
    odd = integer & ~_is_integer(v, y_size * 0.5)
    result = v.select(x.bits().is_negative() & odd, -result, result)
    result = v.select((x < 0.0) & (x > -math.inf) & ~integer, math.nan, result)
    result = v.select(x.unordered(y), x + y, result)
    return v.select(x.equals(1.0) | y.equals(0.0), 1.0, result)
