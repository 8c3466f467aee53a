"""Where the inputs of a traced graph come from, and what they were before the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.ir import Value


@dataclass(frozen=True, eq=False)
class Argument:
    """An input that is tensor number `index` among the leaves of the call's arguments."""

    index: int


@dataclass(frozen=True, eq=False)
class Captured:
    """An input that is a tensor which the function found by itself."""

    tensor: Tensor


@dataclass(frozen=True, eq=False)
class Gradient:
    """An input that is the `.grad` which a tensor has when the call begins."""

    owner: Argument | Captured


@dataclass(frozen=True, eq=False)
class Number:
    """An input that is a Python number, read from a mapping at each call."""

    mapping: Mapping[str, Any]
    key: str


Source = Argument | Captured | Gradient | Number


@dataclass(eq=False)
class Lifted:
    """One input of the graph: the tensor that it stood for in the trace (None for a number), and where it comes from."""

    source: Source
    value: Value
    tensor: Tensor | None = None
    node: Any = None
    """The tensor's history before the trace."""
    needs_grad: bool = False
    """Whether it required grad then."""
    version: int = 0
    """How often it had been changed in place."""
    is_viewed: bool = False
    """Whether views that were there before the trace lie in its memory."""
    array: Any = None
    """The number; or those of an argument whose sizes are symbols: its tensor holds the graph's value."""

    @property
    def data(self) -> Any:
        """The array that the tensor held before the trace."""
        return self.tensor._data if self.array is None and self.tensor is not None else self.array


@dataclass(eq=False)
class GradState:
    """What became of one tensor's `.grad`."""

    tensor: Tensor
    initial: Tensor | None
    """What it was before the trace."""
    current: Tensor | None
    read: bool
    """Whether the code depends on what it was before."""
