"""Derivatives as nodes of a graph that is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import graphc.ops as ops
from graphc.autodiff import pullback
from graphc.frontend.autograd.function import Function, FunctionNode
from graphc.frontend.modes import enable_grad
from graphc.frontend.tensor import Tensor, wrap
from graphc.ir import Builder, Node, Value
from graphc.op import Vjp


@dataclass(frozen=True, eq=False)
class CustomCall:
    """A call of a user's `Function`: the nodes that its forward has recorded, whose derivative is its backward."""

    context: FunctionNode
    nodes: range
    operands: tuple[Value | None, ...]
    """Its arguments; None for what cannot be differentiated by."""
    results: tuple[Value, ...]

    def as_node(self, builder: Builder) -> Node:
        """The call as one node, for a backward pass."""
        places = [i for i, value in enumerate(self.operands) if value is not None]
        operands = [value for value in self.operands if value is not None]

        def rule(ct: Sequence[Value | None], wanted: Sequence[int]) -> list[Value]:
            cotangents = [None if value is None else wrap(value) for value in ct]
            with enable_grad():
                found = self.context.apply(cotangents)
            return [_value(found[places[i]], operands[i]) for i in wanted]

        record = replace(ops.cond, name=self.context.name(), operands=("*args",), vjp=Vjp(rule, ("ct", "wanted")))
        node = Node(record, operands, {}, (), builder.nodes[self.nodes.start].location, builder)
        node.results = self.results
        return node


def _value(cotangent: Tensor | None, operand: Value) -> Value:
    return ops.zeros_like(operand) if cotangent is None else cotangent._data


def backward_nodes(
    builder: Builder, calls: Sequence[CustomCall], values: Sequence[Value], cotangents: Sequence[Value], inputs: Sequence[Value]
) -> list[Value | None]:
    """Append the nodes of a backward pass, as `graphc.autodiff.pullback` does; through `calls` it goes by their backward."""
    nodes: list[Node] = []
    done = 0
    for call in sorted(calls, key=lambda call: (call.nodes.start, -call.nodes.stop)):
        if call.nodes.start >= done:  # it is not part of another one
            nodes += [*builder.nodes[done : call.nodes.start], call.as_node(builder)]
            done = call.nodes.stop
    return pullback(builder, values, cotangents, inputs, [*nodes, *builder.nodes[done:]])


def run_function(
    function: type[Function], args: Sequence[Any], watched: Sequence[Tensor | None]
) -> tuple[Any, FunctionNode | None]:
    """Run a user's `Function` on `watched` in the place of those arguments that have one; the result, and what its backward
    is to be called on."""
    result = function.run(tuple(arg if tensor is None else tensor for arg, tensor in zip(args, watched)))
    outputs = result if isinstance(result, tuple) else (result,)
    for out in outputs:
        node = out._node if isinstance(out, Tensor) else None
        if isinstance(node, FunctionNode) and node._function is function:
            return result, node
    return result, None
