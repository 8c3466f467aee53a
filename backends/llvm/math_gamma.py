"""The gamma function's logarithm and its derivative as vector code.

All is computed in double precision, for single precision too: both functions have zeros where terms cancel, so that only
wider numbers give results that are right to their last place. The formulas are those of the NIST Digital Library of
Mathematical Functions, 5.5 and 5.11; `tests/minimax.py` computes the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.backends.llvm.lanes import Lanes, Mask, Real
from graphc.backends.llvm.math_exp import LN2
from graphc.backends.llvm.math_log import log, reduce_any, series
from graphc.backends.llvm.math_trig import cosine_near_zero, sine_near_zero

# (log gamma(2 + h) - LINEAR h) / h^2 for |h| <= 1/2, degree 18; error of log gamma(2 + h), and of log gamma(1 + h), which is
# log(1 + h) less, 2^-59.2
LINEAR, LINEAR_LOW = 0.42278433509846713, 4.942915152430645e-18
"""1 - Euler's constant."""
LGAMMA = {
    "double": (
        0.3224670334241132, -0.06735230105319814, 0.020580808427786496, -0.0073855510286669895, 0.002890510330647537,
        -0.001192753912057672, 0.0005096695270969724, -0.00022315474951277884, 9.94574779126118e-05, -4.492636562159288e-05,
        2.050753793288364e-05, -9.438359716171695e-06, 4.372910633545174e-06, -2.0453110719554754e-06, 9.626869515853107e-07,
        -4.2952589719087903e-07, 1.9421725563180857e-07, -1.3486146720953875e-07, 7.069341243778945e-08,
    ),
}  # fmt: skip

# (log gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2) x in 1 / x^2 for x >= LGAMMA_FAR, degree 7; error of log gamma(x) 2^-60.4
LGAMMA_FAR = 4.5
LGAMMA_TAIL = {
    "double": (
        0.08333333333333086, -0.002777777776367501, 0.0007936505042638978, -0.000595208291879628, 0.000839993480902017,
        -0.0018545431510257936, 0.005006697132871669, -0.009960074849380558,
    ),
}  # fmt: skip

# digamma(y) / (y - ROOT) in y - DIGAMMA_CENTER for 1 <= y <= 5 / 2, degree 26; error 2^-57.9. ROOT is short enough for
# whole numbers to be added to it exactly
ROOT, ROOT_LOW = 1.4616321449683616, 7.616337690747509e-16
DIGAMMA_CENTER = 1.738525390625
DIGAMMA = {
    "double": (
        0.8619476741190967, -0.3298931874362728, 0.15998846967414923, -0.08437501984268397, 0.04625571810987797,
        -0.025875195228421417, 0.014638062626452604, -0.00833519094962776, 0.004764692891496042, -0.0027300977470533115,
        0.0015665718269726075, -0.0008997242841309424, 0.0005170345468837469, -0.0002972660103471317, 0.0001708931213238358,
        -9.805423302034001e-05, 5.6504540738184345e-05, -3.322645093060428e-05, 1.881844800358953e-05, -9.149499886310326e-06,
        5.773918626513967e-06, -5.944848699345323e-06, 2.844502273052847e-06, 1.0362855728248639e-06, -2.2066991713522144e-07,
        -1.4684424813485871e-06, 7.364951000128814e-07,
    ),
}  # fmt: skip

# (log x - 1 / (2 x) - digamma x) x^2 in 1 / x^2 for x >= DIGAMMA_FAR, degree 9; error of digamma x 2^-62.0
DIGAMMA_FAR = 4.0
DIGAMMA_TAIL = {
    "double": (
        0.08333333333333173, -0.008333333332174146, 0.0039682536678835355, -0.0041666271185877585, 0.00757268802779728,
        -0.02094078340647712, 0.07829867049228185, -0.3279751920364436, 1.1575478726649158, -2.2406686251273733,
    ),
}  # fmt: skip

# Below this |x| log gamma is -log |x|
LGAMMA_IS_LOG = 2.0**-70


def _in_double(function: Callable[[Lanes, Real], Real]) -> Callable[[Lanes, Real], Real]:
    def wide(v: Lanes, x: Real) -> Real:
        lanes = Lanes(v.f, "double", v.width)
        return function(lanes, x.to(lanes)).to(v)

    return wide


def _choose(v: Lanes, cases: list[tuple[Mask, Real | float]], otherwise: Real | float) -> Real:
    """The value of the first case that holds."""
    result = v.real(otherwise)
    for mask, value in reversed(cases):
        result = v.select(mask, value, result)
    return result


def _where_any(v: Lanes, mask: Mask, usual: Real, special: Callable[[], Real]) -> Real:
    """`special`'s lanes where the mask holds, else `usual`'s; computed only if it holds anywhere."""
    f = v.f
    before, then, after = f.current, f.label("special"), f.label("merged")
    f.branch(mask.any(), then, after)
    f.enter(then)
    new = v.select(mask, special(), usual)
    last = f.current
    f.jump(after)
    f.enter(after)
    return Real(v, f.value(f"phi {v.real_type} [ {usual.operand}, %{before} ], [ {new.operand}, %{last} ]"))


def _half_turns(v: Lanes, a: Real) -> tuple[Real, Real]:
    """sin(pi r) and cos(pi r) for r = a less the nearest whole number, a >= 0; 0 and 1 for a huge one."""
    r = v.least(2.0**53, a)
    for period in (2.0**20, 1.0):
        magic = v.format.round_magic * period
        r = r - ((r + magic) - magic)
    size = abs(r)
    swap = size > 0.25
    angle = v.select(swap, 0.5 - size, size) * math.pi
    sine, cosine = sine_near_zero(v, angle), cosine_near_zero(v, angle)
    return v.select(swap, cosine, sine).copysign(r), v.select(swap, sine, cosine)


@_in_double
def lgamma(v: Lanes, x: Real) -> Real:
    """By log gamma(x + 1) = log gamma(x) + log x from arguments near 2, or by Stirling's series; left of zero by
    gamma(x) gamma(-x) = -pi / (x sin(pi x))."""
    a = abs(x)
    small, one, two, three, far = a < 0.5, a < 1.5, a < 2.5, a < 3.5, a >= LGAMMA_FAR
    h = a - _choose(v, [(small, 0.0), (one, 1.0), (two, 2.0), (three, 3.0)], 4.0)
    factor = a - 1.0
    product = _choose(v, [(two, 1.0), (three, factor)], factor * (a - 2.0))  # gamma(a) / gamma(2 + h), and below its inverse
    argument = _choose(v, [(small, v.fma(a, a, a)), (one, a), (far, a)], product)
    m, n = reduce_any(v, argument)
    f, rest = series(v, m, n)
    head = n * LN2[v.scalar][0]
    sign = v.select(one, -1.0, 1.0)
    # what cancels near 1 and 2 is summed with its rounding errors
    linear, error = v.two_prod(h, LINEAR)
    curve = v.fma(h * h, v.polynomial(h, LGAMMA[v.scalar]), v.fma(h, LINEAR_LOW, error))
    total, error_1 = v.two_sum(linear, sign * f)
    total, error_2 = v.two_sum(total, sign * head)
    near = total + ((error_1 + error_2) + v.fma(sign, rest, curve))
    inverse = 1.0 / a
    stirling = v.fma(inverse, v.polynomial(inverse * inverse, LGAMMA_TAIL[v.scalar]), math.log(2 * math.pi) / 2 - 0.5)
    beyond = v.fma(a - 0.5, (head + (f + rest)) - 1.0, stirling)
    positive = v.select(a.equals(0.0), math.inf, v.select(far, beyond, near))

    def reflected() -> Real:
        sine, _ = _half_turns(v, a)
        numerator = abs(sine) * _choose(v, [(one, 1.0), (far, a)], a * product)
        ratio = numerator / v.select(small, v.fma(a, math.pi, math.pi), math.pi)
        value = -log(v, ratio) - v.select(far, beyond, linear + curve)
        return _choose(v, [(sine.equals(0.0), math.inf), (a < LGAMMA_IS_LOG, positive)], value)

    return _where_any(v, x < 0.0, positive, reflected)


@_in_double
def digamma(v: Lanes, x: Real) -> Real:
    """By digamma(x + 1) = digamma(x) + 1 / x from arguments between 1 and 5 / 2, or by its asymptotic series; left of zero by
    digamma(x) = digamma(-x) - 1 / x - pi cot(pi x)."""
    a = abs(x)
    one, two, three, far = a < 1.0, a < 2.5, a < 3.5, a >= DIGAMMA_FAR
    from_root = (a - _choose(v, [(one, ROOT - 1.0), (two, ROOT), (three, ROOT + 1.0)], ROOT + 2.0)) - ROOT_LOW
    between = from_root * v.polynomial(from_root + (ROOT - DIGAMMA_CENTER + ROOT_LOW), DIGAMMA[v.scalar])
    factor = a - 1.0
    numerator = _choose(v, [(one, -1.0), (two, 0.0), (three, 1.0), (far, 1.0)], factor + (a - 2.0))
    ratio = numerator / _choose(v, [(one, a), (two, 1.0), (three, factor), (far, a)], factor * (a - 2.0))
    square = ratio * ratio
    beyond = log(v, a) - v.fma(square, v.polynomial(square, DIGAMMA_TAIL[v.scalar]), ratio * 0.5)
    positive = v.select(far, beyond, between + ratio)

    def reflected() -> Real:
        sine, cosine = _half_turns(v, a)
        slope = cosine * math.pi
        # below 1 the terms of 1 / a cancel
        terms = v.select(one, slope, v.fma(slope, a, sine)) / (sine * v.select(one, 1.0, a))
        return v.select(sine.equals(0.0), math.nan, v.select(one, between, positive) + terms)

    result = _where_any(v, x < 0.0, positive, reflected)
    return v.select(a.equals(0.0), v.real(math.inf).copysign(-x), result)


FUNCTIONS = {"lgamma": lgamma, "digamma": digamma}
