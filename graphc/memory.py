"""Where temporaries stand: one arena, in which buffers that are not alive at the same time share memory."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernel import Buffer, Kernel, reads, writes

ALIGNMENT = 64


def live_ranges(kernels: Sequence[Kernel], buffers: Sequence[Buffer]) -> dict[Buffer, tuple[int, int]]:
    """The first and the last kernel that touch each buffer; buffers that none touches are left out."""
    ranges: dict[Buffer, tuple[int, int]] = {}
    wanted = set(buffers)
    for number, kernel in enumerate(kernels):
        for buffer in (reads(kernel) | writes(kernel)) & wanted:
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
    placed: list[Buffer] = []
    arena = 0
    for buffer in order:
        first, last = ranges[buffer]
        size = -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
        others = sorted(
            (other.offset, other.offset + -(-other.nbytes // ALIGNMENT) * ALIGNMENT)
            for other in placed
            if ranges[other][0] <= last and first <= ranges[other][1]
        )
        best: tuple[int, int] | None = None
        end = 0
        for start, stop in others:
            if start - end >= size and (best is None or start - end < best[0]):
                best = (start - end, end)
            end = max(end, stop)
        buffer.offset = end if best is None else best[1]
        arena = max(arena, buffer.offset + size)
        placed.append(buffer)
    return arena
