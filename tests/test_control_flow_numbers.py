"""graphc.compile: what `item()` gives stays in the graph, and behaves as a number of Python's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ways import Made, agree, pure

import graphc

pytestmark = pytest.mark.usefixtures("recorded_however_small")


def test_item_stays_in_the_graph(python_runs: list[str]) -> None:
    @graphc.compile(fullgraph=True)
    def f(x: Any) -> Any:
        s = x.sum().item()
        return x * s, s * 2 + 1, (1 - s) / 4, -s, abs(s)

    for k in range(5):
        scaled, *numbers = f(graphc.tensor([1.0, k]))
        s = 1.0 + k
        assert scaled.tolist() == [s, k * s] and numbers == [2 * s + 1, (1 - s) / 4, -s, s]
        assert all(type(x) is float for x in numbers)
    assert len(python_runs) == 1


ITEMS: dict[str, Callable[[Any], Any]] = {
    "returned": lambda x: x.sum().item(),
    "nested": lambda x: {"a": [x[0].item(), x], "b": (x[1].long().item(),)},
    "integer arithmetic": lambda x: (x[0].long().item() * 3 + 2, x[0].long().item() - 1, 7 - x.argmax().item()),
    "true division": lambda x: (x[0].long().item() / 4, 3 / (x.abs().sum().long().item() + 1)),
    "division by zero": lambda x: 1 / x[1].item(),
    "integer division by zero": lambda x: x[0].item() / x[1].long().item(),
    "floor division": lambda x: (x[0].item() // 2, x[0].long().item() // 2, x[0].item() % 2, divmod(x[1].item(), 2)),
    "power": lambda x: (x[0].item() ** 2, 2 ** x[0].item()),
    "bits": lambda x: (x[0].long().item() & 3, 1 << abs(x[0].long().item()), ~x[0].long().item()),
    "mixed": lambda x: x[0].item() + x[0].long().item() * 0.5 + True,
    "bool": lambda x: (x.any().item(), (x > 0).all().item()),
    "compared": lambda x: x * 2 if x.sum().item() > 0.5 else x,
    "truth": lambda x: x * 2 if x[1].item() else x,
    "equal": lambda x: (x[0].item() == 1.0, x[0].item() != 1, x[0].long().item() == 5, x[0].item() == "a"),
    "index": lambda x: [1.0, 10.0][x.argmax().item()] * x,
    "range": lambda x: [x * k for k in range(x.abs().sum().long().item())],
    "key": lambda x: {0: "a", 1: "b"}[x.argmax().item()],
    "math": lambda x: math.sqrt(abs(x[0].item())) + math.floor(x[1].item()) + math.exp(x[1].item()),
    "rounding": lambda x: (round(x[0].item(), 1), round(x[1].item()), int(x[0].item()), math.trunc(x[0].item())),
    "format": lambda x: f"{x.sum().item():.3f} {x[0].item()} {x[0].long().item():d}",
    "isinstance": lambda x: (isinstance(x[0].item(), float), isinstance(x.argmax().item(), int)),
    "float": lambda x: (float(x[0].item()), int(x.argmax().item())),
    "methods": lambda x: (x[0].item().is_integer(), x[0].long().item().bit_length()),
    "sum": lambda x: sum([x[0].item(), x[1].item()]),
    "max": lambda x: max(x[0].item(), x[1].item()),
    "json": lambda x: json.dumps({"loss": x.sum().item()}),
    "numpy": lambda x: float(np.float64(2.0) * x[0].item()),
    "tensor": lambda x: graphc.tensor([x[0].item(), 1.0]) + graphc.full((2,), x[1].item()),
    "clamp": lambda x: x.clamp(max=x[0].item()),
    "alpha": lambda x: graphc.add(x, x, alpha=x[0].item()),
    "scalar tensor": lambda x: x[0] * x[1].item() + graphc.where(x > x[0].item(), x, x[1].item()),
    "integers and floats": lambda x: x.long() * x[0].item() + x.long() * x[0].long().item(),
    "in place": lambda x: x.clone().mul_(x[0].item()).add_(x[1].item()),
    "large": lambda x: x[0].long().item() + (1 << 70),
    "pow of a tensor": lambda x: x.abs() ** x[0].long().abs().item(),
    "half": lambda x: x.half() * x[0].item(),
}


@pytest.mark.parametrize("name", ITEMS)
def test_numbers_of_item_are_like_pythons(name: str) -> None:
    agree(lambda: pure(ITEMS[name]))


def test_numbers_put_outside_are_plain() -> None:
    def make() -> Made:
        losses: list[float] = []
        last: dict[str, Any] = {}

        class Meter:
            total = 0.0
            seen: tuple[Any, ...] = ()

        meter = Meter()

        def f(x: Any) -> Any:
            losses.append(x.sum().item())
            last["loss"] = x[0].item()
            meter.total += x[1].item()
            return x * 2

        return f, lambda: [losses, last, meter.total, [type(v) is float for v in (*losses, meter.total)]]

    agree(make)


def test_gradients_through_numbers_stop() -> None:
    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    f = graphc.compile(lambda x: (x * x.sum().item()).sum())
    for _ in range(4):
        x.grad = None
        f(x).backward()
        assert x.grad is not None and x.grad.tolist() == [3, 3]


def test_a_number_that_is_returned_and_kept_is_a_plain_one() -> None:
    log: list[float] = []

    @graphc.compile
    def f(x: graphc.Tensor) -> dict[str, Any]:
        y = x * 1.25 if x.sum() > 0.5 else x + 0.5
        number = x.sum().item()
        log.append(number)
        return {"y": y, "number": number}

    for k in range(5):
        assert type(f(graphc.ones(2) * k)["number"]) is float
        assert log == [2.0 * i for i in range(k + 1)]
        assert all(type(number) is float for number in log)


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("returned", [False, True])
def test_numbers_that_are_kept_are_plain_ones_for_any_sizes(dynamic: bool | None, returned: bool) -> None:
    log: list[float] = []

    @graphc.compile(dynamic=dynamic)
    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, float | None]:
        number = x.sum().item()
        log.append(number)
        return x * 2, number if returned else None

    for k, n in enumerate((2, 2, 5, 3, 2)):
        _, number = f(graphc.full((n,), float(k)))
        assert [type(number) for number in log] == [float] * (k + 1)
        assert log[-1] == n * k
        assert number == (log[-1] if returned else None)
