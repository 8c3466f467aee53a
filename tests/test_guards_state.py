"""Compiled functions that change Python's state change it at each call, and see what they and others have changed.

Each scene is run eagerly and compiled, five calls of each, and shows the same results, exceptions and state.
"""

from __future__ import annotations

import collections
import enum
import functools
import heapq
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
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


@pytest.fixture(autouse=True)
def modes() -> Iterator[None]:
    yield
    graphc.set_grad_enabled(True)
    graphc.set_default_dtype(graphc.float32)


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
    assert repr(step) == "<compiled step: 1 graphs>"


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


# Code of all kinds


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@scene
def members_of_enums() -> Scene:
    table: dict[str, Any] = {}
    return Scene(lambda x, colour: x * (2 if colour is Colour.RED else 3) * table["colour"].value,
                 lambda k: (full(1), list(Colour)[k % 2]),
                 before=lambda k: table.update(colour=list(Colour)[k // 2 % 2]))  # fmt: skip


@scene
def objects_with_items() -> Scene:
    class Scaled:
        scale = 2.0

        def __getitem__(self, k: int) -> float:
            return self.scale * k

    scaled = Scaled()
    return Scene(lambda x: x * scaled[3], before=lambda k: setattr(scaled, "scale", k // 2))


@scene
def descriptors() -> Scene:
    class Descriptor:
        value = 1

        def __get__(self, instance: Any, owner: Any) -> int:
            return self.value

    class Owner:
        factor = Descriptor()

    owner = Owner()
    return Scene(lambda x: x * owner.factor, before=lambda k: setattr(vars(Owner)["factor"], "value", k // 2))


@scene
def attributes_found_by_code() -> Scene:
    class Lazy:
        def __init__(self) -> None:
            self.table = {"factor": 1}

        def __getattr__(self, name: str) -> Any:
            return self.__dict__["table"][name]

    lazy = Lazy()
    return Scene(lambda x: x * lazy.factor, before=lambda k: lazy.table.update(factor=k // 2))


@scene
def names_in_globals() -> Scene:
    def before(k: int) -> None:
        global COUNT  # noqa: PLW0603
        COUNT = k // 2

    return Scene(lambda x: x * globals()["COUNT"], before=before)


@scene
def state_of_the_thread() -> Scene:
    local = threading.local()
    return Scene(lambda x: x * local.factor, before=lambda k: setattr(local, "factor", k // 2))


@scene
def lock() -> Scene:
    guard = threading.Lock()

    def f(x: Any) -> Any:
        with guard:
            return x * 2

    return Scene(f)


@scene
def depth_of_a_context() -> Scene:
    class Context(AbstractContextManager["Context"]):
        depth = 0

        def __enter__(self) -> Context:
            Context.depth += 1
            return self

        def __exit__(self, *error: object) -> None:
            Context.depth -= 1

    context = Context()

    def f(x: Any) -> Any:
        with context:
            return x * Context.depth

    return Scene(f, state=lambda: Context.depth)


@scene
def attribute_that_comes_and_goes() -> Scene:
    holder = SimpleNamespace()

    def f(x: Any) -> Any:
        if hasattr(holder, "flag"):
            del holder.flag
        else:
            holder.flag = 1
        return x * (2 if hasattr(holder, "flag") else 3)

    return Scene(f, state=lambda: vars(holder))


@scene
def methods_of_two_instances() -> Scene:
    class Scaled:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @graphc.compile
        def apply(self, x: Any) -> Any:
            return x * self.scale

    instances = Scaled(2), Scaled(3)
    return Scene(lambda x, k: instances[k].apply(x), lambda k: (full(1), k % 2))


@scene
def closures_of_one_function() -> Scene:
    functions = [(lambda scale: lambda x: x * scale)(k) for k in range(3)]
    return Scene(lambda x, k: functions[k](x), lambda k: (full(1), k % 3))


@scene
def recursion() -> Scene:
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else power(x * n, n - 1)

    return Scene(power, lambda k: (full(2), k))


@scene
def compiled_functions_within() -> Scene:
    table: dict[str, float] = {}
    inner = graphc.compile(lambda x: x * table["scale"])
    return Scene(lambda x: inner(inner(x)) + 1, before=lambda k: table.update(scale=float(k // 2)))


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


# Objects of the standard library that hold the user's


class Holder:
    scale = 1


HOLDER = Holder()


def held(value: dict[str, int]) -> dict[str, tuple[Callable[[Any], Any], Callable[[int], Any]]]:
    """By name: a function that reads a number out of something, and what changes the number."""
    user, proxy = collections.UserDict(value), types.MappingProxyType(value)
    chain, reference = collections.ChainMap({}, value), weakref.ref(HOLDER)

    @functools.singledispatch
    def single(n: Any) -> Any:
        return n

    single.register(int, lambda n: n * value["scale"])

    class Meta(type):
        scale = 1

        @property
        def current(cls) -> int:
            return cls.scale

    class Owner(metaclass=Meta):
        pass

    def change(k: int) -> None:
        value["scale"] = user["scale"] = Meta.scale = HOLDER.scale = k // 2

    return {
        "user_dict": (lambda x: x * user["scale"], change),
        "chain_map": (lambda x: x * chain["scale"], change),
        "proxy": (lambda x: x * proxy["scale"], change),
        "weak_reference": (lambda x: x * reference().scale, change),
        "single_dispatch": (lambda x: x * single(3), change),
        "class_of_a_class": (lambda x: x * Owner.current, change),
    }


@pytest.mark.parametrize("name", held({"scale": 1}))
def test_values_that_others_hold(name: str) -> None:
    def make() -> Scene:
        function, change = held({"scale": 1})[name]
        return Scene(function, before=change)

    agree(make)


# Exceptions


@scene
def exception_on_one_way() -> Scene:
    def f(x: Any, n: int) -> Any:
        if n == 2:
            raise ValueError("two")
        return x * n

    return Scene(f, lambda k: (full(1), k % 3))


@scene
def exception_after_changes() -> Scene:
    w, seen = graphc.zeros(2), []

    def f(x: Any, n: int) -> Any:
        x.add_(1)
        w.add_(x)
        seen.append(n)
        if n == 2:
            raise ValueError("two")
        return w * n

    return Scene(f, lambda k: (full(1), k % 3), state=lambda: (w, seen))


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

    assert repr(agree(make, fullgraph=True)) == "<compiled f: 1 graphs>"


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
