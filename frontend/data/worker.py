"""What runs in a worker of a DataLoader: it fetches the batches that it is asked for."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np

from graphc.frontend.data import messages
from graphc.frontend.data.dataset import IterableDataset
from graphc.frontend.data.fetch import Fetching
from graphc.frontend.random import manual_seed
from graphc.threads import set_num_threads

_PARENT_CHECK = 1.0
"""Seconds between looks at whether the main process is still there."""


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker this is: its number of how many, its seed, and its own copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    id: int
    num_workers: int
    base_seed: int
    fetching: Fetching
    init: Callable[[int], Any] | None


@dataclass(frozen=True)
class Request:
    """A batch that the main process asks for, in a pass over the dataset that has a number of its own."""

    epoch: int
    number: int
    index: Any


@dataclass(frozen=True)
class Exhausted:
    """An iterable dataset has no more samples; sent in place of a batch."""


class _Text(str):
    """A message that KeyError, which shows the repr of what it is given, shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Failure:
    """An exception in a worker, to be raised in the main process; sent in place of a batch."""

    kind: type[BaseException]
    name: str
    text: str
    worker: int

    @classmethod
    def of(cls, error: BaseException, worker: int) -> Failure:
        """The exception with its traceback as text."""
        return cls(type(error), type(error).__name__, "".join(traceback.format_exception(error)), worker)

    def reraise(self) -> NoReturn:
        """Raise an exception of the kind, with the worker's traceback as its message; RuntimeError if none can be made."""
        message = f"Caught {self.name} in DataLoader worker process {self.worker}.\nOriginal {self.text}"
        try:
            error = self.kind(_Text(message) if issubclass(self.kind, KeyError) else message)
        except Exception:  # its constructor wants other arguments
            error = RuntimeError(message)
        raise error


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Which worker of a DataLoader the calling process is; None in the main process.

    >>> graphc.data.get_worker_info() is None
    True
    """
    return _info


def run(job: Job, connection: Connection) -> None:
    """Answer requests until the main process wants no more, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process too, which then ends its workers
    _prepare(job)
    results = socket.socket(fileno=os.dup(connection.fileno()))
    results.setblocking(True)
    requests = _Requests(connection)
    answers = _Answers(job)
    try:
        while (request := requests.next()) is not None:
            messages.send(results, request.epoch, request.number, _packed(answers.to(request), job.id))
    except (EOFError, ConnectionError):
        return


def _prepare(job: Job) -> None:
    """Seed what is random in the process, each worker by a seed of its own, and leave the other CPUs to its siblings."""
    global _info  # noqa: PLW0603  (set once, where the process begins)
    seed = job.base_seed + job.id
    random.seed(seed)
    manual_seed(seed)
    np.random.seed(np.random.SeedSequence((job.base_seed, job.id)).generate_state(4))
    os.environ["GRAPHC_NUM_THREADS"] = "1"
    if "llvmlite" in sys.modules:  # a back end that was loaded before the fork has read the variable already
        set_num_threads(1)
    _info = WorkerInfo(job.id, job.num_workers, seed, job.fetching.dataset)


class _Requests:
    """The requests that come through a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parent = os.getppid()
        self._hangup = select.poll()
        self._hangup.register(connection.fileno(), 0)

    def next(self) -> Request | None:
        """The next request; None if the main process has hung up, though there may be requests, or is gone."""
        while not self._connection.poll(_PARENT_CHECK):
            if os.getppid() != self._parent:
                return None
        return None if self._hangup.poll(0) else self._connection.recv()


class _Answers:
    """The passes over a dataset that requests ask for."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._epoch = -1
        self._ended = False
        self._fetch: Callable[[Any], Any] | None = None
        self._broken: Failure | None = None
        try:
            if job.init is not None:
                job.init(job.id)
        except Exception as error:
            self._broken = Failure.of(error, job.id)

    def to(self, request: Request) -> Any:
        """The batch that is asked for, or a Failure, or Exhausted."""
        if self._broken is not None:
            return self._broken
        try:
            if self._fetch is None or self._epoch != request.epoch:
                self._fetch = self._job.fetching.start()
                self._epoch, self._ended = request.epoch, False
            return Exhausted() if self._ended else self._fetch(request.index)
        except Exception as error:
            if isinstance(error, StopIteration) and isinstance(self._job.fetching.dataset, IterableDataset):
                self._ended = True
                return Exhausted()
            return Failure.of(error, self._job.id)


def _packed(answer: Any, worker: int) -> messages.Packed:
    """An answer as it is sent; a Failure where that cannot be done."""
    try:
        return messages.pack(answer)
    except Exception as error:
        failure = answer if isinstance(answer, Failure) else Failure.of(error, worker)
    try:
        return messages.pack(failure)
    except Exception:  # the exception's class is none that the main process could find
        return messages.pack(Failure(RuntimeError, failure.name, failure.text, worker))
