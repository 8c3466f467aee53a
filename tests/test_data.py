"""Datasets, samplers, collation and loaders in one process. Loaders with workers: test_data_workers.py."""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
import pytest

import graphc
from graphc.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)


def seeded(seed: int = 0) -> graphc.Generator:
    return graphc.Generator().manual_seed(seed)


class Count(IterableDataset):
    """0, 1, ... up to n."""

    def __init__(self, n: int, length: int | None = None) -> None:
        self.n, self.length = n, length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n))

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("a stream has no length")
        return self.length


class AtOnce(Dataset):
    """Squares that are fetched batch by batch."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> int:
        return i * i

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.calls.append(indices)
        return [i * i for i in indices]


# Datasets


def test_the_two_public_names_are_one_module() -> None:
    import graphc.utils.data
    import graphc.utils.data.dataset

    assert graphc.utils.data is graphc.data and graphc.utils.data.dataset.Dataset is Dataset


def test_rows_of_tensors() -> None:
    rows = TensorDataset(graphc.arange(6.0).view(3, 2), graphc.arange(3))
    x, y = rows[-1]
    assert x.tolist() == [4, 5] and y.item() == 2 and len(rows) == 3
    assert rows[[0, 2]][1].tolist() == [0, 2]
    assert [(x.tolist(), y.shape, y.item()) for x, y in rows.__getitems__([2, -3])] == [([4, 5], (), 2), ([0, 1], (), 0)]
    with pytest.raises(IndexError):
        rows.__getitems__([3])

    class Negated(TensorDataset):
        def __getitem__(self, i: int) -> graphc.Tensor:
            return -self.tensors[0][i]

    assert next(iter(DataLoader(Negated(graphc.arange(3)), batch_size=3))).tolist() == [0, -1, -2]
    w = graphc.ones(2, requires_grad=True)
    next(iter(DataLoader(TensorDataset(w), batch_size=2)))[0].sum().backward()
    assert w.grad.tolist() == [1, 1]
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(graphc.zeros(2), graphc.zeros(3))


def test_stacked_datasets() -> None:
    at_once = AtOnce()
    pairs = StackDataset(range(5), at_once)
    assert pairs[2] == (2, 4) and len(pairs) == 5
    assert pairs.__getitems__([1, 3]) == [(1, 1), (3, 9)] and at_once.calls == [[1, 3]]
    named = StackDataset(x=range(5), y=at_once)
    assert named[2] == {"x": 2, "y": 4} and named.__getitems__([4]) == [{"x": 4, "y": 16}]
    with pytest.raises(ValueError, match="Size mismatch between datasets"):
        StackDataset(range(2), range(3))
    with pytest.raises(ValueError, match="At least one dataset"):
        StackDataset()
    with pytest.raises(ValueError, match="with and without names"):
        StackDataset(range(2), x=range(2))


def test_one_dataset_after_the_other() -> None:
    joined = TensorDataset(graphc.arange(3)) + TensorDataset(graphc.arange(10, 12))
    assert isinstance(joined, ConcatDataset) and joined.cumulative_sizes == [3, 5]
    assert [joined[i][0].item() for i in (0, 2, 3, 4, -1, -5)] == [0, 2, 10, 11, 11, 0]
    with pytest.raises(ValueError, match="absolute value of index"):
        joined[-6]
    with pytest.raises(IndexError):
        joined[5]
    with pytest.raises(AssertionError, match="empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([Count(2)])


def test_one_stream_after_the_other() -> None:
    chained = Count(2, 2) + Count(3, 3)
    assert isinstance(chained, ChainDataset) and list(chained) == [0, 1, 0, 1, 2] and len(chained) == 5
    with pytest.raises(AssertionError, match="only supports IterableDataset"):
        list(ChainDataset([range(2)]))


def test_subsets() -> None:
    part = Subset(TensorDataset(graphc.arange(10)), [7, 1, 5])
    assert [x.item() for (x,) in part] == [7, 1, 5] and len(part) == 3
    assert part[[0, 2]][0].tolist() == [7, 5]
    assert Subset(part, [2])[0][0].item() == 5

    class Doubled(Subset):
        def __getitem__(self, i: int) -> int:
            return 2 * self.dataset[self.indices[i]]

    with pytest.raises(NotImplementedError, match="overrides __getitem__ but not __getitems__"):
        Doubled(range(4), [0])


@pytest.mark.parametrize("lengths, sizes", [
    ([7, 3], [7, 3]), ([0.7, 0.3], [7, 3]), ([0.25, 0.25, 0.5], [3, 2, 5]), ([1 / 3, 1 / 3, 1 / 3], [4, 3, 3]), ([10], [10]),
    ([0, 10], [0, 10]),
])  # fmt: skip
def test_random_splits(lengths: list[float], sizes: list[int]) -> None:
    parts = random_split(range(10), lengths, seeded())
    assert [len(part) for part in parts] == sizes
    assert sorted(itertools.chain(*parts)) == list(range(10))
    assert [list(part) for part in parts] == [list(part) for part in random_split(range(10), lengths, seeded())]


def test_splits_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(range(10), [3, 3])
    with pytest.raises(ValueError, match="Fraction at index 0 is not between 0 and 1"):
        random_split(range(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(range(2), [0.75, 0.25])


def test_a_dataset_without_getitem_says_so() -> None:
    with pytest.raises(NotImplementedError, match="should implement __getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError):
        iter(Sampler())


# Samplers


def test_sequential_and_batch_samplers() -> None:
    assert list(SequentialSampler("abc")) == [0, 1, 2]
    assert list(BatchSampler(range(7), 3, False)) == [[0, 1, 2], [3, 4, 5], [6]] and len(BatchSampler(range(7), 3, False)) == 3
    assert list(BatchSampler(range(7), 3, True)) == [[0, 1, 2], [3, 4, 5]] and len(BatchSampler(range(7), 3, True)) == 2
    assert list(BatchSampler(range(6), 3, True)) == [[0, 1, 2], [3, 4, 5]]
    for size in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="batch_size should be a positive integer"):
            BatchSampler(range(2), size, False)
    with pytest.raises(ValueError, match="drop_last should be a boolean"):
        BatchSampler(range(2), 1, 0)


def test_random_samplers() -> None:
    assert sorted(RandomSampler(range(100))) == list(range(100))
    assert list(RandomSampler(range(100), generator=seeded(3))) == list(RandomSampler(range(100), generator=seeded(3)))
    longer = list(RandomSampler(range(10), num_samples=25))
    assert sorted(longer[:10]) == sorted(longer[10:20]) == list(range(10)) and len(set(longer[20:])) == 5
    drawn = Counter(RandomSampler(range(4), replacement=True, num_samples=10_000, generator=seeded()))
    assert set(drawn) == {0, 1, 2, 3} and max(drawn.values()) < 1.1 * min(drawn.values())
    for wrong in (0, -3, 1.0):
        with pytest.raises(ValueError, match="num_samples should be a positive integer"):
            RandomSampler(range(3), num_samples=wrong)
    with pytest.raises(TypeError, match="replacement should be a boolean"):
        RandomSampler(range(3), replacement=1)
    with pytest.raises(ValueError, match="num_samples=0"):
        RandomSampler([])


def test_samplers_of_subsets_and_weights() -> None:
    assert sorted(SubsetRandomSampler([5, 3, 9])) == [3, 5, 9] and len(SubsetRandomSampler([5, 3])) == 2
    drawn = Counter(WeightedRandomSampler([1, 0, 3], 8000, generator=seeded()))
    assert set(drawn) == {0, 2} and 2.7 < drawn[2] / drawn[0] < 3.3
    assert sorted(WeightedRandomSampler([0.1, 2, 5], 3, replacement=False)) == [0, 1, 2]
    with pytest.raises(ValueError, match="weights should be a 1d sequence"):
        WeightedRandomSampler([[1.0]], 1)
    with pytest.raises(ValueError, match="replacement should be a boolean"):
        WeightedRandomSampler([1.0], 1, replacement=0)


@pytest.mark.parametrize("size", [3, 10, 11, 12])
@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_samplers_share_a_dataset(size: int, drop_last: bool) -> None:
    samplers = [DistributedSampler(range(size), 4, rank, shuffle=False, drop_last=drop_last) for rank in range(4)]
    each = size // 4 if drop_last else -(-size // 4)
    parts = [list(sampler) for sampler in samplers]
    assert all(len(part) == len(sampler) == each for part, sampler in zip(parts, samplers))
    order = [part[i] for i in range(each) for part in parts]
    assert order == [i % size for i in range(4 * each)]


def test_distributed_samplers_shuffle_by_epoch() -> None:
    a, b = (DistributedSampler(range(20), 2, rank, seed=1) for rank in range(2))
    assert sorted([*a, *b]) == list(range(20)) and list(a) == list(a)
    before = list(a)
    a.set_epoch(1)
    assert list(a) != before
    with pytest.raises(ValueError, match=r"Invalid rank 2, rank should be in the interval \[0, 1\]"):
        DistributedSampler(range(3), 2, 2)
    with pytest.raises(RuntimeError, match="Requires distributed package"):
        DistributedSampler(range(3))


# Collation

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("samples, dtype, values", [
    ([1, 2], graphc.int64, [1, 2]), ([1.5, 2], graphc.float64, [1.5, 2]), ([True, False], graphc.bool, [True, False]),
    ([np.float32(1), np.float32(2)], graphc.float32, [1, 2]), ([np.int16(1)], graphc.int16, [1]),
    ([np.bool_(True)], graphc.bool, [True]), ([np.ones(2, np.float16)] * 2, graphc.float16, [[1, 1], [1, 1]]),
    ([graphc.tensor(1), graphc.tensor(2)], graphc.int64, [1, 2]), ([graphc.ones(1, 2)], graphc.float32, [[[1, 1]]]),
    ([graphc.zeros(0, 3)] * 2, graphc.float32, [[], []]),
])  # fmt: skip
def test_numbers_become_tensors(samples: list[object], dtype: graphc.dtype, values: list[object]) -> None:
    batch = default_collate(samples)
    assert isinstance(batch, graphc.Tensor) and batch.dtype is dtype and batch.tolist() == values


def test_containers_are_batched_inside() -> None:
    assert default_collate(["a", "b"]) == ["a", "b"] and default_collate([b"x"]) == [b"x"]
    pair = default_collate([(1, "a"), (2, "b")])
    assert type(pair) is list and pair[0].tolist() == [1, 2] and pair[1] == ("a", "b")
    assert default_collate([[1, 2], [3, 4]])[1].tolist() == [2, 4]
    point = default_collate([Point(1, [2.0]), Point(3, [4.0])])
    assert type(point) is Point and point.x.tolist() == [1, 3] and point.y[0].tolist() == [2, 4]
    for kind in (dict, OrderedDict, UserDict, MappingProxyType):
        batch = default_collate([kind({"a": 1, "b": "x"}), kind({"a": 2, "b": "y"})])
        assert type(batch) is kind and batch["a"].tolist() == [1, 2] and batch["b"] == ["x", "y"]


def test_tensors_that_differ() -> None:
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([graphc.ones(1), graphc.ones(2)])
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal size"):
        default_collate([[1], [1, 2]])
    mixed = default_collate([graphc.tensor(1), graphc.tensor(1.5)])
    assert mixed.dtype is graphc.float32 and mixed.tolist() == [1, 1.5]
    x = graphc.ones(2, requires_grad=True)
    default_collate([x, x * 2]).sum().backward()
    assert x.grad.tolist() == [3, 3]


@pytest.mark.parametrize("sample", [object(), None, np.array(["a"]), np.array([None])])
def test_samples_that_cannot_be_batched_are_named(sample: object) -> None:
    with pytest.raises(TypeError, match=r"default_collate: batch must contain tensors.*found"):
        default_collate([sample])


def test_rules_of_ones_own() -> None:
    from graphc.data.collate import collate

    rules = {graphc.Tensor: lambda batch, *, collate_fn_map: sum(batch), int: lambda batch, *, collate_fn_map: max(batch)}
    assert collate([(graphc.ones(1), 3), (graphc.ones(1), 5)], collate_fn_map=rules) == [graphc.tensor([2.0]), 5]


def test_single_samples_are_converted() -> None:
    array = np.zeros(2)
    point = default_convert(Point(array, {"a": "text", "b": [np.float32(1), 2]}))
    array[0] = 7
    assert type(point) is Point and point.x.tolist() == [7, 0] and point.y["a"] == "text"
    assert point.y["b"][0].dtype is graphc.float32 and point.y["b"][1] == 2
    assert default_convert((array, "a"))[1] == "a" and default_convert(np.array(["a"])).tolist() == ["a"]


# Loaders


def test_batches_in_order_and_the_last_one() -> None:
    loader = DataLoader(range(7), batch_size=3)
    assert [b.tolist() for b in loader] == [[0, 1, 2], [3, 4, 5], [6]] and len(loader) == 3
    loader = DataLoader(range(7), batch_size=3, drop_last=True)
    assert [b.tolist() for b in loader] == [[0, 1, 2], [3, 4, 5]] and len(loader) == 2
    assert [b.tolist() for b in DataLoader(range(2))] == [[0], [1]] and len(DataLoader(range(2))) == 2


def test_single_samples() -> None:
    loader = DataLoader([np.ones(2), "text", 3], batch_size=None)
    array, text, number = loader
    assert array.tolist() == [1, 1] and text == "text" and number == 3 and len(loader) == 3


def test_whole_batches_are_asked_for_where_the_dataset_can() -> None:
    dataset = AtOnce()
    assert [b.tolist() for b in DataLoader(dataset, 2)] == [[0, 1], [4, 9], [16]] and dataset.calls == [[0, 1], [2, 3], [4]]


def test_samplers_are_used() -> None:
    assert [b.tolist() for b in DataLoader(range(9), 2, sampler=[8, 6, 4])] == [[8, 6], [4]]
    loader = DataLoader(range(9), batch_sampler=[[1], [2, 3]])
    assert [b.tolist() for b in loader] == [[1], [2, 3]] and len(loader) == 2 and loader.batch_size is None


def test_shuffling() -> None:
    loader = DataLoader(range(50), 50, shuffle=True, generator=seeded(1))
    first, second = (next(iter(loader)).tolist() for _ in range(2))
    assert sorted(first) == list(range(50)) and first != second
    assert next(iter(DataLoader(range(50), 50, shuffle=True, generator=seeded(1)))).tolist() == first
    graphc.manual_seed(4)
    default = [b.tolist() for b in DataLoader(range(50), 50, shuffle=True)]
    graphc.manual_seed(4)
    assert [b.tolist() for b in DataLoader(range(50), 50, shuffle=True)] == default


def test_streams() -> None:
    loader = DataLoader(Count(5, 5), batch_size=2)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]] and len(loader) == 3
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Count(5), batch_size=2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(3), batch_size=None)) == [0, 1, 2]
    short = DataLoader(Count(5, 2), batch_size=1)
    assert len(short) == 2
    with pytest.warns(UserWarning, match=r"Length of IterableDataset.*was reported to be 2.*but 3 samples"):
        assert next(itertools.islice(short, 2, None)).tolist() == [2]


@pytest.mark.parametrize("options, message", [
    ({"num_workers": -1}, "num_workers option should be non-negative"),
    ({"timeout": -1}, "timeout option should be non-negative"),
    ({"prefetch_factor": 2}, "prefetch_factor option could only be specified in multiprocessing"),
    ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
    ({"shuffle": True, "sampler": [0]}, "sampler option is mutually exclusive with shuffle"),
    ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
    ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler option is mutually exclusive"),
    ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
    ({"batch_size": 0}, "batch_size should be a positive integer"),
    ({"multiprocessing_context": "fork"}, "multiprocessing_context can only be used with multi-process loading"),
    ({"multiprocessing_context": "thread", "num_workers": 1}, "should specify a valid start method"),
])  # fmt: skip
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataLoader(range(3), **options)


def test_streams_have_no_order_to_choose() -> None:
    for option in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}):
        with pytest.raises(ValueError, match="DataLoader with IterableDataset: expected unspecified"):
            DataLoader(Count(2), **option)


def test_a_loader_is_not_changed() -> None:
    loader = DataLoader(range(3))
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, None)
    loader.collate_fn = list
    assert list(loader) == [[0], [1], [2]]


def test_more_workers_than_processors_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="will create 1000 worker processes"):
        DataLoader(range(3), num_workers=1000)


def test_batches_train_a_model() -> None:
    graphc.manual_seed(0)
    x = graphc.rand(64, 1)
    net = graphc.nn.Linear(1, 1)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(40):
        for a, b in DataLoader(TensorDataset(x, 2 * x + 1), batch_size=8, shuffle=True, pin_memory=True):
            optimizer.zero_grad()
            ((net(a) - b) ** 2).mean().backward()
            optimizer.step()
    assert abs(net.weight.item() - 2) < 0.05 and abs(net.bias.item() - 1) < 0.05
