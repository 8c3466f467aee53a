"""Control flow that depends on data: branches and loops as functions of functions.

Eagerly they are what Python does. Inside compiled and exported functions, where there are no numbers, the functions are
traced into graphs of their own, and one op runs these. All are differentiable, and take nested containers of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphc.ops as ops
from graphc.errors import ArgumentError, ArgumentTypeError, ShapeError, TraceError
from graphc.frontend import inplace
from graphc.frontend.body_trace import Body, as_tensors, described, trace_body, type_of
from graphc.frontend.from_data import tensor
from graphc.frontend.joining import stack
from graphc.frontend.level import Inner, Level
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.movement import movedim
from graphc.frontend.pytree import LEAF, Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.ir import inline
from graphc.ops.control import saving_branches
from graphc.ops.control_scan import saving
from graphc.passes.hoist import split_invariant
from graphc.types import TensorType, bool_

Function = Callable[..., Any]


def in_graph() -> bool:
    """Whether there are no numbers to decide by: a trace runs, perhaps outside of levels."""
    tracer: Any = active()
    while isinstance(tracer, Level):
        tracer = tracer.around
    return tracer is not None


def _in_batch() -> bool:
    """Whether vmap runs: what is decided may differ from one element to the other."""
    tracer: Any = active()
    while isinstance(tracer, Level):
        if not tracer.has_tape:
            return True
        tracer = tracer.around
    return False


def cond(pred: Any, true_fn: Function, false_fn: Function, operands: Sequence[Any] = ()) -> Any:
    """`true_fn(*operands)` where `pred` is true, `false_fn(*operands)` where not.

    pred
        A bool, or a tensor of one.
    operands
        A tuple of tensors, or nested containers of them. The functions may use other tensors besides.

    In a graph both functions are traced, and one runs: they have to return tensors of the same shapes and dtypes, nested in the
    same way. Under vmap, where predicates differ, both run.

    ArgumentError for a predicate that is not one bool, ArgumentTypeError for operands that are no tuple, TraceError, which
    shows where they differ, for functions that return different things.

    >>> import graphc
    >>> @graphc.compile
    ... def root(x):
    ...     return graphc.cond(x.sum() > 0, lambda x: x.sqrt(), lambda x: x * 0, (x,))
    >>> root(graphc.tensor([1.0, 4.0])), root(graphc.tensor([-1.0, -4.0]))
    (tensor([1., 2.]), tensor([-0., -0.]))
    """
    if not isinstance(operands, (tuple, list)):
        raise ArgumentTypeError("cond: the operands are not a tuple", expected="a tuple or list of arguments, as in (x,)",
                                got=type(operands).__name__)
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    if not isinstance(pred, Tensor) or pred.dtype is not bool_ or pred.numel() != 1:
        got = str(type_of(pred)) if isinstance(pred, Tensor) else type(pred).__name__
        raise ArgumentError("cond: the predicate is not a bool", expected="a bool, or a bool tensor of one element", got=got)
    if not in_graph() and not (_in_batch() and isinstance(pred._data, Inner)):
        return (true_fn if pred else false_fn)(*operands)
    leaves, structure = flatten(tuple(operands))
    inputs = [x for x in leaves if isinstance(x, Tensor)]
    types = _types(inputs)

    def branch(function: Function) -> Body:
        def of_tensors(*tensors: Tensor) -> Any:
            given = iter(tensors)
            return function(*unflatten(structure, [next(given) if isinstance(x, Tensor) else x for x in leaves]))

        return trace_body(of_tensors, inputs, types, Structure("tuple", (LEAF,) * len(types)), function)

    then, otherwise = branch(true_fn), branch(false_fn)
    if then.structure != otherwise.structure or then.types != otherwise.types:
        raise TraceError(
            "cond: the two functions return different things",
            expected=f"{_listed(then)} as {described(true_fn)} does",
            got=f"{_listed(otherwise)} from {described(false_fn)}",
            hint="return tensors of the same shapes and dtypes, nested in the same way, from both",
        )
    captured = _united(then.captured, otherwise.captured)
    updated = _united(then.updated, otherwise.updated)
    all_types = [*types, *_types(captured)]
    graphs = tuple(_branch(body, len(types), captured, updated, all_types) for body in (then, otherwise))
    if mode.grad:
        graphs = saving_branches(*graphs)
    results = ops.cond(pred.reshape(()), *inputs, *_values(captured, updated), then=graphs[0], otherwise=graphs[1])
    _write_back(updated, results[len(then.types) : len(then.types) + len(updated)])
    return unflatten(then.structure, results[: len(then.types)])


def _branch(body: Body, own: int, captured: list[Tensor], updated: list[Tensor], types: Sequence[TensorType]) -> Any:
    place = {id(t): own + i for i, t in enumerate(captured)}
    results = len(body.types)
    update = {id(t): results + k for k, t in enumerate(body.updated)}
    outputs = [*range(results), *(update.get(id(t), -1 - place[id(t)]) for t in updated)]
    return body.with_inputs(types, [*range(own), *(place[id(t)] for t in body.captured)], outputs)


def _united(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    known = {id(t) for t in first}
    return [*first, *(t for t in second if id(t) not in known)]


def while_loop(cond_fn: Function, body_fn: Function, carried_inputs: Sequence[Any]) -> Any:
    """`carried = body_fn(*carried)` as long as `cond_fn(*carried)` is true; returns what is carried then.

    cond_fn
        Returns a bool, or a tensor of one.
    body_fn
        Returns a tuple of tensors like those that it takes: same shapes, dtypes and nesting. A single one may come by itself.
    carried_inputs
        A tuple of tensors, numbers, or nested containers of them. Numbers become tensors.

    Gradients go backwards through all steps, however many there are: what is carried is kept for each of them. Under vmap
    each element goes on until its own condition fails.

    ArgumentTypeError where what is carried is no tuple, TraceError where the condition is not one bool; ArgumentError where
    nothing is carried.

    >>> import graphc
    >>> @graphc.compile
    ... def newton(x):  # the square root of x
    ...     step = lambda y: ((y + x / y) / 2,)
    ...     return graphc.while_loop(lambda y: (y * y - x).abs() > 1e-5, step, (x,))[0]
    >>> newton(graphc.tensor(9.0))
    tensor(3.)
    """
    if not isinstance(carried_inputs, (tuple, list)):
        raise ArgumentTypeError("while_loop: what is carried is not a tuple", expected="a tuple or list, as in (x,)",
                                got=type(carried_inputs).__name__)
    leaves, structure = flatten(tuple(carried_inputs))
    if not leaves:
        raise ArgumentError("while_loop: nothing is carried", expected="at least one tensor")
    carry = _numbers_as_tensors(leaves, "while_loop")

    def step(*carried: Any) -> Any:
        result = body_fn(*carried)
        if isinstance(result, list):
            return tuple(result)
        return (result,) if len(carried) == 1 and not isinstance(result, tuple) else result

    def goes_on(*carried: Any) -> Any:
        pred = cond_fn(*carried)
        return pred.reshape(()) if isinstance(pred, Tensor) and pred.dim() and pred.numel() == 1 else pred

    if not in_graph() and not _in_batch():
        types = _types(carry)
        while _truth(cond_fn(*unflatten(structure, carry)), cond_fn):
            found, given = flatten(step(*unflatten(structure, carry)))
            carry = as_tensors(found, body_fn)
            check_carry("while_loop", body_fn, structure, types, given, _types(carry))
        return unflatten(structure, carry)
    types = _types(carry)
    condition = trace_body(goes_on, carry, types, structure, cond_fn)
    body = trace_body(step, carry, types, structure, body_fn, len(carry))
    if condition.types != [TensorType(bool_, ())]:
        raise TraceError("while_loop: the condition is not one bool", expected="a bool tensor of one element",
                         got=f"{_listed(condition)} from {described(cond_fn)}")
    check_carry("while_loop", body_fn, structure, types, body.structure, body.types)
    if condition.updated:
        raise TraceError("while_loop: the condition changes a tensor in place", expected="a condition that only looks",
                         got=described(cond_fn))
    captured = _united(body.updated, _united(condition.captured, body.captured))
    count, updates = len(types), len(body.updated)
    all_types = [*types, *_types(captured)]
    place = {id(t): count + i for i, t in enumerate(captured)}
    graphs = [
        b.with_inputs(all_types, [*range(count), *(place[id(t)] for t in b.captured)], range(len(b.graph.outputs)))
        for b in (condition, body)
    ]
    operands = [*carry, *_values(captured, body.updated)]
    results = ops.while_loop(*operands, condition=graphs[0], body=graphs[1], carries=count + updates)
    _write_back(body.updated, results[count:])
    return unflatten(structure, results[:count])


def scan(
    combine_fn: Function, init: Any, xs: Any = None, *, dim: int = 0, reverse: bool = False, length: int | None = None
) -> tuple[Any, Any]:
    """`carry, y = combine_fn(carry, x)` for each `x` along a dimension of `xs`, from `carry = init`; returns the last carry,
    and all `y` one behind the other along that dimension.

    combine_fn
        Returns a pair: the next carry, of the shapes, dtypes and nesting of `init`, and tensors in any nesting.
    init, xs
        Tensors, numbers (of `init`), or nested containers of them. `xs` may be None, for `length` steps without inputs.
    reverse
        Go from the last element to the first; the results stand where the inputs did.

    TraceError where the function does not return a pair; ArgumentTypeError for an `init` that cannot be carried.

    >>> import graphc
    >>> graphc.scan(lambda total, x: (total + x, total * x), graphc.tensor(0.0), graphc.tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 2., 9.]))
    """
    carry_leaves, structure = flatten(init)
    carry = _numbers_as_tensors(carry_leaves, "scan")
    rows, row_structure, count = rows_of(xs, dim, length, "scan")

    def pair(*arguments: Any) -> Any:
        result = combine_fn(*arguments)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TraceError(f"scan: {described(combine_fn)} does not return a pair", expected="(next carry, results)",
                             got=f"{len(result)} things" if isinstance(result, tuple) else type(result).__name__)
        return result

    if not in_graph() and count:
        return _eager_scan(pair, combine_fn, carry, structure, rows, row_structure, count, dim, reverse)
    return _graph_scan(pair, combine_fn, carry, structure, rows, row_structure, count, dim, reverse)


def _eager_scan(
    pair: Function, combine_fn: Function, carry: list[Tensor], structure: Structure, rows: list[Tensor],
    row_structure: Structure, count: Any, dim: int, reverse: bool,
) -> tuple[Any, Any]:
    types = _types(carry)
    made: list[list[Tensor]] = []
    result_structure: Structure | None = None
    for at in reversed(range(count)) if reverse else range(count):
        following, y = pair(unflatten(structure, carry), unflatten(row_structure, [x[at] for x in rows]))
        found, given = flatten(following)
        carry = as_tensors(found, combine_fn)
        check_carry("scan", combine_fn, structure, types, given, _types(carry))
        leaves, result_structure = flatten(y)
        carried = {id(x) for x in carry}  # the next step may change these in place
        results = [] if y is None else as_tensors(leaves, combine_fn)
        made.append([x.clone() if id(x) in carried else x for x in results])
    if reverse:
        made.reverse()
    assert result_structure is not None
    columns = [stack(column, _dim(dim, column[0].dim() + 1)) for column in zip(*made)]
    return unflatten(structure, carry), unflatten(result_structure, columns or [None])


def _graph_scan(
    pair: Function, combine_fn: Function, carry: list[Tensor], structure: Structure, rows: list[Tensor],
    row_structure: Structure, count: Any, dim: int, reverse: bool,
) -> tuple[Any, Any]:
    row_types = [type_of(x).with_shape(type_of(x).shape[1:]) for x in rows]
    types = _types(carry)
    inside: list[Structure] = []

    def step(carried: Any, x: Any) -> Any:
        following, y = pair(carried, x)
        inside[:] = flatten(following)[1], flatten(y)[1]
        return following, () if y is None else y

    both = Structure("tuple", (structure, row_structure))
    body = trace_body(step, [*carry, *rows], [*types, *row_types], both, combine_fn, len(carry))
    body_count = inside[0].leaves
    check_carry("scan", combine_fn, structure, types, inside[0], body.types[:body_count])
    updates, results = len(body.updated), len(body.types)
    others = [t for t in body.captured if id(t) not in {id(t) for t in body.updated}]
    all_types = [*types, *_types(body.updated), *row_types, *_types(others)]
    carries, scanned = len(types) + updates, len(rows)
    place = {id(t): len(types) + i for i, t in enumerate(body.updated)}
    place |= {id(t): carries + scanned + i for i, t in enumerate(others)}
    places = [*range(len(types)), *range(carries, carries + scanned), *(place[id(t)] for t in body.captured)]
    order = [*range(len(types)), *range(results, results + updates), *range(len(types), results)]
    graph = body.with_inputs(all_types, places, order)
    before, graph = split_invariant(graph, range(carries + scanned, len(graph.inputs)))
    if before is not None:  # else derivatives would keep it for each step
        others += inline(before, others, [*carry, *body.updated, *rows, *others][0])
    if mode.grad:
        graph = saving(graph, carries, scanned)
    if not graph.inputs:  # nothing that an op could be applied to
        return _eager_scan(pair, combine_fn, carry, structure, rows, row_structure, count, dim, reverse)
    operands = [*carry, *_values(body.updated, body.updated), *rows, *others]
    attrs = {"body": graph, "carries": carries, "scanned": scanned, "length": count, "reverse": reverse}
    found = ops.scan(*operands, **attrs) if graph.outputs else ()
    _write_back(body.updated, found[len(types) : carries])
    ys = [movedim(y, 0, _dim(dim, y.dim())) for y in found[carries : carries + results - len(types)]]
    return unflatten(structure, found[: len(types)]), unflatten(inside[1], ys or [None])


def map(f: Function, xs: Any, *args: Any) -> Any:
    """`f(x, *args)` for each `x` along dimension 0 of `xs`, the results one behind the other.

    `xs` may be a nested container of tensors; so may what `f` returns. One element is computed after another: vmap computes
    all at once, where memory allows.

    ArgumentTypeError for what cannot be taken apart, ShapeError where lengths differ.

    >>> import graphc
    >>> graphc.map(lambda x: x.sum() * 2, graphc.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([ 6., 14.])
    """
    return scan(lambda carry, x: (carry, f(x, *args)), (), xs)[1]


# Arguments


def rows_of(xs: Any, dim: int, length: int | None, name: str) -> tuple[list[Tensor], Structure, Any]:
    """The tensors with the dimension in front, how they are nested, and how many rows there are."""
    if xs is None:
        if length is None:
            raise ArgumentError(f"{name}: there is nothing that tells the number of steps", expected="xs, or length=")
        return [], Structure("tuple"), length
    leaves, structure = flatten(xs)
    for x in leaves:
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"{name}: xs holds a {type(x).__name__}", expected="tensors, perhaps nested")
        if x.dim() == 0:
            raise ShapeError(f"{name}: xs holds a tensor without dimensions", expected="tensors with a dimension to go along")
    rows = [x if dim == 0 else movedim(x, dim, 0) for x in leaves]
    counts = [type_of(x).shape[0] for x in rows] + ([] if length is None else [length])
    if not counts or any(count != counts[0] for count in counts):
        raise ShapeError(f"{name}: xs and length differ in the number of steps", expected="one number",
                         got=", ".join(f"{type_of(x)}" for x in leaves) + (f", length={length}" if length is not None else ""))
    return rows, structure, counts[0]


def _dim(dim: int, ndim: int) -> int:
    """Where the new dimension of results goes: in front of those that have too few others."""
    return dim if -ndim <= dim < ndim else 0


def _numbers_as_tensors(leaves: Sequence[Any], name: str) -> list[Tensor]:
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, bool, int, float, complex)):
            raise ArgumentTypeError(f"{name}: a {type(leaf).__name__} cannot be carried",
                                    expected="tensors and numbers, perhaps nested")
    return [leaf if isinstance(leaf, Tensor) else tensor(leaf) for leaf in leaves]


def _types(tensors: Sequence[Tensor]) -> list[TensorType]:
    return [type_of(x) for x in tensors]


def _truth(pred: Any, function: Function) -> bool:
    if isinstance(pred, bool):
        return pred
    if not isinstance(pred, Tensor) or pred.dtype is not bool_ or pred.numel() != 1:
        got = str(type_of(pred)) if isinstance(pred, Tensor) else type(pred).__name__
        raise TraceError("while_loop: the condition is not one bool", expected="a bool, or a bool tensor of one element",
                         got=f"{got} from {described(function)}")
    return bool(pred)


def check_carry(
    name: str, function: Function, structure: Structure, types: Sequence[TensorType], given: Structure,
    found: Sequence[TensorType],
) -> None:
    """TraceError where a step returns another carry than it takes."""
    if given == structure and list(found) == list(types):
        return
    raise TraceError(
        f"{name}: a step returns something else than it takes",
        expected=f"{', '.join(str(t) for t in types) or 'nothing'}, as at the start",
        got=f"{', '.join(str(t) for t in found) or 'nothing'} from {described(function)}"
        + ("" if given == structure else ", nested in another way"),
    )


def _listed(body: Body) -> str:
    nesting = "" if body.structure.kind == "leaf" else f" in a {body.structure.kind}"
    return (", ".join(str(t) for t in body.types) or "nothing") + nesting


def _values(tensors: Sequence[Tensor], updated: Sequence[Tensor]) -> list[Tensor]:
    """Captured tensors as operands: of what will be changed in place, what it holds now."""
    if updated and _in_batch():
        raise TraceError(
            "control flow under vmap changes a tensor from outside in place, such as the state of a random generator",
            expected="functions that return what is new", hint="draw random numbers before, and pass them in",
        )  # fmt: skip
    changed = {id(t) for t in updated}
    return [t.detach().clone() if id(t) in changed else t for t in tensors]


def _write_back(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """What the functions have changed in place."""
    with no_grad():
        for target, value in zip(tensors, values):
            inplace.refuse(target)
            inplace.assign(target, value)
