"""Index arithmetic on kernel expressions, kept in a normal form.

An index is a sum of multiples of atoms plus a constant. Atoms are axes, quotients and remainders that could not be
simplified, and numbers read from memory. Knowing the range of each axis lets most divisions disappear: with x < 8,
(8 * y + x) // 8 is y. All indices are int64 and, unless they are read from memory, not negative.

Multiples, divisors and ranges are sizes: numbers, or polynomials over symbols. Of those, only what holds for all sizes is
made use of, where none of them is 0: then nothing is computed at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from graphc.dims import Dim, decided
from graphc.errors import VerifyError
from graphc.expression import Axis, Expr, constant, size
from graphc.types import Size, bool_, int64

ZERO = constant(0, int64)
TRUE = constant(True, bool_)
NormalForm: TypeAlias = "tuple[Mapping[Expr, Size], Size]"
_KNOWN = ("constant", "size")


def number(value: Size) -> Expr:
    """An index that is the same throughout."""
    return size(value)


def terms(expr: Expr) -> NormalForm:
    """The coefficients of the atoms, none of which is 0, and the constant."""
    pending = [expr] if expr.terms is None and _parts(expr) else []
    while pending:  # not by recursion: sums can be long
        e = pending[-1]
        missing = [part for part in _parts(e) if part.terms is None and _parts(part)]
        if missing:
            pending += missing
            continue
        if e.terms is None and _parts(e):
            e.terms = _terms(e)
        pending.pop()
    return _known_terms(expr)


def _parts(expr: Expr) -> tuple[Expr, ...]:
    """What an expression is the sum or a multiple of; nothing for an atom or a constant."""
    if expr.op == "add":
        return expr.args
    return expr.args[:1] if expr.op == "mul" and expr.args[1].op in _KNOWN else ()


def _value(expr: Expr) -> Size:
    """What a constant or a size is."""
    return expr.attr if isinstance(expr.attr, Dim) else int(expr.attr)


def _known_terms(expr: Expr) -> NormalForm:
    """`terms` of an atom, a constant, or what has been looked at before."""
    if expr.terms is not None:
        return expr.terms
    return ({}, _value(expr)) if expr.op in _KNOWN else ({expr: 1}, 0)


def _terms(expr: Expr) -> NormalForm:
    """`terms` of a sum or a multiple, whose parts have been looked at."""
    if expr.op == "add":
        return _sum(*map(_known_terms, expr.args))
    atoms, constant_part = _known_terms(expr.args[0])
    factor = _value(expr.args[1])
    return {atom: coefficient * factor for atom, coefficient in atoms.items() if factor}, constant_part * factor


def _sum(left: NormalForm, right: NormalForm) -> NormalForm:
    """The sum of two normal forms."""
    out = dict(left[0])
    for atom, coefficient in right[0].items():
        out[atom] = out.get(atom, 0) + coefficient
    return {atom: coefficient for atom, coefficient in out.items() if coefficient}, left[1] + right[1]


def _recombine(atoms: dict[Expr, Size]) -> dict[Expr, Size]:
    """Put together what was divided: (x // c) * c + x % c is x."""
    again = True
    while again:
        again = False
        for atom, factor in list(atoms.items()):
            if atom.op != "modulo":
                continue
            x, c = atom.args
            whole = Expr("quotient", (x, c), int64)
            if whole in atoms and atoms[whole] == factor * _value(c):
                del atoms[atom], atoms[whole]
                inner, offset = terms(times(x, factor))
                if offset:  # cannot be kept among atoms
                    atoms[atom], atoms[whole] = factor, factor * _value(c)
                    continue
                for a, k in inner.items():
                    atoms[a] = atoms.get(a, 0) + k
                again = True
                break
    return atoms


def from_terms(atoms: Mapping[Expr, Size], offset: Size) -> Expr:
    """The expression of a normal form."""
    out: Expr | None = None
    if any(atom.op == "modulo" for atom in atoms):
        atoms = _recombine(dict(atoms))
    for atom, coefficient in atoms.items():
        if coefficient == 0:
            continue
        term = atom if coefficient == 1 else Expr("mul", (atom, number(coefficient)), int64)
        out = term if out is None else Expr("add", (out, term), int64)
    if out is None:
        return number(offset)
    return out if offset == 0 else Expr("add", (out, number(offset)), int64)


def plus(a: Expr, b: Expr | Size) -> Expr:
    """a + b."""
    left, right = terms(a), terms(b) if isinstance(b, Expr) else ({}, b)
    if not right[0]:
        return a if right[1] == 0 else from_terms(left[0], left[1] + right[1])
    return from_terms(*_sum(left, right))


def times(a: Expr, factor: Size) -> Expr:
    """a * factor."""
    if factor == 1:
        return a
    atoms, c = terms(a)
    return from_terms({atom: coefficient * factor for atom, coefficient in atoms.items()} if factor else {}, c * factor)


def bounds(expr: Expr) -> tuple[Size | float, Size | float]:
    """The least and greatest values that an index can have; infinite where they are not known."""
    if expr.bounds is None:
        atoms, offset = terms(expr)
        low: Size | float = offset
        high: Size | float = offset
        for atom, coefficient in atoms.items():
            least, most = _atom_bounds(atom)
            sign = _sign(coefficient)
            if sign < 0:
                least, most = most, least
            low = _add(low, _multiple(coefficient, sign, least, -math.inf))
            high = _add(high, _multiple(coefficient, sign, most, math.inf))
        expr.bounds = low, high
    return expr.bounds


def _sign(coefficient: Size) -> int:
    """Whether a number is positive or negative for all sizes; 0 if it is neither."""
    if isinstance(coefficient, int):
        return (coefficient > 0) - (coefficient < 0)
    return 1 if decided(coefficient, ">=") else -1 if surely(-coefficient, 0) else 0


def _multiple(coefficient: Size, sign: int, bound: Size | float, unknown: float) -> Size | float:
    if not sign:
        return unknown
    return sign * bound if isinstance(bound, float) else coefficient * bound


def _add(a: Size | float, b: Size | float) -> Size | float:
    """The sum of bounds, of which those that are floats are infinite."""
    if isinstance(a, float):
        return a
    return b if isinstance(b, float) else a + b


def surely(a: Size | float, b: Size | float) -> bool:
    """Whether a >= b for all sizes; floats are infinite."""
    if isinstance(a, float) or isinstance(b, float):
        return a == math.inf or b == -math.inf
    difference = a - b
    return difference >= 0 if isinstance(difference, int) else bool(decided(difference, ">="))


def _atom_bounds(atom: Expr) -> tuple[Size | float, Size | float]:
    if atom.op == "axis":
        extent = atom.attr.extent
        return 0, max(extent - 1, 0) if isinstance(extent, int) else extent - 1
    if atom.op == "quotient":
        low, high = bounds(atom.args[0])
        divisor = _value(atom.args[1])
        # infinity divided and rounded down is not a number
        return (low if isinstance(low, float) else low // divisor), (high if isinstance(high, float) else high // divisor)
    if atom.op == "modulo":
        return 0, _value(atom.args[1]) - 1
    if atom.op == "cast" and atom.args[0].dtype.kind in ("bool", "int", "uint"):
        narrow = atom.args[0].dtype
        bits = 1 if narrow is bool_ else narrow.bits
        return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if narrow.is_signed else (0, (1 << bits) - 1)
    return -math.inf, math.inf


def _divided(dividend: Size, divisor: Size) -> tuple[Size, Size]:
    """q and r with dividend == q * divisor + r: of a polynomial, each part that can be divided is."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        return divmod(dividend, divisor)
    if isinstance(dividend, int):
        return (0, dividend) if dividend else (0, 0)
    whole: Size = 0
    rest: Size = 0
    for part, coefficient in dividend.terms:
        summand = Dim({part: coefficient}) if part else coefficient
        if isinstance(divisor, int):
            q: Size = (Dim({part: 1}) if part else 1) * (coefficient // divisor)
            r: Size = (Dim({part: 1}) if part else 1) * (coefficient % divisor)
        else:
            q = summand // divisor
            q, r = (q, 0) if isinstance(summand - q * divisor, int) else (0, summand)
        whole, rest = whole + q, rest + r
    return whole, rest


def _split(expr: Expr, divisor: Size) -> tuple[Expr, Expr]:
    """q and r with expr == q * divisor + r, where q takes as much as can be told."""
    atoms, offset = terms(expr)
    whole: dict[Expr, Size] = {}
    rest: dict[Expr, Size] = {}
    for atom, coefficient in atoms.items():
        q, r = _divided(coefficient, divisor)
        if isinstance(coefficient, int) and r:
            q, r = 0, coefficient
        if q:
            whole[atom] = q
        if r:
            rest[atom] = r
    parts, left = _divided(offset, divisor)
    remainder = from_terms(rest, left)
    if not surely(bounds(remainder)[0], 0):
        # a remainder that may be negative would need a floor division: leave it whole
        return ZERO, expr
    return from_terms(whole, parts), remainder


def quotient(expr: Expr, divisor: Size) -> Expr:
    """expr // divisor, for expr >= 0."""
    if divisor == 1:
        return expr
    whole, rest = _split(expr, divisor)
    if surely(divisor - 1, bounds(rest)[1]):
        return whole
    atoms, offset = terms(rest)
    numbers = [n for n in (divisor, offset, *atoms.values()) if isinstance(n, int)]
    common = math.gcd(*numbers) if len(numbers) == len(atoms) + 2 else 1
    if common > 1:
        rest = from_terms({atom: c // common for atom, c in atoms.items()}, offset // common)
    return plus(whole, Expr("quotient", (rest, number(divisor // common)), int64))


def modulo(expr: Expr, divisor: Size) -> Expr:
    """expr % divisor, for expr >= 0."""
    if divisor == 1:
        return ZERO
    _, rest = _split(expr, divisor)
    if surely(divisor - 1, bounds(rest)[1]):
        return rest
    return Expr("modulo", (rest, number(divisor)), int64)


def ravel(index: Sequence[Expr], shape: Sequence[Size]) -> Expr:
    """The position in memory of an element of a contiguous array."""
    return strided(index, contiguous_strides(shape))


def contiguous_strides(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Row-major strides, in elements."""
    strides: list[Size] = []
    step: Size = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


def strided(index: Sequence[Expr], strides: Sequence[Size]) -> Expr:
    """The sum of index times stride."""
    atoms: dict[Expr, Size] = {}
    offset: Size = 0
    for i, stride in zip(index, strides, strict=True):
        parts, c = terms(i)
        for atom, coefficient in parts.items():
            atoms[atom] = atoms.get(atom, 0) + coefficient * stride
        offset += c * stride
    return from_terms(atoms, offset)


def unravel(position: Expr, shape: Sequence[Size]) -> tuple[Expr, ...]:
    """The index of the element at a position of a contiguous array."""
    out: list[Expr] = []
    for i, extent in reversed(list(enumerate(shape))):
        if extent == 1:
            out.append(ZERO)
        elif i == 0 or math.prod(shape[:i]) == 1:
            # nothing is left for the dimensions before, so no remainder needs to be taken
            out.append(position)
            position = ZERO
        else:
            out.append(modulo(position, extent))
            position = quotient(position, extent)
    return tuple(reversed(out))


def reindex(index: Sequence[Expr], shape: Sequence[Size], other: Sequence[Size]) -> tuple[Expr, ...]:
    """The index in shape `other` of the element that stands at `index` in `shape`; both have the same elements.

    Dimensions that the shapes have in common keep their index as it is; only what lies between is divided up anew.
    """
    if 0 in shape:
        return (ZERO,) * len(other)  # there are no elements
    out: list[Expr] = []
    i = j = 0
    while i < len(shape) or j < len(other):
        # the shortest runs of dimensions, from here on, that have the same number of elements
        left, right = i, j
        a: Size = 1
        b: Size = 1
        while True:
            if a == b and (i > left or j > right) and not (a == 1 and i < len(shape) and j < len(other)):
                break
            if i < len(shape) and (j == len(other) or not _is_part(b, a)):
                a, i = a * shape[i], i + 1
            elif j < len(other):
                b, j = b * other[j], j + 1
            else:
                break
        wide = [k for k in range(left, i) if shape[k] != 1]
        if len(wide) <= 1 and sum(extent != 1 for extent in other[right:j]) <= 1:
            place = index[wide[0]] if wide else ZERO
            out += [place if extent != 1 else ZERO for extent in other[right:j]]
        else:
            out += unravel(ravel(index[left:i], shape[left:i]), other[right:j])
    return tuple(out)


def _is_part(a: Size, b: Size) -> bool:
    """Whether a number of elements is less than another one; of symbolic ones, whether it divides it."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return a != b and isinstance(b, Dim) and not _divided(b, a)[1]


def less(a: Expr, b: Size) -> Expr:
    """Whether a < b."""
    low, high = bounds(a)
    if surely(b - 1, high):
        return TRUE
    if surely(low, b):
        return constant(False, bool_)
    return Expr("lt", (a, number(b)), bool_)


def at_least(a: Expr, b: Size) -> Expr:
    """Whether a >= b."""
    low, high = bounds(a)
    if surely(low, b):
        return TRUE
    if surely(b - 1, high):
        return constant(False, bool_)
    return Expr("ge", (a, number(b)), bool_)


def equals(a: Expr, b: Size) -> Expr:
    """Whether a == b."""
    low, high = bounds(a)
    if low == high == b:
        return TRUE
    if surely(b - 1, high) or (not isinstance(low, float) and surely(low, b + 1)):
        return constant(False, bool_)
    return Expr("eq", (a, number(b)), bool_)


def both(*conditions: Expr | None) -> Expr | None:
    """The conjunction; None stands for true."""
    out: Expr | None = None
    for condition in conditions:
        if condition is None or condition == TRUE:
            continue
        out = condition if out is None or out == condition else Expr("bitwise_and", (out, condition), bool_)
    return out


def stride(expr: Expr, axis: Axis) -> Size | None:
    """By how much an index grows when the axis grows by one; None where that is not the same everywhere."""
    atoms, _ = terms(expr)
    if any(atom is not axis.value and axis.value in set(atom.walk()) for atom in atoms):
        return None
    return atoms.get(axis.value, 0)


def substitute(expr: Expr, values: Mapping[Expr, Expr], done: dict[Expr, Expr] | None = None) -> Expr:
    """The expression with leaves replaced; indices among the results are simplified anew. `done` has what expressions have
    become so far, for several of them with the same `values`."""
    done = {} if done is None else done
    pending = [expr]
    while pending:
        e = pending[-1]
        if e in done:
            pending.pop()
            continue
        if e in values or not e.args:
            done[e] = values.get(e, e)
            continue
        missing = [arg for arg in e.args if arg not in done]
        if missing:
            pending += missing
            continue
        args = tuple(done[a] for a in e.args)
        if args == e.args:
            done[e] = e
        elif e.dtype is int64 and e.op == "add":
            done[e] = plus(*args)
        elif e.dtype is int64 and e.op == "mul" and args[1].op in _KNOWN:
            done[e] = times(args[0], _value(args[1]))
        elif e.op in ("quotient", "modulo"):
            if args[1].op not in _KNOWN:
                raise VerifyError(f"{e.op} by something that is not a constant or a size: {args[1]}")
            done[e] = (quotient if e.op == "quotient" else modulo)(args[0], _value(args[1]))
        else:
            done[e] = Expr(e.op, args, e.dtype, e.attr)
    return done[expr]
