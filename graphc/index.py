"""Index arithmetic on kernel expressions, kept in a normal form.

An index is a sum of multiples of atoms plus a constant. Atoms are axes, quotients and remainders that could not be
simplified, and numbers read from memory. Knowing the range of each axis lets most divisions disappear: with x < 8,
(8 * y + x) // 8 is y. All indices are int64 and, unless they are read from memory, not negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphc.errors import VerifyError
from graphc.kernel import Axis, Expr, constant
from graphc.types import bool_, int64

ZERO = constant(0, int64)
TRUE = constant(True, bool_)


def number(value: int) -> Expr:
    """A constant index."""
    return constant(value, int64)


def terms(expr: Expr) -> tuple[Mapping[Expr, int], int]:
    """The coefficients of the atoms, none of which is 0, and the constant."""
    pending = [expr]
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
    return expr.args[:1] if expr.op == "mul" and expr.args[1].op == "constant" else ()


def _known_terms(expr: Expr) -> tuple[Mapping[Expr, int], int]:
    """`terms` of an atom, a constant, or what has been looked at before."""
    if expr.terms is not None:
        return expr.terms
    return ({}, int(expr.attr)) if expr.op == "constant" else ({expr: 1}, 0)


def _terms(expr: Expr) -> tuple[Mapping[Expr, int], int]:
    """`terms` of a sum or a multiple, whose parts have been looked at."""
    if expr.op == "add":
        return _sum(*map(_known_terms, expr.args))
    atoms, constant_part = _known_terms(expr.args[0])
    factor = int(expr.args[1].attr)
    return {atom: coefficient * factor for atom, coefficient in atoms.items() if factor}, constant_part * factor


def _sum(left: tuple[Mapping[Expr, int], int], right: tuple[Mapping[Expr, int], int]) -> tuple[Mapping[Expr, int], int]:
    """The sum of two normal forms."""
    out = dict(left[0])
    for atom, coefficient in right[0].items():
        out[atom] = out.get(atom, 0) + coefficient
    return {atom: coefficient for atom, coefficient in out.items() if coefficient}, left[1] + right[1]


def _recombine(atoms: dict[Expr, int]) -> dict[Expr, int]:
    """Put together what was divided: (x // c) * c + x % c is x."""
    again = True
    while again:
        again = False
        for atom, factor in list(atoms.items()):
            if atom.op != "modulo":
                continue
            x, c = atom.args
            whole = Expr("quotient", (x, c), int64)
            if atoms.get(whole, 0) == factor * c.attr:
                del atoms[atom], atoms[whole]
                inner, offset = terms(times(x, factor))
                if offset:  # cannot be kept among atoms
                    atoms[atom], atoms[whole] = factor, factor * c.attr
                    continue
                for a, k in inner.items():
                    atoms[a] = atoms.get(a, 0) + k
                again = True
                break
    return atoms


def from_terms(atoms: Mapping[Expr, int], offset: int) -> Expr:
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


def plus(a: Expr, b: Expr | int) -> Expr:
    """a + b."""
    left, right = terms(a), terms(b) if isinstance(b, Expr) else ({}, b)
    if not right[0]:
        return a if right[1] == 0 else from_terms(left[0], left[1] + right[1])
    return from_terms(*_sum(left, right))


def times(a: Expr, factor: int) -> Expr:
    """a * factor."""
    if factor == 1:
        return a
    atoms, c = terms(a)
    return from_terms({atom: coefficient * factor for atom, coefficient in atoms.items()} if factor else {}, c * factor)


def bounds(expr: Expr) -> tuple[float, float]:
    """The least and greatest values that an index can have; infinite where they are not known."""
    if expr.bounds is None:
        atoms, offset = terms(expr)
        low: float = offset
        high: float = offset
        for atom, coefficient in atoms.items():
            least, most = _atom_bounds(atom)
            low += coefficient * (least if coefficient > 0 else most)
            high += coefficient * (most if coefficient > 0 else least)
        expr.bounds = low, high
    return expr.bounds


def _atom_bounds(atom: Expr) -> tuple[float, float]:
    if atom.op == "axis":
        return 0, max(atom.attr.extent - 1, 0)
    if atom.op == "quotient":
        low, high = bounds(atom.args[0])
        divisor = atom.args[1].attr
        # infinity divided and rounded down is not a number
        return (low if math.isinf(low) else low // divisor), (high if math.isinf(high) else high // divisor)
    if atom.op == "modulo":
        return 0, atom.args[1].attr - 1
    if atom.op == "cast" and atom.args[0].dtype.kind in ("bool", "int", "uint"):
        narrow = atom.args[0].dtype
        bits = 1 if narrow is bool_ else narrow.bits
        return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if narrow.is_signed else (0, (1 << bits) - 1)
    return -math.inf, math.inf


def _split(expr: Expr, divisor: int) -> tuple[Expr, Expr]:
    """q and r with expr == q * divisor + r, where q takes as much as can be told."""
    atoms, offset = terms(expr)
    whole = {atom: c // divisor for atom, c in atoms.items() if c % divisor == 0}
    rest = {atom: c for atom, c in atoms.items() if c % divisor}
    remainder = from_terms(rest, offset % divisor)
    if bounds(remainder)[0] < 0:
        # a remainder that may be negative would need a floor division: leave it whole
        return ZERO, expr
    return from_terms(whole, offset // divisor), remainder


def quotient(expr: Expr, divisor: int) -> Expr:
    """expr // divisor, for expr >= 0."""
    if divisor == 1:
        return expr
    whole, rest = _split(expr, divisor)
    if bounds(rest)[1] < divisor:
        return whole
    atoms, offset = terms(rest)
    common = math.gcd(divisor, offset, *atoms.values())
    if common > 1:
        rest = from_terms({atom: c // common for atom, c in atoms.items()}, offset // common)
    return plus(whole, Expr("quotient", (rest, number(divisor // common)), int64))


def modulo(expr: Expr, divisor: int) -> Expr:
    """expr % divisor, for expr >= 0."""
    if divisor == 1:
        return ZERO
    _, rest = _split(expr, divisor)
    if bounds(rest)[1] < divisor:
        return rest
    return Expr("modulo", (rest, number(divisor)), int64)


def ravel(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The position in memory of an element of a contiguous array."""
    return strided(index, contiguous_strides(shape))


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def strided(index: Sequence[Expr], strides: Sequence[int]) -> Expr:
    """The sum of index times stride."""
    atoms: dict[Expr, int] = {}
    offset = 0
    for i, stride in zip(index, strides, strict=True):
        parts, c = terms(i)
        for atom, coefficient in parts.items():
            atoms[atom] = atoms.get(atom, 0) + coefficient * stride
        offset += c * stride
    return from_terms(atoms, offset)


def unravel(position: Expr, shape: Sequence[int]) -> tuple[Expr, ...]:
    """The index of the element at a position of a contiguous array."""
    out: list[Expr] = []
    for i, size in reversed(list(enumerate(shape))):
        if size == 1:
            out.append(ZERO)
        elif i == 0 or math.prod(shape[:i]) == 1:
            # nothing is left for the dimensions before, so no remainder needs to be taken
            out.append(position)
            position = ZERO
        else:
            out.append(modulo(position, size))
            position = quotient(position, size)
    return tuple(reversed(out))


def reindex(index: Sequence[Expr], shape: Sequence[int], other: Sequence[int]) -> tuple[Expr, ...]:
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
        a = b = 1
        while True:
            if a == b and (i > left or j > right) and not (a == 1 and i < len(shape) and j < len(other)):
                break
            if i < len(shape) and (a <= b or j == len(other)):
                a, i = a * shape[i], i + 1
            elif j < len(other):
                b, j = b * other[j], j + 1
            else:
                break
        wide = [k for k in range(left, i) if shape[k] != 1]
        if len(wide) <= 1 and sum(size != 1 for size in other[right:j]) <= 1:
            place = index[wide[0]] if wide else ZERO
            out += [place if size != 1 else ZERO for size in other[right:j]]
        else:
            out += unravel(ravel(index[left:i], shape[left:i]), other[right:j])
    return tuple(out)


def less(a: Expr, b: int) -> Expr:
    """Whether a < b."""
    low, high = bounds(a)
    if high < b:
        return TRUE
    if low >= b:
        return constant(False, bool_)
    return Expr("lt", (a, number(b)), bool_)


def at_least(a: Expr, b: int) -> Expr:
    """Whether a >= b."""
    low, high = bounds(a)
    if low >= b:
        return TRUE
    if high < b:
        return constant(False, bool_)
    return Expr("ge", (a, number(b)), bool_)


def equals(a: Expr, b: int) -> Expr:
    """Whether a == b."""
    low, high = bounds(a)
    if low == high == b:
        return TRUE
    if b < low or b > high:
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


def stride(expr: Expr, axis: Axis) -> int | None:
    """By how much an index grows when the axis grows by one; None where that is not the same everywhere."""
    atoms, _ = terms(expr)
    if any(atom is not axis.value and axis.value in set(atom.walk()) for atom in atoms):
        return None
    return atoms.get(axis.value, 0)


def substitute(expr: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """The expression with leaves replaced; indices among the results are simplified anew."""
    done: dict[Expr, Expr] = {}
    for e in expr.walk():
        if e in values:
            done[e] = values[e]
            continue
        args = tuple(done[a] for a in e.args)
        if args == e.args:
            done[e] = e
        elif e.dtype is int64 and e.op == "add":
            done[e] = plus(*args)
        elif e.dtype is int64 and e.op == "mul" and args[1].op == "constant":
            done[e] = times(args[0], int(args[1].attr))
        elif e.op in ("quotient", "modulo"):
            if args[1].op != "constant":
                raise VerifyError(f"{e.op} by something that is not a constant: {args[1]}")
            done[e] = (quotient if e.op == "quotient" else modulo)(args[0], int(args[1].attr))
        else:
            done[e] = Expr(e.op, args, e.dtype, e.attr)
    return done[expr]
