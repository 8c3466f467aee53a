"""Loop nests as CUDA kernels.

A grid step without loops in lanes is one thread. Where there are such loops, the lanes are the threads of a group that takes
the step together: a part of a warp, a warp, or a block. What stands outside of these loops each thread of the group computes
for itself, and the first one stores; local buffers are shared by the group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import C_TYPE, literal, memory_type, render
from graphc.backends.cuda.expression import Scope
from graphc.backends.cuda.launch import Launch, signature
from graphc.expression import Accumulator, Buffer
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

_BLOCK = 256
"""Threads of a block, where steps are single threads."""
_MOST_THREADS = 1024
_GROUPS = 128
"""Threads of a block that is made of several groups."""
_PER_THREAD = 4
"""Steps of a map that one thread takes, if there are many: so it has several loads on the way at a time."""
_MANY = 1 << 18
_FEW = 16
"""Numbers of a local buffer that each thread may have for itself."""
_SHARED_BYTES = 40 << 10
"""What local buffers may take of a block's 48 KB."""


def render_loops(kernel: Loops, name: str, buffers: Sequence[Buffer]) -> tuple[str, Launch]:
    """The kernel as a function of its buffers, and how it is launched."""
    lanes = max((s.lanes for s in kernel.statements() if isinstance(s, Loop)), default=0)
    nest = _Nest(kernel, name, buffers, min(lanes, _MOST_THREADS))
    return (nest.by_groups() if lanes > 1 else nest.by_threads()), nest.launch


class _Nest:
    """Renders one kernel."""

    def __init__(self, kernel: Loops, name: str, buffers: Sequence[Buffer], threads: int) -> None:
        self.kernel = kernel
        self.name = name
        self.buffers = buffers
        self.code = Code()
        self.threads = threads
        """Of a group."""
        self.steps = math.prod(int(axis.extent) for axis in kernel.grid)
        self.wide = [axis for axis in kernel.grid if axis.extent != 1]
        self.local = [buffer for buffer in kernel.accesses if buffer.role == "local"]
        shared = _stored_in_lanes(kernel.body)
        self.private = {b for b in self.local if self.threads <= 1 or (b not in shared and b.size <= _FEW)}
        """Local buffers that each thread has for itself: what it computes for itself goes nowhere else."""
        self._names = {buffer: f"b{i}" for i, buffer in enumerate(buffers)} | {b: f"local{i}" for i, b in enumerate(self.local)}
        self._scope = Scope(self.code, self._names.__getitem__)
        self._index = "int" if self.steps * _PER_THREAD < 1 << 31 else "long long"
        self._variables: dict[tuple[Accumulator, bool], str] = {}
        self._in_lanes = False

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
                self.code.line(f"{type_} {name} = {start};")

    def _bind_grid(self, scope: Scope, step: str) -> None:
        for axis in self.kernel.grid:
            if axis.extent == 1:
                scope.bind(axis, "0")
        for axis in reversed(self.wide[1:]):
            scope.bind(axis, self.code.value("int", f"{step} % {axis.extent}", "i"))
            step = self.code.value(self._index, f"{step} / {axis.extent}", "i")
        if self.wide:
            scope.bind(self.wide[0], step)

    def _start(self, threads: int, blocks: int) -> str:
        self.launch = Launch(self.name, blocks, threads)
        return signature(self.name, self.buffers, threads)

    # One thread a step

    def by_threads(self) -> str:
        """Each step is a thread; many steps of a map are taken a few at a time."""
        if all(isinstance(s, Store) for s in self.kernel.body) and self.steps >= _MANY:
            return self._several()
        block = min(_BLOCK, max(32, 1 << (self.steps - 1).bit_length()))
        with self.code.block(self._start(block, -(-self.steps // block))):
            step = self.code.value(self._index, f"({self._index})blockIdx.x * {block} + threadIdx.x", "step")
            if self.steps % block:
                self.code.line(f"if ({step} >= {self.steps}) return;")
            self._declare()
            scope = self._scope.child()
            self._bind_grid(scope, step)
            self._body(self.kernel.body, scope)
        return str(self.code)

    def _several(self) -> str:
        stores = [s for s in self.kernel.body if isinstance(s, Store)]
        tile = _BLOCK * _PER_THREAD
        with self.code.block(self._start(_BLOCK, -(-self.steps // tile))):
            first = self.code.value(self._index, f"({self._index})blockIdx.x * {tile} + threadIdx.x", "step")
            for i, store in enumerate(stores):
                self.code.line(f"{C_TYPE[store.buffer.dtype.name]} held{i}[{_PER_THREAD}];")
                if store.mask is not None:
                    self.code.line(f"bool wanted{i}[{_PER_THREAD}];")
            for phase in ("compute", "write"):
                with self.code.block(f"for (int u = 0; u < {_PER_THREAD}; ++u)", unroll=True):
                    step = self.code.value(self._index, f"{first} + u * {_BLOCK}", "step")
                    if self.steps % tile:
                        self.code.line(f"if ({step} >= {self.steps}) continue;")
                    scope = self._scope.child()
                    self._bind_grid(scope, step)
                    for i, store in enumerate(stores):
                        if phase == "compute":
                            self.code.line(f"held{i}[u] = {scope.value(store.value)};")
                            if store.mask is not None:
                                self.code.line(f"wanted{i}[u] = {scope.value(store.mask)};")
                        else:
                            head = "" if store.mask is None else f"if (wanted{i}[u]) "
                            self.code.line(f"{head}{self._names[store.buffer]}[{scope.value(store.offset)}] = held{i}[u];")
        return str(self.code)

    # A group a step

    def by_groups(self) -> str:
        """Each step is a group of threads."""
        shared = sum(int(buffer.nbytes) for buffer in self.local if buffer not in self.private)
        groups = 1 if self.threads > 32 else max(1, min(_GROUPS // self.threads, _SHARED_BYTES // max(shared, 1), self.steps))
        block = self.threads * groups
        with self.code.block(self._start(block, -(-self.steps // groups))):
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
                self.code.line(f"__shared__ {type_} all_{name}[{int(buffer.size) * groups}];")
                self.code.line(f"{type_}* const {name} = all_{name}{of_group};")
            if self.steps % groups:
                self.code.line(f"if ({step} >= {self.steps}) return;")
            self._declare()
            scope = self._scope.child()
            self._bind_grid(scope, step)
            scope.prepare(expressions(self.kernel), changing(self.kernel.body))
            self._body(self.kernel.body, scope)
        return str(self.code)

    # Statements

    def _body(self, statements: Sequence[Statement], scope: Scope) -> None:
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

    def _store(self, stores: Sequence[Store], scope: Scope) -> None:
        alone = self.threads <= 1 or self._in_lanes or all(s.buffer in self.private for s in stores)
        if not alone and any(s.buffer in reads(self.kernel) for s in stores):
            self._sync()  # what the others read there before
        scope.store(stores, None if alone else "lane == 0")
        if not alone:
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
        self.code.line(f"{variable} = {_combined(accumulator, variable, value)};")
        scope.bind_accumulator(accumulator, variable)

    def _loop(self, loop: Loop, scope: Scope) -> None:
        if loop.axis.extent == 0:
            return
        stop = str(loop.axis.extent) if loop.limit is None else scope.value(loop.limit)
        by_lanes = loop.lanes > 1 and self.threads > 1
        shared = carried(loop.body) if by_lanes else []
        for accumulator in shared:
            self.code.line(f"{self._variables[accumulator, True]} = {literal(accumulator.initial, accumulator.dtype)};")
        outer = scope.child()
        if loop.limit is None:  # else the loop may not run at all
            outer.prepare(evaluated(walk_statements(loop.body)), changing(loop.body))
        scope.forget(changing(loop.body))
        name = self.code.name("i")
        start, step = ("lane", f"{name} += {self.threads}") if by_lanes else ("0", f"++{name}")
        before = self._in_lanes
        self._in_lanes = before or by_lanes
        with self.code.block(f"for (int {name} = {start}; {name} < {stop}; {step})", unroll=_PER_THREAD if by_lanes else False):
            inside = outer.child()
            inside.bind(loop.axis, name)
            for accumulator in shared:
                inside.bind_accumulator(accumulator, self._variables[accumulator, True])
            self._body(loop.body, inside)
        self._in_lanes = before
        changed = changing(loop.body)
        scope.forget(changed)
        for accumulator in (source for source in changed if isinstance(source, Accumulator)):
            variable = self._variables[accumulator, before]
            if accumulator in shared:
                whole = f"combine_group<{self.threads}, {accumulator.reduction}_of>({self._variables[accumulator, True]})"
                self.code.line(f"{variable} = {_combined(accumulator, variable, whole)};")
            scope.bind_accumulator(accumulator, variable)
        if by_lanes and not shared:
            self._sync()  # what the threads have stored, others read


def _combined(accumulator: Accumulator, x: str, y: str) -> str:
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
