"""The tensors that a function can reach, by name: so that the same function runs on the same numbers in another library.

Names are those by which the script itself knows them, such as `train.model.fc.weight` in train.py, or `inputs[0]`. What is
looked into: modules, containers, what a function has in its closure, and objects of classes that the script defines. Objects
of a library are its own affair: but for its tensors and modules, they are passed over.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


class Reach:
    """Looks for tensors from objects of a library with PyTorch's interface, in code of a folder or of some modules."""

    def __init__(self, library: Any, folder: str | None = None, modules: tuple[str, ...] = ()) -> None:
        self._tensor, self._module = library.Tensor, library.nn.Module
        self._folder, self._modules = folder, modules
        self._known: dict[str, bool] = {}

    def tensors(self, roots: Mapping[str, Any]) -> dict[str, Any]:
        """Each tensor once, under the name by which it is first met."""
        found: dict[str, Any] = {}
        seen: set[int] = set()
        waiting = list(roots.items())[::-1]
        while waiting:
            name, value = waiting.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, self._tensor):
                found[name] = value
            else:
                waiting += reversed(list(self._inside(name, value)))
        return found

    def _inside(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, self._module):
            yield from ((f"{name}.{own}", tensor) for own, tensor in value.named_parameters())
            yield from ((f"{name}.{own}", tensor) for own, tensor in value.named_buffers())
            for own, inner in value.named_modules():
                if self._is_ours(type(inner).__module__):
                    prefix = f"{name}.{own}" if own else name
                    yield from self._attributes(prefix, inner, ("_parameters", "_buffers", "_modules"))
        elif isinstance(value, dict):
            yield from ((f"{name}[{key!r}]", inner) for key, inner in value.items() if isinstance(key, (str, int)))
        elif isinstance(value, (list, tuple)):
            yield from ((f"{name}[{number}]", inner) for number, inner in enumerate(value))
        elif isinstance(value, functools.partial):
            yield from ((f"{name}.{part}", getattr(value, part)) for part in ("func", "args", "keywords"))
        elif isinstance(value, types.MethodType):
            yield f"{name}.__self__", value.__self__
        elif isinstance(value, types.FunctionType):
            if self._is_ours(value.__module__):
                cells = value.__closure__ or ()
                names = zip(value.__code__.co_freevars, cells, strict=True)
                yield from ((f"{name}.{own}", cell.cell_contents) for own, cell in names if _is_filled(cell))
                yield f"{name}.__defaults__", value.__defaults__
        elif not isinstance(value, (type, types.ModuleType)) and self._is_ours(type(value).__module__):
            yield from self._attributes(name, value, ())

    def _attributes(self, name: str, value: Any, left_out: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        own = getattr(value, "__dict__", {})
        yield from ((f"{name}.{key}", inner) for key, inner in own.items() if key not in left_out)

    def _is_ours(self, module: str) -> bool:
        """Whether a module is part of the script, by where its file is."""
        known = self._known.get(module)
        if known is None:
            file = getattr(sys.modules.get(module), "__file__", None)
            inside = self._folder is not None and file is not None and os.path.dirname(os.path.abspath(file)) == self._folder
            known = self._known[module] = inside or module in self._modules
        return known


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (it raises)
    except ValueError:
        return False
    return True


def to_array(tensor: Any) -> np.ndarray:
    """A tensor's numbers; those of dtypes that NumPy lacks in single precision."""
    tensor = tensor.detach()
    if "float" in str(tensor.dtype) and tensor.element_size() < 4:
        tensor = tensor.float()
    return np.array(tensor.numpy())


def save(tensors: Mapping[str, Any], path: str) -> None:
    """Write the numbers of tensors for `fill`."""
    arrays: dict[str, Any] = {name: to_array(tensor) for name, tensor in tensors.items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def fill(tensors: Mapping[str, Any], path: str, from_numpy: Callable[[np.ndarray], Any]) -> str | None:
    """Give tensors the numbers that were saved under the same names. What is wrong, if they are not the same tensors."""
    with np.load(path) as saved:
        missing, more = sorted(set(saved) - set(tensors)), sorted(set(tensors) - set(saved))
        if missing or more:
            return f"the script makes other tensors here: {'no ' + missing[0] if missing else more[0] + ' is new'}"
        for name, tensor in tensors.items():
            array = saved[name]
            if tuple(tensor.shape) != array.shape:
                return f"{name} has the shape {list(tensor.shape)} here, and {list(array.shape)} elsewhere"
            tensor.detach().copy_(from_numpy(array))
    return None
