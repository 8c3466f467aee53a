"""Convolutions with kernels of three by three places, by Winograd's algorithm.

A tile of m by m results is made of n by n numbers of the image, n = m + 2, as A^T ((G g G^T) * (B^T d B)) A: image and kernel
are transformed, multiplied element by element, and the sums over channels are transformed back. That takes n^2 multiplications
instead of 9 m^2: 2.25 times fewer for m = 2, 4 times for m = 4. The sums are n^2 matrix products, over channels. The matrices
are those of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).

It rounds more: for m = 4 and numbers alike, results are off by about ten times as much. An infinity or NaN of the image makes
NaN of all results of the tiles that it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import graphc.index as ix
import graphc.ops as ops
from graphc.expression import Accumulator, Axis, Buffer, Expr, load
from graphc.ir import Node, Value
from graphc.kernel import Gemm, Kernel, Loop, Loops, Store
from graphc.ops.linalg import parse_spec
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.elements import Elements, Index, Stored
from graphc.schedule.machine import Machine
from graphc.sizes import is_static
from graphc.types import DType, float32

_TAPS = 3
_BLOCK = 16
"""Channels of the result whose transformed weights stand side by side."""
_FEWEST = 16
"""Channels below which the transforms take as long as they save."""
_BALANCE = 8.0
"""How many floating-point operations take as long as to bring a byte from beyond the level-2 cache."""
_NEAR = 0.5
"""The part of that which it takes where the byte was written just before."""
_EFFICIENCY = 0.85
"""Of small products, beside the convolution that they replace."""
_GAIN = 0.9
"""The part of the time that it may take at most."""
_NEAR_BYTES = 4 << 20
"""What the transformed image may take: as many images are transformed at a time."""
_MOST_BYTES = 64 << 20
"""The same for a single image: if it is more, the convolution is computed as ever."""

Matrix = tuple[tuple[Fraction, ...], ...]
Grid = Sequence[Sequence[Expr]]


@dataclass(frozen=True)
class _Transforms:
    """The matrices for tiles of m by m results: B^T, G and A^T."""

    image: Matrix
    weights: Matrix
    result: Matrix

    @property
    def m(self) -> int:
        return len(self.result)

    @property
    def n(self) -> int:
        return len(self.image)


def _matrix(*rows: str) -> Matrix:
    return tuple(tuple(map(Fraction, row.split())) for row in rows)


_TRANSFORMS = (
    _Transforms(
        _matrix("1 0 -1 0", "0 1 1 0", "0 -1 1 0", "0 1 0 -1"),
        _matrix("1 0 0", "1/2 1/2 1/2", "1/2 -1/2 1/2", "0 0 1"),
        _matrix("1 1 1 0", "0 1 -1 -1"),
    ),
    _Transforms(
        _matrix("4 0 -5 0 1 0", "0 -4 -4 1 1 0", "0 4 -4 -1 1 0", "0 -2 -1 2 1 0", "0 2 -1 -2 1 0", "0 4 0 -5 0 1"),
        _matrix("1/4 0 0", "-1/6 -1/6 -1/6", "-1/6 1/6 -1/6", "1/24 1/12 1/6", "1/24 -1/12 1/6", "0 0 1"),
        _matrix("1 1 1 1 1 0", "0 1 -1 2 -2 0", "0 1 1 4 4 0", "0 1 -1 8 -8 1"),
    ),
)


@dataclass(frozen=True)
class Winograd:
    """How a convolution is computed: by which transforms, of what image, in how many images at a time.

    `spec` are the letters of the weights, the windows and the result.
    """

    transforms: _Transforms
    spec: tuple[str, str, str]
    weights: Value
    image: Value
    images: int
    inner: int
    outer: int
    sizes: tuple[int, int]
    """Those of the result."""
    together: int

    @property
    def tiles(self) -> tuple[int, int]:
        return -(-self.sizes[0] // self.transforms.m), -(-self.sizes[1] // self.transforms.m)


def plan_winograd(node: Node, is_steady: bool) -> Winograd | None:
    """The way in which a contraction is computed by this algorithm; None for what is no such convolution, or gains nothing.
    `is_steady` tells whether the weights are transformed once for many calls."""
    left, right, out = parse_spec(node.attrs["spec"])
    weights, windows = node.operands
    image = _image(windows)
    if image is None or node.result.dtype is not float32 or not is_static(*weights.shape, *windows.shape):
        return None
    lanes, inner, taps = [s for s in left if s in out], right[1], right[-2:]
    if len(lanes) != 1 or out != right[0] + lanes[0] + right[2:4] or sorted(left) != sorted(lanes[0] + inner + taps):
        return None
    sizes = dict(zip(left, weights.shape)) | dict(zip(right, windows.shape))
    images, inputs, outputs, height, width = (int(sizes[s]) for s in (right[0], inner, lanes[0], *right[2:4]))
    if outputs % _BLOCK or min(inputs, outputs) < _FEWEST or 0 in (images, height, width):
        return None
    best = _GAIN * (2 * _TAPS**2 * images * height * width * inputs * outputs + _BALANCE * 4 * _TAPS**2 * inputs * outputs)
    chosen: Winograd | None = None
    for transforms in _TRANSFORMS:
        places, tiles = transforms.n**2, math.prod(-(-size // transforms.m) for size in (height, width))
        most = 4 * places * tiles * max(inputs, outputs)
        operations = 2 * places * images * tiles * inputs * outputs / _EFFICIENCY
        moved = 4 * places * (_NEAR * 2 * images * tiles * (inputs + outputs) + (1 if is_steady else 3) * inputs * outputs)
        if most <= _MOST_BYTES and operations + _BALANCE * moved < best:
            best = operations + _BALANCE * moved
            rounds = -(-images // max(1, min(images, _NEAR_BYTES // most)))
            chosen = Winograd(transforms, (left, right, out), weights, image, images, inputs, outputs, (height, width),
                              -(-images // rounds))  # fmt: skip
    return chosen


def _image(windows: Value) -> Value | None:
    """What the windows of three by three neighbours are taken of."""
    value = windows
    for axis in (3, 2):
        node = value.node
        if node is None or node.op is not ops.window or node.attrs != {"axis": axis, "size": _TAPS, "step": 1, "dilation": 1}:
            return None
        value = node.operands[0]
    return value if value.ndim == 4 else None


def winograd_kernels(
    name: str, node: Node, plan: Winograd, values: Sequence[Value], memory: Mapping[Value, Stored],
    targets: Mapping[Value, Stored], machine: Machine, temporary: Callable[[str, DType, int], Buffer],
) -> list[Kernel]:
    """The kernels that transform the weights, and for some images at a time transform them, multiply, and transform the sums
    and store `values`: the convolution, or what is computed from it element by element."""
    return _Kernels(name, node, plan, values, memory, targets, machine, temporary).all()


class _Kernels:
    def __init__(
        self, name: str, node: Node, plan: Winograd, values: Sequence[Value], memory: Mapping[Value, Stored],
        targets: Mapping[Value, Stored], machine: Machine, temporary: Callable[[str, DType, int], Buffer],
    ) -> None:
        self.name, self.node, self.plan, self.values = name, node, plan, values
        self.memory, self.targets, self.machine = memory, targets, machine
        self.places = plan.transforms.n**2
        rows = plan.together * math.prod(plan.tiles)
        self.weights = temporary(f"{name}.weights", float32, self.places * plan.inner * plan.outer)
        self.image = temporary(f"{name}.image", float32, self.places * rows * plan.inner)
        self.sums = temporary(f"{name}.sums", float32, self.places * rows * plan.outer)

    def all(self) -> list[Kernel]:
        plan = self.plan
        kernels: list[Kernel] = [self.transform_weights()]
        for first in range(0, plan.images, plan.together):
            count = min(plan.together, plan.images - first)
            kernels += [self.transform_image(first, count), self.multiply(count), self.store(first, count)]
        return kernels

    def transform_weights(self) -> Kernel:
        """[n n, O / block, C, block]: as products read their columns without packing them."""
        plan, (left, right, out) = self.plan, self.plan.spec
        block, inner, within = Axis("block", plan.outer // _BLOCK), Axis("c", plan.inner), Axis("o", _BLOCK)
        outer = ix.plus(ix.times(block.value, _BLOCK), within.value)
        elements = Elements(self.memory)

        def weight(i: int, j: int) -> Expr:
            places = {out[1]: outer, right[1]: inner.value, right[-2]: ix.number(i), right[-1]: ix.number(j)}
            return elements.at(plan.weights, tuple(places[s] for s in left))

        taps = [[weight(i, j) for j in range(_TAPS)] for i in range(_TAPS)]
        strides = (plan.inner * plan.outer, plan.inner * _BLOCK, _BLOCK, 1)
        stores = self.scatter(self.weights, _transformed(plan.transforms.weights, taps), strides,
                              (block.value, inner.value, within.value))
        lanes = choose_lanes([s.value for s in stores], within, self.machine)
        body = Loop(inner, (Loop(within, stores, lanes),))
        return self.loops("weights", (block,), body, stores, plan.inner * _BLOCK / max(1, lanes), within)

    def transform_image(self, first: int, count: int) -> Kernel:
        """[n n, tiles, C]"""
        plan, m = self.plan, self.plan.transforms.m
        batch, row, column, inner = self.axes(count, plan.inner)
        elements = Elements(self.memory)
        height, width = (size + _TAPS - 1 for size in plan.sizes)

        def place(tile: Expr, tiles: int, i: int, size: int) -> Expr:
            """Of what is beyond the image any number will do: no result is made of it."""
            at = ix.plus(ix.times(tile, m), i)
            return at if (tiles - 1) * m + i < size else ops.minimum(at, ix.number(size - 1))

        rows = [place(row.value, plan.tiles[0], i, height) for i in range(plan.transforms.n)]
        columns = [place(column.value, plan.tiles[1], j, width) for j in range(plan.transforms.n)]
        image = ix.plus(batch.value, first)
        numbers = [[elements.at(plan.image, (image, inner.value, y, x)) for x in columns] for y in rows]
        strides = (count * math.prod(plan.tiles) * plan.inner, plan.inner, 1)
        stores = self.scatter(self.image, _transformed(plan.transforms.image, numbers), strides,
                              (self.tile(batch, row, column), inner.value))
        return self.tiled("image", (batch, row, column, inner), stores)

    def multiply(self, count: int) -> Kernel:
        """[n n, tiles, O]"""
        plan = self.plan
        rows = count * math.prod(plan.tiles)
        place, tile, outer, inner = (
            Axis("place", self.places), Axis("tile", rows), Axis("o", plan.outer), Axis("c", plan.inner)
        )  # fmt: skip
        lhs = load(self.image, ix.strided((place.value, tile.value, inner.value), (rows * plan.inner, plan.inner, 1)))
        column = (place.value, ix.quotient(outer.value, _BLOCK), inner.value, ix.modulo(outer.value, _BLOCK))
        rhs = load(self.weights, ix.strided(column, (plan.inner * plan.outer, plan.inner * _BLOCK, _BLOCK, 1)))
        accumulator = Accumulator("acc", "sum", float32)
        offset = ix.strided((place.value, tile.value, outer.value), (rows * plan.outer, plan.outer, 1))
        return Gemm(f"{self.name}.products", (place,), (tile,), (outer,), (inner,), lhs, rhs, accumulator,
                    (Store(self.sums, offset, accumulator.value),))

    def store(self, first: int, count: int) -> Kernel:
        """The results of the tiles, and what is computed of them."""
        plan, m = self.plan, self.plan.transforms.m
        axes = batch, row, column, outer = self.axes(count, plan.outer)
        tile, image = self.tile(batch, row, column), ix.plus(batch.value, first)
        strides = (count * math.prod(plan.tiles) * plan.outer, plan.outer, 1)
        sums = [[
            load(self.sums, ix.strided((ix.number(i * plan.transforms.n + j), tile, outer.value), strides))
            for j in range(plan.transforms.n)] for i in range(plan.transforms.n)
        ]  # fmt: skip
        stores: list[Store] = []
        for i, line in enumerate(_collected(plan.transforms.result, sums)):
            for j, result in enumerate(line):
                y, x = (ix.plus(ix.times(axis.value, m), k) for axis, k in ((row, i), (column, j)))
                inside = [
                    ix.less(at, size) for at, size, tiles, k in zip((y, x), plan.sizes, plan.tiles, (i, j))
                    if (tiles - 1) * m + k >= size
                ]
                mask = ix.both(*inside)
                elements = Elements(self.memory, {self.node.result: partial(_anywhere, result)})
                index = (image, outer.value, y, x)
                stores += [
                    Store(self.targets[v].buffer, self.targets[v].place(index), elements.at(v, index, mask), mask)
                    for v in self.values
                ]
        return self.tiled("results", axes, tuple(stores))

    def axes(self, count: int, channels: int) -> tuple[Axis, Axis, Axis, Axis]:
        return Axis("b", count), Axis("ty", self.plan.tiles[0]), Axis("tx", self.plan.tiles[1]), Axis("c", channels)

    def tile(self, batch: Axis, row: Axis, column: Axis) -> Expr:
        return ix.ravel((batch.value, row.value, column.value), (batch.extent, row.extent, column.extent))

    def scatter(self, buffer: Buffer, grid: Grid, strides: tuple[int, ...], index: tuple[Expr, ...]) -> tuple[Store, ...]:
        """Stores of a grid whose places are the first dimension of what a buffer holds."""
        numbers = enumerate(value for line in grid for value in line)
        return tuple(Store(buffer, ix.strided((ix.number(i), *index), strides), value) for i, value in numbers)

    def tiled(self, what: str, axes: tuple[Axis, Axis, Axis, Axis], stores: tuple[Store, ...]) -> Kernel:
        """A row of tiles is a step."""
        batch, row, column, channel = axes
        lanes = choose_lanes([s.value for s in stores], channel, self.machine)
        vectors = self.plan.tiles[1] * int(channel.extent) / max(1, lanes)
        return self.loops(what, (batch, row), Loop(column, (Loop(channel, stores, lanes),)), stores, vectors, channel)

    def loops(
        self, what: str, grid: tuple[Axis, ...], body: Loop, stores: tuple[Store, ...], vectors: float, channel: Axis
    ) -> Kernel:
        return Loops(f"{self.name}.{what}", grid, (body,), cost=vectors * cost([s.value for s in stores], channel))


def _anywhere(element: Expr, index: Index) -> Expr:
    """An element that has no index."""
    del index
    return element


def _transformed(matrix: Matrix, grid: Grid) -> list[list[Expr]]:
    """matrix @ grid @ matrix^T, where rows of the matrix are alike but for the signs of their odd places."""
    return _both_ways(matrix, grid, _by_parity)


def _collected(matrix: Matrix, grid: Grid) -> list[list[Expr]]:
    """The same where columns of the matrix are alike but for signs: the second and the third one, and so on."""
    return _both_ways(matrix, grid, _by_pairs)


def _both_ways(matrix: Matrix, grid: Grid, combine: Callable[[Sequence[Fraction], Sequence[Expr]], Expr]) -> list[list[Expr]]:
    rows = [[combine(factors, column) for column in zip(*grid)] for factors in matrix]
    return [[combine(factors, row) for factors in matrix] for row in rows]


def _by_parity(factors: Sequence[Fraction], numbers: Sequence[Expr]) -> Expr:
    """A combination as that of the even places, plus or minus that of the odd ones, which two rows share."""
    even, odd = (_combined([(f, x) for f, x in list(zip(factors, numbers))[k::2] if f]) for k in (0, 1))
    return _sum([part for part in (even, odd) if part is not None])


def _by_pairs(factors: Sequence[Fraction], numbers: Sequence[Expr]) -> Expr:
    """A combination of sums and differences of pairs, which rows share."""
    terms = [(factors[0], numbers[0])] if factors[0] else []
    for k in range(1, len(factors) - 1, 2):
        (a, x), (b, y) = ((factors[i], numbers[i]) for i in (k, k + 1))
        if a and a == abs(b):
            terms.append((a, x + y if b > 0 else x - y))
        else:
            terms += [(f, number) for f, number in ((a, x), (b, y)) if f]
    if len(factors) % 2 == 0 and factors[-1]:
        terms.append((factors[-1], numbers[-1]))
    return _sum([(1 if f > 0 else -1, _scaled(abs(f), x)) for f, x in terms])


def _combined(terms: Sequence[tuple[Fraction, Expr]]) -> tuple[int, Expr] | None:
    """A sum of multiples, as a sign and what begins with a positive one: so it is one expression where only signs differ."""
    if not terms:
        return None
    sign = 1 if terms[0][0] > 0 else -1
    return sign, _sum([(1 if sign * f > 0 else -1, _scaled(abs(f), x)) for f, x in terms])


def _sum(terms: Sequence[tuple[int, Expr]]) -> Expr:
    """A sum of expressions with signs, those with a plus first."""
    (sign, total), *rest = sorted(terms, key=lambda term: -term[0])
    total = total if sign > 0 else -total
    for sign, x in rest:
        total = total + x if sign > 0 else total - x
    return total


def _scaled(factor: Fraction, x: Expr) -> Expr:
    return x if factor == 1 else x * float(factor)
