"""`backward` and `grad`: from tensors to the gradients of what they were computed from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, AutogradError
from graphc.frontend import engine
from graphc.frontend.autograd.graph import GradientEdge
from graphc.frontend.node import Edge, history
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import TensorType

Differentiated = Tensor | GradientEdge
Tensors = Differentiated | Sequence[Differentiated]


def backward(
    tensors: Tensors,
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Tensor | Sequence[Tensor | None] | None = None,
    inputs: Tensors | Mapping[str, Differentiated] | None = None,
) -> None:
    """Add the gradients of `tensors` to `.grad` of the leaves that they were computed from.

    grad_tensors
        The cotangent of each tensor, of its shape; may be left out for tensors of one element.
    retain_graph
        Keep what was saved, so that backward can run through the graph again. By default as `create_graph`.
    create_graph
        Record the computation of the gradients, so that they can be differentiated.
    inputs
        Add to the gradients of these tensors only.

    AutogradError where a tensor needs a gradient and none is given, or one of another shape, where it was not computed from
    anything that requires grad, and where `inputs` is empty; FreedGraphError where an earlier pass has freed what was saved;
    ArgumentTypeError for what is no tensor.

    >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
    >>> graphc.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    if grad_variables is not None:
        warnings.warn("`grad_variables` is deprecated. Use `grad_tensors` instead.", FutureWarning, stacklevel=2)
        if grad_tensors is not None:
            raise ArgumentTypeError("`grad_tensors` and `grad_variables` (deprecated) arguments both passed to `backward()`. "
                                    "Please only use `grad_tensors`.")
        grad_tensors = grad_variables
    roots = _roots(_sequence(tensors), grad_tensors)
    wanted = None
    if inputs is not None:
        targets = _sequence(list(inputs.values()) if isinstance(inputs, Mapping) else inputs)
        if not targets:
            raise AutogradError("`inputs` argument to `backward()` cannot be empty.")
        for target in targets:
            if isinstance(target, Tensor) and not target.is_leaf:
                target.retain_grad()
        wanted = _edges(targets)
    engine.run(roots, keep_graph=create_graph if retain_graph is None else retain_graph, create_graph=create_graph,
               inputs=wanted)


def grad(
    outputs: Tensors,
    inputs: Tensors | Mapping[str, Differentiated],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> Any:
    """The gradients of the sum of `outputs` with respect to each of `inputs`; `.grad` is left alone.

    The result is a tuple, or a dict with the keys of `inputs`.

    allow_unused
        An input that the outputs do not depend on gives None instead of an error.
    materialize_grads
        ... or zeros.
    is_grads_batched
        `grad_outputs` have a leading dimension, and so have the results: all of them are computed at once, as by vmap.

    AutogradError where an output needs a gradient and none is given, or one of another shape, and where an input does not
    require grad or is not used; FreedGraphError where an earlier pass has freed what was saved; ArgumentTypeError for what is
    no tensor; ArgumentError for `materialize_grads` with allow_unused=False.

    >>> x = graphc.tensor(3.0, requires_grad=True)
    >>> slope, = graphc.autograd.grad(x**3, x, create_graph=True)
    >>> slope
    tensor(27., grad_fn=<MulBackward0>)
    >>> graphc.autograd.grad(slope, x)
    (tensor(18.),)
    """
    if materialize_grads and allow_unused is False:
        raise ArgumentError("Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
                            "allow_unused=False.")
    if not only_inputs:
        warnings.warn("only_inputs argument is deprecated and is ignored now (defaults to True). To accumulate gradient for "
                      "other parts of the graph, please use graphc.autograd.backward.", FutureWarning, stacklevel=2)
    wanted = _sequence(list(inputs.values()) if isinstance(inputs, Mapping) else inputs)
    if not wanted:
        raise AutogradError("`inputs` argument to `grad()` cannot be empty.")
    keep = create_graph if retain_graph is None else retain_graph
    if is_grads_batched:
        found = _batched(_sequence(outputs), _edges(wanted), grad_outputs, keep, create_graph)
    else:
        roots = _roots(_sequence(outputs), grad_outputs)
        found = engine.run(roots, keep_graph=keep, create_graph=create_graph, inputs=_edges(wanted), accumulate=False)
    for i, (g, x) in enumerate(zip(found, wanted)):
        if g is None and materialize_grads:
            if not isinstance(x, Tensor):
                raise AutogradError("materialize_grads cannot be used when the given input is a GradientEdge")
            found[i] = ops.zeros_like(x)
        elif g is None and not allow_unused:
            raise AutogradError(f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set "
                                "allow_unused=True if this is the desired behavior.")
    return dict(zip(inputs, found)) if isinstance(inputs, Mapping) else tuple(found)


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """The old wrapper around tensors: today it is the tensor.

    >>> graphc.autograd.Variable(graphc.ones(2), requires_grad=True)
    tensor([1., 1.], requires_grad=True)
    """
    return data.detach().requires_grad_(requires_grad) if requires_grad else data.detach()


def _batched(outputs: Sequence[Any], wanted: Sequence[Edge], cotangents: Any, keep: bool, create_graph: bool) -> list[Any]:
    from graphc.frontend.func.batch import BatchLevel, to_front  # levels know Function, which this package defines

    given = [cotangents] if isinstance(cotangents, Tensor) or cotangents is None else list(cotangents)
    sizes = {ct.shape[0] for ct in given if ct is not None and ct.dim()}
    if len(sizes) != 1:
        raise AutogradError("is_grads_batched=True: the first dimension of all grad_outputs is the batch, of one size",
                            got=f"sizes {sorted(sizes)}")
    level = BatchLevel(sizes.pop(), "error")
    for i, (y, ct) in enumerate(zip(outputs, given)):
        if ct is not None and isinstance(y, Tensor) and ct.shape[1:] != y.shape:
            raise AutogradError(f"is_grads_batched=True: behind its first dimension, the batch, grad_outputs[{i}] has another "
                                "shape than the output", expected=str(list(y.shape)), got=str(list(ct.shape[1:])))
    with level.entered():
        elements = [ct if ct is None else level.enter_batch(to_front(ct, 0)) for ct in given]
        found = engine.run(_roots(outputs, elements), keep_graph=keep, create_graph=create_graph, inputs=wanted,
                           accumulate=False)
        return [None if g is None else level.stacked(g) for g in found]


def _sequence(tensors: Any) -> list[Any]:
    found = [tensors] if isinstance(tensors, (Tensor, GradientEdge)) else list(tensors)
    for tensor in found:
        if not isinstance(tensor, (Tensor, GradientEdge)):
            raise ArgumentTypeError("autograd: not a tensor", expected="a Tensor, or a sequence of them",
                                    got=type(tensor).__name__)
    return found


def _edges(tensors: Sequence[Any]) -> list[Edge]:
    edges = [x.target if isinstance(x, GradientEdge) else history(x) for x in tensors]
    if not all(edges):
        raise AutogradError("One of the differentiated Tensors does not require grad",
                            hint="call requires_grad_() on it before it is used")
    return edges


def _roots(tensors: Sequence[Any], cotangents: Any) -> list[tuple[Any, Tensor]]:
    given = [cotangents] if isinstance(cotangents, Tensor) or cotangents is None else list(cotangents)
    if cotangents is None:
        given = [None] * len(tensors)
    if len(given) != len(tensors):
        raise AutogradError(f"got {len(tensors)} tensors and {len(given)} gradients", expected="one gradient a tensor")
    return [_root(i, tensor, ct) for i, (tensor, ct) in enumerate(zip(tensors, given))]


def _root(i: int, tensor: Any, ct: Tensor | None) -> tuple[Any, Tensor]:
    """Where to start, and with which cotangent."""
    if isinstance(tensor, GradientEdge):
        if ct is None:
            raise AutogradError("grad can be implicitly created only for scalar outputs",
                                expected="a gradient beside a GradientEdge, whose shape is not known")
        return tensor.target, ct
    edge = history(tensor)
    if edge is None:
        raise AutogradError(
            f"element {i} of tensors does not require grad and does not have a grad_fn",
            hint="compute it from tensors with requires_grad=True, outside no_grad()")
    shape = tensor._data.shape
    if ct is None:
        if math.prod(shape) != 1:
            raise AutogradError("grad can be implicitly created only for scalar outputs",
                                expected="one element, or a gradient argument", got=f"shape {list(shape)}")
        if tensor.dtype.is_complex:
            raise AutogradError("grad can be implicitly created only for real scalar outputs but got complex",
                                hint="pass a gradient")
        data = tensor._data
        if type(data) is np.ndarray:
            return edge, wrap(np.ones(shape, data.dtype))
        ct = ops.full(TensorType(tensor.dtype, shape), 1, like=tensor)
    elif not isinstance(ct, Tensor):
        raise ArgumentTypeError(f"gradients can be either Tensors or None, but got {type(ct).__name__}")
    elif ct._data.shape != shape:
        raise AutogradError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {ct.shape} and output[{i}] has a shape of {tensor.shape}.")
    return edge, ct
