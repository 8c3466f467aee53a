"""Reverse-mode differentiation, as a transformation of graphs.

The same rules as the tape's: each op's record says how the cotangent of its result becomes those of its operands. What
comes out is a graph like any other, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import graphc.ops as ops
from graphc.ir import Builder, Graph, Node, Value, copy_node, inline
from graphc.op import apply_joint, apply_vjp, vjp_rule
from graphc.passes.attention import attention
from graphc.passes.cse import cse
from graphc.passes.prune import prune
from graphc.passes.simplify import simplify
from graphc.recompute import chain, current_budget, kept

_MOST_AGAIN = 30.0
"""Nanoseconds that a vector of numbers may take to be computed again for the backward pass."""
_SMALLER = 4
"""How many times smaller than what it is made of a value is that is kept at no cost."""


def pullback(
    builder: Builder,
    outputs: Sequence[Value],
    cotangents: Sequence[Value],
    inputs: Sequence[Value],
    nodes: Sequence[Node] | None = None,
) -> list[Value | None]:
    """Append the nodes of a backward pass: the cotangents of `inputs`, given those of `outputs`.

    All values belong to `builder`. Every operation between inputs and outputs is differentiated, none twice: those of the
    builder's nodes, or `nodes` in their place. None stands for an input that the outputs do not depend on in a
    differentiable way.
    """
    nodes = list(builder.nodes) if nodes is None else nodes
    wanted = dependents(nodes, inputs)
    known: dict[Value, Value] = {}

    def add(value: Value, cotangent: Value) -> None:
        cotangent = match(cotangent, value)
        known[value] = known[value] + cotangent if value in known else cotangent

    for output, seed in zip(outputs, cotangents, strict=True):
        if output in wanted:
            add(output, seed)
    for node in reversed(nodes):
        if not any(result in known for result in node.results):
            continue
        builder.location = node.location
        joint = node.op.joint_vjp
        if joint is not None:
            reached = tuple(i for i, v in enumerate(node.operands) if v in wanted and vjp_rule(node.op, i) is not None)
            cts = [known.get(result) for result in node.results]
            for i, given in zip(reached, apply_joint(joint, cts, node.operands, node.results, reached, node.attrs)):
                add(node.operands[i], given)
            continue
        single = len(node.results) == 1
        cotangent = known[node.result] if single else tuple(known.get(result) for result in node.results)
        result = node.result if single else node.results
        types = tuple(v.type for v in node.operands)
        for i, operand in enumerate(node.operands):
            if operand in wanted and vjp_rule(node.op, i) is not None:
                given = apply_vjp(node.op, i, cotangent, node.operands, types, result, node.attrs)
                if given is not None:
                    add(operand, given)
    builder.location = None
    return [known.get(value) for value in inputs]


def match(cotangent: Value, value: Value) -> Value:
    """A cotangent in the type of its value: broadcasting is summed out, promotion undone."""
    if cotangent.shape != value.shape:
        cotangent = ops.unbroadcast(cotangent, value.shape)
    return cotangent if cotangent.dtype is value.dtype else ops.cast(cotangent, value.dtype)


def dependents(nodes: Iterable[Node], inputs: Sequence[Value]) -> set[Value]:
    """The results of nodes, in their order, that depend on `inputs` in a differentiable way; and the inputs themselves."""
    wanted = {value for value in inputs if value.dtype.is_differentiable}
    for node in nodes:
        if any(v in wanted and vjp_rule(node.op, i) is not None for i, v in enumerate(node.operands)):
            wanted.update(r for r in node.results if r.dtype.is_differentiable)
    return wanted


def vjp_graph(graph: Graph, wanted: Sequence[int] | None = None, seeded: Sequence[int] | None = None) -> Graph:
    """The graph of the vector-Jacobian product: from the inputs and the outputs' cotangents to the inputs' cotangents.

    wanted
        Numbers of the inputs to differentiate by; all that are floating point by default. An input that the outputs do
        not depend on gets zeros.
    seeded
        Numbers of the outputs that have cotangents; all that are floating point by default.

    Inputs of the result: those of `graph`, then a cotangent for each seeded output. Outputs: a cotangent for each
    wanted input.
    """
    wanted = [i for i, v in enumerate(graph.inputs) if v.dtype.is_differentiable] if wanted is None else wanted
    seeded = [j for j, v in enumerate(graph.outputs) if v.dtype.is_differentiable] if seeded is None else seeded
    builder, inputs, outputs = _copy(graph, f"{graph.name}.vjp")
    cotangents = [builder.input(None, graph.outputs[j].type) for j in seeded]
    found = pullback(builder, [outputs[j] for j in seeded], cotangents, [inputs[i] for i in wanted])
    return builder.finish(ops.zeros_like(inputs[i]) if ct is None else ct for i, ct in zip(wanted, found))


def jvp_graph(graph: Graph, wanted: Sequence[int], pushed: Sequence[int]) -> Graph:
    """The graph of the Jacobian-vector product: from the inputs, and tangents of the `wanted` ones, to the outputs, and the
    tangents of those in `pushed`.

    The cotangents of the inputs depend on those of the outputs linearly: the cotangents of these are the tangents.
    """
    backward = vjp_graph(graph, wanted, pushed)
    seeds = range(len(graph.inputs), len(backward.inputs))
    twice = vjp_graph(backward, seeds, range(len(wanted)))
    builder = Builder(f"{graph.name}.jvp", locations=False)
    inputs = [builder.input(v.name, v.type, **v.info) for v in graph.inputs]
    tangents = [builder.input(None, graph.inputs[i].type) for i in wanted]
    like = tangents[0]
    outputs = inline(graph, inputs, like)
    zeros = [ops.full(graph.outputs[j].type, 0, like) for j in pushed]
    found = inline(twice, [*inputs, *zeros, *tangents], like)
    return prune(builder.finish([*outputs, *found]))


def _copy(graph: Graph, name: str) -> tuple[Builder, list[Value], list[Value]]:
    """A builder that holds a copy of the graph, with the copies of its inputs and outputs."""
    builder = Builder(name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    for node in graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder, [new[v] for v in graph.inputs], [new[v] for v in graph.outputs]


def split_vjp(
    graph: Graph, wanted: Sequence[int], seeded: Sequence[int], steady: Collection[int] = ()
) -> tuple[Graph, Graph, list[int], list[int]]:
    """Forward and backward graphs of `vjp_graph` that share what the forward has computed already: see `partition`. Inputs with
    numbers in `steady` are the same each time that the graph is run, and what it keeps is kept each time."""
    builder, inputs, outputs = _copy(graph, graph.name)
    forward = len(builder.nodes)
    cotangents = [builder.input(None, graph.outputs[j].type) for j in seeded]
    found = pullback(builder, [outputs[j] for j in seeded], cotangents, [inputs[i] for i in wanted])
    results = [ops.zeros_like(inputs[i]) if ct is None else ct for i, ct in zip(wanted, found)]
    return partition(builder, forward, inputs, outputs, cotangents, results, len(outputs), steady=steady)


def partition(
    builder: Builder,
    forward: int,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    cotangents: Sequence[Value],
    results: Sequence[Value],
    lasting: int,
    changed: Collection[int] = (),
    steady: Collection[int] = (),
) -> tuple[Graph, Graph, list[int], list[int]]:
    """Cut what has been built into two graphs: the first `forward` nodes, and the rest.

    The forward graph takes `inputs` and returns `outputs`, then what the backward needs besides. The backward graph takes
    outputs of the forward graph (their numbers are the third result), those of `inputs` that it needs itself (their
    numbers are the fourth), and `cotangents`; it returns `results`. Of `outputs` the first `lasting` ones may be kept
    for the backward as they are; inputs with numbers in `changed` will be something else by then.
    """
    ahead, behind = builder.nodes[:forward], builder.nodes[forward:]
    returned, backward_graph, kept, taken = divide(
        builder.name, Joint(ahead, behind, inputs, outputs, cotangents, results), lasting, changed, steady=steady
    )
    builder.abandon()
    return extract(builder.name, inputs, ahead, returned), backward_graph, kept, taken


class Joint(NamedTuple):
    """A forward and a backward pass: the nodes of each, and where they begin and end."""

    ahead: Sequence[Node]
    behind: Sequence[Node]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    cotangents: Sequence[Value]
    results: Sequence[Value]


def with_attention(name: str, joint: Joint) -> Joint | None:
    """The passes with ops of their own for attention and its derivative, which are to be recognised before the two are parted;
    None where there is none."""
    if not {node.op for node in joint.ahead}.issuperset((ops.matmul, ops.exp, ops.amax, ops.div)):
        return None  # there is no softmax
    ends = (*joint.outputs, *joint.results)
    graph = extract(name, (*joint.inputs, *joint.cotangents), (*joint.ahead, *joint.behind), ends)
    graph = attention(cse(simplify(graph)))
    if not any(node.op is ops.attention_backward for node in graph.nodes):
        return None
    count, outputs = len(joint.inputs), graph.outputs[: len(joint.outputs)]
    live = {value.node for value in outputs}
    for node in reversed(graph.nodes):
        if node in live:
            live.update(value.node for value in node.operands)
    ahead, behind = ([node for node in graph.nodes if (node in live) == first] for first in (True, False))
    return Joint(ahead, behind, graph.inputs[:count], outputs, graph.inputs[count:], graph.outputs[len(outputs) :])


def divide(
    name: str, joint: Joint, lasting: int, changed: Collection[int] = (), again: bool = True, steady: Collection[int] = ()
) -> tuple[list[Value], Graph, list[int], list[int]]:
    """`partition`, but for the forward graph: the values that it is to return come in its place. Unless `again`, what the
    forward makes of its inputs is carried over, all that the backward takes."""
    ahead, behind, inputs, outputs, cotangents, results = joint
    known = {value: j for j, value in reversed(list(enumerate(outputs[:lasting])))}
    lost = {inputs[i] for i in changed}
    remade = _remade(ahead, [v for v in inputs if again and v not in lost], set(known), {inputs[i] for i in steady})
    made_again = {r for node in remade for r in node.results}
    live = set(results)
    for node in reversed([*remade, *behind]):
        if any(r in live for r in node.results):
            live.update(node.operands)
    residuals = [r for node in ahead for r in node.results if r in live and r not in made_again]
    residuals += [value for value in inputs if value in live and value in lost]
    budget = current_budget()
    if budget is not None:
        saved = kept(residuals, {*known, *lost}, {v for v in inputs if v not in lost}, budget)
        reachable = {*saved, *(v for v in inputs if v not in lost)}
        remade = _ordered(ahead, chain([r for r in (*residuals, *(live & made_again)) if r not in saved], reachable) or ())
        residuals = [r for r in residuals if r in saved]
        for node in remade:
            live.update(node.operands)
    taken = [i for i, value in enumerate(inputs) if value in live and value not in lost]
    returned = [*outputs, *(r for r in residuals if r not in known)]
    known |= {value: j for j, value in enumerate(returned) if j >= len(outputs)}
    given = [*residuals, *(inputs[i] for i in taken), *cotangents]
    backward_graph = extract(f"{name}.backward", given, [*remade, *behind], results)
    return returned, backward_graph, [known[r] for r in residuals], taken


def _ordered(nodes: Sequence[Node], chosen: Collection[Node]) -> list[Node]:
    wanted = set(chosen)
    return [node for node in nodes if node in wanted]


def _remade(nodes: Sequence[Node], inputs: Sequence[Value], kept: set[Value], steady: set[Value]) -> list[Node]:
    """The nodes that a backward pass computes again rather than have their results carried over: constants, counters, and
    what is made element by element, in little time, of the inputs and of what is much smaller, such as sums over rows. It
    takes more time to write and read memory."""
    nanoseconds = dict.fromkeys(inputs, 0.0)
    remade = []
    for node in nodes:
        if node.operands and steady.issuperset(node.operands):
            steady.update(node.results)
        easy = node.op.pointwise or node.op.only_moves or not node.operands
        if easy and not any(r in kept for r in node.results) and all(v in nanoseconds for v in node.operands):
            total = sum(nanoseconds[v] for v in dict.fromkeys(node.operands)) + node.op.nanoseconds
            if total <= _MOST_AGAIN:
                remade.append(node)
                nanoseconds |= dict.fromkeys(node.results, total)
        elif _shrinks(node, steady):
            nanoseconds |= dict.fromkeys(node.results, 0.0)
    return remade


def _shrinks(node: Node, steady: set[Value]) -> bool:
    """Whether results are so small beside the operands that it costs nothing to keep them. A part of something is not: what is
    made of it is as large."""
    if node.op.only_moves or not all(v.type.is_static for v in (*node.operands, *node.results)):
        return False
    largest = max((v.type.size for v in node.operands if v not in steady), default=0)
    return _SMALLER * max(r.type.size for r in node.results) <= largest


def extract(name: str, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value]) -> Graph:
    """A graph of its own from some nodes of another; what leads to no output is left out."""
    live = set(outputs)
    for node in reversed(nodes):
        if any(r in live for r in node.results):
            live.update(node.operands)
    builder = Builder(name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in inputs}
    for node in nodes:
        if any(r in live for r in node.results):
            new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in outputs])
