"""Automatic differentiation: `backward`, `grad`, custom functions, and the switches for recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, AutogradError
from graphc.frontend import engine
from graphc.frontend.autograd.function import Function, once_differentiable
from graphc.frontend.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.frontend.node import edge_to
from graphc.frontend.tensor import Tensor
from graphc.types import TensorType

__all__ = [
    "Function", "Variable", "backward", "enable_grad", "grad", "inference_mode", "is_grad_enabled",
    "is_inference_mode_enabled", "no_grad", "once_differentiable", "set_grad_enabled",
]


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Tensor | Sequence[Tensor | None] | None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of `tensors` to `.grad` of the leaves that they were computed from.

    grad_tensors
        The cotangent of each tensor, of its shape; may be left out for tensors of one element.
    retain_graph
        Keep what was saved, so that backward can run through the graph again. By default as `create_graph`.
    create_graph
        Record the computation of the gradients, so that they can be differentiated.
    inputs
        Add to the gradients of these leaves only.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise ArgumentTypeError("backward: grad_tensors and grad_variables, its old name, are both given",
                                    hint="pass grad_tensors alone")
        grad_tensors = grad_variables
    roots = _roots(_sequence(tensors), grad_tensors)
    wanted = None
    if inputs is not None:
        leaves = _sequence(inputs)
        if not leaves:
            raise AutogradError("inputs argument to backward() cannot be empty")
        for leaf in leaves:
            if not leaf.is_leaf:
                raise AutogradError("backward: one of the inputs is not a leaf", hint="use autograd.grad, or retain_grad()")
        wanted = [edge_to(leaf) for leaf in leaves]
    engine.run(roots, keep_graph=create_graph if retain_graph is None else retain_graph, create_graph=create_graph,
               inputs=wanted)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` with respect to each of `inputs`, as a tuple; `.grad` is left alone.

    allow_unused
        An input that the outputs do not depend on gives None instead of an error.
    materialize_grads
        ... or zeros.
    is_grads_batched
        `grad_outputs` have a leading dimension; the results get one too.
    """
    if is_grads_batched:
        return _batched(outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads)
    if materialize_grads and allow_unused is False:
        raise AutogradError("grad: allow_unused=False contradicts materialize_grads=True", hint="leave allow_unused out")
    wanted = _sequence(inputs)
    roots = _roots(_sequence(outputs), grad_outputs)
    edges = [edge_to(tensor) for tensor in wanted]
    if not all(edges):
        raise AutogradError("One of the differentiated Tensors does not require grad",
                            hint="call requires_grad_() on it before it is used")
    found = engine.run(roots, keep_graph=create_graph if retain_graph is None else retain_graph, create_graph=create_graph,
                       inputs=edges, accumulate=False)
    if not (allow_unused or materialize_grads) and any(g is None for g in found):
        raise AutogradError("One of the differentiated Tensors appears to not have been used in the graph. "
                            "Set allow_unused=True if this is the desired behavior.")
    if materialize_grads:
        found = [ops.zeros_like(t) if g is None else g for g, t in zip(found, wanted)]
    return tuple(found)


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The old wrapper around tensors: today it is the tensor."""
    return data.detach().requires_grad_(requires_grad) if requires_grad else data.detach()


def _batched(
    outputs: Any, inputs: Any, grad_outputs: Any, retain_graph: Any, create_graph: Any, allow_unused: Any, materialize: Any
) -> tuple[Tensor | None, ...]:
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    count = next(g for g in given if g is not None).shape[0]
    rows = [
        grad(outputs, inputs, [None if g is None else g[i] for g in given], retain_graph if i == count - 1 else True,
             create_graph, allow_unused, False, materialize)
        for i in range(count)
    ]
    stacked: list[Tensor | None] = []
    for column in zip(*rows):
        if column[0] is None:
            stacked.append(None)
        else:
            lifted = [ops.reshape(g, (1, *g._data.shape)) for g in column if g is not None]
            stacked.append(ops.concat(*lifted, axis=0))
    return tuple(stacked)


def _sequence(tensors: Any) -> list[Tensor]:
    found = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for tensor in found:
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError("autograd: not a tensor", expected="a Tensor, or a sequence of them",
                                    got=type(tensor).__name__)
    return found


def _roots(tensors: Sequence[Tensor], cotangents: Any) -> list[tuple[Any, Tensor]]:
    given = [cotangents] if isinstance(cotangents, Tensor) or cotangents is None else list(cotangents)
    if cotangents is None:
        given = [None] * len(tensors)
    if len(given) != len(tensors):
        raise AutogradError(f"got {len(tensors)} tensors and {len(given)} gradients", expected="one gradient a tensor")
    roots = []
    for i, (tensor, ct) in enumerate(zip(tensors, given)):
        edge = edge_to(tensor)
        if edge is None:
            raise AutogradError(
                f"element {i} of tensors does not require grad and does not have a grad_fn",
                hint="compute it from tensors with requires_grad=True, outside no_grad()")
        shape = tensor._data.shape
        if ct is None:
            if math.prod(shape) != 1:
                raise AutogradError("grad can be implicitly created only for scalar outputs",
                                    expected="one element, or a gradient argument", got=f"shape {list(shape)}")
            ct = ops.full(TensorType(tensor.dtype, shape), 1, like=tensor)
        elif ct._data.shape != shape:
            raise AutogradError(
                f"Mismatch in shape: grad_output[{i}] has a shape of {ct.shape} and output[{i}] has a shape of {tensor.shape}.")
        roots.append((edge, ct))
    return roots
