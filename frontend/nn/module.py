"""`Module`: the base of all layers and models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend import device as devices
from graphc.frontend.creation_like import empty_like
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.hooks import ModuleHooks
from graphc.frontend.nn.parameter import Buffer, Parameter
from graphc.frontend.nn.state import ModuleState
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bfloat16, float16, float32, float64


class _Clock:
    """Counts the changes of all modules' attributes."""

    ticks = 0


clock = _Clock()
"""`clock.ticks` grows with every change of an attribute of any module, and `module._version` with those of one."""


class Module(ModuleHooks, ModuleState):
    """A layer or a model. Subclasses call `super().__init__()`, assign their parts to attributes, and define `forward`.

    Parameters, buffers and modules among the attributes are found by `parameters()`, `state_dict()`, `to()` and so on.

    Calling one without a `forward` is a NotImplementedError.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden, self.out = nn.Linear(2, 8), nn.Linear(8, 1)
    ...
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> net = Net()
    >>> net(graphc.zeros(5, 2)).shape, len(list(net.parameters()))
    (graphc.Size([5, 1]), 4)
    """

    training: bool
    _version = 1

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_modules"] = {}
        own["_unsaved_buffers"] = set()
        self._init_hooks()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    # Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        clock.ticks += 1
        own["_version"] = own.get("_version", 0) + 1
        if isinstance(value, Parameter):
            if "_parameters" not in own:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, "_parameters")
            if hasattr(type(self), name):  # something that would hide the parameter, such as a property
                raise KeyError(f"attribute '{name}' already exists")
            own["_parameters"][name] = value
            return
        if isinstance(value, Module):
            if "_modules" not in own:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, "_modules")
            own["_modules"][name] = value
            return
        if isinstance(value, Buffer) and "_buffers" in own:
            self._forget(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
            return
        for kind, accepted in (("_parameters", "nn.Parameter"), ("_modules", "nn.Module"), ("_buffers", "Tensor")):
            registered = own.get(kind)
            if registered is not None and name in registered:
                if value is not None and not (kind == "_buffers" and isinstance(value, Tensor)):
                    what = {"_parameters": "parameter", "_modules": "child module", "_buffers": "buffer"}[kind]
                    raise TypeError(f"cannot assign '{_type_name(value)}' as {what} '{name}' "
                                    f"(graphc.{accepted} or None expected)")
                registered[name] = value
                return
        object.__setattr__(self, name, value)

    def _forget(self, name: str, keep: str) -> None:
        for kind in ("_parameters", "_buffers", "_modules"):
            if kind != keep:
                self.__dict__[kind].pop(name, None)
        self.__dict__["_unsaved_buffers"].discard(name)
        self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            registered = own.get(kind)
            if registered is not None and name in registered:
                return registered[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        clock.ticks += 1
        self.__dict__["_version"] = self.__dict__.get("_version", 0) + 1
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[kind]:
                del self.__dict__[kind][name]
                self._unsaved_buffers.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None reserves the name."""
        self._check_name(name, "parameter", "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentTypeError(f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                                    "(graphc.nn.Parameter or None required)")
        if param is not None and not param.is_leaf:
            raise ArgumentError(f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created "
                                f"explicitly.", hint="compute it in forward()")
        self._changed()
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but not trained; with persistent=False it is left out of state_dict."""
        self._check_name(name, "buffer", "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' "
                                    "(graphc.Tensor or None required)")
        self._changed()
        self._buffers[name] = tensor
        (self._unsaved_buffers.discard if persistent else self._unsaved_buffers.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name."""
        if module is not None and not isinstance(module, Module):
            raise ArgumentTypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name(name, "module", "_modules")
        self._changed()
        self._modules[name] = module

    register_module = add_module

    def _changed(self) -> None:
        clock.ticks += 1
        self.__dict__["_version"] = self.__dict__.get("_version", 0) + 1

    def _check_name(self, name: str, kind: str, home: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise ArgumentTypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if not name:
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[home]:
            raise KeyError(f"attribute '{name}' already exists")

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path."""
        module: Any = self
        for part in target.split(".") if target else ():
            if not hasattr(module, part):
                raise AttributeError(f"{type(module).__name__} has no attribute `{part}`")
            module = getattr(module, part)
            if not isinstance(module, Module):
                raise AttributeError(f"`{part}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module at a dotted path, in the place of the one that is there; if `strict`, one has to be."""
        path, _, name = target.rpartition(".")
        if not name:
            raise ArgumentError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ArgumentError(f"`module` is not an nn.Module, found {type(module)}")
        owner = self.get_submodule(path)
        if strict and not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        if hasattr(owner, name) and not isinstance(getattr(owner, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(owner, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        found = getattr(owner, name)
        if not isinstance(found, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        if name not in owner._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        found: Any = owner._buffers[name]
        return found

    # Walking

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside, with their names."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """The module itself and everything inside, each once unless `remove_duplicate` is False."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The module itself and everything inside, with dotted names."""
        seen = set() if memo is None else memo
        if remove_duplicate:
            if self in seen:
                return
            seen.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def _named_members(
        self, members: Callable[[Module], Any], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in owners:
            for name, member in members(module):
                if member is None or (remove_duplicate and id(member) in seen):
                    continue
                seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names."""
        return self._named_members(lambda module: module._parameters.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names."""
        return self._named_members(lambda module: module._buffers.items(), prefix, recurse, remove_duplicate)

    # Changing everything at once

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on everything inside, and on the module itself last."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch the module and everything inside to training behaviour (dropout on, batch statistics), or off it."""
        if not isinstance(mode, bool):
            raise ArgumentError("training mode is expected to be boolean", got=repr(mode))
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self) -> Self:
        """Switch off training behaviour."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self.modules() if recurse else (self,):
            module._changed()
            for parameter in module._parameters.values():
                if parameter is None:
                    continue
                with no_grad():
                    parameter.data = fn(parameter.data)
                    grad = parameter._get_grad()
                    if grad is not None:
                        parameter._set_grad(fn(grad))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Convert parameters and buffers in place: to(dtype), to(device), to(device, dtype). Integers keep their dtype."""
        dtype: DType | None = kwargs.get("dtype")
        where: Any = kwargs.get("device")
        for arg in args:
            if isinstance(arg, DType):
                dtype = arg
            elif isinstance(arg, Tensor):
                dtype, where = arg.dtype, arg.device
            elif isinstance(arg, (str, devices.device)) or type(arg) is int:
                where = arg
        devices.check(where)
        if dtype is None:
            return self if where is None else self._apply(lambda t: t.to(where))
        if not dtype.is_differentiable:
            raise ArgumentTypeError("nn.Module.to only accepts floating point or complex dtypes, but got desired "
                                    f"dtype={dtype}")
        wanted = dtype
        return self._apply(lambda t: t.to(where, wanted if t.dtype.is_differentiable else None))

    def type(self, dst_type: DType) -> Self:
        """Convert all parameters and buffers."""
        return self._apply(lambda t: t.to(dst_type))

    def float(self) -> Self:
        """Floating-point parameters and buffers as float32."""
        return self.to(float32)

    def double(self) -> Self:
        """Floating-point parameters and buffers as float64."""
        return self.to(float64)

    def half(self) -> Self:
        """Floating-point parameters and buffers as float16."""
        return self.to(float16)

    def bfloat16(self) -> Self:
        """Floating-point parameters and buffers as bfloat16."""
        return self.to(bfloat16)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move to a device without the numbers: every parameter and buffer is new memory that means nothing."""
        devices.check(device)
        return self._apply(lambda t: empty_like(t, device=device), recurse)

    def cpu(self) -> Self:
        """Move parameters and buffers to CPU memory."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Self:
        """Move parameters and buffers to a GPU, the current one if none is named: an error where there is none."""
        return self._apply(lambda t: t.cuda(device))

    def share_memory(self) -> Self:
        """Put all parameters and buffers where other processes can see them."""
        return self._apply(lambda t: t.share_memory_())

    # Calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._has_hooks():
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    # Text

    def extra_repr(self) -> str:
        """The settings that are printed between the parentheses."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        notes = extra.split("\n") if extra else []
        inside = [f"({name}): {_indented(repr(module))}" for name, module in self._modules.items()]
        if not inside and len(notes) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join([*notes, *inside]) + "\n)"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def compile(self, **options: Any) -> None:
        """Run forward from compiled graphs from now on."""
        from graphc.frontend.compile import compile

        object.__setattr__(self, "forward", compile(type(self).forward.__get__(self), **options))


def _type_name(value: Any) -> str:
    return value.type() if isinstance(value, Tensor) else type(value).__name__


def _indented(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *("  " + line for line in rest)])


def clear_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or set it to zeros."""
    if set_to_none:
        parameter._set_grad(None)
        return
    grad = parameter._get_grad()
    if grad is not None:
        if grad.grad_fn is not None:
            grad.detach_()
        else:
            grad.requires_grad_(False)
        grad.zero_()
