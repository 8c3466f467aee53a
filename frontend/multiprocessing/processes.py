"""`spawn`: one function in several processes, and an error in the parent if it fails in one of them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

_REPORT = 32_000
"""How many bytes of a traceback are passed on: what fits into a pipe that nobody reads until the process has ended."""


class ProcessException(Exception):
    """A process failed: which one of those that were started, and its id."""

    def __init__(self, msg: str, error_index: int, error_pid: int) -> None:
        super().__init__(msg)
        self.msg = msg
        self.error_index = error_index
        self.error_pid = error_pid

    def __reduce__(self) -> Any:
        return type(self), (self.msg, self.error_index, self.error_pid)


class ProcessRaisedException(ProcessException):
    """A process failed with an exception, whose traceback is in the message."""


class ProcessExitedException(ProcessException):
    """A process was ended by a signal, or ended itself with a status other than 0."""

    def __init__(
        self, msg: str, error_index: int, error_pid: int, exit_code: int, signal_name: str | None = None
    ) -> None:
        super().__init__(msg, error_index, error_pid)
        self.exit_code = exit_code
        self.signal_name = signal_name

    def __reduce__(self) -> Any:
        return type(self), (self.msg, self.error_index, self.error_pid, self.exit_code, self.signal_name)


def _run(function: Callable[..., Any], index: int, args: Sequence[Any], report: Connection) -> None:
    """What each process runs."""
    try:
        function(index, *args)
    except KeyboardInterrupt:
        pass  # the parent has got it too, and says so
    except Exception:
        report.send_bytes(traceback.format_exc().encode(errors="replace")[-_REPORT:])
        sys.exit(1)


class ProcessContext:
    """Processes that were started together."""

    def __init__(self, processes: Sequence[BaseProcess], reports: Sequence[Connection]) -> None:
        self.processes = list(processes)
        self.sentinels = {process.sentinel: index for index, process in enumerate(processes)}
        self._reports = list(reports)

    def pids(self) -> list[int]:
        """Their ids."""
        return [process.pid for process in self.processes if process.pid is not None]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until one of the processes ends, or for `timeout` seconds; whether all have ended well.

        If one has failed, the others are ended, after `grace_period` seconds for doing so themselves, and its error is raised:
        ProcessRaisedException with the traceback, or ProcessExitedException with the signal or the status.
        """
        if not self.sentinels:
            return True  # wait() would wait for nothing for ever
        ended = set(wait(list(self.sentinels), timeout))
        for sentinel in [sentinel for sentinel in self.sentinels if sentinel in ended]:
            index = self.sentinels.pop(sentinel)
            process = self.processes[index]
            process.join()
            if process.exitcode != 0:
                self._end(grace_period)
                raise self._error(index)
        return not self.sentinels

    def _end(self, grace_period: float | None) -> None:
        if grace_period is not None:
            self._join_within(grace_period)
        for process in self.processes:
            process.terminate()
        self._join_within(30 if grace_period is None else grace_period)
        for process in self.processes:
            process.kill()
            process.join()

    def _join_within(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))

    def _error(self, index: int) -> ProcessException:
        process = self.processes[index]
        pid, status = process.pid or 0, process.exitcode or 0
        try:
            told = self._reports[index].recv_bytes().decode(errors="replace")
        except EOFError:
            told = ""
        if told:
            return ProcessRaisedException(
                f"\n\n-- Process {index} terminated with the following error:\n{told}", index, pid)
        if status >= 0:
            return ProcessExitedException(f"process {index} terminated with exit code {status}", index, pid, status)
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"<Unknown signal {-status}>"
        return ProcessExitedException(f"process {index} terminated with signal {name}", index, pid, status, name)


def start_processes(
    fn: Callable[..., Any], args: Sequence[Any] = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Call `fn(index, *args)` in `nprocs` processes, index counting them from 0.

    With `join`, wait for all and raise the error of the first that fails; without, return a ProcessContext to join.
    """
    context: Any = multiprocessing.get_context(start_method)
    processes, reports = [], []
    for index in range(nprocs):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(fn, index, args, writer), daemon=daemon)
        process.start()
        writer.close()
        processes.append(process)
        reports.append(reader)
    started = ProcessContext(processes, reports)
    if not join:
        return started
    while not started.join():
        pass
    return None


def spawn(
    fn: Callable[..., Any], args: Sequence[Any] = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """`start_processes` with fresh interpreters. `fn` has to be importable: a function at the top level of a module."""
    if start_method != "spawn":
        warnings.warn(f"This method only supports start_method=spawn (got: {start_method}). To use a different start_method "
                      "use: graphc.multiprocessing.start_processes(...)", FutureWarning, stacklevel=2)
    return start_processes(fn, args, nprocs, join, daemon)
