"""Packing: an operand of a matrix product rewritten as panels, in the order in which the micro-kernel reads them.

A panel holds some lanes (rows of the left operand, columns of the right one) at a block of steps, as [step][lane]. The
operand is any kernel expression. It is evaluated several numbers at a time, in one of three ways:

by lanes
    Neighbouring lanes of one step, where those stand side by side in memory or can be gathered. Lanes that go on from
    the end of one row of a group of axes to the start of the next, as the pixels of an image do, take one masked
    evaluation for each row that they touch.
by squares
    Neighbouring steps of one lane, where those stand side by side, for a square of lanes that is then transposed.
by numbers
    One number at a time, for what fits neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from graphc import index
from graphc.backends.llvm.axes import Axes, collapse, extent, locate, ordered
from graphc.backends.llvm.builder import Function, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import address as element_address
from graphc.backends.llvm.memory import store_consecutive
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transpose import emit_transpose
from graphc.expression import Axis, Buffer, Expr, cast, constant
from graphc.sizes import ceil_div, estimate
from graphc.types import DType, Size

_MOST_ROWS = 5
"""How many rows of a group of axes a vector of lanes may touch; beyond, its lanes are better taken one by one."""
_MOST_ADDRESSES = 2
_SHORTEST_RUN = 4
"""How many steps must stand side by side for squares to be worth it."""


@dataclass(frozen=True)
class Operand:
    """One side of a product: a matrix of lanes by steps for each place of a batch, on as few axes as it can do with."""

    value: Expr
    batch: Axes
    lanes: Axes
    steps: Axes

    @staticmethod
    def of(value: Expr, dtype: DType, batch: Axes, lanes: Axes, steps: Axes) -> Operand:
        """The operand as numbers of `dtype`; axes of the batch that it does not depend on are left out."""
        value = _without_where(cast(value, dtype))
        lanes, (value,) = collapse(lanes, (value,))
        steps, (value,) = collapse(steps, (value,))
        used = {e.attr for e in value.walk() if e.op == "axis"}
        return Operand(value, tuple(axis for axis in batch if axis in used), lanes, steps)

    @cached_property
    def strides(self) -> tuple[Size, Size] | None:
        """By how much the place in memory grows from lane to lane and from step to step, if the operand can be read
        where it stands; None if it has to be packed."""
        if self.value.op != "load" or len(self.value.args) > 1 or len(self.lanes) > 1 or len(self.steps) > 1:
            return None
        offset = self.value.args[0]
        lane, step = (index.stride(offset, axes[0]) if axes else 0 for axes in (self.lanes, self.steps))
        return None if lane is None or step is None else (lane, step)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """What the operand is read from."""
        return tuple(dict.fromkeys(e.attr for e in self.value.walk() if e.op == "load"))

    def is_contiguous(self, axes: Axes) -> bool:
        """Whether neighbours along the last of the axes are neighbours in memory."""
        loads = (e for e in self.value.walk() if e.op == "load")
        return bool(axes) and any(index.stride(e.args[0], axes[-1]) in (1, -1) for e in loads)


def _without_where(value: Expr) -> Expr:
    """`where(mask, load(buffer, offset, mask), 0)` as the load alone, which gives 0 where its mask is false."""
    if value.op == "where":
        mask, x, otherwise = value.args
        if x.op == "load" and x.args[1:] == (mask,) and otherwise == constant(0, x.dtype):
            return x
    return value


def panel_size(rows: int, steps: Size, width: int) -> Size:
    """Elements from one panel of `rows` lanes to the next. Vectors are stored also where they reach beyond the lanes and
    the steps: the next ones overwrite the surplus, and past the last there is room for it."""
    return ceil_div((steps + width) * rows + width, 16) * 16


@dataclass(frozen=True)
class Panel:
    """What to pack, and where to.

    `rows` lanes from `first` on, at `count` (one or more) steps from `start` on, go to the address `to`; lanes after the
    operand's last one may become anything. The four are operands, and so are the values of the operand's batch axes.
    `start` is a multiple of `block`, and so is `count` unless the last step is among the steps.
    """

    rows: int
    block: Size
    batch: Sequence[str]
    first: str
    start: str
    count: str
    to: str


def lane_tables(f: Function, operand: Operand, panel: Panel) -> dict[Axis, str]:
    """Tables of the lanes' axes at each lane of a panel; beyond the operand's last lane, more of that. They save dividing again
    for each part of the panel."""
    integers, lanes = Integers(f), operand.lanes
    tables = {axis: f.slot(f"[{panel.rows} x i64]") for axis in lanes}
    if not tables:
        return tables
    with integers.loop(0, panel.rows, "lane") as j:
        lane = integers.least(integers.add(panel.first, j), extent(lanes) - 1)
        for axis, place in zip(lanes, locate(f, lanes, lane), strict=True):
            f.do(f"store i64 {place}, ptr {f.value(f'getelementptr i64, ptr {tables[axis]}, i64 {j}')}")
    return tables


def emit_packing(
    f: Function, operand: Operand, panel: Panel, dtype: DType, width: int, target: Target, pointers: Callable[[Buffer], str]
) -> None:
    """Emit the code that packs one panel, with vectors of `width` numbers."""
    _way(operand, panel.rows, width)(f, operand, panel, dtype, width, target, pointers).emit()


def _way(operand: Operand, rows: int, width: int) -> type[_Packer]:
    touched = _rows_touched(operand, rows, width)
    if touched <= _MOST_ROWS and operand.is_contiguous(operand.lanes):
        return _ByLanes
    if operand.is_contiguous(operand.steps) and estimate(operand.steps[-1].extent) >= _SHORTEST_RUN:
        return _BySquares
    return _ByLanes if touched <= _MOST_ROWS else _ByNumbers


def _rows_touched(operand: Operand, rows: int, width: int) -> int:
    """How many rows of the lanes' last axis a vector of lanes touches at most."""
    lanes = operand.lanes
    if len(lanes) < 2:
        return 1
    row, total = lanes[-1].extent, extent(lanes)
    if not isinstance(row, int):
        return 2 if row >= ceil_div(rows, width) * width else rows
    firsts = range(0, min(total, row * rows) if isinstance(total, int) else row * rows, rows)
    starts = {(first + v) % row for first in firsts for v in range(0, rows, width)}
    return max(-(-(start + min(width, rows)) // row) for start in starts)


class _Packer(ABC):
    def __init__(
        self, f: Function, operand: Operand, panel: Panel, dtype: DType, width: int, target: Target,
        pointers: Callable[[Buffer], str],
    ) -> None:
        self.f = f
        self.integers = Integers(f)
        self.operand = operand
        self.panel = panel
        self.dtype = dtype
        self.scalar = REGISTER[dtype.name]
        self.width = width
        self.type = vector(self.scalar, width)
        self.target = target
        self.pointers = pointers

    @abstractmethod
    def emit(self) -> None:
        """Emit the code that packs the panel."""

    @cached_property
    def value(self) -> Expr:
        """What is evaluated at each lane and step."""
        return ordered(self.operand.value, (*self.operand.batch, *self.loops()))

    @abstractmethod
    def loops(self) -> Axes:
        """The axes of the lanes and steps, those of outer loops first."""

    def inner_steps_first(self) -> Axes:
        """The axes of the steps in the order of `step_loops`."""
        steps = self.operand.steps
        return steps if self.whole_inner_steps is None else (*steps[1:], steps[0])

    def scope(self, width: int) -> Evaluator:
        """An evaluator that knows the batch."""
        scope = Evaluator(self.f, width, self.pointers)
        for axis, place in zip(self.operand.batch, self.panel.batch, strict=True):
            scope.bind(axis, place)
        return scope

    @property
    def masks_are_cheap(self) -> bool:
        """Whether masked loads and stores are instructions: where they are not, each lane takes a branch."""
        return self.target.vector_bytes >= 64 or (self.target.vector_bytes == 32 and self.dtype.itemsize >= 4)

    # Loops over the steps of the block

    @property
    def whole_inner_steps(self) -> Size | None:
        """How many steps the axes after the first have, if each block holds a whole number of them."""
        inner = extent(self.operand.steps[1:])
        return inner if len(self.operand.steps) > 1 and self.panel.block % inner == 0 else None

    @contextmanager
    def step_loops(self, scopes: Sequence[Evaluator]) -> Iterator[tuple[str, list[Evaluator]]]:
        """Go through the steps; yields the step's number in the block, and scopes in which the axes are bound.

        If it can be, the first axis is the innermost loop. For a convolution that is the channels, with the places of
        the kernel outside, so that the borders of the image are dealt with in the outer loops.
        """
        f, steps, panel = self.f, self.operand.steps, self.panel
        inner = self.whole_inner_steps
        if inner is None:
            with self.runs(scopes) as (low, high, before, scopes), f.loop(low, high, hint="step", reduced=False) as place:
                children = [scope.child() for scope in scopes]
                for child in children if steps else ():
                    child.bind(steps[-1], place)
                yield self.integers.add(place, before), children
            return
        with ExitStack() as loops:
            step = "0"
            for axis in steps[1:]:
                place = loops.enter_context(f.loop("0", size_operand(f, axis.extent), hint="place", reduced=False))
                step = self.integers.add(self.integers.multiply(step, axis.extent), place) if step != "0" else place
                scopes = self._bind(scopes, axis, place)
            low = self.integers.divide(panel.start, inner)
            high = self.integers.add(low, self.integers.divide(panel.count, inner))
            first = self.integers.subtract(step, panel.start)
            channel = loops.enter_context(f.loop(low, high, hint="channel", reduced=False))
            if len(scopes) > _MOST_ADDRESSES:
                # without an operation: LLVM takes long to try out all ways to step many addresses, and wins nothing
                channel = f.call("i64", 'asm "", "=r,0"', ("i64", channel))
            children = [scope.child() for scope in scopes]
            for child in children:
                child.bind(steps[0], channel)
            yield self.integers.add(self.integers.multiply(channel, inner), first), children

    @contextmanager
    def runs(self, scopes: Sequence[Evaluator]) -> Iterator[tuple[str, str, str, list[Evaluator]]]:
        """Go through the stretches of steps along the last axis; yields where on it one begins and ends, what to add to
        its value for the step's number in the block, and scopes in which the axes before are bound."""
        f, steps, panel = self.f, self.operand.steps, self.panel
        end = self.integers.add(panel.start, panel.count)
        if len(steps) < 2:
            for scope in scopes:
                scope.prepare([self.value], ())
            yield panel.start, end, self.integers.subtract("0", panel.start), list(scopes)
            return
        row = steps[-1].extent
        stop = self.integers.divide(self.integers.add(end, row - 1), row)
        with f.loop(self.integers.divide(panel.start, row), stop, hint="run", reduced=False) as run:
            for axis, place in zip(steps[:-1], locate(f, steps[:-1], run), strict=True):
                scopes = self._bind(scopes, axis, place, prepare=axis is steps[-2])
            begin = self.integers.multiply(run, row)
            low = self.integers.greatest(self.integers.subtract(panel.start, begin), 0)
            high = self.integers.least(self.integers.subtract(end, begin), row)
            yield low, high, self.integers.subtract(begin, panel.start), list(scopes)

    def _bind(self, scopes: Sequence[Evaluator], axis: Axis, place: str, *, prepare: bool = True) -> list[Evaluator]:
        children = [scope.child() for scope in scopes]
        for child in children:
            child.bind(axis, place)
            if prepare:
                child.prepare([self.value], ())
        return children

    def address(self, step: str, lane: str | int = 0) -> str:
        """Where a lane of a step goes."""
        offset = self.integers.add(self.integers.multiply(step, self.panel.rows), lane)
        return self.f.value(f"getelementptr {self.scalar}, ptr {self.panel.to}, i64 {offset}")


class _ByLanes(_Packer):
    def loops(self) -> Axes:
        return (*self.operand.lanes, *self.inner_steps_first())

    def emit(self) -> None:
        """All lanes of a vector in one row of their last axis, where that is so; else in parts."""
        f, operand, panel = self.f, self.operand, self.panel
        base = self.scope(self.width)
        starts = range(0, panel.rows, self.width)
        if not operand.lanes:
            self.pack([[(base, None)] for _ in starts])
            return
        row, span = operand.lanes[-1].extent, len(starts) * self.width
        if (isinstance(row, int) or len(operand.lanes) > 1) and span > row:
            self.pack([self.parts(base, start) for start in starts])
            return
        place, x = self.place_of(panel.first)
        whole: list[list[tuple[Evaluator, str | None]]] = []
        for start in starts:
            scope = base.child()
            self.bind_lanes(scope, place, self.integers.add(x, start))
            whole.append([(scope, None)])
        if span == panel.rows and row % panel.rows == 0:
            self.pack(whole)
            return
        last = size_operand(f, row - span)
        with f.when(f.value(f"icmp sle i64 {x}, {last}")):
            self.pack(whole)
        with f.when(f.value(f"icmp sgt i64 {x}, {last}")):
            self.pack([self.parts(base, start) for start in starts])

    def place_of(self, lane: str) -> tuple[str, str]:
        """The row of the last axis that a lane is in, and its place there."""
        row = self.operand.lanes[-1].extent
        if len(self.operand.lanes) == 1:
            return "0", lane
        return self.integers.divide(lane, row), self.integers.remainder(lane, row)

    def bind_lanes(self, scope: Evaluator, row: str, x: str) -> None:
        lanes = self.operand.lanes
        for axis, place in zip(lanes[:-1], locate(self.f, lanes[:-1], row), strict=True):
            scope.bind(axis, place)
        scope.bind(lanes[-1], x, lanes=True)

    def parts(self, base: Evaluator, start: int) -> list[tuple[Evaluator, str | None]]:
        """A vector of lanes, from lane `start` of the panel on, as its parts in one row each: a scope and a mask."""
        f, lanes, panel = self.f, self.operand.lanes, self.panel
        row, total = lanes[-1].extent, extent(lanes)
        lane = self.integers.add(panel.first, start)
        valid = self.integers.least(self.integers.subtract(total, lane), min(self.width, panel.rows - start))
        place, x = self.place_of(self.integers.least(lane, total - 1))
        parts: list[tuple[Evaluator, str | None]] = []
        for i in range(_rows_touched(self.operand, panel.rows, self.width)):
            begin = self.integers.subtract(x, i * row)
            low = self.integers.greatest(self.integers.subtract("0", begin), 0) if i else "0"
            high = self.integers.least(valid, self.integers.subtract(row, begin))
            there = place
            if i:
                # a part without lanes must not evaluate anything in a row that may not be there
                some = f.value(f"icmp slt i64 {low}, {high}")
                there = f.value(f"select i1 {some}, i64 {self.integers.add(place, i)}, i64 {place}")
            mask = self.integers.mask(self.width, low, high)
            scope = base.child(mask=mask)
            self.bind_lanes(scope, there, begin)
            parts.append((scope, mask))
        return parts

    def pack(self, vectors: Sequence[Sequence[tuple[Evaluator, str | None]]]) -> None:
        """Evaluate the vectors at each step."""
        f, rows, width, mask_type = self.f, self.panel.rows, self.width, vector("i1", self.width)
        in_order = self.whole_inner_steps is None
        with self.step_loops([scope for parts in vectors for scope, _ in parts]) as (step, scopes):
            inner = iter(scopes)
            for start, parts in zip(range(0, rows, width), vectors, strict=True):
                result = ""
                for (_, mask), scope in zip(parts, inner):
                    part = scope.vector(self.value)
                    if result:
                        part = f.value(f"select {mask_type} {mask}, {self.type} {part}, {self.type} {result}")
                    result = part
                # the surplus of a last vector may only be written where the next step follows
                own = None if in_order or start + width <= rows else _first_lanes(rows - start, width)
                store_consecutive(f, self.dtype, width, self.address(step, start), "0", result, own)


class _BySquares(_Packer):
    def loops(self) -> Axes:
        return (*self.operand.steps, *self.operand.lanes)

    def emit(self) -> None:
        """Squares of as many lanes and steps as a vector has numbers. The last lanes of the panel may be in two squares,
        so that none reaches beyond it."""
        f, integers, width, rows = self.f, self.integers, self.width, self.panel.rows
        tables = lane_tables(self.f, self.operand, self.panel)
        with integers.loop(0, -(-rows // width), "group") as group:
            start = integers.least(integers.multiply(group, width), max(0, rows - width))
            runs = self.runs([self.scope(width)])
            with runs as (low, high, before, (scope,)), f.loop(low, high, str(width), hint="square", reduced=False) as place:
                left = integers.subtract(high, place)
                at = self.address(integers.add(place, before), start)
                if (strides := self.operand.strides) is not None and strides[1] == 1 and rows > 1:
                    # most squares of a plain matrix are turned straight from there
                    lane = integers.add(self.panel.first, start)
                    is_whole = f.value(f"icmp sge i64 {left}, {width}")
                    has_lanes = f.value(f"icmp sle i64 {lane}, {size_operand(f, extent(self.operand.lanes) - width)}")
                    is_plain = f.value(f"and i1 {is_whole}, {has_lanes}")
                    with f.when(is_plain):
                        self.turn(self.corner(lane, place), strides[0], at)
                    with f.when(f.value(f"xor i1 {is_plain}, true")):
                        self.square(scope.child(mask=integers.mask(width, 0, left)), tables, start, place, at)
                elif self.masks_are_cheap:
                    self.square(scope.child(mask=integers.mask(width, 0, left)), tables, start, place, at)
                else:
                    with f.when(f.value(f"icmp sge i64 {left}, {width}")):
                        self.square(scope.child(), tables, start, place, at)
                    with f.when(f.value(f"icmp slt i64 {left}, {width}")):
                        self.square(scope.child(mask=integers.mask(width, 0, left)), tables, start, place, at)

    def corner(self, lane: str, step: str) -> str:
        """The address of a number of a plain matrix."""
        scope = self.scope(1)
        for axes, place in ((self.operand.lanes, lane), (self.operand.steps, step)):
            for axis in axes:
                scope.bind(axis, place)
        return element_address(self.f, self.dtype, self.pointers(self.value.attr), scope.scalar(self.value.args[0]))

    def turn(self, square: str, stride: Size, at: str) -> None:
        """Store the columns of a square, whose rows are `stride` apart, as steps."""
        transpose = emit_transpose(self.f.module, self.dtype, self.width)
        steps = (("i64", size_operand(self.f, stride)), ("i64", str(self.panel.rows)))
        self.f.call("void", transpose, ("ptr", square), steps[0], ("ptr", at), steps[1])

    def square(self, scope: Evaluator, tables: dict[Axis, str], start: str, place: str, at: str) -> None:
        """Evaluate `width` steps of each lane from `start` on and store them turned."""
        f, integers, dtype, width = self.f, self.integers, self.dtype, self.width
        rows = self.panel.rows
        square = at if rows == 1 else f.slot(f"[{width * width} x {self.scalar}]", width * dtype.itemsize)
        scope.bind(self.operand.steps[-1], place, lanes=True)
        scope.prepare([self.value], ())
        with integers.loop(0, min(width, rows), "lane") as j:
            inside = scope.child()
            for axis, table in tables.items():
                entry = f.value(f"getelementptr i64, ptr {table}, i64 {integers.add(start, j)}")
                inside.bind(axis, f.value(f"load i64, ptr {entry}"))
            steps = inside.vector(self.value)
            store_consecutive(f, dtype, width, square, integers.multiply(j, width), steps, None)
        if rows > 1:
            self.turn(square, width, at)


class _ByNumbers(_Packer):
    def loops(self) -> Axes:
        return (*self.operand.lanes, *self.inner_steps_first())

    def emit(self) -> None:
        """One lane after another."""
        f, lanes, panel = self.f, self.operand.lanes, self.panel
        with f.loop("0", str(panel.rows), hint="lane", reduced=False) as j:
            scope = self.scope(1)
            lane = self.integers.least(self.integers.add(panel.first, j), extent(lanes) - 1)
            for axis, value in zip(lanes, locate(f, lanes, lane), strict=True):
                scope.bind(axis, value)
            with self.step_loops([scope]) as (step, (inner,)):
                place = f.value(f"getelementptr {self.scalar}, ptr {self.address(step)}, i64 {j}")
                f.do(f"store {self.scalar} {inner.scalar(self.value)}, ptr {place}")


def _first_lanes(count: int, width: int) -> str:
    """A constant mask of the first lanes."""
    return "<" + ", ".join(f"i1 {'true' if lane < count else 'false'}" for lane in range(width)) + ">"
