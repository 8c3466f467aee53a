"""exp and its family as vector code.

All of them write x = n ln2 + r with |r| <= ln2 / 2, evaluate a polynomial in r, and multiply by 2^n.

The coefficient tables here and in the other `math_*` files come from `tests/minimax.py`: each approximates the
expression given above it, and the errors stated are the polynomial's largest, relative to the function named, in float
and in double.
"""

from __future__ import annotations

import math

from graphc.backends.llvm.lanes import Bits, Lanes, Mask, Real

# (e^r - 1 - r) / r^2 for |r| <= ln2 / 2, degrees 4 and 10; error of expm1 2^-26.0 and 2^-61.5
EXP = {
    "float": (0.49999997, 0.16666538, 0.041667536, 0.008367298, 0.0013864145),
    "double": (
        0.5, 0.16666666666666677, 0.04166666666666659, 0.008333333333321185, 0.0013888888888936482,
        0.00019841269887708473, 2.4801587212003376e-05, 2.7557242239921314e-06, 2.755737370888402e-07,
        2.5109835795190962e-08, 2.0883582120058147e-09,
    ),
}  # fmt: skip

# (sinh x - x) / x^3 in x^2 for |x| <= 1, degrees 3 and 6; error of sinh 2^-31.4 and 2^-61.5
SINH = {
    "float": (0.16666667, 0.008333315, 0.00019841648, 2.7899666e-06),
    "double": (
        0.16666666666666669, 0.00833333333333297, 0.00019841269841531215, 2.7557319130352384e-06,
        2.5052126861988934e-08, 1.6056999965203791e-10, 7.76591663059676e-13,
    ),
}  # fmt: skip

# (tanh x - x) / x^3 in x^2 for |x| <= TANH_NEAR, where tanh x is 1/2; degrees 4 and 10; error of tanh 2^-29.7 and 2^-60.6
TANH_NEAR = 0.55
TANH = {
    "float": (-0.33333316, 0.13332555, -0.053849418, 0.021060893, -0.006260202),
    "double": (
        -0.333333333333333, 0.13333333333326597, -0.05396825396374794, 0.02186948838547408, -0.008863232594695432,
        0.0035920919575252817, -0.0014555423499873071, 0.0005884423579230765, -0.0002333759693905696,
        8.330822170437792e-05, -1.948951010263056e-05,
    ),
}  # fmt: skip

# ln2 as a head short enough for n * head to be exact, and the rest
LN2 = {"float": (0.693145751953125, 1.4286068203094172e-06), "double": (0.6931471805598903, 5.497923018708371e-14)}

# Below the first exp rounds to 0, above the second to inf (their n still fits `scale`)
EXP_RANGE = {"float": (-104.0, 89.0), "double": (-746.0, 710.0)}
EXPM1_IS_MINUS_ONE = {"float": -18.0, "double": -38.0}
TANH_IS_ONE = {"float": 9.5, "double": 20.0}


def reduce(v: Lanes, x: Real, tail: Real | None = None, bias: int = 0) -> tuple[Real, Real, Bits]:
    """Write x + tail = n ln2 + r + r_low; the low bits of the third result are n + bias (twice the format's if 0)."""
    magic = v.format.round_magic + (bias or 2 * v.format.bias)
    shifted = v.fma(x, 1 / math.log(2), magic)
    n = shifted - magic
    head, rest = LN2[v.scalar]
    high = v.fma(n, -head, x)
    if tail is None:
        r = v.fma(n, -rest, high)
        return r, v.fma(n, -rest, high - r), shifted.bits()
    low = v.fma(n, -rest, tail)
    r = high + low
    return r, (high - r) + low, shifted.bits()


def scale(x: Real, n: Bits, vanishes: Mask | None = None) -> Real:
    """x * 2^n for `n` as `reduce` gives it, over- and underflowing with one rounding; 0 where it `vanishes`, which is to be
    asked where it is usual, as under a mask of -inf: an underflow takes the processor a hundred times as long as a product."""
    v = x.lanes
    if v.has_scalef:
        scaled = x.scalef(n.as_real() - (v.format.round_magic + 2 * v.format.bias))
        return scaled if vanishes is None else v.select(vanishes, 0.0, scaled)  # one instruction, which does not underflow then
    shift = v.format.mantissa
    half = n >> 1
    factor = (half << shift).as_real()
    if vanishes is not None:
        factor = v.select(vanishes, 0.0, factor)
    return x * factor * ((n - half) << shift).as_real()


def power_of_two(v: Lanes, n: Bits) -> Real:
    """2^n for `n` as `reduce` gives it with the format's bias; n is that of a normal number."""
    return (n << v.format.mantissa).as_real()


def exp_polynomial(v: Lanes, r: Real) -> Real:
    return v.fma(v.fma(v.polynomial(r, EXP[v.scalar]), r, 1.0), r, 1.0)


def expm1_polynomial(v: Lanes, r: Real, r_low: Real) -> Real:
    return r + v.fma(r * r, v.polynomial(r, EXP[v.scalar]), r_low)


def exp_of_sum(v: Lanes, r: Real, r_low: Real) -> tuple[Real, Real]:
    """e^(r + r_low) to a few bits more than the format has, as a rounded number and the rest."""
    high, low = v.fast_two_sum(1.0, r)
    return v.fast_two_sum(high, v.fma(r * r, v.polynomial(r, EXP[v.scalar]), low + r_low))


def exp(v: Lanes, x: Real) -> Real:
    low, high = EXP_RANGE[v.scalar]
    r, _, n = reduce(v, v.least(high, x) if v.has_scalef else v.clamp(x, low, high))
    return scale(exp_polynomial(v, r), n, x < low)


def exp2(v: Lanes, x: Real) -> Real:
    bias, magic = v.format.bias, v.format.round_magic + 2 * v.format.bias
    x = v.clamp(x, -bias - v.format.precision - 1.0, bias + 2.0)
    shifted = x + magic
    r = (x - (shifted - magic)) * math.log(2)
    return scale(exp_polynomial(v, r), shifted.bits())


def expm1(v: Lanes, x: Real) -> Real:
    x = v.clamp(x, EXPM1_IS_MINUS_ONE[v.scalar], EXP_RANGE[v.scalar][1])
    r, r_low, n = reduce(v, x)
    q = expm1_polynomial(v, r, r_low)
    # 2^n q + (2^n - 1) with 2^n = s t, so that the sum does not overflow before its time
    shift, half = v.format.mantissa, n >> 1
    s, t_bits = (half << shift).as_real(), n - half
    t, t_inverse = (t_bits << shift).as_real(), ((2 * v.format.bias - t_bits) << shift).as_real()
    return (v.fma(s, q, s - t_inverse) * t).copysign(x)


def sigmoid(v: Lanes, x: Real) -> Real:
    e = exp(v, -abs(x))
    divisor, divisor_low = v.fast_two_sum(1.0, e)
    quotient = v.select(x < 0.0, e, 1.0) / divisor
    # what rounding the divisor did, which is between 1 and 2, is taken back: all of it or half of it as it should be
    return v.fma(quotient * divisor_low, -0.75, quotient)


def _half_exp(v: Lanes, x: Real) -> Real:
    """e^|x| / 2, which overflows only where sinh and cosh do."""
    r, _, n = reduce(v, v.least(EXP_RANGE[v.scalar][1] + 1.0, abs(x)), bias=2 * v.format.bias - 1)
    return scale(exp_polynomial(v, r), n)


def sinh(v: Lanes, x: Real) -> Real:
    h = _half_exp(v, x)
    square = x * x
    near = v.fma(x * square, v.polynomial(square, SINH[v.scalar]), x)
    far = (h - 0.25 / h).copysign(x)
    return v.select(abs(x) < 1.0, near, far)


def cosh(v: Lanes, x: Real) -> Real:
    h = _half_exp(v, x)
    return h + 0.25 / h


def tanh(v: Lanes, x: Real) -> Real:
    square = x * x
    near = v.fma(x * square, v.polynomial(square, TANH[v.scalar]), x)
    a = v.least(TANH_IS_ONE[v.scalar], abs(x))
    r, _, n = reduce(v, a + a, bias=v.format.bias)
    far = 1.0 - 2.0 / v.fma(exp_polynomial(v, r), power_of_two(v, n), 1.0)
    return v.select(a < TANH_NEAR, near, far).copysign(x)


FUNCTIONS = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "sigmoid": sigmoid,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
}
