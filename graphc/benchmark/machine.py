"""The machine that is measured on: what it is, and the speeds that it does not exceed."""

from __future__ import annotations

import bisect
import functools
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from graphc.backend import get_backend
from graphc.config import config

_SECONDS = 0.03
"""How long one measurement takes."""
_TRIES = 3
_SMALLEST, _LARGEST = 1 << 15, 1 << 28
"""Bytes of the working sets that bandwidths are measured for: in between, each is twice the one before."""


def describe() -> dict[str, str]:
    """The CPU, the system and the versions of what takes part."""
    target = get_backend("llvm").target()  # type: ignore[attr-defined]  # of this back end alone
    restricted = "" if config.cpu == "native" else " (GRAPHC_CPU)"
    return {
        "CPU": f"{_cpu_name()}, {os.cpu_count()} logical CPUs",
        "code for": f"{target.cpu}, vectors of {target.vector_bytes} bytes{restricted}",
        "caches of a core": f"{target.l1_bytes >> 10} KB, {target.l2_bytes >> 10} KB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("graphc", "numpy", "llvmlite")),
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


@dataclass
class Limits:
    """The measured speeds of so many threads: floating-point operations on float32 numbers in registers, and bytes read and
    written by copying, by the size of what is copied from and to."""

    threads: int
    flops: float = 0.0
    bandwidths: Mapping[int, float] = field(default_factory=dict)

    def seconds(self, flops: float, nbytes: float, working_set: float) -> float:
        """The least time for so many operations and so many bytes of memory."""
        return max(flops / self.flops, nbytes / self.bandwidth(working_set))

    def bandwidth(self, working_set: float) -> float:
        """Bytes a second for a working set of so many bytes: between the measured ones along a line on logarithmic axes."""
        sizes = sorted(self.bandwidths)
        place = bisect.bisect_left(sizes, working_set)
        if place in (0, len(sizes)):
            return self.bandwidths[sizes[min(place, len(sizes) - 1)]]
        below, above = sizes[place - 1], sizes[place]
        part = math.log(working_set / below) / math.log(above / below)
        return self.bandwidths[below] ** (1 - part) * self.bandwidths[above] ** part


def measure_limits(threads: int) -> Limits:
    """Measure the limits for a number of threads; takes some seconds."""
    backend: Any = get_backend("llvm")
    multiply_adds, operations = backend.multiply_adds()
    copies, multiple = backend.copies()
    flops = _rate(threads, lambda _, steps: multiply_adds(steps)) * operations
    bandwidths = {}
    size = _SMALLEST
    while size <= _LARGEST:
        half = max(multiple, size // (2 * threads) // multiple * multiple)
        buffers = [_aligned(2 * half) for _ in range(threads)]

        def run(copy: Callable[[int, int, int, int], None], number: int, times: int) -> None:
            start = buffers[number].ctypes.data  # noqa: B023
            copy(start + half, start, half, times)  # noqa: B023

        bandwidths[size] = max(_rate(threads, functools.partial(run, copy)) for copy in copies) * 2 * half
        size *= 2
    return Limits(threads, flops, bandwidths)


def _aligned(nbytes: int) -> np.ndarray:
    memory = np.ones(nbytes + 64, np.uint8)
    skipped = -memory.ctypes.data % 64
    return memory[skipped : skipped + nbytes]


def _rate(threads: int, run: Callable[[int, int], Any]) -> float:
    """How many steps a second all threads together make at best, where `run(thread, steps)` makes so many steps."""
    steps = 1
    while _elapsed(1, run, steps) < _SECONDS / 4:
        steps *= 2
    return max(threads * 4 * steps / _elapsed(threads, run, 4 * steps) for _ in range(_TRIES))


def _elapsed(threads: int, run: Callable[[int, int], Any], steps: int) -> float:
    workers = [threading.Thread(target=run, args=(number, steps)) for number in range(1, threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    run(0, steps)
    for worker in workers:
        worker.join()
    return time.perf_counter() - start
