"""How much of a model is read before it is refused, and what a model that cannot be read is refused with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what a model may ask for.

    >>> graphc.onnx.Limits(nodes=10).nodes
    10
    """

    nodes: int = 100_000
    """Nodes of a graph, and of the graphs and functions inside of it."""
    depth: int = 16
    """Graphs and functions inside of each other."""
    tensor_bytes: int = 1 << 40
    """The size of any value whose shape is known."""
    constant_elements: int = 1 << 16
    """Elements of values that are computed while the model is read."""
    outputs: int = 1 << 16
    """Results of one node."""


class BadModel(Exception):
    """What is wrong with a model, without its name."""

    def __init__(self, reason: str, *, expected: str | None = None, got: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.got, self.hint = reason, expected, got, hint


class NeedsContent(Exception):
    """The numbers in some values decide on shapes, and are not known."""

    def __init__(self, names: frozenset[str], why: str) -> None:
        super().__init__(why)
        self.names, self.why = names, why
