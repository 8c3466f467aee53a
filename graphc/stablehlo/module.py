"""Graphs as functions of an MLIR module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc.stablehlo.control
import graphc.stablehlo.elementwise
import graphc.stablehlo.movement
import graphc.stablehlo.products
import graphc.stablehlo.random
import graphc.stablehlo.reductions  # noqa: F401  (these fill the table)
from graphc.bind import bind_graph, check_conditions, is_symbolic
from graphc.errors import ShapeError
from graphc.ir import Builder, Graph, Node, Value, map_graphs, rebuild
from graphc.package.entry import weight_name
from graphc.passes.prune import prune
from graphc.stablehlo.table import EXPANSIONS, WRITERS
from graphc.stablehlo.writer import Operand, Writer, mlir_type, quoted


def module_text(
    graphs: Mapping[str, Graph], *, sizes: Mapping[str, int] | None = None, weights: Mapping[str, np.ndarray] | None = None
) -> str:
    """StableHLO for graphs, each a public function of its name whose parameters are the graph's inputs, in order.

    sizes
        Numbers for symbolic sizes; ShapeError where one is missing.
    weights
        The arrays of inputs that are bound to weights: these become constants, and are no parameters.

    Raises CompileError for ops and dtypes that StableHLO lacks. It has no errors at run time: an index out of bounds takes
    the nearest place.

    >>> from graphc.parse import parse_graph
    >>> graph = parse_graph('''
    ... graph @f(%x: float32[2]) -> float32[2] {
    ...   %0 = mul(%x, %x) : float32[2]
    ...   return %0
    ... }''')
    >>> print(module_text({"main": graph}))
    module @f {
      func.func public @main(%arg0: tensor<2xf32> loc("x")) -> tensor<2xf32> {
        %0 = "stablehlo.multiply"(%arg0, %arg0) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
        func.return %0 : tensor<2xf32>
      }
    }
    <BLANKLINE>
    """
    lines = [f"module @{_symbol(next((graph.name for graph in graphs.values()), 'empty'))} {{"]
    for name, graph in graphs.items():
        lines += _function(name, _expanded(_bound(graph, sizes or {})), weights or {})
    return "\n".join([*lines, "}"]) + "\n"


def _function(name: str, graph: Graph, weights: Mapping[str, np.ndarray]) -> list[str]:
    writer = Writer(WRITERS)
    operands: list[Operand] = []
    parameters: list[str] = []
    for value in graph.inputs:
        weight = weight_name(value)
        if weight is not None and weight in weights:
            operands.append(writer.constant(weights[weight], value.dtype))
            continue
        operands.append(Operand(f"%arg{len(parameters)}", value.type))
        parameters.append(f"{operands[-1].name}: {mlir_type(value.type)} loc({quoted(weight or value.name or '?')})")
    outputs = writer.graph(graph, operands)
    types = [mlir_type(output.type) for output in outputs]
    result = types[0] if len(types) == 1 else f"({', '.join(types)})"
    returned = f"    func.return {', '.join(o.name for o in outputs)} : {', '.join(types)}" if types else "    func.return"
    return [f"  func.func public @{_symbol(name)}({', '.join(parameters)}) -> {result} {{", *writer.lines(), returned, "  }"]


def _symbol(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else quoted(name)


def _bound(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    if not is_symbolic(graph):
        return graph
    needed = sorted({name for value in graph.inputs for size in value.shape if not isinstance(size, int)
                     for name in size.symbols()})
    if missing := [name for name in needed if name not in sizes]:
        raise ShapeError(f"{graph.name}: StableHLO is written for numbers, and {', '.join(missing)} is none",
                         expected=f"a number for each of {', '.join(needed)}",
                         hint=f"--sizes {','.join(f'{name}=64' for name in needed)}, or sizes= in Python")
    numbers = {name: sizes[name] for name in needed}
    check_conditions(graph, numbers)
    return bind_graph(graph, numbers)


def _expanded(graph: Graph) -> Graph:
    """The graph with ops that are not in the table made of those that are, as far as they are made of any."""
    again = True

    def expand(builder: Builder, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        nonlocal again
        name = node.op.name
        made = None if name in WRITERS else _made_of_others(node, operands)
        if made is None:
            return None
        again = True
        return made if isinstance(made, tuple) else (made,)

    while again:
        again = False
        graph = rebuild(graph, expand)
    return prune(map_graphs(graph, _expanded))


def _made_of_others(node: Node, operands: tuple[Value, ...]) -> Any:
    for make in (EXPANSIONS.get(node.op.name), node.op.decompose, node.op.scalar):
        made = make(*operands, **node.attrs) if make is not None else None
        if made is not None:
            return made
    return None
