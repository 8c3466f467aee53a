"""Nodes that run natively on arrays of any layout: gradients of what was broadcast, cut out or converted."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend import composite as composites
from graphc.frontend import eager
from graphc.frontend.composite import composite
from graphc.frontend.graph_call import CompiledBackward
from graphc.frontend.native import TENSORS
from graphc.frontend.tape import OpNode
from graphc.frontend.tensor import Tensor

pytestmark = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end makes no native code")


class Missed(Exception):
    pass


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nodes run natively from the second one of each plan on."""
    monkeypatch.setattr(eager, "engine", get_backend("llvm").engine(TENSORS))
    monkeypatch.setattr(eager, "MANY", 0)
    yield


@pytest.fixture
def by_python(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    def run(function: Callable[..., Tensor], ct: Any, *leaves: Tensor) -> list[np.ndarray]:
        with monkeypatch.context() as patch:
            patch.setattr(eager, "engine", None)
            return grads(function, ct, *leaves)

    return run


@pytest.fixture
def natively(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    """Gradients where a node that Python runs is an error."""

    def missed(self: Any, cotangents: Any) -> Any:
        raise Missed(self.name())

    def run(function: Callable[..., Tensor], ct: Any, *leaves: Tensor) -> list[np.ndarray]:
        grads(function, ct, *leaves)
        with monkeypatch.context() as patch:
            patch.setattr(OpNode, "apply", missed)
            patch.setattr(CompiledBackward, "apply", missed)
            return grads(function, ct, *leaves)

    return run


def leaf(*shape: int, dtype: Any = graphc.float32, seed: int = 0) -> Tensor:
    return graphc.tensor(np.random.default_rng(seed).uniform(-2, 2, shape), dtype=dtype).requires_grad_()


def grads(function: Callable[..., Tensor], ct: Any, *leaves: Tensor) -> list[np.ndarray]:
    for x in leaves:
        x.grad = None
    out = function(*leaves)
    out.backward(ct(out))
    found = [x.grad.float() if x.dtype is graphc.bfloat16 else x.grad for x in leaves]
    return [grad.numpy().copy() for grad in found]


def dense(out: Tensor) -> Tensor:
    return graphc.tensor(np.random.default_rng(9).uniform(-2, 2, tuple(out.shape)), dtype=out.dtype)


def turned(out: Tensor) -> Tensor:
    """Numbers that stand in another order in memory."""
    return graphc.tensor(np.random.default_rng(9).uniform(-2, 2, tuple(out.shape)[::-1]), dtype=out.dtype).permute(
        *range(out.ndim - 1, -1, -1))


def stretched(out: Tensor) -> Tensor:
    return graphc.tensor(0.75, dtype=out.dtype).expand(out.shape)


CTS = (dense, turned, stretched)

SLICES: list[Any] = [
    0, -1, slice(1, 3), slice(None, None, 2), slice(1, None, 3), slice(2, 2), (slice(None), 1), (slice(None), slice(1, 3)),
    (0, 2), (0, slice(None, None, 2)), (slice(1, 4, 2), slice(None, -1)), None, (None, 1), (1, None), (..., 0),
    (..., None, slice(1, 2)), (slice(0, 1), slice(4, 5)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.float16, graphc.bfloat16, graphc.complex64])
def test_slices(dtype: Any, by_python: Any, natively: Any) -> None:
    for index, ct, shape in itertools.product(SLICES, CTS, ((4, 5), (5, 6, 2))):
        x = leaf(*shape, dtype=dtype)
        expected = by_python(lambda x, index=index: x[index], ct, x)
        for found, wanted in zip(natively(lambda x, index=index: x[index], ct, x), expected, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
@pytest.mark.parametrize(("shape", "wide"), [
    ((), ()), ((), (3,)), ((), (2, 0)), ((1,), (5,)), ((5,), (4, 5)), ((4, 1), (4, 5)), ((1, 5), (4, 5)),
    ((4, 1, 3), (2, 4, 7, 3)),
    ((1, 1), (37, 23)), ((2, 1, 1, 5), (2, 3, 4, 5)), ((0, 1), (0, 3)), ((1, 3), (0, 3)), ((3, 1), (3, 0)), ((1,), (1, 1, 1)),
])  # fmt: skip
def test_what_was_stretched_is_summed(shape: Any, wide: Any, dtype: Any, by_python: Any, natively: Any) -> None:
    x = leaf(*shape, dtype=dtype)
    for ct in CTS:
        expected = by_python(lambda x: x.expand(wide), ct, x)
        for found, wanted in zip(natively(lambda x: x.expand(wide), ct, x), expected, strict=True):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype is graphc.float32 else 1e-13, atol=1e-5)


OPS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / (y.abs() + 1),
    "maximum": lambda x, y: graphc.maximum(x, y),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(("left", "right"), [
    ((4, 5), (5,)), ((5,), (4, 5)), ((4, 1), (4, 5)), ((4, 5), (4, 1)), ((4, 1), (1, 5)), ((), (3, 2)), ((3, 2), ()),
    ((1,), (3, 2)),
    ((2, 3, 4), (3, 1)), ((2, 1, 4), (3, 1)), ((0, 3), (3,)), ((0, 3), (1, 1)), ((7, 1, 6), (7, 5, 6)),
])  # fmt: skip
def test_operands_of_other_shapes(left: Any, right: Any, name: str, dtype: Any, by_python: Any, natively: Any) -> None:
    x, y = leaf(*left, dtype=dtype), leaf(*right, dtype=dtype, seed=1)
    for ct, (a, b) in itertools.product(CTS, ((x, y), (x, y.detach()), (x.detach(), y))):
        leaves = [t for t in (a, b) if t.requires_grad]

        def function(*given: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            return OPS[name](a, b)

        expected, found = by_python(function, ct, *leaves), natively(function, ct, *leaves)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [
    lambda x: x.T * 2, lambda x: x.T.relu().T, lambda x: x[:, ::2].abs(), lambda x: x.T.reshape(-1),
    lambda x: (x.T * x.T).T.exp(), lambda x: x[1:].T + (x[1:].T + 1).sqrt(),
    lambda x: x.reshape(-1)[::3] * x.T.reshape(-1)[::3],
    lambda x: x.double(), lambda x: x.double().T * 2, lambda x: (x.double() * x[:, :1].double()).float(),
])  # fmt: skip
def test_layouts_and_conversions(function: Any, by_python: Any, natively: Any) -> None:
    x = leaf(4, 5)
    with graphc.no_grad():
        x.abs_()
    for ct in CTS:
        np.testing.assert_allclose(natively(function, ct, x)[0], by_python(function, ct, x)[0], rtol=1e-5, atol=1e-6)


def test_random_programs(by_python: Any) -> None:
    """Whatever runs natively, and whatever does not."""
    rng = np.random.default_rng(3)
    steps: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda a, b: a * b[:1], lambda a, b: a + b[:, :1], lambda a, b: a[1:] - b[1:], lambda a, b: a.T.relu().T,
        lambda a, b: a[:, ::2] * b[0, ::2], lambda a, b: a.reshape(-1)[: len(a)].reshape(-1, 1) + b,
        lambda a, b: a.expand(2, *a.shape)[1],
        lambda a, b: a.unsqueeze(0)[0].double().float(), lambda a, b: a / (b.abs() + 1).sum(), lambda a, b: a.T[:1].T * b,
    ]  # fmt: skip
    for _ in range(60):
        chosen = [steps[k] for k in rng.integers(len(steps), size=6)]

        def program(x: Tensor, y: Tensor, chosen: Any = chosen) -> Tensor:
            a, b = x, y
            for step in chosen:
                c = step(a, b)
                if c.ndim != 2 or 0 in c.shape:
                    continue
                a, b = c, b[: c.shape[0], : c.shape[1]]
                b = b if b.shape == a.shape else a * 0.5
            return a

        leaves = leaf(6, 7), leaf(6, 7, seed=1)
        expected = by_python(program, dense, *leaves)
        grads(program, dense, *leaves)
        for found, wanted in zip(grads(program, dense, *leaves), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_gradients_of_parts_are_their_own(natively: Any) -> None:
    given = graphc.ones(2, 3)
    x = leaf(4, 3)
    (found,) = natively(lambda x: x[1:3], lambda out: given, x)
    x.grad.add_(1.0)
    assert given.tolist() == [[1.0] * 3] * 2
    assert found.tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3, [0.0] * 3]


def test_several_results_of_a_compiled_node(monkeypatch: pytest.MonkeyPatch, natively: Any) -> None:
    monkeypatch.setattr(composites, "OFTEN", 1)

    @composite
    def two(x: Any, y: Any) -> Any:
        return x.exp() * 2, (x * y).sum(0)

    x, y = leaf(3, 4), leaf(3, 4, seed=1)
    n, m = x.detach().numpy(), y.detach().numpy()
    ways: list[tuple[Callable[..., Tensor], tuple[np.ndarray, np.ndarray]]] = [
        (lambda x, y: (lambda a, b: a + b)(*two(x, y)), (2 * np.exp(n) + 3 * m, 3 * n)),
        (lambda x, y: (lambda a, b: a * 2 + b.expand(3, 4) + a)(*two(x, y)), (6 * np.exp(n) + 3 * m, 3 * n)),
        (lambda x, y: two(x.T.contiguous().T, y)[1], (m, n)),
    ]
    for function, expected in ways:
        for _ in range(3):
            found = natively(function, graphc.ones_like, x, y)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    for _ in range(3):  # no gradient goes to y from the first result
        x.grad = y.grad = None
        two(x, y)[0].sum().backward()
        assert y.grad is None
        np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(n), rtol=1e-5)


def test_no_reference_is_lost() -> None:
    x, y, col = leaf(4, 5), leaf(4, 5, seed=1), leaf(4, 1, seed=2)

    def once() -> None:
        a = (x * col + y[1:, ::2].T.expand(2, 3, 3)[0].sum()).double()
        (a.T.float() * col.T + x[0, 1]).relu()[:, 1].backward(graphc.ones(5))

    for _ in range(2 * composites.OFTEN):
        once()
    gc.collect()
    things = (None, np.dtype(np.float32), np.dtype(np.float64), Tensor, np.ndarray, x, y, col, True)
    before, blocks = [sys.getrefcount(thing) for thing in things], sys.getallocatedblocks()
    for _ in range(200):
        once()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in things]
    assert all(abs(b - a) < 100 for a, b in zip(before, after))
    assert sys.getallocatedblocks() - blocks < 500


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.bfloat16, graphc.complex64])
@pytest.mark.parametrize("cut", [
    lambda x: x.split(2), lambda x: x.split([1, 0, 3], 0), lambda x: x.chunk(3, 1), lambda x: x.unbind(), lambda x: x.unbind(1),
    lambda x: x.split([5], 1),
])  # fmt: skip
def test_pieces(cut: Callable[[Tensor], Any], dtype: Any) -> None:
    x = leaf(4, 5, dtype=dtype)
    count = len(cut(x))
    for used in ([0], [count - 1], list(range(count))):
        for create_graph in (False, True):
            pieces = cut(x)
            total = sum((pieces[k] * (k + 1)).sum() for k in used)
            (found,) = graphc.autograd.grad(total, x, graphc.ones_like(total), create_graph=create_graph)
            weights = cut(graphc.zeros(4, 5))
            for k in used:
                weights[k].fill_(k + 1.0)
            base = weights[0]._base
            assert base is not None and found.dtype is dtype and found.shape == x.shape
            assert found.detach().tolist() == base.to(dtype).tolist()


@pytest.mark.parametrize("source", [graphc.float16, graphc.bfloat16, graphc.float32, graphc.float64, graphc.complex64])
def test_conversions_and_copies_are_recorded(source: Any) -> None:
    for target in (graphc.float16, graphc.float32, graphc.float64, graphc.complex64):
        x = graphc.ones(2, 3, dtype=source).requires_grad_()
        copy = x.clone()
        assert copy.dtype is source and copy.grad_fn.name() == "CloneBackward0" and not copy._is_view()
        if target is source or (source.is_complex and not target.is_complex):
            continue
        made = x.to(target)
        assert made.dtype is target and made.grad_fn.name() == "ToCopyBackward0" and not made._is_view()
        (made * 2 + copy.to(target)).backward(graphc.ones(2, 3, dtype=target))
        assert x.grad.dtype is source and (x.grad == 3).all()
    with graphc.inference_mode():
        assert graphc.ones(2).double().is_inference() and graphc.ones(2).clone().is_inference()
    with graphc.no_grad():
        assert not graphc.ones(2, requires_grad=True).double().requires_grad
