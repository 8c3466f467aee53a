"""Control flow: ops whose attributes are graphs, which they run once, many times or not at all.

A graph that is an attribute takes all that it needs as inputs: what a function captured has become operands. Derivatives
and batches of these ops are the same ops with other graphs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Builder, Graph, inline
from graphc.op import Sample, op
from graphc.ops.creation import full
from graphc.ops.elementwise import mul, sub, tanh, where
from graphc.ops.movement import reshape
from graphc.types import Size, TensorType, bool_, float64

Types = Sequence[TensorType]


def check_graph_inputs(name: str, what: str, graph: Graph, types: Types) -> None:
    own = [value.type for value in graph.inputs]
    if own != list(types):
        raise ShapeError(f"{name}: the inputs of {what} are not what it is given", expected=listed(types), got=listed(own))


def listed(types: Types) -> str:
    return ", ".join(map(str, types)) or "nothing"


def result_types(graph: Graph) -> tuple[TensorType, ...]:
    return tuple(value.type for value in graph.outputs)


# What is done to graphs stands above the ops that graphs are made of: it is imported when it is needed.


def run_graph(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph, by the definitions of its ops."""
    from graphc.interpret import interpret

    return interpret(graph, arrays)


def autodiff() -> Any:
    """The derivatives of graphs."""
    import graphc.autodiff

    return graphc.autodiff


def batching() -> Any:
    """Graphs for batches."""
    import graphc.batching

    return graphc.batching


@functools.lru_cache(maxsize=256)
def vjp_of(graph: Graph, wanted: tuple[int, ...], seeded: tuple[int, ...]) -> Graph:
    """`vjp_graph`, made once."""
    return autodiff().vjp_graph(graph, wanted, seeded)


def active_inputs(body: Graph, carries: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """The inputs of a loop's body to differentiate by: those that are wanted, and the carries that come to depend on them."""
    active = set(wanted)
    while True:
        reached = autodiff().dependents(body.nodes, [body.inputs[i] for i in active])
        more = {i for i in range(carries) if body.outputs[i] in reached} - active
        if not more:
            return tuple(sorted(active))
        active |= more


def seeds(ct: Sequence[Any], numbers: Sequence[int], types: Types, like: Any) -> list[Any]:
    """The cotangents of some results, zeros for those that have none."""
    return [full(types[j], 0, like) if ct[j] is None else ct[j] for j in numbers]


@dataclass(frozen=True)
class LoopBatch:
    """Which inputs of a loop's body have the batch."""

    size: Size
    flags: tuple[bool, ...]

    def graph(self, graph: Graph, outputs: Sequence[bool]) -> Graph:
        return batching().batch_graph(graph, self.size, self.flags, outputs)


def batch_of_loop(body: Graph, size: Size, carries: int, batched: Sequence[bool], all_carries: bool = False) -> LoopBatch:
    """A carry that has no batch at first may come to have one."""
    flags = [own or (all_carries and i < carries) for i, own in enumerate(batched)]
    while True:
        now = [own or (i < carries and given) for i, (own, given) in enumerate(
            zip(flags, [*batching().batched_outputs(body, flags)[:carries], *(False for _ in flags[carries:])]))]
        if now == flags:
            return LoopBatch(size, tuple(flags))
        flags = now


# cond


def _cond_infer(pred: TensorType, *operands: TensorType, then: Graph, otherwise: Graph) -> tuple[TensorType, ...]:
    if pred.dtype is not bool_ or pred.shape != ():
        raise ShapeError("cond: the predicate is not one bool", expected="bool[]", got=str(pred))
    check_graph_inputs("cond", "`then`", then, operands)
    check_graph_inputs("cond", "`otherwise`", otherwise, operands)
    if result_types(then) != result_types(otherwise):
        raise ShapeError("cond: the branches differ in what they return", expected=listed(result_types(then)),
                         got=listed(result_types(otherwise)))
    return result_types(then)


def _cond_ref(pred: np.ndarray, *operands: np.ndarray, then: Graph, otherwise: Graph) -> tuple[np.ndarray, ...]:
    return tuple(run_graph(then if pred else otherwise, operands))


def saving_branches(then: Graph, otherwise: Graph) -> tuple[Graph, Graph]:
    """The branches with more outputs: what derivatives by any of their inputs need besides the inputs. Each output stands for
    something that one branch leaves, and something of the same type from the other, or zeros."""
    wanted = tuple(i for i, value in enumerate(then.inputs) if value.dtype.is_differentiable)
    seeded = tuple(j for j, value in enumerate(then.outputs) if value.dtype.is_differentiable)
    if not wanted or not seeded:
        return then, otherwise
    count = len(then.outputs)
    forwards = [autodiff().split_vjp(branch, wanted, seeded)[0] for branch in (then, otherwise)]
    left = [[value.type for value in forward.outputs[count:]] for forward in forwards]
    types = list(left[0])
    for type_ in set(left[1]):
        types += [type_] * (left[1].count(type_) - left[0].count(type_))
    return _leaving(forwards[0], count, types), _leaving(forwards[1], count, types)


def _leaving(forward: Graph, count: int, types: Sequence[TensorType]) -> Graph:
    """The graph with its outputs from `count` on in the places that the types have for them, and zeros in the others."""
    builder = Builder(forward.name, locations=False)
    inputs = [builder.input(v.name, v.type, **v.info) for v in forward.inputs]
    outputs = inline(forward, inputs, inputs[0])
    rest = outputs[count:]
    placed = []
    for type_ in types:
        found = next((k for k, value in enumerate(rest) if value.type == type_), None)
        placed.append(full(type_, 0, inputs[0]) if found is None else rest.pop(found))
    return builder.finish([*outputs[:count], *placed])


@functools.lru_cache(maxsize=256)
def _branches_back(
    then: Graph, otherwise: Graph, wanted: tuple[int, ...], seeded: tuple[int, ...]
) -> tuple[list[int], list[int], list[Graph]] | None:
    """The branches of the backward pass, the numbers of the results that they take, and those of the operands; the cotangents
    come last. None where the branches do not return what is needed."""
    splits = [autodiff().split_vjp(branch, wanted, seeded) for branch in (then, otherwise)]
    if any(len(forward.outputs) > len(then.outputs) for forward, *_ in splits):
        return None
    results, inputs = (sorted({i for split in splits for i in split[place]}) for place in (2, 3))
    graphs = []
    for branch, (_, backward, kept, taken) in zip((then, otherwise), splits):
        builder = Builder(f"{branch.name}.backward", locations=False)
        of_results = {j: builder.input(None, branch.outputs[j].type) for j in results}
        of_inputs = {i: builder.input(None, branch.inputs[i].type) for i in inputs}
        cts = [builder.input(None, branch.outputs[j].type) for j in seeded]
        values = [*(of_results[j] for j in kept), *(of_inputs[i] for i in taken), *cts]
        graphs.append(builder.finish(inline(backward, values, cts[0])))
    return results, inputs, graphs


def _cond_vjp(ct: Sequence[Any], operands: Sequence[Any], out: Sequence[Any], wanted: tuple[int, ...],
              attrs: Mapping[str, Any]) -> Sequence[Any]:
    """A branch back for each branch; one that has not left what is needed runs again."""
    seeded = tuple(j for j, c in enumerate(ct) if c is not None)
    cts = [ct[j] for j in seeded]
    places = tuple(i - 1 for i in wanted)
    back = _branches_back(attrs["then"], attrs["otherwise"], places, seeded)
    if back is None:
        graphs = {name: vjp_of(graph, places, seeded) for name, graph in attrs.items()}
        return cond(*operands, *cts, **graphs)
    results, inputs, branches = back
    taken = [*(out[j] for j in results), *(operands[1 + i] for i in inputs)]
    return cond(operands[0], *taken, *cts, then=branches[0], otherwise=branches[1])


def _cond_batch(size: Size, batched: tuple[bool, ...], pred: Any, *operands: Any, then: Graph, otherwise: Graph) -> Any:
    own = batched[1:]
    branches = [batching().batch_graph(branch, size, own, [True] * len(branch.outputs)) for branch in (then, otherwise)]
    if not batched[0]:
        return cond(pred, *operands, then=branches[0], otherwise=branches[1])
    taken, other = (inline(branch, operands, pred) for branch in branches)
    return tuple(where(reshape(pred, (size, *(1,) * (len(a.shape) - 1))), a, b) for a, b in zip(taken, other))


def sample_graph(name: str, types: Types, make: Any) -> Graph:
    builder = Builder(name, locations=False)
    return builder.finish(make(*(builder.input(None, type_) for type_ in types)))


_v = TensorType(float64, (3,))

cond = op(
    "cond", "pred *operands", "then otherwise", infer=_cond_infer, ref=_cond_ref, kernel="control", nanoseconds=100,
    vjp=(None, _cond_vjp), batch=_cond_batch,
    samples=tuple(
        Sample((np.array(truth), _v, _v), {
            "then": sample_graph("then", (_v, _v), lambda x, y: [mul(x, y), y]),
            "otherwise": sample_graph("otherwise", (_v, _v), lambda x, y: [tanh(x), sub(x, y)]),
        }) for truth in (True, False)
    ))  # fmt: skip
"""The results of `then` where the predicate is true, of `otherwise` where not; both take all of the other operands."""
