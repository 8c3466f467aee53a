"""Several neighbours at a time: what a thread reads and writes 16 bytes at once.

A thread that has the elements i, i + 1, ... of an axis brings what stands side by side in memory to registers, computes element
after element, and then writes the results:

    float x1[4], held1[4];
    load_vector<4>(x1, b0 + i);
    for (int j = 0; j < 4; ++j) {
      held1[j] = exp(x1[j]);
    }
    store_vector<4>(b1 + i, held1);

Where an address is not a multiple of 16, the same is done number by number (`load_each`, `store_each`), in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import graphc.index as ix
from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import literal, memory_type
from graphc.backends.cuda.expression import Scope
from graphc.backends.cuda.launch import ALIGNMENT
from graphc.dims import Dim
from graphc.expression import Axis, Buffer, Expr, walk
from graphc.kernel import Accumulate, Statement, Store, evaluated, walk_statements
from graphc.types import Size, bool_

_MOST_EXPRESSIONS = 200
"""Expressions of a kernel beyond which its code is not written for several elements: there is enough to do for one."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """`width` neighbours along an axis, and the loads and stores that have them side by side."""

    axis: Axis
    width: int
    loads: frozenset[Expr]
    stores: frozenset[Store]

    def buffers(self) -> set[Buffer]:
        """Where they are."""
        return {e.attr for e in self.loads} | {store.buffer for store in self.stores}


def choose_vectors(
    axis: Axis, statements: Sequence[Statement], private: Collection[Buffer], most: int = ALIGNMENT
) -> Vectors | None:
    """As many neighbours as the widest numbers have in 16 bytes, but `most`; None where nothing stands side by side. That the
    extent is a multiple of them is for the caller to see to. `private` buffers are registers anyway."""
    everything = list(walk_statements(statements))
    loads = [e for e in walk(evaluated(everything)) if e.op == "load" and e.attr not in private]
    stores = [s for s in everything if isinstance(s, Store) and s.buffer not in private]
    expressions = sum(e.op not in ("constant", "size", "axis", "load") for e in walk(evaluated(everything)))
    if expressions > _MOST_EXPRESSIONS:
        return None
    near_loads = [e for e in loads if ix.stride(e.args[0], axis) == 1 and not any(depends(m, axis) for m in e.args[1:])]
    near_stores = [s for s in stores if ix.stride(s.offset, axis) == 1 and (s.mask is None or not depends(s.mask, axis))]
    sizes = [*(e.dtype.itemsize for e in near_loads), *(s.buffer.dtype.itemsize for s in near_stores)]
    width = min(ALIGNMENT // max(sizes, default=ALIGNMENT), most)
    if width <= 1:
        return None
    side_by_side = Vectors(
        axis, width, frozenset(e for e in near_loads if starts_at_multiples(e.args[0], axis, width)),
        frozenset(s for s in near_stores if starts_at_multiples(s.offset, axis, width)),
    )
    return side_by_side if side_by_side.buffers() else None


def one_by_one(axis: Axis, statements: Sequence[Statement]) -> Vectors:
    """Vectors of one number: the loads that can be on their way before anything is computed."""
    loads = [e for e in walk(evaluated(statements)) if e.op == "load" and len(e.args) == 1 and e.attr.role != "local"]
    known = frozenset(e for e in loads if not any(part.op == "load" for part in e.args[0].walk()))
    return Vectors(axis, 1, known, frozenset(s for s in statements if isinstance(s, Store) and s.mask is None))


def multiple(size: Size, of: int) -> bool:
    """Whether a size is a multiple of a number, whatever its symbols are."""
    if isinstance(size, Dim):
        return all(coefficient % of == 0 for _, coefficient in size.terms)
    return size % of == 0


def depends(expr: Expr, axis: Axis) -> bool:
    """Whether an expression is another one elsewhere on an axis."""
    return any(e is axis.value for e in expr.walk())


def starts_at_multiples(offset: Expr, axis: Axis, width: int) -> bool:
    """Whether an offset is a multiple of `width` where the place on the axis is."""
    atoms, constant = ix.terms(offset)
    return multiple(constant, width) and all(atom is axis.value or multiple(c, width) for atom, c in atoms.items())


class Segment:
    """Stores and accumulations, none of which reads what another one stores, for `count` times as many neighbours as vectors
    have: first all is loaded, then computed, then stored."""

    def __init__(
        self, code: Code, vectors: Vectors, statements: Sequence[Statement], pointer: Callable[[Buffer], str], aligned: bool,
        count: int = 1,
    ) -> None:
        self.code = code
        self.vectors = vectors
        self.statements = statements
        self._pointer = pointer
        self._how = "vector" if aligned else "each"
        size = vectors.width * count
        self._arrays: dict[Expr, str] = {}
        for e in walk(evaluated(statements)):
            if e in vectors.loads:
                self._arrays[e] = name = code.name("x")
                code.line(f"{memory_type(e.dtype)} {name}[{size}];")
        self._held: dict[Store, str] = {}
        self._wanted: dict[Store, str] = {}
        for store in statements:
            if isinstance(store, Store):
                self._held[store] = name = code.name("held")
                code.line(f"{memory_type(store.buffer.dtype)} {name}[{size}];")
                if store.mask is not None and store not in vectors.stores:
                    self._wanted[store] = name = code.name("wanted")
                    code.line(f"bool {name}[{size}];")

    def load(self, scope: Scope, base: str, first: str = "0") -> None:
        """Bring what stands side by side from `base` on to registers, the first of them to place `first` of the arrays."""
        at, width = self._at(scope, base), self.vectors.width
        for e, name in self._arrays.items():
            source = f"{self._pointer(e.attr)} + {at.value(e.args[0])}"
            load = f"load_{self._how}<{width}>({_place(name, first)}, {source});"
            if len(e.args) > 1 and (mask := scope.value(e.args[1])) != "true":
                zero = literal(0, e.dtype) if e.dtype is not bool_ else "0"
                load = f"if ({mask}) {load} else fill<{width}>({_place(name, first)}, {zero});"
            self.code.line(load)

    def compute(
        self, scope: Scope, base: str, first: str = "0", bind: Callable[[Scope], None] | None = None,
        accumulate: Callable[[Accumulate, Scope], None] | None = None,
    ) -> None:
        """Compute element after element. `bind` gives its accumulators their values, `accumulate` adds to them."""
        with self.each(scope, base) as inside:
            place = _place(first, "j")
            for e, name in self._arrays.items():
                inside.bind_load(e, f"({name}[{place}] != 0)" if e.dtype is bool_ else f"{name}[{place}]")
            if bind is not None:
                bind(inside)
            for statement in self.statements:
                match statement:
                    case Store():
                        value = inside.value(statement.value)
                        if statement in self._wanted and statement.mask is not None:
                            self.code.line(f"{self._wanted[statement]}[{place}] = {inside.value(statement.mask)};")
                        self.code.line(f"{self._held[statement]}[{place}] = {value};")
                    case Accumulate() if accumulate is not None:
                        accumulate(statement, inside)

    def write(self, scope: Scope, base: str, first: str = "0") -> None:
        """Store what has been computed."""
        at = self._at(scope, base)
        lines = []
        for store, name in self._held.items():
            if store in self.vectors.stores:
                target = f"{self._pointer(store.buffer)} + {at.value(store.offset)}"
                mask = None if store.mask is None else scope.value(store.mask)
                head = "" if mask in (None, "true") else f"if ({mask}) "
                lines.append(f"{head}store_{self._how}<{self.vectors.width}>({target}, {_place(name, first)});")
        for line in lines:
            self.code.line(line)
        others = [store for store in self._held if store not in self.vectors.stores and store.buffer.size != 0]
        if others:
            with self.each(scope, base) as inside:
                for store in others:
                    head = f"if ({self._wanted[store]}[{_place(first, 'j')}]) " if store in self._wanted else ""
                    place = inside.value(store.offset)
                    self.code.line(f"{head}{self._pointer(store.buffer)}[{place}] = {self._held[store]}[{_place(first, 'j')}];")
        scope.forget({store.buffer for store in self._held})

    @contextmanager
    def each(self, scope: Scope, base: str) -> Iterator[Scope]:
        """A loop over the neighbours from `base` on."""
        with self.code.block(f"for (int j = 0; j < {self.vectors.width}; ++j)", unroll=True):
            yield self._at(scope, f"({base} + j)")

    def _at(self, scope: Scope, place: str) -> Scope:
        inside = scope.child()
        inside.bind(self.vectors.axis, place)
        return inside


def _place(start: str, further: str) -> str:
    """The sum of two numbers, or addresses, one of which may be 0."""
    return start if further == "0" else further if start == "0" else f"{start} + {further}"


def segments(statements: Iterable[Statement]) -> Iterator[list[Statement]]:
    """Statements in groups: a loop or a reset, or stores and accumulations, none of which reads what one before it stores."""
    group: list[Statement] = []
    stored: set[Buffer] = set()
    for statement in statements:
        alone = not isinstance(statement, (Store, Accumulate))
        read = () if alone else (e.attr for e in walk(evaluated([statement])) if e.op == "load")
        follows_accumulate = isinstance(statement, Store) and any(isinstance(s, Accumulate) for s in group)
        if group and (alone or follows_accumulate or not stored.isdisjoint(read)):
            yield group
            group, stored = [], set()
        if alone:
            yield [statement]
            continue
        group.append(statement)
        if isinstance(statement, Store):
            stored.add(statement.buffer)
    if group:
        yield group
