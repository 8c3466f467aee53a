"""Writing by index and by mask, and picking by index functions, against loops over elements."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc.autograd import gradcheck, gradgradcheck
from graphc.errors import DimError

RNG = np.random.default_rng(0)
BASE, SOURCE = RNG.normal(size=(4, 5)), RNG.normal(size=(3, 4))
INDEX = RNG.integers(0, 4, (3, 4))


def watched(a: np.ndarray) -> graphc.Tensor:
    return graphc.from_numpy(a.copy()).requires_grad_()


def collected(base: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int) -> dict[tuple[int, ...], list[float]]:
    """What goes to each place, by the definition of scatter."""
    found: dict[tuple[int, ...], list[float]] = {}
    for at in itertools.product(*map(range, index.shape)):
        place = (*at[:dim], int(index[at]), *at[dim + 1 :])
        found.setdefault(place, []).append(src[at])
    return found


REDUCTIONS: dict[str, Callable[[list[float]], Any]] = {
    "sum": sum, "prod": np.prod, "mean": np.mean, "amax": max, "amin": min,
}  # fmt: skip


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dim", [0, 1])
def test_scatter_reduce(reduce: str, include_self: bool, dim: int) -> None:
    expected = BASE.copy()
    for place, numbers in collected(BASE, INDEX, SOURCE, dim).items():
        expected[place] = REDUCTIONS[reduce]([BASE[place]] * include_self + numbers)
    x, index, src = map(graphc.from_numpy, (BASE, INDEX, SOURCE))
    np.testing.assert_allclose(x.scatter_reduce(dim, index, src, reduce, include_self=include_self).numpy(), expected)


def test_scatter_writes_the_last_of_several() -> None:
    expected = BASE.copy()
    for place, numbers in collected(BASE, INDEX, SOURCE, 0).items():
        expected[place] = numbers[-1]
    x, index, src = map(graphc.from_numpy, (BASE, INDEX, SOURCE))
    np.testing.assert_array_equal(x.scatter(0, index, src).numpy(), expected)
    zeros = graphc.zeros(3)
    assert zeros.scatter(0, graphc.tensor([2, 0]), 5.0).tolist() == [5.0, 0.0, 5.0]
    assert zeros.scatter(0, graphc.tensor([1, 1]), graphc.tensor([1.0, 2.0]), reduce="add").tolist() == [0.0, 3.0, 0.0]
    assert (zeros + 2).scatter(0, graphc.tensor([1, 1]), 3.0, reduce="multiply").tolist() == [2.0, 18.0, 2.0]
    assert graphc.tensor(1.0).scatter(0, graphc.tensor(0), 4.0).item() == 4.0
    assert zeros.scatter(0, graphc.tensor([], dtype=graphc.int64), 4.0).tolist() == [0.0] * 3


def test_index_functions_write_rows() -> None:
    x, rows, index = graphc.zeros(3, 2), graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), graphc.tensor([2, 0])
    assert x.index_copy(0, index, rows).tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert x.index_add(0, graphc.tensor([1, 1]), rows, alpha=2).tolist() == [[0.0, 0.0], [8.0, 12.0], [0.0, 0.0]]
    assert x.index_fill(1, graphc.tensor([-1]), 7).tolist() == [[0.0, 7.0]] * 3
    assert (x + 5).index_reduce(0, graphc.tensor([1, 1]), rows, "amin").tolist() == [[5.0, 5.0], [1.0, 2.0], [5.0, 5.0]]
    assert x.index_reduce(0, index, rows, "mean", include_self=False).tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert graphc.tensor(3.0).index_copy(0, graphc.tensor(0), graphc.tensor(1.0)).item() == 1.0


def test_puts_and_masks() -> None:
    x = graphc.zeros(2, 2)
    assert x.put(graphc.tensor([0, -1, -1]), graphc.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 0.0], [0.0, 3.0]]
    assert x.put(graphc.tensor([0, 0]), graphc.tensor([1.0, 2.0]), accumulate=True).tolist() == [[3.0, 0.0], [0.0, 0.0]]
    mask = graphc.tensor([[True, False], [False, True]])
    assert x.masked_scatter(mask, graphc.tensor([5.0, 6.0, 7.0])).tolist() == [[5.0, 0.0], [0.0, 6.0]]
    assert x.masked_fill(mask, graphc.tensor(2.0, dtype=graphc.float64)).dtype is graphc.float32
    assert x.index_put((mask,), graphc.tensor([1.0, 2.0])).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert x.index_put((None, graphc.tensor([1, 1])), graphc.tensor([[1.0, 1.0], [2.0, 2.0]]), accumulate=True).tolist() == [
        [0.0, 2.0], [0.0, 4.0]]  # fmt: skip


def test_in_place_forms_change_the_tensor() -> None:
    x = graphc.zeros(3)
    kept = x
    x.index_fill_(0, graphc.tensor([0]), 1.0).put_(graphc.tensor([1]), graphc.tensor([2.0]))
    x.scatter_reduce_(0, graphc.tensor([2, 2]), graphc.tensor([3.0, 4.0]), "sum").masked_scatter_(x > 5, graphc.tensor([9.0]))
    assert kept.tolist() == [1.0, 2.0, 9.0]


UNIQUE = np.argsort(RNG.random((3, 4)), axis=1)
FLAT = np.array([0, 7, 3])


@pytest.mark.parametrize("function", [
    lambda x, y, i: x.scatter(1, i, y), lambda x, y, i: x.scatter_add(0, i, y),
    lambda x, y, i: x.scatter_reduce(0, i, y, "prod"), lambda x, y, i: x.scatter_reduce(0, i, y, "mean", include_self=False),
    lambda x, y, i: x.scatter_reduce(1, i, y, "amax"), lambda x, y, i: x.index_copy(1, i[0, :3], y.T),
    lambda x, y, i: x.index_reduce(1, i[0, :3], y.T, "prod"), lambda x, y, i: x.index_add(1, i[0, :3], y.T),
    lambda x, y, i: x.put(graphc.from_numpy(FLAT), y[0, :3]), lambda x, y, i: x.masked_scatter(x > 0, y.repeat(2, 2)),
    lambda x, y, i: x.index_fill(0, i[0, :2], y[0, 0]),
])  # fmt: skip
def test_gradients(function: Any) -> None:
    index = graphc.from_numpy(UNIQUE)
    assert gradcheck(lambda x, y: function(x, y, index), (watched(BASE), watched(SOURCE)))
    assert gradgradcheck(lambda x, y: function(x, y, index), (watched(BASE), watched(SOURCE)))


def test_the_gradient_of_an_extreme_is_shared_by_equals() -> None:
    x, y = graphc.tensor([1.0, 5.0], requires_grad=True), graphc.tensor([1.0, 1.0, 0.0], requires_grad=True)
    x.scatter_reduce(0, graphc.tensor([0, 0, 1]), y, "amax").sum().backward()
    assert x.grad.tolist() == [pytest.approx(1 / 3), 1.0]
    assert y.grad.tolist() == [pytest.approx(1 / 3), pytest.approx(1 / 3), 0.0]


@pytest.mark.parametrize("numbers, gradients", [
    ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]), ([0.0, 3.0, 4.0], [12.0, 0.0, 0.0]), ([0.0, 0.0, 4.0], [0.0, 0.0, 0.0]),
])  # fmt: skip
def test_products_have_gradients_through_zeros(numbers: list[float], gradients: list[float]) -> None:
    y = graphc.tensor(numbers, requires_grad=True)
    graphc.ones(1).scatter_reduce(0, graphc.tensor([0, 0, 0]), y, "prod").sum().backward()
    assert y.grad.tolist() == gradients


@pytest.mark.parametrize("call, kind, message", [
    (lambda x, i: x.scatter(0, i[0], x), RuntimeError, "same number of dimensions"),
    (lambda x, i: x.scatter(0, i, x.double()), RuntimeError, r"scatter\(\): Expected self.dtype to be equal to src.dtype"),
    (lambda x, i: x.scatter(0, i + 9, x), RuntimeError, "index 9 is out of bounds for dimension 0 with size 2"),
    (lambda x, i: x.scatter(0, i - 9, x), RuntimeError, "out of bounds"),
    (lambda x, i: x.scatter(0, i, x[:, :1]), RuntimeError, "no larger size than src"),
    (lambda x, i: x.scatter(0, i, x, reduce="mean"), RuntimeError, "either add or multiply"),
    (lambda x, i: x.scatter_reduce(0, i, x, "add"), RuntimeError, "either sum, prod, mean, amax or amin"),
    (lambda x, i: x.scatter_reduce(0, i, 1.0, "sum"), TypeError, "must be Tensor"),
    (lambda x, i: x.scatter(0, i.float(), x), RuntimeError, "Expected dtype int32 or int64"),
    (lambda x, i: x.index_copy(0, i, x), IndexError, "Index should have dimension 1 or 0"),
    (lambda x, i: x.index_copy(0, i[0, :1], x), IndexError, "Number of indices"),
    (lambda x, i: x.index_copy(0, i[0, :2] + 9, x), IndexError, "index 9 is out of bounds"),
    (lambda x, i: x.index_add(0, i[0, :2], x[:, :1]), RuntimeError, "source tensor shape must match self tensor shape"),
    (lambda x, i: x.index_reduce(0, i[0, :2], x, "sum"), RuntimeError, "prod, mean, amax or amin"),
    (lambda x, i: x.index_fill(0, i[0], x), RuntimeError, "0-dimensional value tensor"),
    (lambda x, i: x.index_put((i,), x[0].double()), RuntimeError, "destination dtypes match"),
    (lambda x, i: x.masked_fill(i, 1.0), RuntimeError, "boolean masks"),
    (lambda x, i: x.masked_fill(x > 0, 1j), RuntimeError, "without overflow"),
    (lambda x, i: x.masked_scatter(x >= 0, x[0]), RuntimeError, "Number of elements of source < number of ones in mask"),
    (lambda x, i: x.put(i + 9, x), IndexError, "tried to access index 9 on a tensor of 6 elements"),
    (lambda x, i: x.take(i - 9), IndexError, "tried to access index -9"),
])  # fmt: skip
def test_what_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.ones(2, 3), graphc.zeros(2, 3, dtype=graphc.int64))


def test_assignment_wants_one_dtype() -> None:
    x = graphc.zeros(3)
    with pytest.raises(RuntimeError, match="destination dtypes match"):
        x[graphc.tensor([0])] = graphc.ones(1, dtype=graphc.float64)
    x[x == 0] = graphc.tensor(2.0, dtype=graphc.float64)
    x[0] = graphc.tensor(1, dtype=graphc.int64)
    assert x.tolist() == [1.0, 2.0, 2.0]


# Picking


@given(st.lists(st.booleans(), max_size=6), st.integers(0, 8))
def test_nonzero_static(mask: list[bool], size: int) -> None:
    x = graphc.tensor(mask, dtype=graphc.bool)
    expected = [*np.flatnonzero(mask).tolist(), *[-7] * size][:size]
    assert x.nonzero_static(size=size, fill_value=-7).tolist() == [[i] for i in expected]


def test_places() -> None:
    x = graphc.tensor([[0, 1], [2, 0]])
    assert x.argwhere().tolist() == [[0, 1], [1, 0]]
    assert x.nonzero_static(size=3).tolist() == [[0, 1], [1, 0], [-1, -1]]
    assert graphc.tensor(5).argwhere().shape == (1, 0)
    assert x.take(graphc.tensor([[-1, 2]])).tolist() == [[0, 2]]


def test_repeats() -> None:
    x, counts = graphc.tensor([[1, 2], [3, 4]]), graphc.tensor([2, 0])
    assert x.repeat_interleave(counts, 0).tolist() == [[1, 2], [1, 2]]
    assert x.repeat_interleave(2).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert graphc.repeat_interleave(counts).tolist() == [0, 0]
    compiled = graphc.compile(lambda x, n: x.repeat_interleave(n, 1, output_size=3))
    assert compiled(x, graphc.tensor([1, 2])).tolist() == [[1, 2, 2], [3, 4, 4]]
    assert compiled(x, graphc.tensor([3, 0])).tolist() == [[1, 1, 1], [3, 3, 3]]
    with pytest.raises(RuntimeError, match="same size as input along dim"):
        x.repeat_interleave(graphc.tensor([1, 2, 3]), 0)


@pytest.mark.parametrize("value", [5.0, [1.0, 2.0, 3.0], [[1.0], [2.0]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
def test_writing_by_mask_can_be_traced(value: Any) -> None:
    def write(x: graphc.Tensor, mask: graphc.Tensor, new: graphc.Tensor) -> graphc.Tensor:
        x = x.clone()
        x[mask] = new
        return x + x.index_put((mask,), new, accumulate=True)

    x, mask, new = graphc.arange(9.0).reshape(3, 3), graphc.tensor([True, False, True]), graphc.tensor(value)
    compiled = graphc.compile(write)
    for _ in range(2):
        assert compiled(x, mask, new).tolist() == write(x, mask, new).tolist()


def test_scatters_compile_with_their_gradients() -> None:
    index = graphc.from_numpy(INDEX)

    def loss(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        product = x.scatter_reduce(0, index, y, "prod")
        return (x.scatter(0, index, y) * x.scatter_reduce(0, index, y, "amax")).sum() + product.sum()

    @graphc.compile
    def gradients(x: graphc.Tensor, y: graphc.Tensor) -> Any:
        return graphc.autograd.grad(loss(x, y), (x, y))

    x, y = watched(BASE), watched(SOURCE)
    for ours, expected in zip(gradients(x, y), graphc.autograd.grad(loss(x, y), (x, y)), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), expected.numpy())


COMBINED: dict[str | None, Any] = {
    None: lambda there, new: new, "sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum,
}


def scattered(base: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray, reduce: str | None) -> np.ndarray:
    """By definition: one element after another."""
    out = base.copy()
    for place in np.ndindex(index.shape):
        to = (*place[:dim], index[place], *place[dim + 1 :])
        with np.errstate(invalid="ignore"):
            out[to] = COMBINED[reduce](out[to], src[place])
    return out


@pytest.mark.parametrize(("dtype", "reduce"), [
    *itertools.product(["float32", "float16", "int64", "uint8"], COMBINED), ("bool", None), ("complex64", None),
])
def test_compiled_scatters_give_what_one_write_after_another_does(dtype: str, reduce: str | None) -> None:
    write = graphc.compile(lambda x, dim, index, src: x.scatter(dim, index, src) if reduce is None
                           else x.scatter_reduce(dim, index, src, reduce))
    rng = np.random.default_rng(5)
    for shape, part in [((9,), (30,)), ((40, 70), (33, 70)), ((6, 37), (6, 90)), ((3, 5, 4), (2, 5, 3)), ((4, 3), (0, 3))]:
        for dim in range(len(shape)):
            sizes = tuple(n if k == dim else min(n, shape[k]) for k, n in enumerate(part))
            index = rng.integers(0, shape[dim], sizes)
            base, src = (rng.integers(0, 4, s).astype(dtype) for s in (shape, sizes))
            if dtype == "float32" and src.size > 20:
                src.flat[7], src.flat[11] = np.nan, -np.inf
            x, places, new = map(graphc.from_numpy, (base, index, src))
            found = write(x, dim - len(shape), places, new)
            np.testing.assert_array_equal(found.numpy(), scattered(base, dim, index, src, reduce))


def test_large_scatters_run_compiled_eagerly_and_refuse_places_that_are_not_there() -> None:
    rng = np.random.default_rng(6)
    x, src, index = rng.standard_normal((400, 500)), rng.standard_normal((400, 500)), rng.integers(0, 400, (400, 500))
    tensors = [graphc.from_numpy(a) for a in (x, index, src)]
    expected = scattered(x, 0, index, src, None)
    for _ in range(8):
        np.testing.assert_array_equal(tensors[0].scatter(0, *tensors[1:]).numpy(), expected)
    tensors[1][7, 9] = 400
    with pytest.raises(DimError, match="400 is out of bounds for dimension 0 with size 400"):
        tensors[0].scatter(0, *tensors[1:])
    with pytest.raises(DimError, match="an index is out of bounds"):
        graphc.compile(lambda x, i, s: x.scatter(0, i, s))(*tensors)


@pytest.mark.parametrize("reduce", [None, "prod", "amax", "mean"])
@pytest.mark.parametrize("dim", [0, 1])
def test_compiled_scatters_are_differentiated(reduce: str | None, dim: int) -> None:
    rng = np.random.default_rng(7)
    index = graphc.from_numpy(np.argsort(rng.random((4, 4)), dim))
    f = graphc.compile(lambda x, y: x.scatter(dim, index, y) if reduce is None else x.scatter_reduce(dim, index, y, reduce))
    assert gradcheck(f, tuple(graphc.from_numpy(rng.standard_normal((4, 4))).requires_grad_() for _ in range(2)))


@pytest.mark.parametrize("accumulate", [False, True])
def test_writes_at_listed_places_stay_the_same_once_they_have_code(accumulate: bool) -> None:
    rng = np.random.default_rng(8)
    base, new = rng.standard_normal((4, 3, 5)), rng.standard_normal((2, 3))
    rows, columns = np.array([3, -2]), np.array([[4, 0, -1], [1, 1, 2]])
    expected = base.copy()
    (np.add.at if accumulate else np.ndarray.__setitem__)(expected, (rows[:, None], slice(None), columns), new[..., None])
    x, y, i, j = map(graphc.from_numpy, (base.copy(), new[..., None].copy(), rows, columns))
    for _ in range(90):
        found = x.index_put((i[:, None], None, j), y, accumulate)
        np.testing.assert_allclose(found.numpy(), expected)
    weight = graphc.randn(4, 3, 5, dtype=graphc.float64)
    for _ in range(90):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        out = a.index_put((i[:, None], None, j), b, accumulate)
        assert "IndexPut" in type(out.grad_fn).__name__
        (out * weight).sum().backward()
        kept = np.ones(base.shape)
        if not accumulate:
            kept[rows[:, None], :, columns] = 0
        np.testing.assert_allclose(a.grad.numpy(), weight.numpy() * kept)
    leaves = [t.clone().requires_grad_() for t in (x, y)]
    once = j if accumulate else graphc.tensor([[4, 0, 1], [1, 0, 2]])  # of several for one place each has the cotangent
    assert gradcheck(lambda a, b: a.index_put((i[:, None], None, once), b, accumulate), tuple(leaves))


def test_items_at_listed_places_are_set_by_code_and_checked() -> None:
    x, i = graphc.zeros(5, 2), graphc.tensor([4, 0, -1])
    for k in range(90):
        x[i] = float(k)
        x[i, 1] = graphc.tensor([1.0, 2.0, 3.0])
        assert x.tolist() == [[k, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [k, 3.0]]
    i[1] = 5
    with pytest.raises(DimError, match="index 5 is out of bounds for dimension 0 with size 5"):
        x[i] = 1.0
    leaf = graphc.ones(5, 2, requires_grad=True)
    for _ in range(90):
        y = leaf * 1
        y[graphc.tensor([0, 2])] = leaf[3:] * 2
        y.sum().backward()
        assert leaf.grad.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [3.0, 3.0], [3.0, 3.0]]
        leaf.grad = None
