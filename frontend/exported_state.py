"""What an exported function finds by itself: names for it, and what is left in modules in place of it.

A tensor is called as its module calls it, or as the variable that the function reads: `fc.weight`, `model.fc.weight`,
`optimizer.model.fc.weight.exp_avg`, `optimizer.lr`, `generator`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from graphc.errors import TraceError
from graphc.frontend.device_arrays import is_array
from graphc.frontend.generator import Generator, default_generator
from graphc.frontend.nn.module import Module
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.pytree import Structure
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace_inputs import Captured, Gradient, Number, Source


def paths(structure: Structure) -> list[tuple[str, ...]]:
    """For each leaf of a structure, the keys, numbers and attributes that lead to it."""
    if structure.kind == "leaf":
        return [()]
    keys = (*structure.keys, *structure.attributes) or range(len(structure.children))
    return [(str(key), *rest) for key, child in zip(keys, structure.children) for rest in paths(child)]


class Names:
    """Names of what functions find by themselves; what several find has the same name for all."""

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self._names: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._of_modules: set[int] = set()
        self._given: dict[tuple[int, str], str] = {}
        self._taken: set[str] = set()
        found = [pair for function in functions for pair in _found_by(function)]
        for name, item in found:
            for path, tensor in _tensors(item):
                self._names.setdefault(id(tensor), ".".join(filter(None, (name, path))))
                if isinstance(item, Module):
                    self._of_modules.add(id(tensor))
        for name, item in found:
            if isinstance(item, Optimizer):
                self._add_optimizer(name, item)
        self._names.setdefault(id(default_generator._state), "generator")

    def _add_optimizer(self, name: str, optimizer: Optimizer) -> None:
        for i, (parameter, state) in enumerate(optimizer.state.items()):
            owner = self._names.get(id(parameter), str(i))
            for key, item in state.items():
                self._names.setdefault(id(item), f"{name}.{owner}.{key}")
        for i, group in enumerate(optimizer.param_groups):
            self._groups[id(group)] = name if i == 0 else f"{name}.param_groups.{i}"

    def is_of_module(self, source: Source) -> bool:
        """Whether it is a tensor that belongs to a module."""
        return isinstance(source, Captured) and id(source.tensor) in self._of_modules

    def of(self, source: Source) -> str:
        """The name of what an input stands for; no other source has it."""
        key: tuple[int, str]
        match source:
            case Captured(tensor):
                key, base = (id(tensor), ""), self._names.get(id(tensor), "tensor")
            case Gradient(Captured(tensor)):
                key, base = (id(tensor), "grad"), f"{self._names.get(id(tensor), 'tensor')}.grad"
            case Number(mapping, item):
                key, base = (id(mapping), item), ".".join(filter(None, (self._groups.get(id(mapping)), item)))
            case _:
                raise TraceError("the gradient of an argument cannot be kept between the calls of an exported program",
                                 hint="return it, or let the function find the tensor by itself")
        if key not in self._given:
            name, number = base, 0
            while name in self._taken or name == "tensor":
                name, number = f"{base}.{number}", number + 1
            self._given[key] = name
            self._taken.add(name)
        return self._given[key]


class Rebinding:
    """Tensors that modules hold, and the function's own object, before a trace: `self.h = h` puts another in its place."""

    def __init__(self, function: Callable[..., Any]) -> None:
        holders: list[Any] = []
        for name, item in _found_by(function):
            if isinstance(item, Module):
                holders += item.modules()
            elif not name:
                holders.append(item)
        namespaces = [vars(holder) for holder in holders]
        namespaces += [holder._buffers for holder in holders if isinstance(holder, Module)]
        self._before = [(namespace, dict(namespace)) for namespace in namespaces]

    def undo(self) -> tuple[list[tuple[Tensor, Tensor]], list[str]]:
        """Put back what there was: the tensors that have been replaced, each with the one that took its place, and the names
        of what holds a tensor of the trace where there was none before."""
        replaced: list[tuple[Tensor, Tensor]] = []
        added: list[str] = []
        for namespace, before in self._before:
            for key, now in list(namespace.items()):
                old = before.get(key)
                if now is old or not isinstance(now, Tensor):
                    continue
                if isinstance(old, Tensor):
                    replaced.append((old, now))
                elif is_array(now._data):  # made for good, by other means than the trace's
                    continue
                else:
                    added.append(key)
                namespace[key] = old
                if key not in before:
                    del namespace[key]
        return replaced, added


def _found_by(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """What a function can reach, by the names of its variables; the module or the object that it belongs to has none."""
    if isinstance(function, functools.partial):
        yield from _found_by(function.func)
        return
    function = inspect.unwrap(function)
    owner = function if isinstance(function, Module) else getattr(function, "__self__", None)
    if owner is not None and hasattr(owner, "__dict__") and not isinstance(owner, (type, ModuleType)):
        yield "", owner
        if not isinstance(owner, Module):
            yield from vars(owner).items()
    code = getattr(function, "__func__", function)
    if inspect.isfunction(code):
        for name, cell in zip(code.__code__.co_freevars, code.__closure__ or ()):
            with contextlib.suppress(ValueError):  # a variable that has no value yet
                yield name, cell.cell_contents
        for name in code.__code__.co_names:
            if name in code.__globals__:
                yield name, code.__globals__[name]


def _tensors(item: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an object that belong to it, each with the way to it."""
    if isinstance(item, Tensor):
        yield "", item
    elif isinstance(item, Generator):
        yield "", item._state
    elif isinstance(item, Module):
        yield from item.named_parameters()
        yield from item.named_buffers()
        for name, module in item.named_modules():
            for key, held in vars(module).items():
                if isinstance(held, Tensor):
                    yield ".".join(filter(None, (name, key))), held
    elif type(item) in (list, tuple, dict):  # not what is nested in them, which may be anything, without end
        for place, held in item.items() if isinstance(item, dict) else enumerate(item):
            if isinstance(held, Tensor):
                yield str(place), held
