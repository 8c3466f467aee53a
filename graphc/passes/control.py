"""Control flow that is known, or computes what nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphc.ops as ops
from graphc.ir import Builder, Graph, Node, Value, inline, rebuild, with_inputs
from graphc.passes.prune import prune
from graphc.rewrite import scalar_constant


def control(graph: Graph) -> Graph:
    """Put the branch in the place of a `cond` whose predicate is constant, and the step in that of a scan of length 1; drop
    scans of length 0; drop results, carried values and operands that nothing depends on, and carry nothing along that stays
    the same. Of two scans that differ in that one returns more than the other, the other is dropped."""
    graph = _share(graph)
    while any(node.op.name in _RULES for node in graph.nodes):
        uses = graph.uses()
        changed: list[Node] = []

        def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
            rule = _RULES.get(node.op.name)
            results = rule(node, operands, [uses[r] > 0 for r in node.results]) if rule and operands else None  # noqa: B023
            if results is not None:
                changed.append(node)  # noqa: B023
            return results

        after = rebuild(graph, visit)
        if not changed:
            return graph
        graph = prune(after)
    return graph


def _share(graph: Graph) -> Graph:
    """Take the results of a scan from another one that returns them, too: derivatives of higher order make such."""
    groups: dict[Any, list[Node]] = {}
    for node in graph.nodes:
        if node.op is ops.scan:
            attrs = (node.attrs[name] for name in ("carries", "scanned", "length", "reverse"))
            groups.setdefault((node.operands, *attrs), []).append(node)
    larger: dict[Node, Node] = {}
    for nodes in groups.values():
        most = max(nodes, key=lambda node: len(node.results))
        smaller = [n for n in nodes if n is not most and _returns(most.attrs["body"], n.attrs["body"])]
        larger.update((n, most) for n in (smaller and [*smaller, most]))
    made: dict[Node, Sequence[Value]] = {}

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        if node not in larger:
            return None
        most = larger[node]
        if most not in made:
            made[most] = ops.scan(*operands, **most.attrs)
        return made[most][: len(node.results)]

    return rebuild(graph, visit) if larger else graph


def _returns(body: Graph, other: Graph) -> bool:
    """Whether the first outputs of a body are those of another one."""
    return prune(_returning(body, range(len(other.outputs)))) == prune(other)


def _cond(node: Node, operands: tuple[Value, ...], used: Sequence[bool]) -> Sequence[Value] | None:
    then, otherwise = node.attrs["then"], node.attrs["otherwise"]
    pred = scalar_constant(operands[0])
    if pred is not None:
        return inline(then if pred else otherwise, operands[1:], operands[0])
    outputs = [j for j, has in enumerate(used) if has]
    graphs = [prune(_returning(branch, outputs)) for branch in (then, otherwise)]
    needed = [_needed(branch) for branch in graphs]
    kept = [i for i in range(len(operands) - 1) if any(i in own for own in needed)]
    if len(outputs) == len(used) and len(kept) == len(operands) - 1:
        return None
    graphs = [_taking(branch, kept) for branch in graphs]
    results = ops.cond(operands[0], *(operands[1 + i] for i in kept), then=graphs[0], otherwise=graphs[1])
    return _in_place(results, outputs, operands, len(used), 0)


def _scan(node: Node, operands: tuple[Value, ...], used: Sequence[bool]) -> Sequence[Value] | None:
    attrs, like = node.attrs, operands[0]
    body, carries, scanned, length = attrs["body"], attrs["carries"], attrs["scanned"], attrs["length"]
    if length == 0:
        return [*operands[:carries], *(ops.full(r.type, 0, like) for r in node.results[carries:])]
    if length == 1:
        rows = [ops.reshape(x, x.shape[1:]) for x in operands[carries : carries + scanned]]
        found = inline(body, [*operands[:carries], *rows, *operands[carries + scanned :]], like)
        return [*found[:carries], *(ops.reshape(y, (1, *y.shape)) for y in found[carries:])]
    same = [i for i in range(carries) if body.outputs[i] is body.inputs[i]]
    outputs = [j for j in range(carries, len(used)) if used[j]]
    alive = _alive(body, carries, [*(i for i in range(carries) if used[i] and i not in same), *outputs], same)
    body = prune(_returning(body, [*alive, *outputs]))
    needed = _needed(body)
    rows = [i for i in range(carries, carries + scanned) if i in needed]
    fixed = [i for i in (*same, *range(carries + scanned, len(operands))) if i in needed]
    order = [*alive, *rows, *fixed]
    if not order or (len(order) == len(operands) and len(alive) + len(outputs) == len(used) and not same):
        return None
    results = ops.scan(*(operands[i] for i in order), body=_taking(body, order), carries=len(alive), scanned=len(rows),
                       length=length, reverse=attrs["reverse"]) if alive or outputs else ()
    return _in_place(results, [*alive, *outputs], operands, len(used), carries)


def _while(node: Node, operands: tuple[Value, ...], used: Sequence[bool]) -> Sequence[Value] | None:
    attrs = node.attrs
    condition, body, carries = prune(attrs["condition"]), attrs["body"], attrs["carries"]
    asked = _needed(condition)
    same = [i for i in range(carries) if body.outputs[i] is body.inputs[i]]
    wanted = [i for i in range(carries) if (used[i] or i in asked) and i not in same]
    alive = _alive(body, carries, wanted, same) or [0]
    body = prune(_returning(body, alive))
    needed = _needed(body) | asked
    fixed = [i for i in (*same, *range(carries, len(operands))) if i in needed and i not in alive]
    order = [*alive, *fixed]
    if len(order) == len(operands) and len(alive) == carries:
        return None
    results = ops.while_loop(*(operands[i] for i in order), condition=_taking(condition, order), body=_taking(body, order),
                             carries=len(alive))
    return _in_place(results, alive, operands, carries, carries)


_RULES: dict[str, Callable[[Node, tuple[Value, ...], Sequence[bool]], Sequence[Value] | None]] = {
    "cond": _cond, "scan": _scan, "while_loop": _while,
}  # fmt: skip


def _alive(body: Graph, carries: int, wanted: Sequence[int], same: Sequence[int]) -> list[int]:
    """The carries that the wanted outputs of a loop's body depend on, over any number of steps; those that stay the same are
    not counted."""
    needed = set(wanted)
    while True:
        more = {i for i in _needed(_returning(body, sorted(needed))) if i < carries} - needed - set(same)
        if not more:
            return sorted(i for i in needed if i < carries)
        needed |= more


def _needed(graph: Graph) -> set[int]:
    """The inputs that the outputs depend on."""
    live = set(graph.outputs)
    for node in reversed(graph.nodes):
        if any(r in live for r in node.results):
            live.update(node.operands)
    return {i for i, value in enumerate(graph.inputs) if value in live}


def _returning(graph: Graph, outputs: Sequence[int]) -> Graph:
    return Graph(graph.name, graph.inputs, graph.nodes, [graph.outputs[j] for j in outputs])


def _taking(graph: Graph, inputs: Sequence[int]) -> Graph:
    """The graph with these of its inputs, in this order; it needs no others."""
    return with_inputs(graph, [graph.inputs[i].type for i in inputs], {i: k for k, i in enumerate(inputs)})


def _in_place(
    results: Sequence[Value], numbers: Sequence[int], operands: Sequence[Value], count: int, carries: int
) -> list[Value]:
    """Results in the places that they had. A carry that is not among them has stayed the same, or nobody uses it."""
    found = dict(zip(numbers, results))
    return [found[j] if j in found else operands[j if j < carries else 0] for j in range(count)]
