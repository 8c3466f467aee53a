"""Arithmetic on i64 operands and sizes, in which what is known stays known: no code is emitted for constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from graphc.backends.llvm.builder import Function, vector
from graphc.backends.llvm.sizes import size_operand
from graphc.dims import Dim
from graphc.types import Size

Integer: TypeAlias = "str | Size"


class Integers:
    """Emits into a function. Operands are names, numbers or sizes; results are operands. Nothing may overflow."""

    def __init__(self, f: Function) -> None:
        self.f = f

    def operand(self, a: Integer) -> str:
        """A name, a number or a size as an operand."""
        return a if isinstance(a, str) else size_operand(self.f, a)

    def _divisor(self, b: Size) -> str:
        """A size of 0 as 1: what is divided by it is not used then."""
        return self.greatest(b, 1) if isinstance(b, Dim) else str(b)

    def add(self, a: Integer, b: Integer) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x + y)
        if x == 0 or y == 0:
            return self.operand(b if x == 0 else a)
        return self.f.value(f"add nsw i64 {self.operand(a)}, {self.operand(b)}")

    def subtract(self, a: Integer, b: Integer) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x - y)
        return self.operand(a) if y == 0 else self.f.value(f"sub nsw i64 {self.operand(a)}, {self.operand(b)}")

    def multiply(self, a: Integer, b: Integer) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x * y)
        if x == 0 or y == 0:
            return "0"
        if x == 1 or y == 1:
            return self.operand(b if x == 1 else a)
        return self.f.value(f"mul nsw i64 {self.operand(a)}, {self.operand(b)}")

    def divide(self, a: Integer, b: Size) -> str:
        """a // b, of a number that is not negative."""
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x // y)
        return self.operand(a) if y == 1 or x == 0 else self.f.value(f"udiv i64 {self.operand(a)}, {self._divisor(b)}")

    def remainder(self, a: Integer, b: Size) -> str:
        """a % b, of a number that is not negative."""
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x % y)
        return "0" if y == 1 or x == 0 else self.f.value(f"urem i64 {self.operand(a)}, {self._divisor(b)}")

    def least(self, a: Integer, b: Integer) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(min(x, y))
        return self.f.intrinsic("llvm.smin", "i64", self.operand(a), self.operand(b))

    def greatest(self, a: Integer, b: Integer) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(max(x, y))
        return self.f.intrinsic("llvm.smax", "i64", self.operand(a), self.operand(b))

    def mask(self, width: int, low: Integer, high: Integer) -> str:
        """The lanes from low to high - 1, as a vector of i1; none if high <= low."""
        f, type_ = self.f, vector("i32", width)
        lanes = "<" + ", ".join(f"i32 {lane}" for lane in range(width)) + ">" if width > 1 else "0"

        def splat(bound: Integer) -> str:
            if known(bound) is not None:
                return f"splat (i32 {bound})" if width > 1 else str(bound)
            return f.splat("i32", f.value(f"trunc i64 {self.operand(bound)} to i32"), width)

        below = f.value(f"icmp slt {type_} {lanes}, {splat(high)}")
        if known(low) == 0:
            return below
        reached = f.value(f"icmp sge {type_} {lanes}, {splat(low)}")
        return f.value(f"and {vector('i1', width)} {reached}, {below}")

    @contextmanager
    def loop(self, start: Integer, stop: Integer, hint: str = "i") -> Iterator[str]:
        """A loop from start to stop - 1, of tasks, blocks or tiles; none where that is a single number."""
        x, y = known(start), known(stop)
        if x is not None and y is not None and y == x + 1:
            yield str(x)
            return
        with self.f.loop(self.operand(start), self.operand(stop), hint=hint, reduced=False) as i:
            yield i


def known(integer: Integer) -> int | None:
    """The number, if it is one."""
    if isinstance(integer, int):
        return integer
    return None if isinstance(integer, Dim) or integer.startswith("%") else int(integer)
