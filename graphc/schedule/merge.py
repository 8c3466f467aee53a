"""Run neighbouring kernels step by step together, so that what one writes is still in the cache when the next reads it.

A softmax is scheduled as a maximum, a sum of exponentials and a division, each over all rows; merged, the three are done
for one row and then for the next. What only the merged kernel needs is kept on the stack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Accumulate, Kernel, Loop, Loops, Statement, Store
from graphc.memory import live_ranges
from graphc.schedule.machine import Machine
from graphc.schedule.statements import substitute_statements
from graphc.schedule.threads import in_rows
from graphc.sizes import estimate
from graphc.types import Size

_LOCAL_BYTES = 1 << 14
"""How much local memory one buffer may take."""
_FEW_BYTES = 64
"""How much of it may be a single thread's, where there are very many."""
_LONGEST = 16
"""How many kernels become one: more gain nothing, and a function of hundreds takes long to compile."""


def merge_kernels(
    kernels: Sequence[Kernel], temporaries: Sequence[Buffer], same_memory: Mapping[Buffer, Buffer], machine: Machine
) -> tuple[list[Kernel], list[Buffer]]:
    """Merge neighbours where each step reads and overwrites only what the same step has touched.

    `same_memory` maps a donated output to the input that it overwrites. Returns the kernels, and the temporaries that are
    left.
    """
    merged: list[Kernel] = []
    run: _Run | None = None
    for current in kernels:
        if run is not None and (run.take(current) or run.take(_row_by_row(current, run.grid))):
            continue
        if run is not None and machine.threads:
            if run.take(in_rows(current, run.grid)):
                continue
            rows = run.in_rows(current)
            if rows is not None:
                run = rows
                continue
        if run is not None:
            merged.append(run.kernel())
        run = _Run(current, same_memory, machine) if isinstance(current, Loops) and current.grid else None
        if run is None:
            merged.append(current)
    if run is not None:
        merged.append(run.kernel())
    return _make_local(merged, temporaries, machine)


def _row_by_row(kernel: Kernel, grid: Sequence[Axis]) -> Kernel:
    """A kernel that computes a few numbers for each step of a grid, all of them in one loop, with a step for each: so it can
    stand between the kernels before and after it, which take longer. Any other kernel as it is."""
    if not isinstance(kernel, Loops) or kernel.grid or len(kernel.body) != 1 or len(grid) != 1:
        return kernel
    (loop,) = kernel.body
    if not isinstance(loop, Loop) or loop.limit is not None or not 0 != loop.axis.extent == grid[0].extent:
        return kernel
    if not all(isinstance(statement, Store) for statement in loop.body):
        return kernel
    return Loops(kernel.name, (loop.axis,), loop.body, kernel.cost * max(1, loop.lanes) / max(1, estimate(loop.axis.extent)))


def _stores(statement: Statement) -> bool:
    return isinstance(statement, Store)


def _forwarded(body: tuple[Statement, ...], before: Iterable[Statement]) -> tuple[Statement, ...]:
    """Statements whose first stores take what the stores right before them write, instead of reading it."""
    known = {
        ex.load(store.buffer, store.offset): store.value for store in before
        if isinstance(store, Store) and store.mask is None and store.value.dtype is store.buffer.dtype
    }  # fmt: skip
    first = tuple(takewhile(_stores, body))
    return (*substitute_statements(first, known), *body[len(first) :]) if known else body


def _reads_from(later: Iterable[Statement], earlier: Iterable[Statement]) -> bool:
    """Whether a store reads what another one writes: as neighbours they would take effect together."""
    written = {store.buffer for store in earlier if isinstance(store, Store)}
    roots = [root for store in later if isinstance(store, Store) for root in (store.offset, store.value, store.mask)]
    return any(e.op == "load" and e.attr in written for root in roots if root is not None for e in root.walk())


@dataclass
class _Use:
    """The offsets at which a buffer is touched, and whether any of that is a store."""

    offsets: set[Expr]
    written: bool


class _Run:
    """Neighbouring kernels that become one."""

    def __init__(self, first: Loops, same_memory: Mapping[Buffer, Buffer], machine: Machine) -> None:
        self.grid = first.grid
        self.members = [first]
        self._same_memory = same_memory
        self._machine = machine
        self._uses = self._uses_of(first)

    def _uses_of(self, loops: Loops) -> dict[Buffer, _Use]:
        uses: dict[Buffer, _Use] = {}
        for buffer, accesses in loops.accesses.items():
            use = uses.setdefault(self._same_memory.get(buffer, buffer), _Use(set(), False))
            use.offsets.update(accesses.loads, accesses.stores)
            use.written |= bool(accesses.stores)
        return uses

    def in_rows(self, following: Kernel) -> _Run | None:
        """These maps row by row together with what follows them, which reduces rows; None where that cannot be."""
        if not isinstance(following, Loops) or not following.grid or len(following.grid) >= len(self.grid):
            return None
        members = [in_rows(member, following.grid) for member in self.members]
        if any(row is member for row, member in zip(members, self.members)):
            return None
        first, *others = (member for member in members if isinstance(member, Loops))
        run = _Run(first, self._same_memory, self._machine)
        return run if all(map(run.take, (*others, following))) else None

    def take(self, kernel: Kernel) -> bool:
        """Add a kernel if its steps depend on no other steps of the run; tells whether it did."""
        if not isinstance(kernel, Loops) or [a.extent for a in kernel.grid] != [a.extent for a in self.grid]:
            return False
        if len(self.members) == _LONGEST or _local_bytes((*self.members, kernel)) > self._machine.local_bytes:
            return False
        body = substitute_statements(kernel.body, {b.value: a.value for a, b in zip(self.grid, kernel.grid)})
        before = self._last_stores()
        body = _forwarded(body, before)
        kernel = Loops(kernel.name, self.grid, body, kernel.cost, kernel.work)
        if _reads_from(takewhile(_stores, body), before):
            return False
        uses = self._uses_of(kernel)
        for buffer in uses.keys() & self._uses.keys():
            early, late = self._uses[buffer], uses[buffer]
            if (early.written or late.written) and _part(early.offsets | late.offsets, self.grid) is None:
                return False
        for buffer, use in uses.items():
            known = self._uses.setdefault(buffer, use)
            known.offsets |= use.offsets
            known.written |= use.written
        self.members.append(kernel)
        return True

    def _last_stores(self) -> list[Statement]:
        """The stores that the next ones would be neighbours of, in their order."""
        statements = (statement for member in reversed(self.members) for statement in reversed(member.body))
        return list(takewhile(_stores, statements))[::-1]

    def kernel(self) -> Loops:
        """All of them as one."""
        if len(self.members) == 1:
            return self.members[0]
        body = tuple(statement for member in self.members for statement in member.body)
        work = next((m.work for m in self.members if not isinstance(m.work, int)), 1)
        return Loops(".".join(m.name for m in self.members), self.grid, body, sum(m.cost for m in self.members), work)


def _local_bytes(members: Iterable[Kernel]) -> Size:
    """How much of the stack kernels take already."""
    return sum(buffer.nbytes for member in members for buffer in member.accesses if buffer.role == "local")


def _part(offsets: Iterable[Expr], grid: Sequence[Axis]) -> Size | None:
    """The size of the part of a buffer that each step has for itself; None where the parts are not apart."""
    wide = [a for a in grid if a.extent not in (0, 1)]
    steps: list[Size] | None = None
    for offset in offsets:
        own = [ix.stride(offset, axis) for axis in wide]
        if any(s is None or s == 0 or not ix.surely(s, 0) for s in own) or (steps is not None and own != steps):
            return None
        steps = [s for s in own if s is not None]
    if not steps:
        return None
    # nested like the digits of a number: each axis steps over all that the later ones reach
    order = sorted(zip(steps, wide), key=lambda pair: -estimate(pair[0]))
    for (outer, _), (inner, axis) in pairwise(order):
        if not ix.surely(outer, inner * axis.extent):
            return None
    size = order[-1][0]
    start = {axis.value: ix.ZERO for axis in wide}
    done: dict[Expr, Expr] = {}
    for offset in offsets:
        rest = ix.substitute(offset, start, done)
        low, high = ix.bounds(rest)
        if not ix.surely(low, 0) or not ix.surely(size - 1, high):
            return None
    return size


def _make_local(
    kernels: list[Kernel], temporaries: Sequence[Buffer], machine: Machine
) -> tuple[list[Kernel], list[Buffer]]:
    """Put temporaries that live within the steps of one kernel in its local memory."""
    ranges = live_ranges(kernels, temporaries)
    local: dict[Buffer, Buffer] = {}
    for number, current in enumerate(kernels):
        if not isinstance(current, Loops) or not current.grid:
            continue
        own: dict[Buffer, Buffer] = {}
        left = machine.local_bytes - _local_bytes([current])
        most = _LOCAL_BYTES
        if machine.threads and not any(isinstance(s, Loop) and s.lanes > 1 for s in current.statements()):
            most = _FEW_BYTES
        for buffer, accesses in current.accesses.items():
            if ranges.get(buffer) != (number, number):
                continue
            size = _part((*accesses.loads, *accesses.stores), current.grid)
            if size is None:
                continue
            nbytes = size * buffer.dtype.itemsize
            room = nbytes if isinstance(nbytes, int) else most
            if room <= min(most, left) and estimate(nbytes) <= room and nbytes <= room:
                own[buffer] = Buffer(buffer.name, buffer.dtype, room // buffer.dtype.itemsize, "local")
                left -= room
        if own:
            local |= own
            body = _relocate(current.body, own, {a.value: ix.ZERO for a in current.grid})
            kernels[number] = dataclasses.replace(current, body=body)
    return kernels, [b for b in temporaries if b in ranges and b not in local]


def _relocate(
    body: Sequence[Statement], own: Mapping[Buffer, Buffer], start: Mapping[Expr, Expr]
) -> tuple[Statement, ...]:
    """Turn accesses of some buffers into accesses of local ones, whose offsets do not depend on the grid."""

    def move(root: Expr) -> Expr:
        done: dict[Expr, Expr] = {}
        for e in root.walk():
            args = tuple(done[a] for a in e.args)
            if e.op == "load" and e.attr in own:
                done[e] = ex.load(own[e.attr], ix.substitute(args[0], start), *args[1:])
            else:
                done[e] = e if args == e.args else Expr(e.op, args, e.dtype, e.attr)
        return done[root]

    out: list[Statement] = []
    for s in body:
        match s:
            case Store():
                offset = ix.substitute(move(s.offset), start) if s.buffer in own else move(s.offset)
                out.append(Store(own.get(s.buffer, s.buffer), offset, move(s.value), s.mask and move(s.mask)))
            case Accumulate():
                out.append(Accumulate(s.accumulator, move(s.value)))
            case Loop():
                out.append(Loop(s.axis, _relocate(s.body, own, start), s.lanes, s.limit and move(s.limit)))
            case _:
                out.append(s)
    return tuple(out)
