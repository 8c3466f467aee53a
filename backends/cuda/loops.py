"""Loop nests as CUDA kernels.

A grid step without loops in lanes is one thread, or neighbouring steps are (`vectors.py`). Where there are such loops, the
lanes are the threads of a group that takes the step together: a part of a warp, a warp, or a block. What stands outside of
these loops each thread of the group computes for itself, and the first one stores; local buffers are shared by the group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import C_TYPE, literal, memory_type, render
from graphc.backends.cuda.expression import Scope
from graphc.backends.cuda.launch import ALIGNMENT, Launch, Sizes, index_type
from graphc.backends.cuda.vectors import Segment, Vectors, choose_vectors, multiple, one_by_one, segments
from graphc.dims import Dim
from graphc.expression import Accumulator, Buffer, walk
from graphc.kernel import (
    Accumulate,
    Loop,
    Loops,
    Reset,
    Statement,
    Store,
    carried,
    changing,
    evaluated,
    expressions,
    reads,
    walk_statements,
)
from graphc.sizes import ceil_div, estimate
from graphc.types import Size

_BLOCK = 256
"""Threads of a block, where steps are single threads."""
_MOST_THREADS = 1024
_GROUPS = 128
"""Threads of a block that is made of several groups."""
_BLOCKS = 132
"""Blocks that keep a large GPU busy: one for each of its multiprocessors. Were there fewer, threads take less each."""
_IN_FLIGHT = 64
"""Bytes that a thread of a map has on the way at a time. A multiprocessor of an H100 needs some 32 KB on the way to read as
fast as memory gives: 64 bytes of each thread, where registers leave room for half of its 2048 threads."""
_MOST_TOGETHER = 4
"""Vectors of each operand that a thread has on the way."""
_COLUMN_THREADS = 1 << 14
"""Threads that columns are divided among, at the least, before each takes several."""
_UNROLLED = 4
_SHORT = 40
"""Expressions of a loop's body that is short enough to be unrolled."""
_FEW = 16
"""Numbers of a local buffer that each thread may have for itself."""
_SHARED_BYTES = 40 << 10
"""What local buffers may take of a block's 48 KB."""


def render_loops(kernel: Loops, name: str, buffers: Sequence[Buffer], aligned: bool = True) -> tuple[str, Launch]:
    """The kernel as a function of its buffers, and how it is launched. Those that the launch calls aligned have addresses that
    are multiples of 16 bytes; if not `aligned`, no buffer needs one, and the function computes the same bits."""
    lanes = max((s.lanes for s in kernel.statements() if isinstance(s, Loop)), default=0)
    nest = _Nest(kernel, name, buffers, min(lanes, _MOST_THREADS), aligned)
    return (nest.by_groups() if lanes > 1 else nest.by_threads()), nest.launch


@dataclass(slots=True)
class _Wide:
    """What is rendered for several neighbours at a time: those from `base` on."""

    vectors: Vectors
    base: str
    arrays: bool
    """Whether each neighbour has accumulators of its own."""


class _Nest:
    """Renders one kernel."""

    def __init__(self, kernel: Loops, name: str, buffers: Sequence[Buffer], threads: int, aligned: bool) -> None:
        self.kernel = kernel
        self.name = name
        self.buffers = buffers
        self.aligned = aligned
        self.code = Code()
        self.sizes = Sizes()
        self.threads = threads
        """Of a group."""
        self.steps: Size = math.prod(axis.extent for axis in kernel.grid)
        self.wide = [axis for axis in kernel.grid if axis.extent != 1]
        self.local = [buffer for buffer in kernel.accesses if buffer.role == "local"]
        shared = _stored_in_lanes(kernel.body)
        self.private = {b for b in self.local if self.threads <= 1 or (b not in shared and b.size <= _FEW)}
        """Local buffers that each thread has for itself: what it computes for itself goes nowhere else."""
        self._names = {buffer: f"b{i}" for i, buffer in enumerate(buffers)} | {b: f"local{i}" for i, b in enumerate(self.local)}
        self._scope = Scope(self.code, self._names.__getitem__, self.sizes)
        self._index = index_type(self.steps + _BLOCK * ALIGNMENT * _MOST_TOGETHER)
        self._variables: dict[tuple[Accumulator, bool], str] = {}
        self._in_lanes = False
        self._several: _Wide | None = None
        self._vectors: list[Vectors] = []

    def _declare(self) -> None:
        """The variables of accumulators, what a thread, or its group, has of them and what a thread adds to that; and the local
        buffers of threads."""
        for buffer in self.private:
            self.code.line(f"{memory_type(buffer.dtype)} {self._names[buffer]}[{buffer.size}];")
        accumulators = dict.fromkeys(s.accumulator for s in self.kernel.statements() if isinstance(s, (Reset, Accumulate)))
        for i, accumulator in enumerate(accumulators):
            type_, start = C_TYPE[accumulator.dtype.name], literal(accumulator.initial, accumulator.dtype)
            for own in (False, True):
                self._variables[accumulator, own] = name = f"{'part' if own else 'acc'}{i}"
                if self._several is None:
                    self.code.line(f"{type_} {name} = {start};")
                elif not own:
                    self.code.line(f"{type_} {name}[{self._several.vectors.width}];")

    def _bind_grid(self, scope: Scope, step: str, several: Vectors | None = None) -> str:
        """Give the axes of the grid their values at a step. Where a step takes several neighbours, their axis is left out: the
        first of them."""
        for axis in self.kernel.grid:
            if axis.extent == 1:
                scope.bind(axis, "0")
        base = "0"
        for k, axis in reversed(list(enumerate(self.wide))):
            width = several.width if several is not None and axis is several.axis else 1
            place = step
            if k:
                extent = self.sizes.text(axis.extent if width == 1 else ceil_div(axis.extent, width))
                place = self.code.value(index_type(axis.extent), f"{step} % {extent}", "i")
                step = self.code.value(self._index, f"{step} / {extent}", "i")
            if several is not None and axis is several.axis:
                base = place if width == 1 else self.code.value(index_type(axis.extent), f"{place} * {width}", "base")
            else:
                scope.bind(axis, place)
        return base

    def _function(self, blocks: Size, threads: int) -> str:
        """The text, and the launch, of what has been written."""
        aligned: set[Buffer] = set()
        for vectors in self._vectors:
            aligned |= vectors.buffers() if vectors.width > 1 and self.aligned else set()
        text = self.sizes.function(self.name, self.buffers, threads, str(self.code))
        numbers = tuple(i for i, buffer in enumerate(self.buffers) if buffer in aligned)
        self.launch = Launch(self.name, blocks, threads, self.sizes.all, numbers)
        return text

    def _first(self, tile: Size | str, threads: int = 0) -> str:
        """The first step of this block, or, of so many in a block, of this thread."""
        mine = " + threadIdx.x" if threads else ""
        return self.code.value(self._index, f"({self._index})blockIdx.x * {tile}{mine}", "step")

    # One thread a step, or a few

    def by_threads(self) -> str:
        """Each step is a thread; many steps of a map, or columns, are taken a few at a time."""
        if self.kernel.body and all(isinstance(s, Store) for s in self.kernel.body) and self.wide:
            return self._map()
        vectors = self._vectors_of_columns()
        steps = self.steps if vectors is None else ceil_div(self.steps, vectors.width)
        block = min(_BLOCK, max(32, 1 << (estimate(steps) - 1).bit_length()))
        step = self._first(block, block)
        if not multiple(steps, block):
            self.code.line(f"if ({step} >= {self.sizes.text(steps)}) return;")
        scope = self._scope.child()
        base = self._bind_grid(scope, step, vectors)
        self._several = None if vectors is None else _Wide(vectors, base, arrays=True)
        self._declare()
        self._body(self.kernel.body, scope)
        return self._function(ceil_div(steps, block), block)

    def _vectors_of_columns(self) -> Vectors | None:
        """How a thread takes several results at a time; None where it takes one."""
        if not self.wide or self.local:
            return None
        vectors = choose_vectors(self.wide[-1], self.kernel.body, self.private)
        if vectors is None or not multiple(self.wide[-1].extent, vectors.width):
            return None
        if estimate(self.steps) < _COLUMN_THREADS * vectors.width or any(
            isinstance(s, Loop) and s.limit is not None for s in self.kernel.statements()
        ):
            return None
        self._vectors.append(vectors)
        return vectors

    def _map(self) -> str:
        """Blocks take a tile of steps each, the last of them what is left."""
        stores = [s for s in self.kernel.body if isinstance(s, Store)]
        vectors, together = self._tile(stores)
        width = vectors.width
        block = min(_BLOCK, max(32, 1 << (estimate(self.steps) - 1).bit_length()))
        tile = block * width * together
        whole = multiple(self.steps, tile)
        if tile == block:
            step = self._first(block, block)
            if not whole:
                self.code.line(f"if ({step} >= {self.sizes.text(self.steps)}) return;")
            scope = self._scope.child()
            self._bind_grid(scope, step)
            self._declare()
            self._body(stores, scope)
            return self._function(ceil_div(self.steps, block), block)
        self._vectors.append(vectors)
        first = self._first(tile)
        if whole:
            self._tile_of_map(stores, vectors, together, first, block)
        else:
            with self.code.block(f"if ({first} + {tile} <= {self.sizes.text(self.steps)})"):
                self._tile_of_map(stores, vectors, together, first, block)
            head = f"for ({self._index} step = {first} + threadIdx.x; step < {self.sizes.text(self.steps)}; step += {block})"
            with self.code.block(f"else {head}"):
                scope = self._scope.child()
                self._bind_grid(scope, "step")
                scope.store(stores)
        return self._function(ceil_div(self.steps, tile), block)

    def _tile(self, stores: Sequence[Store]) -> tuple[Vectors, int]:
        """The vectors of a map, and how many of them a thread takes at a time."""
        axis, steps = self.wide[-1], estimate(self.steps)
        vectors = None if self.local else choose_vectors(axis, stores, self.private)
        few = isinstance(self.steps, int) and vectors is not None and steps < _BLOCKS * _BLOCK * vectors.width
        if vectors is None or few or not (
                len(self.wide) == 1 or multiple(axis.extent, vectors.width)):
            vectors = one_by_one(axis, stores)
        read = {e for e in walk(evaluated(stores)) if e.op == "load"}
        nbytes = vectors.width * sum(e.dtype.itemsize for e in read)
        together = min(_MOST_TOGETHER, max(1, _IN_FLIGHT // max(nbytes, ALIGNMENT // 2)))
        if self.local or isinstance(self.steps, Dim):  # of symbolic sizes there may be few, and many
            together = 1
        while together > 1 and steps < 2 * _BLOCKS * _BLOCK * vectors.width * together:
            together //= 2
        return vectors, 1 << (together.bit_length() - 1)

    def _tile_of_map(self, stores: Sequence[Store], vectors: Vectors, together: int, first: str, block: int) -> None:
        """All that a tile reads is on its way before anything is computed, and nothing is written before all is computed."""
        segment = Segment(self.code, vectors, stores, self._names.__getitem__, self.aligned, together)
        width = vectors.width
        for phase in (segment.load, segment.compute, segment.write):
            with self.code.block(f"for (int u = 0; u < {together}; ++u)", unroll=True):
                scope = self._scope.child()
                start = first if width == 1 else f"{first} / {width}"
                base = self._bind_grid(scope, f"({start} + (int)threadIdx.x + u * {block})", vectors)
                phase(scope, base, f"u * {width}")

    # A group a step

    def by_groups(self) -> str:
        """Each step is a group of threads."""
        shared = sum(int(buffer.nbytes) for buffer in self.local if buffer not in self.private)
        most = min(_GROUPS // self.threads, _SHARED_BYTES // max(shared, 1), estimate(self.steps))
        groups = 1 if self.threads > 32 else max(1, most)
        block = self.threads * groups
        step = "blockIdx.x"
        if groups > 1:
            self.code.line(f"const int lane = threadIdx.x % {self.threads}, group = threadIdx.x / {self.threads};")
            step = f"blockIdx.x * {groups} + group"
        else:
            self.code.line("const int lane = threadIdx.x;")
        step = self.code.value(self._index, f"({self._index}){step}", "step")
        for buffer in self.local:
            if buffer in self.private:
                continue
            type_, name = memory_type(buffer.dtype), self._names[buffer]
            of_group = f" + group * {buffer.size}" if groups > 1 else ""
            self.code.line(f"__shared__ __align__({ALIGNMENT}) {type_} all_{name}[{int(buffer.size) * groups}];")
            self.code.line(f"{type_}* const {name} = all_{name}{of_group};")
        if not multiple(self.steps, groups):
            self.code.line(f"if ({step} >= {self.sizes.text(self.steps)}) return;")
        self._declare()
        scope = self._scope.child()
        self._bind_grid(scope, step)
        scope.prepare(expressions(self.kernel), changing(self.kernel.body))
        self._body(self.kernel.body, scope)
        return self._function(ceil_div(self.steps, groups), block)

    # Statements

    def _body(self, statements: Sequence[Statement], scope: Scope) -> None:
        if self._several is not None:
            self._body_of_several(statements, scope, self._several)
            return
        for stores, group in itertools.groupby(statements, lambda s: isinstance(s, Store)):
            if stores:
                self._store([s for s in group if isinstance(s, Store)], scope)
                continue
            for statement in group:
                match statement:
                    case Reset():
                        self._reset(statement.accumulator, scope)
                    case Accumulate():
                        self._accumulate(statement, scope)
                    case Loop():
                        self._loop(statement, scope)

    def _body_of_several(self, statements: Sequence[Statement], scope: Scope, several: _Wide) -> None:
        for group in segments(statements):
            match group[0]:
                case Reset(accumulator=accumulator):
                    start = literal(accumulator.initial, accumulator.dtype)
                    with self.code.block(f"for (int j = 0; j < {several.vectors.width}; ++j)", unroll=True):
                        self.code.line(f"{self._variables[accumulator, False]}[j] = {start};")
                case Loop() as loop:
                    self._loop(loop, scope)
                case _:
                    segment = Segment(self.code, several.vectors, group, self._names.__getitem__, self.aligned)
                    segment.load(scope, several.base)
                    segment.compute(scope, several.base, "0", self._bind_accumulators, self._accumulate)
                    segment.write(scope, several.base)

    def _bind_accumulators(self, scope: Scope) -> None:
        """In the code for one of several neighbours."""
        if self._several is not None and self._several.arrays:
            for accumulator, own in self._variables:
                if not own:
                    scope.bind_accumulator(accumulator, f"{self._variables[accumulator, own]}[j]")

    def _store(self, stores: Sequence[Store], scope: Scope) -> None:
        if self.threads <= 1 or self._in_lanes:
            scope.store(stores)
            return
        for private, some in itertools.groupby(stores, lambda s: s.buffer in self.private):
            group = list(some)
            if private:
                scope.store(group)
                continue
            if any(s.buffer in reads(self.kernel) for s in group):
                self._sync()  # what the others read there before
            scope.store(group, "lane == 0")
            self._sync()

    def _sync(self) -> None:
        self.code.line(f"group_sync<{self.threads}>();")

    def _reset(self, accumulator: Accumulator, scope: Scope) -> None:
        variable = self._variables[accumulator, self._in_lanes]
        self.code.line(f"{variable} = {literal(accumulator.initial, accumulator.dtype)};")
        scope.bind_accumulator(accumulator, variable)

    def _accumulate(self, statement: Accumulate, scope: Scope) -> None:
        accumulator = statement.accumulator
        value = scope.value(statement.value)
        variable = self._variables[accumulator, self._in_lanes]
        if self._several is not None and self._several.arrays:
            variable = f"{variable}[j]"
        self.code.line(f"{variable} = {_combined(accumulator, variable, value)};")
        scope.bind_accumulator(accumulator, variable)

    def _loop(self, loop: Loop, scope: Scope) -> None:
        if loop.axis.extent == 0:
            return
        stop = self.sizes.text(loop.axis.extent) if loop.limit is None else scope.value(loop.limit)
        by_lanes = loop.lanes > 1 and self.threads > 1
        shared = carried(loop.body) if by_lanes else []
        for accumulator in shared:
            self.code.line(f"{self._variables[accumulator, True]} = {literal(accumulator.initial, accumulator.dtype)};")
        outer = scope.child()
        if loop.limit is None:  # else the loop may not run at all
            outer.prepare(evaluated(walk_statements(loop.body)), changing(loop.body))
        scope.forget(changing(loop.body))
        name = self.code.name("i")
        vectors = self._vectors_of_lanes(loop) if by_lanes else None
        width = 1 if vectors is None else vectors.width
        start, step = "0", f"++{name}"
        if by_lanes:
            start, step = "lane" if width == 1 else f"lane * {width}", f"{name} += {self.threads * width}"
        simple = all(isinstance(s, (Store, Accumulate)) for s in loop.body)
        short = simple and sum(1 for _ in walk(evaluated(loop.body))) <= _SHORT
        before = self._in_lanes, self._several
        self._in_lanes = self._in_lanes or by_lanes
        counted = loop.axis.extent + self.threads * width if by_lanes else loop.axis.extent  # the last step may go beyond it
        head = f"for ({index_type(counted)} {name} = {start}; {name} < {stop}; {step})"
        with self.code.block(head, unroll=_UNROLLED if by_lanes or short else False):
            inside = outer.child()
            if vectors is not None:
                self._several = _Wide(vectors, name, arrays=False)
            else:
                inside.bind(loop.axis, name)
            for accumulator in shared:
                inside.bind_accumulator(accumulator, self._variables[accumulator, True])
            for accumulator in carried(loop.body):
                if accumulator.reduction == "last":  # the next one may be computed of it
                    inside.bind_accumulator(accumulator, self._variables[accumulator, self._in_lanes])
            self._body(loop.body, inside)
        self._in_lanes, self._several = before
        changed = changing(loop.body)
        scope.forget(changed)
        for accumulator in (source for source in changed if isinstance(source, Accumulator)):
            variable = self._variables[accumulator, self._in_lanes]
            if accumulator in shared:
                whole = f"combine_group<{self.threads}, {accumulator.reduction}_of>({self._variables[accumulator, True]})"
                self.code.line(f"{variable} = {_combined(accumulator, variable, whole)};")
            if self._several is None:
                scope.bind_accumulator(accumulator, variable)
        if by_lanes and not shared:
            self._sync()  # what the threads have stored, others read

    def _vectors_of_lanes(self, loop: Loop) -> Vectors | None:
        """How each thread takes several neighbours at a time; None where it takes one."""
        if loop.limit is not None or not all(isinstance(s, (Store, Accumulate)) for s in loop.body):
            return None
        if any(buffer.size % (ALIGNMENT // buffer.dtype.itemsize) for buffer in self.local if buffer not in self.private):
            return None  # those of the second group would not be aligned
        most = max(1, estimate(loop.axis.extent) // self.threads)
        vectors = choose_vectors(loop.axis, loop.body, self.private, 1 << (most.bit_length() - 1))
        if vectors is None or not multiple(loop.axis.extent, vectors.width):
            return None
        self._vectors.append(vectors)
        return vectors


def _combined(accumulator: Accumulator, x: str, y: str) -> str:
    if accumulator.reduction == "last":
        return y
    op = {"sum": "add", "max": "maximum", "min": "minimum"}[accumulator.reduction]
    return render(op, accumulator.dtype, (x, y), result=accumulator.dtype)


def _stored_in_lanes(body: Sequence[Statement]) -> set[Buffer]:
    """The buffers that are written in loops in lanes."""
    found: set[Buffer] = set()
    for statement in body:
        if isinstance(statement, Loop):
            inner = walk_statements(statement.body) if statement.lanes > 1 else ()
            found |= {s.buffer for s in inner if isinstance(s, Store)} | _stored_in_lanes(statement.body)
    return found
