"""Arithmetic on i64 operands, in which what is known stays known: no code is emitted for constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.backends.llvm.builder import Function, vector


class Integers:
    """Emits into a function. Operands are names or numbers; results are operands. Nothing may overflow."""

    def __init__(self, f: Function) -> None:
        self.f = f

    def add(self, a: str | int, b: str | int) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x + y)
        if x == 0 or y == 0:
            return str(b if x == 0 else a)
        return self.f.value(f"add nsw i64 {a}, {b}")

    def subtract(self, a: str | int, b: str | int) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x - y)
        return str(a) if y == 0 else self.f.value(f"sub nsw i64 {a}, {b}")

    def multiply(self, a: str | int, b: str | int) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(x * y)
        if x == 0 or y == 0:
            return "0"
        if x == 1 or y == 1:
            return str(b if x == 1 else a)
        return self.f.value(f"mul nsw i64 {a}, {b}")

    def divide(self, a: str | int, b: int) -> str:
        """a // b, of a number that is not negative."""
        x = known(a)
        if x is not None:
            return str(x // b)
        return str(a) if b == 1 else self.f.value(f"udiv i64 {a}, {b}")

    def remainder(self, a: str | int, b: int) -> str:
        """a % b, of a number that is not negative."""
        x = known(a)
        if x is not None:
            return str(x % b)
        return "0" if b == 1 else self.f.value(f"urem i64 {a}, {b}")

    def least(self, a: str | int, b: str | int) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(min(x, y))
        return self.f.intrinsic("llvm.smin", "i64", str(a), str(b))

    def greatest(self, a: str | int, b: str | int) -> str:
        x, y = known(a), known(b)
        if x is not None and y is not None:
            return str(max(x, y))
        return self.f.intrinsic("llvm.smax", "i64", str(a), str(b))

    def mask(self, width: int, low: str | int, high: str | int) -> str:
        """The lanes from low to high - 1, as a vector of i1; none if high <= low."""
        f, type_ = self.f, vector("i32", width)
        lanes = "<" + ", ".join(f"i32 {lane}" for lane in range(width)) + ">" if width > 1 else "0"

        def splat(bound: str | int) -> str:
            if known(bound) is not None:
                return f"splat (i32 {bound})" if width > 1 else str(bound)
            return f.splat("i32", f.value(f"trunc i64 {bound} to i32"), width)

        below = f.value(f"icmp slt {type_} {lanes}, {splat(high)}")
        if known(low) == 0:
            return below
        reached = f.value(f"icmp sge {type_} {lanes}, {splat(low)}")
        return f.value(f"and {vector('i1', width)} {reached}, {below}")

    @contextmanager
    def loop(self, start: str | int, stop: str | int, hint: str = "i") -> Iterator[str]:
        """A loop from start to stop - 1; none where that is a single number."""
        x, y = known(start), known(stop)
        if x is not None and y == x + 1:
            yield str(x)
            return
        with self.f.loop(str(start), str(stop), hint=hint) as i:
            yield i


def known(operand: str | int) -> int | None:
    """The number, if the operand is a constant."""
    if isinstance(operand, int):
        return operand
    return None if operand.startswith("%") else int(operand)
