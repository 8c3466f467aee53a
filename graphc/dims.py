"""Sizes that are not known yet: symbols, and integer polynomials over them.

A dimension of a shape is an `int` or a `Dim`. A `Dim` is kept as a sum of products, so equal sizes are equal objects
however they were computed; arithmetic that ends in a known number gives a plain `int` again.

>>> N = Dim.symbol("N")
>>> (2 * N + 1) - N
N + 1
>>> (6 * N) // 3 == 2 * N, N * 4 - 4 * N
(True, 0)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from graphc.errors import ShapeError

Monomial: TypeAlias = tuple[str, ...]  # the symbols of a product, sorted, repeated for powers; () is the constant


_MOST_TERMS = 256
_MOST_FACTORS = 64
"""What products of sizes may grow to: as many factors as a tensor has dimensions. Without a bound a few lines of a saved file,
each of which squares the size before, would fill the memory."""


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
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def bind(self, sizes: Mapping[str, int]) -> int | Dim:
        """The size with numbers put in for the symbols that `sizes` names."""
        total: int | Dim = 0
        for monomial, coefficient in self.terms:
            product: int | Dim = coefficient
            for name in monomial:
                product = product * (sizes[name] if name in sizes else Dim.symbol(name))
            total = total + product
        return total

    def __add__(self, other: object) -> int | Dim:
        if (terms := _terms(other)) is None:
            return NotImplemented
        out = dict(self.terms)
        for monomial, coefficient in terms:
            out[monomial] = out.get(monomial, 0) + coefficient
        return _normal(out)

    def __mul__(self, other: object) -> int | Dim:
        if (terms := _terms(other)) is None:
            return NotImplemented
        if len(self.terms) * len(terms) > _MOST_TERMS**2:
            raise _too_long()
        out: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in terms:
                monomial = tuple(sorted(left + right))
                out[monomial] = out.get(monomial, 0) + a * b
        return _normal(out)

    def __floordiv__(self, other: object) -> int | Dim:
        quotient = _divide(self, other)
        if quotient is None:
            raise ShapeError(f"cannot divide the size {self} by {other}", expected="a division without remainder")
        return quotient

    def __mod__(self, other: object) -> int | Dim:
        if _divide(self, other) is None:
            raise ShapeError(f"cannot tell whether the size {self} is a multiple of {other}")
        return 0

    def __neg__(self) -> int | Dim:
        return self * -1

    def __sub__(self, other: object) -> int | Dim:
        return self + (other * -1) if isinstance(other, (int, Dim)) else NotImplemented

    def __rsub__(self, other: int) -> int | Dim:
        return (self * -1) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            factors = [*([] if abs(coefficient) == 1 and monomial else [str(abs(coefficient))]), *monomial]
            sign = (" - " if coefficient < 0 else " + ") if text else ("-" if coefficient < 0 else "")
            text += sign + "*".join(factors)
        return text

    __repr__ = __str__


def parse_dim(text: str) -> int | Dim:
    """Read a size as it is printed: `8`, `N`, `2*N + 1`."""
    total: int | Dim = 0
    for sign, product in re.findall(r"([+-]?)\s*([^+\-\s][^+\-]*)", text):
        value: int | Dim = -1 if sign == "-" else 1
        for factor in product.strip().split("*"):
            factor = factor.strip()
            value = value * (int(factor) if factor.isdigit() else Dim.symbol(factor))
        total = total + value
    return total


def _terms(other: object) -> tuple[tuple[Monomial, int], ...] | None:
    if isinstance(other, Dim):
        return other.terms
    return (((), int(other)),) if isinstance(other, int) else None


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


def _divide(dividend: Dim, divisor: object) -> int | Dim | None:
    """The exact quotient by a single product, or None."""
    terms = _terms(divisor)
    if terms is None or len(terms) != 1 or terms[0][1] == 0:
        return 1 if dividend == divisor else None
    (symbols, factor), out = terms[0], {}
    for monomial, coefficient in dividend.terms:
        rest = list(monomial)
        for name in symbols:
            if name not in rest:
                return None
            rest.remove(name)
        if coefficient % factor:
            return None
        out[tuple(rest)] = coefficient // factor
    return _normal(out)
