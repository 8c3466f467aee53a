"""Let contractions write their result in the shape in which it is wanted."""

from __future__ import annotations

import string
from collections.abc import Sequence

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.ops.linalg import parse_spec
from graphc.passes.prune import prune
from graphc.types import Shape, Size


def reshape(graph: Graph) -> Graph:
    """Replace the reshape of a contraction that is used for nothing else, where it splits dimensions, by a contraction over
    more of them: of operands in another shape, which costs nothing. What is computed from the result element by element,
    such as the bias of a linear layer on batches of sequences, then has its shape, and becomes a part of its kernel."""
    uses = graph.uses()

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        source = node.operands[0].node if node.op is ops.reshape else None
        if source is None or source.op is not ops.contract or uses[source.result] != 1:
            return None
        groups = _groups(source.result.shape, node.result.shape)
        if groups is None or not allowed("reshape", node, node.location):
            return None
        left, right, out = parse_spec(source.attrs["spec"])
        unused = iter(letter for letter in string.ascii_letters if letter not in source.attrs["spec"])
        split = {letter: [(letter, group[0])] if len(group) == 1 else [(next(unused), size) for size in group]
                 for letter, group in zip(out, groups)}
        contraction = operands[0].node
        assert contraction is not None
        parts: list[Value] = []
        spec: list[str] = []
        for letters, value in zip((left, right), contraction.operands):
            dims = [part for letter, size in zip(letters, value.shape) for part in split.get(letter, [(letter, size)])]
            parts.append(_reshaped(value, tuple(size for _, size in dims)))
            spec.append("".join(letter for letter, _ in dims))
        wanted = "".join(letter for name in out for letter, _ in split[name])
        return [ops.contract(*parts, f"{spec[0]},{spec[1]}->{wanted}")]

    return prune(rebuild(graph, visit)) if any(node.op is ops.contract for node in graph.nodes) else graph


def _groups(old: Shape, new: Shape) -> list[list[Size]] | None:
    """For each old dimension the new ones that it is split into; None where some are put together."""
    groups: list[list[Size]] = []
    sizes = list(new)
    for whole in old:
        group: list[Size] = []
        product: Size = 1
        while not group or product != whole:
            if not sizes:
                return None
            group.append(sizes.pop(0))
            product = product * group[-1]
        groups.append(group)
    if sizes and (not groups or any(size != 1 for size in sizes)):
        return None
    return [*groups[:-1], [*groups[-1], *sizes]] if sizes else groups


def _reshaped(value: Value, shape: Shape) -> Value:
    source = value.node
    while source is not None and source.op is ops.reshape:
        value = source.operands[0]
        source = value.node
    return value if value.shape == shape else ops.reshape(value, shape)
