"""Attention as functions: softmax(scale * q k^T) v, without the matrix of weights in memory.

A task computes a block of queries of one matrix of the batch. Queries are in the lanes: the scores of a block of keys are the
product of the keys, as they stand, with the task's queries, turned once; so all of softmax goes lane by lane. It is online
(Milakov and Gimelshein 2018: "Online normalizer calculation for softmax"): when a block of keys brings a greater score, what
was summed before is scaled down. The sums of the values are turned back at the end. What a task holds stays in the caches:

    turned    [width][queries]    the queries
    weights   [keys][queries]     scores of a block of keys, then their exponentials
    sums      [columns][queries]  of values times weights
    greatest, total  [queries]    the greatest score so far, and the sum of the weights

    name       the kernel: has the tasks done
    name.task  computes one block of queries
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.backends.llvm.attention_task import LaneTask, choose_rows, run_tasks
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.memory import load_consecutive, load_one
from graphc.kernel import Attention
from graphc.types import bool_

_VECTORS = 4
"""Of queries in a task: several chains of operations at a time hide their latencies."""
_KEYS = 96
"""About how many keys a block has, so that their weights stay in the level-1 cache beside the sums."""


def render_attention(context: Context, kernel: Attention, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`."""
    task = _Task(context, kernel, f"{name}.task")
    task.write()
    run_tasks(context, name, kernel, (f"{name}.task", math.prod(kernel.batch) * task.blocks))


class _Task(LaneTask[Attention]):
    """The queries are in the lanes."""

    def __init__(self, context: Context, kernel: Attention, name: str) -> None:
        super().__init__(context, kernel, name, _VECTORS)
        self.blocks = -(-kernel.queries // self.lanes)
        self.scores = choose_rows(context.target, kernel.keys, self.lanes, kernel.width)
        self.values = choose_rows(context.target, kernel.columns, self.lanes, min(kernel.keys, _KEYS))
        self.block = max(1, _KEYS // self.scores.rows) * self.scores.rows

    def write(self) -> None:
        """The whole function."""
        f, kernel, integers, queries = self.f, self.kernel, self.integers, self.lanes
        blocks = (*kernel.operands, *kernel.results)
        pointers = self.context.pointers(f, [block.buffer for block in blocks])
        matrix = integers.divide("%chunk", self.blocks)
        first = integers.multiply(integers.remainder("%chunk", self.blocks), queries)
        count = integers.least(integers.subtract(kernel.queries, first), queries)
        q, k, v, *mask, out, lse = (self.member(block, pointers(block.buffer), matrix) for block in blocks)
        q, out = self.row(q, kernel.q, first), self.row(out, kernel.out, first)
        turned = f.slot(f"[{kernel.width * queries} x float]", ALIGNMENT)
        sums = f.slot(f"[{kernel.columns * queries} x float]", ALIGNMENT)
        # a tile of the last keys begins earlier, so that it does not reach beyond them: perhaps before the block
        space = f.slot(f"[{(self.block + self.scores.rows) * queries} x float]", ALIGNMENT)
        weights = self.element(space, str(self.scores.rows * queries))
        greatest, total = ([f.slot(self.type) for _ in range(_VECTORS)] for _ in range(2))
        for slots, number in ((greatest, -math.inf), (total, 0.0)):
            for slot in slots:
                self.store(self.number(number), slot)
        self.turn(q, kernel.q.strides[-2:], kernel.width, turned, count, back=False)
        end = integers.least(integers.add(first, queries), kernel.keys) if kernel.causal else str(kernel.keys)
        self.clear(sums, kernel.columns)
        with f.loop("0", end, str(self.block), hint="block") as start:
            keys = integers.least(integers.subtract(end, start), self.block)
            if mask:
                keys = self.end_of_allowed(keys, start, first, count, mask)
            with f.loop("0", keys, str(self.scores.rows), hint="key") as key:
                place = integers.least(integers.add(start, key), kernel.keys - self.scores.rows)
                to = self.element(weights, integers.multiply(integers.subtract(place, start), queries))
                self.product(self.scores, kernel.k.strides[-2:], str(kernel.width), self.row(k, kernel.k, place), turned, to,
                             "false")
            with f.when(f.value(f"icmp sgt i64 {keys}, 0")):
                later = f.value(f"icmp ne i64 {start}, 0")
                self.softmax(weights, keys, start, first, count, mask, greatest, total, sums, later)
                self.add_weighted(self.values, kernel.v, self.row(v, kernel.v, start), keys, weights, sums)
        self.divide(sums, total)
        self.keep_lse(lse, first, count, greatest, total)
        self.turn(out, kernel.out.strides[-2:], kernel.columns, sums, count, back=True)
        f.do("ret void")

    # The steps

    def softmax(
        self, weights: str, keys: str, start: str, first: str, count: str, mask: Sequence[str], greatest: Sequence[str],
        total: Sequence[str], sums: str, later: str,
    ) -> None:
        """From the scores of a block of keys to weights, relative to the greatest scores so far."""
        f, kernel = self.f, self.kernel
        before = [self.load(slot) for slot in greatest]
        with f.loop("0", keys, hint="key") as key:
            for g, slot in enumerate(greatest):
                place = self.vector(weights, key, g)
                score = self.binary("fmul", self.load(place), self.number(kernel.scale))
                allowed = self.allowed(self.integers.add(start, key), first, count, mask, g)
                for condition in allowed:
                    score = self.select(condition, score, self.number(-math.inf))
                self.store(score, place)
                self.store(f.intrinsic("llvm.maxnum", self.type, self.load(slot), score), slot)
        shifts = [self.shift(slot) for slot in greatest]
        scales = [self.function("exp", self.binary("fsub", old, new)) for old, new in zip(before, shifts, strict=True)]
        for scale, slot in zip(scales, total, strict=True):
            self.store(self.binary("fmul", self.load(slot), scale), slot)
        with f.when(later), f.loop("0", str(kernel.columns), hint="column") as column:
            for g, scale in enumerate(scales):
                place = self.vector(sums, column, g)
                self.store(self.binary("fmul", self.load(place), scale), place)
        with f.loop("0", keys, hint="key") as key:
            for g, (shift, slot) in enumerate(zip(shifts, total, strict=True)):
                place = self.vector(weights, key, g)
                weight = self.function("exp", self.binary("fsub", self.load(place), shift))
                self.store(weight, place)
                self.store(self.binary("fadd", self.load(slot), weight), slot)

    def shift(self, greatest: str) -> str:
        """What scores are relative to: the greatest so far. Where all are -inf, 0: then weights are 0, and not NaN before there
        is a reason for it."""
        value = self.load(greatest)
        none = self.f.value(f"fcmp oeq {self.type} {value}, {self.number(-math.inf)}")
        return self.select(none, "zeroinitializer", value)

    def end_of_allowed(self, keys: str, start: str, first: str, count: str, mask: Sequence[str]) -> str:
        """How many keys of a block there are up to the last one that any query may look at: the others have no weight."""
        f = self.f
        end = f.slot("i64")
        f.do(f"store i64 0, ptr {end}")
        with f.loop("0", keys, hint="key") as key:
            at = self.integers.add(start, key)
            some = self.any_of([self.allowed(at, first, count, mask, g)[-1] for g in range(self.vectors)])
            after, before = f.value(f"add i64 {key}, 1"), f.value(f"load i64, ptr {end}")
            f.do(f"store i64 {f.value(f'select i1 {some}, i64 {after}, i64 {before}')}, ptr {end}")
        return f.value(f"load i64, ptr {end}")

    def allowed(self, key: str, first: str, count: str, mask: Sequence[str], g: int) -> list[str]:
        """Which of a vector of queries may look at a key, one condition after another."""
        f, kernel, width, integers = self.f, self.kernel, self.width, self.integers
        conditions: list[str] = []
        if kernel.causal:
            # query first + g * width + lane >= key
            conditions.append(integers.mask(width, integers.subtract(key, integers.add(first, g * width)), width))
        if kernel.mask is not None:
            rows, columns = kernel.mask.strides[-2:]
            offset = integers.multiply(key, columns)
            if rows == 0:
                one = load_one(f, bool_, mask[0], offset)
                conditions.append(f.splat("i1", one, width))
            else:
                offset = integers.add(offset, integers.add(first, g * width))
                valid = integers.mask(width, 0, integers.subtract(count, g * width))
                conditions.append(load_consecutive(f, bool_, width, mask[0], offset, valid))
        return conditions

    def divide(self, sums: str, total: Sequence[str]) -> None:
        """Bring the sums of values into proportion to those of their weights."""
        factors = [self.binary("fdiv", self.number(1.0), self.load(slot)) for slot in total]
        if self.kernel.zeros:
            factors = [self.select(self.nothing(slot), "zeroinitializer", x) for slot, x in zip(total, factors, strict=True)]
        with self.f.loop("0", str(self.kernel.columns), hint="column") as column:
            for g, factor in enumerate(factors):
                place = self.vector(sums, column, g)
                self.store(self.binary("fmul", self.load(place), factor), place)

    def nothing(self, total: str) -> str:
        """Where there is no key."""
        return self.f.value(f"fcmp oeq {self.type} {self.load(total)}, zeroinitializer")

    def keep_lse(self, lse: str, first: str, count: str, greatest: Sequence[str], total: Sequence[str]) -> None:
        """Write the logarithms of the sums of the scores' exponentials."""
        f, integers = self.f, self.integers
        logarithms = f.slot(f"[{self.lanes} x float]", ALIGNMENT)
        for g, (slot, sums) in enumerate(zip(greatest, total, strict=True)):
            value = self.binary("fadd", self.shift(slot), self.function("log", self.load(sums)))
            if self.kernel.zeros:
                value = self.select(self.nothing(sums), self.number(math.inf), value)
            self.store(value, self.vector(logarithms, "0", g))
        with f.loop("0", count, hint="query") as i:
            to = self.element(lse, integers.multiply(integers.add(first, i), self.kernel.lse.strides[-1]))
            value = f.value(f"load float, ptr {self.element(logarithms, i)}, align 4")
            f.do(f"store float {value}, ptr {to}, align 4")
