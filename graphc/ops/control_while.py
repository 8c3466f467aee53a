"""while_loop: a step as long as a condition holds, and its derivative."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ShapeError
from graphc.ir import Builder, Graph, inline
from graphc.op import Sample, op
from graphc.ops.control import (
    active_inputs,
    autodiff,
    batch_of_loop,
    batching,
    check_graph_inputs,
    listed,
    result_types,
    run_graph,
    sample_graph,
    seeds,
    vjp_of,
)
from graphc.ops.elementwise import lt, where
from graphc.ops.movement import reshape, stack_operand
from graphc.ops.reduce import amax
from graphc.types import Size, TensorType, bool_, float64, int64


def _check_loop(name: str, types: Sequence[TensorType], condition: Graph, body: Graph, carries: int) -> None:
    if not 0 < carries <= len(types):
        raise GraphcError(f"{name}: there are not so many operands", expected=f"{carries} carries, at least one",
                          got=f"{len(types)} operands")
    check_graph_inputs(name, "the condition", condition, types)
    check_graph_inputs(name, "the body", body, types)
    truth = result_types(condition)
    if len(truth) != 1 or truth[0].dtype is not bool_ or truth[0].shape != ():
        raise ShapeError(f"{name}: the condition is not one bool", expected="bool[]", got=listed(truth))
    if result_types(body) != tuple(types[:carries]):
        raise ShapeError(f"{name}: the body returns other carries than it takes", expected=listed(types[:carries]),
                         got=listed(result_types(body)))


def _while_infer(*operands: TensorType, condition: Graph, body: Graph, carries: int) -> tuple[TensorType, ...]:
    _check_loop("while_loop", operands, condition, body, carries)
    return operands[:carries]


def _steps(operands: Sequence[np.ndarray], condition: Graph, body: Graph, carries: int) -> list[Sequence[np.ndarray]]:
    """The carries before each step, and those after the last."""
    states: list[Sequence[np.ndarray]] = [operands[:carries]]
    same = operands[carries:]
    while run_graph(condition, [*states[-1], *same])[0]:
        states.append(run_graph(body, [*states[-1], *same]))
    return states


def _while_ref(*operands: np.ndarray, condition: Graph, body: Graph, carries: int) -> tuple[np.ndarray, ...]:
    state, same = operands[:carries], operands[carries:]
    while run_graph(condition, [*state, *same])[0]:
        state = tuple(run_graph(body, [*state, *same]))
    return tuple(map(np.copy, state))


@functools.lru_cache(maxsize=256)
def _while_backward(body: Graph, carries: int, wanted: tuple[int, ...]) -> tuple[Graph, tuple[int, ...]]:
    """One step backwards, and the inputs of the body that it differentiates by: from the body's inputs, the cotangents of
    the active carries after it, and sums for the captured operands, to the cotangents before it, and the sums."""
    active = active_inputs(body, carries, wanted)
    around = tuple(i for i in active if i < carries)
    pull = vjp_of(body, active, around)
    builder = Builder(f"{body.name}.backward", locations=False)
    inputs = [builder.input(None, v.type) for v in body.inputs]
    cts = [builder.input(None, body.inputs[i].type) for i in around]
    sums = [builder.input(None, body.inputs[i].type) for i in active[len(around) :]]
    found = inline(pull, [*inputs, *cts], inputs[0])
    totals = [total + new for total, new in zip(sums, found[len(around) :])]
    return builder.finish([*found[: len(around)], *totals]), active


def _while_vjp(ct: Sequence[Any], operands: Sequence[Any], wanted: tuple[int, ...], attrs: Mapping[str, Any]) -> Sequence[Any]:
    """The loop runs again, keeping the carries of each step, and then back."""
    body, carries = attrs["body"], attrs["carries"]
    backward, active = _while_backward(body, carries, wanted)
    around = [i for i in active if i < carries]
    given = while_loop_vjp(*operands, *seeds(ct, around, result_types(body), operands[0]), backward=backward, active=active,
                           **attrs)
    known = dict(zip(active, given))
    return tuple(known[i] for i in wanted)


@functools.lru_cache(maxsize=256)
def _batched_loop(condition: Graph, body: Graph, carries: int, size: Size, flags: tuple[bool, ...]) -> tuple[Graph, Graph]:
    """Condition and body for a batch, in which each element goes on until its own condition fails, if that differs."""
    own = batching().batched_outputs(condition, flags)
    truth = batching().batch_graph(condition, size, flags, own)
    step = batching().batch_graph(body, size, flags, flags[:carries])
    if not own[0]:
        return truth, step
    any_ = Builder(condition.name, locations=False)
    inputs = [any_.input(None, v.type) for v in truth.inputs]
    going = inline(truth, inputs, inputs[0])[0]
    anywhere = any_.finish([amax(going, (0,))])
    masked = Builder(body.name, locations=False)
    inputs = [masked.input(None, v.type) for v in step.inputs]
    going = inline(truth, inputs, inputs[0])[0]
    new = inline(step, inputs, inputs[0])
    chosen = [where(reshape(going, (size, *(1,) * (x.ndim - 1))), n, x) for n, x in zip(new, inputs)]
    return anywhere, masked.finish(chosen)


def _while_batch(size: Size, batched: tuple[bool, ...], *operands: Any, condition: Graph, body: Graph, carries: int) -> Any:
    batch = batch_of_loop(body, size, carries, batched)
    if batching().batched_outputs(condition, batch.flags)[0]:
        batch = batch_of_loop(body, size, carries, batched, all_carries=True)
    truth, step = _batched_loop(condition, body, carries, size, batch.flags)
    given = [stack_operand(x, size, own) if to else x for x, own, to in zip(operands, batched, batch.flags)]
    results = while_loop(*given, condition=truth, body=step, carries=carries)
    return tuple(stack_operand(r, size, own) for r, own in zip(results, batch.flags))


def _pull_infer(*operands: TensorType, condition: Graph, body: Graph, carries: int, backward: Graph,
                active: tuple[int, ...]) -> tuple[TensorType, ...]:
    count = len(body.inputs)
    if not all(0 <= i < count for i in active) or list(active) != sorted(set(active)):
        raise GraphcError("while_loop_vjp: what to differentiate by are no inputs of the body", got=str(active))
    around = [i for i in active if i < carries]
    _check_loop("while_loop_vjp", operands[: len(operands) - len(around)], condition, body, carries)
    results = [operands[i] for i in active]
    check_graph_inputs("while_loop_vjp", "the step backwards", backward, [*operands[:count], *results])
    if list(operands[count:]) != results[: len(around)] or list(result_types(backward)) != results:
        raise ShapeError("while_loop_vjp: cotangents are not of the types of what they belong to", expected=listed(results),
                         got=listed([*operands[count:], *result_types(backward)]))
    return tuple(results)


def _pull_ref(*operands: np.ndarray, condition: Graph, body: Graph, carries: int, backward: Graph,
              active: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    count = len(body.inputs)
    taken, cts = operands[:count], operands[count:]
    given: Sequence[np.ndarray] = [*cts, *(np.zeros_like(taken[i]) for i in active if i >= carries)]
    for state in reversed(_steps(taken, condition, body, carries)[:-1]):
        given = run_graph(backward, [*state, *taken[carries:], *given])
    return tuple(map(np.copy, given))


@functools.lru_cache(maxsize=256)
def _with_tangents(condition: Graph, body: Graph, carries: int, active: tuple[int, ...]) -> tuple[Graph, Graph]:
    """The loop that carries tangents of the active carries along. Operands: carries, tangents of the active ones, captured
    operands, tangents of the active ones of these."""
    around = [i for i in active if i < carries]
    push = autodiff().jvp_graph(body, active, around)

    def make(name: str) -> tuple[Builder, list[Any], list[Any]]:
        builder = Builder(name, locations=False)
        state = [builder.input(None, v.type) for v in body.inputs[:carries]]
        tangents = [builder.input(None, body.inputs[i].type) for i in around]
        state += [builder.input(None, v.type) for v in body.inputs[carries:]]
        tangents += [builder.input(None, body.inputs[i].type) for i in active[len(around) :]]
        return builder, state, tangents

    builder, inputs, tangents = make(f"{body.name}.jvp")
    step = builder.finish(inline(push, [*inputs, *tangents], inputs[0]))
    builder, inputs, _ = make(condition.name)
    return builder.finish(inline(condition, inputs, inputs[0])), step


def _pull_vjp(ct: Sequence[Any], operands: Sequence[Any], wanted: tuple[int, ...], attrs: Mapping[str, Any]) -> Sequence[Any]:
    """For cotangents u of the results, u * results is the final cotangents times the final tangents of the loop whose initial
    tangents are u: so the derivatives of that loop are wanted."""
    condition, body, carries, active = (attrs[name] for name in ("condition", "body", "carries", "active"))
    count = len(body.inputs)
    around = [i for i in active if i < carries]
    pushed, step = _with_tangents(condition, body, carries, active)
    tangents = seeds(ct, range(len(active)), [body.inputs[i].type for i in active], operands[0])
    inputs = [*operands[:carries], *tangents[: len(around)], *operands[carries:count], *tangents[len(around) :]]
    loop = {"condition": pushed, "body": step, "carries": carries + len(around)}
    known: dict[int, Any] = {}
    if any(i >= count for i in wanted):
        known = dict(zip(range(count, len(operands)), while_loop(*inputs, **loop)[carries:]))
    places = {i: i if i < carries else i + len(around) for i in wanted if i < count}
    if places:
        cts = [*(None for _ in range(carries)), *operands[count:]]
        known |= zip(places, _while_vjp(cts, inputs, tuple(places.values()), loop))
    return tuple(known[i] for i in wanted)


def _pull_batch(size: Size, batched: tuple[bool, ...], *operands: Any, condition: Graph, body: Graph, carries: int,
                backward: Graph, active: tuple[int, ...]) -> Any:
    count = len(body.inputs)
    flags = (True,) * count
    truth, step = _batched_loop(condition, body, carries, size, flags)
    back, _ = _while_backward(step, carries, active)
    given = [stack_operand(x, size, own) for x, own in zip(operands, batched)]
    return while_loop_vjp(*given, condition=truth, body=step, carries=carries, backward=back, active=active)


_n = TensorType(int64, ())
_v = TensorType(float64, (3,))


def _condition(*types: TensorType, counter: int) -> Graph:
    return sample_graph("condition", types, lambda *values: [lt(values[counter], 4)])


_LOOP = {"condition": _condition(_v, _n, _v, counter=1), "carries": 2,
         "body": sample_graph("body", (_v, _n, _v), lambda x, i, k: [x * k, i + 1])}
_TURNED = {"condition": _condition(_n, _v, _v, counter=0), "carries": 2,
           "body": sample_graph("body", (_n, _v, _v), lambda i, x, k: [i + 1, x * k])}
_ZERO = np.zeros((), np.int64)

while_loop = op(
    "while_loop", "*operands", "condition body carries", infer=_while_infer, ref=_while_ref, kernel="control",
    nanoseconds=100, costly=True, vjp=_while_vjp, batch=_while_batch,
    samples=(Sample((_v, _ZERO, _v), _LOOP, 0.5, 1.5), Sample((_ZERO, _v, _v), _TURNED, 0.5, 1.5)),
)
"""The body over and over, as long as the condition holds: both take the carries and the other operands, and the body
returns the next carries."""

while_loop_vjp = op(
    "while_loop_vjp", "*operands", "condition body carries backward active", infer=_pull_infer, ref=_pull_ref,
    kernel="control", nanoseconds=100, costly=True, vjp=_pull_vjp, batch=_pull_batch,
    samples=(
        Sample((_v, _ZERO, _v, _v), {
            **_LOOP, "active": (0, 2), "backward": sample_graph(
                "backward", (_v, _n, _v, _v, _v), lambda x, i, k, ct, total: [ct * k, total + ct * x])}, 0.5, 1.5),
        Sample((_ZERO, _v, _v, _v), {
            **_TURNED, "active": (1, 2), "backward": sample_graph(
                "backward", (_n, _v, _v, _v, _v), lambda i, x, k, ct, total: [ct * k, total + ct * x])}, 0.5, 1.5),
    ))  # fmt: skip
"""The cotangents of the `active` inputs of a loop's body: those of carries, given the final ones behind the operands of
the loop, and those of captured operands. `backward` is one step back; it takes what the body takes, the cotangents of the
active carries and the sums so far for the captured operands."""
