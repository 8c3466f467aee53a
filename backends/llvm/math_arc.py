"""asin, acos, atan and atan2 as vector code: an odd polynomial on a short interval, and the identities that lead there."""

from __future__ import annotations

from graphc.backends.llvm.lanes import Lanes, Real

# (asin x - x) / x^3 in x^2 for |x| <= 1/2, degrees 4 and 11; error of asin x 2^-27.6 and 2^-55.8
ASIN = {
    "float": (0.16666752, 0.07495334, 0.04546455, 0.024211587, 0.042108785),
    "double": (
        0.16666666666665372, 0.07500000000339606, 0.04464285682884629, 0.030381959049777797, 0.022371761158145726,
        0.017359647586565084, 0.01388587049428604, 0.012164719230772638, 0.006548387228588938, 0.019470520769891673,
        -0.016131601413083167, 0.03184782970593017,
    ),
}  # fmt: skip

# (atan x - x) / x^3 in x^2 for |x| <= 1, degrees 8 and 19; error of atan x 2^-28.2 and 2^-57.6
ATAN = {
    "float": (
        -0.33333293, 0.1999836, -0.1426229, 0.1094222, -0.083749525, 0.057478953, -0.030709004, 0.010666743,
        -0.0017389709,
    ),
    "double": (
        -0.33333333333333065, 0.19999999999951176, -0.14285714282564935, 0.11111111006832225, -0.09090907000722522,
        0.07692279821686068, -0.06666403962839233, 0.058805274534759616, -0.05253517579252502, 0.04722320437395124,
        -0.042191771238147525, 0.0366419139621999, -0.02990390690144913, 0.02198494743618758, -0.013900667666882261,
        0.007196585281221798, -0.002884960732665999, 0.0008313359339394764, -0.0001521635863926568,
        1.32253031541434e-05,
    ),
}  # fmt: skip

# pi / 2 rounded, and what the rounding lost
HALF_PI = {
    "float": (1.5707963705062866, -4.371139000186241e-08),
    "double": (1.5707963267948966, 6.123233995736766e-17),
}


def _complement(v: Lanes, head: Real, tail: Real) -> Real:
    """pi / 2 - (head + tail), with |tail| well below head <= 1."""
    half_pi, rest = HALF_PI[v.scalar]
    difference, error = v.fast_two_sum(half_pi, -head)
    return difference - (tail - (error + rest))


def asin(v: Lanes, x: Real) -> Real:
    a = abs(x)
    far = a > 0.5
    # pi / 2 - 2 asin(sqrt((1 - a) / 2)) above 1/2
    square = v.select(far, (1.0 - a) * 0.5, x * x)
    root = v.select(far, square.sqrt(), a)
    tail = root * square * v.polynomial(square, ASIN[v.scalar])
    return v.select(far, _complement(v, root + root, tail + tail), root + tail).copysign(x)


def acos(v: Lanes, x: Real) -> Real:
    a = abs(x)
    far = a > 0.5
    # 2 asin(sqrt((1 - a) / 2)) above 1/2, the rest of pi to it below -1/2, and pi / 2 - asin x between
    square = v.select(far, (1.0 - a) * 0.5, x * x)
    root = v.select(far, square.sqrt(), x)
    tail = root * square * v.polynomial(square, ASIN[v.scalar])
    complement = _complement(v, root, tail)
    return v.select(far, v.select(x > 0.0, root + tail, complement) * 2.0, complement)


def atan(v: Lanes, x: Real) -> Real:
    a = abs(x)
    far = a > 1.0
    t = v.select(far, 1.0 / a, a)
    square = t * t
    tail = t * square * v.polynomial(square, ATAN[v.scalar])
    return v.select(far, _complement(v, t, tail), t + tail).copysign(x)


def atan2(v: Lanes, y: Real, x: Real) -> Real:
    opposite, adjacent = abs(y), abs(x)
    steep, backward = opposite > adjacent, x.bits().is_negative()
    low, high = v.select(steep, adjacent, opposite), v.select(steep, opposite, adjacent)
    # 0 / 0 and inf / inf have an answer here
    t = v.select(low.equals(high), v.select(high.equals(0.0), 0.0, 1.0), low / high)
    square = t * t
    value = v.fma(t * square, v.polynomial(square, ATAN[v.scalar]), t)
    value = v.select(steep ^ backward, -value, value)
    half_pi, rest = HALF_PI[v.scalar]
    base = v.select(steep, half_pi, v.select(backward, 2.0 * half_pi, 0.0))
    base_rest = v.select(steep, rest, v.select(backward, 2.0 * rest, 0.0))
    return (base + (value + base_rest)).copysign(y)


FUNCTIONS = {"asin": asin, "acos": acos, "atan": atan}
