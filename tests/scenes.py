"""Running a function eagerly and compiled, and comparing all that can be seen of it: results, exceptions, and state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc.frontend.pytree import flatten

CALLS = 5


def full(value: float) -> Any:
    """Two elements of that value."""
    return graphc.full((2,), value)


def ones_times(k: int) -> tuple[Any, ...]:
    """The arguments of call number k, unless a scene says otherwise."""
    return (full(float(k + 1)),)


@dataclass
class Scene:
    """A function, and what happens around its calls."""

    function: Callable[..., Any]
    arguments: Callable[[int], tuple[Any, ...]] = ones_times
    before: Callable[[int], Any] = lambda k: None
    """Called before call number k: where state is changed from outside."""
    state: Callable[[], Any] = lambda: None
    """What the function may have changed."""


class Scenes(dict[str, Callable[..., Scene]]):
    """What makes scenes, by name. As a decorator it takes in what it decorates."""

    def __call__(self, make: Callable[..., Scene]) -> Callable[..., Scene]:
        self[make.__name__] = make
        return make


@dataclass
class Seen:
    """What can be seen of one call."""

    result: Any
    identities: Any
    """For each leaf of the result: which argument or earlier leaf it is."""
    shared: Any
    """For each leaf of the result: which arguments and earlier leaves it shares memory with."""
    arguments: Any
    state: Any


def plain(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """A value without tensors and own classes, to compare."""
    if id(value) in seen:
        return "itself"
    seen = (*seen, id(value))
    if isinstance(value, graphc.Tensor):
        return (type(value).__name__, str(value.dtype), value.requires_grad, value.detach().numpy().tolist())
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.tolist())
    if isinstance(value, BaseException):
        return (type(value).__name__, str(value))
    if isinstance(value, dict):
        return (type(value).__name__, [(plain(k, seen), plain(v, seen)) for k, v in value.items()])
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted(map(repr, value)))
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return (type(value).__name__, [plain(item, seen) for item in value])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, [plain(getattr(value, f.name), seen) for f in dataclasses.fields(value)])
    if isinstance(value, float) and value != value:
        return "nan"
    if type(value).__module__ not in ("builtins", "graphc.types", "graphc") and hasattr(value, "__dict__"):
        return (type(value).__name__, plain(vars(value), seen))
    return (type(value).__name__, value)


def look(result: Any, args: Sequence[Any], state: Any) -> Seen:
    """All that can be seen after a call."""
    leaves = [leaf for leaf in flatten(result)[0] if isinstance(leaf, graphc.Tensor)]
    around = [leaf for leaf in flatten(tuple(args))[0] if isinstance(leaf, graphc.Tensor)]
    identities, shared = [], []
    for leaf in leaves:
        identities.append([i for i, other in enumerate(around) if other is leaf])
        shared.append([i for i, other in enumerate(around) if np.shares_memory(other.detach().numpy(), leaf.detach().numpy())])
        around.append(leaf)
    return Seen(plain(result), identities, shared, plain(tuple(args)), plain(state))


def run(scene: Scene, function: Callable[..., Any], calls: int = CALLS) -> list[Seen]:
    """What is seen of so many calls."""
    seen = []
    for k in range(calls):
        scene.before(k)
        args = scene.arguments(k)
        result: Any
        try:
            result = function(*args)
        except Exception as error:
            result = error
        seen.append(look(result, args, scene.state()))
    return seen


def agree(make: Callable[[], Scene], calls: int = CALLS, **options: Any) -> Any:
    """Two scenes from `make`, one run eagerly and one compiled, show the same. The compiled function."""
    eager = make()
    expected = run(eager, eager.function, calls)
    scene = make()
    compiled = graphc.compile(scene.function, **options)
    found = run(scene, compiled, calls)
    for k, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        for f in dataclasses.fields(Seen):
            assert getattr(got, f.name) == getattr(wanted, f.name), f"call {k}: {f.name}"
    return compiled
