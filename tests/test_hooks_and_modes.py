"""Hooks on tensors and nodes, and the modes that decide what goes on the tape."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from leaves import leaf

import graphc
from graphc.errors import AutogradError


def test_hooks_see_sums_and_may_replace_them() -> None:
    x = leaf(1)
    h = x * 1
    seen: list[float] = []
    handle = h.register_hook(lambda g: seen.append(g.item()))
    h.register_hook(lambda g: g * 10)
    h.retain_grad()
    (h * 3 + h * 4).backward(retain_graph=True)
    assert seen == [7] and x.grad.item() == 70 and h.grad.item() == 70
    handle.remove()
    (h * 3).backward()
    assert seen == [7]


def test_hooks_that_change_the_shape_are_refused() -> None:
    h = leaf(1, 2) * 1
    h.register_hook(lambda g: g[:1])
    with pytest.raises(AutogradError, match="size"):
        h.sum().backward()


def test_hooks_after_accumulation_see_the_gradient() -> None:
    x, seen = leaf(2), []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 3).backward()
    (x * 3).backward()
    assert seen == [3, 6]
    x.register_post_accumulate_grad_hook(lambda t: t.grad * 2)
    with pytest.raises(RuntimeError, match="should return None"):
        (x * 3).backward()


def test_node_hooks() -> None:
    x = leaf(2)
    y = x * 3
    y.grad_fn.register_prehook(lambda gs: (gs[0] * 2,))
    y.grad_fn.register_hook(lambda gin, gout: (gin[0] + 1, None))
    y.backward()
    assert x.grad.item() == 7


def test_modes_are_those_of_the_thread() -> None:
    found = []
    with graphc.no_grad():
        thread = threading.Thread(target=lambda: found.append(graphc.is_grad_enabled()))
        thread.start()
        thread.join()
        assert not graphc.is_grad_enabled()
    assert found == [True]


def test_modes_decorate_with_and_without_parentheses() -> None:
    @graphc.no_grad
    def plain() -> bool:
        return graphc.is_grad_enabled()

    @graphc.no_grad()
    def called() -> bool:
        return graphc.is_grad_enabled()

    @graphc.set_grad_enabled(False)
    def switched() -> bool:
        return graphc.is_grad_enabled()

    @graphc.inference_mode
    def inference() -> bool:
        return graphc.is_inference_mode_enabled()

    assert not plain() and not called() and not switched() and inference()
    assert graphc.is_grad_enabled() and not graphc.is_inference_mode_enabled()


def test_modes_take_their_flag_by_name() -> None:
    with graphc.set_grad_enabled(mode=False):
        assert not graphc.is_grad_enabled()
    with graphc.inference_mode(mode=False):
        assert not graphc.is_inference_mode_enabled()


def test_modes_go_with_the_steps_of_a_generator() -> None:
    @graphc.no_grad()
    def steps() -> Any:
        log.append(graphc.is_grad_enabled())
        sent = yield 1
        log.append(graphc.is_grad_enabled())
        try:
            yield sent
        except KeyError:
            log.append("caught")
        return "end"

    def outer() -> Any:
        log.append((yield from made))

    log: list[Any] = []
    made = steps()
    assert next(made) == 1
    assert graphc.is_grad_enabled()
    assert made.send(2) == 2
    assert graphc.is_grad_enabled()
    with pytest.raises(StopIteration) as end:
        made.throw(KeyError())
    assert end.value.value == "end"
    made = steps()
    list(outer())
    assert log == [False, False, "caught", False, False, "end"]
    closed = steps()
    next(closed)
    closed.close()
    with pytest.raises(StopIteration):
        next(closed)


def test_modes_do_not_like_classes() -> None:
    with pytest.warns(FutureWarning, match="Decorating classes is deprecated"):
        made = graphc.no_grad()(type("Thing", (), {"__init__": lambda self: seen.append(graphc.is_grad_enabled())}))
    seen: list[bool] = []
    made()
    assert seen == [False]


def test_one_mode_object_nests() -> None:
    off = graphc.no_grad()
    with off, graphc.enable_grad():
        with off:
            assert not graphc.is_grad_enabled()
        assert graphc.is_grad_enabled()
    assert graphc.is_grad_enabled()


def test_errors_in_backward_restore_the_mode() -> None:
    x = leaf(1)
    y = x * 2
    y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert graphc.is_grad_enabled()
