"""Joining, splitting, turning and combining tensors, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.autograd import gradcheck


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def watched(a: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(a.copy()).requires_grad_()


def assert_same(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for x, a in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x.numpy(), a)


# Splitting


@given(st.integers(0, 7), st.integers(1, 5))
def test_pieces_are_numpys(size: int, count: int) -> None:
    a = np.arange(size * 2).reshape(size, 2)
    x = graphc.from_numpy(a)
    assert_same(x.tensor_split(count), np.array_split(a, count))
    assert_same(x.split(count), [a[i : i + count] for i in range(0, size, count)] or [a])
    if size % count == 0:
        assert_same(x.vsplit(count), np.vsplit(a, count))


def test_pieces_at_indices() -> None:
    a = np.arange(24).reshape(2, 3, 4)
    x = graphc.from_numpy(a)
    assert_same(x.tensor_split([1, -1], 2), np.split(a, [1, 3], 2))
    assert_same(x.tensor_split(graphc.tensor([1, 2]), 1), np.split(a, [1, 2], 1))
    assert_same(x.dsplit([3]), np.dsplit(a, [3]))
    assert_same(x.hsplit(3), np.hsplit(a, 3))
    assert_same(x.split_with_sizes([1, 2], 1), np.split(a, [1], 1))
    assert_same(x.split(split_size=[1, 2], dim=1), np.split(a, [1], 1))
    assert_same(graphc.split(tensor=x, split_size_or_sections=[1, 2], dim=1), np.split(a, [1], 1))
    assert_same(x.unsafe_chunk(2, -1), np.split(a, 2, 2))
    assert_same(graphc.arange(6).hsplit((1, 3)), np.hsplit(np.arange(6), (1, 3)))


def test_pieces_share_memory() -> None:
    x = graphc.zeros(4)
    for i, piece in enumerate(x.unsafe_split(2)):
        piece.fill_(i + 1)
    assert x.tolist() == [1, 1, 2, 2]


# Joining


def test_ranks_are_raised() -> None:
    for a in (np.array(1), np.arange(2), np.ones((2, 3)), np.ones((2, 3, 4))):
        x = graphc.from_numpy(a)
        for ours, theirs in ((graphc.atleast_1d, np.atleast_1d), (graphc.atleast_2d, np.atleast_2d),
                             (graphc.atleast_3d, np.atleast_3d)):
            np.testing.assert_array_equal(ours(x).numpy(), theirs(a))
    first, second = graphc.atleast_3d(graphc.tensor(1), graphc.ones(2))
    assert (first.shape, second.shape) == ((1, 1, 1), (1, 2, 1))
    assert graphc.atleast_1d() == ()


def test_stacks_are_numpys() -> None:
    a, b = array(2, 3), array(2, 3, seed=1)
    x, y = graphc.from_numpy(a), graphc.from_numpy(b)
    for name in ("hstack", "vstack", "dstack", "column_stack"):
        np.testing.assert_array_equal(getattr(graphc, name)([x, y]).numpy(), getattr(np, name)([a, b]))
        np.testing.assert_array_equal(getattr(graphc, name)([x[0], y[0]]).numpy(), getattr(np, name)([a[0], b[0]]))


def test_blocks_on_the_diagonal() -> None:
    made = graphc.block_diag(graphc.tensor(1), graphc.tensor([[2, 3], [4, 5]]), graphc.tensor([6, 7]))
    assert made.tolist() == [[1, 0, 0, 0, 0], [0, 2, 3, 0, 0], [0, 4, 5, 0, 0], [0, 0, 0, 6, 7]]
    assert graphc.block_diag(graphc.tensor([True])).dtype is graphc.bool
    assert graphc.block_diag().shape == (1, 0)


# Turning


@pytest.mark.parametrize("k", range(-3, 5))
def test_rot90_is_numpys(k: int) -> None:
    a = array(2, 3, 4)
    np.testing.assert_array_equal(graphc.from_numpy(a).rot90(k).numpy(), np.rot90(a, k))
    np.testing.assert_array_equal(graphc.from_numpy(a).rot90(k, [2, -2]).numpy(), np.rot90(a, k, (2, 1)))


def test_rolling_and_repeating() -> None:
    a = array(3, 4)
    x = graphc.from_numpy(a)
    np.testing.assert_array_equal(x.roll(-5).numpy(), np.roll(a, -5))
    np.testing.assert_array_equal(x.roll((1, 2), (0, -1)).numpy(), np.roll(a, (1, 2), (0, 1)))
    np.testing.assert_array_equal(x.tile(2).numpy(), np.tile(a, 2))
    np.testing.assert_array_equal(x.repeat(2, 1, 3).numpy(), np.tile(a, (2, 1, 3)))
    copy = x.repeat(1, 1)
    copy.zero_()
    assert x.count_nonzero().item() == 12
    assert x.repeat(0, 1).shape == (0, 4)


def test_sizes_are_changed() -> None:
    x = graphc.ones(2, 3, requires_grad=True)
    assert x.sum_to_size(1, 3).tolist() == [[2, 2, 2]]
    assert x.sum_to_size(3).tolist() == [2, 2, 2]
    assert x.unflatten(1, (-1, 1)).shape == (2, 3, 1)
    assert graphc.arange(4).narrow_copy(0, 1, 2).tolist() == [1, 2]
    assert graphc.ones(2, 4).view(graphc.int16).shape == (2, 8)


# Combinations


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_grids_are_numpys(indexing: Any) -> None:
    vectors = [np.arange(3), np.arange(2), np.array(7)]
    made = graphc.meshgrid(*map(graphc.from_numpy, vectors), indexing=indexing)
    assert_same(made, np.meshgrid(*vectors, indexing=indexing))
    assert_same(graphc.meshgrid([graphc.arange(3)], indexing=indexing), [np.arange(3)])


def test_products_of_sets() -> None:
    x, y = graphc.tensor([1, 2, 3]), graphc.tensor([4, 5])
    assert graphc.cartesian_prod(x, y).tolist() == [list(p) for p in itertools.product([1, 2, 3], [4, 5])]
    assert graphc.cartesian_prod(x).tolist() == [1, 2, 3]
    assert graphc.combinations(x).tolist() == [[1, 2], [1, 3], [2, 3]]
    assert graphc.combinations(x, 2, with_replacement=True).tolist() == [[1, 1], [1, 2], [1, 3], [2, 2], [2, 3], [3, 3]]
    assert graphc.combinations(x, 4).shape == (0, 4)
    assert graphc.combinations(x, 0).shape == (0,)


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("r", range(1, 9))
def test_combinations_are_in_order(count: int, r: int) -> None:
    x = graphc.arange(count) * 2
    for again, choose in ((False, itertools.combinations), (True, itertools.combinations_with_replacement)):
        made = graphc.combinations(x, r, again)
        expected = list(choose(x.tolist(), r))
        assert made.shape == (len(expected), r) and made.tolist() == list(map(list, expected))


def test_unravel_index_is_numpys() -> None:
    places = np.array([[0, 5], [11, 7]])
    assert_same(graphc.unravel_index(graphc.from_numpy(places), (2, 3, 2)), np.unravel_index(places, (2, 3, 2)))
    assert [i.item() for i in graphc.unravel_index(graphc.tensor(4), 6)] == [4]


# Products and distances


def test_products_are_numpys() -> None:
    a, b = array(2, 3), array(4, 1, 3, seed=1)
    x, y = graphc.from_numpy(a), graphc.from_numpy(b)
    np.testing.assert_allclose(graphc.kron(x, y).numpy(), np.kron(a, b))
    np.testing.assert_allclose(x.cross(x.flip((0,)), dim=1).numpy(), np.cross(a, a[::-1]))
    for increasing in (False, True):
        np.testing.assert_allclose(graphc.vander(x[0], 4, increasing).numpy(), np.vander(a[0], 4, increasing))
    assert graphc.vander(graphc.tensor([1, 2, 3])).tolist() == np.vander([1, 2, 3]).tolist()
    assert graphc.vander(x[0], 1).tolist() == [[1.0]] * 3
    assert graphc.vander(x[0], 0).shape == (3, 0)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")])
def test_distances(p: float) -> None:
    a, b = array(2, 3, 4), array(5, 4, seed=1)
    x, y = graphc.from_numpy(a), graphc.from_numpy(b)
    expected = np.empty((2, 3, 5))
    for at in np.ndindex(2, 3, 5):
        d = np.abs(a[at[:2]] - b[at[2]])
        expected[at] = d.max() if p == np.inf else (d != 0).sum() if p == 0 else (d**p).sum() ** (1 / p)
    np.testing.assert_allclose(graphc.cdist(x, y, p).numpy(), expected)
    all_pairs = graphc.cdist(y, y, p).numpy()
    np.testing.assert_allclose(graphc.pdist(y, p).numpy(), all_pairs[np.triu_indices(5, 1)], atol=1e-12)


def test_distances_by_a_product() -> None:
    a, b = array(30, 4), array(40, 4, seed=1)
    x, y = watched(a), watched(b)
    direct = graphc.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_allclose(graphc.cdist(x, y).detach().numpy(), direct.detach().numpy())
    same = graphc.cdist(x, x)
    grad = graphc.autograd.grad(same.sum(), x)[0]
    assert same.diagonal().abs().max().item() < 1e-6
    assert grad.isfinite().all().item()
    assert gradcheck(lambda x, y: graphc.cdist(x, y), (watched(a[:2]), watched(b[:26])))


def test_vectors_without_elements_are_alike() -> None:
    assert graphc.cdist(graphc.ones(2, 0), graphc.ones(3, 0)).tolist() == [[0.0] * 3] * 2
    assert graphc.pdist(graphc.ones(3, 0)).tolist() == [0.0] * 3
    assert graphc.pdist(graphc.ones(1, 2)).shape == (0,)


def test_renorm() -> None:
    x = graphc.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=graphc.float64)
    np.testing.assert_allclose(x.renorm(2, 0, 1.0).numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    assert x.renorm_(2, 0, 1.0) is x
    assert gradcheck(lambda x: x.renorm(1, 1, 0.5), (watched(array(3, 4)),))


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: x.hsplit(2), RuntimeError, "attempted to split along dimension 1, but the size of the dimension 3"),
    (lambda x: x[0].vsplit(1), RuntimeError, "requires a tensor with at least 2 dimension"),
    (lambda x: x.vsplit("a"), TypeError, "invalid combination"),
    (lambda x: x.split([1, 2]), RuntimeError, "to sum exactly to 2"),
    (lambda x: x.roll(()), RuntimeError, "`shifts` required"),
    (lambda x: x.roll((1, 2), 0), RuntimeError, "shifts and dimensions must align"),
    (lambda x: x.rot90(1, [0]), RuntimeError, "expected total rotation dims == 2"),
    (lambda x: x.rot90(1, [1, -1]), RuntimeError, "rotation dims to be different"),
    (lambda x: x[0, 0].flipud(), RuntimeError, "Input must be >= 1-d"),
    (lambda x: x.movedim((0, 1), (0,)), RuntimeError, "should contain the same number of dims"),
    (lambda x: x.movedim((0, -2), (0, 1)), RuntimeError, "repeated dim in `source`"),
    (lambda x: x.squeeze((0, 0)), RuntimeError, "dim 0 appears multiple times"),
    (lambda x: x.expand(2, -3), RuntimeError, "must match the existing size"),
    (lambda x: x.repeat(2), RuntimeError, "Number of dimensions of repeat dims"),
    (lambda x: x.repeat(), TypeError, "missing 1 required"),
    (lambda x: x.sum_to_size(2), RuntimeError, "is not expandable to size"),
    (lambda x: x.unflatten(1, (2, -1)), RuntimeError, "don't multiply up to the size of dim 1"),
    (lambda x: x.view(graphc.float64), RuntimeError, "must be divisible by 2"),
    (lambda x: graphc.cat([]), ValueError, "non-empty list of Tensors"),
    (lambda x: graphc.hstack([]), RuntimeError, "non-empty TensorList"),
    (lambda x: graphc.meshgrid(), RuntimeError, "non-empty TensorList"),
    (lambda x: graphc.meshgrid(x), RuntimeError, "Expected 0D or 1D"),
    (lambda x: graphc.cartesian_prod(x, x), RuntimeError, "Expect a 1D vector"),
    (lambda x: graphc.combinations(x), RuntimeError, "Expect a 1D vector"),
    (lambda x: graphc.unravel_index(x, (2,)), TypeError, "integer dtype"),
    (lambda x: x.cross(x, dim=0), RuntimeError, "must have length 3"),
    (lambda x: x[:, :2].cross(x[:, :2]), RuntimeError, "no dimension of size 3"),
    (lambda x: graphc.cdist(x, x[:, :2]), RuntimeError, "same number of columns"),
    (lambda x: graphc.cdist(x, x, p=-1), RuntimeError, "non-negative p"),
    (lambda x: graphc.cdist(x, x, compute_mode="fast"), ValueError, "not a valid value for compute_mode"),
    (lambda x: graphc.pdist(x[0]), RuntimeError, "only supports 2D"),
    (lambda x: x.renorm(2, 0, -1.0), RuntimeError, "maxnorm to be >= 0"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.ones(2, 3))


def test_a_start_that_is_a_tensor_can_be_traced() -> None:
    x = graphc.arange(20.0).reshape(4, 5)
    compiled = graphc.compile(lambda x, start: x.narrow(1, start, 2) * 2)
    for start in (0, 3, -2):
        np.testing.assert_array_equal(compiled(x, graphc.tensor(start)).numpy(), x.narrow(1, start, 2).numpy() * 2)
    with pytest.raises(IndexError, match="out of bounds"):
        compiled(x, graphc.tensor(4))


def pieces_used(function: Any, used: list[int]) -> tuple[Any, Any]:
    """The first derivative of what is made of some pieces of a tensor, and the second."""
    x = graphc.tensor(np.arange(24.0).reshape(4, 6), requires_grad=True)
    y = x * 1.0
    pieces = function(y)
    total = sum((pieces[k] ** 3 * (k + 1)).sum() for k in used)
    (first,) = graphc.autograd.grad(total, x, create_graph=True)
    (second,) = graphc.autograd.grad(first.sum(), x)
    return first.detach(), second


@pytest.mark.parametrize("used", [[0], [1], [0, 2], [2, 1, 0], [1, 1]])
@pytest.mark.parametrize("name", ["split", "chunk", "unbind", "sizes"])
def test_gradients_of_pieces(name: str, used: list[int]) -> None:
    function = {
        "split": lambda x: x.split(2, dim=1), "chunk": lambda x: x.chunk(3, dim=-1), "unbind": lambda x: x.unbind(0),
        "sizes": lambda x: x.split([1, 0, 5], dim=1),
    }[name]  # fmt: skip
    first, second = pieces_used(function, used)
    factor = np.zeros((4, 6))
    for k in used:
        index = {"split": np.s_[:, 2 * k : 2 * k + 2], "chunk": np.s_[:, 2 * k : 2 * k + 2], "unbind": np.s_[k],
                 "sizes": [np.s_[:, :1], np.s_[:, :0], np.s_[:, 1:]][k]}[name]
        factor[index] += k + 1
    x = np.arange(24.0).reshape(4, 6)
    np.testing.assert_allclose(first, 3 * factor * x**2)
    np.testing.assert_allclose(second, 6 * factor * x)


def test_pieces_are_outputs_of_one_node() -> None:
    x = graphc.zeros(4, 6, requires_grad=True)
    pieces = x.split(2, dim=1)
    assert pieces[0].grad_fn is pieces[2].grad_fn and pieces[0].grad_fn.name() == "SplitBackward0"
    assert [piece.output_nr for piece in pieces] == [0, 1, 2]
    assert pieces[1].grad_fn.next_functions[0][0].variable is x
    seen: list[Any] = []
    pieces[1].register_hook(lambda ct: seen.append(ct.tolist()))
    pieces[1].retain_grad()
    (pieces[1].sum() + pieces[2].sum()).backward()
    assert seen == [[[1.0, 1.0]] * 4] and pieces[1].grad.sum() == 8
    assert x.grad.sum(0).tolist() == [0.0, 0.0, 4.0, 4.0, 4.0, 4.0]
    with pytest.raises(RuntimeError, match="view and is being modified inplace"):
        x.clone().split(2)[0].add_(1)
    y = x.clone()
    piece = y.unbind(1)[3]
    y.mul_(2.0)
    piece.sum().backward()
    assert x.grad.sum(0).tolist() == [0.0, 0.0, 4.0, 12.0, 4.0, 4.0]
