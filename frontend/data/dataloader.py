"""`DataLoader`: the samples of a dataset in batches, fetched in the main process or ahead of time by workers."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend import multiprocessing
from graphc.frontend.data.collate import default_collate, default_convert
from graphc.frontend.data.dataset import IterableDataset
from graphc.frontend.data.iterators import InProcess, InWorkers, LoaderIterator
from graphc.frontend.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from graphc.frontend.random import Generator
from graphc.frontend.settings_text import PrintsSettings


class _Endless(Sampler[None]):
    """What stands for the indices of an iterable dataset, which has none."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(PrintsSettings):
    """The batches of a dataset, as an iterable.

    dataset
        A Dataset, or anything with `__getitem__` and `__len__`; or an IterableDataset.
    batch_size
        Samples a batch; None gives single samples as they are, with arrays as tensors.
    shuffle
        Take the samples in random order, another one in each pass.
    sampler, batch_sampler
        The order of the samples, or of batches as lists of indices, instead of the above.
    num_workers
        How many processes fetch batches ahead; with 0 it happens in the main process. Tensors come in shared memory.
        An exception in a worker is raised here, with the worker's traceback; a worker that dies is a RuntimeError.
    collate_fn
        Makes a batch of a list of samples, in place of `default_collate`.
    pin_memory, pin_memory_device
        Accepted; without a GPU there is nothing to pin memory for.
    drop_last
        Leave out a last batch that is not full.
    timeout
        Seconds to wait for a batch of the workers; 0 waits as long as it takes.
    worker_init_fn
        Called with its number in each worker, once random numbers are seeded there.
    multiprocessing_context
        How workers are started: "fork", "spawn", "forkserver", or a context; by default as the system does.
    generator
        Where the order, and the seeds of the workers, are drawn from. The order does not depend on the number of workers.
    prefetch_factor
        How many batches a worker is ahead, 2 unless given.
    persistent_workers
        Keep the workers from one pass to the next.
    in_order
        Give the batches in the order of the sampler. Otherwise, as they are ready.

    ArgumentError for options that exclude each other, such as `sampler` and `shuffle`, that need workers where there are none,
    or that are negative.

    >>> from graphc.data import DataLoader, TensorDataset
    >>> dataset = TensorDataset(graphc.arange(5.0), graphc.arange(5))
    >>> for x, y in DataLoader(dataset, batch_size=2):
    ...     print(x, y)
    tensor([0., 1.]) tensor([0, 1])
    tensor([2., 3.]) tensor([2, 3])
    tensor([4.]) tensor([4])
    """

    _frozen = False
    promised_length: int | None = None
    """What `len` said of an iterable dataset, which then should not give more."""

    def __init__(
        self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None, batch_sampler: Iterable[list[Any]] | None = None, num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False, drop_last: bool = False,
        timeout: float = 0, worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: str | BaseContext | None = None, generator: Generator | None = None, *,
        prefetch_factor: int | None = None, persistent_workers: bool = False, pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.generator = generator
        self.persistent_workers = persistent_workers
        self._choose_order(batch_size, bool(shuffle), sampler, batch_sampler, drop_last)
        self.collate_fn = collate_fn or (default_convert if self.batch_sampler is None else default_collate)
        self._iterator: InWorkers | None = None
        self._frozen = True
        _check_cpus(num_workers)

    def _choose_order(
        self, batch_size: int | None, shuffle: bool, sampler: Iterable[Any] | None,
        batch_sampler: Iterable[list[Any]] | None, drop_last: bool,
    ) -> None:
        order: Iterable[Any]
        if isinstance(self.dataset, IterableDataset):
            given: dict[str, Any] = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
            for option, value in given.items():
                if value is not None:
                    raise ArgumentError(f"DataLoader with IterableDataset: expected unspecified {option} option, but got "
                                        f"{option}={value}", hint="order the samples in the dataset's __iter__")
        if sampler is not None and shuffle:
            raise ArgumentError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ArgumentError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                                    "drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            raise ArgumentError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is not None:
            order = sampler
        elif isinstance(self.dataset, IterableDataset):
            order = _Endless()
        elif shuffle:
            order = RandomSampler(self.dataset, generator=self.generator)
        else:
            order = SequentialSampler(self.dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(order, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = order
        self.batch_sampler = batch_sampler

    def _printed_settings(self) -> dict[str, Any]:
        order = {"sampler": self.sampler} if self.batch_sampler is None else {"batch_sampler": self.batch_sampler}
        return {"dataset": self.dataset, **order, "num_workers": self.num_workers}

    def __setattr__(self, name: str, value: Any) -> None:
        if self._frozen and name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"):
            raise ArgumentError(f"{name} attribute should not be set after {type(self).__name__} is initialized",
                                hint="make a new loader")
        super().__setattr__(name, value)

    @property
    def index_sampler(self) -> Iterable[Any]:
        """What is fetched at a time: the lists of indices of the batch sampler, or the indices of the sampler."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    @property
    def multiprocessing_context(self) -> BaseContext | None:
        """How workers are started."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: str | BaseContext | None) -> None:
        self._context = None if context is None else _context(context, self.num_workers)

    def __iter__(self) -> LoaderIterator:
        if not self.num_workers:
            return InProcess(self)
        if not self.persistent_workers:
            return InWorkers(self)
        if self._iterator is None or self._iterator.closed:
            self._iterator = InWorkers(self)
        else:
            self._iterator.restart()
        return self._iterator

    def __len__(self) -> int:
        if not isinstance(self.dataset, IterableDataset):
            return len(self.index_sampler)  # type: ignore[arg-type]  # a sampler without a length has none here either
        length = self.promised_length = len(self.dataset)  # type: ignore[arg-type]  # the same of datasets
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else math.ceil(length / self.batch_size)


def _context(context: str | BaseContext, num_workers: int) -> BaseContext:
    if num_workers == 0:
        raise ArgumentError("multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
                            "num_workers=0")
    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ArgumentError("multiprocessing_context option should specify a valid start method in "
                                f"{methods}, but got multiprocessing_context={context!r}")
        return multiprocessing.get_context(context)
    if not isinstance(context, BaseContext):
        raise ArgumentTypeError("multiprocessing_context option should be a valid context object or a string specifying the "
                                f"start method, but got multiprocessing_context={context}")
    return context


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool) -> None:
    if num_workers < 0:
        raise ArgumentError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.",
                            got=str(num_workers))
    if timeout < 0:
        raise ArgumentError("timeout option should be non-negative", got=str(timeout))
    if num_workers == 0 and prefetch_factor is not None:
        raise ArgumentError("prefetch_factor option could only be specified in multiprocessing.",
                            hint="let num_workers > 0, or set prefetch_factor to None")
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ArgumentError("prefetch_factor option should be non-negative", got=str(prefetch_factor))
    if persistent and num_workers == 0:
        raise ArgumentError("persistent_workers option needs num_workers > 0")


def _check_cpus(num_workers: int) -> None:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers > usable:
        warnings.warn(f"This DataLoader will create {num_workers} worker processes, and there are {usable} CPUs to run them: "
                      "more workers than that slow each other down", stacklevel=3)
