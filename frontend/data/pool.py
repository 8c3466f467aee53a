"""The worker processes of a DataLoader, seen from the main process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import weakref
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from graphc.errors import GraphcError
from graphc.frontend.data import messages
from graphc.frontend.data.worker import Job, Request, run

_PATIENCE = 5.0
"""Seconds that workers get for finishing a batch when they have to end."""


class _Worker(NamedTuple):
    process: BaseProcess
    requests: Connection
    answers: socket.socket


class Answer(NamedTuple):
    """What a worker sent."""

    worker: int
    epoch: int
    number: int
    content: messages.Packed


class WorkerPool:
    """Running workers. They end with `close`, with the pool, or with the process, whichever comes first."""

    def __init__(self, jobs: Sequence[Job], context: Any) -> None:
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers, os.getpid())
        for job in jobs:
            ours, theirs = context.Pipe()
            process = context.Process(target=run, args=(job, theirs), daemon=True)
            process.start()
            theirs.close()
            answers = socket.socket(fileno=os.dup(ours.fileno()))
            answers.setblocking(True)
            self._workers.append(_Worker(process, ours, answers))

    @property
    def closed(self) -> bool:
        """Whether the workers have been ended."""
        return not self._finalizer.alive

    def ask(self, worker: int, request: Request) -> None:
        """Send a request to a worker."""
        with contextlib.suppress(ConnectionError):  # that a worker has died is told where its answer is waited for
            self._workers[worker].requests.send(request)

    def receive(self, waiting: Collection[int], timeout: float) -> list[Answer]:
        """Wait for answers of some of the workers, at most `timeout` seconds unless that is 0.

        GraphcError if none comes in time, or if one of the workers has died.
        """
        sources: dict[Any, int] = {self._workers[i].answers: i for i in waiting}
        deaths: dict[Any, int] = {self._workers[i].process.sentinel: i for i in waiting}
        ready = set(wait([*sources, *deaths], timeout or None))
        if not ready:
            self.close()
            raise GraphcError(f"DataLoader timed out after {timeout} seconds", hint="raise timeout, or add workers")
        answers, dead = [], {worker for source, worker in deaths.items() if source in ready}
        for source, worker in sources.items():
            if source in ready:
                try:
                    answers.append(Answer(worker, *messages.receive(source)))
                except (EOFError, ConnectionError):
                    dead.add(worker)
        if not answers:
            raise self._loss(sorted(dead))
        return answers

    def _loss(self, dead: Sequence[int]) -> GraphcError:
        processes = [self._workers[i].process for i in dead]
        for process in processes:
            process.join(_PATIENCE)
        pids = ", ".join(str(process.pid) for process in processes)
        ends = "; ".join(_ending(process.exitcode) for process in processes)
        self.close()
        return GraphcError(f"DataLoader worker (pid(s) {pids}) exited unexpectedly: {ends}",
                           hint="run with num_workers=0 to see where it comes from; a worker that was killed may have needed "
                                "more memory than there is")

    def close(self) -> None:
        """End the workers, by force where they take long."""
        self._finalizer()


def _ending(status: int | None) -> str:
    if status is None:
        return "it closed its connection"
    if status >= 0:
        return f"it ended itself with exit code {status}"
    known = -status in set(signal.Signals)
    return f"it was ended by {signal.Signals(-status).name if known else f'signal {-status}'}"


def _end(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:
        return  # a copy in a process that was forked: the workers are not its own
    for worker in workers:
        # unlike a close, it reaches the worker also where processes that were forked later on hold copies of the socket
        with contextlib.suppress(OSError):
            worker.answers.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + _PATIENCE
    for process, requests, answers in workers:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.terminate()
            process.join(1)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        requests.close()
        answers.close()
    workers.clear()
