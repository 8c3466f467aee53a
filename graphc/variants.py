"""One executable for all sizes of a graph.

Code for symbolic sizes rests on facts (see `graphc.sizes`), so it is made in variants: one at the first call, and another one
where sizes come for which the facts do not hold. Where an op needs numbers, its sizes are put in, and the variant is for
these alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from graphc.backend import Executable, Layout
from graphc.bind import bind_graph, bind_sizes, is_symbolic, substitute
from graphc.config import note
from graphc.errors import ShapeError, VerifyError
from graphc.ir import Graph
from graphc.sizes import Facts, NumberNeeded, relying_on
from graphc.types import Shape, Size
from graphc.verify import verify

if TYPE_CHECKING:
    from graphc.specs import EntrySpec

_MOST_KEPT = 1024
_TRIES = 3
"""After so many sizes in a row for which there had to be code for numbers, symbols are given up."""


@dataclass(frozen=True, eq=False)
class Variant:
    """Code for those sizes for which the facts hold."""

    numbers: Mapping[str, int]
    """What symbols have to be."""
    facts: Facts | None
    """None where all sizes are numbers."""
    code: Executable

    def is_for(self, sizes: Mapping[str, int]) -> bool:
        return all(sizes[name] == number for name, number in self.numbers.items()) and (
            self.facts is None or self.facts.hold(sizes))


class SizedExecutable:
    """A graph of symbolic sizes that is compiled as calls need it. Threads may call at once, with different sizes.

    `compile` makes code of a graph whose sizes are numbers, or symbols while facts are relied on.
    """

    def __init__(self, graph: Graph, layout: Layout, compile: Callable[[Graph, Layout], Executable]) -> None:
        self.graph = graph
        self.inputs = tuple(v.type for v in graph.inputs)
        self.outputs = tuple(v.type for v in graph.outputs)
        self._layout = layout
        self._compile = compile
        self._lock = threading.Lock()
        _made.add(self)
        self._variants: list[Variant] = []
        self._known: dict[tuple[Shape, ...], Executable] = {}
        self._fixed: set[str] = set()
        self._failures = 0

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute into `outputs`, which have the shapes that follow from those of the inputs; ShapeError where these do not
        fit the graph. The dtypes and the layouts are those that the executable was made for."""
        self.for_shapes(tuple([array.shape for array in inputs])).run(inputs, outputs)

    def entry(self, spec: EntrySpec) -> None:
        """There is one for `at` some sizes."""
        del spec

    @property
    def preparation(self) -> None:
        """None: there is one for `at` some sizes."""

    def at(self, sizes: Mapping[str, int]) -> Executable:
        """The executable for some sizes, by the names of the symbols. GraphcError where the graph has no meaning for them."""
        return self.for_shapes(tuple([t.bind(sizes).shape for t in self.inputs]))

    def for_shapes(self, shapes: tuple[Shape, ...]) -> Executable:
        """The executable for inputs of these shapes; ShapeError where they do not fit the graph."""
        known = self._known.get(shapes)
        if known is None:
            sizes = bind_sizes(self.graph, shapes)
            with self._lock:
                variant = next((v for v in self._variants if v.is_for(sizes)), None)
                if variant is None:
                    variant = self._make(sizes)
                    self._variants.append(variant)
                    del self._variants[:-_MOST_KEPT]
            known = variant.code.at(sizes)
            with self._lock:
                self._known[shapes] = known
                while len(self._known) > _MOST_KEPT:
                    del self._known[next(iter(self._known))]
        return known

    def _make(self, sizes: Mapping[str, int]) -> Variant:
        """Code with these sizes as the example."""
        fixed, needed = set(self._fixed), set(self._fixed)
        while True:
            numbers = {name: sizes[name] for name in sorted(fixed)}
            graph, layout = self.graph, self._layout
            if numbers:
                graph, layout = substitute(graph, numbers), _bound(layout, numbers)
            if not is_symbolic(graph):
                verify(graph)  # what the type rules could not tell of symbols
                code = self._compile(graph, layout)
                self._failures += fixed != needed
                # before, it may be these numbers for which symbols do not do, such as a size of 0
                self._fixed = fixed if self._failures == _TRIES else needed
                return Variant(dict(sizes), None, code)
            facts = Facts(sizes)
            try:
                with relying_on(facts):
                    verify(graph)  # so what these rules ask is among the facts
                    code = self._compile(graph, layout)
                self._fixed, self._failures = needed, 0
                return Variant(numbers, facts, code)
            except NumberNeeded as missing:
                found = missing.symbols
                needed |= found
            except (ShapeError, VerifyError):  # it may be that symbols do not do, or that these numbers do not, as will show
                found = facts.needed or frozenset(sizes)
                if found <= fixed:
                    raise  # more numbers will not help
            if found - sizes.keys():
                bind_graph(graph, sizes)  # which says of a size that no input tells it
            note(1, f"graphc: {graph.name}: needs numbers for {', '.join(sorted(found))}")
            fixed |= found

    def __repr__(self) -> str:
        return f"<executable of {self.graph!r} for all sizes, in {len(self._variants)} variants>"


_made: WeakSet[SizedExecutable] = WeakSet()


def _forget_locks() -> None:
    """In a forked child, where the threads that held them do not exist."""
    for made in _made:
        made._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _bound(layout: Layout, numbers: Mapping[str, int]) -> Layout:
    def bind(size: Size) -> Size:
        return size if isinstance(size, int) else size.bind(numbers)

    return replace(layout, strides=tuple(s if s is None else tuple(map(bind, s)) for s in layout.strides))
