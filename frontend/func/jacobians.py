"""Whole matrices of derivatives: a vector-Jacobian product for every row, or a Jacobian-vector product for every column."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend.func.batch import from_front
from graphc.frontend.func.gradients import Argnums, assigned, check_argnums, pullback, pushforward
from graphc.frontend.func.vectorize import vmap
from graphc.frontend.movement import part, reshape
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that computes the Jacobian of `func` by its rows, backwards: the way for fewer outputs than inputs.

    A result of shape [*m] and an argument of shape [*n] have a Jacobian of shape [*m, *n]. Results may be nested, and each
    has a Jacobian for every argument (or leaf of one) that `argnums` names.

    chunk_size
        At most so many rows at once, to save memory.

    ArgumentError for a `chunk_size` below 1, AutogradError, at a call, for complex numbers.

    >>> import graphc
    >>> graphc.func.jacrev(lambda x: x**2)(graphc.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if chunk_size is not None and chunk_size <= 0:
        raise ArgumentError("jacrev: `chunk_size` should be greater than 0.", got=str(chunk_size))

    @functools.wraps(func, assigned=assigned(func), updated=())
    def jacobian(*args: Any) -> Any:
        inputs, input_structure = _chosen(args, argnums)
        _check_real("jacrev", inputs, "inputs")
        output, pull, aux = pullback(func, args, argnums, has_aux)
        outputs, structure = flatten(output)
        _check_real("jacrev", outputs, "outputs")
        basis = unflatten(structure, _basis(outputs))
        rows = flatten(vmap(pull, chunk_size=chunk_size)(basis))[0]
        found = []
        for start, y in zip(_starts(outputs), outputs):
            blocks = [part(g, 0, start, start + y.numel()) for g in rows]
            shaped = [reshape(b, (*y.shape, *x.shape)) for b, x in zip(blocks, inputs)]
            found.append(unflatten(input_structure, shaped))
        result = unflatten(structure, found)
        return (result, aux) if has_aux else result

    return jacobian


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """A function that computes the Jacobian of `func` by its columns, forwards: the way for fewer inputs than outputs.

    The result is nested as that of `jacrev`. `func` runs once, so that `randomness` is of no importance: it is there for
    code that names it.

    AutogradError, at a call, for complex numbers.

    >>> graphc.func.jacfwd(graphc.square)(graphc.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    @functools.wraps(func, assigned=assigned(func), updated=())
    def jacobian(*args: Any) -> Any:
        inputs, input_structure = _chosen(args, argnums)
        _check_real("jacfwd", inputs, "inputs")
        output, push, aux = pushforward(func, args, argnums, has_aux, "jacfwd(f, ...)(*args)")
        outputs, structure = flatten(output)
        _check_real("jacfwd", outputs, "outputs")
        columns = flatten(vmap(push, randomness=randomness)(unflatten(input_structure, _basis(inputs))))[0]
        found = []
        for y, g in zip(outputs, columns):
            blocks = [part(g, 0, start, start + x.numel()) for start, x in zip(_starts(inputs), inputs)]
            shaped = [reshape(from_front(b, -1), (*y.shape, *x.shape)) for b, x in zip(blocks, inputs)]
            found.append(unflatten(input_structure, shaped))
        result = unflatten(structure, found)
        return (result, aux) if has_aux else result

    return jacobian


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that computes the second derivatives of `func`: the Jacobian, forwards, of the Jacobian, backwards.

    For a result of shape [*m] and an argument of shape [*n] it has the shape [*m, *n, *n].

    >>> graphc.func.hessian(lambda x: (x**3).sum())(graphc.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


def _chosen(args: tuple[Any, ...], argnums: Argnums) -> tuple[list[Any], Structure]:
    chosen = check_argnums(argnums, len(args))
    return flatten(args[chosen] if isinstance(chosen, int) else tuple(args[i] for i in chosen))


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """Where each tensor's elements begin, all tensors' elements being in one row."""
    starts = [0]
    for x in tensors:
        starts.append(starts[-1] + x.numel())
    return starts[:-1]


def _basis(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The unit vectors of the space of all the tensors' elements: for each tensor its part of them, one a row."""
    total = sum(x.numel() for x in tensors)
    return [
        reshape(part(eye(total, dtype=x.dtype), 1, start, start + x.numel()), (total, *x.shape))
        for start, x in zip(_starts(tensors), tensors)
    ]


def _check_real(name: str, tensors: Sequence[Any], what: str) -> None:
    for i, x in enumerate(tensors):
        if isinstance(x, Tensor) and x.dtype.is_complex:
            raise AutogradError(f"{name}: Expected all {what} to be real but received complex tensor at flattened "
                                f"{what[:-1]} idx: {i}")
