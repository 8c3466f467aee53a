"""Compiled functions that change Python's state change it at each call, and see what they and others have changed.

Each scene is run eagerly and compiled, five calls of each, and shows the same results, exceptions and state.
"""

from __future__ import annotations

import collections
import functools
import heapq
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scenes import Scene, Scenes, agree, full

import graphc
from graphc import nn
from graphc.errors import TraceError

scene = Scenes()
COUNT = 0
KEPT: list[Any] = []


# Counters


@scene
def counter_in_a_global() -> Scene:
    global COUNT  # noqa: PLW0603
    COUNT = 0

    def f(x: Any) -> Any:
        global COUNT  # noqa: PLW0603
        COUNT += 1
        return x * COUNT

    return Scene(f, state=lambda: COUNT)


@scene
def counter_in_a_closure() -> Scene:
    count = 0

    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * count

    return Scene(f, state=lambda: count)


@scene
def counter_that_is_not_used() -> Scene:
    class Counting:
        count = 0

        def __call__(self, x: Any) -> Any:
            self.count += 1
            return x * 2

    counting = Counting()
    return Scene(counting, state=lambda: vars(counting))


@scene
def counter_of_a_module() -> Scene:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * self.calls

    net = Net()
    return Scene(net, state=lambda: net.calls)


@scene
def counter_of_a_class() -> Scene:
    class Shared:
        count = 0

    def f(x: Any) -> Any:
        Shared.count += 1
        return x * Shared.count

    return Scene(f, state=lambda: Shared.count)


@scene
def counter_of_the_function() -> Scene:
    def f(x: Any) -> Any:
        f.count = getattr(f, "count", 0) + 1  # type: ignore[attr-defined]
        return x * f.count  # type: ignore[attr-defined]

    return Scene(f, state=lambda: vars(f))


@scene
def counter_in_a_default() -> Scene:
    def f(x: Any, calls: list[int] = []) -> Any:  # noqa: B006
        calls.append(1)
        return x * len(calls)

    return Scene(f)


@scene
def counter_of_a_slot() -> Scene:
    class Slotted:
        __slots__ = ("count",)

    slotted = Slotted()
    slotted.count = 0

    def f(x: Any) -> Any:
        slotted.count += 1
        return x * slotted.count

    return Scene(f, state=lambda: slotted.count)


# Containers of all kinds


def containers() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """By name: what makes the container, and how a call changes it and what it makes of it."""

    def count(c: Any) -> int:
        c["a"] += 1
        c.update("ab")
        return c["a"]

    return {
        "list": (list, lambda c: (c.append(len(c)), len(c))[1]),
        "list_that_shrinks": (lambda: list(range(9)), lambda c: c.pop()),
        "dict": (lambda: {"n": 0}, lambda c: (c.update(n=c["n"] + 1), c["n"])[1]),
        "dict_that_shrinks": (lambda: {k: k for k in range(9)}, lambda c: c.popitem()[0]),
        "set": (set, lambda c: (c.add(len(c)), len(c))[1]),
        "deque": (lambda: collections.deque(maxlen=2), lambda c: (c.append(len(c)), sum(c))[1]),
        "heap": (list, lambda c: (heapq.heappush(c, -len(c)), c[0])[1]),
        "counter": (collections.Counter, count),
        "ordered": (lambda: collections.OrderedDict(a=1, b=2, c=3),
                    lambda c: (c.move_to_end(next(iter(c))), next(iter(c.values())))[1]),
        "array": (lambda: np.zeros(2), lambda c: (c.__iadd__(1), float(c[0]))[1]),
        "bytearray": (bytearray, lambda c: (c.append(1), len(c))[1]),
        "defaultdict": (lambda: collections.defaultdict(int), lambda c: c[len(c)] + len(c)),
    }  # fmt: skip


@pytest.mark.parametrize("name", containers())
def test_containers_that_calls_change(name: str) -> None:
    def make() -> Scene:
        create, change = containers()[name]
        container = create()
        return Scene(lambda x: x * change(container), state=lambda: container)

    agree(make)


# Tensors left behind


@scene
def tensor_in_a_list() -> Scene:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        y = x * 2
        kept.append(y)
        return y + 1

    return Scene(f, state=lambda: kept)


@scene
def tensor_in_a_list_of_the_module() -> Scene:
    KEPT.clear()

    def f(x: Any) -> Any:
        KEPT.append(x.sum())
        return x + len(KEPT)

    return Scene(f, state=lambda: list(KEPT))


@scene
def tensor_in_an_attribute() -> Scene:
    holder = SimpleNamespace()

    def f(x: Any) -> Any:
        holder.y = x * 2
        return x + 1

    return Scene(f, state=lambda: vars(holder))


@scene
def tensor_in_an_attribute_of_an_argument() -> Scene:
    holder = SimpleNamespace()

    def f(x: Any, holder: Any) -> Any:
        holder.y = x * 2
        return x + 1

    return Scene(f, lambda k: (full(k), holder), state=lambda: vars(holder))


@scene
def tensor_that_the_next_call_uses() -> Scene:
    holder = SimpleNamespace(hidden=graphc.zeros(2))

    def f(x: Any) -> Any:
        holder.hidden = holder.hidden * 0.5 + x
        return holder.hidden

    return Scene(f, state=lambda: vars(holder))


@scene
def tensor_in_a_closure() -> Scene:
    hidden = graphc.zeros(2)

    def f(x: Any) -> Any:
        nonlocal hidden
        hidden = hidden + x
        return x + 1

    return Scene(f, state=lambda: hidden)


@scene
def tensor_of_a_module() -> Scene:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", graphc.zeros(2))
            self.last = None

        def forward(self, x: Any) -> Any:
            self.total = self.total + x
            self.last = x * 3
            return x * self.total

    net = Net()
    return Scene(net, state=lambda: (net.total, net.last))


@scene
def tensor_with_a_history() -> Scene:
    w, kept = graphc.ones(2, requires_grad=True), []

    def f(x: Any) -> Any:
        kept.append((w * x).sum())
        return x

    def state() -> Any:
        w.grad = None
        sum(kept).backward(retain_graph=True)
        return w.grad, kept

    return Scene(f, state=state)


@scene
def tensor_in_a_cache() -> Scene:
    cache: dict[Any, Any] = {}

    def f(x: Any) -> Any:
        if x.shape not in cache:
            cache[x.shape] = graphc.arange(2) * 2.0
        return x + cache[x.shape]

    return Scene(f, state=lambda: cache)


@scene
def tensor_that_functools_remembers() -> Scene:
    calls = 0

    @functools.lru_cache
    def table(n: int) -> Any:
        nonlocal calls
        calls += 1
        return graphc.arange(n) * 2.0

    return Scene(lambda x: x + table(2), state=lambda: (table(2), calls))


@scene
def tensor_of_a_cached_property() -> Scene:
    class Masked:
        made = 0

        @functools.cached_property
        def mask(self) -> Any:
            self.made += 1
            return graphc.ones(2) * 5

        def __call__(self, x: Any) -> Any:
            return x * self.mask

    masked = Masked()
    return Scene(masked, state=lambda: vars(masked))


@scene
def tensor_that_is_made_late() -> Scene:
    class Masked:
        mask: Any = None

        def __call__(self, x: Any) -> Any:
            if self.mask is None:
                self.mask = graphc.ones(2) * 5
            return x * self.mask

    masked = Masked()
    return Scene(masked, state=lambda: vars(masked))


@scene
def outputs_that_a_hook_keeps() -> Scene:
    kept: list[Any] = []
    layer = nn.Linear(2, 2)
    with graphc.no_grad():
        layer.weight.fill_(1)
        layer.bias.fill_(0)
    layer.register_forward_hook(lambda module, args, out: kept.append(out))
    return Scene(layer, state=lambda: kept)


@scene
def gradients_that_a_hook_keeps() -> Scene:
    kept: list[Any] = []
    w = graphc.ones(2, requires_grad=True)
    w.register_hook(lambda grad: kept.append(grad))

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad

    return Scene(f, state=lambda: kept)


# Containers among the arguments


@scene
def list_argument_that_grows() -> Scene:
    def f(x: Any, items: list[Any]) -> Any:
        items.append(x * 2)
        return x

    return Scene(f, lambda k: (full(k), []))


@scene
def dict_argument_that_is_written() -> Scene:
    def f(x: Any, table: dict[str, Any]) -> Any:
        table["y"] = x * 2
        table["x"].add_(1)
        del table["z"]
        return table

    return Scene(f, lambda k: (full(k), {"x": full(1), "z": 0}))


@scene
def nested_argument_that_is_written() -> Scene:
    def f(x: Any, table: dict[str, Any]) -> Any:
        table["deep"][0].append(x)
        table["deep"][1] = table["deep"][0]
        return table["deep"][0][-1] * 2

    return Scene(f, lambda k: (full(k), {"deep": [[full(1)], None]}))


@pytest.mark.parametrize("name", scene)
def test_state_is_that_of_eager_code(name: str) -> None:
    agree(scene[name])


# What is said about it


def test_fullgraph_refuses_what_changes_state_again_and_again() -> None:
    table = {"calls": 0}

    @functools.partial(graphc.compile, fullgraph=True)
    def f(x: Any) -> Any:
        table["calls"] += 1
        return x * 2

    assert f(graphc.ones(2)).tolist() == [2.0, 2.0]  # it may have filled a cache
    with pytest.raises(TraceError, match=r"changes Python state \(table\['calls'\] was 1, is 2\)(.|\n)*test_guards_state\.py"):
        f(graphc.ones(2))


def test_fullgraph_takes_what_fills_a_cache() -> None:
    def make() -> Scene:
        return tensor_in_a_cache()

    assert repr(agree(make, fullgraph=True)) == "<compiled f: 1 graph>"


def test_explain_says_what_changes() -> None:
    net = SimpleNamespace(calls=0)

    @graphc.compile
    def f(x: Any) -> Any:
        net.calls += 1
        return x * 2

    for _ in range(3):
        f(graphc.ones(2))
    assert "changes Python state (net.calls was 1, is 2) at test_guards_state.py" in f.explain()


class Key:
    """Of a hash of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.number == self.number


@pytest.mark.parametrize("cache", [functools.cache, functools.lru_cache(maxsize=8), functools.lru_cache(maxsize=8, typed=True)])
@pytest.mark.parametrize("key", [2, "two", (1, 2.5), Key(2), None])
def test_what_functools_has_forgotten_is_computed_again(cache: Any, key: Any) -> None:
    numbers = {"scale": 2.0}

    @cache
    def table(of: Any, then: int = 1) -> Any:
        return graphc.full((2,), numbers["scale"])

    compiled = graphc.compile(lambda x: x * table(key))
    x = graphc.ones(2)
    for scale in (2.0, 3.0, 5.0):
        numbers["scale"] = scale
        assert compiled(x).tolist() == table(key).tolist(), "as remembered"
        table.cache_clear()
        for _ in range(4):
            assert compiled(x).tolist() == [scale, scale]
        table(key, then=7)  # more that is remembered changes nothing
        traced = compiled.explain().count("traced because of")
        assert compiled(x).tolist() == [scale, scale]
        assert compiled.explain().count("traced because of") == traced


def test_what_functools_has_pushed_out_is_computed_again() -> None:
    numbers = {"scale": 2.0}

    @functools.lru_cache(maxsize=1)
    def table(n: int) -> Any:
        return graphc.full((2,), numbers["scale"])

    compiled = graphc.compile(lambda x: x * table(1))
    assert compiled(graphc.ones(2)).tolist() == [2, 2]
    numbers["scale"] = 3.0
    assert compiled(graphc.ones(2)).tolist() == [2, 2]
    table(2)
    for _ in range(3):
        assert compiled(graphc.ones(2)).tolist() == [3, 3]
