"""Sizes as LLVM operands.

A program for symbolic sizes works with a table of i64 words: first the symbols, then every other size that its code needs.
Whoever calls it fills in the symbols, and has

    i64 prepare(ptr sizes)

compute the rest. It returns how many bytes the arena must have, or -1 where the program is not for these sizes. The
table's address comes last among those of the inputs; in a kernel it stands in the kernel's own table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.backends.llvm.builder import Function, Module
from graphc.dims import Dim, Quotient
from graphc.sizes import Greatest
from graphc.types import Size

PREPARE = "prepare"
"""The name of the function in the module."""
UNFIT = -1
"""What it returns for sizes that the program is not for."""
SLOT = 1
"""Where in a kernel's table the address is; see `context`."""


class SizeTable:
    """The sizes that the functions of a module read, and their places."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._places: dict[Dim, int] = {Dim.symbol(name): place for place, name in enumerate(symbols)}

    def __len__(self) -> int:
        return len(self._places)

    def place(self, size: Dim) -> int:
        """Which word of the table the size is."""
        return self._places.setdefault(size, len(self._places))

    def render(self, module: Module, arena: Size, facts: Mapping[Dim, bool]) -> None:
        """Add `prepare` to the module; after that, no size gets a place."""
        f = module.function(PREPARE, [("ptr", "sizes")], "i64")
        writer = SizeWriter(f, {name: _load(f, "%sizes", place) for place, name in enumerate(self.symbols)})
        unfit, fit = f.label("unfit"), f.label("fit")
        for difference, at_least_zero in facts.items():
            known = f.value(f"icmp {'sge' if at_least_zero else 'slt'} i64 {writer.size(difference)}, 0")
            following = f.label("next")
            f.branch(known, following, unfit)
            f.enter(following)
        for size, place in list(self._places.items())[len(self.symbols) :]:
            f.do(f"store i64 {writer.size(size)}, ptr {_at(f, '%sizes', place)}")
        nbytes = writer.size(arena)
        f.jump(fit)
        f.enter(unfit)
        f.do(f"ret i64 {UNFIT}")
        f.enter(fit)
        f.do(f"ret i64 {nbytes}")


def size_operand(f: Function, size: Size) -> str:
    """A size as an i64 operand, which stands from the function's entry on. Its first parameter is %context, or its
    `size_table` is known."""
    if not isinstance(size, Dim):
        return str(size)
    if size not in f.sizes:
        table = f.module.sizes
        assert table is not None, f"{size} in a program without symbols"
        if not f.size_table:
            slot = f.at_entry(f"getelementptr ptr, ptr %context, i64 {SLOT}")
            f.size_table = f.at_entry(f"load ptr, ptr {slot}", "sizes")
        place = f.at_entry(f"getelementptr i64, ptr {f.size_table}, i64 {table.place(size)}")
        f.sizes[size] = f.at_entry(f"load i64, ptr {place}", "size")
    return f.sizes[size]


def _at(f: Function, table: str, place: int) -> str:
    return f.value(f"getelementptr i64, ptr {table}, i64 {place}")


def _load(f: Function, table: str, place: int) -> str:
    return f.value(f"load i64, ptr {_at(f, table, place)}")


class SizeWriter:
    """Computes sizes from the symbols, given as operands, each part once."""

    def __init__(self, f: Function, symbols: Mapping[str, str]) -> None:
        self.f = f
        self._factors: dict[str, str] = dict(symbols)

    def size(self, size: Size) -> str:
        if not isinstance(size, Dim):
            return str(size)
        f, total = self.f, "0"
        for factors, coefficient in size.terms:
            product = str(coefficient)
            for factor in factors:
                product = self._factor(factor) if product == "1" else f.value(f"mul i64 {self._factor(factor)}, {product}")
            total = product if total == "0" else f.value(f"add i64 {total}, {product}")
        return total

    def _factor(self, factor: str) -> str:
        """A symbol, the greatest of some sizes, or a quotient, rounded down; one by 0 may be anything, for nothing is computed
        with it then."""
        if isinstance(factor, Greatest) and factor not in self._factors:
            first, *others = map(self.size, factor.sizes)
            for other in others:
                first = self.f.intrinsic("llvm.smax", "i64", first, other)
            self._factors[factor] = first
        if factor not in self._factors:
            assert isinstance(factor, Quotient), factor
            f, dividend, divisor = self.f, self.size(factor.dividend), self.size(factor.divisor)
            if divisor.startswith("%"):
                divisor = f.intrinsic("llvm.smax", "i64", divisor, "1")
            toward_zero = f.value(f"sdiv i64 {dividend}, {divisor}")
            rest = f.value(f"sub i64 {dividend}, {f.value(f'mul i64 {toward_zero}, {divisor}')}")
            is_low = f.value(f"icmp slt i64 {rest}, 0")
            self._factors[factor] = f.value(f"sub i64 {toward_zero}, {f.value(f'zext i1 {is_low} to i64')}")
        return self._factors[factor]
