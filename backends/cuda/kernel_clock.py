"""When kernels run on GPUs, for a profile: between two events each, launched one by one and not as a CUDA graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphc.backends.cuda.driver import Driver
from graphc.errors import ProfilerError
from graphc.kernel_info import KernelInfo, KernelRun, describe
from graphc.program import Program

MOST_RECORDS = 1 << 16
"""Runs of kernels in one profile; those that come then are counted, and not kept."""


class Recording:
    """Runs of kernels, of all GPUs."""

    def __init__(self) -> None:
        self._runs: list[tuple[Driver, Program, int, Any, Any]] = []
        self._begun: dict[Driver, tuple[Any, int]] = {}
        """A moment of each GPU, by its own clock and by the host's."""
        self._lost = 0

    @contextmanager
    def kernel(self, driver: Driver, program: Program, number: int) -> Iterator[None]:
        """Record what is launched inside, which is one kernel of a program; nothing where that raises an error."""
        if driver not in self._begun:
            moment = driver.moment()
            driver.seconds(moment, moment)  # waits for it
            self._begun[driver] = moment, time.perf_counter_ns()
        if len(self._runs) == MOST_RECORDS:
            yield
            self._lost += 1
            return
        start = driver.moment()
        yield
        self._runs.append((driver, program, number, start, driver.moment()))

    def finished(self) -> tuple[list[KernelRun], int]:
        """The runs by their beginning, and how many there was no room for."""
        known: dict[Program, list[KernelInfo]] = {}
        lanes = {driver: -1 - k for k, driver in enumerate(self._begun)}
        found = []
        for driver, program, number, start, stop in self._runs:
            if program not in known:
                known[program] = describe(program)
            first, zero = self._begun[driver]
            begin, end = (zero + round(1e9 * driver.seconds(first, moment)) for moment in (start, stop))
            found.append(KernelRun(known[program][number], begin, end, lanes[driver]))
        return sorted(found, key=lambda run: run.start), self._lost


_lock = threading.Lock()
current: Recording | None = None
"""What is being recorded."""


def start() -> None:
    """Record all kernels from now on. ProfilerError where that is being done."""
    global current  # noqa: PLW0603
    with _lock:
        if current is not None:
            raise ProfilerError("kernels are being recorded already", hint="end the other profile first")
        current = Recording()


def stop() -> tuple[list[KernelRun], int]:
    """Record no more; what has been recorded, once it has run."""
    global current
    with _lock:
        assert current is not None, "start() comes before"
        recording, current = current, None
    return recording.finished()
