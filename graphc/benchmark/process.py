"""Worker processes, from the outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

_PATIENCE = 10
"""Seconds that a worker has to end."""


class WorkerProcess:
    """A process of so many threads that makes and times workloads; a context manager that ends it."""

    def __init__(self, threads: int, module: str = "graphc") -> None:
        self.threads = threads
        count = str(threads)
        names = ("GRAPHC_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "graphc.benchmark.worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(names, count)},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer; {"error": ...} if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process ended with status {self._process.wait()}"}

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._process.communicate('{"stop": true}\n', timeout=_PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
