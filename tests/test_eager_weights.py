"""What eager functions compute once of weights that they are given again and again: that it is used, and never stale."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_prepared_weights as compiled
from test_prepared_weights import CHANGES, OUT, ROWS, WIDTH

import graphc
from graphc import nn
from graphc.config import override
from graphc.frontend import composite as module
from graphc.frontend.weights import Weights

F = nn.functional


class Subject(compiled.Subject):
    """A net whose product is an eager function with a weight, called often enough for that to be packed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights = Weights()
        monkeypatch.setattr(module, "LARGE", 1)
        monkeypatch.setattr(module, "Weights", lambda: self.weights)

        @module.composite(weight="weight")
        def product(input: graphc.Tensor, weight: graphc.Tensor, bias: graphc.Tensor) -> graphc.Tensor:
            return input @ weight.t() + bias

        self.product = product
        self.net = compiled.Net()
        self.x = graphc.randn(ROWS, WIDTH)
        self.function: Any = lambda x: product(x, self.net.linear.weight, self.net.linear.bias) * self.scale()
        self.agree()

    def scale(self) -> graphc.Tensor:
        return self.net.scale / graphc.sqrt(self.net.spread + 1e-5)

    @property
    def prepared(self) -> list[Any]:
        return [known.prepared for known in self.weights._known.values() if known.prepared is not None]

    @property
    def is_prepared(self) -> bool:
        return bool(self.prepared)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    made = Subject(monkeypatch)
    assert made.is_prepared
    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_shows_at_the_next_call(subject: Subject, change: Callable[[Any], None]) -> None:
    change(subject)
    subject.agree()
    change(subject)
    subject.agree(2)


def test_it_is_computed_once_with_the_same_bits(subject: Subject) -> None:
    (before,) = subject.prepared
    with graphc.no_grad():
        with_packed = subject.function(subject.x)
    assert subject.prepared == [before]
    subject.weights.clear()
    with graphc.no_grad(), override(prepare_weights=False):
        for _ in range(6):
            assert np.array_equal(subject.function(subject.x), with_packed)
    assert not subject.prepared


def test_nothing_is_kept_for_weights_that_are_trained(subject: Subject) -> None:
    (before,) = subject.prepared
    for _ in range(6):
        assert subject.function(subject.x).requires_grad
    assert subject.prepared == [before]


def test_a_weight_that_changes_at_each_call_is_never_packed(subject: Subject) -> None:
    for _ in range(12):
        compiled.add(subject)
        subject.agree(1)
        assert not subject.prepared


def test_a_weight_has_one_thing_packed_however_many_sizes_there_are(subject: Subject) -> None:
    with graphc.no_grad():
        for rows in (96, 64, 128, 80):
            x = graphc.randn(rows, WIDTH)
            for _ in range(6):
                subject.function(x)
            assert len(subject.prepared) == 1


def test_what_is_packed_goes_with_the_weight(subject: Subject) -> None:
    subject.net.linear = nn.Linear(WIDTH, OUT)
    gc.collect()
    assert not subject.weights._known
    subject.agree()
    assert subject.is_prepared


def test_two_threads_with_weights_of_their_own(subject: Subject) -> None:
    off: list[float] = []

    def call() -> None:
        with graphc.no_grad():
            layer = nn.Linear(WIDTH, OUT)
            for k in range(40):
                if k % 9 == 8:
                    layer.weight.mul_(1.1)
                found = subject.product(subject.x, layer.weight, layer.bias)
                off.append((found - (subject.x @ layer.weight.t() + layer.bias)).abs().max().item())

    running = [threading.Thread(target=call) for _ in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(off) == 80 and max(off) < 1e-4


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.bfloat16])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_with_packed_weights(dtype: Any, groups: int) -> None:
    layer = nn.Conv2d(48, 64, 3, padding=1, groups=groups).to(dtype)
    x = graphc.randn(2, 48, 13, 11).to(dtype)
    with graphc.no_grad():
        first = layer(x)
        for _ in range(7):
            assert np.array_equal(layer(x).float(), first.float())
        layer.weight.neg_()
        layer.bias.neg_()
        for _ in range(7):
            assert np.array_equal(layer(x).float(), -first.float())
        with graphc.inference_mode():
            out = layer(x)
            assert out.is_inference() and np.array_equal(out.float(), -first.float())
    assert layer(x).requires_grad


def test_a_convolution_of_a_weight_with_itself() -> None:
    w = graphc.randn(24, 24, 24, 24)
    with graphc.no_grad():
        want = F.conv2d(w, w.clone())
        for _ in range(6):
            np.testing.assert_allclose(F.conv2d(w, w), want, rtol=1e-3, atol=1e-2)
        w.mul_(2.0)
        np.testing.assert_allclose(F.conv2d(w, w), 4 * want, rtol=1e-3, atol=5e-2)


def test_arguments_by_name_and_by_place() -> None:
    x, w, b = graphc.randn(1, 32, 20, 20), graphc.randn(48, 32, 3, 3), graphc.randn(48)
    with graphc.no_grad():
        want = F.conv2d(x, w, b, 2, 1)
        for _ in range(6):
            assert np.array_equal(F.conv2d(weight=w, bias=b, input=x, padding=1, stride=2), want)
            assert np.array_equal(F.conv2d(x, w, b, 2, 1), want)
