"""sin, cos and tan as vector code.

x = k pi / 2 + r with |r| <= pi / 4; the function is then a polynomial in r, chosen by k modulo 4. pi / 2 is a sum of
parts whose products with k leave no error, up to a bound on |x|. Beyond it, on a branch, an internal function reduces
the argument with those bits of 2 / pi that matter to it (Payne and Hanek, 1983).
"""

from __future__ import annotations

import math
from functools import cache

from graphc.backends.llvm.builder import Module, literal
from graphc.backends.llvm.lanes import Bits, Lanes, Mask, Real

# (sin r - r) / r^3 in r^2 for |r| <= pi / 4, degrees 2 and 5; error of sin r 2^-27.8 and 2^-57.9
SIN = {
    "float": (-0.16666654, 0.008332119, -0.00019510936),
    "double": (
        -0.1666666666666663, 0.008333333333321903, -0.0001984126982943924, 2.7557313574000823e-06,
        -2.5050740849277072e-08, 1.5895850267243964e-10,
    ),
}  # fmt: skip

# (cos r - 1) / r^2 in r^2 for |r| <= pi / 4, degrees 3 and 6; the constant term is exactly -1/2; error of cos r
# 2^-33.0 and 2^-63.9
COS = {
    "float": (-0.5, 0.041666646, -0.0013887311, 2.4432557e-05),
    "double": (
        -0.5, 0.041666666666666595, -0.0013888888888873335, 2.4801587288993714e-05, -2.7557314213442443e-07,
        2.0875704759538747e-09, -1.1358709299084821e-11,
    ),
}  # fmt: skip

# pi / 2 in parts (positive ones, for the sign of a zero), and the largest |x| that they serve. With an FMA the parts
# fill the format; without one they are so short that their products with k are exact
HALF_PI_WITH_FMA = {
    "float": ((1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15), 2.0**17),
    "double": ((1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32), 2.0**30),
}
HALF_PI_WITHOUT_FMA = {
    "float": ((1.5703125, 0.0004837512969970703, 7.549533620476723e-08, 2.5633440682570896e-12), 2.0**12),
    "double": ((1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32), 2.0**20),
}

# The table for large arguments: entry j holds 2^(16 j) 2 / pi modulo 4 in four doubles, for the exponents from 2^52 on
LARGE_STEP = 16
LARGE_ENTRIES = (1024 - 53) // LARGE_STEP + 1


def sin(v: Lanes, x: Real) -> Real:
    r, _, quarter = _reduce(v, x, exact=False)
    return _by_quarter(v, r, quarter)


def cos(v: Lanes, x: Real) -> Real:
    r, _, quarter = _reduce(v, x, exact=False)
    return _by_quarter(v, r, quarter + 1)


def tan(v: Lanes, x: Real) -> Real:
    r, low, quarter = _reduce(v, x, exact=True)
    square = r * r
    sine, sine_low = v.fast_two_sum(r, v.fma(r * square, v.polynomial(square, SIN[v.scalar]), low))
    cosine, cosine_low = v.fast_two_sum(1.0, v.fma(square, v.polynomial(square, COS[v.scalar]), -(r * low)))
    sine = sine.copysign(r)
    # sine / cosine, or -cosine / sine; then one step of refinement with the low parts
    odd = quarter.is_odd()
    above, above_low = v.select(odd, -cosine, sine), v.select(odd, -cosine_low, sine_low)
    below, below_low = v.select(odd, sine, cosine), v.select(odd, sine_low, cosine_low)
    inverse = 1.0 / below
    quotient = above * inverse
    product, error = v.two_prod(quotient, below)
    rest = (((above - product) - error) + above_low) - quotient * below_low
    return v.fma(rest, inverse, quotient).copysign(quotient)


def _by_quarter(v: Lanes, r: Real, quarter: Bits) -> Real:
    """sin(quarter * pi / 2 + r)."""
    value = v.select(quarter.is_odd(), cosine_near_zero(v, r), sine_near_zero(v, r))
    sign = (quarter << (v.format.width - 2)) & -(1 << (v.format.width - 1))
    return (value.bits() ^ sign).as_real()


def sine_near_zero(v: Lanes, r: Real) -> Real:
    """sin r for |r| <= pi / 4."""
    square = r * r
    # the sum with +0 makes a zero of `factor` positive, and so the result -0 for r = -0
    factor = v.fma(square, v.polynomial(square, SIN[v.scalar]), 0.0)
    return v.fma(r, factor, r)


def cosine_near_zero(v: Lanes, r: Real) -> Real:
    """cos r for |r| <= pi / 4."""
    square = r * r
    return v.fma(square, v.polynomial(square, COS[v.scalar]), 1.0)


def _nearest(v: Lanes, x: Real, factor: float) -> tuple[Real, Bits]:
    """The integer next to x * factor, and bits whose lowest two are the integer's."""
    shifted = v.fma(x, factor, v.format.round_magic)
    return shifted - v.format.round_magic, shifted.bits()


def _reduce(v: Lanes, x: Real, exact: bool) -> tuple[Real, Real, Bits]:
    """r, what its rounding lost (0 unless `exact`), and k modulo 4 in the lowest bits of an integer."""
    parts, bound = (HALF_PI_WITH_FMA if v.has_fma else HALF_PI_WITHOUT_FMA)[v.scalar]
    k, quarter = _nearest(v, x, 2 / math.pi)
    r, low = v.fma(k, -parts[0], x), v.real(0.0)
    for part in parts[1:]:
        if exact:
            product, product_error = v.two_prod(k, -part)
            r, error = v.two_sum(r, product)
            low = low + (error + product_error)
        else:
            r = v.fma(k, -part, r)
    return _reduce_large_ones(v, x, abs(x) > bound, r, low, quarter)


def _reduce_large_ones(v: Lanes, x: Real, large: Mask, r: Real, low: Real, quarter: Bits) -> tuple[Real, Real, Bits]:
    """The reduction so far, but where `large` that of the internal function for such arguments."""
    f = v.f
    before, then, after = f.current, f.label("large"), f.label("reduced")
    f.branch(large.any(), then, after)
    f.enter(then)
    wide = Lanes(f, "double", v.width)
    slots = [f.slot(type_) for type_ in (wide.real_type, wide.real_type, wide.real_type, wide.bits_type)]
    f.do(f"store {wide.real_type} {x.to(wide).operand}, ptr {slots[0]}")
    f.call("void", _large_reduction(f.module), ("i64", str(v.width)), *(("ptr", slot) for slot in slots))
    high, rest = (wide.real(f.value(f"load {wide.real_type}, ptr {slot}")) for slot in slots[1:3])
    new_r = high.to(v)
    new_low = ((high - new_r.to(wide)) + rest).to(v)
    new_quarter = Bits(wide, f.value(f"load {wide.bits_type}, ptr {slots[3]}")).to(v)
    new_r, new_low = v.select(large, new_r, r), v.select(large, new_low, low)
    new_quarter = v.select_bits(large, new_quarter, quarter)
    last = f.current
    f.jump(after)
    f.enter(after)

    def merge(type_: str, usual: Real | Bits, new: Real | Bits) -> str:
        return f.value(f"phi {type_} [ {usual.operand}, %{before} ], [ {new.operand}, %{last} ]")

    return (
        Real(v, merge(v.real_type, r, new_r)),
        Real(v, merge(v.real_type, low, new_low)),
        Bits(v, merge(v.bits_type, quarter, new_quarter)),
    )


def _large_reduction(module: Module) -> str:
    """The internal function (i64 n, ptr x, ptr high, ptr low, ptr quarter) that reduces n doubles to r = high + low and
    to 64-bit integers whose lowest two bits are those of k; returns its symbol."""
    symbol = "graphc.reduce_half_pi"
    if module.has(symbol):
        return f"@{symbol}"
    params = [("i64", "n"), *(("ptr", name) for name in ("x", "high", "low", "quarter"))]
    f = module.function(symbol, params, linkage="internal", attributes="cold noinline nounwind minsize optsize")
    v = Lanes(f, "double", 1)
    with f.loop("0", "%n") as i:
        x, *results = (f.value(f"getelementptr double, ptr %{name}, i64 {i}") for _, name in params[1:])
        high, low, quarter = _reduce_large(v, v.real(f.value(f"load double, ptr {x}")))
        f.do(f"store double {high.operand}, ptr {results[0]}")
        f.do(f"store double {low.operand}, ptr {results[1]}")
        f.do(f"store i64 {quarter.operand}, ptr {results[2]}")
    f.do("ret void")
    return f"@{symbol}"


def _reduce_large(v: Lanes, x: Real) -> tuple[Real, Real, Bits]:
    """r, its rest, and k modulo 4 in the lowest bits of an integer, for any finite double x."""
    entry = ((v.greatest(2.0**52, abs(x)).bits() >> v.format.mantissa) - (v.format.bias + 52)) >> 4
    # x = m 2^(16 j), m below 2^69 and, for j > 0, an integer: so m times the entry is x 2 / pi up to a multiple of 4
    m = x * ((v.format.bias - (entry << 4)) << v.format.mantissa).as_real()
    table = _load_entry(v, entry)
    (top, top_error), (second, second_error), (third, third_error) = (v.two_prod(m, part) for part in table[:3])
    top = _modulo(v, _modulo(v, top, 2.0**20), 4.0)
    middle, middle_error = v.two_sum(top_error, second)
    turns, turns_error = v.two_sum(top, _modulo(v, middle, 4.0))
    k, quarter = _nearest(v, turns, 1.0)
    high, low = _sum(v, turns - k, turns_error, middle_error, third, second_error, third_error, m * table[3])
    half_pi, half_pi_low = HALF_PI_WITH_FMA["double"][0][:2]
    product, error = v.two_prod(high, half_pi)
    return *v.fast_two_sum(product, v.fma(low, half_pi, v.fma(high, half_pi_low, error))), quarter


def _modulo(v: Lanes, x: Real, period: float) -> Real:
    """x minus the nearest multiple of `period`, a power of two, for |x| < 2^50 period."""
    magic = v.format.round_magic * period
    return x - ((x + magic) - magic)


def _sum(v: Lanes, *terms: Real) -> tuple[Real, Real]:
    """The sum as a rounded number and the rest, as if in three times the precision."""
    errors: list[Real] = []
    total = terms[0]
    for term in terms[1:]:
        total, error = v.two_sum(total, term)
        errors.append(error)
    rest, second = errors[0], v.real(0.0)
    for error in errors[1:]:
        rest, lost = v.two_sum(rest, error)
        second = second + lost
    high, low = v.two_sum(total, rest)
    return v.fast_two_sum(high, low + second)


def _load_entry(v: Lanes, entry: Bits) -> list[Real]:
    """The four parts of the table's entry."""
    table = ", ".join(f"double {literal(number, 'double')}" for number in _two_over_pi_table())
    symbol = v.f.module.constant("graphc.two_over_pi", f"[{4 * LARGE_ENTRIES} x double] [{table}]")
    row = v.f.value(f"getelementptr [4 x double], ptr {symbol}, i64 {entry.operand}")
    pointers = [v.f.value(f"getelementptr double, ptr {row}, i64 {part}") for part in range(4)]
    return [v.real(v.f.value(f"load double, ptr {pointer}")) for pointer in pointers]


@cache
def _two_over_pi_table() -> tuple[float, ...]:
    """The numbers of the table described above LARGE_STEP."""
    unit = 1 << 1280
    inverse = 2 * unit * unit // _pi_times(unit)
    table: list[float] = []
    for entry in range(LARGE_ENTRIES):
        rest = (inverse << LARGE_STEP * entry) % (4 * unit)
        if rest >= 2 * unit:
            rest -= 4 * unit
        for _ in range(4):
            part = rest / unit  # Python rounds the quotient of two integers correctly
            table.append(part)
            numerator, denominator = part.as_integer_ratio()
            rest -= numerator * (unit // denominator)
    return tuple(table)


def _pi_times(unit: int) -> int:
    """pi * unit by Machin's formula, pi / 4 = 4 arctan(1 / 5) - arctan(1 / 239)."""
    guard = 1 << 64

    def arctan_of_inverse(n: int) -> int:
        total = term = unit * guard // n
        divisor = sign = 1
        while term:
            term //= n * n
            divisor, sign = divisor + 2, -sign
            total += sign * (term // divisor)
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) // guard


FUNCTIONS = {"sin": sin, "cos": cos, "tan": tan}
