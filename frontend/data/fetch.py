"""Getting the samples of one batch out of a dataset, in the main process or in a worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.frontend.data.dataset import IterableDataset, samples


@dataclass(frozen=True)
class Fetching:
    """What a fetcher is made of: the dataset, and how its samples become batches."""

    dataset: Any
    batched: bool
    """Whether what is asked for is a list of indices, or a single one."""
    collate: Callable[..., Any]
    drop_last: bool

    def start(self) -> Callable[[Any], Any]:
        """A function from an index, or a list of them, to a batch; one for each pass over the dataset.

        For an iterable dataset only the number of indices counts, and the function raises StopIteration at the end.
        """
        if not isinstance(self.dataset, IterableDataset):
            return self._by_index
        iterator = iter(self.dataset)
        return lambda index: self._next_of(iterator, index)

    def _by_index(self, index: Any) -> Any:
        return self.collate(samples(self.dataset, index) if self.batched else self.dataset[index])

    def _next_of(self, iterator: Any, index: Any) -> Any:
        if not self.batched:
            return self.collate(next(iterator))
        found = list(itertools.islice(iterator, len(index)))
        if not found or (self.drop_last and len(found) < len(index)):
            raise StopIteration
        return self.collate(found)
