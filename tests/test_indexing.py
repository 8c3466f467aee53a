"""Picking and writing elements, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.errors import GraphcError

SHAPE = (3, 4, 5)


def array() -> np.ndarray:
    return np.arange(60.0).reshape(SHAPE)


def both(index: Any) -> tuple[Any, Any]:
    """An index for tensors, and the same one for arrays."""
    if isinstance(index, tuple):
        pairs = [both(i) for i in index]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    if isinstance(index, np.ndarray):
        return graphc.from_numpy(index), index
    return index, index


def axis_index(size: int) -> st.SearchStrategy[Any]:
    ints = st.integers(-size, size - 1)
    ends = st.none() | st.integers(-size - 2, size + 2)
    return ints | st.builds(slice, ends, ends, st.none() | st.integers(1, 3))


@given(st.tuples(*map(axis_index, SHAPE)), st.integers(0, 3), st.integers(0, 4), st.booleans())
def test_basic_indices(items: tuple[Any, ...], count: int, new_axis: int, ellipsis: bool) -> None:
    index = list(items[:count])
    if ellipsis:
        index.append(Ellipsis)
    if new_axis < len(index):
        index.insert(new_axis, None)
    x, a = graphc.from_numpy(array()), array()
    expected = a[tuple(index)]
    np.testing.assert_array_equal(x[tuple(index)].numpy(), expected)
    x[tuple(index)] = -1.0
    a[tuple(index)] = -1.0
    np.testing.assert_array_equal(x.numpy(), a)


ADVANCED = [
    np.array([2, 0, 2]), np.array([[0], [-1]]), np.array(1), (np.array([0, 1]), np.array([1, -2])),
    (slice(None), np.array([0, 3])), (slice(None), np.array([0, 3]), np.array([1, 1])),
    (np.array([0, 2]), slice(1, 3), np.array([0, 4])), (np.array([[0], [2]]), np.array([1, 2, 3])),
    (1, np.array([0, 0, 2])), (np.array([1, 2]), ..., 0), (None, np.array([0, 1])), (slice(None), None, np.array([2, 2])),
    array() > 30, (array()[:, :, 0] > 20), (array()[0, 0] > 2).reshape(-1)[:3], (slice(None), array()[0] % 2 == 0),
    (..., array()[0, 0] > 2), np.zeros(SHAPE, bool), np.array([], np.int64), [0, 2], ([0, 1], [1, 2]), (True,), (False, 1),
]


@pytest.mark.parametrize("index", ADVANCED, ids=range(len(ADVANCED)))
def test_advanced_indices(index: Any) -> None:
    ours, theirs = both(index)
    x, a = graphc.from_numpy(array()), array()
    got = x[ours]
    expected = a[theirs]
    np.testing.assert_array_equal(got.numpy(), expected)
    number = isinstance(index, np.ndarray) and index.ndim == 0  # one integer is a view, whoever holds it
    assert number or not np.shares_memory(got.numpy(), x.numpy())
    values = np.arange(float(expected.size)).reshape(expected.shape)
    x[ours] = graphc.from_numpy(values.copy())
    a[theirs] = values
    np.testing.assert_array_equal(x.numpy(), a)
    x[ours] = 7
    a[theirs] = 7
    np.testing.assert_array_equal(x.numpy(), a)


@pytest.mark.parametrize("index", ADVANCED[:-2], ids=range(len(ADVANCED) - 2))
def test_gradients_of_advanced_indices(index: Any) -> None:
    ours, theirs = both(index)
    x = graphc.from_numpy(array()).requires_grad_()
    weights = np.cos(np.arange(float(array()[theirs].size))).reshape(array()[theirs].shape)
    (x[ours] * graphc.from_numpy(weights)).sum().backward()
    expected = np.zeros(SHAPE)
    np.add.at(expected, theirs if not isinstance(theirs, list) else (np.array(theirs),), weights)
    np.testing.assert_allclose(x.grad.numpy(), expected)


def test_assignment_keeps_the_gradient_of_both_sides() -> None:
    x = graphc.zeros(4, dtype=graphc.float64, requires_grad=True)
    v = graphc.ones(2, dtype=graphc.float64, requires_grad=True)
    y = x * 1
    y[graphc.tensor([3, 1])] = v * 5
    y[2:] = y[:2] * 2
    y.sum().backward()
    assert y.tolist() == [0, 5, 0, 10] and x.grad.tolist() == [3, 0, 0, 0] and v.grad.tolist() == [0, 15]


def test_the_last_of_several_writes_counts() -> None:
    x = graphc.zeros(3)
    x[graphc.tensor([1, 1, 2, 1])] = graphc.tensor([1.0, 2.0, 3.0, 4.0])
    assert x.tolist() == [0, 4, 3]
    mask = graphc.zeros(3, dtype=graphc.bool)
    mask[[0, 0]] = graphc.tensor([False, True])
    assert mask.tolist() == [True, False, False]


@pytest.mark.parametrize("shape", [(4, 5), (5,), (1, 5), (1, 1, 1), (), (1, 4, 1)])
def test_values_stretch_to_their_place(shape: tuple[int, ...]) -> None:
    x, a = graphc.from_numpy(array()), array()
    value = np.random.default_rng(0).random(shape)
    x[1] = graphc.from_numpy(value)
    a[1] = value
    np.testing.assert_array_equal(x.numpy(), a)


@pytest.mark.parametrize("index, kind, message", [
    (3, IndexError, r"index 3 is out of bounds for dimension 0 with size 3"),
    ((0, -5), IndexError, r"index -5 is out of bounds for dimension 1 with size 4"),
    ((0, 0, 0, 0), IndexError, "too many indices"),
    (slice(None, None, -1), ValueError, "step must be greater than zero"),
    (slice(None, None, 0), ValueError, "step must be greater than zero"),
    (1.0, IndexError, "only integers"),
    ("a", TypeError, "no element"),
    ([3], IndexError, "out of bounds"),
    ([0.5], IndexError, "must be long"),
    (([0, 1], [0, 1, 2]), IndexError, "could not be broadcast"),
    (np.zeros((3, 5), bool), IndexError, "mask"),
])
def test_bad_indices(index: Any, kind: type[Exception], message: str) -> None:
    x = graphc.from_numpy(array())
    ours, _ = both(index)
    with pytest.raises(kind, match=message):
        x[ours]
    with pytest.raises(kind, match=message):
        x[ours] = 1


def test_a_number_has_no_elements() -> None:
    with pytest.raises(IndexError, match="0-dim"):
        graphc.tensor(1.0)[0]
    assert graphc.tensor(1.0)[...].item() == 1 and graphc.tensor(1.0)[None].shape == (1,)


def test_values_that_do_not_fit_are_named() -> None:
    with pytest.raises(GraphcError, match=r"\[3\] cannot be broadcast to indexing result of shape \[4, 5\]"):
        graphc.zeros(SHAPE)[0] = graphc.ones(3)


def test_functions_that_index() -> None:
    x = graphc.from_numpy(array())
    assert x.index_select(1, graphc.tensor([3, 3])).shape == (3, 2, 5)
    assert x.masked_select(x > 57).tolist() == [58, 59]
    assert x.take(graphc.tensor([0, 59])).tolist() == [0, 59]
    assert x.gather(2, graphc.zeros(1, 1, 2, dtype=graphc.int64)).tolist() == [[[0, 0]]]
    np.testing.assert_array_equal(x.take_along_dim(x.argmax(2, keepdim=True), 2).numpy(), array().max(2, keepdims=True))
    added = graphc.zeros(3).index_add(0, graphc.tensor([1, 1]), graphc.tensor([2.0, 3.0]), alpha=2)
    assert added.tolist() == [0, 10, 0]
    part = graphc.zeros(3, 4).scatter(0, graphc.tensor([[2, 0]]), 5.0)  # the index covers two of four columns
    assert part.tolist() == [[0, 5, 0, 0], [0, 0, 0, 0], [5, 0, 0, 0]]
    rows, columns = graphc.nonzero(graphc.eye(3), as_tuple=True)
    assert rows.tolist() == columns.tolist() == [0, 1, 2] and graphc.where(graphc.eye(2))[0].tolist() == [0, 1]
    assert graphc.nonzero(graphc.tensor(3)).shape == (1, 0)


def test_repeating_elements() -> None:
    x = graphc.tensor([[1, 2], [3, 4]])
    assert x.repeat_interleave(2).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert x.repeat_interleave(graphc.tensor([0, 2]), 1).tolist() == [[2, 2], [4, 4]]
    assert graphc.repeat_interleave(graphc.tensor([1, 0, 2])).tolist() == [0, 2, 2]
    with pytest.raises(RuntimeError, match="same size"):
        x.repeat_interleave(graphc.tensor([1, 2, 3]), 0)


# Outside autograd and traces NumPy does it: the same tensors, views and errors as on the long way


INDICES = [
    0, -1, slice(1, 3), slice(None, None, 2), None, Ellipsis, (), (0, 1), (slice(None), 1), (Ellipsis, 0), (0, Ellipsis, None),
    (None, slice(1, None), 2), (1, slice(0, 0)), slice(-2, None), slice(5, 2), (0, 0, 0), [0, 2], (slice(None), [1, 0]),
    graphc.tensor([2, -1]), graphc.tensor([[0, 1], [1, 1]]), (slice(None), graphc.tensor([0])),
    graphc.tensor([True, False, True]),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_the_short_way_is_the_long_way(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.frontend import subscript

    is_view = subscript._is_basic(index)

    def run() -> list[Any]:
        x = graphc.arange(24.0).reshape(3, 4, 2)
        part = x[index]
        found = [part.shape, part.tolist(), is_view and part._is_view()]
        x[index] = 7.0
        y = graphc.arange(24.0).reshape(3, 4, 2)
        y[index] = y[index] * 2
        view = y[index]
        if is_view:
            view.mul_(graphc.tensor(3.0, requires_grad=True))
            assert y.requires_grad
        return [*found, x.tolist(), x._version, y.tolist(), part.tolist()]

    short = run()
    monkeypatch.setattr(subscript, "_is_plain", lambda tensor: False)
    assert short == run()


@pytest.mark.parametrize(("index", "value"), [
    (3, 0.0), ((0, 0, 0, 0), 0.0), ("a", 1.0), (1.5, 1.0), ([3], 1.0), (slice(None, None, -1), 1.0), (0, graphc.ones(3)),
    (graphc.tensor([True, False]), 1.0), (graphc.tensor([0.5]), 1.0),
])  # fmt: skip
def test_errors_are_those_of_the_long_way(index: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.frontend import subscript

    def run() -> list[Any]:
        found: list[Any] = []
        for act in (lambda x: x[index], lambda x: x.__setitem__(index, value)):
            try:
                act(graphc.zeros(3, 4))
                found.append(None)
            except Exception as error:
                found.append((type(error), str(error)))
        return found

    short = run()
    monkeypatch.setattr(subscript, "_is_plain", lambda tensor: False)
    assert short == run()


def test_names_are_no_indices() -> None:
    x = graphc.arange(4).view(4, 1)
    for index in ("a", b"a", ("a", 0)):
        with pytest.raises(TypeError, match="no element"):
            x[index]
    with pytest.raises(TypeError, match="no element"):
        x["a"] = 1
    assert x[:True].tolist() == [[0]] and x[False::True].tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize("shape", [(5000,), (70, 90), (7, 11, 13, 5), (0, 9000), (1, 1, 5000)])
def test_nonzero_of_many_elements(shape: tuple[int, ...]) -> None:
    numbers = np.random.default_rng(0).integers(-1, 2, shape)
    for array in (numbers, numbers.astype(np.float32), numbers > 0, numbers.T):
        assert graphc.tensor(array).nonzero().tolist() == np.argwhere(array).tolist()
    x = graphc.tensor(numbers.astype(np.float32), requires_grad=True)
    chosen = x[x > 0]
    chosen.backward(graphc.arange(chosen.numel(), dtype=graphc.float32))
    expected = np.zeros(shape, np.float32)
    expected[numbers > 0] = np.arange(chosen.numel())
    assert chosen.grad_fn.name() == "IndexBackward0" and x.grad.tolist() == expected.tolist()


@pytest.mark.parametrize("f, good, bad", [
    (lambda x: x.index_put((x > 0,), graphc.tensor([9.0, 8.0])), [1.0, -2.0, 3.0], [[1.0, 2.0, 3.0], [-1.0, -2.0, 3.0]]),
    (lambda x: x.masked_scatter(x > 0, graphc.tensor([9.0, 8.0])), [1.0, -2.0, -3.0], [[1.0, 2.0, 3.0]]),
    (lambda x: graphc.nn.functional.one_hot(x.long(), 4), [1.0, 3.0], [[1.0, -2.0], [1.0, 7.0]]),
], ids=["index_put", "masked_scatter", "one_hot"])  # fmt: skip
def test_compiled_code_sees_what_does_not_fit(f: Any, good: list[float], bad: list[list[float]]) -> None:
    compiled = graphc.compile(f)
    for numbers in (good, *bad, good):
        x = graphc.tensor(numbers)
        if numbers is good:
            assert compiled(x).tolist() == f(x).tolist()
            continue
        for way in (f, compiled):
            with pytest.raises(RuntimeError):
                way(x)
