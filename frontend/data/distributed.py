"""`DistributedSampler`: one process's part of a dataset that several processes share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sized
from typing import Any

from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.data.sampler import Sampler
from graphc.frontend.random import Generator, randperm


class DistributedSampler(Sampler[int]):
    """Every `num_replicas`-th index of a dataset, beginning with the `rank`-th.

    All processes get as many: the first indices come again at the end, or, with `drop_last`, the last ones are left out.
    With `shuffle` the order is a function of `seed` and the epoch: call `set_epoch` before each.

    ArgumentError for a rank that is not below `num_replicas`, GraphcError where one of them is not given.

    >>> list(graphc.data.DistributedSampler(range(6), num_replicas=2, rank=1, shuffle=False))
    [1, 3, 5]
    """

    def __init__(
        self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True, seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise GraphcError("Requires distributed package to be available", hint="pass num_replicas and rank")
        if not 0 <= rank < num_replicas:
            raise ArgumentError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset: Any = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.num_samples = len(dataset) // num_replicas if drop_last else math.ceil(len(dataset) / num_replicas)
        self.total_size = self.num_samples * num_replicas
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        order = range(len(self.dataset))
        if self.shuffle:
            order = randperm(len(order), generator=Generator().manual_seed(self.seed + self.epoch)).tolist()
        return itertools.islice(itertools.cycle(order), self.rank, self.total_size, self.num_replicas)

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the same in all processes."""
        self.epoch = epoch
