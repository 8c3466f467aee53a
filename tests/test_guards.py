"""A compiled function notices whatever it read of Python's state: it never returns what used to be right.

Each test brings a function to the point where it is called natively, changes something, and looks at the result.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import contextvars
import functools
import math
import operator
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backends.llvm.objects import Unsupported, array_constructor
from graphc.frontend.compile import Compiled, CompiledFunction
from graphc.frontend.guards import Snapshot

try:
    array_constructor()
    native = True
except Unsupported:
    native = False  # everything goes by way of Python

X = graphc.ones(2)
SCALE = 2.0
TABLE = {"scale": 2.0, "names": ["a", "b"]}


@pytest.fixture(autouse=True)
def python_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were called by way of Python."""
    called: list[Any] = []
    run = Compiled.__call__
    monkeypatch.setattr(Compiled, "__call__", lambda self, leaves: called.append(self) or run(self, leaves))
    return called


def copy_of(value: Any) -> Any:
    """An equal object."""
    return eval(repr(value), {"nan": float("nan")})


def graphs(f: CompiledFunction) -> int:
    return sum(map(len, f._graphs.values()))


def value(f: Callable[..., Any], *args: Any) -> float:
    return f(X, *args)[0].item()


def check(
    function: Callable[..., Any], change: Callable[[], Any], after: float, *args: Any, before: float = 2.0, entered: bool = True
) -> None:
    """The function gives `before`; after the change, `after`. `entered`: whether it is called natively before."""
    f = graphc.compile(function)
    for _ in range(4):
        assert value(f, *args) == before
    assert isinstance(f._entry, types.BuiltinFunctionType) == (native and entered)
    change()
    for _ in range(4):
        assert value(f, *args) == after


def test_closure_variable() -> None:
    scale = 2.0

    def change() -> None:
        nonlocal scale
        scale = 3.0

    check(lambda x: x * scale, change, 3.0)


def test_closure_variable_that_was_deleted_and_made_anew() -> None:
    scale = 2.0

    def change(new: float | None) -> None:
        nonlocal scale
        if new is None:
            del scale
        else:
            scale = new

    f = graphc.compile(lambda x: x * scale)
    assert [value(f) for _ in range(4)] == [2.0] * 4
    change(None)
    for _ in range(2):
        with pytest.raises(NameError):
            f(X)
    change(3.0)
    assert [value(f) for _ in range(4)] == [3.0] * 4


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Has this module's globals restored."""
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 2.0)
    monkeypatch.setitem(TABLE, "scale", 2.0)
    return monkeypatch


def test_global(restored: pytest.MonkeyPatch) -> None:
    check(lambda x: x * SCALE, lambda: globals().update(SCALE=3.0), 3.0)


def test_global_of_a_function_that_is_called(restored: pytest.MonkeyPatch) -> None:
    def inner(x: Any) -> Any:
        return x * SCALE

    check(lambda x: next(inner(v) for v in (x,)), lambda: globals().update(SCALE=3.0), 3.0)


def test_value_in_a_global_dict(restored: pytest.MonkeyPatch) -> None:
    check(lambda x: x * TABLE["scale"], lambda: TABLE.update(scale=3.0), 3.0)


def test_a_global_that_takes_the_place_of_a_built_in(restored: pytest.MonkeyPatch) -> None:
    check(lambda x: x * max(1, 2), lambda: restored.setattr(sys.modules[__name__], "max", min, raising=False), 1.0)
    assert builtins.max is max or max is min


def test_defaults_and_code() -> None:
    def inner(x: Any, scale: float = 2.0, *, shift: float = 0.0) -> Any:
        return x * scale + shift

    def other(x: Any, scale: float = 2.0, *, shift: float = 0.0) -> Any:
        return x - scale

    f = graphc.compile(lambda x: inner(x))
    assert [value(f) for _ in range(4)] == [2.0] * 4
    inner.__defaults__ = (3.0,)
    assert [value(f) for _ in range(4)] == [3.0] * 4
    inner.__kwdefaults__ = {"shift": 1.0}
    assert [value(f) for _ in range(4)] == [4.0] * 4
    assert inner.__kwdefaults__ is not None
    inner.__kwdefaults__["shift"] = 2.0
    assert [value(f) for _ in range(4)] == [5.0] * 4
    inner.__code__ = other.__code__
    assert [value(f) for _ in range(4)] == [-2.0] * 4


def test_a_list_as_a_default() -> None:
    def inner(x: Any, scales: list[float] = [2.0]) -> Any:  # noqa: B006
        return x * sum(scales)

    assert inner.__defaults__ is not None
    scales = inner.__defaults__[0]
    check(lambda x: inner(x), lambda: scales.append(5.0), 7.0)


def test_state_of_a_function_that_is_decorated() -> None:
    options = Options()

    @contextlib.contextmanager
    def scaled() -> Iterator[float]:
        yield options.scale

    @graphc.no_grad()
    def inner(x: Any) -> Any:
        with scaled() as scale:
            return x * scale

    check(lambda x: inner(x), lambda: setattr(options, "scale", 3.0), 3.0)


def test_attribute_of_a_function() -> None:
    def inner(x: Any) -> Any:
        return x * inner.scale  # type: ignore[attr-defined]

    inner.scale = 2.0  # type: ignore[attr-defined]
    check(lambda x: inner(x), lambda: setattr(inner, "scale", 3.0), 3.0)


def settings() -> types.ModuleType:
    module = types.ModuleType("graphc_test_settings")
    module.scale = 2.0  # type: ignore[attr-defined]
    return module


def test_attribute_of_a_module() -> None:
    module = settings()
    check(lambda x: x * module.scale, lambda: setattr(module, "scale", 3.0), 3.0)


def test_import_within_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    module = settings()
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def f(x: Any) -> Any:
        from graphc_test_settings import scale

        return x * scale

    check(f, lambda: setattr(module, "scale", 3.0), 3.0)


class Options:
    shift = 0.0

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale
        self.unread = 0

    def apply(self, x: Any) -> Any:
        return x * self.scale + self.shift


class Slotted:
    __slots__ = ("missing", "scale")

    def __init__(self) -> None:
        self.scale = 2.0


@dataclass
class Config:
    scale: float = 2.0


@pytest.mark.parametrize("make", [Options, Slotted, Config, lambda: SimpleNamespace(scale=2.0)],
                         ids=["object", "slots", "dataclass", "namespace"])  # fmt: skip
def test_attribute_of_an_object(make: Callable[[], Any]) -> None:
    options = make()
    check(lambda x: x * options.scale, lambda: setattr(options, "scale", 3.0), 3.0)


@pytest.mark.parametrize("make", [Options, Slotted])
def test_attribute_of_an_argument(make: Callable[[], Any]) -> None:
    options = make()
    check(lambda x, options: x * options.scale, lambda: setattr(options, "scale", 3.0), 3.0, options)


def test_a_slot_that_was_empty() -> None:
    options = Slotted()

    def f(x: Any) -> Any:
        try:
            return x * options.missing
        except AttributeError:
            return x * 2

    check(f, lambda: setattr(options, "missing", 3.0), 3.0)


@pytest.mark.parametrize("make", [Options, lambda: SimpleNamespace(scale=2.0), lambda: argparse.Namespace(scale=2.0)],
                         ids=["object", "namespace", "arguments"])  # fmt: skip
def test_attributes_that_are_read_without_being_named(make: Callable[[], Any]) -> None:
    options, wanted, get = make(), "sca" + "le"[:2], operator.attrgetter("scale")
    for function in (lambda x: x * getattr(options, wanted), lambda x: x * vars(options)[wanted], lambda x: x * get(options)):
        options.scale = 2.0
        check(function, lambda: setattr(options, "scale", 3.0), 3.0)


def test_a_context_variable() -> None:
    scale = contextvars.ContextVar("scale", default=2.0)
    check(lambda x: x * scale.get(), lambda: scale.set(3.0), 3.0, entered=False)


def test_an_attribute_that_was_not_there() -> None:
    options = SimpleNamespace()

    def f(x: Any) -> Any:
        return x * getattr(options, "scale", 2.0)

    check(f, lambda: setattr(options, "scale", 3.0), 3.0)


def test_an_objects_whole_dict() -> None:
    options = Options()
    check(lambda x: x * options.scale, lambda: setattr(options, "__dict__", {"scale": 3.0, "unread": 0}), 3.0)


def test_an_objects_class() -> None:
    class Other(Options):
        def apply(self, x: Any) -> Any:
            return x * 5

    options = Options()
    check(lambda x: options.apply(x), lambda: setattr(options, "__class__", Other), 5.0)


def test_attributes_of_classes() -> None:
    class Base:
        scale = 2.0

    class Derived(Base):
        pass

    options = Derived()
    f = graphc.compile(lambda x: x * options.scale)
    g = graphc.compile(lambda x: x * Derived.scale)
    for change, expected in (
        (lambda: None, 2.0),
        (lambda: setattr(Base, "scale", 3.0), 3.0),
        (lambda: setattr(Derived, "scale", 4.0), 4.0),
        (lambda: delattr(Derived, "scale"), 3.0),
        (lambda: setattr(options, "scale", 6.0), 6.0),
    ):
        change()
        assert [value(f) for _ in range(4)] == [expected] * 4
        if expected != 6.0:
            assert [value(g) for _ in range(4)] == [expected] * 4


@pytest.mark.parametrize("wrap", [lambda m: m, staticmethod, classmethod, property, functools.cached_property])
def test_methods_of_all_kinds(wrap: Callable[[Any], Any]) -> None:
    scale = 2.0

    def set_scale(new: float) -> None:
        nonlocal scale
        scale = new

    Holder: Any = type("Holder", (), {"plain": wrap((lambda: scale) if wrap is staticmethod else lambda self: scale)})
    is_attribute = wrap in (property, functools.cached_property)

    def f(x: Any) -> Any:
        holder = Holder()  # a cached property must not stay cached
        return x * (holder.plain if is_attribute else holder.plain())

    check(f, lambda: set_scale(3.0), 3.0)


def test_a_method_that_is_replaced() -> None:
    class Holder:
        def scale(self) -> float:
            return 2.0

    holder = Holder()
    f = graphc.compile(lambda x: x * holder.scale())
    assert [value(f) for _ in range(4)] == [2.0] * 4
    Holder.scale = lambda self: 3.0  # type: ignore[method-assign]
    assert [value(f) for _ in range(4)] == [3.0] * 4
    holder.scale = lambda: 4.0  # type: ignore[method-assign]
    assert [value(f) for _ in range(4)] == [4.0] * 4


def test_the_state_of_a_bound_method() -> None:
    options = Options()
    f = graphc.compile(options.apply)
    assert [value(f) for _ in range(4)] == [2.0] * 4
    options.scale = 3.0
    assert [value(f) for _ in range(4)] == [3.0] * 4
    try:
        Options.shift = 1.0
        assert [value(f) for _ in range(4)] == [4.0] * 4
    finally:
        Options.shift = 0.0


def test_partial() -> None:
    options = Options()

    def f(scales: dict[str, Any], x: Any, *, more: dict[str, float]) -> Any:
        return x * scales["options"].scale * more["scale"]

    more = {"scale": 1.0}
    partial = functools.partial(f, {"options": options}, more=more)
    check(partial, lambda: setattr(options, "scale", 3.0), 3.0)
    check(partial, lambda: more.update(scale=2.0), 6.0, before=3.0)


@pytest.mark.parametrize("change", [
    lambda items: items.append(1.0),
    lambda items: items.__setitem__(0, 2.0),
    lambda items: items.extend([0.0, 1.0]),
    lambda items: items.insert(0, 1.0),
    lambda items: items.__setitem__(slice(None), [0.5, 2.5]),
])  # fmt: skip
def test_list(change: Callable[[list[float]], Any]) -> None:
    items = [1.0, 1.0]
    check(lambda x: x * sum(items), lambda: change(items), 3.0)


def test_dict() -> None:
    table: dict[str, Any] = {"a": 1.0, "b": 1.0}

    def f(x: Any) -> Any:
        for k, v in enumerate(table.values()):
            x = x * v + k
        return x

    compiled = graphc.compile(f)
    for change in (
        lambda: None,
        lambda: table.update(c=3.0),
        lambda: table.pop("a"),
        lambda: table.update(b=5.0),
        lambda: table.update(b=table.pop("b")),  # another order
        table.clear,
    ):
        change()
        assert [value(compiled) for _ in range(4)] == [f(X)[0].item()] * 4


def test_dict_of_tensors() -> None:
    a, b = graphc.ones(2), graphc.ones(2)
    table = {a: 2.0}

    def change() -> None:
        table.clear()
        table[b] = 3.0

    check(lambda x: x * next(iter(table.values())), change, 3.0)


def test_ordered_dict_that_moves_an_item() -> None:
    table = OrderedDict(a=2.0, b=5.0)
    check(lambda x: x * next(iter(table.values())), lambda: table.move_to_end("a"), 5.0, entered=False)


@pytest.mark.parametrize("make, change", [
    (lambda: {1.0}, lambda s: s.add(2.0)),
    (lambda: deque([1.0]), lambda d: d.append(2.0)),
    (lambda: bytearray([1]), lambda b: b.append(2)),
    (lambda: np.array([1.0]), lambda a: np.copyto(a, 3.0)),
], ids=["set", "deque", "bytearray", "array"])  # fmt: skip
def test_containers_that_only_python_can_compare(make: Callable[[], Any], change: Callable[[Any], Any]) -> None:
    container = make()
    check(lambda x: x * float(sum(container)), lambda: change(container), 3.0, before=1.0, entered=False)


def test_state_that_lies_deep() -> None:
    inner = {"scale": 2.0}
    outer: Any = inner
    for k in range(40):
        outer = {"in": outer} if k % 2 else [outer]

    def f(x: Any) -> Any:
        found = outer
        while "scale" not in found:
            found = found[0] if isinstance(found, list) else found["in"]
        return x * found["scale"]

    check(f, lambda: inner.update(scale=3.0), 3.0)


def test_state_that_holds_itself() -> None:
    options = Options()
    options.me = [options]  # type: ignore[attr-defined]
    check(lambda x: x * options.me[0].scale, lambda: setattr(options, "scale", 3.0), 3.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("old, new", [(2.0, 2), (1, True), (0.0, -0.0), (0, 0.0), (math.inf, math.nan), ("a", "b"), (None, 0)])
def test_values_that_are_alike_and_not_the_same(old: Any, new: Any) -> None:
    options = SimpleNamespace(value=old)
    f = graphc.compile(lambda x: (x * 2, repr(options.value)))
    for value in (old, new, old):
        options.value = value
        assert [f(X)[1] for _ in range(4)] == [repr(value)] * 4


@pytest.mark.parametrize("make", [lambda: 2.5e300, lambda: 10**30, lambda: math.nan, lambda: "".join(["te", "xt"]),
                                  lambda: (1.5, ("a", 2**70)), lambda: b"ab" * 3, lambda: -0.0, lambda: 2 + 3j])  # fmt: skip
def test_an_equal_value_in_another_object_changes_nothing(make: Callable[[], Any], python_calls: list[Any]) -> None:
    options = SimpleNamespace(value=make())
    f = graphc.compile(lambda x: x * 2 if options.value is not None else x)
    for _ in range(5):
        options.value = copy_of(options.value)
        for _ in range(20):
            assert value(f) == 2.0
    assert graphs(f) == 1
    if native:
        assert len(python_calls) < 10  # the guard has taken over the new object


def test_attributes_that_no_code_names_do_not_matter(python_calls: list[Any]) -> None:
    options = Options()
    f = graphc.compile(options.apply)
    for k in range(50):
        options.unread = k
        assert value(f) == 2.0
    assert graphs(f) == 1
    if native:
        assert len(python_calls) == 2


def test_back_and_forth(python_calls: list[Any]) -> None:
    options = Options()
    f = graphc.compile(options.apply)
    for k in range(60):
        options.scale = 2.0 + k % 3
        assert value(f) == options.scale
    assert graphs(f) == 3
    if native:
        assert len(python_calls) < 10


def test_compiled_functions_within() -> None:
    options = Options()
    inner = graphc.compile(options.apply)
    inner(X)
    check(lambda x: inner(x), lambda: setattr(options, "scale", 3.0), 3.0)


# Modules and optimizers


class Net(nn.Module):
    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = graphc.eye(2)
        self.shift = 0.0
        self.register_buffer("offset", graphc.zeros(2))
        self.drop = nn.Dropout(1.0)
        self.eval()

    def forward(self, x: Any) -> Any:
        x = self.linear(x) * self.factor + self.shift + self.offset
        return self.drop(x) + x if self.drop.training else x


def replace_weight(net: Net) -> None:
    net.linear.weight = nn.Parameter(3 * graphc.eye(2))


def new_linear() -> nn.Linear:
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = 3 * graphc.eye(2)
    return linear


def add_bias(net: Net) -> None:
    net.linear.bias = nn.Parameter(graphc.full((2,), 2.0))


def fill(net: Net) -> None:
    with graphc.no_grad():
        net.linear.weight.fill_(1.5)


def hook(net: Net) -> None:
    net.linear.register_forward_hook(lambda module, args, out: out * 3)


@pytest.fixture
def restored_net() -> Iterator[None]:
    yield
    Net.factor = 1.0


@pytest.mark.parametrize("change", [
    replace_weight,
    add_bias,
    fill,
    hook,
    lambda net: setattr(net, "shift", 2.0),
    lambda net: setattr(net, "offset", graphc.full((2,), 2.0)),
    lambda net: net._buffers.update(offset=graphc.full((2,), 2.0)),
    lambda net: net.linear._parameters.update(weight=nn.Parameter(3 * graphc.eye(2))),
    lambda net: net.offset.fill_(2.0),
    lambda net: setattr(net, "linear", new_linear()),
    lambda net: net.linear.load_state_dict({"weight": 3 * graphc.eye(2)}),
    lambda net: setattr(net.linear.weight, "data", 3 * graphc.eye(2)),
    lambda net: setattr(net.linear, "forward", lambda x: x * 3),
    lambda net: setattr(Net, "factor", 3.0),
], ids=range(14))  # fmt: skip
@pytest.mark.parametrize("grad", [True, False])
def test_changes_of_a_module(change: Callable[[Net], Any], grad: bool, restored_net: None) -> None:
    net = Net()
    compiled = graphc.compile(net)
    with graphc.set_grad_enabled(grad):
        assert [value(compiled) for _ in range(4)] == [1.0] * 4
        with graphc.enable_grad():
            change(net)
        assert [value(compiled) for _ in range(4)] == [3.0] * 4
        assert [value(net) for _ in range(4)] == [3.0] * 4


def test_training_and_evaluation(python_calls: list[Any]) -> None:
    net = Net()
    with graphc.no_grad():
        compiled = graphc.compile(net)
        for _ in range(4):
            assert value(compiled) == 1.0
        for k in range(40):
            net.train(k % 2 == 0)
            assert value(compiled) == 1.0
        assert graphs(compiled._compiled) == 2
        if native:
            assert len(python_calls) < 10
        net.drop.p = 0.0
        net.train()
        assert [value(compiled) for _ in range(4)] == [2.0] * 4


def test_parts_of_a_deep_module() -> None:
    inner = new_linear()
    net: nn.Module = inner
    for _ in range(12):
        net = nn.Sequential(net)
    f = graphc.compile(net)
    with graphc.no_grad():
        assert [value(f) for _ in range(4)] == [3.0] * 4
        inner.weight = nn.Parameter(5 * graphc.eye(2))
        assert [value(f) for _ in range(4)] == [5.0] * 4


def training(make: Callable[[Any], Any]) -> tuple[CompiledFunction, nn.Parameter, Any]:
    w = nn.Parameter(graphc.zeros(2))
    optimizer = make([w])

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    return graphc.compile(step), w, optimizer


def test_a_learning_rate_is_an_input() -> None:
    step, w, optimizer = training(lambda p: graphc.optim.SGD(p, lr=1.0))
    expected = 0.0
    for lr in [1.0] * 4 + [0.5, 0.25, 2, 3, True, 1, 0.5] * 3:
        optimizer.param_groups[0]["lr"] = lr
        step(X)
        expected -= float(lr)
        assert w[0].item() == expected
    assert graphs(step) <= 2  # True is another kind of thing


def test_other_options_are_not() -> None:
    step, w, optimizer = training(lambda p: graphc.optim.SGD(p, lr=1.0, momentum=0.5))
    _, v, other = training(lambda p: graphc.optim.SGD(p, lr=1.0, momentum=0.5))
    for k in range(16):
        for o in (optimizer, other):
            o.param_groups[0]["momentum"] = 0.5 if k < 8 else 0.75
            o.param_groups[0]["weight_decay"] = 0.0 if k < 12 else 0.125
        step(X)
        other.zero_grad()
        (v * X).sum().backward()
        other.step()
        assert w.tolist() == v.tolist(), k


def test_the_first_step_of_an_optimizer_is_not_like_the_others() -> None:
    options = {"lr": 1.0, "momentum": 0.5, "dampening": 0.5}
    step, w, _ = training(lambda p: graphc.optim.SGD(p, **options))
    for expected in (-1.0, -2.0, -3.0, -4.0, -5.0):
        step(X)
        assert w.tolist() == [expected] * 2
    assert graphs(step) == 1


def test_a_parameter_that_stops_requiring_grad() -> None:
    a, b = nn.Parameter(graphc.zeros(2)), nn.Parameter(graphc.zeros(2))
    optimizer = graphc.optim.SGD([a, b], lr=1.0)

    @graphc.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        ((a + b) * x).sum().backward()
        optimizer.step()

    for _ in range(4):
        step(X)
    assert a.tolist() == b.tolist() == [-4, -4]
    b.requires_grad_(False)
    for _ in range(4):
        step(X)
    assert a.tolist() == [-8, -8] and b.tolist() == [-4, -4] and b.grad is None


# The snapshot itself


def test_what_has_changed_is_named() -> None:
    options = Options()
    items = [1, 2]
    scale = 1.0

    def f() -> Any:
        return options.scale, items, scale, SCALE

    snapshot = Snapshot(f)
    assert snapshot.changed() is None
    options.scale = 5.0
    assert snapshot.changed() == "options.scale was 2.0, is 5.0"
    options.scale = 2.0
    items.append(3)
    assert snapshot.changed() == "the items of the closure variable 'items' have changed"
    items.pop()
    items[1] = 7
    assert snapshot.changed() == "items[1] was 2, is 7"
    items[1] = 2
    scale = 4.0
    assert snapshot.changed() == "the closure variable 'scale' was 1.0, is 4.0"
    scale = 1.0
    assert snapshot.changed() is None


def test_an_equal_value_is_taken_over_once() -> None:
    options = Options(float("2.5"))
    snapshot = Snapshot(options.apply)
    assert snapshot.changed() is None and snapshot.renewed == 0
    options.scale = float("2.5")
    assert snapshot.changed() is None and snapshot.renewed == 1
    assert snapshot.changed() is None and snapshot.renewed == 1
