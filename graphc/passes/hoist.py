"""What is the same in each step of a loop is computed once, before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.ir import Builder, Graph, Node, Value, copy_node, inline, rebuild, with_inputs
from graphc.passes.prune import prune


def hoist(graph: Graph) -> Graph:
    """Take what depends on captured operands alone out of the bodies of loops, and arrays of constants out of branches, too.

    What only moves numbers stays where it is: it costs nothing where it is read. Of the right factors of products, which are
    read faster row by row, a transposed copy is made.
    """
    return rebuild(graph, _hoisted) if any(node.op.kernel == "control" for node in graph.nodes) else graph


def _hoisted(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    attrs = dict(node.attrs)
    names: tuple[str, ...]
    if node.op.name == "cond":
        names, fixed, inputs = ("then", "otherwise"), range(0), operands[1:]
    elif node.op.name == "scan":
        names, fixed, inputs = ("body",), range(attrs["carries"] + attrs["scanned"], len(operands)), operands
    elif node.op.name == "while_loop":
        names, fixed, inputs = ("condition", "body"), range(attrs["carries"], len(operands)), operands
    else:
        return None
    more: list[Value] = []
    for name in names:
        before, rest = split_invariant(attrs[name], fixed, computed=node.op.name != "cond")
        if before is None:
            continue
        found = inline(before, [inputs[i] for i in fixed], operands[0])
        types = [value.type for value in rest.inputs]
        for other in names:  # all take the same operands
            own = attrs[other]
            attrs[other] = rest if other == name else with_inputs(own, types, {i: i for i in range(len(own.inputs))})
        more += found
    return node.op(*operands, *more, **attrs) if more else None


def split_invariant(body: Graph, fixed: Collection[int], computed: bool = True) -> tuple[Graph | None, Graph]:
    """Two graphs: one from the `fixed` inputs of a body to what is the same for all of its runs, None if there is nothing
    worth it; and the body, which takes that as further inputs. With `computed` false, only arrays of constants count."""
    same = {body.inputs[i] for i in fixed}
    free: set[Value] = set()  # what is made of numbers in the code alone
    early: set[Node] = set()
    for node in body.nodes:
        is_same = any(v in same for v in node.operands) and all(v in same or v in free for v in node.operands)
        if _is_array(node) or (computed and is_same):
            early.add(node)
            same.update(node.results)
        elif all(v in free for v in node.operands):
            free.update(node.results)
    factors = {node.operands[1] for node in body.nodes if node.op.name in ("matmul", "contract")}
    exported: dict[Value, None] = {}
    inside: set[Node] = set()
    pending = [v for node in body.nodes if node not in early for v in node.operands] + list(body.outputs)
    while pending:
        value = pending.pop()
        source = value.node
        if source is None or source not in early or source in inside:
            continue
        if _is_array(source) or not source.op.only_moves or (source.op.name == "permute" and value in factors):
            exported[value] = None
        else:
            inside.add(source)
            pending += source.operands
    if not exported:
        return None, body
    builder = Builder(f"{body.name}.before", locations=False)
    before = {body.inputs[i]: builder.input(None, body.inputs[i].type) for i in fixed}
    _copy(builder, [node for node in body.nodes if node in early or all(r in free for r in node.results)], before)
    first = prune(builder.finish(before[v] for v in exported))
    builder = Builder(body.name, locations=False)
    new = {v: builder.input(v.name, v.type, **v.info) for v in body.inputs}
    new.update({v: builder.input(None, v.type) for v in exported})
    _copy(builder, [node for node in body.nodes if node not in early or node in inside], new)
    return first, builder.finish(new[v] for v in body.outputs)


def _is_array(node: Node) -> bool:
    return node.op.name == "constant" and node.result.shape != ()


def _copy(builder: Builder, nodes: Sequence[Node], known: dict[Value, Value]) -> None:
    for node in nodes:
        known.update(zip(node.results, copy_node(builder, node, [known[v] for v in node.operands]).results))
