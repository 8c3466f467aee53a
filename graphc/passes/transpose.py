"""Let contractions write their result in the order in which it is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import graphc.ops as ops
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.ops.linalg import parse_spec
from graphc.passes.prune import prune


def transpose(graph: Graph) -> Graph:
    """Replace the permutation of a contraction that is used for nothing else by a contraction in that order."""
    uses = graph.uses()

    def visit(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        source = node.operands[0].node if node.op is ops.permute else None
        if source is None or source.op is not ops.contract or uses[source.result] != 1:
            return None
        if not allowed("transpose", node, node.location):
            return None
        left, right, out = parse_spec(source.attrs["spec"])
        order = "".join(out[i] for i in node.attrs["order"])
        contraction = operands[0].node
        assert contraction is not None
        return [ops.contract(*contraction.operands, f"{left},{right}->{order}")]

    return prune(rebuild(graph, visit)) if any(node.op is ops.contract for node in graph.nodes) else graph
