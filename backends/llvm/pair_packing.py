"""Packing for products of bfloat16: an operand as the blocks of 16 lanes by 32 steps that `pairtile` describes.

Where steps stand side by side, a block is computed a lane at a time. Else the operand is packed as for other products, in
bfloat16, and the steps of those panels are then put together in pairs. Where lanes and pairs are the other way round from
what is wanted, the block is transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.backends.llvm.axes import locate, ordered
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.packing import Operand, Panel, emit_packing, lane_tables, panel_size
from graphc.backends.llvm.pairtile import BLOCK, LANES, PAIRS, STEPS
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transpose import emit_transpose
from graphc.expression import Axis, Buffer, Expr
from graphc.sizes import ceil_div
from graphc.types import bfloat16, float32

_HALVES = f"<{STEPS} x i16>"
_BFLOATS = f"<{STEPS} x bfloat>"
_SINGLES = f"<{STEPS} x float>"


def emit_pair_packing(
    f: Function, operand: Operand, panel: Panel, is_left: bool, target: Target, pointers: Callable[[Buffer], str]
) -> None:
    """Emit the code that packs one panel of an operand of bfloat16: the left one with a row for each lane, the right one with
    a row for each pair. The block of steps of the panel is a number."""
    packer = _PairPacker(f, operand, panel, is_left, target, pointers)
    steps = operand.steps
    whole = len(steps) == 1 or (len(steps) > 1 and isinstance(steps[-1].extent, int) and steps[-1].extent % STEPS == 0)
    if whole and operand.is_contiguous(steps):
        packer.by_rows()
    else:
        packer.by_pairs()


class _PairPacker:
    def __init__(
        self, f: Function, operand: Operand, panel: Panel, is_left: bool, target: Target, pointers: Callable[[Buffer], str]
    ) -> None:
        self.f = f
        self.integers = Integers(f)
        self.operand = operand
        self.panel = panel
        self.is_left = is_left
        self.target = target
        self.pointers = pointers
        self.blocks = ceil_div(panel.rows, LANES)
        """How many blocks lie side by side."""
        self.square = f.slot(f"[{BLOCK} x float]", 64)

    def block(self, steps: str, lanes: str | int) -> str:
        """The address of a block, by its number along the steps and along the lanes."""
        number = self.integers.add(self.integers.multiply(steps, self.blocks), lanes)
        return self.f.value(f"getelementptr float, ptr {self.panel.to}, i64 {self.integers.multiply(number, BLOCK)}")

    def turn(self, to: str) -> None:
        """Store the square's columns as rows."""
        transpose = emit_transpose(self.f.module, float32, LANES)
        step = ("i64", str(LANES))
        self.f.call("void", transpose, ("ptr", self.square), step, ("ptr", to), step)

    # A lane at a time

    def by_rows(self) -> None:
        """Evaluate 32 steps of each lane of a block."""
        f, integers, panel = self.f, self.integers, self.panel
        value = self.operand.value
        if value.op == "cast" and value.args[0].dtype is float32:
            value = value.args[0]  # rounded as it is packed
        value = ordered(value, (*self.operand.batch, *self.operand.steps, *self.operand.lanes))
        tables = lane_tables(self.f, self.operand, self.panel)
        base = Evaluator(f, STEPS, self.pointers)
        for axis, place in zip(self.operand.batch, panel.batch, strict=True):
            base.bind(axis, place)
        whole = integers.divide(panel.count, STEPS)
        for group in range(self.blocks):
            lanes = min(LANES, panel.rows - group * LANES)
            with f.loop("0", whole, hint="steps") as number:
                self.rows(base.child(), value, tables, number, group, lanes, None)
            left = integers.remainder(panel.count, STEPS)
            with f.when(f.value(f"icmp ne i64 {left}, 0")):
                mask = integers.mask(STEPS, 0, left)
                self.rows(base.child(mask=mask), value, tables, whole, group, lanes, mask)

    def rows(
        self, scope: Evaluator, value: Expr, tables: dict[Axis, str], number: str, group: int, lanes: int, mask: str | None
    ) -> None:
        """One block."""
        f, integers, steps = self.f, self.integers, self.operand.steps
        first = integers.add(self.panel.start, integers.multiply(number, STEPS))
        *outer, inner = locate(f, steps, first)
        for axis, place in zip(steps, outer):
            scope.bind(axis, place)
        scope.bind(steps[-1], inner, lanes=True)
        scope.prepare([value], ())
        to = self.block(number, group)
        with integers.loop(0, lanes, "lane") as j:
            inside = scope.child()
            for axis, table in tables.items():
                entry = f.value(f"getelementptr i64, ptr {table}, i64 {integers.add(j, group * LANES)}")
                inside.bind(axis, f.value(f"load i64, ptr {entry}"))
            row = self.rounded(inside.vector(value)) if value.dtype is float32 else inside.vector(value)
            if mask is not None:
                row = f.value(f"select <{STEPS} x i1> {mask}, {_HALVES} {row}, {_HALVES} zeroinitializer")
            offset = integers.multiply(j, PAIRS)
            place = f.value(f"getelementptr float, ptr {to if self.is_left else self.square}, i64 {offset}")
            f.do(f"store {_HALVES} {row}, ptr {place}, align 64")
        if not self.is_left:
            self.turn(to)

    def rounded(self, row: str) -> str:
        """float32 as bfloat16, but for subnormal numbers, which are zeros: the products take them for that anyway."""
        f, half = self.f, f"<{LANES} x float>"
        parts = []
        for start in (0, LANES):
            picks = ", ".join(f"i32 {lane}" for lane in range(start, start + LANES))
            parts.append(f.value(f"shufflevector {_SINGLES} {row}, {_SINGLES} poison, <{LANES} x i32> <{picks}>"))
        name = f.module.declare("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _BFLOATS, [half, half])
        pairs = f.call(_BFLOATS, name, (half, parts[1]), (half, parts[0]))
        return f.value(f"bitcast {_BFLOATS} {pairs} to {_HALVES}")

    # Steps put together

    def by_pairs(self) -> None:
        """Pack step by step, then interleave each two steps."""
        f, integers, panel = self.f, self.integers, self.panel
        rows = self.blocks * LANES
        size = panel_size(rows, panel.block, LANES) + STEPS * rows
        steps = f.slot(f"[{size} x i16]", 64)
        emit_packing(f, self.operand, replace(panel, rows=rows, to=steps), bfloat16, LANES, self.target, self.pointers)
        blocks = integers.divide(integers.add(panel.count, STEPS - 1), STEPS)
        line = f"<{LANES} x i16>"

        def place(step: str, group: int) -> str:
            offset = integers.add(integers.multiply(step, rows), group * LANES)
            return f.value(f"getelementptr i16, ptr {steps}, i64 {offset}")

        with f.loop(panel.count, integers.multiply(blocks, STEPS), hint="step") as step:
            for group in range(self.blocks):
                f.do(f"store {line} zeroinitializer, ptr {place(step, group)}, align 2")
        picks = ", ".join(f"i32 {lane}, i32 {lane + LANES}" for lane in range(LANES))
        with f.loop("0", blocks, hint="block") as block:
            for group in range(self.blocks):
                to = self.block(block, group)
                with f.loop("0", str(PAIRS), hint="pair") as pair:
                    first = integers.add(integers.multiply(block, STEPS), integers.multiply(pair, 2))
                    a, b = (f.value(f"load {line}, ptr {place(at, group)}, align 32") for at in (first, integers.add(first, 1)))
                    both = f.value(f"shufflevector {line} {a}, {line} {b}, <{STEPS} x i32> <{picks}>")
                    offset = integers.multiply(pair, LANES)
                    row = f.value(f"getelementptr float, ptr {self.square if self.is_left else to}, i64 {offset}")
                    f.do(f"store {_HALVES} {both}, ptr {row}, align 64")
                if self.is_left:
                    self.turn(to)
