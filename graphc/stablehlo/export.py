"""From a program to StableHLO text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from graphc import runtime
from graphc.errors import ArgumentTypeError
from graphc.stablehlo.module import module_text


def to_stablehlo(
    program: runtime.Program | str | os.PathLike[str] | Any,
    *,
    entries: Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    weights: bool = False,
) -> str:
    """The entries of a program as functions of an MLIR module. A program with one entry has its function called `main`.

    Parameters are the inputs of the entry's graph, weights and state among them, whose locations have their names; results
    are its outputs, those that become state at the end of their numbers in the graph.

    program
        A `.gcz` file, or a program as `graphc.export`, `graphc.load` and `graphc.runtime.load` give it.
    sizes
        Numbers for symbolic sizes.
    weights
        Whether weights become constants of the text, rather than parameters; state never does.

    Raises CompileError, with the line, for ops that StableHLO lacks, and ShapeError where a size is not given;
    ArgumentTypeError for what is no program.

    >>> import graphc
    >>> print(to_stablehlo(graphc.export(lambda x: x * x, (graphc.ones(2),))).splitlines()[1])
      func.func public @main(%arg0: tensor<2xf32> loc("x")) -> tensor<2xf32> {
    """
    loaded = runtime.load(program) if isinstance(program, (str, os.PathLike)) else getattr(program, "program", program)
    if not isinstance(loaded, runtime.Program):
        raise ArgumentTypeError(f"a {type(loaded).__name__} cannot be written as StableHLO",
                                expected="a .gcz file, or what graphc.export, graphc.load or graphc.runtime.load return")
    names = list(loaded.functions) if entries is None else list(entries)
    graphs = {"main" if len(names) == 1 else name: loaded.function(name).graph for name in names}
    fixed = {name: array for name, array in loaded.weights.items() if name not in loaded.state} if weights else {}
    return module_text(graphs, sizes=sizes, weights=fixed)
