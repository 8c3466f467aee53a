"""How many rewrites a compilation may do, so that one can find the first that is wrong.

A rule that fires, two equal nodes that become one, a node that becomes a constant: each is a rewrite, and the passes ask
before each. What has to be done for code to be made at all, such as taking ops apart, is none.

>>> with limited(1) as fuel:
...     allowed("fold", "%3 = add(%1, %2)"), allowed("cse", "%5 = exp(%0)")
(True, False)
>>> print(fuel.last)
rewrite 1: fold at %3 = add(%1, %2)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.errors import Location


@dataclass(frozen=True)
class Rewrite:
    """One step: its number in the compilation, from 1 on, the rule or the pass, and the node that it is about."""

    number: int
    rule: str
    node: str
    location: Location | None = None

    def __str__(self) -> str:
        return f"rewrite {self.number}: {self.rule} at {self.node}" + (f" ({self.location})" if self.location else "")


class Fuel:
    """What is left for a compilation. A negative limit is none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.last: Rewrite | None = None
        """The last rewrite that was allowed."""


class _State(threading.local):
    fuel: Fuel | None = None


_state = _State()


@contextmanager
def limited(limit: int) -> Iterator[Fuel]:
    """Allow so many rewrites in the block, in this thread; a negative number allows all, and counts them."""
    before, _state.fuel = _state.fuel, Fuel(limit)
    try:
        yield _state.fuel
    finally:
        _state.fuel = before


def current() -> Fuel | None:
    """What the compilation that this thread is in the middle of has left; None where nobody counts."""
    return _state.fuel


def allowed(rule: str, node: object, location: Location | None = None) -> bool:
    """Whether one more rewrite may be done. `node` is printed only if somebody counts."""
    fuel = _state.fuel
    if fuel is None:
        return True
    if 0 <= fuel.limit <= fuel.spent:
        return False
    fuel.spent += 1
    if fuel.limit < 0 or fuel.spent == fuel.limit:
        fuel.last = Rewrite(fuel.spent, rule, str(node) if isinstance(node, str) else repr(node), location)
    return True
