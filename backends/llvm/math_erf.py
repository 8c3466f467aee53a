"""erf, erfc and erfinv as vector code."""

from __future__ import annotations

import math

from graphc.backends.llvm.lanes import Lanes, Real
from graphc.backends.llvm.math_exp import LN2, exp_of_sum, exp_polynomial, power_of_two, reduce, scale
from graphc.backends.llvm.math_log import reduce as reduce_log
from graphc.backends.llvm.math_log import series

# Up to this |x| they come from a polynomial around 0
ERF_NEAR = {"float": 0.75, "double": 1.0}
ERFC_NEAR = {"float": 0.75, "double": 0.85}

# erf x / x - 1 in x^2 for |x| <= ERF_NEAR, degrees 5 and 11; error of erf x 2^-29.2 and 2^-56.0
ERF = {
    "float": (0.12837917, -0.3761262, 0.11283384, -0.026834825, 0.0051145665, -0.00067503395),
    "double": (
        0.12837916709551256, -0.3761263890318352, 0.11283791670944683, -0.026866170643190544, 0.0052239776066942325,
        -0.0008548325953381002, 0.00012055294206223133, -1.4924722957836183e-05, 1.644724851116612e-06,
        -1.620711730933801e-07, 1.3714124157259647e-08, -7.784814881359213e-10,
    ),
}  # fmt: skip

# log(erfc x) for ERF_NEAR <= x <= ERF_IS_ONE, degrees 6 and 17; error of 1 - erfc x 2^-28.1 and 2^-57.0
ERF_IS_ONE = {"float": 4.0, "double": 6.0}
LOG_ERFC = {
    "float": (-1.1601043e-05, -1.1284827, -0.6357417, -0.10526976, 0.02290854, -0.0032235784, 0.00021529254),
    "double": (
        -5.028721515743458e-07, -1.1283740892795633, -0.6366436287498612, -0.1027034386884622, 0.018990179975809072,
        0.00041062138557661297, -0.0019159298916172057, 0.000770625678421237, -0.0001350341291788732,
        -2.0277844313256658e-05, 2.2828337263270784e-05, -8.669480547677764e-06, 2.136372892603758e-06,
        -3.73458120693285e-07, 4.644785432191895e-08, -3.936993838146835e-09, 2.0467865813815969e-10,
        -4.934210532865434e-12,
    ),
}  # fmt: skip

# e^(x^2) erfc(x) / w in w = 4 / (x + 4), after Shepherd and Laframboise (1981), for ERFC_NEAR <= x <= ERFC_IS_ZERO,
# degrees 8 and 19; error of erfc x 2^-26.4 and 2^-55.9
ERFC_IS_ZERO = {"float": 10.5, "double": 28.0}
ERFCX = {
    "float": (
        0.14107032, 0.14039713, 0.14410377, 0.08094592, 0.29509622, -0.34253088, 0.7713656, -0.59036213, 0.3599458,
    ),
    "double": (
        0.14104739590350787, 0.141047394864885, 0.13663969387697145, 0.12782369370314112, 0.1150203507903984,
        0.0989824840162654, 0.08142261539409197, 0.06065458206852658, 0.05221211834843071, 0.005312457839405806,
        0.07686497232779022, -0.11274864473247638, 0.1877048089096244, -0.21833705466856917, 0.17968360847307796,
        -0.09553282196222306, 0.014171672044395846, 0.015956501096095792, -0.009612817117097907,
        0.0016869894702276848,
    ),
}  # fmt: skip

# d log(e^(x^2) erfc x) / d log w in w on the same interval, to 3 percent: it only carries w's rounding error
ERFCX_SLOPE = (1.1458905, -0.25521672, 3.5105727)

# erfinv(x) / x in w - ERFINV_CENTER for w = -log(1 - x^2) <= ERFINV_NEAR, degrees 10 and 29; error 2^-28.1 and 2^-57.2
ERFINV_NEAR = {"float": 5.0, "double": 9.0}
ERFINV_CENTER = {"float": 2.5703125, "double": 4.4541015625}
ERFINV = {
    "float": (
        1.5187302, 0.24603458, -0.004435121, -0.0011916315, 0.00021627596, -6.3564603e-06, -3.1974946e-06, 4.7324195e-07,
        1.1554615e-08, -8.445666e-09, 4.0034565e-10,
    ),
    "double": (
        1.9609719502541274, 0.2217116081684345, -0.007366004536503939, -1.8894853258957998e-05, 8.564179402850927e-05,
        -1.3586251397837774e-05, 8.734476942738561e-07, 7.185726092114833e-08, -2.4165766265740832e-08, 2.474388868936981e-09,
        1.0621716503971117e-11, -4.0123288039634984e-11, 5.711358060712211e-12, -2.060557387728101e-13,
        -5.987589894588701e-14, 1.203009265815822e-14, -8.108296727236014e-16, -7.19625636044848e-17, 2.3202466162139954e-17,
        -2.3188627739672792e-18, -7.460754074020158e-21, 4.281978940017492e-20, -7.45472843572809e-21, 1.7479164592606163e-22,
        1.4168575766647056e-22, -1.521804814684415e-23, -1.1988046485510814e-24, 2.180728799429672e-25, 3.945506473576442e-27,
        -1.172025280527546e-27,
    ),
}  # fmt: skip

# The same in sqrt(w) - ERFINV_TAIL_CENTER for larger w, degrees 9 and 24; error 2^-27.1 and 2^-57.8
ERFINV_TAIL_CENTER = {"float": 3.0169921875, "double": 4.4609375}
ERFINV_TAIL = {
    "float": (
        2.8500001, 1.0019896, 0.009065892, -0.007263577, 0.0053846533, -0.0034339502, 0.0014852762, -0.000120687204,
        -0.000300039, 0.00013042925,
    ),
    "double": (
        4.305292119537203, 1.010205201975063, 0.0003792409267376166, -0.0004539988881280243, 0.00015621451294896963,
        -4.37411694299622e-05, 1.2154240663049747e-05, -4.166683260340598e-06, 1.9955811930615995e-06,
        -1.1197891644116956e-06, 5.92268412734943e-07, -2.624613453665775e-07, 8.792740896327626e-08, -1.639332173927045e-08,
        -3.2120269130830682e-09, 4.283456469738496e-09, -1.959470372863711e-09, 4.951748960668772e-10, -1.553338566244058e-11,
        -5.155763333369959e-11, 2.6587309814516293e-11, -5.547684255396725e-12, -6.237163954016145e-13, 5.772126499000264e-13,
        -8.821155718140089e-14,
    ),
}  # fmt: skip


def erf(v: Lanes, x: Real) -> Real:
    square = x * x
    near = v.fma(x, v.polynomial(square, ERF[v.scalar]), x)
    a = abs(x)
    log_erfc = v.polynomial(v.least(ERF_IS_ONE[v.scalar], a), LOG_ERFC[v.scalar])
    r, _, n = reduce(v, log_erfc, bias=v.format.bias)
    far = 1.0 - exp_polynomial(v, r) * power_of_two(v, n)
    return v.select(a < ERF_NEAR[v.scalar], near, far.copysign(x))


def erfc(v: Lanes, x: Real) -> Real:
    square = x * x
    near = (1.0 - x) - x * v.polynomial(square, ERF[v.scalar])
    a = v.least(ERFC_IS_ZERO[v.scalar], abs(x))
    divisor, divisor_low = v.two_sum(a, 4.0)
    w = 4.0 / divisor
    # w * (1 + error) is 4 / (a + 4) beyond the format's precision
    product, product_low = v.two_prod(w, divisor)
    error = (((4.0 - product) - product_low) - w * divisor_low) * 0.25
    constant, slope, *coefficients = ERFCX[v.scalar]
    rising, rising_low = v.two_sum(slope, w * v.polynomial(w, coefficients))
    variable, variable_low = v.two_prod(w, rising)
    series, series_low = v.two_sum(constant, variable)
    series_low = series_low + v.fma(w, rising_low, variable_low)
    erfcx, erfcx_low = v.two_prod(w, series)
    erfcx_low = v.fma(w, series_low, v.fma(erfcx, error * v.polynomial(w, ERFCX_SLOPE), erfcx_low))
    square, square_low = v.two_prod(a, -a)
    r, r_low, n = reduce(v, square, square_low)
    exponential, exponential_low = exp_of_sum(v, r, r_low)
    far, far_low = v.two_prod(exponential, erfcx)
    far = scale(far + v.fma(exponential, erfcx_low, v.fma(exponential_low, erfcx, far_low)), n)
    far = v.select(x < 0.0, 2.0 - far, far)
    return v.select(abs(x) < ERFC_NEAR[v.scalar], near, far)


def erfinv(v: Lanes, x: Real) -> Real:
    a = abs(x)
    if v.has_fma:
        rest = v.fma(-a, a, 1.0)
    else:
        square, error = v.two_prod(a, a)
        rest = (1.0 - square) - error
    m, n, _ = reduce_log(v, rest)  # a normal number
    f, tail = series(v, m, n)
    w = -v.fma(n, LN2[v.scalar][0], f + tail)
    near = v.polynomial(w - ERFINV_CENTER[v.scalar], ERFINV[v.scalar])
    far = v.polynomial(w.sqrt() - ERFINV_TAIL_CENTER[v.scalar], ERFINV_TAIL[v.scalar])
    result = x * v.select(w < ERFINV_NEAR[v.scalar], near, far)
    return v.select(a < 1.0, result, v.select(a.equals(1.0), math.inf, math.nan).copysign(x))


FUNCTIONS = {"erf": erf, "erfc": erfc, "erfinv": erfinv}
