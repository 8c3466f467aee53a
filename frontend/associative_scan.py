"""Partial results of associative functions, in few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.body_trace import as_tensors, type_of
from graphc.frontend.control_flow import check_carry, rows_of
from graphc.frontend.func.vectorize import vmap
from graphc.frontend.joining import cat, stack
from graphc.frontend.movement import movedim
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tensor import Tensor


def associative_scan(
    combine_fn: Callable[..., Any], xs: Any, dim: int = 0, reverse: bool = False, combine_mode: str = "pointwise"
) -> Any:
    """All partial results of an associative function: `y[0] = x[0]`, `y[k] = combine_fn(y[k - 1], x[k])`, in a number of steps
    that grows as the logarithm of the length (Blelloch 1990: "Prefix sums and their applications").

    combine_fn
        Takes two elements of `xs` without the dimension `dim`, tensors or nested containers of them, and returns a third.
    reverse
        From the last element to the first: `y[k] = combine_fn(y[k + 1], x[k])`.
    combine_mode
        "pointwise" or "generic", as in PyTorch; the function may be any, either way.

    ShapeError where the length is not known, or differs among `xs`; TraceError where the function returns other shapes or
    dtypes than it takes; ArgumentError for another `combine_mode`.

    >>> import graphc
    >>> graphc.associative_scan(graphc.mul, graphc.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([ 1.,  2.,  6., 24.])
    """
    if combine_mode not in ("pointwise", "generic"):
        raise ArgumentError(f"associative_scan: combine_mode {combine_mode!r}", expected="'pointwise' or 'generic'")
    rows, structure, count = rows_of(xs, dim, None, "associative_scan")
    if not isinstance(count, int):
        raise ShapeError("associative_scan: the length is not known", got=str(count), hint="use scan")
    types = [type_of(x) for x in rows]

    def combine(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        def one(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
            found, given = flatten(combine_fn(unflatten(structure, first), unflatten(structure, second)))
            results = as_tensors(found, combine_fn)
            element_types = [t.with_shape(t.shape[1:]) for t in types]
            check_carry("associative_scan", combine_fn, structure, element_types, given, [type_of(x) for x in results])
            return results

        return vmap(one)(first, second)

    if reverse:
        rows = [x.flip(0) for x in rows]
    results = _partial(combine, rows, count)
    if reverse:
        results = [x.flip(0) for x in results]
    return unflatten(structure, [movedim(x, 0, dim) for x in results])


def _partial(combine: Callable[[list[Tensor], list[Tensor]], list[Tensor]], xs: list[Tensor], count: int) -> list[Tensor]:
    if count < 2:
        return xs
    odd = _partial(combine, combine([x[0 : count - 1 : 2] for x in xs], [x[1::2] for x in xs]), count // 2)
    even = [x[:1] for x in xs]
    if count > 2:
        more = combine([x[: (count - 1) // 2] for x in odd], [x[2::2] for x in xs])
        even = [cat([first, rest]) for first, rest in zip(even, more)]
    half = count // 2
    woven = [stack([e[:half], o], 1).reshape(2 * half, *x.shape[1:]) for e, o, x in zip(even, odd, xs)]
    return woven if count % 2 == 0 else [cat([w, e[half:]]) for w, e in zip(woven, even)]
