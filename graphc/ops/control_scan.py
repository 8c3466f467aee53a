"""scan: a step for each row of some operands, carrying values along."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ShapeError
from graphc.ir import Builder, Graph, inline, with_inputs
from graphc.op import Sample, op
from graphc.ops.control import (
    active_inputs,
    autodiff,
    batch_of_loop,
    check_graph_inputs,
    listed,
    result_types,
    run_graph,
    sample_graph,
    seeds,
)
from graphc.ops.creation import zeros_like
from graphc.ops.elementwise import tanh
from graphc.ops.movement import permute, stack_operand
from graphc.ops.step_sums import StepSums
from graphc.types import Size, TensorType, float64


def _scan_infer(*operands: TensorType, body: Graph, carries: int, scanned: int, length: Size,
                reverse: bool) -> tuple[TensorType, ...]:
    if not 0 <= carries <= carries + scanned <= len(operands) or (isinstance(length, int) and length < 0):
        raise GraphcError("scan: there are not so many operands", got=f"{len(operands)} operands",
                          expected=f"{carries} carries, {scanned} to scan {length} times, and what is the same for all steps")
    for x in operands[carries : carries + scanned]:
        if not x.shape or x.shape[0] != length:
            raise ShapeError("scan: an operand has another length", expected=f"dimension 0 of size {length}", got=str(x))
    steps = [x.with_shape(x.shape[1:]) for x in operands[carries : carries + scanned]]
    check_graph_inputs("scan", "the body", body, [*operands[:carries], *steps, *operands[carries + scanned :]])
    results = result_types(body)
    if results[:carries] != operands[:carries]:
        raise ShapeError("scan: the body returns other carries than it takes", expected=listed(operands[:carries]),
                         got=listed(results[:carries]))
    return (*results[:carries], *(y.with_shape((length, *y.shape)) for y in results[carries:]))


def _scan_ref(*operands: np.ndarray, body: Graph, carries: int, scanned: int, length: int,
              reverse: bool) -> tuple[np.ndarray, ...]:
    state, xs, same = operands[:carries], operands[carries : carries + scanned], operands[carries + scanned :]
    types = [value.type for value in body.outputs[carries:]]
    ys = [np.empty((length, *(x if isinstance(x, int) else 0 for x in t.shape)), t.dtype.numpy) for t in types]
    for k in range(length):
        at = length - 1 - k if reverse else k
        results = run_graph(body, [*state, *(x[at] for x in xs), *same])
        state = tuple(results[:carries])
        if k == 0:
            ys = [np.empty((length, *y.shape), y.dtype) for y in results[carries:]]
        for y, value in zip(ys, results[carries:]):
            y[at] = value
    return (*map(np.copy, state), *ys)


@dataclass(frozen=True)
class _Backward:
    """One step backwards."""

    augmented: Graph
    """The body, with all that the step needs of it among its outputs."""
    step: Graph
    """Carries: cotangents of the `active` carries, sums for the captured operands that are not `late`. Scanned: `results`,
    `scanned`, cotangents of outputs. Then `same`. Outputs behind the carries: cotangents of what is scanned, and what the
    sums are made of that are taken late."""
    active: tuple[int, ...]
    results: tuple[int, ...]
    """Outputs of the augmented body."""
    scanned: tuple[int, ...]
    same: tuple[int, ...]
    late: tuple[int, ...]
    """The active captured operands whose cotangents are summed up when all steps are done."""
    sums: Graph
    """From what the sums are made of to the sums."""
    sources: tuple[int, ...]
    """What they are made of: inputs of the step, counted from the first that is scanned; -1 - j for its output j."""


@functools.lru_cache(maxsize=256)
def _scan_backward(
    body: Graph, carries: int, scanned: int, length: Size, wanted: tuple[int, ...], seeded: tuple[int, ...]
) -> _Backward:
    """`seeded` are outputs behind the carries."""
    used = {*body.outputs, *(v for node in body.nodes for v in node.operands)}
    active = active_inputs(body, carries, [i for i in wanted if i < carries or body.inputs[i] in used])
    around = tuple(i for i in active if i < carries)
    xs = tuple(i for i in active if carries <= i < carries + scanned)
    same = tuple(i for i in active if i >= carries + scanned)
    forward, backward, kept, taken = autodiff().split_vjp(
        body, active, (*around, *seeded), steady=range(carries + scanned, len(body.inputs)))
    outputs = list(forward.outputs)
    stacked: list[int] = []  # outputs, of those that the step takes first
    for value in (*(forward.outputs[j] for j in kept), *(forward.inputs[i] for i in taken if i < carries)):
        if value not in outputs[carries:]:
            outputs.append(value)
        stacked.append(outputs.index(value, carries))
    augmented = Graph(body.name, forward.inputs, forward.nodes, outputs)
    scanned_too = tuple(i for i in taken if carries <= i < carries + scanned)
    fixed = tuple(i for i in taken if i >= carries + scanned)

    builder = Builder(f"{body.name}.backward", locations=False)
    cts = [builder.input(None, body.inputs[i].type) for i in around]
    totals = {i: builder.input(None, body.inputs[i].type) for i in same}
    rows = [builder.input(None, outputs[j].type) for j in stacked]
    taken_rows = rows[len(kept) :]
    of_inputs = {i: builder.input(None, body.inputs[i].type) for i in scanned_too}
    of_outputs = [builder.input(None, body.outputs[j].type) for j in seeded]
    rows += [*of_inputs.values(), *of_outputs]
    of_inputs |= {i: builder.input(None, body.inputs[i].type) for i in fixed}
    steady = [of_inputs[i] for i in fixed]
    of_inputs |= dict(zip((i for i in taken if i < carries), taken_rows))
    values = [*rows[: len(kept)], *(of_inputs[i] for i in taken), *cts, *of_outputs]
    given = dict(zip(active, inline(backward, values, values[-1])))
    sums = StepSums(body.name, length, rows, steady, [given[i] for i in same])
    late = tuple(i for i in same if given[i] in sums)
    early = [i for i in same if i not in late]
    results = [*(given[i] for i in around), *(totals[i] + given[i] for i in early), *(given[i] for i in xs)]
    first = len(around) + len(early)
    results += [x for x in sums.sources if x not in rows and x not in results[first:]]
    step = builder.finish(results)
    unused = {totals[i].index for i in late}
    left_inputs = [v for v in step.inputs if v.index not in unused]
    step = with_inputs(step, [v.type for v in left_inputs], {v.index: k for k, v in enumerate(left_inputs)})
    return _Backward(augmented, step, active, tuple(stacked), scanned_too, fixed, late, sums.graph([given[i] for i in late]),
                     tuple(rows.index(x) if x in rows else -1 - results.index(x, first) for x in sums.sources))


def saving(body: Graph, carries: int, scanned: int) -> Graph:
    """The body of a scan with more outputs: what derivatives by any of its inputs need of each step."""
    wanted = tuple(i for i, value in enumerate(body.inputs) if value.dtype.is_differentiable)
    seeded = tuple(j for j, value in enumerate(body.outputs) if j >= carries and value.dtype.is_differentiable)
    return _scan_backward(body, carries, scanned, 1, wanted, seeded).augmented if wanted else body


def _scan_vjp(ct: Sequence[Any], operands: Sequence[Any], out: Sequence[Any], wanted: tuple[int, ...],
              attrs: Mapping[str, Any]) -> Sequence[Any]:
    """A scan the other way, over what the steps have left; where they have not left enough, they run once more."""
    body, carries, scanned, length = (attrs[name] for name in ("body", "carries", "scanned", "length"))
    seeded = tuple(j for j, c in enumerate(ct) if c is not None and j >= carries)
    back = _scan_backward(body, carries, scanned, length, wanted, seeded)
    if len(back.augmented.outputs) > len(body.outputs):
        out = scan(*operands, **{**attrs, "body": back.augmented})
    around = [i for i in back.active if i < carries]
    same = [i for i in back.active if i >= carries + scanned and i not in back.late]
    xs = [i for i in back.active if carries <= i < carries + scanned]
    like = operands[0]
    types = result_types(body)
    step_inputs = [
        *(out[j] for j in back.results), *(operands[i] for i in back.scanned), *(ct[j] for j in seeded),
    ]
    results = scan(
        *seeds(ct, around, types, like), *(zeros_like(operands[i]) for i in same), *step_inputs,
        *(operands[i] for i in back.same),
        body=back.step, carries=len(around) + len(same), scanned=len(step_inputs), length=length, reverse=not attrs["reverse"],
    )  # fmt: skip
    given = dict(zip((*around, *same, *xs), results))
    given |= {i: zeros_like(operands[i]) for i in wanted if i not in back.active}
    if back.late:
        sources = [step_inputs[k] if k >= 0 else results[-1 - k] for k in back.sources]
        given |= zip(back.late, inline(back.sums, sources, like))
    return tuple(given[i] for i in wanted)


def _to_time(x: Any) -> Any:
    """Dimensions 0 and 1 exchanged: a batch of sequences is scanned as a sequence of batches, and the other way."""
    return permute(x, (1, 0, *range(2, len(x.shape))))


def _scan_batch(size: Size, batched: tuple[bool, ...], *operands: Any, body: Graph, carries: int, scanned: int, length: Size,
                reverse: bool) -> Any:
    batch = batch_of_loop(body, size, carries, batched)
    outputs = [*batch.flags[:carries], *(True for _ in body.outputs[carries:])]
    given = [
        _to_time(x) if own and carries <= i < carries + scanned else stack_operand(x, size, own) if to else x
        for i, (x, own, to) in enumerate(zip(operands, batched, batch.flags))
    ]
    results = scan(*given, body=batch.graph(body, outputs), carries=carries, scanned=scanned, length=length, reverse=reverse)
    return tuple(
        (stack_operand(r, size, outputs[j]) if j < carries else _to_time(r)) for j, r in enumerate(results)
    )


_s = TensorType(float64, ())
_v = TensorType(float64, (3,))
_m = TensorType(float64, (4, 3))

scan = op(
    "scan", "*operands", "body carries scanned length reverse", infer=_scan_infer, ref=_scan_ref, kernel="control",
    nanoseconds=100, costly=True, vjp=_scan_vjp, batch=_scan_batch,
    samples=(
        Sample((_v, _s, _m, _v), {
            "body": sample_graph("step", (_v, _s, _v, _v), lambda h, t, x, w: [tanh(h * w + x), tanh(t) * 0.5, h * x]),
            "carries": 2, "scanned": 1, "length": 4, "reverse": False}),
        Sample((_m, _m), {
            "body": sample_graph("step", (_v, _v), lambda x, y: [x * y, tanh(x)]),
            "carries": 0, "scanned": 2, "length": 4, "reverse": True}),
        Sample((_v, _v, _m, _v), {
            "body": sample_graph("step", (_v, _v, _v, _v), lambda a, b, x, w: [b, a * w + x]),
            "carries": 2, "scanned": 1, "length": 4, "reverse": True}),
    ))  # fmt: skip
"""The body over and over: it takes carries, a row of each scanned operand, and the other operands; it returns the next
carries, and rows of further results. With `reverse`, from the last row to the first."""
