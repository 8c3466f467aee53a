"""Nodes that run natively compute what Python computes, and leave to it what is out of the ordinary."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, ops
from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend import eager
from graphc.frontend.native import TENSORS
from graphc.frontend.node import Node
from graphc.frontend.tape import OpNode
from graphc.frontend.tensor import Tensor
from graphc.op import OPS, OpDef

pytestmark = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end makes no native code")

RULES = [record for record in OPS.values() if record in eager.EXACT or record in (ops.sigmoid, ops.tanh, ops.exp, ops.log)]


class Missed(Exception):
    pass


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nodes run natively from the second one of each plan on."""
    monkeypatch.setattr(eager, "engine", get_backend("llvm").engine(TENSORS))
    monkeypatch.setattr(eager, "MANY", 0)
    yield


@pytest.fixture
def only_native(native: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, a node that Python runs is an error."""

    def apply(self: OpNode, cotangents: Any) -> Any:
        raise Missed(self.name())

    return lambda: monkeypatch.setattr(OpNode, "apply", apply)


def leaf(shape: Any, dtype: Any = graphc.float32, seed: int = 0) -> Tensor:
    numbers = np.random.default_rng(seed).uniform(-2, 2, shape)
    return graphc.tensor(numbers, dtype=dtype).requires_grad_()


def grads(function: Callable[..., Tensor], *leaves: Tensor) -> list[np.ndarray | None]:
    for x in leaves:
        x.grad = None
    out = function(*leaves)
    out.backward(graphc.full(out.shape, 0.75, dtype=out.dtype))
    return [None if x.grad is None else x.grad.numpy().copy() for x in leaves]


def same_bits(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (2, 3, 37)])
@pytest.mark.parametrize("record", RULES, ids=lambda record: record.name)
def test_rules_compute_the_same_bits(
    record: OpDef, shape: Any, dtype: Any, only_native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if record.name in ("eq", "ne", "lt", "le", "gt", "ge"):
        return  # which have no derivative
    x, y = leaf(shape, dtype), leaf(shape, dtype, 1)
    variants: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = []
    if len(record.operands) == 1:
        variants.append((lambda x: record(x), (x,)))
    else:
        variants += [(lambda x, y: record(x, y), (x, y)), (lambda x: record(x, y.detach()), (x,)),
                     (lambda y: record(x.detach(), y), (y,))]
    for function, leaves in variants:
        with monkeypatch.context() as patch:
            patch.setattr(eager, "engine", None)
            expected = grads(function, *leaves)
        grads(function, *leaves)  # makes the code
        with monkeypatch.context() as patch:
            patch.setattr(OpNode, "apply", None)
            found = grads(function, *leaves)
        for a, b in zip(found, expected, strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize("function", [
    lambda x: x * 2.5, lambda x: 2 * x, lambda x: x / 3, lambda x: 1.5 - x, lambda x: x * graphc.arange(5.0),
    lambda x: x / (graphc.arange(5.0) + 1), lambda x: x + graphc.ones(5), lambda x: x * graphc.tensor(3.0),
    lambda x: x.reshape(5, 3) * 2, lambda x: x.T.T, lambda x: x.reshape(1, 15, 1).permute(2, 1, 0).reshape(-1),
    lambda x: x.unsqueeze(0).squeeze(0) + 1, lambda x: (x * x.detach()).relu().view(15), lambda x: x.clone() * x,
    lambda x: x[None] * 3,
])  # fmt: skip
def test_numbers_rows_and_shapes(function: Callable[..., Tensor], only_native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = leaf((3, 5))
    with monkeypatch.context() as patch:
        patch.setattr(eager, "engine", None)
        (expected,) = grads(function, x)
    grads(function, x)
    only_native()
    (found,) = grads(function, x)
    assert same_bits(found, expected)


def test_what_was_broadcast_is_summed(native: None) -> None:
    x, row = leaf((3, 5)), leaf((5,), seed=1)
    for _ in range(3):
        found = grads(lambda x, row: x * row + row, x, row)
    np.testing.assert_allclose(found[0], np.broadcast_to(0.75 * row.detach().numpy(), (3, 5)), rtol=1e-6)
    np.testing.assert_allclose(found[1], (0.75 * x.detach().numpy() + 0.75).sum(0), rtol=1e-6)


def test_other_layouts_and_dtypes(native: None) -> None:
    for dtype in (graphc.float32, graphc.float16, graphc.bfloat16, graphc.complex64):
        x = graphc.ones(3, 4, dtype=dtype).requires_grad_()
        for _ in range(3):
            x.grad = None
            (x * 2.0).T.backward(graphc.arange(12).reshape(4, 3).to(dtype))
        assert x.grad is not None and x.grad.dtype is dtype
        assert x.grad.to(graphc.complex64).real.tolist() == (2.0 * np.arange(12).reshape(4, 3).T).tolist()


def test_branches_run_youngest_first(native: None) -> None:
    seen: list[str] = []

    def noted(name: str) -> Callable[[Any], None]:
        return lambda ct: seen.append(name)

    for watch in (False, True):
        x = leaf((4,))
        a, b = x * 2, x * 3
        c, d = a * b, b + 1
        e = (a + c) * d
        if watch:
            for name, t in zip("abcde", (a, b, c, d, e)):
                t.register_hook(noted(name))
        e.backward(graphc.ones(4))
    n = x.detach().numpy().astype(np.float64)
    np.testing.assert_allclose(x.grad.numpy(), (2 + 12 * n) * (3 * n + 1) + (2 * n + 6 * n * n) * 3, rtol=1e-5)
    assert seen == ["e", "d", "c", "b", "a"]


def test_parts_of_a_diamond_are_added_up(native: None) -> None:
    x = leaf((4,))
    for _ in range(3):
        y = x
        for _ in range(10):
            y = y + y
        x.grad = None
        y.backward(graphc.ones(4))
    assert x.grad.tolist() == [1024.0] * 4


def test_gradients_accumulate_and_are_their_own(native: None) -> None:
    x, given = leaf((4,)), graphc.ones(4)
    for k in range(4):
        (x + 1).backward(given)
        assert x.grad.tolist() == [k + 1.0] * 4
    assert given.tolist() == [1.0] * 4
    y = leaf((2, 2))
    y.reshape(4).backward(given)
    y.grad.add_(5.0)
    assert given.tolist() == [1.0] * 4


def test_a_freed_graph_is_an_error_and_a_retained_one_is_not(native: None) -> None:
    x = leaf((4,))
    for _ in range(3):
        y = (x * x).exp()
        y.backward(graphc.ones(4), retain_graph=True)
        y.backward(graphc.ones(4))
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            y.backward(graphc.ones(4))


def test_changes_in_place_are_noticed(native: None) -> None:
    x = leaf((4,))
    for _ in range(3):
        a = x * 1.0
        b = a * a
        a.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            b.backward(graphc.ones(4))
        c = (x * 1.0).exp()
        d = c * 2.0
        c.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (c.sum() + d.sum()).backward()
    weight = leaf((4,))
    with graphc.no_grad():
        weight.mul_(2.0)  # before it is saved: that is no change of what was saved
    (x * weight).backward(graphc.ones(4))
    y = x * weight
    with graphc.no_grad():
        weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(graphc.ones(4))


def test_hooks_run_and_may_fail(native: None) -> None:
    class Stop(Exception):
        pass

    def fail(ct: Any) -> None:
        raise Stop

    x = leaf((4,))
    for _ in range(3):
        a = x * 2
        a.register_hook(lambda ct: ct * 10)
        x.grad = None
        (a * 3).backward(graphc.ones(4))
        assert x.grad.tolist() == [60.0] * 4
        b = x * 2
        b.grad_fn.register_prehook(lambda cts: (cts[0] + 1,))
        b.retain_grad()
        x.grad = None
        (b * 3).backward(graphc.ones(4))
        assert b.grad.tolist() == [3.0] * 4 and x.grad.tolist() == [8.0] * 4
        c = x * 2
        c.register_hook(fail)
        with pytest.raises(Stop):
            (c * 3 + 1).backward(graphc.ones(4))
    y = leaf((4,))
    y.register_hook(fail)
    with pytest.raises(Stop):
        (x * y).backward(graphc.ones(4))
    y.register_post_accumulate_grad_hook(lambda t: None)


def test_a_sum_that_fails_is_the_error(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(left: Any, right: Any) -> Any:
        raise Missed

    x = leaf((4,))
    a = x * 2
    b = (a + 1) * (a + 2)
    for _ in range(2):
        b.backward(graphc.ones(4), retain_graph=True)
    monkeypatch.setitem(eager.functions, ops.add, fail)
    with pytest.raises(Missed):
        b.backward(graphc.ones(4))


def test_higher_derivatives_are_recorded(native: None) -> None:
    x = leaf((4,))
    for _ in range(3):
        y = (x * x * x).exp()
        (g,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
        x.grad = None
        g.sum().backward()
    n = x.detach().numpy().astype(np.float64)
    np.testing.assert_allclose(x.grad.numpy(), np.exp(n**3) * (6 * n + 9 * n**4), rtol=1e-3, atol=1e-3)


def test_anomaly_mode_names_the_node(native: None) -> None:
    x = graphc.zeros(4, requires_grad=True)
    for _ in range(3):
        x.sqrt().backward(graphc.zeros(4))
    error = pytest.raises(RuntimeError, match="SqrtBackward0")
    with graphc.autograd.set_detect_anomaly(True), pytest.warns(UserWarning), error:
        x.sqrt().backward(graphc.zeros(4))


def test_parameters_and_other_subclasses(native: None) -> None:
    class Marked(Tensor):
        pass

    def marked_(tensor: Tensor) -> Marked:
        made = object.__new__(Marked)
        made._data, made._node, made._meta = tensor._data, None, None
        return made

    for leaf_ in (nn.Parameter(graphc.ones(4)), marked_(graphc.ones(4)).requires_grad_()):
        for _ in range(3):
            leaf_.grad = None
            (leaf_ * 2 + leaf_).backward(graphc.ones(4))
        assert leaf_.grad.tolist() == [3.0] * 4
    marked = marked_(graphc.full((4,), 2.0))
    x = leaf((4,))
    for _ in range(3):
        x.grad = None
        (x * 2 + 1).backward(marked)
    assert x.grad.tolist() == [4.0] * 4


def test_nodes_of_other_kinds_between(native: None) -> None:
    class Twice(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct * 2

    x = leaf((4, 4))
    for _ in range(3):
        y = Twice.apply(x * 3) + x
        values, _ = y.max(1)
        left, right = y.split(2, 1)
        x.grad = None
        (values.sum() + (left * right).sum() + (y @ y).sum()).backward()
    found = x.grad.clone()
    z = x.detach().clone().requires_grad_()
    y = z * 6 + z
    (y.amax(1).sum() + (y[:, :2] * y[:, 2:]).sum() + (y @ y).sum()).backward()
    np.testing.assert_allclose(found.numpy(), z.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_long_chains(native: None) -> None:
    x = leaf((4,))
    for _ in range(2):
        y = x
        for _ in range(20_000):
            y = y * 1.0
        x.grad = None
        y.backward(graphc.ones(4))
    assert x.grad.tolist() == [1.0] * 4


def test_nothing_is_kept_alive(native: None) -> None:
    x, w = leaf((4,)), leaf((4,), seed=1)

    def once() -> weakref.ref[Node]:
        y = ((x * w + 1.0).relu().reshape(2, 2).T + 0.0).reshape(4)
        z = (y * w).exp() / 3
        reference = weakref.ref(z.grad_fn)
        z.backward(graphc.ones(4))
        return reference

    for _ in range(3):
        once()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (None, np.dtype(np.float32), Tensor, np.ndarray, x, w, True)]
    blocks = sys.getallocatedblocks()
    for _ in range(200):
        assert once()() is None
    gc.collect()
    after = [sys.getrefcount(thing) for thing in (None, np.dtype(np.float32), Tensor, np.ndarray, x, w, True)]
    assert all(abs(b - a) < 100 for a, b in zip(before, after))
    assert sys.getallocatedblocks() - blocks < 500


def test_threads_and_runs_within_runs(native: None) -> None:
    w = leaf((16,))
    (w * 1.0).exp().backward(graphc.ones(16))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        x = leaf((16,), seed=seed)

        def another(ct: Any) -> None:
            with graphc.enable_grad():
                (x.detach().requires_grad_() * 2).backward(graphc.ones(16))

        for _ in range(50):
            y = (x * w.detach() + 1.0).exp() * x
            inner = y * 1.0
            inner.register_hook(another)
            x.grad = None
            (inner + y).backward(graphc.ones(16))
            n, m = x.detach().numpy().astype(np.float64), w.detach().numpy().astype(np.float64)
            expected = 2 * np.exp(n * m + 1) * (1 + n * m)
            if not np.allclose(x.grad.numpy(), expected, rtol=1e-4, atol=1e-4):
                wrong.append((x.grad, expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("record", [ops.erfinv, ops.lgamma, ops.digamma], ids=lambda record: record.name)
def test_special_functions_with_code(native: None, record: OpDef) -> None:
    """The derivative of digamma is left to Python: polygamma has no code."""
    x = graphc.tensor([0.25, 0.5, 0.75]).requires_grad_()
    function = getattr(graphc, record.name)
    first, *others = (grads(function, x)[0] for _ in range(4))
    for found in others:
        np.testing.assert_allclose(found, first, rtol=1e-6)
