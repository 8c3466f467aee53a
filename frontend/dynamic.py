"""Sizes that change from call to call: which dimensions of a compiled function's arguments are symbols, and the graphs that
stand for all of their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from graphc.assumptions import Assumptions, Relation, evaluate
from graphc.bind import solve, substitute
from graphc.dims import Dim, answering
from graphc.errors import ArgumentError, ArgumentTypeError, DimError, ShapeError
from graphc.frontend.arguments import integer
from graphc.frontend.compiled import Compiled
from graphc.frontend.tensor import Tensor
from graphc.types import Shape, Size

_FEW = 2
"""Sizes below are so often treated differently, as one that stretches or as nothing at all, that they are never symbols."""


class Bounds(NamedTuple):
    """What sizes a dimension is marked for."""

    least: int
    greatest: float


def mark_dynamic(tensor: Tensor, dim: int | Sequence[int], *, min: int | None = None, max: int | None = None) -> None:
    """Say of a tensor that the size of a dimension, or of some, is going to change: a compiled function that the tensor is
    passed to is made for all sizes from `min` to `max` at once.

    Sizes 0 and 1 are apart: a graph for others does not stand for them. ShapeError at the call if the function's code allows
    the size of this tensor alone; ArgumentError for bounds that hold no size or not the tensor's own, DimError for a dimension
    that there is not, ArgumentTypeError for what is no tensor.

    >>> import graphc
    >>> x = graphc.ones(5, 3)
    >>> graphc.mark_dynamic(x, 0, min=2, max=512)
    """
    if not isinstance(tensor, Tensor):
        raise ArgumentTypeError(f"mark_dynamic(): argument 'tensor' must be Tensor, not {type(tensor).__name__}")
    bounds = Bounds(_FEW if min is None else integer(min, "min"), math.inf if max is None else integer(max, "max"))
    if not 0 <= bounds.least <= bounds.greatest:
        raise ArgumentError("mark_dynamic: no size is in the bounds", expected="0 <= min <= max", got=f"min={min}, max={max}")
    for axis in dim if isinstance(dim, (list, tuple)) else [dim]:
        axis = integer(axis, "dim")
        if not -tensor.ndim <= axis < tensor.ndim:
            raise DimError(f"mark_dynamic: no dimension {axis}", got=f"a tensor of {tensor.ndim} dimensions")
        axis %= tensor.ndim
        if not bounds.least <= tensor.shape[axis] <= bounds.greatest:
            raise ArgumentError(f"mark_dynamic: the size of dimension {axis} is outside the bounds",
                                expected=_range_text(bounds), got=str(tensor.shape[axis]))
        tensor.__dict__.setdefault("_dynamic", {})[axis] = bounds


def marks(tensor: Tensor) -> Mapping[int, Bounds]:
    """The dimensions that `mark_dynamic` was called for."""
    return tensor.__dict__.get("_dynamic", {})


def _range_text(bounds: Bounds) -> str:
    return f"at least {bounds.least}" if bounds.greatest == math.inf else f"from {bounds.least} to {bounds.greatest}"


class SymbolicArguments:
    """The shapes of a call's arguments with symbols for some sizes, and what is assumed of these."""

    def __init__(self, leaves: Sequence[Any], places: Mapping[int, Mapping[int, Bounds]]) -> None:
        """`places` has the dimensions that are to be symbols, by the numbers of the tensors among the leaves."""
        self.sizes = Assumptions()
        self.shapes: dict[int, Shape] = {}
        self._marked: list[tuple[int, int, Dim]] = []
        for i, axes in places.items():
            shape = list(leaves[i]._data.shape)
            for axis, bounds in axes.items():
                size = self.sizes.symbol(f"s{len(self.sizes.hints)}", shape[axis], *bounds)
                if axis in marks(leaves[i]):
                    self._marked.append((i, axis, size))
                shape[axis] = size
            self.shapes[i] = tuple(shape)

    @property
    def is_demanded(self) -> bool:
        """Whether somebody has said that there shall be symbols."""
        return bool(self._marked)

    @contextmanager
    def assumed(self) -> Iterator[None]:
        """While the function is traced. ShapeError where the code pins a size that is marked as one that changes."""
        with answering(self.sizes):
            yield
        for i, axis, size in self._marked:
            if not isinstance(found := self.sizes.resolve(size), Dim):
                why = next((e for e in self.sizes.equalities if size.symbols() & e.difference.symbols()), None)
                raise ShapeError(
                    f"dimension {axis} of argument {i} was marked as one that changes, and the code makes it {found}",
                    got=None if why is None else str(why), at=None if why is None else why.location,
                    hint="do not mark it, or compute with the size instead of asking for its number",
                )


class SymbolicGraph:
    """A graph for all sizes that keep to some patterns and guards."""

    def __init__(self, made: Compiled, arguments: SymbolicArguments) -> None:
        sizes = arguments.sizes
        self.made = made
        made.graph = substitute(made.graph, sizes.solved)
        self.patterns = {i: tuple(map(sizes.resolve, shape)) for i, shape in arguments.shapes.items()}
        self.guards: list[Relation] = [*sizes.declared(), *sizes.conditions()]
        self._solved = sizes.solved

    def sizes(self, leaves: Sequence[Any]) -> dict[str, int] | None:
        """The numbers of all symbols at a call with these arguments; None if the graph does not stand for it."""
        shapes = [leaves[i]._data.shape for i in self.patterns]
        found = solve(list(self.patterns.values()), shapes)
        for pattern, shape in zip(self.patterns.values(), shapes):
            if tuple(_at(size, found) for size in pattern) != shape:
                return None
        if evaluate(self.guards, found) is not None:
            return None
        return found | {name: _at(size, found) for name, size in self._solved.items()}

    def explain(self) -> str:
        """The graph, and the sizes that it stands for."""
        guards = [f"  where {guard}" + (f", at {guard.location}" if guard.location else "") for guard in self.guards]
        return "\n".join([*guards, str(self.made.graph)])


class _Family:
    """Calls that differ in sizes alone."""

    def __init__(self, leaves: Sequence[Any]) -> None:
        self.first = {i: leaf._data.shape for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        """The shapes of the first call."""
        self.changed: set[tuple[int, int]] = set()
        """The dimensions that have had other sizes since."""
        self.graphs: list[SymbolicGraph] = []
        self.refused: str | None = None
        """Why there can be no graph for symbolic sizes."""


class DynamicSizes:
    """What a compiled function knows of the sizes of its arguments."""

    def __init__(self, dynamic: bool | None) -> None:
        self.dynamic = dynamic
        self._families: dict[Any, _Family] = {}

    def find(self, key: Any, leaves: Sequence[Any]) -> Compiled | None:
        """A graph made for symbolic sizes that stands for a call, with its sizes; None if there is none."""
        family = self._families.get(_family_key(key, leaves))
        if family is not None:
            for graph in family.graphs:
                sizes = graph.sizes(leaves)
                if sizes is not None and graph.made.mismatch(leaves) is None:
                    return graph.made.bind(sizes, leaves)
        return None

    def plan(self, key: Any, leaves: Sequence[Any]) -> SymbolicArguments | None:
        """The arguments of a call that has to be traced, with symbols for the sizes that change; None if none do."""
        if self.dynamic is False:
            return None
        family = self._families.setdefault(_family_key(key, leaves), _Family(leaves))
        for i, shape in family.first.items():
            family.changed |= {(i, axis) for axis, size in enumerate(leaves[i]._data.shape) if size != shape[axis]}
        if family.refused is not None:
            return None
        places: dict[int, dict[int, Bounds]] = {}
        seen: set[int] = set()
        for i in family.first:
            tensor = leaves[i]
            has_grad = tensor._meta is not None and tensor._meta.grad is not None
            if id(tensor) in seen or has_grad or not tensor._data.flags.c_contiguous:
                continue
            seen.add(id(tensor))
            wanted = {axis: Bounds(_FEW, math.inf) for axis, size in enumerate(tensor._data.shape)
                      if size >= _FEW and (self.dynamic or (i, axis) in family.changed)}
            wanted |= marks(tensor)
            if wanted:
                places[i] = dict(sorted(wanted.items()))
        return SymbolicArguments(leaves, places) if places else None

    def add(self, key: Any, leaves: Sequence[Any], made: Compiled, arguments: SymbolicArguments) -> Compiled:
        """Keep a graph that was traced with symbols, unless it is for this call alone, in which Python did more than to
        compute; returns it with the sizes of the call."""
        graph = SymbolicGraph(made, arguments)
        if not made.is_passing and made.asks_the_world is None:
            self._families[_family_key(key, leaves)].graphs.insert(0, graph)
        sizes = graph.sizes(leaves)
        assert sizes is not None  # the guards are the answers of this call
        return made.bind(sizes, leaves)

    def refuse(self, key: Any, leaves: Sequence[Any], why: str) -> None:
        """Make no more graphs for symbolic sizes of such calls."""
        self._families[_family_key(key, leaves)].refused = why

    def graphs(self) -> list[SymbolicGraph]:
        """The graphs that were made for symbolic sizes."""
        return [graph for family in self._families.values() for graph in family.graphs]

    def refusals(self) -> list[str]:
        """Why there are no others."""
        return [family.refused for family in self._families.values() if family.refused is not None]


def _at(size: Size, sizes: Mapping[str, int]) -> Size:
    return size.bind(sizes) if isinstance(size, Dim) else size


def _family_key(key: Any, leaves: Sequence[Any]) -> Any:
    """The key of a call without the sizes of its tensors."""
    start = len(key) - len(leaves)
    return key[:start] + tuple(_sizeless(part) if isinstance(leaf, Tensor) else part for leaf, part in zip(leaves, key[start:]))


def _sizeless(part: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, dtype, shape, strides, *rest = part
    return (kind, dtype, len(shape), strides is None, *rest)
