"""`tensor[index]` natively: the parts, their history and the errors that Python gives."""

from __future__ import annotations

import functools
import gc
import itertools
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend import eager, subscript
from graphc.frontend.native import TENSORS
from graphc.frontend.tensor import Tensor
from graphc.specs import SubscriptSpec

pytestmark = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end makes no native code")

ITEMS: list[Any] = [
    0, -1, 2, 7, -8, slice(None), slice(1, 3), slice(None, None, 2), slice(-2, None), slice(5, 1), slice(2, 100, 3),
    slice(-100, 2), None, ...,
]  # fmt: skip


class Missed(Exception):
    pass


@pytest.fixture
def native() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Of a fallback, the native function."""
    how = subscript.NATIVE

    def view(maker: eager.Maker) -> Any:
        return eager.native_view(maker.record, maker.name, maker.make)

    make = get_backend("llvm").subscript(SubscriptSpec(
        tensors=TENSORS, thread=eager._THREAD, grad=eager._GRAD, lazy=view(how.lazy), cut=view(how.cut),
        selected=view(how.selected), dropped=view(how.dropped), alias=view(how.alias), partial=functools.partial,
        steps=how.steps,
    ))  # fmt: skip
    assert make is not None
    return make


def missed(tensor: Tensor, index: Any) -> Any:
    raise Missed


def history(tensor: Tensor) -> list[tuple[str, Any]]:
    """The nodes above a tensor, with what they keep."""
    nodes, node = [], tensor.grad_fn
    while node is not None and hasattr(node, "attrs"):
        nodes.append((node.name(), dict(node.attrs)))
        node = node.next_functions[0][0]
    return nodes


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_every_index(length: int, native: Any) -> None:
    x = graphc.arange(60.0).reshape(3, 4, 5)
    function = native(subscript.getitem)
    for tensor in (x, x.clone().requires_grad_(), x.clone().requires_grad_() * 1, x.transpose(0, 2), x.int()):
        for index in itertools.product(ITEMS if length < 4 else [*ITEMS[4:6], None, ...], repeat=length):
            try:
                expected = subscript.getitem(tensor, index)
            except IndexError:
                with pytest.raises(IndexError):
                    function(tensor, index)
                continue
            found = function(tensor, index)
            assert found.shape == expected.shape and found.dtype is expected.dtype
            assert np.array_equal(found.detach().numpy(), expected.detach().numpy())
            assert found._data.strides == expected._data.strides or 0 in found.shape or 1 in found.shape
            assert history(found)[:1] == history(expected)[:1]
            assert [kept for _, kept in history(found)] == [kept for _, kept in history(expected)]
            assert found._base is expected._base
            base = tensor if found._base is None else found._base
            if not tensor.requires_grad:
                assert np.array_equal(found._meta.view.read(base)._data, expected._data)


@pytest.mark.parametrize(
    "index", [0, slice(1, 3), None, ..., (0, 1), (slice(None), -1), (..., 0), (), (1, slice(None, None, 2))]
)
@pytest.mark.parametrize("grad", [False, True])
def test_these_are_native(index: Any, grad: bool, native: Any) -> None:
    x = graphc.ones(3, 4, requires_grad=grad)
    native(missed)(x, index)
    native(missed)(nn.Parameter(graphc.ones(3, 4), requires_grad=grad), index)


@pytest.mark.parametrize("index", [
    True, np.int64(1), 1.5, "a", [0, 1], 5, -5, (0, 0, 0), slice(None, None, -1), slice(0, 2, 0), slice(None, np.int64(2)),
    slice(1 << 70), 1 << 70, (..., ...), (0, (1,)), (None,) * 40, slice(0, 2, 1 << 40),
])  # fmt: skip
def test_what_is_left_to_python(index: Any, native: Any) -> None:
    with pytest.raises(Missed):
        native(missed)(graphc.ones(3, 4), index)
    with pytest.raises(Missed):
        native(missed)(graphc.ones(3, 4), graphc.tensor([0]))
    with pytest.raises(Missed):
        native(missed)(graphc.tensor(1.0), 0)


def test_changes_in_place_reach_the_base(native: Any) -> None:
    function = native(missed)
    x = graphc.zeros(3, 4)
    part = function(x, (1, slice(1, 3)))
    part.add_(2.0)
    assert x.tolist() == [[0.0] * 4, [0.0, 2.0, 2.0, 0.0], [0.0] * 4] and x._version == part._version == 1
    leaf = graphc.ones(3, 4, requires_grad=True)
    y = leaf * 1.0
    function(y, 0).mul_(3.0)
    (y * y).sum().backward()
    assert leaf.grad.tolist() == [[18.0] * 4, [2.0] * 4, [2.0] * 4]
    with pytest.raises(RuntimeError, match="leaf"):
        function(leaf, 0).add_(1.0)
    with graphc.no_grad():
        function(leaf, 0).add_(1.0)
    assert leaf[0].tolist() == [2.0] * 4


def test_gradients_and_second_derivatives(native: Any) -> None:
    function = native(missed)
    x = graphc.arange(12.0).reshape(3, 4).requires_grad_()
    for _ in range(3):
        y = (function(x, (slice(1, None), slice(None, None, 2))) ** 3).sum() + function(x, -1).sum()
        (g,) = graphc.autograd.grad(y, x, create_graph=True)
        x.grad = None
        g.sum().backward()
    expected = np.zeros((3, 4))
    expected[1:, ::2] = 6 * np.arange(12.0).reshape(3, 4)[1:, ::2]
    assert x.grad.tolist() == expected.tolist()


def test_states_that_need_python(native: Any) -> None:
    function = native(missed)
    x = graphc.ones(3, 4, requires_grad=True)
    with graphc.inference_mode(), pytest.raises(Missed):
        function(x, 0)
    with pytest.raises(Missed):
        graphc.compile(lambda x: function(x, 0))(x)
    with graphc.no_grad():
        assert not function(x, 0).requires_grad
    packed: list[Any] = []
    with graphc.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        assert function(x, 0).grad_fn is not None


def test_methods_become_native_and_compiled_code_agrees() -> None:
    x = graphc.arange(12.0).reshape(3, 4)
    assert graphc.compile(lambda x: x[1:, 0] + x[0, 1:3])(x).tolist() == [5.0, 10.0]
    assert [row.tolist() for row in x] == x.tolist()


def test_nothing_is_kept(native: Any) -> None:
    function = native(missed)
    x = graphc.ones(3, 4, requires_grad=True)
    y = graphc.ones(3, 4)

    def once() -> None:
        for tensor in (x, y):
            for index in (0, slice(1, 3), None, (0, slice(None, None, 2)), ...):
                function(tensor, index)

    once()
    gc.collect()
    things = (None, x, y, np.dtype(np.float32), np.ndarray, functools.partial, Ellipsis, subscript.NATIVE.steps)
    before, blocks = [sys.getrefcount(thing) for thing in things], sys.getallocatedblocks()
    for _ in range(300):
        once()
    gc.collect()
    assert all(abs(b - a) < 100 for a, b in zip(before, [sys.getrefcount(thing) for thing in things]))
    assert sys.getallocatedblocks() - blocks < 500


def test_threads(native: Any) -> None:
    function = native(missed)
    x = graphc.arange(12.0).reshape(3, 4).requires_grad_()
    wrong: list[Any] = []

    def work(k: int) -> None:
        parts = [function(x, (k % 3, slice(k, None))) for _ in range(300)]
        wrong.extend(part for part in parts if part.tolist() != [4.0 * (k % 3) + i for i in range(k, 4)])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_native_views_there_is_none() -> None:
    spec = SimpleNamespace(lazy=missed, cut=missed, selected=missed, dropped=missed, alias=missed)
    assert get_backend("llvm").subscript(spec) is None  # type: ignore[arg-type]
