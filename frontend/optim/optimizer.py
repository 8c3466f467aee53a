"""`Optimizer`: the base of all optimizers.

Inside a trace, state tensors are made once, eagerly, unless the optimizer is itself made in the call, and hyper-parameters
are read at each call of the compiled function: a learning rate that a scheduler changes causes no retrace.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend.creation_like import zeros_like
from graphc.frontend.hooks import Hooks, RemovableHandle
from graphc.frontend.modes import enable_grad, no_grad
from graphc.frontend.nn.module import clear_grad, clock
from graphc.frontend.optim import fused
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import BegunState, Tracer, active, suspended


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A `step` that calls the optimizer's hooks before and after."""

    @functools.wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        optimizer = args[0]
        if type(optimizer).step is not call:  # a subclass's step has called the hooks, and now calls this one
            return step(*args, **kwargs)
        for hook in optimizer._hooks["pre"].values():
            changed = hook(optimizer, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise GraphcError("a step pre hook must return None or a tuple of (new_args, new_kwargs)",
                                      got=type(changed).__name__)
                args, kwargs = changed
        result = step(*args, **kwargs)
        if optimizer._has_stepped is False:
            optimizer._has_stepped = True
        for hook in optimizer._hooks["post"].values():
            hook(optimizer, args, kwargs)
        return result

    return call


class Optimizer:
    """Changes parameters by their gradients. Subclasses give defaults and define `_update`.

    params
        Parameters, or groups of them: dicts with "params" and the options that differ from the defaults.

    ArgumentError for no parameters and for those that are no leaves, ArgumentTypeError for a single tensor and for what is
    none.

    >>> class SignSGD(graphc.optim.Optimizer):
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params, {"lr": lr})
    ...
    ...     def _update(self, parameter, grad, state, group):
    ...         parameter.add_(grad.sign(), alpha=-group["lr"])
    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> (weight * 3).sum().backward()
    >>> SignSGD([weight]).step()
    >>> weight.detach()
    tensor([0.9000])
    """

    _version = 0
    _has_stepped: bool | None = None
    """Whether there was a step since the first schedule was made; None without one."""
    _made_in: weakref.ref[Tracer] | None = None
    """The trace that was going on when it was made."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise ArgumentTypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                                    f"{type(params).__name__}")
        tracer = active()
        if tracer is not None:
            self._made_in = weakref.ref(tracer)
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._hooks = {kind: Hooks() for kind in ("pre", "post", "state_pre", "state", "load", "loaded")}
        groups = list(params)
        if not groups:
            raise ArgumentError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; options that it does not name come from the defaults."""
        if not isinstance(param_group, dict):
            raise ArgumentTypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        given = group["params"]
        if isinstance(given, set):
            raise ArgumentTypeError("optimizer parameters need to be organized in ordered collections, but the ordering of "
                                    "tensors in sets will change between runs. Please use a list instead.")
        members = [given] if isinstance(given, Tensor) else list(given)
        if members and isinstance(members[0], tuple):
            group["param_names"] = [name for name, _ in members]
            members = [member for _, member in members]
        for member in members:
            if not isinstance(member, Tensor):
                raise ArgumentTypeError("optimizer can only optimize Tensors, but one of the params is "
                                        f"{type(member).__name__}")
            if not member.is_leaf:
                raise ArgumentError("can't optimize a non-leaf Tensor", hint="optimize the leaf that it was computed from")
        if len({id(m) for m in members}) != len(members):
            raise ArgumentError("optimizer contains a parameter group with duplicate parameters")
        group["params"] = members
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self._check(group)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if not known.isdisjoint(map(id, members)):
            raise ArgumentError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)
        self._changed()

    def _check(self, group: Mapping[str, Any]) -> None:
        """Refuse options that make no sense."""

    def _changed(self) -> None:
        clock.ticks += 1
        self._version += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                clear_grad(parameter, set_to_none)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. A closure computes loss and gradients anew; its value is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            grad = parameter._get_grad()
            if grad is None:
                continue
            is_known = parameter in self.state
            grad, state = -grad if group.get("maximize") else grad, self.state[parameter]
            tracer = active()
            if tracer is not None:
                self._trace_update(tracer, parameter, grad, state, group)
            elif not fused.update(self, parameter, grad, state, group):
                self._update(parameter, grad, state, group)
            if not is_known and not state and self.state.get(parameter) is state:
                del self.state[parameter]

    def _trace_update(
        self, tracer: Tracer, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """`_update`; if it makes state, what is traced may stand for later calls, which find that, too."""
        before = set(state)
        self._update(parameter, grad, state, group)
        made = {name: value for name, value in state.items() if name not in before}
        if made and not self._is_of_this_call():
            tracer.begun(BegunState(self.state, parameter, state, made, not before and self._begins_alike(group)))

    def _begins_alike(self, group: Mapping[str, Any]) -> bool:
        """Whether the update that makes a parameter's state computes what all others do. Ours do, not all of the users'."""
        del group
        names = ("_update", "_new_state", "_zeros")
        functions = [getattr(type(self), name) for name in names]
        ours = all(str(getattr(f, "__globals__", {}).get("__name__")).partition(".")[0] == "graphc" for f in functions)
        return ours and vars(self).keys().isdisjoint(names)

    def _is_of_this_call(self) -> bool:
        """Whether the code that is being traced has made the optimizer: its state is then made at each call, as all else."""
        made_in, tracer = None if self._made_in is None else self._made_in(), active()
        while tracer is not None and tracer is not made_in:
            tracer = getattr(tracer, "around", None)
        return tracer is not None

    def _update(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change one parameter in place. Runs outside the graph of gradients."""
        raise NotImplementedError

    def _new_state(self, state: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
        """`state[name]`, made on first use: eagerly, also in the middle of a trace, unless that has made the optimizer, too."""
        found = state.get(name)
        if found is None:
            with contextlib.nullcontext() if self._is_of_this_call() else suspended():
                found = state[name] = make()
            self._changed()
        return found

    def _zeros(self, state: dict[str, Any], name: str, parameter: Tensor) -> Tensor:
        """A state tensor that begins as zeros of the parameter's shape."""
        return self._new_state(state, name, lambda: zeros_like(parameter))

    # State

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups, with parameters replaced by their numbers."""
        for hook in self._hooks["state_pre"].values():
            hook(self)
        numbers = {id(p): i for i, p in enumerate(itertools.chain.from_iterable(g["params"] for g in self.param_groups))}
        packed = {
            "state": {numbers[id(p)] if isinstance(p, Tensor) else p: s for p, s in self.state.items()},
            "param_groups": [
                {**{k: v for k, v in group.items() if k != "params"}, "params": [numbers[id(p)] for p in group["params"]]}
                for group in self.param_groups
            ],
        }
        for hook in self._hooks["state"].values():
            packed = hook(self, packed) or packed
        return packed

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` gave; tensors are copied and converted to their parameter's dtype."""
        for hook in self._hooks["load"].values():
            state_dict = hook(self, state_dict) or state_dict
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ArgumentError("loaded state dict has a different number of parameter groups",
                                expected=str(len(self.param_groups)), got=str(len(saved)))
        numbered: dict[Any, Tensor] = {}
        for group, other in zip(self.param_groups, saved):
            if len(group["params"]) != len(other["params"]):
                raise ArgumentError("loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                                    "group", expected=str(len(group["params"])), got=str(len(other["params"])))
            numbered.update(zip(other["params"], group["params"]))
        for group, other in zip(self.param_groups, saved):
            group.update({k: copy.deepcopy(v) for k, v in other.items() if k != "params"})
        self.state.clear()
        for key, values in state_dict["state"].items():
            parameter = numbered.get(key)
            if parameter is None:
                self.state[key] = copy.deepcopy(values)
                continue
            self.state[parameter] = {name: _converted(name, value, parameter) for name, value in values.items()}
        self._changed()
        for hook in self._hooks["loaded"].values():
            hook(self)

    # Hooks

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; a result (args, kwargs) replaces them."""
        return self._hooks["pre"].add(hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return self._hooks["post"].add(hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` before state_dict()."""
        return self._hooks["state_pre"].add(hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after state_dict(); a result replaces it."""
        return self._hooks["state"].add(hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading; a result replaces it."""
        return self._hooks["load"].add(hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return self._hooks["loaded"].add(hook, prepend)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups, "_hooks": self._hooks}


def _converted(name: str, value: Any, parameter: Tensor) -> Any:
    if isinstance(value, Tensor):
        if name != "step" and parameter.is_floating_point() and value.is_floating_point():
            return value.detach().to(parameter.dtype, copy=True)
        return value.detach().clone()
    return copy.deepcopy(value)


def hyperparameter(group: Mapping[str, Any], name: str) -> Any:
    """An option of a group: a Python number, or inside a trace a tensor that is read anew at each call."""
    value = group[name]
    tracer = active()
    if tracer is None or isinstance(value, (Tensor, bool)) or not isinstance(value, (int, float)):
        return value
    return tracer.scalar(group, name)


def check_betas(group: Mapping[str, Any]) -> None:
    """ArgumentError unless the decays of both running means are from 0 to 1, without 1."""
    for i, beta in enumerate(group["betas"]):
        if not 0.0 <= beta < 1.0:
            raise ArgumentError(f"Invalid beta parameter at index {i}: {beta}")


def check_positive(name: str, value: Any) -> None:
    """ArgumentError for a negative number, "Invalid learning rate: -1", and for a tensor of several."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ArgumentError(f"Tensor lr must be 1-element: the {name} has {value.numel()} elements")
    elif not value >= 0.0:
        raise ArgumentError(f"Invalid {name}: {value}")


Optimizer.step = _with_hooks(Optimizer.step)  # type: ignore[method-assign]
