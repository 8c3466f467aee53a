"""`graphc.onnx`: modules and programs as ONNX models, and back. Needs the `onnx` package, `pip install 'graphc[onnx]'`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import graphc.runtime as runtime
from graphc.errors import ArgumentError
from graphc.frontend.export import Program
from graphc.frontend.export import export as export_program
from graphc.frontend.onnx_import import ImportedModel, load
from graphc.onnx_format import OPSET, Limits, write_onnx

__all__ = ["ImportedModel", "Limits", "export", "load"]


def export(
    model: Callable[..., Any] | Program | runtime.Program | str | os.PathLike[str],
    args: Sequence[Any] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int = OPSET,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    external_data: bool | None = None,
) -> Any:
    """A module, a function, a program or a saved program's file as an ONNX model: a `ModelProto`, and a file if `path` is.

    model, args, dynamic_shapes
        As `graphc.export` takes them. A program has been traced already, and takes neither.
    opset
        The version of ONNX's operators, from 18 to 23.
    input_names, output_names
        What inputs and outputs are called, instead of their names in the program. An output that is called as an input is in
        the program has a number behind its name.
    external_data
        Whether the weights stand in a file of their own, `<path>.data`; by default where they come to 2 GB.

    Ops that ONNX has no operator for are written as several that it has; where that cannot be done, UnsupportedError names the
    op and the line that it comes from.

    ArgumentError for a function without arguments or without results, and for a program with arguments.

    >>> import graphc
    >>> batch = graphc.Dim("batch")
    >>> model = graphc.onnx.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),), dynamic_shapes={"input": {0: batch}})
    >>> [node.op_type for node in model.graph.node]
    ['Gemm']
    """
    function = _program(model, args, dynamic_shapes).main
    return write_onnx(function.entry, function.weights, path, opset=opset, input_names=input_names, output_names=output_names,
                      external_data=external_data)


def _program(model: Any, args: Sequence[Any] | None, dynamic_shapes: Any) -> runtime.Program:
    if isinstance(model, (Program, runtime.Program, str, os.PathLike)):
        if args is not None or dynamic_shapes is not None:
            raise ArgumentError("a program has been traced already", expected="no args and no dynamic_shapes",
                                hint="name the path: graphc.onnx.export(program, path=...)")
        if isinstance(model, Program):
            return model.program
        return model if isinstance(model, runtime.Program) else runtime.load(model)
    if args is None:
        raise ArgumentError("no arguments to trace the model with", expected="a tuple of tensors, as in export(model, (x,))")
    return export_program(model, args, dynamic_shapes=dynamic_shapes).program
