"""Loop nests as functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from graphc.backends.llvm import elementwise
from graphc.backends.llvm.builder import Function, mangle, vector
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.elementwise import REGISTER, Registers
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.fetching import what_to_fetch
from graphc.backends.llvm.half import HALVES
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import address, memory_type, prefetch
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.streaming import begin_lines, fence, what_to_stream
from graphc.backends.llvm.turning import TurnedCopy, emit_squares, has_square, to_fetch, turned_copy
from graphc.expression import Accumulator, Axis, Buffer
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
    writes,
)
from graphc.sizes import estimate, is_static
from graphc.types import Size

_PARALLEL_NS = 15_000
"""What a kernel must cost to be shared among threads."""
_CHUNK_NS = 5_000
"""What a chunk costs at least: some fifty times what it takes to hand one out."""
_MOST_CHUNKS = 256
_UNROLLED_TRIPS = 8
_UNROLLED_SIZE = 256
"""How many expressions the iterations of an unrolled loop have together."""


def render_loops(context: Context, kernel: Loops, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`."""
    steps = math.prod(axis.extent for axis in kernel.grid)
    if not is_static(steps, kernel.work) and steps != 1:
        return _render_any(context, kernel, name, steps)
    f = context.module.function(name, [("ptr", "context")], linkage="internal")
    per_chunk = math.ceil(max(1, _CHUNK_NS / max(kernel.cost, 1e-3), steps / _MOST_CHUNKS))
    if steps and (kernel.cost * steps < _PARALLEL_NS or per_chunk >= steps):
        _Nest(context, kernel, f).steps("0", str(steps), steps)
    elif steps:
        symbol = f"{name}.chunk"
        chunk = context.module.function(symbol, [("ptr", "context"), ("i64", "chunk")], linkage="internal")
        nest = _Nest(context, kernel, chunk)
        first = chunk.value(f"mul i64 %chunk, {per_chunk}")
        last = chunk.value(f"add i64 {first}, {per_chunk}")
        if steps % per_chunk:
            last = chunk.intrinsic("llvm.smin", "i64", last, str(steps))
        nest.steps(first, last, per_chunk)
        chunk.do("ret void")
        context.parallel_for(f, f"@{symbol}", str(-(-steps // per_chunk)))
    f.do("ret void")


def _render_any(context: Context, kernel: Loops, name: str, steps: Size) -> None:
    """The same where the number of steps, or what they cost, is known at run time only."""
    symbol = f"{name}.chunk"
    chunk = context.module.function(symbol, [("ptr", "context"), ("i64", "chunk")], linkage="internal")
    integers = Integers(chunk)
    per_chunk = _steps_per_chunk(chunk, kernel, steps)
    first = integers.multiply("%chunk", per_chunk)
    _Nest(context, kernel, chunk).steps(first, integers.least(integers.add(first, per_chunk), steps), 2)
    chunk.do("ret void")
    f = context.module.function(name, [("ptr", "context")], linkage="internal")
    integers, per_chunk = Integers(f), _steps_per_chunk(f, kernel, steps)
    chunks = f.value(f"udiv i64 {integers.add(steps, integers.subtract(per_chunk, 1))}, {per_chunk}")
    context.parallel_for(f, f"@{symbol}", chunks)
    f.do("ret void")


def _steps_per_chunk(f: Function, kernel: Loops, steps: Size) -> str:
    """How many steps a chunk has, one at least: all of them where the kernel is not worth sharing."""
    integers = Integers(f)
    picoseconds = max(1, round(1000 * kernel.cost / max(1, estimate(kernel.work))))
    step = integers.greatest(integers.multiply(kernel.work, picoseconds), 1)
    least = f.value(f"udiv i64 {integers.add(step, 1000 * _CHUNK_NS - 1)}, {step}")
    shared = integers.greatest(least, integers.divide(integers.add(steps, _MOST_CHUNKS - 1), _MOST_CHUNKS))
    is_short = f.value(f"icmp slt i64 {integers.multiply(steps, step)}, {1000 * _PARALLEL_NS}")
    return integers.greatest(f.value(f"select i1 {is_short}, i64 {integers.operand(steps)}, i64 {shared}"), 1)


class _Nest:
    """Renders the steps of one kernel into a function whose entry block is open."""

    def __init__(self, context: Context, kernel: Loops, f: Function) -> None:
        self.kernel = kernel
        self.f = f
        self._slots: dict[tuple[Accumulator, int], str] = {}
        buffers = reads(kernel) | writes(kernel)
        known = context.pointers(f, (b for b in buffers if b.role != "local"))
        local: dict[Buffer, str] = {}

        def pointer(buffer: Buffer) -> str:
            if buffer.role != "local":
                return known(buffer)
            if buffer not in local:
                local[buffer] = f.slot(f"[{buffer.size} x {memory_type(buffer.dtype)}]", ALIGNMENT)
            return local[buffer]

        self._root = Evaluator(f, 1, pointer)
        self._pointer = pointer
        self._fetched = what_to_fetch(kernel)
        self._streamed = what_to_stream(kernel, context.target)

    # The grid

    def steps(self, first: str, last: str, most: int) -> None:
        """Run the steps from `first`, an i64 operand, up to `last`: one or more, `most` of them at most."""
        f, grid = self.f, self.kernel.grid
        evaluator = self._root.child()
        for axis in grid:
            if axis.extent == 1:
                evaluator.bind(axis, "0")
        wide = [axis for axis in grid if axis.extent != 1]
        evaluator.prepare(expressions(self.kernel), changing(self.kernel.body))
        self._steps(evaluator, wide, first, last, most)
        if self._streamed:
            fence(f)

    def _steps(self, evaluator: Evaluator, wide: Sequence[Axis], first: str, last: str, most: int) -> None:
        """The steps, of axes that have more than one place."""
        f = self.f
        if most == 1:
            self._step(evaluator, wide, _split(f, first, wide))
        elif len(wide) == 1:
            with f.loop(first, last, hint="step", reduced=False) as step:
                self._step(evaluator, wide, [step])
        else:
            slots = [f.slot("i64") for _ in wide]
            for slot, start in zip(slots, _split(f, first, wide)):
                f.do(f"store i64 {start}, ptr {slot}")
            with f.loop(first, last, hint="step", reduced=False):
                values = [f.value(f"load i64, ptr {slot}") for slot in slots]
                self._step(evaluator, wide, values)
                _advance(f, wide, slots, values)

    def _step(self, evaluator: Evaluator, axes: Sequence[Axis], values: Sequence[str]) -> None:
        inside = evaluator.child()
        for axis, value in zip(axes, values):
            inside.bind(axis, value)
        self._body(self.kernel.body, inside)

    # Statements

    def _body(self, statements: Sequence[Statement], e: Evaluator) -> None:
        for stores, group in itertools.groupby(statements, lambda s: isinstance(s, Store)):
            if stores:
                e.store(*(s for s in group if isinstance(s, Store)))
                continue
            for statement in group:
                match statement:
                    case Reset():
                        self._start(e, statement.accumulator, e.width)
                    case Accumulate():
                        self._accumulate(statement, e)
                    case Loop():
                        turned = turned_copy(statement)
                        if turned is not None:
                            self._turned_copy(turned, e)
                        else:
                            self._loop(statement, e)

    def _start(self, e: Evaluator, accumulator: Accumulator, width: int) -> None:
        """Set an accumulator to its neutral number, in a scalar or in each of `width` lanes."""
        registers = Registers(self.f, accumulator.dtype, width)
        key = (accumulator, width)
        if key not in self._slots:
            self._slots[key] = self.f.slot(registers.type)
        self.f.do(f"store {registers.type} {registers.number(accumulator.initial)}, ptr {self._slots[key]}")
        e.bind_accumulator(accumulator, self._slots[key], varying=width > 1)

    def _accumulate(self, statement: Accumulate, e: Evaluator) -> None:
        accumulator = statement.accumulator
        slot, _ = e.accumulator(accumulator)
        registers = Registers(self.f, accumulator.dtype, e.width)
        value = e.vector(statement.value)
        before = self.f.value(f"load {registers.type}, ptr {slot}")
        after = self._combine(accumulator, e.width, before, value)
        if e.mask is not None:
            after = registers.select(e.mask, after, before)
        self.f.do(f"store {registers.type} {after}, ptr {slot}")
        e.forget({accumulator})

    def _combine(self, accumulator: Accumulator, width: int, a: str, b: str) -> str:
        dtype = accumulator.dtype
        if accumulator.reduction == "last":
            return b
        if accumulator.reduction == "sum" or dtype in HALVES or not dtype.is_floating_point:
            op = {"sum": "add", "max": "maximum", "min": "minimum"}[accumulator.reduction]
            return elementwise.render(self.f, op, dtype, width, (a, b), result=dtype)
        # Of 0 and -0 it may be either. The new value first, since it is the first that is tested for NaN: what waits for the
        # value before is short.
        type_ = vector(REGISTER[dtype.name], width)
        name = self.f.module.declare(f"llvm.{accumulator.reduction}imum.{mangle(type_)}", type_, [type_, type_])
        return self.f.value(f"call nsz {type_} {name}({type_} {b}, {type_} {a})")

    # Loops

    def _turned_copy(self, copy: TurnedCopy, e: Evaluator) -> None:
        """By squares, or number by number where there is not even one square."""
        rows, columns = self._stop(copy.outer, e), self._stop(copy.inner, e)
        squares = has_square(copy, e, rows, columns)
        past_caches = {store.buffer for stores in self._streamed.values() for store in stores}
        fetched = [place for place in to_fetch(self.kernel, copy) if place[0] not in past_caches]
        if squares is False:
            self._loop(copy.outer, e)
        elif squares is True:
            emit_squares(copy, e, self._pointer, rows, columns, fetched)
        else:
            f = self.f
            by_squares, by_numbers, done = f.label("squares"), f.label("numbers"), f.label("turned")
            f.branch(squares, by_squares, by_numbers)
            f.enter(by_squares)
            emit_squares(copy, e, self._pointer, rows, columns, fetched)
            f.jump(done)
            f.enter(by_numbers)
            self._loop(copy.outer, e.child())
            f.jump(done)
            f.enter(done)
        e.forget({copy.store.buffer})

    def _stop(self, loop: Loop, e: Evaluator) -> str:
        return size_operand(self.f, loop.axis.extent) if loop.limit is None else e.scalar(loop.limit)

    def _loop(self, loop: Loop, e: Evaluator) -> None:
        """A loop, and outside of it what is the same throughout."""
        if loop.axis.extent == 0:
            return
        stop = self._stop(loop, e)
        if stop.startswith("%"):
            with self.f.when(self.f.value(f"icmp sgt i64 {stop}, 0")):
                self._some_trips(loop, e, stop)
        elif int(stop) > 0:
            self._some_trips(loop, e, stop)

    def _some_trips(self, loop: Loop, e: Evaluator, stop: str) -> None:
        inside = e.child(width=loop.lanes if loop.lanes > 1 else None)
        inside.prepare(evaluated(walk_statements(loop.body)), changing(loop.body))
        if loop.lanes > 1:
            shared = carried(loop.body)
            for accumulator in shared:
                self._start(inside, accumulator, loop.lanes)
            self._in_lanes(loop, inside, stop)
            for accumulator in shared:
                self._merge_lanes(accumulator, loop.lanes, e)
        else:
            self._trips(loop, inside, "0", stop, 1)

    def _trips(self, loop: Loop, e: Evaluator, start: str, stop: str, lanes: int) -> None:
        """Run the body with the axis going up by `lanes` at a time."""
        if not stop.startswith("%"):
            values = range(int(start), int(stop), lanes)
            if _unrolls(len(values), _size(loop.body)):
                for value in values:
                    self._trip(loop, e, str(value), lanes)
                return
        with self.f.loop(start, stop, str(lanes)) as index:
            self._trip(loop, e, index, lanes)

    def _trip(self, loop: Loop, e: Evaluator, index: str, lanes: int, mask: str | None = None) -> None:
        inside = e.child(mask=mask)
        inside.bind(loop.axis, index, lanes=lanes > 1, divisor=lanes)
        self._body(loop.body, inside)
        for load, step in self._fetched.get(loop, ()) if mask is None else ():
            dtype, pointer = load.dtype, self._pointer(load.attr)
            later = Integers(self.f).add(inside.first(load.args[0]), step)
            prefetch(self.f, address(self.f, dtype, pointer, later), lanes * dtype.itemsize)

    def _in_lanes(self, loop: Loop, e: Evaluator, stop: str) -> None:
        """In vectors, which go past the caches where they may and begin with lines."""
        stores = self._streamed.get(loop)
        if not stores:
            self._vectors(loop, e, stop)
            return
        f, start = self.f, e.child()
        start.bind(loop.axis, "0", lanes=True)
        places = [address(f, s.buffer.dtype, self._pointer(s.buffer), start.first(s.offset)) for s in stores]
        streamed, stored, done = f.label("streamed"), f.label("stored"), f.label("written")
        f.branch(begin_lines(f, places), streamed, stored)
        for label, past_caches in ((streamed, frozenset(stores)), (stored, frozenset())):
            f.enter(label)
            inside = e.child()
            inside.streamed = past_caches
            self._vectors(loop, inside, stop)
            f.jump(done)
        f.enter(done)

    def _vectors(self, loop: Loop, e: Evaluator, stop: str) -> None:
        """Whole vectors, then what is left as one that is masked."""
        f, lanes = self.f, loop.lanes
        if stop.startswith("%"):
            whole = f.value(f"and i64 {stop}, {-lanes}")
            self._trips(loop, e, "0", whole, lanes)
            rest = f.value(f"sub i64 {stop}, {whole}")
            with f.when(f.value(f"icmp ne i64 {rest}, 0")):
                steps = ", ".join(f"i32 {lane}" for lane in range(lanes))
                count = f.splat("i32", f.value(f"trunc i64 {rest} to i32"), lanes)
                mask = f.value(f"icmp ult {vector('i32', lanes)} <{steps}>, {count}")
                self._trip(loop, e, whole, lanes, mask)
        else:
            left = int(stop) % lanes
            end = int(stop) - left
            if end:
                self._trips(loop, e, "0", str(end), lanes)
            if left:
                mask = ", ".join(f"i1 {'true' if lane < left else 'false'}" for lane in range(lanes))
                self._trip(loop, e, str(end), lanes, f"<{mask}>")

    def _merge_lanes(self, accumulator: Accumulator, lanes: int, e: Evaluator) -> None:
        """Take each lane's share into the accumulator: halves with each other, down to one number."""
        f, scalar = self.f, REGISTER[accumulator.dtype.name]
        value = f.value(f"load {vector(scalar, lanes)}, ptr {self._slots[accumulator, lanes]}")
        width = lanes
        while width > 1:
            type_, half = vector(scalar, width), width // 2
            parts = []
            for start in (0, half):
                picks = ", ".join(f"i32 {lane}" for lane in range(start, start + half))
                parts.append(f.value(f"shufflevector {type_} {value}, {type_} poison, <{half} x i32> <{picks}>"))
            if half == 1:
                parts = [f.value(f"extractelement {type_} {value}, i64 {lane}") for lane in (0, 1)]
            value = self._combine(accumulator, half, *parts)
            width = half
        slot, _ = e.accumulator(accumulator)
        before = f.value(f"load {scalar}, ptr {slot}")
        f.do(f"store {scalar} {self._combine(accumulator, 1, before, value)}, ptr {slot}")
        e.forget({accumulator})


def _split(f: Function, step: str, axes: Sequence[Axis]) -> list[str]:
    """The values of the axes at a step of their product, row-major."""
    values: list[str] = []
    for axis in reversed(axes[1:]):
        values.append(Integers(f).remainder(step, axis.extent))
        step = Integers(f).divide(step, axis.extent)
    return [step, *reversed(values)] if axes else []


def _advance(f: Function, axes: Sequence[Axis], slots: Sequence[str], values: Sequence[str]) -> None:
    """Go on to the next step: add one, and carry."""
    carry = "1"
    for axis, slot, value in reversed(list(zip(axes, slots, values))):
        following = f.value(f"add nsw i64 {value}, {carry}")
        full = f.value(f"icmp eq i64 {following}, {size_operand(f, axis.extent)}")
        f.do(f"store i64 {f.value(f'select i1 {full}, i64 0, i64 {following}')}, ptr {slot}")
        carry = f.value(f"zext i1 {full} to i64")


def _size(body: Sequence[Statement]) -> int | None:
    """How many expressions the statements are made of, those of loops as often as these are written out; None if one is
    left."""
    total = 0
    for statement in body:
        if isinstance(statement, Loop):
            inner, extent = _size(statement.body), statement.axis.extent
            trips = -(-extent // max(statement.lanes, 1)) if isinstance(extent, int) else None
            if inner is None or trips is None or not _unrolls(trips, inner):
                return None
            total += inner * trips
        else:
            total += sum(1 for root in evaluated((statement,)) for _ in root.walk())
    return total


def _unrolls(trips: int, size: int | None) -> bool:
    """Whether a loop is written out, so that its indices become numbers: one of few steps, over a body of that size without any
    loop in it, which would be there as often."""
    return trips == 1 or (size is not None and trips <= _UNROLLED_TRIPS and trips * size <= _UNROLLED_SIZE)
