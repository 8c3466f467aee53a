"""The graph that backward() walks: its nodes and edges, and hooks on what it saves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend.hooks import RemovableHandle, saved_hooks
from graphc.frontend.node import AccumulateGrad, Node, function_of, history
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor

__all__ = [
    "GradientEdge", "Node", "allow_mutation_on_saved_tensors", "disable_saved_tensors_hooks", "get_gradient_edge",
    "increment_version", "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks",
]


class GradientEdge(NamedTuple):
    """An output of a node. `backward` and `grad` take it in the place of the tensor, which need not be kept."""

    node: Any
    output_nr: int
    ownership_token: Any = None

    @property
    def target(self) -> Any:
        """The edge as the engine has it: for a leaf, the tensor itself."""
        return (self.node.variable if isinstance(self.node, AccumulateGrad) else self.node), self.output_nr


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """Where the gradient of a tensor goes."""
    edge = history(tensor)
    if edge is None:
        raise AutogradError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(function_of(edge[0]), edge[1])


class saved_tensors_hooks(PrintsSettings):
    """A block in which each tensor that is saved for the backward pass goes through `pack_hook`.

    What that returns is kept, and `unpack_hook` makes the tensor of it again when the backward pass needs it.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def __enter__(self) -> None:
        if saved_hooks.refused is not None:
            raise AutogradError(saved_hooks.refused)
        saved_hooks.stack = (*saved_hooks.stack, (self.pack_hook, self.unpack_hook))

    def __exit__(self, *exception: object) -> None:
        saved_hooks.stack = saved_hooks.stack[:-1]


class save_on_cpu(saved_tensors_hooks):
    """A block in which saved tensors wait in the CPU's memory; those that are there already stay as they are."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda tensor: (tensor.device, tensor.cpu()), lambda packed: packed[1].to(packed[0]))

    def _printed_settings(self) -> dict[str, Any]:
        return {}


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """A block in which hooks on saved tensors are an error that says `error_message`."""
    if saved_hooks.stack:
        raise AutogradError(error_message)
    before, saved_hooks.refused = saved_hooks.refused, error_message
    try:
        yield
    finally:
        saved_hooks.refused = before


class _Kept:
    """What allow_mutation_on_saved_tensors keeps: the copies, until the block ends or clear() is called."""

    def __init__(self) -> None:
        self.copies: dict[object, Tensor] = {}

    def clear(self) -> None:
        """Let go of the copies: a backward pass that needs them is an error from then on."""
        self.copies.clear()

    def pack(self, tensor: Tensor) -> object:
        place = object()
        self.copies[place] = tensor.clone()
        return place

    def unpack(self, place: object) -> Tensor:
        if place not in self.copies:
            raise AutogradError("Trying to backward outside of the 'allow_mutation_on_saved_tensors' context in which the "
                                "graph was originally recorded.")
        return self.copies[place]


@contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[_Kept]:
    """A block in which tensors that were saved may be changed in place: copies are saved. Run backward inside, too."""
    kept = _Kept()
    with saved_tensors_hooks(kept.pack, kept.unpack):
        try:
            yield kept
        finally:
            kept.clear()


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Tell autograd that tensors have been changed in place in a way that it cannot see."""
    for one in (tensor,) if isinstance(tensor, Tensor) else tensor:
        one._version_counter().count += 1


class _Handles(RemovableHandle):
    """Takes several hooks off."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[..., Any], *, mode: str = "all"
) -> RemovableHandle:
    """Call `fn(grads)` in each backward pass after the gradients of all the tensors have come, None for those without one.

    With mode="any", `fn(grad)` is called with the gradient that comes first.
    """
    if mode not in ("all", "any"):
        raise ArgumentError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    edges = [history(t) for t in tensors]
    if not all(edges):
        raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
    from graphc.frontend import engine  # the engine's hooks need this file's neighbours

    lock = threading.Lock()
    runs: dict[int, list[Any]] = {}
    """For each backward pass that is under way: the gradients, and how many are still to come."""

    def watch(index: int) -> Callable[[Any], None]:
        def hook(ct: Any) -> None:
            run = engine.running()
            with lock:
                if id(run) not in runs:
                    # of the tensors whose gradients this pass will reach
                    wanted = sum(1 for edge in edges if edge is not None and run.reaches(edge[0]))
                    runs[id(run)] = [[None] * len(tensors), wanted]
                    run.at_end(lambda: runs.pop(id(run), None))
                state = runs[id(run)]
                first = state[0].count(None) == len(tensors)
                state[0][index] = ct
                state[1] -= 1
            if mode == "any":
                if first:
                    fn(ct)
            elif state[1] == 0:
                fn(state[0])

        return hook

    return _Handles([t.register_hook(watch(i)) for i, t in enumerate(tensors)])
