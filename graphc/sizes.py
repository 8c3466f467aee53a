"""Schedules for sizes that are not known yet: what they take for granted, and estimates.

A kernel for symbolic sizes is right for all of them, and yet some of its shape, such as the order of a sum or how many lanes
a short row has, follows from a size. So a schedule is made with an example at hand: where it asks whether one size is less
than another, and that is not so for all sizes, the example answers, and the answer is noted as a fact. Sizes for which a
fact does not hold need another schedule. Sizes that are not the same polynomial count as different.

>>> from graphc.dims import Dim
>>> N = Dim.symbol("N")
>>> facts = Facts({"N": 100})
>>> with relying_on(facts):
...     N > 16, N + 1 > N, N == 100, estimate(2 * N)
(True, True, False, 200)
>>> facts.hold({"N": 50}), facts.hold({"N": 3})
(True, False)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from graphc.dims import Dim, Quotient, answering, decided
from graphc.errors import ShapeError
from graphc.types import Size


class NumberNeeded(ShapeError):
    """Code for any size cannot be made: some part of it has to be made for a number."""

    def __init__(self, size: Dim) -> None:
        super().__init__(f"the size {size} is not known", expected="a number", hint="bind the sizes of the graph")
        self.symbols = size.symbols()


class Facts:
    """An example of the sizes, and the facts that a schedule rests on."""

    by_form = True

    def __init__(self, example: Mapping[str, int]) -> None:
        self.example = dict(example)
        self.at_least_zero: dict[Dim, bool] = {}
        """Whether a difference of sizes is >= 0."""
        self.needed: frozenset[str] = frozenset()
        """Symbols in whose place a number was asked for."""

    def holds(self, difference: Dim, relation: str) -> bool:
        """What holds for the example."""
        assert relation == ">=", "sizes are equal by their form"
        known = self.at_least_zero.get(difference)
        if known is None:
            known = self.at_least_zero[difference] = self.estimate(difference) >= 0
        return known

    def number(self, size: Dim) -> int:
        """No number is known: NumberNeeded."""
        self.needed |= size.symbols()
        raise NumberNeeded(size)

    def estimate(self, size: Size) -> int:
        """The size for the example."""
        return evaluate(size, self.example)

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """Whether all facts hold for these sizes."""
        return all((evaluate(difference, sizes) >= 0) == expected for difference, expected in self.at_least_zero.items())


class _Current(threading.local):
    facts: Facts | None = None


_current = _Current()


@contextmanager
def relying_on(facts: Facts | None) -> Iterator[None]:
    """Let this thread make a schedule for sizes that are not known, but for the facts that it notes."""
    before = _current.facts
    _current.facts = facts
    try:
        with answering(facts):
            yield
    finally:
        _current.facts = before


def current_facts() -> Facts | None:
    """What this thread's schedule relies on; None where all sizes have to be numbers."""
    return _current.facts


def estimate(size: Size) -> int:
    """About how much a size is: where only speed depends on it. Nothing is noted."""
    if isinstance(size, int):
        return size
    if _current.facts is None:
        raise NumberNeeded(size)
    return _current.facts.estimate(size)


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """The number that a size is; all its symbols must be among `sizes`. A quotient by 0, with which nothing is computed, is
    taken as one by 1."""
    if not isinstance(size, Dim):
        return size
    total = 0
    for factors, coefficient in size.terms:
        product = coefficient
        for factor in factors:
            if isinstance(factor, Quotient):
                product *= evaluate(factor.dividend, sizes) // max(1, evaluate(factor.divisor, sizes))
            elif isinstance(factor, Greatest):
                product *= max(evaluate(part, sizes) for part in factor.sizes)
            elif factor in sizes:
                product *= sizes[factor]
            else:
                raise NumberNeeded(size)
        total += product
    return total


class Greatest(str):
    """The factor of a product that is the greatest of some sizes; its text says all of it. Places in memory come of it."""

    __slots__ = ("sizes",)
    sizes: tuple[Size, ...]

    def __new__(cls, sizes: tuple[Size, ...]) -> Greatest:
        made = str.__new__(cls, f"max({', '.join(map(str, sizes))})")
        made.sizes = sizes
        return made


def greatest(a: Size, b: Size) -> Size:
    """The greater size, whichever that is."""
    for one, other in ((a, b), (b, a)):
        difference = one - other
        if difference >= 0 if isinstance(difference, int) else decided(difference, ">="):
            return one
    parts: dict[Size, None] = {}
    for size in (a, b):
        factor = size.terms[0][0][0] if isinstance(size, Dim) and len(size.terms) == 1 and len(size.terms[0][0]) == 1 else ""
        parts |= dict.fromkeys(factor.sizes if isinstance(factor, Greatest) and size == Dim({(factor,): 1}) else (size,))
    return Dim({(Greatest(tuple(parts)),): 1})


def is_static(*sizes: Size) -> bool:
    """Whether all are numbers."""
    return not any(isinstance(size, Dim) for size in sizes)


def ceil_div(size: Size, divisor: Size) -> Size:
    """How many parts of `divisor` a size has; the last may be smaller."""
    return -(-size // divisor)
