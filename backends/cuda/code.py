"""Text of the bodies of C++ functions: lines, indented, and names that are not taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Code:
    """Lines of code, written from top to bottom."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 1
        self._names = 0

    def line(self, text: str) -> None:
        """One line, at the depth of the blocks around it."""
        self._lines.append("  " * self._depth + text)

    def name(self, hint: str = "v") -> str:
        """A name that nothing else has."""
        self._names += 1
        return f"{hint}{self._names}"

    def value(self, type_: str, text: str, hint: str = "v") -> str:
        """A constant of this type with a name of its own: the name."""
        name = self.name(hint)
        self.line(f"const {type_} {name} = {text};")
        return name

    @contextmanager
    def block(self, head: str, unroll: int | bool = False) -> Iterator[None]:
        """What stands between the braces after `head`, such as a loop, which is unrolled so many times, or wholly."""
        if unroll:
            self.line("#pragma unroll" if unroll is True else f"#pragma unroll {unroll}")
        self.line(f"{head} {{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)
