"""Compiled functions see what changes in objects of all kinds, however their code gets at it.

Each scene is run eagerly and compiled, five calls of each, and shows the same results, exceptions and state.
"""

from __future__ import annotations

import collections
import enum
import functools
import threading
import types
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest
from scenes import Scene, Scenes, agree, full

import graphc

scene = Scenes()
COUNT = 0


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
