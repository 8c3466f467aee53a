"""Optimizers' updates as native functions: the same numbers as op by op, for every optimizer and its options."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import override
from graphc.frontend.optim import fused

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, "SGD nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.1}, "Adam amsgrad": {"lr": 0.1, "amsgrad": True}, "Adam maximize": {"lr": 0.1, "maximize": True},
    "AdamW": {"lr": 0.1}, "Adamax": {}, "NAdam": {}, "RAdam": {}, "Adagrad": {"lr": 0.1}, "Adadelta": {},
    "RMSprop": {"momentum": 0.5, "centered": True}, "Rprop": {}, "ASGD": {}, "Adafactor": {},
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "LARGE", 1)
    monkeypatch.setattr(fused, "_forms", {})
    monkeypatch.setattr(fused, "_types", set())


def trained(name: str, steps: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    parameters = [graphc.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True) for shape in ((3, 4), (5,))]
    optimizer = getattr(graphc.optim, name.split()[0])(parameters, **OPTIMIZERS[name])
    for step in range(steps):
        if step == 5:
            optimizer.param_groups[0]["lr"] *= 0.5
        for parameter in parameters:
            parameter.grad = graphc.tensor(rng.standard_normal(parameter.shape).astype(np.float32))
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_as_op_by_op(name: str) -> None:
    with override(fuse_eager=False):
        want = trained(name)
    for g, w in zip(trained(name), want, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=1e-6)


def made() -> int:
    return sum(isinstance(form, fused._Form) for form in fused._forms.values())


def test_code_is_made_as_soon_as_there_is_a_state() -> None:
    trained("Adam", 1)
    assert made() == 0
    trained("Adam", 2)
    assert made() == 2


def test_options_that_change_have_code_when_they_return() -> None:
    x = graphc.ones(4, requires_grad=True)
    optimizer = graphc.optim.SGD([x], lr=0.1, momentum=0.5)
    counts = []
    for momentum in (0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7):
        optimizer.param_groups[0]["momentum"] = momentum
        x.grad = graphc.ones(4)
        optimizer.step()
        counts.append(made())
    assert counts == [0, 1, 1, 1, 1, 2, 2]


def test_the_second_step_takes_no_memory_of_its_own() -> None:
    program = """
import graphc
from graphc.benchmark import memory
x = graphc.zeros(1 << 24, requires_grad=True)
x.grad = graphc.ones(1 << 24)
optimizer = graphc.optim.AdamW([x])
optimizer.step()
memory.forget_peak()
before = memory.resident()
optimizer.step()
print((memory.peak() - before) / (4 << 24))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 1.5  # in parameters; op by op it takes three


def test_versions_count_and_views_see_the_change() -> None:
    x = graphc.ones(4, requires_grad=True)
    view, optimizer = x.detach(), graphc.optim.SGD([x], lr=1.0, momentum=0.5)
    for _ in range(5):
        x.grad = graphc.ones(4)
        before, version = view.tolist()[0], x._version
        optimizer.step()
        assert view.tolist()[0] < before and x._version > version


def test_options_that_change_run_op_by_op_until_they_return() -> None:
    x = graphc.ones(4, requires_grad=True)
    optimizer = graphc.optim.SGD([x], lr=0.1, momentum=0.5)
    want, velocity = np.ones(4), np.zeros(4)
    for step in range(12):
        optimizer.param_groups[0]["momentum"] = momentum = 0.1 * (1 + step % 4)
        x.grad = graphc.ones(4)
        optimizer.step()
        velocity = momentum * velocity + 1
        want -= 0.1 * velocity
        np.testing.assert_allclose(x.detach(), want, rtol=1e-5)


def test_compiled_training_steps_are_left_alone() -> None:
    x = graphc.ones(4, requires_grad=True)
    optimizer = graphc.optim.Adam([x], lr=0.1)

    @graphc.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(6)]
    assert losses == sorted(losses, reverse=True) and not fused._forms
