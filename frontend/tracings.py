"""What a compiled function was traced for, and why: what `explain()` tells, and what becomes of a function that is traced
again and again."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from graphc.config import config
from graphc.errors import Location, TraceError, user_location
from graphc.frontend.tensor import Tensor


class Tracing(NamedTuple):
    """One time that Python ran the function for a graph."""

    reason: str
    call: str
    """The arguments of the call, in short."""
    place: Location | None
    """Where it was called."""


class Tracings:
    """All of a function's, and the limits that are set to them."""

    def __init__(self, function: Callable[..., Any], name: str, most: int, again: bool) -> None:
        """`most` graphs are kept; without `again`, more than one is refused."""
        self.name = name
        self.all: list[Tracing] = []
        self._function = function
        self._most = most
        self._again = again
        self._warned = False

    def allow(self, graphs: int, reason: str) -> bool:
        """Whether the function may be traced where it has so many graphs, of which none stands for a call; if not, it is run
        eagerly, which a warning tells once. TraceError if it must not be traced again."""
        if not graphs:
            return True
        if not self._again or not config.retrace:
            raise TraceError(
                f"{self.name!r} would have to be traced again, which it must not: {reason}",
                expected="a call that one of its graphs stands for; explain() lists them",
                hint="compile without retrace=False" if not self._again else "set graphc.config.config.retrace to True",
            )
        if graphs < self._most:
            return True
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name} ({self.place}) has {graphs} graphs, the most that it may have, and runs eagerly where none of "
                f"them fits: last because of {reason}; explain() lists what it was traced for, compile(max_graphs=) sets "
                "the limit", stacklevel=4,
            )  # fmt: skip
        return False

    def add(self, reason: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Note that the function is traced."""
        self.all.append(Tracing(reason, described(args, kwargs), user_location()))

    @property
    def place(self) -> str:
        """Where the function is defined."""
        code = getattr(inspect.unwrap(getattr(self._function, "__func__", self._function)), "__code__", None)
        if code is None:
            code = getattr(type(self._function).__dict__.get("forward"), "__code__", None)
        return "defined in C" if code is None else f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"

    def lines(self) -> list[str]:
        """Why the function was traced, in words."""
        return [
            f"  {i}: traced because of {reason}{'' if place is None else f', at {place}'}: {self.name}{call}"
            for i, (reason, call, place) in enumerate(self.all)
        ]


def described(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a call in short: types of tensors, other values themselves."""
    parts = [_described(x) for x in args] + [f"{name}={_described(x)}" for name, x in kwargs.items()]
    return f"({', '.join(parts)})"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).rpartition(".")[2]
        return f"{dtype}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_described, value[:3])) + (", ..." if len(value) > 3 else "")
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    text = repr(value) if isinstance(value, (bool, int, float, str, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
