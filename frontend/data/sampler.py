"""Samplers: in which order, and in which batches, a loader takes the samples of a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.from_data import as_tensor
from graphc.frontend.random import Generator, default_generator, multinomial, randint, randperm
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor
from graphc.types import float64

T_co = TypeVar("T_co", covariant=True)


class Sampler(PrintsSettings, Generic[T_co]):
    """The base of samplers: subclasses define `__iter__`, which gives indices or lists of indices, and often `__len__`.

    >>> class Backwards(graphc.data.Sampler):
    ...     def __iter__(self):
    ...         return iter([2, 1, 0])
    >>> [batch for batch in graphc.data.DataLoader(["a", "b", "c"], sampler=Backwards())]
    [['c'], ['b'], ['a']]
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... up to the length of a dataset.

    >>> list(graphc.data.SequentialSampler(["a", "b", "c"]))
    [0, 1, 2]
    """

    data_source: Sized

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices of a dataset in random order; with `replacement`, drawn independently of each other.

    Without a generator of its own, a sampler draws a seed from the default one at the start of each pass.

    ArgumentError for a number of samples that is not positive, ArgumentTypeError for a `replacement` that is no bool.

    >>> sorted(graphc.data.RandomSampler(["a", "b", "c"]))
    [0, 1, 2]
    """

    data_source: Sized
    replacement: bool

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise ArgumentTypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        _check_count(self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives: as many as the dataset has, unless set."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        size, wanted = len(self.data_source), self.num_samples
        generator = self.generator or Generator().manual_seed(draw_seed(None))
        if self.replacement:
            while wanted > 0:
                drawn = min(wanted, _DRAWN_AT_ONCE)
                yield from randint(size, (drawn,), generator=generator).tolist()
                wanted -= drawn
            return
        while wanted > 0:
            yield from randperm(size, generator=generator).tolist()[:wanted]
            wanted -= size

    def __len__(self) -> int:
        return self.num_samples


_DRAWN_AT_ONCE = 4096


class SubsetRandomSampler(Sampler[int]):
    """Some indices in random order.

    >>> sorted(graphc.data.SubsetRandomSampler([4, 7]))
    [4, 7]
    """

    indices: Sequence[int]

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn with weights, which need not sum to 1; by default each draw is independent of the others.

    ArgumentError for weights that are no vector, a number of samples that is not positive, and a `replacement` that is no bool.

    >>> list(graphc.data.WeightedRandomSampler([0.0, 1.0], num_samples=3))
    [1, 1, 1]
    """

    weights: Tensor
    num_samples: int
    replacement: bool

    def __init__(
        self, weights: Sequence[float] | Tensor, num_samples: int, replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_count(num_samples)
        if not isinstance(replacement, bool):
            raise ArgumentError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = as_tensor(weights, dtype=float64)
        if self.weights.dim() != 1:
            raise ArgumentError("weights should be a 1d sequence but given weights have shape "
                                f"{tuple(self.weights.shape)}")
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        yield from multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[Any]]):
    """The indices of another sampler in lists of `batch_size`; the last may be shorter, or is left out with `drop_last`.

    ArgumentError for a batch size that is not a positive int.

    >>> list(graphc.data.BatchSampler(graphc.data.SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ArgumentError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ArgumentError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        total = len(self.sampler)  # type: ignore[arg-type]  # without a length of the sampler there is none here
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)


def draw_seed(generator: Generator | None) -> int:
    """A seed from a generator, the default one unless given."""
    return randint(0, 1 << 53, (), generator=generator or default_generator).item()


def _check_count(num_samples: Any) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
        raise ArgumentError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
