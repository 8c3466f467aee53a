"""What is assumed of symbolic sizes while a graph is made: the answers of an example, written down as guards.

Code that is traced may ask `n > 1` of a size that is a symbol. Every symbol has a hint, the size that it has in the example;
the answer is the one for the hints, and becomes a guard: the graph stands for all sizes that give the same answer.

>>> from graphc.dims import Dim
>>> N, M = Dim.symbol("N"), Dim.symbol("M")
>>> with assuming({"N": 6, "M": 6}) as sizes:
...     print(N > 4, N == M, N % 2 == 0)
True True True
>>> sizes.guards
[N >= 5]
>>> sizes.solved
{'M': 2*N_2, 'N': 2*N_2}
>>> print(evaluate(sizes.conditions(), {"N_2": 2}))
2*N_2 >= 5, but 2*N_2 is 4

An answer "equal" is not kept as a guard where it can be solved: sizes that are equal get one symbol, and a size that is a
multiple of 2 becomes twice another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphc.dims import Dim, Quotient, answering, bounds, common_factors, decided
from graphc.errors import Location, user_location

DEFAULT_HINT = 240
"""The size that is taken for a symbol without a hint: one that is neither small nor odd, and divides by what sizes are
usually divided by."""


@dataclass(frozen=True)
class Relation:
    """A difference of sizes that is "==", "!=" or ">=" 0, and the user's line that wanted to know."""

    difference: Dim
    relation: str
    location: Location | None = field(default=None, compare=False)

    def sides(self) -> tuple[int | Dim, int | Dim]:
        """The difference as two sums of positive terms: `N`, `2`."""
        left: int | Dim = 0
        right: int | Dim = 0
        for monomial, coefficient in self.difference.terms:
            part = Dim({monomial: abs(coefficient)}) if monomial else abs(coefficient)
            left, right = (left + part, right) if coefficient > 0 else (left, right + part)
        return left, right

    def fails(self, sizes: Mapping[str, int]) -> bool:
        """Whether numbers for all symbols break it."""
        value = self.difference.bind(sizes)
        assert not isinstance(value, Dim)
        return not {"==": value == 0, "!=": value != 0, ">=": value >= 0}[self.relation]

    def bind(self, sizes: Mapping[str, int | Dim]) -> Relation | None:
        """The relation with other sizes put in; None where nothing is left to check."""
        bound = self.difference.bind(sizes)
        if not isinstance(bound, Dim) or decided(bound, self.relation.replace("!", "=")) is (self.relation != "!="):
            return None
        return Relation(bound, self.relation, self.location)

    def __str__(self) -> str:
        left, right = self.sides()
        if not isinstance(left, Dim):
            return f"{right} {self.relation.replace('>', '<')} {left}"
        return f"{left} {self.relation} {right}"

    __repr__ = __str__


@dataclass(frozen=True)
class Failure:
    """A relation that does not hold for some sizes."""

    relation: Relation
    sizes: Mapping[str, int]

    def values(self) -> str:
        """What the sides are."""
        sides = {str(x): x.bind(self.sizes) for x in self.relation.sides() if isinstance(x, Dim)}
        return " and ".join(f"{text} is {value}" for text, value in sides.items())

    def __str__(self) -> str:
        return f"{self.relation}, but {self.values()}"


def evaluate(guards: Sequence[Relation], sizes: Mapping[str, int]) -> Failure | None:
    """The first relation that numbers for the symbols break, in words by `str`; None if all hold."""
    return next((Failure(guard, sizes) for guard in guards if guard.fails(sizes)), None)


class Assumptions:
    """The hints of symbols, and what has been concluded from them."""

    by_form = False

    def __init__(self, hints: Mapping[str, int] | None = None, ranges: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.hints = dict(hints or {})
        self.ranges = dict(ranges or {})
        """The least and greatest number that each symbol may be, as far as it is known."""
        self._declared = dict(self.ranges)
        self.guards: list[Relation] = []
        self.equalities: list[Relation] = []
        """What was found to be equal, for messages: `solved` says the same."""
        self.solved: dict[str, int | Dim] = {}
        """What symbols have to be, in terms of those that are left."""

    def symbol(self, name: str, hint: int | None = None, least: float = 0, greatest: float = math.inf) -> Dim:
        """A new size; a suffix tells it from others of the same name."""
        taken, free, number = {*self.hints, *self.ranges}, name, 1
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        self.hints[free] = DEFAULT_HINT if hint is None else hint
        self.ranges[free] = self._declared[free] = (least, greatest)
        return Dim.symbol(free)

    def hint(self, size: int | Dim) -> int:
        """The number that a size has in the example."""
        if not isinstance(size, Dim):
            return size
        value = size.bind({name: self._hint(name) for name in size.symbols()})
        assert not isinstance(value, Dim)
        return value

    def resolve(self, size: int | Dim) -> int | Dim:
        """A size in terms of the symbols that are left."""
        return size.bind(self.solved) if isinstance(size, Dim) and self.solved else size

    def conditions(self) -> list[Relation]:
        """The guards in terms of the symbols that are left, without those that hold for all sizes."""
        found = dict.fromkeys(guard.bind(self.solved) for guard in self.guards)
        return [guard for guard in found if guard is not None]

    def declared(self) -> list[Relation]:
        """What the symbols that are left were said to be from the start."""
        found = []
        for name, (least, greatest) in self._declared.items():
            if name not in self.solved:
                size = Dim.symbol(name)
                for gap, bounded in ((size - least, least > 0), (greatest - size if math.isfinite(greatest) else 0, True)):
                    if bounded and isinstance(gap, Dim):
                        found.append(Relation(gap, ">="))
        return found

    # What sizes ask

    def holds(self, difference: Dim, relation: str) -> bool:
        """Whether a difference of sizes is "==" or ">=" 0: by what is known already, or else by the hints."""
        gap = self.resolve(difference)
        if not isinstance(gap, Dim):
            return gap == 0 if relation == "==" else gap >= 0
        known = self.known(gap, relation)
        if known is not None:
            return known
        value = self.hint(gap)
        location = user_location()
        if relation == "==":
            if value == 0:
                self._solve(Relation(gap, "==", location))
            else:
                self._add(Relation(gap, "!=", location))
            return value == 0
        self._add(Relation(_least_multiple(gap if value >= 0 else -gap - 1), ">=", location))
        return value >= 0

    def known(self, gap: Dim, relation: str) -> bool | None:
        """Whether a difference of sizes is "==" or ">=" 0 by what has been concluded so far; None where it does not say."""
        known = decided(gap, relation, self.ranges)
        return self._implied(gap, relation) if known is None else known

    def number(self, size: Dim) -> int:
        """The size's number in the example, which it is from now on."""
        value = self.hint(size)
        gap = self.resolve(size - value)
        if isinstance(gap, Dim):
            self._solve(Relation(gap, "==", user_location()))
        return value

    # Conclusions

    def _hint(self, name: str) -> int:
        return self.hints.setdefault(name, DEFAULT_HINT)

    def _implied(self, gap: Dim, relation: str) -> bool | None:
        for guard in self.guards:
            if guard.relation == "!=" and relation == "==" and guard.difference.terms in (gap.terms, _terms(-gap)):
                return False
            if guard.relation == ">=":
                if relation == ">=" and decided(gap - guard.difference, ">=", self.ranges):
                    return True
                if decided(-gap - guard.difference - 1, ">=", self.ranges):
                    return False  # it is less than 0
                if relation == "==" and decided(gap - guard.difference - 1, ">=", self.ranges):
                    return False
        return None

    def _add(self, guard: Relation) -> None:
        self.guards.append(guard)
        terms = dict(guard.difference.terms)
        constant = terms.pop((), 0)
        (monomial, factor), *more = terms.items()
        if more or len(monomial) != 1 or isinstance(monomial[0], Quotient):
            return
        name, (least, greatest) = monomial[0], self.ranges.get(monomial[0], (0, math.inf))
        if guard.relation == "!=":
            least += factor * least + constant == 0
            greatest -= math.isfinite(greatest) and factor * greatest + constant == 0
        elif factor > 0:
            least = max(least, -(constant // factor))
        else:
            greatest = min(greatest, constant // -factor)
        self.ranges[name] = (least, greatest)

    def _solve(self, found: Relation) -> None:
        """Take an equality as given: write one symbol as an expression of the others, or else every one as its number."""
        found = Relation(self._reduced(found.difference), found.relation, found.location)
        self.equalities.append(found)
        gap = found.difference
        for name in sorted(gap.symbols(), key=list(self.hints).index, reverse=True):  # the oldest stay
            if (value := _solution(gap, name)) is not None:
                return self._substitute(name, value, found)
        for divided, divisor in _divisions(gap):
            for name in sorted(divided.symbols(), key=list(self.hints).index, reverse=True):
                if (factor := _step(divided, divisor, name)) is not None:
                    least, greatest = self.ranges.get(name, (0, math.inf))
                    rest = self._hint(name) % factor
                    count = self.symbol(f"{name}_{factor}", self._hint(name) // factor, max(0, -((rest - least) // factor)),
                                        greatest if math.isinf(greatest) else (greatest - rest) // factor)
                    return self._substitute(name, factor * count + rest, found)
        for name, other in self._equal_factors(gap):
            self._substitute(name, Dim.symbol(other), found)
        left = self.resolve(gap)
        for name in sorted(left.symbols()) if isinstance(left, Dim) else ():
            self._substitute(name, self._hint(name), found)
        return None

    def _equal_factors(self, gap: Dim) -> list[tuple[str, str]]:
        """Where two products are equal because their factors are: the newer and the older one of each pair."""
        if len(gap.terms) != 2 or gap.terms[0][1] + gap.terms[1][1]:
            return []
        left, right = (list(monomial) for monomial, _ in gap.terms)
        if len(left) != len(right) or any(isinstance(factor, Quotient) for factor in (*left, *right)):
            return []
        pairs = []
        for name in left:
            twin = next((other for other in right if self._hint(other) == self._hint(name)), None)
            if twin is None:
                return []
            right.remove(twin)
            newer, older = sorted((name, twin), key=list(self.hints).index, reverse=True)
            pairs.append((newer, older))
        return pairs

    def _reduced(self, gap: Dim) -> Dim:
        """What is 0 where the size is, without what all its terms have in common and is not 0."""
        factor = math.gcd(*(coefficient for _, coefficient in gap.terms))
        product: int | Dim = factor
        for name in common_factors(gap):
            if bounds(Dim({(name,): 1}), self.ranges)[0] >= 1:
                product = product * Dim({(name,): 1})
        reduced = gap // product
        assert isinstance(reduced, Dim)
        return reduced

    def _substitute(self, name: str, value: int | Dim, found: Relation) -> None:
        least, greatest = self.ranges.get(name, (0, math.inf))
        self.solved = {key: size.bind({name: value}) if isinstance(size, Dim) else size for key, size in self.solved.items()}
        self.solved[name] = value
        # what was known of the symbol is to hold of what it is now
        for gap in (value - least if least > 0 else 0, greatest - value if math.isfinite(greatest) else 0):
            if isinstance(gap, Dim) and decided(gap, ">=", self.ranges) is None:
                self._add(Relation(_least_multiple(gap), ">=", found.location))


def _solution(gap: Dim, name: str) -> int | Dim | None:
    """What a symbol is where a difference is 0, if it stands there once, by itself."""
    coefficient = dict(gap.terms).get((name,), 0)
    rest = gap - coefficient * Dim.symbol(name)
    if not coefficient or (isinstance(rest, Dim) and name in rest.symbols()):
        return None
    if abs(coefficient) == 1:
        return rest * -coefficient
    return None if isinstance(rest, Dim) or rest % coefficient else -rest // coefficient


def _divisions(gap: Dim) -> Iterator[tuple[Dim, int]]:
    """The dividends that are said to leave a certain remainder, with the divisors: a - b*(a//b) - r is 0."""
    for monomial, coefficient in gap.terms:
        if len(monomial) == 1 and isinstance(factor := monomial[0], Quotient):
            dividend, divisor = factor.dividend, factor.divisor
            if isinstance(divisor, int) and isinstance(dividend, Dim) and coefficient % divisor == 0:
                times = -coefficient // divisor
                if not isinstance(gap - coefficient * Dim({monomial: 1}) - times * dividend, Dim):
                    yield dividend, divisor


def _step(divided: Dim, divisor: int, name: str) -> int | None:
    """In which steps a symbol grows where the remainder stays the same, if the rest leaves that to it alone."""
    if divided.symbols() != {name}:
        return None
    terms = dict(divided.terms)
    if any(len(monomial) > 1 or any(isinstance(f, Quotient) for f in monomial) for monomial in terms):
        return None
    return divisor // math.gcd(divisor, terms[name,])


def _least_multiple(size: int | Dim) -> Dim:
    """What is >= 0 where the size is, without a factor that all its terms have: 2*N - 5 is where N - 3 is."""
    assert isinstance(size, Dim)
    factor = math.gcd(*(coefficient for monomial, coefficient in size.terms if monomial))
    return Dim({monomial: coefficient // factor for monomial, coefficient in size.terms})


def _terms(size: int | Dim) -> object:
    return size.terms if isinstance(size, Dim) else size


@contextmanager
def assuming(hints: Mapping[str, int] | Assumptions | None = None) -> Iterator[Assumptions]:
    """Answer for this thread what cannot be known of sizes, by the hints."""
    sizes = hints if isinstance(hints, Assumptions) else Assumptions(hints)
    with answering(sizes):
        yield sizes
