"""Sizes that are not known yet: symbols, and integer polynomials over them.

A dimension of a shape is an `int` or a `Dim`. A `Dim` is kept as a sum of products, so equal sizes are equal objects
however they were computed; arithmetic that ends in a known number gives a plain `int` again.

>>> N = Dim.symbol("N")
>>> (2 * N + 1) - N
N + 1
>>> (6 * N) // 3 == 2 * N, N * 4 - 4 * N
(True, 0)

A division with a remainder stays in the sum as a factor of its own, rounded down as Python's is:

>>> (N - 1) // 2 + 1, (N // 2) // 3, -(-N // 4)
((N + 1)//2, N//6, (N + 3)//4)

What holds for every size >= 0 is known; what does not is for `graphc.assumptions` to answer, inside a trace. Without
assumptions two sizes are equal if they are the same polynomial, and an undecided `<` is a ShapeError.

>>> N + 1 > 0, 2 * N < N
(True, False)
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from graphc.errors import ShapeError

Monomial: TypeAlias = tuple[str, ...]
"""The factors of a product, sorted, repeated for powers; () is the constant. A factor is a symbol's name or a `Quotient`."""
Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""What is known of symbols: the least and the greatest number that each may be."""


_MOST_TERMS = 256
_MOST_FACTORS = 64
"""What products of sizes may grow to: as many factors as a tensor has dimensions. Without a bound a few lines of a saved file,
each of which squares the size before, would fill the memory."""
_MOST_TEXT = 1 << 12
"""How long the text of one quotient may be, for the same reason."""


class Quotient(str):
    """The factor `dividend // divisor` of a product, which cannot be simplified. Its text says all of it, so quotients are
    compared, sorted and hashed as names are."""

    __slots__ = ("dividend", "divisor")
    dividend: int | Dim
    divisor: int | Dim

    def __new__(cls, dividend: int | Dim, divisor: int | Dim) -> Quotient:
        left, right = (str(x) if str(x).isalnum() else f"({x})" for x in (dividend, divisor))
        if len(left) + len(right) > _MOST_TEXT:
            raise _too_long()
        made = str.__new__(cls, f"{left}//{right}")
        made.dividend, made.divisor = dividend, divisor
        return made

    def __reduce__(self) -> Any:
        return Quotient, (self.dividend, self.divisor)


class Context(Protocol):
    """Whoever answers, in a thread, what does not hold or fail for all sizes."""

    by_form: bool
    """Whether sizes are equal only if they are the same polynomial, which nobody need be asked."""

    def holds(self, difference: Dim, relation: str) -> bool:
        """Whether `difference` is "==" or ">=" 0."""
        ...

    def number(self, size: Dim) -> int:
        """The number that Python needs in the place of a size."""
        ...


class _State(threading.local):
    context: Context | None = None


_state = _State()


@contextmanager
def answering(context: Context | None) -> Iterator[None]:
    """Let `context` answer for this thread what cannot be known of sizes."""
    before = _state.context
    _state.context = context
    try:
        yield
    finally:
        _state.context = before


class Dim:
    """An integer polynomial over named sizes. Immutable, hashable; every symbol stands for a size >= 0."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = tuple(sorted(((m, c) for m, c in terms.items() if c), key=lambda t: (-len(t[0]), t[0])))
        self._hash = hash(self.terms)

    @staticmethod
    def symbol(name: str) -> Dim:
        """The size called `name`, an identifier."""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ShapeError(f"dimension name {name!r}", expected="an identifier")
        return Dim({(name,): 1})

    def symbols(self) -> frozenset[str]:
        """The names that the size depends on."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for factor in monomial:
                if isinstance(factor, Quotient):
                    found.update(*(x.symbols() for x in (factor.dividend, factor.divisor) if isinstance(x, Dim)))
                else:
                    found.add(factor)
        return frozenset(found)

    @property
    def is_symbol(self) -> bool:
        """Whether the size is one symbol, and nothing else."""
        (monomial, coefficient), *rest = self.terms
        return not rest and coefficient == 1 and len(monomial) == 1 and not isinstance(monomial[0], Quotient)

    def root(self) -> tuple[str, int] | None:
        """The symbol, and the number >= 0 that it has where the size is 0, of a multiple of one symbol plus a number."""
        names = self.symbols()
        (name,) = names if len(names) == 1 else ("",)
        terms = dict(self.terms)
        factor = terms.pop((name,), 0)
        constant = terms.pop((), 0)
        if not factor or terms or constant % factor or -constant // factor < 0:
            return None
        return name, -constant // factor

    def bind(self, sizes: Mapping[str, int | Dim]) -> int | Dim:
        """The size with numbers, or other sizes, put in for the symbols that `sizes` names."""
        total: int | Dim = 0
        for monomial, coefficient in self.terms:
            product: int | Dim = coefficient
            for factor in monomial:
                product = product * _bound(factor, sizes)
            total = total + product
        return total

    # Arithmetic

    def __add__(self, other: object) -> Any:
        if (terms := _terms(other)) is None:
            return _number("+", self, other)
        out = dict(self.terms)
        for monomial, coefficient in terms:
            out[monomial] = out.get(monomial, 0) + coefficient
        return _normal(out)

    def __mul__(self, other: object) -> Any:
        if (terms := _terms(other)) is None:
            return _number("*", self, other)
        if len(self.terms) * len(terms) > _MOST_TERMS**2:
            raise _too_long()
        out: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in terms:
                monomial = tuple(sorted(left + right))
                out[monomial] = out.get(monomial, 0) + a * b
        return _normal(out)

    def __floordiv__(self, other: object) -> Any:
        return _quotient(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rfloordiv__(self, other: object) -> Any:
        return _quotient(other, self) if isinstance(other, (int, Dim)) else NotImplemented

    def __mod__(self, other: object) -> Any:
        return self - other * _quotient(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rmod__(self, other: object) -> Any:
        return other - self * _quotient(other, self) if isinstance(other, (int, Dim)) else NotImplemented

    def __divmod__(self, other: int | Dim) -> tuple[int | Dim, int | Dim]:
        return self // other, self % other

    def __truediv__(self, other: object) -> Any:
        return _number("/", self, other)

    def __rtruediv__(self, other: object) -> Any:
        return _number("/", other, self)

    def __pow__(self, exponent: object) -> Any:
        if not isinstance(exponent, int) or exponent < 0:
            return _number("**", self, exponent)
        if exponent > _MOST_FACTORS:
            raise _too_long()
        return math.prod([self] * exponent)

    def __rpow__(self, base: object) -> Any:
        return _number("**", base, self)

    def __neg__(self) -> int | Dim:
        return self * -1

    def __pos__(self) -> Dim:
        return self

    def __abs__(self) -> int | Dim:
        return self if self >= 0 else -self

    def __sub__(self, other: object) -> Any:
        return self + (other * -1) if isinstance(other, (int, Dim)) else _number("-", self, other)

    def __rsub__(self, other: object) -> Any:
        return (self * -1) + other if isinstance(other, (int, Dim)) else _number("-", other, self)

    __radd__ = __add__

    def __rmul__(self, other: object) -> Any:
        return self * other if isinstance(other, int) else _number("*", other, self)

    # Questions

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        if isinstance(other, Dim) and self.terms == other.terms:
            return True
        return _state.context is not None and not _state.context.by_form and holds(self - other, "==")

    def __bool__(self) -> bool:
        return not self == 0  # noqa: SIM201  (as `!=` asks, but once)

    def __ge__(self, other: object) -> bool:
        return holds(self - other, ">=") if isinstance(other, (int, Dim)) else NotImplemented

    def __le__(self, other: object) -> bool:
        return holds(other - self, ">=") if isinstance(other, (int, Dim)) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return holds(self - other - 1, ">=") if isinstance(other, (int, Dim)) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return holds(other - self - 1, ">=") if isinstance(other, (int, Dim)) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __index__(self) -> int:
        """The number that the size has to be: in a trace, that of the example from here on."""
        if _state.context is None:
            raise ShapeError(f"the size {self} is not known", expected="a number",
                             hint="bind the sizes of the graph, or trace with these sizes as numbers")
        return _state.context.number(self)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.__index__())

    def __round__(self, digits: int | None = None) -> Dim:
        return self

    __trunc__ = __floor__ = __ceil__ = __pos__

    def __reduce__(self) -> Any:
        return Dim, (dict(self.terms),)  # not the hash, which is another one in another process

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            alone = len(monomial) == 1 and coefficient == 1
            names = [f"({f})" if isinstance(f, Quotient) and not alone else str(f) for f in monomial]
            factors = [*([] if abs(coefficient) == 1 and monomial else [str(abs(coefficient))]), *names]
            sign = (" - " if coefficient < 0 else " + ") if text else ("-" if coefficient < 0 else "")
            text += sign + "*".join(factors)
        return text

    __repr__ = __str__


def holds(difference: int | Dim, relation: str) -> bool:
    """Whether a size is "==" or ">=" 0; ShapeError where that depends on its symbols and nobody can tell."""
    known = decided(difference, relation)
    if known is not None:
        return known
    assert isinstance(difference, Dim)
    if _state.context is None:
        raise ShapeError(f"cannot tell whether {difference} {relation} 0", expected="what holds, or fails, for all sizes >= 0",
                         hint="compare sizes inside a trace, which takes the answer of its example")
    return _state.context.holds(difference, relation)


def surely_less(left: int | Dim, right: int | Dim) -> bool:
    """Whether `left < right`: as far as anybody can tell. For type rules, which refuse what is wrong for sure; what they let
    pass is checked again when the sizes are numbers."""
    if _state.context is None:
        return bool(decided(right - left - 1, ">="))
    try:
        return left < right
    except ShapeError:
        return False


# What is known of all sizes


def decided(difference: int | Dim, relation: str, ranges: Ranges | None = None) -> bool | None:
    """Whether a size is "==" or ">=" 0 whatever its symbols are within their ranges; None where that depends on them."""
    if not isinstance(difference, Dim):
        return difference == 0 if relation == "==" else difference >= 0
    ranges = ranges or {}
    least, greatest = bounds(difference, ranges)
    if relation == "==":
        if least > 0 or greatest < 0:
            return False
        factor = math.gcd(*(c for monomial, c in difference.terms if monomial))
        constant = dict(difference.terms).get((), 0)
        return False if constant % factor else None
    if least >= 0 or _least(difference, ranges) >= 0:
        return True
    if greatest < 0 or -_least(-difference, ranges) < 0:
        return False
    return None


def bounds(size: int | Dim, ranges: Ranges) -> tuple[float, float]:
    """The least and the greatest number that a size may be, each summand by itself."""
    if not isinstance(size, Dim):
        return size, size
    low: float = 0
    high: float = 0
    for monomial, coefficient in size.terms:
        least: float = coefficient
        greatest: float = coefficient
        for factor in monomial:
            corners = [_times(x, y) for x in (least, greatest) for y in _factor_bounds(factor, ranges)]
            least, greatest = min(corners), max(corners)
        low, high = low + least, high + greatest
    return low, high


def _factor_bounds(factor: str, ranges: Ranges) -> tuple[float, float]:
    if not isinstance(factor, Quotient):
        return ranges.get(factor, (0, math.inf))
    low, high = bounds(factor.dividend, ranges)
    if isinstance(factor.divisor, int):
        return _floor(low, factor.divisor), _floor(high, factor.divisor)
    return (0, high) if low >= 0 and bounds(factor.divisor, ranges)[0] >= 1 else (-math.inf, math.inf)


def _floor(number: float, divisor: int) -> float:
    return number if math.isinf(number) else number // divisor


def _times(left: float, right: float) -> float:
    if not left or not right:
        return 0
    if math.isinf(left) or math.isinf(right):
        return math.inf if (left > 0) == (right > 0) else -math.inf
    return left * right


def _least(size: int | Dim, ranges: Ranges) -> float:
    """A lower bound with the sign of the best one: `N - N//2` is at least `N - N/2`."""
    for _ in range(_MOST_FACTORS):
        if not isinstance(size, Dim):
            return size
        found = next(((m, c) for m, c in size.terms
                      if len(m) == 1 and isinstance(m[0], Quotient) and isinstance(m[0].divisor, int)), None)
        if found is None:
            break
        (factor,), coefficient = found
        assert isinstance(factor, Quotient)
        # dividend - divisor + 1 <= divisor * factor <= dividend
        rest, divisor = size - coefficient * Dim({(factor,): 1}), factor.divisor
        size = rest * divisor + coefficient * (factor.dividend if coefficient < 0 else factor.dividend - divisor + 1)
    return bounds(size, ranges)[0]


# The normal form


def _terms(other: object) -> tuple[tuple[Monomial, int], ...] | None:
    if isinstance(other, Dim):
        return other.terms
    return (((), int(other)),) if isinstance(other, int) else None


def _number(step: str, left: object, right: object) -> Any:
    """What is no size any more, as a float that depends on sizes."""
    from graphc import dim_numbers  # which are made of sizes

    return dim_numbers.step(step, left, right)


def _normal(terms: dict[Monomial, int]) -> int | Dim:
    known = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not known:
        return 0
    if set(known) == {()}:
        return known[()]
    if len(known) > _MOST_TERMS or max(map(len, known)) > _MOST_FACTORS:
        raise _too_long()
    return Dim(known)


def _too_long() -> ShapeError:
    return ShapeError("a symbolic size of too many parts",
                      expected=f"at most {_MOST_TERMS} summands, of at most {_MOST_FACTORS} factors each")


def _bound(factor: str, sizes: Mapping[str, int | Dim]) -> int | Dim:
    if not isinstance(factor, Quotient):
        return sizes[factor] if factor in sizes else Dim.symbol(factor)
    dividend, divisor = (x.bind(sizes) if isinstance(x, Dim) else x for x in (factor.dividend, factor.divisor))
    return _quotient(dividend, divisor)


def _quotient(dividend: int | Dim, divisor: int | Dim) -> int | Dim:
    """`dividend // divisor`, in a form that is the same for as many equal quotients as can be told apart from others."""
    if isinstance(divisor, Dim):
        if not isinstance(dividend, Dim) and dividend == 0:
            return 0
        if isinstance(dividend, Dim):
            if dividend.terms == divisor.terms:
                return 1
            if len(divisor.terms) == 1 and (shared := common_factors(dividend, divisor)):
                return _quotient(_without(dividend, shared), _without(divisor, shared))
        return Dim({(Quotient(dividend, divisor),): 1})
    if divisor == 0:
        raise ShapeError(f"the size {dividend} divided by 0")
    if divisor < 0:
        dividend, divisor = dividend * -1, -divisor
    if not isinstance(dividend, Dim):
        return dividend // divisor
    if dividend.terms[0][1] < 0:  # rounded up instead of down
        return -_quotient(-dividend + (divisor - 1), divisor)
    whole, rest = {}, {}
    for monomial, coefficient in dividend.terms:
        whole[monomial], rest[monomial] = divmod(coefficient, divisor)
    common = math.gcd(divisor, *(coefficient for monomial, coefficient in rest.items() if monomial))
    if common > 1:  # what is left of the constant then makes no difference
        rest, divisor = {monomial: coefficient // common for monomial, coefficient in rest.items()}, divisor // common
    return _normal(whole) + _proper_quotient(_normal(rest), divisor)


def _proper_quotient(dividend: int | Dim, divisor: int) -> int | Dim:
    """The quotient where no summand is a multiple of the divisor."""
    if divisor == 1 or not isinstance(dividend, Dim):
        return dividend // divisor
    for monomial, coefficient in dividend.terms:
        if coefficient == 1 and len(monomial) == 1 and isinstance(inner := monomial[0], Quotient) and isinstance(
                inner.divisor, int):  # (x//a + y)//b == (x + a*y)//(a*b)
            rest = dividend - Dim({monomial: 1})
            return _quotient(inner.dividend + inner.divisor * rest, inner.divisor * divisor)
    return Dim({(Quotient(dividend, divisor),): 1})


def common_factors(*sizes: Dim) -> Monomial:
    """The factors that all summands have: a division by them goes up."""
    first, *rest = (monomial for size in sizes for monomial, _ in size.terms)
    common = []
    for factor in dict.fromkeys(first):
        common += [factor] * min(monomial.count(factor) for monomial in (first, *rest))
    return tuple(common)


def _without(size: Dim, factors: Monomial) -> int | Dim:
    terms = {}
    for monomial, coefficient in size.terms:
        left = list(monomial)
        for factor in factors:
            left.remove(factor)
        terms[tuple(left)] = coefficient
    return _normal(terms)
