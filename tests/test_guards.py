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
from native_calls import graphs, native

import graphc
from graphc.frontend.guards import Snapshot

X = graphc.ones(2)
SCALE = 2.0
TABLE = {"scale": 2.0, "names": ["a", "b"]}


def copy_of(value: Any) -> Any:
    """An equal object."""
    return eval(repr(value), {"nan": float("nan")})


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
