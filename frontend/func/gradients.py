"""Derivatives as functions of functions: backwards by the tape's rules, and forwards by the same rules used twice.

A function is run on a level of its own (see graphc.frontend.level), so a derivative sees only what this function computes
from its arguments, and can be differentiated, batched and compiled like any other function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, AutogradError, GraphcError, ShapeError
from graphc.frontend import engine
from graphc.frontend.level import GradLevel
from graphc.frontend.node import history
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor
from graphc.types import TensorType

Argnums = int | tuple[int, ...]


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that computes the gradients of `func`, which returns a tensor without dimensions.

    argnums
        Which arguments to differentiate by: one, or several for a tuple of gradients. Arguments may be nested containers.
    has_aux
        `func` returns a pair, of which the first is differentiated, and so does the new function: gradients, and the second.

    A call raises AutogradError where `func` does not return one tensor without dimensions, ArgumentError where an argument to
    be differentiated is no tensor.

    >>> import graphc
    >>> graphc.func.grad(lambda x: x**3)(graphc.tensor(2.0))
    tensor(12.)
    """

    @functools.wraps(func, assigned=assigned(func), updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        found, result = grad_and_value(func, argnums, has_aux)(*args, **kwargs)
        return (found, result[1]) if has_aux else found

    return gradient


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As `grad`, but the new function returns a pair: the gradients, and what `func` returned.

    A call raises AutogradError where `func` does not return one tensor without dimensions, or with `has_aux` no pair;
    ArgumentError where an argument to be differentiated is no tensor.

    >>> slope, value = graphc.func.grad_and_value(lambda x: x**3)(graphc.tensor(2.0))
    >>> slope, value
    (tensor(12.), tensor(8.))
    """

    @functools.wraps(func, assigned=assigned(func), updated=())
    def gradient_and_value(*args: Any, **kwargs: Any) -> Any:
        level = GradLevel()
        with level.entered():
            inside, leaves, structure = _entered(level, args, argnums)
            output, aux = _call(func, inside, kwargs, has_aux, "grad_and_value(f)(*args)")
            if not isinstance(output, Tensor):
                raise AutogradError(f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(output)}")
            if output.dim() != 0:
                raise AutogradError("grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor with "
                                    f"{output.dim()} dims. Maybe you wanted to use the vjp or jacrev APIs instead?")
            found = _pull(level, [output], [ops.full(TensorType(output.dtype, ()), 1, like=output)], leaves)
            grads = unflatten(structure, [level.leave(g) for g in found])
            value = level.leave(output)
            return grads, (value, level.leave_all(aux)) if has_aux else value

    return gradient_and_value


def value_and_grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As `grad`, but the new function returns a pair: what `func` returned, and the gradients.

    A call raises AutogradError where `func` does not return one tensor without dimensions, ArgumentError where an argument to
    be differentiated is no tensor.

    >>> value, slope = graphc.func.value_and_grad(lambda x: x**3)(graphc.tensor(2.0))
    >>> value, slope
    (tensor(8.), tensor(12.))
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func, assigned=assigned(func), updated=())
    def value_then_gradient(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return value, grads

    return value_then_gradient


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `func` at `primals`, and its vector-Jacobian product there: a function from cotangents of the output,
    nested as it is, to a tuple of cotangents, one for each of the primals. With `has_aux` also the second result of `func`.

    ArgumentError for primals that are no tensors, AutogradError where the function returns what is none.

    >>> value, pullback = graphc.func.vjp(graphc.square, graphc.tensor([1.0, 2.0]))
    >>> pullback(graphc.tensor([1.0, 10.0]))
    (tensor([ 2., 40.]),)
    """
    output, pull, aux = pullback(func, primals, tuple(range(len(primals))), has_aux)
    return (output, pull, aux) if has_aux else (output, pull)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """The value of `func` at the tuple `primals`, and its derivative there in the direction of `tangents`.

    strict
        An output that does not depend on the primals is an error, instead of a derivative of zero.

    AutogradError where the primals are no tuple of tensors, or the tangents are not nested as they are; with `strict` for an
    output that does not depend on them.

    >>> graphc.func.jvp(graphc.square, (graphc.tensor([1.0, 2.0]),), (graphc.tensor([1.0, 10.0]),))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call = "jvp(f, primals, tangents)"
    if not isinstance(primals, tuple):
        raise AutogradError(f"{call}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    leaves, structure = flatten(primals)
    directions, tangent_structure = flatten(tangents)
    if structure != tangent_structure:
        raise AutogradError(f"{call}: Expected primals and tangents to have the same python structure. For example, if primals "
                            "is a tuple of 3 tensors, tangents also must be.")
    _check_tensors(leaves, call, "primals")
    _check_tensors(directions, call, "tangents")
    output, push, aux = pushforward(func, primals, tuple(range(len(primals))), has_aux, call, strict)
    derivative = push(tangents)
    return (output, derivative, aux) if has_aux else (output, derivative)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of `func` at `primals`, and its derivative there: a function from tangents, one for each of the primals, to
    the tangent of the output. `func` runs once, however often the derivative is taken.

    AutogradError, when the derivative is taken, where the tangents have another nesting or dtype than the primals, ShapeError
    where they have another shape.

    >>> value, derivative = graphc.func.linearize(graphc.square, graphc.tensor([1.0, 2.0]))
    >>> derivative(graphc.tensor([1.0, 10.0]))
    tensor([ 2., 40.])
    """
    output, push, _ = pushforward(func, primals, tuple(range(len(primals))), False, "linearize(f, *primals)")
    leaves, structure = flatten(primals)

    def derivative(*tangents: Any) -> Any:
        given, tangent_structure = flatten(tangents)
        if tangent_structure != structure:
            raise AutogradError("Expected the tangents to be nested as the primals are", expected=str(structure.leaves),
                                got=str(tangent_structure.leaves))
        for i, (t, x) in enumerate(zip(given, leaves)):
            if t.shape != x.shape:
                raise ShapeError(f"tangent:{i} with shape {list(t.shape)} in flattened pytree doesn't match the shape "
                                 f"{list(x.shape)} of the corresponding primal.")
            if t.dtype is not x.dtype:
                raise AutogradError(f"tangent:{i} with dtype {t.dtype.name} in flattened pytree doesn't match the dtype "
                                    f"{x.dtype.name} of the corresponding primal.")
        return push(tangents)

    return output, derivative


# What the transforms are made of


def pullback(func: Callable[..., Any], args: tuple[Any, ...], argnums: Argnums, has_aux: bool) -> tuple[Any, Any, Any]:
    """The value of `func`, its vector-Jacobian product by some of the arguments, and the second result, if it has one."""
    level = GradLevel()
    with level.entered():
        inside, leaves, input_structure = _entered(level, args, argnums)
        output, aux = _call(func, inside, {}, has_aux, "vjp(f, *primals)")
        outputs, structure = flatten(output)
        _check_outputs(outputs, "vjp(f, *primals)")
        for y in outputs:
            if not y.dtype.is_differentiable:
                raise AutogradError("vjp(f, ...): All outputs of f must be floating-point or complex Tensors, got Tensor with "
                                    f"dtype {y.dtype.name}")
        value, aux = level.leave_all(output), level.leave_all(aux)

    def pull(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given, cotangent_structure = flatten(cotangents)
        if cotangent_structure != structure:
            raise AutogradError("Expected pytree structure of cotangents to be the same as pytree structure of outputs to the "
                                "function.", expected=f"{structure.leaves} tensors, nested as the output",
                                got=f"{len(given)}, nested as {type(cotangents).__name__}")
        for ct, y in zip(given, outputs):
            if ct.shape != y.shape:
                raise ShapeError(f"Mismatch in shape: grad_output has a shape of {list(ct.shape)} and output has a shape of "
                                 f"{list(y.shape)}.")
        again = GradLevel(level.key)
        with again.entered():
            found = _pull(again, outputs, given, leaves, keep=retain_graph)
            return unflatten(input_structure, [again.leave(g) for g in found])

    return value, pull, aux


def pushforward(
    func: Callable[..., Any], args: tuple[Any, ...], argnums: Argnums, has_aux: bool, call: str, strict: bool = False
) -> tuple[Any, Any, Any]:
    """The value of `func`, its Jacobian-vector product by some of the arguments, and the second result, if it has one.

    The vector-Jacobian product is linear in the cotangent, and its own vector-Jacobian product is what is wanted.
    """
    level = GradLevel()
    with level.entered():
        inside, leaves, _ = _entered(level, args, argnums)
        output, aux = _call(func, inside, {}, has_aux, call)
        outputs, structure = flatten(output)
        _check_outputs(outputs, call)
        seeds = [ops.zeros_like(y).requires_grad_() if y.dtype.is_differentiable else None for y in outputs]
        known = [(y, u) for y, u in zip(outputs, seeds) if u is not None]
        if strict and any(history(y) is None for y in outputs):
            raise AutogradError("jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is "
                                "not allowed with strict=True.")
        linear = _run(level, [y for y, _ in known], [u for _, u in known], leaves, record=True)
        value, aux = level.leave_all(output), level.leave_all(aux)

    def push(tangents: Any) -> Any:
        given = flatten(tangents)[0]
        again = GradLevel(level.key)
        with again.entered():
            pairs = [(g, t) for g, t in zip(linear, given) if g is not None]
            found = iter(_pull(again, [g for g, _ in pairs], [t for _, t in pairs], [u for _, u in known]))
            results = [ops.zeros_like(y) if u is None else next(found) for y, u in zip(outputs, seeds)]
            return unflatten(structure, [again.leave(t) for t in results])

    return value, push, aux


def _run(
    level: GradLevel, outputs: Sequence[Tensor], cotangents: Sequence[Any], inputs: Sequence[Tensor], record: bool = False,
    keep: bool = True,
) -> list[Tensor | None]:
    """The cotangents of the inputs, None for those that the outputs do not depend on."""
    roots = [(history(y), ct) for y, ct in zip(outputs, cotangents) if level.records(y) and history(y) is not None]
    level.pulling = True
    try:
        return engine.run(roots, keep_graph=keep, create_graph=record, inputs=[history(x) for x in inputs], accumulate=False)
    finally:
        level.pulling = False


def _pull(
    level: GradLevel, outputs: Sequence[Tensor], cotangents: Sequence[Any], inputs: Sequence[Tensor], keep: bool = True
) -> list[Tensor]:
    found = _run(level, outputs, cotangents, inputs, keep=keep)
    return [ops.zeros_like(x) if ct is None else ct for x, ct in zip(inputs, found)]


def _entered(level: GradLevel, args: tuple[Any, ...], argnums: Argnums) -> tuple[tuple[Any, ...], list[Tensor], Structure]:
    """The arguments inside of the level; the tensors to differentiate by, and how they are nested."""
    chosen = check_argnums(argnums, len(args))
    inside = list(args)
    for i in (chosen,) if isinstance(chosen, int) else chosen:
        leaves, structure = flatten(args[i])
        for x in leaves:
            if not isinstance(x, Tensor):
                raise ArgumentError(f"Thing passed to transform API must be Tensor, got {type(x)}")
        inside[i] = unflatten(structure, [level.enter(x).requires_grad_() for x in leaves])
    wanted = inside[chosen] if isinstance(chosen, int) else tuple(inside[i] for i in chosen)
    leaves, structure = flatten(wanted)
    return tuple(inside), leaves, structure


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], has_aux: bool, call: str) -> tuple[Any, Any]:
    result = func(*args, **kwargs)
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise AutogradError(f"{call}: output of function f should be a tuple: (output, aux) if has_aux is True")
    return result


def check_argnums(argnums: Argnums, count: int) -> Argnums:
    """Numbers of arguments, counted from the left."""
    if isinstance(argnums, tuple):
        if not argnums:
            raise GraphcError("argnums must be non-empty")
        if len(set(argnums)) != len(argnums):
            raise GraphcError(f"argnums elements must be unique, got {argnums}")
        return tuple(_argnum(i, count) for i in argnums)
    if not isinstance(argnums, int):
        raise GraphcError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    return _argnum(argnums, count)


def _argnum(argnum: Any, count: int) -> int:
    if not isinstance(argnum, int):
        raise GraphcError(f"argnum must be int, got: {type(argnum)}")
    if not -count <= argnum < count:
        raise GraphcError(f"Got argnum={argnum}, but only {count} positional inputs")
    return argnum % count


def _check_outputs(outputs: Sequence[Any], call: str) -> None:
    if not outputs:
        raise AutogradError(f"{call}: Expected f to be a function that has non-empty output (got output = {list(outputs)})")
    for y in outputs:
        if not isinstance(y, Tensor):
            raise AutogradError(f"{call}: expected f(*primals) to return only tensors, got unsupported type {type(y)}")


def _check_tensors(given: Sequence[Any], call: str, name: str) -> None:
    if not given:
        raise AutogradError(f"{call}: Expected {name} to contain at least one Tensor.")
    for x in given:
        if not isinstance(x, Tensor):
            raise AutogradError(f"{call}: Expected {name} to only contain Tensors, got {type(x)}")


def assigned(func: Callable[..., Any]) -> list[str]:
    """What functools.wraps copies: a module or a partial has no name."""
    return [name for name in functools.WRAPPER_ASSIGNMENTS if hasattr(func, name)]
