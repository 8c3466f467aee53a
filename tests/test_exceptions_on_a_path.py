"""Functions that end with an exception: what they leave behind is what eager code leaves, and the way there is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import graphc

log: list[Any] = []
kept: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    log.clear()
    kept.clear()
    yield


def refuses_large_ones(x: graphc.Tensor) -> graphc.Tensor:
    y = graphc.tanh(x)
    if y.sum() > 0:
        x.mul_(2)
    if y.sum() > 1:
        raise ValueError("too much")
    return y


def keeps_a_number(x: graphc.Tensor) -> graphc.Tensor:
    log.append(x.sum().item())
    if x.sum() > 1:
        raise ValueError("too much")
    return x


def keeps_a_tensor(x: graphc.Tensor) -> graphc.Tensor:
    log.append(x * 2)
    raise ValueError("always")


def keeps_a_size(x: graphc.Tensor) -> graphc.Tensor:
    kept["size"] = x.shape[0]
    log.append(x.shape[0])
    if x.sum() > 1:
        raise ValueError("too much")
    return x * x.shape[0]


def always(x: graphc.Tensor) -> graphc.Tensor:
    raise KeyError("nothing")


def what_is_seen(function: Callable[[graphc.Tensor], Any], value: float, size: int) -> list[Any]:
    x = graphc.full((size,), value)
    try:
        result = function(x).tolist()
    except (ValueError, KeyError) as error:
        result = repr(error)
    return [result, x.tolist(), [e.tolist() if isinstance(e, graphc.Tensor) else (type(e), e) for e in log], dict(kept)]


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("function", [refuses_large_ones, keeps_a_number, keeps_a_tensor, keeps_a_size, always])
def test_all_is_left_as_eagerly(function: Callable[[graphc.Tensor], Any], dynamic: bool | None) -> None:
    calls = [(2.0, 3), (2.0, 3), (-1.0, 3), (2.0, 4), (-1.0, 5), (2.0, 4), (-1.0, 3)]
    expected = [what_is_seen(function, *call) for call in calls]
    log.clear()
    kept.clear()
    compiled = graphc.compile(function, dynamic=dynamic)
    assert [what_is_seen(compiled, *call) for call in calls] == expected


def test_a_way_to_an_exception_is_recorded_once(python_runs: list[str]) -> None:
    compiled = graphc.compile(refuses_large_ones)
    for _ in range(5):
        with pytest.raises(ValueError, match="too much"):
            compiled(graphc.ones(3))
    assert python_runs == ["refuses_large_ones"]
    assert "an exception, which Python raises" in compiled.explain()
    for _ in range(5):
        compiled(-graphc.ones(3))
    assert len(python_runs) == 2


def test_what_always_raises_is_recorded_once(python_runs: list[str]) -> None:
    compiled = graphc.compile(always)
    for _ in range(5):
        with pytest.raises(KeyError):
            compiled(graphc.ones(3))
    assert len(python_runs) == 1


def test_the_exception_names_the_line() -> None:
    compiled = graphc.compile(refuses_large_ones)
    for _ in range(3):
        with pytest.raises(ValueError, match="too much") as caught:
            compiled(graphc.ones(3))
        assert caught.traceback[-1].name == "refuses_large_ones"


def test_an_argument_that_was_changed_before_keeps_its_gradient() -> None:
    @graphc.compile
    def f(x: graphc.Tensor) -> None:
        x.mul_(3)
        raise ValueError

    for _ in range(3):
        leaf = graphc.ones(2, requires_grad=True)
        x = leaf * 2
        with pytest.raises(ValueError):
            f(x)
        x.sum().backward()
        assert x._version == 1 and leaf.grad is not None and leaf.grad.tolist() == [6.0, 6.0]


def test_a_refused_function_has_changed_nothing() -> None:
    @graphc.compile(fullgraph=True)
    def f(x: graphc.Tensor) -> graphc.Tensor:
        log.append(x.sum().item())
        kept["x"] = x * 2
        return x if x.sum() > 0 else -x

    with pytest.raises(graphc.errors.TraceError):
        f(graphc.ones(2))
    assert log == [] and kept == {}
