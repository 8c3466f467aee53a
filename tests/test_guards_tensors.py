"""Compiled functions see what becomes of tensors and optimizers between calls, and of the modes that they run in.

Each scene is run eagerly and compiled, five calls of each, and shows the same results, exceptions and state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scenes import Scene, Scenes, agree, full

import graphc
from graphc import nn

scene = Scenes()


@pytest.fixture(autouse=True)
def modes() -> Iterator[None]:
    yield
    graphc.set_grad_enabled(True)
    graphc.set_default_dtype(graphc.float32)


# Modes and settings


@scene
def grad_mode_from_outside() -> Scene:
    w = graphc.ones(2, requires_grad=True)
    return Scene(lambda x: x * w, before=lambda k: graphc.set_grad_enabled(k % 2 == 0))


@scene
def grad_mode_from_inside() -> Scene:
    def f(x: Any) -> Any:
        graphc.set_grad_enabled(False)
        return x + 1

    return Scene(f, state=graphc.is_grad_enabled, before=lambda k: graphc.set_grad_enabled(True))


@scene
def default_dtype_from_outside() -> Scene:
    return Scene(lambda x: graphc.zeros(2) + 1,
                 before=lambda k: graphc.set_default_dtype(graphc.float32 if k % 2 else graphc.float64))  # fmt: skip


@scene
def default_dtype_from_inside() -> Scene:
    def f(x: Any) -> Any:
        graphc.set_default_dtype(graphc.float64)
        return graphc.zeros(2)

    return Scene(f, state=graphc.get_default_dtype, before=lambda k: graphc.set_default_dtype(graphc.float32))


@scene
def autocast() -> Scene:
    def f(x: Any, enabled: bool) -> Any:
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=enabled):
            return x @ x

    return Scene(f, lambda k: (graphc.ones(2, 2), bool(k % 2)))


@scene
def seed_from_inside() -> Scene:
    def f(x: Any) -> Any:
        graphc.manual_seed(5)
        return x + graphc.rand(2)

    return Scene(f, state=graphc.initial_seed)


@scene
def requires_grad_from_inside() -> Scene:
    w = graphc.ones(2)

    def f(x: Any) -> Any:
        w.requires_grad_(True)
        return x * w

    return Scene(f, state=lambda: w.requires_grad)


@scene
def training_flag_from_inside() -> Scene:
    drop = nn.Dropout(0.0)

    def f(x: Any) -> Any:
        drop.train(not drop.training)
        return x * drop.training

    return Scene(f, state=lambda: drop.training)


# Optimizers


@scene
def scheduler_inside() -> Scene:
    w = graphc.ones(2, requires_grad=True)
    optimizer = graphc.optim.SGD([w], lr=1.0)
    scheduler = graphc.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.step()  # with the new rate
        return w.sum()

    return Scene(f, state=lambda: (w, optimizer.param_groups[0]["lr"], scheduler.last_epoch))


@scene
def options_of_an_optimizer() -> Scene:
    w = graphc.ones(2, requires_grad=True)
    optimizer = graphc.optim.SGD([w], lr=1.0)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        return w.sum()

    def before(k: int) -> None:
        optimizer.param_groups[0].update(weight_decay=0.125 * (k // 2), lr=1 / (k + 1))

    return Scene(f, before=before, state=lambda: w)


def test_a_scheduler_causes_no_retrace() -> None:
    w = graphc.ones(2, requires_grad=True)
    optimizer = graphc.optim.Adam([w], lr=1.0)
    scheduler = graphc.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    @graphc.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    for _ in range(20):
        step(graphc.ones(2))
        scheduler.step()
    assert repr(step) == "<compiled step: 1 graph>"


# Values that become tensors, and tensors that become others


@scene
def number_that_becomes_a_tensor_and_back() -> Scene:
    table: dict[str, Any] = {}
    values = [1.0, full(3.0), 2.0, full(4.0), graphc.full((1,), 5.0)]
    return Scene(lambda x: x * table["scale"], before=lambda k: table.update(scale=values[k]))


@scene
def list_of_tensors_that_grows() -> Scene:
    items: list[Any] = []
    return Scene(lambda x: sum(items, x), before=lambda k: items.append(full(1)) if k % 2 else None)


@scene
def data_of_a_tensor() -> Scene:
    w = graphc.ones(2)

    def f(x: Any) -> Any:
        w.data = x * 2
        return w + 1

    return Scene(f, state=lambda: w)


@scene
def argument_that_is_a_captured_tensor() -> Scene:
    w = graphc.ones(2)
    return Scene(lambda x: x * (2 if x is w else 3), lambda k: (w if k % 2 else graphc.ones(2),))


@scene
def attribute_of_an_argument_that_is_a_tensor() -> Scene:
    def arguments(k: int) -> tuple[Any, ...]:
        x = full(1)
        if k:
            x.factor = k // 2
        return (x,)

    return Scene(lambda x: x * getattr(x, "factor", 7), arguments)


# Memory that is shared


@scene
def argument_that_lies_in_a_captured_tensor() -> Scene:
    w = graphc.arange(4.0)

    def f(x: Any) -> Any:
        w.add_(x)
        return w * 2

    return Scene(f, lambda k: ([graphc.ones(4), graphc.ones(4), w.flip(0), w.view(4), w][k],), state=lambda: w)


@scene
def arguments_that_overlap() -> Scene:
    base = graphc.arange(6.0)

    def f(a: Any, b: Any) -> Any:
        a.add_(b)
        return a * b

    return Scene(f, lambda k: (base[:4], graphc.ones(4) if k < 3 else base[2:]), state=lambda: base)


@scene
def strides_of_an_argument() -> Scene:
    return Scene(lambda x: x.view(-1) if x.is_contiguous() else x.reshape(-1) * 2,
                 lambda k: (graphc.arange(6.0).view(2, 3) if k % 2 else graphc.arange(6.0).view(3, 2).t(),))  # fmt: skip


@scene
def dtypes_of_an_argument() -> Scene:
    return Scene(lambda x: x * 2 if x.dtype == graphc.float64 else x + 1,
                 lambda k: (graphc.ones(2, dtype=[graphc.float32, graphc.float64, graphc.int64][k % 3]),))  # fmt: skip


@scene
def gradient_of_an_argument() -> Scene:
    def arguments(k: int) -> tuple[Any, ...]:
        x = graphc.ones(2, requires_grad=True)
        x.grad = graphc.ones(2) if k % 2 else None
        return (x,)

    def f(x: Any) -> Any:
        (x * 3).sum().backward()
        return x.grad

    return Scene(f, arguments)


@scene
def argument_that_is_a_parameter() -> Scene:
    w, v = graphc.ones(2, requires_grad=True), graphc.full((2,), 2.0, requires_grad=True)

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad

    return Scene(f, lambda k: ((v, v, v, w, v)[k],), state=lambda: (w, v.grad))


@pytest.mark.parametrize("name", scene)
def test_state_is_that_of_eager_code(name: str) -> None:
    agree(scene[name])
