"""Computes the coefficient tables of graphc/backends/llvm/math_*.py, for when an interval or a degree has to change.

    python tests/minimax.py [table ...]

Each table is the polynomial of least weighted error on an interval (Remez exchange, in 60 digits), rounded to the
format coefficient by coefficient, the others making good what each rounding spoils. To be called in 60 digits.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mp, mpf

Function = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Table:
    """`target` on [low, high], an error there counting `weight` times, in so many terms a format (0: no such table)."""

    target: Function
    weight: Function
    low: mpf
    high: mpf
    float_terms: int
    double_terms: int


def odd(function: Function, high: float | mpf | str, float_terms: int, double_terms: int) -> Table:
    """(f(x) - x) / x^3 in z = x^2, the error relative to f, for |x| <= high."""
    return Table(
        lambda z: (function(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3,
        lambda z: mp.sqrt(z) ** 3 / function(mp.sqrt(z)),
        mpf(0),
        mpf(high) ** 2,
        float_terms,
        double_terms,
    )


def erf(high: int | str, float_terms: int, double_terms: int) -> Table:
    """erf x / x - 1 in z = x^2, the error relative to erf."""
    return Table(
        lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
        lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)),
        mpf(0),
        mpf(high) ** 2,
        float_terms,
        double_terms,
    )


def log_erfc(low: int | str, high: int, float_terms: int, double_terms: int) -> Table:
    """log(erfc x), the error that of 1 - erfc x."""
    return Table(
        lambda x: mp.log(mp.erfc(x)),
        lambda x: mp.erfc(x) / mp.erf(x),
        mpf(low),
        mpf(high),
        float_terms,
        double_terms,
    )


def scaled_erfc(low: str, high: str, float_terms: int, double_terms: int) -> Table:
    """e^(x^2) erfc(x) / w in w = 4 / (x + 4) for x from low to high, the error relative."""

    def function(w: mpf) -> mpf:
        x = 4 / w - 4
        return mp.exp(x * x) * mp.erfc(x) / w

    first, last = 4 / (4 + mpf(high)), 4 / (4 + mpf(low))
    return Table(function, lambda w: 1 / function(w), first, last, float_terms, double_terms)


def inverse_erf(s: mpf) -> mpf:
    """erfinv(x) / x where s^2 = -log(1 - x^2)."""
    x = mp.sqrt(-mp.expm1(-s * s))
    return mp.erfinv(x) / x


def erfinv(high: int, center: str, float_terms: int, double_terms: int) -> Table:
    """erfinv(x) / x in w - center for w = -log(1 - x^2) up to `high`, the error relative. So that rounding the constant
    term costs nothing, the center is such that it is next to a number of the format; likewise below."""
    middle = mpf(center)
    return Table(
        lambda u: inverse_erf(mp.sqrt(u + middle)),
        lambda u: 1 / inverse_erf(mp.sqrt(u + middle)),
        -middle,
        high - middle,
        float_terms,
        double_terms,
    )


def erfinv_tail(low: int, high: str, center: str, float_terms: int, double_terms: int) -> Table:
    """erfinv(x) / x in s - center for s = sqrt(-log(1 - x^2)) from sqrt(low) to `high`, the error relative."""
    middle = mpf(center)
    return Table(
        lambda u: inverse_erf(u + middle),
        lambda u: 1 / inverse_erf(u + middle),
        mp.sqrt(low) - middle,
        mpf(high) - middle,
        float_terms,
        double_terms,
    )


def digamma(center: str, double_terms: int) -> Table:
    """digamma(y) / (y - its root) in y - center for y from 1 to 5 / 2, the error relative."""
    root, middle = mp.findroot(mp.digamma, mpf("1.46")), mpf(center)

    def function(z: mpf) -> mpf:
        return mp.digamma(z + middle) / (z + middle - root)

    return Table(function, lambda z: 1 / function(z), 1 - middle, mpf("2.5") - middle, 0, double_terms)


def digamma_tail(low: str) -> Table:
    """(log x - 1 / (2 x) - digamma x) x^2 in 1 / x^2 for x from `low` on, the error relative to digamma x."""
    return Table(
        lambda t: (-mp.log(t) / 2 - mp.sqrt(t) / 2 - mp.digamma(1 / mp.sqrt(t))) / t,
        lambda t: t / mp.digamma(1 / mp.sqrt(t)),
        mpf(0),
        1 / mpf(low) ** 2,
        0,
        10,
    )


def lgamma() -> Table:
    """(log gamma(2 + h) - (1 - Euler's constant) h) / h^2 for |h| <= 1/2, the error relative to log gamma(2 + h) and to
    log gamma(1 + h), which is made of it."""
    return Table(
        lambda h: (mp.loggamma(2 + h) - (1 - mp.euler) * h) / h**2,
        lambda h: h**2 / min(abs(mp.loggamma(2 + h)), abs(mp.loggamma(1 + h))),
        mpf("-0.5"),
        mpf("0.5"),
        0,
        19,
    )


def lgamma_tail(low: str) -> Table:
    """What Stirling's formula leaves of log gamma(x), times x, in 1 / x^2 for x from `low` on, the error relative to
    log gamma(x)."""

    def rest(t: mpf) -> mpf:
        x = 1 / mp.sqrt(t)
        return (mp.loggamma(x) - (x - mpf("0.5")) * mp.log(x) + x - mp.log(2 * mp.pi) / 2) * x

    return Table(rest, lambda t: mp.sqrt(t) / mp.loggamma(1 / mp.sqrt(t)), mpf(0), 1 / mpf(low) ** 2, 0, 8)


def tables() -> dict[str, Table]:
    half_ln2, root, quarter_pi = mp.log(2) / 2 * mpf("1.01"), mp.sqrt(2), mp.pi / 4 * mpf("1.0005")
    return {
        "EXP": Table(lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / mp.expm1(r), -half_ln2, half_ln2, 5, 11),
        "SINH": odd(mp.sinh, 1, 4, 7),
        "TANH": odd(mp.tanh, "0.55", 5, 11),
        "LOG": Table(
            lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, lambda f: f**3 / mp.log1p(f), 1 / root - 1, root - 1, 8, 19
        ),
        "ATANH": Table(
            lambda z: (mp.atanh(mp.sqrt(z)) - mp.sqrt(z) - mp.sqrt(z) ** 3 / 3) / mp.sqrt(z) ** 5,
            lambda z: mp.sqrt(z) ** 5 / mp.atanh(mp.sqrt(z)),
            mpf(0),
            ((root - 1) / (root + 1)) ** 2,
            3,
            7,
        ),
        "SIN": odd(mp.sin, quarter_pi, 3, 6),
        "COS": Table(
            lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
            lambda z: z**2 / mp.cos(mp.sqrt(z)),
            mpf(0),
            quarter_pi**2,
            3,
            6,
        ),
        "ASIN": odd(mp.asin, 0.5, 5, 12),
        "ATAN": odd(mp.atan, 1, 9, 20),
        "ERF float": erf("0.75", 6, 0),
        "ERF double": erf(1, 0, 12),
        "LOG_ERFC float": log_erfc("0.75", 4, 7, 0),
        "LOG_ERFC double": log_erfc(1, 6, 0, 18),
        "ERFCX float": scaled_erfc("0.75", "10.5", 9, 0),
        "ERFCX double": scaled_erfc("0.85", "28", 0, 20),
        "ERFINV float": erfinv(5, "2.5703125", 11, 0),
        "ERFINV double": erfinv(9, "4.4541015625", 0, 30),
        "ERFINV_TAIL float": erfinv_tail(5, "4", "3.0169921875", 10, 0),
        "ERFINV_TAIL double": erfinv_tail(9, "6.01", "4.4609375", 0, 25),
        "DIGAMMA": digamma("1.738525390625", 27),
        "DIGAMMA_TAIL": digamma_tail("4"),
        "LGAMMA": lgamma(),
        "LGAMMA_TAIL": lgamma_tail("4.5"),
    }


def nodes(low: mpf, high: mpf, count: int) -> list[mpf]:
    """Chebyshev nodes of an interval."""
    angles = (mp.pi * (2 * i + 1) / (2 * count) for i in range(count))
    return [(low + high) / 2 - (high - low) / 2 * mp.cos(angle) for angle in angles]


def polynomial(coefficients: Sequence[mpf], x: mpf) -> mpf:
    result = mpf(0)
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


def remez(target: Function, weight: Function, terms: int, low: mpf, high: mpf) -> list[mpf]:
    """The polynomial, from the constant term up, whose weighted error is least on a fine grid."""
    grid = [(x, abs(weight(x)), target(x)) for x in nodes(low, high, 30 * (terms + 1))]
    chosen = [(x, abs(weight(x)), target(x)) for x in nodes(low, high, terms + 1)]
    coefficients: list[mpf] = []
    for _ in range(15):
        system, right = mpmath.matrix(terms + 1, terms + 1), mpmath.matrix(terms + 1, 1)
        for row, (x, w, y) in enumerate(chosen):
            for power in range(terms):
                system[row, power] = w * x**power
            system[row, terms] = (-1) ** row
            right[row] = w * y
        *coefficients, level = mpmath.lu_solve(system, right)
        errors = [w * (y - polynomial(coefficients, x)) for x, w, y in grid]
        peaks = [0]  # the largest error of each run of one sign
        for i, error in enumerate(errors):
            if (error >= 0) != (errors[peaks[-1]] >= 0):
                peaks.append(i)
            elif abs(error) > abs(errors[peaks[-1]]):
                peaks[-1] = i
        while len(peaks) > terms + 1:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) <= terms or max(map(abs, errors)) < abs(level) * mpf("1.0001"):
            break
        chosen = [grid[i] for i in peaks]
    return coefficients


def fit(target: Function, weight: Function, terms: int, low: mpf, high: mpf, scalar: str) -> tuple[list[mpf], float]:
    """The coefficients rounded to the format, and the largest weighted error that is left."""
    exact = remez(target, weight, terms, low, high)
    rounded = [round_to(coefficient, scalar) for coefficient in exact]
    precision = 24 if scalar == "float" else 53
    units = [mpf(2) ** (int(mp.floor(mp.log(abs(c), 2))) + 1 - precision) for c in rounded]
    grid = nodes(low, high, 600)
    # the error is linear in the roundings, so small that floats can count it
    effect = np.array([[float(weight(x) * x**power * unit) for x in grid] for power, unit in enumerate(units)])
    error = np.array([float(weight(x) * (target(x) - polynomial(rounded, x))) for x in grid])
    moves = np.zeros(terms, int)
    free = list(np.argsort(-np.linalg.norm(effect, axis=1)))
    while free:  # round the coefficient that matters most; least squares over those still free take up the rest
        best = round(np.linalg.lstsq(effect[free].T, error, rcond=1e-14)[0][0])
        moves[free[0]] += best
        error = error - best * effect[free.pop(0)]
    random = np.random.default_rng(0)
    for _ in range(40000):
        some = random.choice(terms, min(terms, int(random.integers(1, 4))), replace=False)
        step = random.integers(-2, 3, len(some))
        trial = error - step @ effect[some]
        if np.abs(trial).max() <= np.abs(error).max():
            error = trial
            moves[some] += step
    return [r + int(move) * unit for r, move, unit in zip(rounded, moves, units)], float(np.abs(error).max())


def largest_error(table: Table, coefficients: Sequence[float]) -> float:
    """What is left of the weighted error of a polynomial with the table's target."""
    target, weight = guarded(table.target), guarded(table.weight)
    exact = [mpf(c) for c in coefficients]
    points = nodes(table.low, table.high, 150)
    return float(max(abs(weight(x) * (target(x) - polynomial(exact, x))) for x in points))


def round_to(value: mpf, scalar: str) -> mpf:
    return mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0]) if scalar == "float" else mpf(float(value))


def guarded(function: Function) -> Function:
    """The function with digits to lose near 0, where it is a limit."""

    def evaluate(x: mpf) -> mpf:
        with mp.workdps(160):
            value = function(x or mpf(10) ** -30)
        return +value

    return evaluate


def main() -> None:
    for name, table in tables().items():
        constant = name.split()[0]
        if sys.argv[1:] and constant not in sys.argv[1:]:
            continue
        for scalar, terms in (("float", table.float_terms), ("double", table.double_terms)):
            if terms:
                target, weight = guarded(table.target), guarded(table.weight)
                coefficients, error = fit(target, weight, terms, table.low, table.high, scalar)
                shortest = np.float32 if scalar == "float" else np.float64
                print(f"{constant} {scalar}: degree {terms - 1}, error 2^{np.log2(error):.1f}")
                print("    " + ", ".join(str(shortest(float(c))) for c in coefficients))


if __name__ == "__main__":
    with mp.workdps(60):
        main()
