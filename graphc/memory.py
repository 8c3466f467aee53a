"""Where temporaries stand: one arena, in which buffers that are not alive at the same time share memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.kernel import Buffer, Kernel

ALIGNMENT = 64


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


def place_temporaries(kernels: Sequence[Kernel], buffers: Sequence[Buffer]) -> int:
    """Give each temporary an offset; returns the size of the arena in bytes.

    Greedy by size, each into the smallest gap that fits among the buffers alive at the same time. Pisarchyk and Lee:
    "Efficient memory management for deep neural net inference" (MLSys 2020 workshop), section 5.
    """
    ranges = live_ranges(kernels, buffers)
    order = sorted(ranges, key=lambda b: (-b.nbytes, ranges[b], b.name))
    firsts, lasts, starts, stops = (np.zeros(len(order), np.int64) for _ in range(4))
    for placed, buffer in enumerate(order):
        first, last = ranges[buffer]
        size = -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
        beside = np.flatnonzero((firsts[:placed] <= last) & (first <= lasts[:placed]))
        beside = beside[np.argsort(starts[beside], kind="stable")]
        # the memory below each of them that none of those before reaches into
        ends = np.maximum.accumulate(np.concatenate(([0], stops[beside])))
        gaps = starts[beside] - ends[:-1]
        fitting = np.flatnonzero(gaps >= size)
        buffer.offset = int(ends[fitting[np.argmin(gaps[fitting])]] if fitting.size else ends[-1])
        firsts[placed], lasts[placed] = first, last
        starts[placed], stops[placed] = buffer.offset, buffer.offset + size
    return int(stops.max(initial=0))
