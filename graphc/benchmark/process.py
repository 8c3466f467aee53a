"""Worker processes, from the outside."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PATIENCE = 10
"""Seconds that a worker has to end."""
THREAD_VARIABLES = ("GRAPHC_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which libraries are told how many threads to use."""


class WorkerProcess:
    """A process that answers requests, line by line; a context manager that ends it, and what it has started."""

    def __init__(self, command: Sequence[str], threads: int, environment: Mapping[str, str] | None = None) -> None:
        self.threads = threads
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed on exit)
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        # A group of its own: Ctrl-C goes to this process alone, which ends the group.
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, **variables, **(environment or {})}, **group,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, answers: IO[str]) -> None:
        for line in answers:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, timeout: float | None = None, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer; {"error": ...} if the process has ended, or takes longer than `timeout`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self._kill()
            return {"error": f"took longer than {timeout:g} s, and was ended"}
        return json.loads(line) if line else {"error": self._end()}

    def _end(self) -> str:
        status = self._process.wait()
        self._lines.put("")  # for whoever asks again
        ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        return f"the process {ended}{f': {said[-1].strip()}' if said else ''}"

    def _kill(self) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing that it started is left
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if kind is None:
                self._process.stdin.write('{"stop": true}\n')
                self._process.stdin.flush()
                self._process.wait(_PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass  # it is ended below, as after an error
        self._kill()
        self._reader.join()
        with contextlib.suppress(BrokenPipeError):  # it has not read everything
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()


def growth_worker(threads: int, module: str = "graphc") -> WorkerProcess:
    """A process that makes and times workloads of any size."""
    return WorkerProcess([sys.executable, "-m", "graphc.benchmark.worker", module], threads)


def own_worker(module: str, *, threads: int, environment: Mapping[str, str] | None = None) -> WorkerProcess:
    """A module of this package in a Python like this one."""
    return WorkerProcess([sys.executable, "-P", "-m", module], threads, environment)


def foreign_worker(
    module: str, *, threads: int, interpreter: str = sys.executable, environment: Mapping[str, str] | None = None
) -> WorkerProcess:
    """A module of this package's core in an interpreter in which the package need not be installed."""
    start = str(Path(__file__).absolute().with_name("elsewhere.py"))
    return WorkerProcess([interpreter, "-P", start, module], threads, environment)
