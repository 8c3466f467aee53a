"""What `Module` knows about its state: all parameters and buffers by name, taken out and put back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend.hooks import Hooks
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor

EXTRA = "_extra_state"


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class IncompatibleKeys(_Keys):
    """What `load_state_dict` found: names that the module has and the state lacks, and the other way round."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


class _State(OrderedDict[str, Any]):
    """A state, with notes about the modules that it came from in `_metadata`."""

    _metadata: dict[str, dict[str, Any]]


class ModuleState:
    """The part of `Module` that saves and loads."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    _unsaved_buffers: set[str]
    _state_dict_hooks: Hooks
    _state_dict_pre_hooks: Hooks
    _load_state_dict_pre_hooks: Any
    _load_state_dict_post_hooks: Hooks

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """All parameters and persistent buffers by their dotted names. The tensors share memory with the module's, and are
        detached unless `keep_vars`."""
        if args:  # as older programs give them
            given: tuple[Any, ...] = (*args, *(destination, prefix, keep_vars)[len(args) :])
            destination, prefix, keep_vars = given
        if destination is None:
            destination = _State()
            destination._metadata = {}
        metadata = {"version": type(self)._version}  # type: ignore[attr-defined]
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            result = hook(self, destination, prefix, metadata)
            if result is not None:
                destination = result
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                destination[prefix + name] = parameter if keep_vars else parameter.detach()
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._unsaved_buffers:
                destination[prefix + name] = buffer if keep_vars else buffer.detach()
        if type(self).get_extra_state is not ModuleState.get_extra_state:
            destination[prefix + EXTRA] = self.get_extra_state()

    def get_extra_state(self) -> Any:
        """What a subclass wants in state_dict besides its tensors."""
        raise NotImplementedError("get_extra_state is not defined for this module")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` gave."""
        raise NotImplementedError("set_extra_state is not defined for this module")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copy tensors by name into parameters and buffers; with `assign`, take the tensors themselves.

        Names that are missing or not known are errors if `strict`; shapes that differ always are.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentTypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        result = IncompatibleKeys([], [])
        problems: list[str] = []
        self._load(dict(state_dict), "", getattr(state_dict, "_metadata", {}), assign, result, problems)
        if strict:
            for text, keys in (("Missing key(s)", result.missing_keys), ("Unexpected key(s)", result.unexpected_keys)):
                if keys:
                    problems.insert(int(text[0] == "U" and bool(result.missing_keys)),
                                    f"{text} in state_dict: " + ", ".join(f'"{key}"' for key in keys) + ". ")
        if problems:
            raise GraphcError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(problems))
        return result

    def _load(self, state: dict[str, Any], prefix: str, notes: Mapping[str, Any], assign: bool, result: IncompatibleKeys,
              problems: list[str]) -> None:
        """Load a module and what is inside; `state` has the names that begin with `prefix`."""
        metadata = dict(notes.get(prefix[:-1], {}))
        if assign:
            metadata["assign_to_params_buffers"] = True
        self._load_from_state_dict(state, prefix, metadata, True, result.missing_keys, result.unexpected_keys, problems)
        for name, module in self._modules.items():
            if module is not None:
                inner = f"{prefix}{name}."
                module._load({k: v for k, v in state.items() if k.startswith(inner)}, inner, notes, assign, result, problems)
        for hook in self._load_state_dict_post_hooks.values():
            hook(self, result)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:
        """Load the module's own tensors. Subclasses may change `state_dict` first, to read what older versions saved."""
        for hook, with_module in list(self._load_state_dict_pre_hooks.values()):
            rest = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
            hook(self, *rest) if with_module else hook(*rest)
        own: dict[str, Tensor] = {name: p for name, p in self._parameters.items() if p is not None}
        own.update((n, b) for n, b in self._buffers.items() if b is not None and n not in self._unsaved_buffers)
        for name, tensor in own.items():
            key = prefix + name
            if key in state_dict:
                problem = self._load_one(name, tensor, key, state_dict[key],
                                         local_metadata.get("assign_to_params_buffers", False))
                if problem is not None:
                    error_msgs.append(problem)
            elif strict:
                missing_keys.append(key)
        extra = prefix + EXTRA
        takes_extra = type(self).set_extra_state is not ModuleState.set_extra_state
        if takes_extra and extra in state_dict:
            self.set_extra_state(state_dict[extra])
        elif strict and takes_extra:
            missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra:
                    first, dot, _ = key[len(prefix) :].partition(".")
                    if first not in (self._modules if dot else own):
                        unexpected_keys.append(key)

    def _load_one(self, name: str, own: Tensor, key: str, new: Any, assign: bool) -> str | None:
        """Take over one tensor; returns what is wrong with it."""
        if not isinstance(new, Tensor):
            return (f'While copying the parameter named "{key}", expected graphc.Tensor or Tensor-like object from checkpoint '
                    f"but received {type(new)}")
        if own.dim() == 0 and new.shape == (1,):
            new = new[0]
        if own.shape != new.shape:
            return (f"size mismatch for {key}: copying a param with shape {new.shape} from checkpoint, the shape in current "
                    f"model is {own.shape}.")
        if assign:
            if isinstance(own, Parameter):
                new = new.requires_grad_(own.requires_grad) if isinstance(new, Parameter) else Parameter(new, own.requires_grad)
            setattr(self, name, new)
            return None
        try:
            with no_grad():
                own.copy_(new)
        except GraphcError as error:
            return (f'While copying the parameter named "{key}", whose dimensions in the model are {own.shape} and whose '
                    f"dimensions in the checkpoint are {new.shape}, an exception occurred : {error.args}.")
        return None
