"""The modules of PyTorch, made of graphc's: what `import torch` gives in a process that runs a program written for it.

A name that graphc has is graphc's own object. One that it lacks can be imported, but not used: `from torch.x import y`
gives something that says "graphc has no torch.x.y" once it is called, subclassed or looked into. `torch.x.y` without
such an import is an AttributeError at once, so that `hasattr` tells what is there.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from graphc.errors import GraphcError
from graphc.frontend.torch_stand_ins import STAND_INS

_ROOT = "torch"

_ELSEWHERE = {
    "functional": "", "_higher_order_ops": "", "nn.modules": "nn", "nn.utils.stateless": "func",
    "autograd.variable": "autograd",
}
"""Modules of PyTorch whose names are in another one of graphc's; "" is the top level. What is below goes with them."""


class AbsentError(GraphcError, AttributeError, NotImplementedError):
    """A name of PyTorch that graphc does not have."""


def _absent(name: str) -> AbsentError:
    return AbsentError(f"graphc has no {name}", hint="write it with what there is; dir() of the module lists that")


class _Module(ModuleType):
    """A module of PyTorch with the names of some of graphc's modules."""

    def __init__(self, name: str, sources: Sequence[ModuleType], stand_ins: dict[str, Any]) -> None:
        super().__init__(name, sources[0].__doc__ if sources else None)
        self.__dict__.update(stand_ins)
        self.__dict__["__path__"] = []
        self.__dict__["_graphc_sources"] = tuple(sources)

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        if name == "__all__":
            return [name for name in dir(self) if name not in ("bool", "float", "int")]  # Python's own stay what they are
        if name.startswith("__"):
            raise AttributeError(full)
        for source in self._graphc_sources:
            try:
                value = getattr(source, name)
            except AttributeError:
                continue
            if not isinstance(value, ModuleType):
                self.__dict__[name] = value  # found at once from now on
                return value
        if _exists(full):
            return importlib.import_module(full)
        raise _absent(full)

    def __dir__(self) -> list[str]:
        names = {name for name in self.__dict__ if not name.startswith("_")}
        for source in self._graphc_sources:
            names.update(getattr(source, "__all__", dir(source)))
        return sorted(names)


class _Absent(ModuleType):
    """A module, class or function that graphc does not have, imported and not used so far."""

    __path__: list[str] = []  # noqa: RUF012  (makes it a package, of which there are others like it)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _absent(self.__name__)

    __call__ = __mro_entries__ = __getitem__ = __iter__ = __len__ = __enter__ = __or__ = __ror__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{self.__name__}.{name}")
        raise _absent(f"{self.__name__}.{name}")

    def __instancecheck__(self, instance: object) -> bool:
        return False  # nothing can be an instance of what does not exist

    def __subclasscheck__(self, subclass: type) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.__name__}, which graphc does not have>"


class TorchFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torch` and everything below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != _ROOT:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin="graphc", is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        name = spec.name
        if not _exists(name):
            return _Absent(name)
        rest = name.removeprefix(_ROOT).removeprefix(".")
        return _Module(name, _sources(rest), STAND_INS.get(rest, {}))

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def _exists(name: str) -> bool:
    rest = name.removeprefix(_ROOT).removeprefix(".")
    return rest in STAND_INS or bool(_sources(rest))


def _sources(rest: str) -> list[ModuleType]:
    """The modules of graphc that a module of PyTorch, named without `torch.`, is made of."""
    for other, own in _ELSEWHERE.items():
        if f"{rest}.".startswith(f"{other}."):
            below = _sources(own + rest[len(other) :]) if own else []
            return below or _sources(own)
    if not rest:
        return [importlib.import_module("graphc.frontend.api")]
    graphc = sys.modules["graphc"]
    if rest.partition(".")[0] not in graphc._MODULES:  # the rest of what is in graphc has names of its own, such as `backends`
        return []
    own = f"graphc.{rest}"
    try:
        return [importlib.import_module(own)]
    except ModuleNotFoundError as error:
        if error.name is not None and f"{own}.".startswith(f"{error.name}."):
            return []
        raise
