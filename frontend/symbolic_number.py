"""Numbers that `item()` gives while a function is traced: arithmetic on them stays in the graph.

Where Python really needs the number (to print it, to use it as an index, to compare it), the trace is asked, as for a
tensor. Integers have 64 bits.
"""

from __future__ import annotations

import gc
import math
import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import CellType
from typing import TYPE_CHECKING, Any

import graphc.ops as ops
from graphc.ir import Value
from graphc.op import OpDef
from graphc.types import float64, int64

if TYPE_CHECKING:
    from graphc.frontend.trace import Trace

_LARGEST = 1 << 63
_UNKNOWN = object()


class SymbolicNumber:
    """A float or an int that a graph computes. `isinstance` takes it for what it stands for."""

    __slots__ = ("__weakref__", "_known", "_trace", "key", "value")

    def __init__(self, trace: Trace, value: Value) -> None:
        """`value` is a float64 or an int64 without dimensions."""
        self._trace = trace
        self.value = value
        self._known: Any = _UNKNOWN
        self.key: int | None = None
        """Its hash, if somebody has asked for it, and may have the number as a key."""
        trace.given.append(weakref.ref(self))

    @property  # type: ignore[misc]  # read-only
    def __class__(self) -> type:
        return float if self.value.dtype is float64 else int

    def become(self, number: Any) -> None:
        """Be a number that is known from here on, and let it itself stand in its place in lists, dicts, sets, variables and
        attributes."""
        self._known = number
        # no comprehension may name `self` here: it would lie in a cell, and be replaced
        for holder in gc.get_referrers(self):
            if type(holder) is CellType:
                holder.cell_contents = number
                continue
            if isinstance(holder, set):
                holder.discard(self)
                holder.add(number)
                continue
            if isinstance(holder, dict):
                _rename(holder, self, number)
            places: Any = holder if isinstance(holder, (dict, list)) else getattr(holder, "__dict__", None)
            for key, item in list(places.items() if isinstance(places, dict) else enumerate(places or ())):
                if item is self:
                    places[key] = number

    # What Python needs to know

    def plain(self, what: str = "item()") -> Any:
        """The number itself."""
        if self._known is not _UNKNOWN:
            return self._known
        if self.value.dtype is float64:
            return self._trace.ask(self.value, what).item()
        return self._trace.choose(self.value, int, what)

    def __bool__(self) -> bool:
        return self._trace.choose(self.value, bool, "bool()") if self._known is _UNKNOWN else bool(self._known)

    def __int__(self) -> int:
        return self._trace.choose(self.value, int, "int()") if self._known is _UNKNOWN else int(self._known)

    def __index__(self) -> int:
        if self.value.dtype is float64:
            raise TypeError("'float' object cannot be interpreted as an integer")
        return int(self)

    def __float__(self) -> float:
        return float(self.plain("float()"))

    def __complex__(self) -> complex:
        return complex(self.plain("complex()"))

    def __hash__(self) -> int:
        if self.key is None:
            self.key = hash(self.plain("hash()"))
        return self.key

    def __repr__(self) -> str:
        return repr(self.plain("printing"))

    def __format__(self, spec: str) -> str:
        return format(self.plain("printing"), spec)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.plain("round()"), digits)

    def __trunc__(self) -> int:
        return int(self)

    def __floor__(self) -> int:
        return math.floor(self.plain("floor()"))

    def __ceil__(self) -> int:
        return math.ceil(self.plain("ceil()"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self.__class__, name):
            raise AttributeError(f"{self.__class__.__name__!r} object has no attribute {name!r}")
        return getattr(self.plain(name), name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__class__, (self.plain("copying"),)

    # Arithmetic

    def _operand(self, other: Any) -> Value | None:
        """Another number in the graph; None for what it cannot hold."""
        if type(other) is SymbolicNumber:
            return None if other._known is not _UNKNOWN else other.value
        if isinstance(other, float):
            return self._trace.builder.constant(float(other), float64)
        if isinstance(other, int) and -_LARGEST <= other < _LARGEST:
            return self._trace.builder.constant(int(other), int64)
        return None

    def _apply(self, record: OpDef, other: Value, swap: bool, floating: bool) -> Value:
        dtype = int64 if self.value.dtype is other.dtype is int64 and not floating else float64
        left, right = (v if v.dtype is dtype else ops.cast(v, dtype=dtype) for v in (self.value, other))
        return record(right, left) if swap else record(left, right)

    def _step(self, name: str, function: Callable[..., Any], other: Any, swap: bool = False) -> Any:
        """What an operator comes to: a number of the graph, the answer to a comparison, or Python's own result."""
        if not isinstance(other, (int, float, complex)):
            return NotImplemented
        known = self._operand(other) if self._known is _UNKNOWN and name in _RECORDS else None
        if known is not None and name in _COMPARISONS:
            return self._trace.choose(self._apply(_RECORDS[name], known, swap, floating=False), bool, "bool()")
        divisor = self if swap else other
        if known is None or (name == "truediv" and divisor == 0):  # which is an error of Python's
            other = _plain(other, f"{name}()")
            own = self.plain(f"{name}()")
            return function(other, own) if swap else function(own, other)
        return SymbolicNumber(self._trace, self._apply(_RECORDS[name], known, swap, floating=name == "truediv"))

    def __neg__(self) -> Any:
        return self._step("mul", operator.mul, -1)

    def __pos__(self) -> Any:
        return self if self._known is _UNKNOWN else +self._known

    def __abs__(self) -> Any:
        return SymbolicNumber(self._trace, ops.abs(self.value)) if self._known is _UNKNOWN else abs(self._known)

    def __invert__(self) -> int:
        return ~int(self)


def _rename(holder: dict[Any, Any], key: SymbolicNumber, new: Any) -> None:
    """Let another key stand in the place of one that a dict may have."""
    kind: Any = OrderedDict if isinstance(holder, OrderedDict) else dict
    if key.key is not None and any(other is key for other in dict.keys(holder)):
        items = [(new if other is key else other, item) for other, item in kind.items(holder)]
        kind.clear(holder)
        kind.update(holder, items)


def plain_key(key: Any) -> Any:
    """The key of a dict, with Python's own numbers in the place of those that are known by now."""
    if type(key) is tuple:
        plain = tuple(map(plain_key, key))
        return key if all(x is y for x, y in zip(key, plain)) else plain
    return key.plain() if type(key) is SymbolicNumber else key


def _plain(number: Any, what: str) -> Any:
    return number.plain(what) if type(number) is SymbolicNumber else number


_RECORDS: dict[str, OpDef] = {
    "add": ops.add, "sub": ops.sub, "mul": ops.mul, "truediv": ops.div,
    "lt": ops.lt, "le": ops.le, "gt": ops.gt, "ge": ops.ge, "eq": ops.eq, "ne": ops.ne,
}  # fmt: skip
_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_PLAIN = {
    "pow": pow, "floordiv": operator.floordiv, "mod": operator.mod, "divmod": divmod, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift,
}  # fmt: skip
"""Operators whose results are those of no op to the last bit, or of another kind."""


def _method(name: str, function: Callable[..., Any], swap: bool) -> Callable[..., Any]:
    return lambda self, other: self._step(name, function, other, swap)


for _name, _function in {**{name: getattr(operator, name) for name in _RECORDS}, **_PLAIN}.items():
    setattr(SymbolicNumber, f"__{_name}__", _method(_name, _function, swap=False))
    if _name not in _COMPARISONS:
        setattr(SymbolicNumber, f"__r{_name}__", _method(_name, _function, swap=True))
