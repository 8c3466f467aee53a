"""What the functions of one matrix product share: where its panels are, and how one is packed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from graphc.backends.llvm.axes import extent
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.dotkernel import DotTile, emit_dotkernel
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.integers import Integer, Integers
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.microkernel import emit_microkernel
from graphc.backends.llvm.packing import Operand
from graphc.backends.llvm.pairtile import PairTile, emit_pair_kernel
from graphc.backends.llvm.planned_gemm import Access, Plan
from graphc.backends.llvm.sizes import size_operand
from graphc.expression import Buffer
from graphc.types import Size

_HEADER = ALIGNMENT
"""Bytes at the start of the scratch memory: the number of the next task, of the first block of steps of a round, and how many
tasks are finished."""
NEXT_TASK, FIRST_BLOCK, FINISHED = range(3)


class Share(IntEnum):
    """What a worker says about rows that others may take; see `gemm_stream`."""

    OPEN = 0
    NEXT = 1
    HELPERS = 2


_SHARE_BYTES = 2 * LINE_BYTES
"""From one worker's to the next one's: lines are fetched in pairs."""


@dataclass(frozen=True)
class Side:
    """One of the two operands: how it is read, and where its panels are."""

    name: str
    operand: Operand
    access: Access
    lanes: int
    """How many of them a tile has."""
    tiles: Size
    panel: Size
    """Elements from one panel to the next."""
    block: Size
    """Elements of all panels at a block of steps."""
    shared: Size
    """Where panels for all tasks begin in the scratch memory, in bytes."""
    private: Size
    """Where panels for one task begin in its worker's memory, in elements."""
    kept: Buffer | None
    """Where panels are that are kept between runs."""

    @property
    def panels(self) -> Size:
        """How many there are at a block of steps, through the batch."""
        return extent(self.operand.batch) * self.tiles


class Parts:
    """A product's plan, its operands and its memory."""

    def __init__(self, context: Context, plan: Plan, name: str) -> None:
        self.context = context
        self.plan = plan
        self.name = name
        self.scalar = REGISTER[plan.dtype.name]
        size, tile = plan.dtype.itemsize, plan.tile
        shares = plan.workers * _SHARE_BYTES if plan.streams else 0
        lhs_shared = _HEADER + shares
        rhs_shared = lhs_shared + plan.lhs_block * plan.round * size
        self.sums = rhs_shared + plan.rhs_block * plan.round * size
        self.private = self.sums + plan.sums * size
        context.reserve_scratch(self.private + plan.workers * plan.private * size)
        self.lhs = Side("lhs", plan.lhs, plan.lhs_access, tile.rows, plan.m_tiles, plan.lhs_panel, plan.lhs_panels,
                         lhs_shared, 0, plan.kernel.panels[0])
        self.rhs = Side("rhs", plan.rhs, plan.rhs_access, tile.columns, plan.n_tiles, plan.rhs_panel, plan.rhs_panels,
                         rhs_shared, plan.lhs_private, plan.kernel.panels[1])
        module = context.module
        if isinstance(tile, PairTile):
            self.microkernel = emit_pair_kernel(module, tile)
        else:
            self.microkernel = emit_dotkernel(module, tile) if isinstance(tile, DotTile) else emit_microkernel(module, tile)

    def header(self, f: Function, scratch: str, field: int) -> str:
        """The address of a number in the header."""
        return f.value(f"getelementptr i64, ptr {scratch}, i64 {field}")

    def share_of(self, f: Function, scratch: str, worker: str) -> str:
        """The address of a worker's `Share`."""
        integers = Integers(f)
        return self.at(f, scratch, integers.add(integers.multiply(worker, _SHARE_BYTES), _HEADER))

    def share(self, f: Function, share: str, field: Share) -> str:
        """The address of a number in a `Share`."""
        return f.value(f"getelementptr i64, ptr {share}, i64 {field}")

    def worker_memory(self, f: Function, scratch: str, worker: str) -> str:
        """The address of a worker's memory: its panels, which others read that take rows of its task, and what it copies."""
        integers = Integers(f)
        size = self.plan.private * self.plan.dtype.itemsize
        return self.at(f, scratch, integers.add(integers.multiply(worker, size), self.private))

    def blocks(self, f: Function, scratch: str) -> tuple[str, str]:
        """The first block of steps of the round, and the one after the last."""
        plan = self.plan
        if plan.round == plan.k_blocks:
            return "0", size_operand(f, plan.k_blocks)
        first = f.value(f"load i64, ptr {self.header(f, scratch, FIRST_BLOCK)}")
        return first, Integers(f).least(Integers(f).add(first, plan.round), plan.k_blocks)

    def steps(self, f: Function, block: str) -> tuple[str, str]:
        """The first step of a block, and how many it has."""
        plan, integers = self.plan, Integers(f)
        start = integers.multiply(block, plan.k_block)
        if plan.k == plan.k_blocks * plan.k_block:
            return start, size_operand(f, plan.k_block)
        return start, integers.least(integers.subtract(plan.k, start), plan.k_block)

    def shared_panel(self, f: Function, side: Side, scratch: str, block: str, panel: str) -> str:
        """The address of a panel, counted through the batch, at a block of the round."""
        integers = Integers(f)
        offset = integers.add(integers.multiply(block, side.block), integers.multiply(panel, side.panel))
        return self.element(f, self.at(f, scratch, side.shared), offset)

    def at(self, f: Function, pointer: str, nbytes: Integer) -> str:
        """An address, some bytes on."""
        return f.value(f"getelementptr i8, ptr {pointer}, i64 {Integers(f).operand(nbytes)}")

    def element(self, f: Function, pointer: str, offset: str) -> str:
        """The address of a number that is multiplied or summed."""
        return pointer if offset == "0" else f.value(f"getelementptr {self.scalar}, ptr {pointer}, i64 {offset}")

    def kept_panel(self, f: Function, side: Side, memory: str, block: str, panel: str) -> str:
        """The address of a panel, counted through the batch, at a block of steps."""
        integers = Integers(f)
        return self.element(f, memory, integers.add(integers.multiply(block, side.block), integers.multiply(panel, side.panel)))

    def call_packing(self, f: Function, side: Side, batch: str, tile: str, block: str, to: str) -> None:
        """Pack a tile's panel."""
        numbers = (batch, Integers(f).multiply(tile, side.lanes), *self.steps(f, block))
        f.call("void", f"@{self.name}.{side.name}", ("ptr", "%context"), *(("i64", n) for n in numbers), ("ptr", to))
