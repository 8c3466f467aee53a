"""Forward mode by dual tensors: `make_dual` gives a tensor a tangent, and `unpack_dual` takes the tangent of a result.

Tangents are had from what the tape has recorded, by differentiating its vector-Jacobian product, which is linear in the
cotangent. So everything that backward() can differentiate has a tangent, but only what is recorded: within `no_grad` there
are none. `graphc.func.jvp` does the same for a function, and nests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from graphc import ops
from graphc.errors import ArgumentError, AutogradError
from graphc.frontend import engine
from graphc.frontend.modes import enable_grad, is_grad_enabled
from graphc.frontend.movement import view_as
from graphc.frontend.node import Node, history
from graphc.frontend.tensor import Tensor

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]


class UnpackedDualTensor(NamedTuple):
    """A tensor, and its tangent; None if it has none."""

    primal: Tensor
    tangent: Tensor | None


class _Level(threading.local):
    duals: list[tuple[Tensor, Tensor]] | None = None
    """The dual tensors of the level that is open, with their tangents."""


_level = _Level()


def enter_dual_level() -> int:
    """Open a level, on which dual tensors can be made; returns its number."""
    if _level.duals is not None:
        raise AutogradError("Nested forward mode AD is not supported at the moment", hint="graphc.func.jvp nests")
    _level.duals = []
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level: its dual tensors have no tangents from then on."""
    if _level.duals is None or level not in (None, 0):
        raise AutogradError("Trying to exit a forward AD level that was not the last one that was created.",
                            got=f"level {level}" if _level.duals is not None else "no level at all")
    _level.duals = None


@contextmanager
def dual_level() -> Iterator[int]:
    """A block with a level of its own."""
    level = enter_dual_level()
    try:
        yield level
    finally:
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """The tensor once more, with a tangent of its shape."""
    if _level.duals is None:
        raise AutogradError("Trying to create a dual Tensor for forward AD but no level exists, make sure to "
                            "enter_dual_level() first.")
    for what, x in (("primal", tensor), ("tangent", tangent)):
        if not x.dtype.is_differentiable:
            raise ArgumentError(f"Expected {what} to be floating point or complex, but got: {x.dtype.name}")
    if tensor.shape != tangent.shape:
        raise AutogradError("make_dual: the tangent has a different size than the tensor", expected=str(list(tensor.shape)),
                            got=str(list(tangent.shape)))
    with enable_grad():
        dual = view_as(tensor, tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
    _level.duals.append((dual, tangent))
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """A tensor, and its tangent by the dual tensors that it was computed from."""
    duals = _level.duals
    if not duals or history(tensor) is None or not tensor.dtype.is_differentiable:
        return UnpackedDualTensor(tensor, None)
    others = is_grad_enabled() and (_has_other_leaves(tensor, [x for x, _ in duals]) or
                                    any(t.requires_grad for _, t in duals))
    with enable_grad():
        seed = ops.zeros_like(tensor).requires_grad_()
    pulled = engine.run([(history(tensor), seed)], keep_graph=True, create_graph=True, inputs=[history(x) for x, _ in duals],
                        accumulate=False)
    roots = [(history(g), t) for g, (_, t) in zip(pulled, duals) if g is not None and history(g) is not None]
    if not roots:
        return UnpackedDualTensor(tensor if others else tensor.detach(), None)
    (tangent,) = engine.run(roots, keep_graph=True, create_graph=others, inputs=[history(seed)], accumulate=False)
    return UnpackedDualTensor(tensor if others else tensor.detach(), tangent)


def _has_other_leaves(tensor: Tensor, duals: list[Tensor]) -> bool:
    """Whether a tensor depends on anything that requires grad besides leaves that were made to be dual."""
    own = {id(x) for x in duals if x.is_leaf}
    edge = history(tensor)
    pending = [edge[0]] if edge is not None else []
    seen = set(map(id, pending))
    while pending:
        target = pending.pop()
        if not isinstance(target, Node):
            if id(target) not in own:
                return True
            continue
        for edge in target.edges:
            if edge is not None and id(edge[0]) not in seen:
                seen.add(id(edge[0]))
                pending.append(edge[0])
    return False
