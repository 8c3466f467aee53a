"""Checkpointing: a part of the forward pass keeps only its inputs, and runs once more when the backward pass needs the rest."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend import engine
from graphc.frontend.autograd.derivatives import backward
from graphc.frontend.autograd.function import Function
from graphc.frontend.autograd.graph import saved_tensors_hooks
from graphc.frontend.generator import defaults
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.modes import enable_grad, mode, no_grad
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tape import keep, unkeep
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active

__all__ = [
    "CheckpointError", "CheckpointFunction", "checkpoint", "checkpoint_sequential", "noop_context_fn",
    "set_checkpoint_early_stop",
]


class CheckpointError(AutogradError):
    """A part that computed something else when it ran again."""


class _Settings:
    early_stop: bool | None = None


class set_checkpoint_early_stop:
    """A block in which checkpoint() goes on to the end of the part, or stops where nothing is missing any more."""

    def __init__(self, enable: bool) -> None:
        self.enable = enable

    def __enter__(self) -> None:
        self._before, _Settings.early_stop = _Settings.early_stop, self.enable

    def __exit__(self, *exception: object) -> None:
        _Settings.early_stop = self._before


def noop_context_fn() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Two contexts that do nothing."""
    return nullcontext(), nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, of which nothing is kept for the backward pass but the arguments: it runs again then.

    use_reentrant
        False: what the backward pass needs is computed when it asks for it. True, the older way: the backward pass of the
        part is one of its own, and the arguments that gradients go to have to be tensors among `args`. Should be given.
    preserve_rng_state
        Whether the second run draws the same random numbers; True unless given.
    context_fn
        Returns two contexts, one for the first run and one for the second.
    determinism_check
        "none" leaves out the check that the second run computes tensors of the same shapes and dtypes.
    early_stop
        Whether the second run ends where nothing is missing any more.
    """
    if use_reentrant is None:
        warnings.warn("graphc.utils.checkpoint: the use_reentrant parameter should be passed explicitly: False, which is "
                      "better, or True, which is the default for older programs", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ArgumentError("Unexpected keyword arguments: " + ", ".join(kwargs), hint="pass use_reentrant=False")
        if context_fn is not noop_context_fn or debug:
            raise ArgumentError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
        if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)
        return CheckpointFunction.apply(function, preserve, *args)
    if determinism_check not in ("default", "none"):
        raise ArgumentError(f"determinism_check should be one of ['default', 'none'] but got {determinism_check}")
    stop = early_stop if _Settings.early_stop is None else _Settings.early_stop
    forward_context, recompute_context = context_fn()
    if not mode.grad:
        return function(*args, **kwargs)
    part = _Part(function, args, kwargs, preserve, recompute_context, determinism_check == "default", stop)
    with saved_tensors_hooks(part.pack, part.unpack), forward_context:
        result = function(*args, **kwargs)
    part.is_complete = True
    return result


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """The functions (or the modules of a Sequential) one after the other, in `segments` checkpoints.

    The last segment runs as it is: the backward pass begins with it.
    """
    if use_reentrant is None:
        warnings.warn("graphc.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter should be passed explicitly: "
                      "False, which is better, or True, which is the default for older programs", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ArgumentError("Unexpected keyword arguments: " + ", ".join(kwargs))
    steps: Sequence[Callable[..., Any]] = list(functions)
    size = len(steps) // segments

    def run(first: int, last: int) -> Callable[[Any], Any]:
        def segment(x: Any) -> Any:
            for step in steps[first:last]:
                x = step(x)
            return x

        return segment

    end = 0
    for start in range(0, size * (segments - 1), size) if size else ():
        end = start + size
        input = checkpoint(run(start, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return run(end, len(steps))(input)


class _Random:
    """The states of the default generators, of the CPU and of GPUs, at one time."""

    def __init__(self) -> None:
        with no_grad():
            self.states = [(generator, generator._state.clone()) for generator in defaults()]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw from there inside; afterwards the generator goes on where it was."""
        now = _Random()
        with no_grad():
            for generator, state in self.states:
                generator._state.copy_(state)
        try:
            yield
        finally:
            with no_grad():
                for generator, state in now.states:
                    generator._state.copy_(state)


def _again(value: Any) -> Any:
    """The tensors of a nested value as what a second run is to start from. Within a trace they become other values: else what
    is computed from them would be merged with what was before, and that be kept."""
    tracer = active()
    if tracer is None:
        return value
    leaves, structure = flatten(value)
    return unflatten(structure, [tracer.compute_later(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])


class _Enough(Exception):
    """Raised where the second run has computed all that is missing."""


class _Part:
    """A part of the forward pass. In the place of tensors the tape keeps their numbers, in the order of saving."""

    def __init__(
        self, run: Callable[..., Any], args: Any, kwargs: Any, preserve: bool, context: AbstractContextManager[Any],
        check: bool, stop: bool,
    ) -> None:
        self.run, self.kwargs, self.context, self.check, self.stop = run, kwargs, context, check, stop
        self.args = tuple(map(keep, args))
        """The arguments. A part around this one has its numbers in the place of tensors, as for all that is kept in it."""
        self.random = _Random() if preserve else None
        self.types: list[tuple[Any, Any]] = []
        self.is_complete = False
        """Whether the first run is over. Before it is, a backward pass within the part may ask for a second one."""
        self.again: weakref.WeakKeyDictionary[engine.Run, dict[int, Tensor]] = weakref.WeakKeyDictionary()
        """What the second run for a backward pass computed, as long as that has not asked for it."""

    def name(self) -> str:
        """What errors call it."""
        return "checkpoint()"

    def pack(self, tensor: Tensor) -> int:
        self.types.append((tensor.shape, tensor.dtype))
        return len(self.types) - 1

    def unpack(self, number: int) -> Tensor:
        if not engine.is_running():  # somebody looks at what a node has saved
            return self._recompute()[number]
        run = engine.running()
        again = self.again.get(run)
        if again is None:
            again = self.again[run] = self._recompute()
        if number not in again:
            raise CheckpointError("graphc.utils.checkpoint: Unpack is being triggered for a tensor that was already unpacked "
                                  "once.", hint="ask for ctx.saved_tensors only once in a backward")
        return again.pop(number)

    def _recompute(self) -> dict[int, Tensor]:
        found: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            if len(found) == len(self.types):
                if not self.is_complete:  # without an early stop it goes on to where the first run has not come yet
                    return tensor
                raise CheckpointError("graphc.utils.checkpoint: trying to save more tensors during recomputation than during "
                                      "the original forward pass.", expected=str(len(self.types)))
            found.append(tensor.detach())
            if self.stop and len(found) == len(self.types):
                raise _Enough
            return tensor

        before, saved_hooks.stack = saved_hooks.stack, ()  # hooks of the backward pass are not those of the part
        try:
            with enable_grad():
                args = tuple([unkeep(kept, self) for kept in self.args])
            random = nullcontext() if self.random is None else self.random.again()
            with random, saved_tensors_hooks(pack, lambda tensor: tensor), enable_grad(), self.context:
                self.run(*_again(args), **_again(self.kwargs))
        except _Enough:
            pass
        finally:
            saved_hooks.stack = before
        self._compare(found)
        return dict(enumerate(found))

    def _compare(self, found: Sequence[Tensor]) -> None:
        if len(found) != len(self.types):
            raise CheckpointError("graphc.utils.checkpoint: A different number of tensors was saved when the part ran again",
                                  expected=f"{len(self.types)}, as in the forward pass", got=str(len(found)))
        if not self.check:
            return
        for i, ((shape, dtype), tensor) in enumerate(zip(self.types, found)):
            if (tensor.shape, tensor.dtype) != (shape, dtype):
                raise CheckpointError("graphc.utils.checkpoint: Recomputed values have different metadata than in the forward "
                                      f"pass: saved tensor {i}",
                                      expected=f"{dtype.name}{list(shape)}", got=f"{tensor.dtype.name}{list(tensor.shape)}")


class CheckpointFunction(Function):
    """A part whose backward runs it again, recorded, and sends the gradients through."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        ctx.function = function
        ctx.random = _Random() if preserve else None
        ctx.others = [None if isinstance(a, Tensor) else a for a in args]
        ctx.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.places))
        return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if engine.running().is_partial:
            raise CheckpointError("When use_reentrant=True, graphc.utils.checkpoint is incompatible with .grad() or passing an "
                                  "`inputs` parameter to .backward(). To resolve this error, you can either set "
                                  "use_reentrant=False, or call .backward() without passing the `inputs` argument.")
        inputs = list(ctx.others)
        for i, tensor in zip(ctx.places, ctx.saved_tensors):
            inputs[i] = _again(tensor.detach()).requires_grad_(tensor.requires_grad)
        with nullcontext() if ctx.random is None else ctx.random.again(), enable_grad():
            outputs = ctx.function(*inputs)
        pairs = [(y, ct) for y, ct in zip((outputs,) if isinstance(outputs, Tensor) else outputs, grads)
                 if isinstance(y, Tensor) and y.requires_grad]
        if not pairs:
            raise AutogradError("none of output has requires_grad=True, this checkpoint() is not necessary")
        backward([y for y, _ in pairs], [ct for _, ct in pairs])
        return None, None, *(x.grad if isinstance(x, Tensor) else None for x in inputs)
