"""Datasets: samples by number, or one after the other; and datasets made of others."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from graphc.errors import ArgumentError
from graphc.frontend.random import Generator, randperm
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor, wrap

T_co = TypeVar("T_co", covariant=True)


class Dataset(PrintsSettings, Generic[T_co]):
    """Samples by number: subclasses define `__getitem__`, and `__len__` where the number of samples is known.

    `__getitems__`, where a subclass has it, gives the samples of a list of indices at once.

    >>> class Squares(graphc.data.Dataset):
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def __getitem__(self, index):
    ...         return index * index
    >>> [batch.tolist() for batch in graphc.data.DataLoader(Squares(), batch_size=2)]
    [[0, 1], [4]]
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[Any]) -> Dataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """Samples one after the other: subclasses define `__iter__`.

    In a DataLoader with workers each worker iterates over a copy of its own. `get_worker_info()` tells a dataset which
    part is the worker's.

    >>> class Count(graphc.data.IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(3))
    >>> [batch.tolist() for batch in graphc.data.DataLoader(Count(), batch_size=2)]
    [[0, 1], [2]]
    """

    def __add__(self, other: Dataset[Any]) -> Dataset[Any]:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Row i of each of several tensors of equal length, as a tuple.

    AssertionError where the lengths differ.

    >>> graphc.data.TensorDataset(graphc.tensor([1, 2]), graphc.tensor([3, 4]))[1]
    (tensor(2), tensor(4))
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if any(tensor.size(0) != tensors[0].size(0) for tensor in tensors):
            raise AssertionError(f"Size mismatch between tensors: their lengths are {[t.size(0) for t in tensors]}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __getitems__(self, indices: list[Any]) -> list[tuple[Tensor, ...]]:
        if type(self).__getitem__ is not TensorDataset.__getitem__ or any(t.requires_grad for t in self.tensors):
            return [self[i] for i in indices]
        # views that autograd need not know of, at a fraction of the time
        arrays = [tensor._array("TensorDataset") for tensor in self.tensors]
        return [tuple(wrap(array[i, ...]) for array in arrays) for i in indices]

    def __len__(self) -> int:
        return self.tensors[0].size(0)


class StackDataset(Dataset[Any]):
    """Sample i of each of several datasets of equal length: as a tuple, or by name as a dict.

    ArgumentError without datasets, for some with names and some without, and for different lengths.

    >>> graphc.data.StackDataset(x=[1, 2], y=[3, 4])[0]
    {'x': 1, 'y': 3}
    """

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ArgumentError("StackDataset: datasets with and without names", expected="a tuple (args) or a dict (kwargs)")
        if not args and not kwargs:
            raise ArgumentError("At least one dataset should be passed")
        self.datasets = args or kwargs
        lengths = [len(dataset) for dataset in self._parts()]
        if len(set(lengths)) > 1:
            raise ArgumentError("Size mismatch between datasets", got=f"lengths {lengths}")
        self._length = lengths[0]

    def _parts(self) -> list[Any]:
        return list(self.datasets.values() if isinstance(self.datasets, dict) else self.datasets)

    def _sample(self, parts: Iterable[Any]) -> Any:
        return dict(zip(self.datasets, parts)) if isinstance(self.datasets, dict) else tuple(parts)

    def __getitem__(self, index: Any) -> Any:
        return self._sample(dataset[index] for dataset in self._parts())

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        columns = [samples(dataset, indices) for dataset in self._parts()]
        for column in columns:
            if len(column) != len(indices):
                raise ArgumentError("Nested dataset's output size mismatch.",
                                    expected=f"{len(indices)} samples", got=str(len(column)))
        return [self._sample(row) for row in zip(*columns)]

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T_co]):
    """The samples of several datasets, one dataset after the other.

    >>> list(graphc.data.ConcatDataset([[1, 2], [3]]))
    [1, 2, 3]
    """

    datasets: list[Any]
    cumulative_sizes: list[int]

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """Where each dataset ends."""
        return list(itertools.accumulate(len(dataset) for dataset in sequence))

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = self.cumsum(self.datasets)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        if index < 0:
            if -index > len(self):
                raise ArgumentError("absolute value of index should not exceed dataset length",
                                    got=f"index {index}, length {len(self)}")
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - before]


class ChainDataset(IterableDataset[Any]):
    """The samples of several iterable datasets, one dataset after the other.

    >>> class Count(graphc.data.IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(2))
    >>> list(graphc.data.ChainDataset([Count(), Count()]))
    [0, 1, 0, 1]
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = datasets

    def _checked(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield dataset

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._checked())

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._checked())


class Subset(Dataset[T_co]):
    """The samples of a dataset at some indices.

    NotImplementedError for a subclass with a `__getitem__` of its own but no `__getitems__`.

    >>> list(graphc.data.Subset(["a", "b", "c"], [2, 0]))
    ['c', 'a']
    """

    dataset: Any
    indices: Sequence[int]

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        own = type(self)
        if own.__getitem__ is not Subset.__getitem__ and own.__getitems__ is Subset.__getitems__:
            raise NotImplementedError(f"{own.__name__} overrides __getitem__ but not __getitems__, which a DataLoader calls "
                                      "for a whole batch; define it as [self[i] for i in indices]")
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, idx: Any) -> T_co:
        return self.dataset[[self.indices[i] for i in idx] if isinstance(idx, list) else self.indices[idx]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        return samples(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def samples(dataset: Any, indices: list[Any]) -> list[Any]:
    """The samples at some indices: at once, where the dataset can."""
    at_once = getattr(dataset, "__getitems__", None)
    return at_once(indices) if callable(at_once) else [dataset[i] for i in indices]


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[Any]]:
    """Split a dataset at random into parts of given lengths, or of given fractions that sum to 1.

    Fractions are rounded down, and what remains goes to the parts one by one from the first on.

    ArgumentError for lengths that do not add up to that of the dataset.

    >>> [len(part) for part in graphc.data.random_split(range(10), [0.8, 0.2])]
    [8, 2]
    """
    total = len(dataset)
    counts: Sequence[Any] = lengths
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ArgumentError(f"Fraction at index {i} is not between 0 and 1", got=str(fraction))
        counts = [math.floor(total * fraction) for fraction in lengths]
        missing = total - sum(counts)
        counts = [n + missing // len(counts) + (i < missing % len(counts)) for i, n in enumerate(counts)]
        for i, n in enumerate(counts):
            if n == 0:
                warnings.warn(f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=2)
    if sum(counts) != total:
        raise ArgumentError("Sum of input lengths does not equal the length of the input dataset!",
                            expected=str(total), got=f"{' + '.join(map(str, counts))} = {sum(counts)}")
    order = randperm(total, generator=generator).tolist()
    return [Subset(dataset, order[end - n : end]) for end, n in zip(itertools.accumulate(counts), counts)]
