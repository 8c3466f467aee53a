"""Parameters that are computed from others each time that they are read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.containers import ModuleDict, ModuleList
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor


class _Cache:
    """Values of parametrised tensors, while `cached()` is on."""

    depth = 0
    values: dict[tuple[int, str], Tensor]

    def __init__(self) -> None:
        self.values = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrised tensor once inside the block, however often it is read."""
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values.clear()


class ParametrizationList(ModuleList):
    """The parametrisations of one tensor, applied one after the other, and what the first one starts from: the parameter
    `original`, or `original0`, `original1`, ... where a `right_inverse` gives several tensors."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ArgumentError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        before = original.detach()
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                new = _inverted(module, new, must=False)
        self.is_tensor = isinstance(new, Tensor)
        if self.is_tensor:
            if new.dtype is not original.dtype:
                raise ArgumentError("When `right_inverse` outputs one tensor, it may not change the dtype.",
                                    expected=original.dtype.name, got=new.dtype.name)
            if new is not original:
                # the parameter itself stays, for whoever holds it
                original.data = new.detach()
            self._add("original", original)
        else:
            if not isinstance(new, Sequence):
                raise ArgumentError("'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                                    f"{type(new).__name__}")
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ArgumentError("When `right_inverse` outputs a sequence, all its elements must be tensors",
                                        got=f"{type(part).__name__} as element {i}")
                if isinstance(original, Parameter):
                    part = Parameter(part.detach(), original.requires_grad)
                self._add(f"original{i}", part)
        self.ntensors = 1 if self.is_tensor else len(new)
        if not unsafe:
            with no_grad():
                value = self()
            try:
                _check_same(before, value)
            except ArgumentError:
                original.data = before
                raise

    def _add(self, name: str, value: Tensor) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value)

    def _originals(self) -> list[Tensor]:
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        return [getattr(self, name) for name in names]

    def right_inverse(self, value: Tensor) -> None:
        """Change what the tensor is computed from so that it becomes `value`."""
        with no_grad():
            new: Any = value
            for module in reversed(list(self)):
                new = _inverted(module, new, must=True)
            parts = [new] if isinstance(new, Tensor) else list(new)
            originals = self._originals()
            if len(parts) != len(originals) or isinstance(new, Tensor) != self.is_tensor:
                raise ArgumentError("'right_inverse' must return as many tensors as when it was registered",
                                    expected=str(self.ntensors), got=str(len(parts)))
            for original, part in zip(originals, parts):
                if part.dtype is not original.dtype:
                    raise ArgumentError("The tensor returned by `right_inverse` changes the dtype",
                                        expected=original.dtype.name, got=part.dtype.name)
                if part.shape == original.shape:
                    original.copy_(part)
                else:
                    original.data = part.detach()

    def forward(self) -> Tensor:
        modules = list(self)
        value = modules[0](*self._originals())
        for module in modules[1:]:
            value = module(value)
        return value


def _inverted(module: Module, value: Any, must: bool) -> Any:
    """What `module` maps to `value`; `value` itself where the module cannot say, unless it `must`."""
    inverse = getattr(module, "right_inverse", None)
    if inverse is None:
        if must:
            raise GraphcError(f"parametrization {type(module).__name__} does not implement right_inverse.")
        return value
    try:
        return inverse(value)
    except NotImplementedError:
        if must:
            raise
        return value


def _check_same(original: Tensor, *values: Any) -> None:
    for value in values:
        if not isinstance(value, Tensor):
            raise ArgumentError(f"A parametrization must return a tensor. Got {type(value).__name__}.")
        for name in ("dtype", "shape"):
            if getattr(value, name) != getattr(original, name):
                raise ArgumentError(f"Registering a parametrization may not change the {name} of the tensor, unless `unsafe` "
                                    f"flag is enabled.\nunparametrized {name}: {getattr(original, name)}\n"
                                    f"parametrized {name}: {getattr(value, name)}")


# Attributes that are computed: a class of its own for each module


def compute_attribute(module: Module, name: str, value: property, prefix: str = "") -> None:
    """Let an attribute of one module be a property. The module gets a class of its own, derived from the one it had and
    called by its name with a prefix."""
    if not _has_own_class(module):
        cls = type(module)
        module.__class__ = type(prefix + cls.__name__, (cls,), {
            "__module__": cls.__module__, "__deepcopy__": _deepcopy, "__getstate__": _refuse_pickle, "_own_class_of": cls})
    setattr(type(module), name, value)
    module._changed()


def stop_computing(module: Module, name: str) -> None:
    """Take the property away again, and the class with the last one."""
    delattr(type(module), name)
    if not any(isinstance(member, property) for member in vars(type(module)).values()):
        module.__class__ = type_before_parametrizations(module)
    module._changed()


def _has_own_class(module: Module) -> bool:
    return "_own_class_of" in vars(type(module))


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    cls: type = type(self)
    own = type(cls.__name__, cls.__bases__, {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")})
    made: Any = object.__new__(own)
    memo[id(self)] = made
    made.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return made


def _refuse_pickle(self: Any) -> Any:
    raise GraphcError("Serialization of parametrized modules is only supported through state_dict().",
                      hint="save module.state_dict(), and load it into a module that is parametrized the same way")


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrisations."""
    return vars(type(module)).get("_own_class_of", type(module))


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a tensor of the module, or any of them, is parametrised."""
    lists = module.__dict__.get("_modules", {}).get("parametrizations")
    if lists is None or not isinstance(lists, ModuleDict):
        return False
    return len(lists) > 0 if tensor_name is None else tensor_name in lists


def _parametrized(name: str) -> property:
    def read(self: Module) -> Tensor:
        if not _cache.depth:
            return self.parametrizations[name]()
        key = id(self), name
        if key not in _cache.values:
            _cache.values[key] = self.parametrizations[name]()
        return _cache.values[key]

    def write(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(read, write)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Let `module.<tensor_name>` be `parametrization(original)` from now on; several are applied one after the other.

    A `right_inverse(value)` of the parametrisation says what `original` is for the present value, and is used when the
    tensor is assigned to. Shape and dtype may only change if `unsafe`.

    >>> import graphc
    >>> from graphc import nn
    >>> class Symmetric(nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).mT
    >>> layer = nn.utils.parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.mT).all())
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            with no_grad():
                value = getattr(module, tensor_name)
                new = parametrization(value)
                _check_same(value, new, _inverted(parametrization, new, must=False))
        lists: Any = module.parametrizations
        lists[tensor_name].append(parametrization)
        lists[tensor_name].unsafe |= unsafe
        return module
    original = module._parameters.get(tensor_name, module._buffers.get(tensor_name))
    if original is None:
        raise ArgumentError(f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
                            f"'{tensor_name}'")
    parametrizations = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    compute_attribute(module, tensor_name, _parametrized(tensor_name), prefix="Parametrized")
    module.parametrizations[tensor_name] = parametrizations
    return module


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrised tensor an ordinary one: with its present value, or else with that of `original`."""
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations: Any = module.parametrizations[tensor_name]
    if not parametrizations.is_tensor and not leave_parametrized:
        raise ArgumentError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms "
                            "of a sequence of tensors.")
    first = parametrizations._originals()[0]
    kept = first
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name)
        if not parametrizations.is_tensor:
            kept = Parameter(value.detach(), first.requires_grad) if isinstance(first, Parameter) else value.detach()
        else:
            kept.data = value.detach()
    stop_computing(module, tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
    if isinstance(kept, Parameter):
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, kept)
    return module


def transfer_parametrizations_and_params(from_module: Module, to_module: Module, tensor_name: str | None = None) -> Module:
    """Give another module copies of the parametrisations of all tensors or of one, and of what they start from."""
    if not is_parametrized(from_module, tensor_name):
        raise ArgumentTypeError("transfer_parametrizations_and_params: the module to copy from has no parametrization"
                                + (f" on {tensor_name}" if tensor_name else ""))
    for name in [tensor_name] if tensor_name is not None else list(from_module.parametrizations):
        source = from_module.parametrizations[name]
        for parametrization in source:
            register_parametrization(to_module, name, copy.deepcopy(parametrization), unsafe=source.unsafe)
        target = to_module.parametrizations[name]
        for mine, other in zip(target._originals(), source._originals()):
            mine.data = other.detach().clone()
    return to_module
