"""`graphc export`: a saved program in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.errors import ArgumentError


def export(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz).")],
    onnx: Annotated[str | None, typer.Option("--onnx", metavar="OUT.onnx", help="Write an ONNX model.")] = None,
    opset: Annotated[int, typer.Option(help="The version of ONNX's operators.")] = 18,
    entry: Annotated[str | None, typer.Option(help='The entry; by default "forward", or the only one.')] = None,
) -> None:
    """Write a saved program in another format."""
    if onnx is None:
        raise ArgumentError("graphc export: no format", expected="--onnx OUT.onnx")
    from graphc import runtime
    from graphc.onnx_format import write_onnx

    program = runtime.load(file)
    function = program.main if entry is None else program.function(entry)
    model = write_onnx(function.entry, function.weights, onnx, opset=opset)
    typer.echo(f"{onnx}: {len(model.graph.node)} nodes, {len(function.weights)} weights, opset {opset}")
