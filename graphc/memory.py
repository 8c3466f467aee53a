"""Where temporaries stand: one arena, in which buffers that are not alive at the same time share memory; and the memory of
outputs that are not written yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.dims import Dim
from graphc.expression import Buffer
from graphc.sizes import ceil_div, estimate, greatest, is_static
from graphc.types import Size

if TYPE_CHECKING:
    from graphc.kernel import Kernel
    from graphc.program import Program

ALIGNMENT = 64
_WORTHWHILE = 16 << 20
"""Bytes of an arena from which on temporaries go to outputs; what a smaller one has is soon near again."""
_LARGE = 1 << 18
"""Bytes of the temporaries that do."""


def live_ranges(kernels: Sequence[Kernel], buffers: Sequence[Buffer]) -> dict[Buffer, tuple[int, int]]:
    """The first and the last kernel that touch each buffer; buffers that none touches are left out."""
    ranges: dict[Buffer, tuple[int, int]] = {}
    wanted = set(buffers)
    for number, kernel in enumerate(kernels):
        for buffer in kernel.accesses:
            if buffer in wanted:
                first, _ = ranges.get(buffer, (number, number))
                ranges[buffer] = (first, number)
    return ranges


def place_temporaries(kernels: Sequence[Kernel], buffers: Sequence[Buffer]) -> Size:
    """Give each temporary an offset; returns the size of the arena in bytes."""
    ranges = live_ranges(kernels, buffers)
    return _place_numbers(ranges) if is_static(*(b.size for b in ranges)) else _place_symbols(ranges)


def share_outputs(program: Program, donated: Collection[int]) -> None:
    """Give large temporaries of a program that needs much memory places in that of its outputs, as long as these are not
    written: but for the `donated` ones, by their numbers, all are in memory that holds nothing else.

    Of the gradients of a training step most are written when little is left of what the forward pass has kept.
    """
    if not isinstance(program.arena, int) or program.arena < _WORTHWHILE:
        return
    if not is_static(*(buffer.size for buffer in (*program.temporaries, *program.outputs))):
        return
    before = {buffer for kernel in program.preparation for buffer in kernel.accesses}  # when there are no outputs
    checked = {check.buffer for check in program.checks}
    buffers = [buffer for buffer in program.temporaries if buffer not in before]
    fresh = [output for number, output in enumerate(program.outputs) if number not in donated]
    ranges = live_ranges(program.kernels, [*buffers, *fresh])
    written = {output: ranges.pop(output)[0] for output in fresh if output in ranges}
    places = {output: _Places(len(ranges)) for output in written}
    large = [buffer for buffer in ranges if buffer.nbytes >= _LARGE and buffer not in checked]
    for buffer in sorted(large, key=lambda b: (-b.nbytes, ranges[b], b.name)):
        first, last = ranges[buffer]
        # that which is written soonest afterwards: others have room for what lives longer
        for output in sorted(written, key=written.__getitem__):
            if written[output] <= last or output.dtype.itemsize < buffer.dtype.itemsize:
                continue
            offset = places[output].gap(first, last, buffer.nbytes)
            if offset + buffer.nbytes <= output.nbytes:
                buffer.host, buffer.offset = output, offset
                places[output].add(first, last, offset, buffer.nbytes)
                break
    ends = (b.offset + _aligned(b.nbytes) for b in before if b.role == "temporary")
    program.arena = max((_place_numbers({b: alive for b, alive in ranges.items() if b.host is None}), *ends))


def _place_numbers(ranges: dict[Buffer, tuple[int, int]]) -> int:
    """Where all sizes are numbers.

    Greedy by size, each into the smallest gap that fits among the buffers alive at the same time. Pisarchyk and Lee:
    "Efficient memory management for deep neural net inference" (MLSys 2020 workshop), section 5.
    """
    order = sorted(ranges, key=lambda b: (-b.nbytes, ranges[b], b.name))
    places = _Places(len(order))
    for buffer in order:
        buffer.offset = places.gap(*ranges[buffer], buffer.nbytes)
        places.add(*ranges[buffer], buffer.offset, buffer.nbytes)
    return int(places.stops.max(initial=0))


def place_scratch(kernels: Sequence[Kernel], buffers: Sequence[Buffer], sizes: Sequence[int]) -> list[int]:
    """Offsets of the memory that each kernel needs while it runs, of so many bytes: beside the temporaries that are alive then,
    whose places are numbers."""
    ranges = live_ranges(kernels, [buffer for buffer in buffers if buffer.host is None])
    places = _Places(len(ranges))
    for buffer, (first, last) in ranges.items():
        places.add(first, last, buffer.offset, buffer.nbytes)
    return [places.gap(number, number, size) if size else 0 for number, size in enumerate(sizes)]


class _Places:
    """Buffers that have their place: from when to when they are alive, and from where to where they stand."""

    def __init__(self, most: int) -> None:
        self.firsts, self.lasts, self.starts, self.stops = (np.zeros(most, np.int64) for _ in range(4))
        self._count = 0

    def add(self, first: int, last: int, offset: int, nbytes: int) -> None:
        """Put one more in its place."""
        n = self._count
        self.firsts[n], self.lasts[n], self.starts[n], self.stops[n] = first, last, offset, offset + _aligned(nbytes)
        self._count += 1

    def gap(self, first: int, last: int, nbytes: int) -> int:
        """Where the smallest gap begins that fits, between those alive at the same time; behind them all if none does."""
        n = self._count
        beside = np.flatnonzero((self.firsts[:n] <= last) & (first <= self.lasts[:n]))
        starts = self.starts[beside]
        order = np.argsort(starts, kind="stable")
        # the memory below each of them that none of those before reaches into
        ends = np.maximum.accumulate(np.concatenate(([0], self.stops[beside][order])))
        gaps = starts[order] - ends[:-1]
        fitting = np.flatnonzero(gaps >= _aligned(nbytes))
        return int(ends[fitting[np.argmin(gaps[fitting])]] if fitting.size else ends[-1])


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class _Place:
    """Memory that several buffers have, one after another."""

    def __init__(self, size: Size, last: int) -> None:
        self.size = size
        self.last = last
        self.buffers: list[Buffer] = []


def _place_symbols(ranges: dict[Buffer, tuple[int, int]]) -> Size:
    """Where some sizes are symbolic. A buffer takes the place of one that is no longer alive, which is then as large as the
    larger of both; of several free places that which fits best by the estimates. For want of one the arena grows."""
    places: list[_Place] = []
    for buffer in sorted(ranges, key=lambda b: (ranges[b], b.name)):
        first, last = ranges[buffer]
        size: Size = ceil_div(buffer.nbytes, ALIGNMENT) * ALIGNMENT
        wanted = estimate(size)
        place = min((p for p in places if p.last < first), key=lambda p: abs(estimate(p.size) - wanted), default=None)
        if place is None:
            places.append(place := _Place(size, last))
        place.size = greatest(place.size, size)
        place.last = last
        place.buffers.append(buffer)
    arena: Size = 0
    # numbers first: then their places are numbers
    for place in sorted(places, key=lambda p: isinstance(p.size, Dim)):
        for buffer in place.buffers:
            buffer.offset = arena
        arena = arena + place.size
    return arena
