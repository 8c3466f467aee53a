"""Hooks of modules: before and after forward, and around the backward pass through a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import GraphcError
from graphc.frontend.autograd.function import Function
from graphc.frontend.hooks import Hooks, RemovableHandle
from graphc.frontend.tensor import Tensor

_before_any = Hooks()
_after_any = Hooks()
"""The hooks of all modules."""


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, args)` before the forward of every module; what it returns takes the place of the arguments."""
    return _before_any.add((hook, False, False))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args, output)` after the forward of every module; what it returns takes the place of the output."""
    return _after_any.add((hook, with_kwargs, always_call))


class ModuleHooks:
    """The part of `Module` that keeps hooks and calls them."""

    forward: Callable[..., Any]

    def _init_hooks(self) -> None:
        for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks", "_state_dict_hooks",
                     "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
            self.__dict__[kind] = Hooks()

    def _has_hooks(self) -> bool:
        own = self.__dict__
        try:
            return bool(own["_forward_pre_hooks"] or own["_forward_hooks"] or own["_backward_hooks"]
                        or own["_backward_pre_hooks"] or _before_any or _after_any)
        except KeyError:
            raise AttributeError(f"{type(self).__name__}: Module.__init__() was not called") from None

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before forward; what it returns takes the place of the arguments."""
        return self._register("_forward_pre_hooks", (hook, with_kwargs, False), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after forward; what it returns takes the place of the output."""
        return self._register("_forward_hooks", (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` before the backward pass of the module; a result replaces grad_output."""
        return self._register("_backward_pre_hooks", (hook, False, False), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` after the backward pass; a result replaces grad_input."""
        return self._register("_backward_hooks", (hook, False, False), prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """The older name of register_full_backward_hook."""
        return self.register_full_backward_hook(hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after state_dict()."""
        return self._register("_state_dict_hooks", hook, False)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before state_dict()."""
        return self._register("_state_dict_pre_hooks", hook, False)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)` before
        loading."""
        return self._register("_load_state_dict_pre_hooks", (hook, True), False)

    def _register_load_state_dict_pre_hook(self, hook: Callable[..., Any], with_module: bool = False) -> RemovableHandle:
        return self._register("_load_state_dict_pre_hooks", (hook, with_module), False)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading."""
        return self._register("_load_state_dict_post_hooks", hook, False)

    def _register(self, kind: str, hook: Any, prepend: bool) -> RemovableHandle:
        home: Hooks = self.__dict__[kind]
        return home.add(hook, prepend)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = self.__dict__
        for hook, with_kwargs, _ in [*_before_any.values(), *own["_forward_pre_hooks"].values()]:
            if with_kwargs:
                result = hook(self, args, kwargs)
                if result is not None:
                    if not isinstance(result, tuple) or len(result) != 2:
                        raise GraphcError("forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got "
                                          f"{result}.")
                    args, kwargs = result
                continue
            result = hook(self, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
        watch = _BackwardWatch(self) if own["_backward_hooks"] or own["_backward_pre_hooks"] else None
        if watch is not None:
            args = watch.inputs(args)
        pending = [*_after_any.values(), *own["_forward_hooks"].values()]
        try:
            output = self.forward(*args, **kwargs)
        except Exception:
            for hook, with_kwargs, always in pending:
                if always:
                    hook(self, args, kwargs, None) if with_kwargs else hook(self, args, None)
            raise
        for hook, with_kwargs, _ in pending:
            result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            if result is not None:
                output = result
        return output if watch is None else watch.outputs(output)


class _Pass(Function):
    """Tensors as they are, through one node of the graph: its hooks see all their gradients together."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.detach() for t in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return grads


class _BackwardWatch:
    """Calls a module's backward hooks: one node before its inputs and one after its outputs see the gradients."""

    def __init__(self, module: ModuleHooks) -> None:
        self.module = module
        self.grad_output: Any = None
        self.input_count = 0
        self.watched = False
        """Whether gradients flow on to the inputs."""

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        self.input_count = len(args)
        passed = self._through([args[i] for i in places])
        if passed is None:
            return args
        self.watched = True
        node = next(t.grad_fn for t in passed if t.grad_fn is not None)

        def after(grads: Sequence[Any], _: Any) -> Any:
            full: list[Any] = [None] * self.input_count
            for i, g in zip(places, grads):
                full[i] = g
            changed = self._call(tuple(full))
            return None if changed is None else tuple(changed[i] for i in places)

        node.register_hook(after)
        out = list(args)
        for i, t in zip(places, passed):
            out[i] = t
        return tuple(out)

    def outputs(self, output: Any) -> Any:
        single = isinstance(output, Tensor)
        items = [output] if single else list(output) if isinstance(output, (tuple, list)) else None
        if items is None:
            return output
        places = [i for i, t in enumerate(items) if isinstance(t, Tensor)]
        passed = self._through([items[i] for i in places])
        if passed is None:
            return output
        node = next(t.grad_fn for t in passed if t.grad_fn is not None)

        def before(grads: Sequence[Any]) -> Any:
            full: list[Any] = [None] * len(items)
            for i, g in zip(places, grads):
                full[i] = g
            self.grad_output = tuple(full)
            for hook, _, _ in list(self.module.__dict__["_backward_pre_hooks"].values()):
                changed = hook(self.module, self.grad_output)
                if changed is not None:
                    self.grad_output = changed if isinstance(changed, tuple) else (changed,)
            if not self.watched:  # nothing flows on to the inputs: the hooks run here
                self._call((None,) * self.input_count)
            return tuple(self.grad_output[i] for i in places)

        node.register_prehook(before)
        for i, t in zip(places, passed):
            items[i] = t
        return items[0] if single else type(output)(items)

    def _through(self, tensors: list[Tensor]) -> tuple[Tensor, ...] | None:
        if not any(t.requires_grad for t in tensors):
            return None
        passed = _Pass.apply(*tensors)
        return passed if any(t.grad_fn is not None for t in passed) else None

    def _call(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...] | None:
        replaced = None
        for hook, _, _ in list(self.module.__dict__["_backward_hooks"].values()):
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                replaced = grad_input = changed if isinstance(changed, tuple) else (changed,)
        return replaced
