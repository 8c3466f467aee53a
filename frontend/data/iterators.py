"""One pass over the batches of a DataLoader: in the main process, or by workers."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from graphc.frontend import multiprocessing
from graphc.frontend.data import messages
from graphc.frontend.data.fetch import Fetching
from graphc.frontend.data.pool import WorkerPool
from graphc.frontend.data.sampler import draw_seed
from graphc.frontend.data.worker import Exhausted, Failure, Job, Request

if TYPE_CHECKING:
    from graphc.frontend.data.dataloader import DataLoader


class LoaderIterator:
    """The batches of a loader, one after the other."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        # drawn without workers too, so that the number of workers does not change what is drawn later on
        self._base_seed = draw_seed(loader.generator)
        self._fetching = Fetching(loader.dataset, loader.batch_sampler is not None, loader.collate_fn, loader.drop_last)
        self._begin()

    def _begin(self) -> None:
        self._indices = iter(self._loader.index_sampler)
        self._given = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        batch = self._batch()
        self._given += 1
        loader = self._loader
        if loader.promised_length is not None and self._given > loader.promised_length:
            hint = " In workers each copy of the dataset has to give a part of its own: see get_worker_info()." \
                if loader.num_workers else ""
            warnings.warn(f"Length of IterableDataset {loader.dataset} was reported to be {loader.promised_length} (when "
                          f"accessing len(dataloader)), but {self._given} samples have been fetched.{hint}", stacklevel=2)
        return batch

    def _batch(self) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._loader.index_sampler)  # type: ignore[arg-type]  # a sampler may have none


class InProcess(LoaderIterator):
    """Batches that are fetched when they are asked for."""

    def _begin(self) -> None:
        super()._begin()
        if self._loader.timeout:
            raise AssertionError("a timeout needs workers: expected timeout == 0 with num_workers=0")
        self._fetch = self._fetching.start()

    def _batch(self) -> Any:
        return self._fetch(next(self._indices))


class InWorkers(LoaderIterator):
    """Batches that workers fetch ahead."""

    def __init__(self, loader: DataLoader) -> None:
        self._epoch = -1
        super().__init__(loader)
        count = loader.num_workers
        jobs = [Job(i, count, self._base_seed, self._fetching, loader.worker_init_fn) for i in range(count)]
        self._pool = WorkerPool(jobs, loader.multiprocessing_context or multiprocessing)
        self._ask()

    def _begin(self) -> None:
        super()._begin()
        self._epoch += 1
        self._numbers = itertools.count()
        self._pending: dict[int, int] = {}
        """The worker of each batch that was asked for and not given on, in the order of asking."""
        self._arrived: dict[int, Any] = {}
        self._active = deque(range(self._loader.num_workers))
        """The workers that have samples left, the next one to ask first."""

    def restart(self) -> None:
        """Begin another pass with the same workers."""
        self._begin()
        self._ask()

    @property
    def closed(self) -> bool:
        """Whether the workers are gone."""
        return self._pool.closed

    def _batch(self) -> Any:
        while self._pending:
            number = self._ready()
            if number is None:
                self._receive()
                continue
            del self._pending[number]
            batch = self._arrived.pop(number)
            self._ask()
            if isinstance(batch, Failure):
                batch.reraise()
            return batch
        if not self._loader.persistent_workers:
            self._pool.close()
        raise StopIteration

    def _ready(self) -> int | None:
        """The number of the batch to give next, if it is there."""
        if not self._loader.in_order:
            return next(iter(self._arrived), None)
        first = next(iter(self._pending))
        return first if first in self._arrived else None

    def _ask(self) -> None:
        """Keep every worker busy: so many batches are always on their way, as long as there are any."""
        ahead = max(1, self._loader.prefetch_factor or 0) * self._loader.num_workers
        while self._active and len(self._pending) < ahead:
            try:
                index = next(self._indices)
            except StopIteration:
                return
            worker = self._chosen()
            number = next(self._numbers)
            self._pending[number] = worker
            self._pool.ask(worker, Request(self._epoch, number, index))

    def _chosen(self) -> int:
        """The worker to ask next: in turn, or, where the order of the batches is free, the one with least to do."""
        if self._loader.in_order:
            self._active.rotate(-1)
            return self._active[-1]
        load = [worker for number, worker in self._pending.items() if number not in self._arrived]
        return min(self._active, key=load.count)

    def _receive(self) -> None:
        waiting = {worker for number, worker in self._pending.items() if number not in self._arrived}
        try:
            answers = self._pool.receive(waiting, self._loader.timeout)
        except BaseException:
            self._pool.close()
            self._pending.clear()
            raise
        for answer in answers:
            if answer.epoch != self._epoch or answer.number not in self._pending:
                continue  # of a pass that was not gone through to the end
            content = messages.unpack(answer.content)
            if isinstance(content, Exhausted):
                self._retire(answer.worker)
            else:
                self._arrived[answer.number] = content

    def _retire(self, worker: int) -> None:
        """Ask a worker no more in this pass, and give up what was asked of it."""
        self._active.remove(worker)
        for number in [n for n, w in self._pending.items() if w == worker and n not in self._arrived]:
            del self._pending[number]
        self._ask()
