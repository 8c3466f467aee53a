"""Real numbers that are computed from sizes: `1 / N`, `N ** -0.5`, `0.5 * (N + 1)`.

They are kept as the steps that Python would take, in its precision, and taken when the sizes are known: the number is the
same to the last bit as if the sizes had been numbers from the start. In a graph they stand where a Python float can.

>>> from graphc.dims import Dim
>>> N = Dim.symbol("N")
>>> (1 / N) ** 0.5, (1 / N).bind({"N": 4})
((1 / N) ** 0.5, 0.25)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from graphc.dims import Dim, _state
from graphc.errors import ShapeError

Operand: TypeAlias = "int | float | Dim | DimNumber"

_STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
}  # fmt: skip


class DimNumber:
    """A float that depends on sizes: one step of arithmetic on numbers, sizes and other such floats. Immutable."""

    __slots__ = ("left", "right", "step")

    def __init__(self, step: str, left: Operand, right: Operand) -> None:
        self.step, self.left, self.right = step, left, right

    def bind(self, sizes: Mapping[str, int | Dim]) -> Operand:
        """The number with numbers, or other sizes, put in for the symbols that `sizes` names."""
        left, right = (x.bind(sizes) if isinstance(x, (Dim, DimNumber)) else x for x in (self.left, self.right))
        return _STEPS[self.step](left, right)

    def symbols(self) -> frozenset[str]:
        """The names of the sizes that the number depends on."""
        return frozenset().union(*(x.symbols() for x in (self.left, self.right) if isinstance(x, (Dim, DimNumber))))

    def emit(self, emit: Callable[[str, Any, Any], Any]) -> Any:
        """What `emit(step, left, right)` makes of all steps, innermost first."""
        left, right = (x.emit(emit) if isinstance(x, DimNumber) else x for x in (self.left, self.right))
        return emit(self.step, left, right)

    def __float__(self) -> float:
        """The number for the example's sizes, which they have to be from here on."""
        if _state.context is None:
            raise ShapeError(f"the number {self} is not known", expected="a number", hint="bind the sizes of the graph")
        context = _state.context
        return float(self.bind({name: context.number(Dim.symbol(name)) for name in self.symbols()}))

    def __int__(self) -> int:
        return int(float(self))

    def __floor__(self) -> int | Dim:
        """A size again, for half of one, or for a whole multiple."""
        if self.step == "*":
            size, factor = (self.left, self.right) if isinstance(self.left, Dim) else (self.right, self.left)
        else:
            size, factor = self.left, 1 / self.right if self.step == "/" and isinstance(self.right, int) else math.nan
        if isinstance(size, Dim) and isinstance(factor, (int, float)) and factor > 0:
            if float(factor).is_integer():
                return size * int(factor)
            mantissa, _ = math.frexp(factor)
            if mantissa == 0.5:  # a power of two, by which division is exact
                return size // int(1 / factor)
        return math.floor(float(self))

    __trunc__ = __floor__  # of what is not negative

    def __ceil__(self) -> int | Dim:
        return math.ceil(float(self))

    def __round__(self, digits: int | None = None) -> Any:
        return round(float(self), digits)

    def __bool__(self) -> bool:
        return bool(float(self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DimNumber) and (self.step, self.left, self.right) == (other.step, other.left, other.right):
            return True
        return float(self) == _plain(other)

    def __hash__(self) -> int:
        return hash((self.step, self.left, self.right))

    def __lt__(self, other: Any) -> bool:
        return float(self) < _plain(other)

    def __le__(self, other: Any) -> bool:
        return float(self) <= _plain(other)

    def __gt__(self, other: Any) -> bool:
        return float(self) > _plain(other)

    def __ge__(self, other: Any) -> bool:
        return float(self) >= _plain(other)

    def __add__(self, other: Any) -> Any:
        return step("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return step("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return step("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return step("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return step("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return step("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return step("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return step("/", other, self)

    def __pow__(self, other: Any) -> Any:
        return step("**", self, other)

    def __rpow__(self, other: Any) -> Any:
        return step("**", other, self)

    def __neg__(self) -> Any:
        return self * -1.0

    def __abs__(self) -> float:
        return abs(float(self))

    def is_integer(self) -> bool:
        """Whether it is a whole number, for the example's sizes."""
        return float(self).is_integer()

    def __str__(self) -> str:
        left, right = (f"({x})" if isinstance(x, DimNumber) or " " in str(x) else str(x) for x in (self.left, self.right))
        return f"{left} {self.step} {right}"

    __repr__ = __str__


def step(symbol: str, left: Any, right: Any) -> Any:
    """`left symbol right` where one of them depends on sizes; NotImplemented where the other is no real number."""
    if not all(isinstance(x, (int, float, Dim, DimNumber)) for x in (left, right)):
        return NotImplemented
    return DimNumber(symbol, left, right)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, (Dim, DimNumber)) else value
