"""`graphc export`: a saved program in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphc.errors import ArgumentError


def export(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz).")],
    onnx: Annotated[str | None, typer.Option("--onnx", metavar="OUT.onnx", help="Write an ONNX model.")] = None,
    opset: Annotated[int, typer.Option(help="The version of ONNX's operators.")] = 18,
    native: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write an object file, a C header and examples in C to this folder.")
    ] = None,
    stablehlo: Annotated[
        str | None, typer.Option("--stablehlo", metavar="OUT.mlir", help="Write StableHLO text; - is the standard output.")
    ] = None,
    entry: Annotated[
        list[str] | None,
        typer.Option(help='The entry; ONNX: by default "forward", or the only one. Else several may be given; by default all.'),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Native: what files and functions are called; by default as the file is.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Native: x86-64-v3, aarch64, riscv64, wasm32, macos-arm64, ..., or a triple; by default here."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Native: keep weights in this file, for callers to map.")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare/--no-prepare", help="Native: put weights in order once, by a function of its own.")
    ] = True,
    threads: Annotated[
        bool, typer.Option("--threads", help="Native: let callers hand over a function that runs loops on threads.")
    ] = False,
    shared: Annotated[bool, typer.Option("--shared", help="Native: link a shared library, too.")] = False,
    sizes: Annotated[
        list[str] | None,
        typer.Option(metavar="N=64,...", help="Native: sizes to make code for; by default many are tried. StableHLO: all."),
    ] = None,
) -> None:
    """Write a saved program in another format."""
    if [onnx, native, stablehlo].count(None) != 2:
        raise ArgumentError("graphc export: one format", expected="--onnx OUT.onnx, --native DIR or --stablehlo OUT.mlir")
    examples = [_sizes(text) for text in sizes or []]
    if stablehlo is not None:
        from graphc.stablehlo import to_stablehlo

        text = to_stablehlo(file, entries=entry, sizes=examples[0] if examples else None)
        if stablehlo == "-":
            typer.echo(text, nl=False)
        else:
            Path(stablehlo).write_text(text, encoding="ascii")
            typer.echo(f"{stablehlo}: {len(text):,} bytes")
        return
    if native is not None:
        from graphc.native import export as export_native

        written = export_native(file, native, name=name, target=target, entries=entry, weights=weights, prepare=prepare,
                                threads=threads, shared=shared, sizes=examples)
        for path in written.paths:
            typer.echo(f"{path}: {path.stat().st_size:,} bytes")
        return
    from graphc import runtime
    from graphc.onnx_format import write_onnx

    assert onnx is not None
    if entry is not None and len(entry) > 1:
        raise ArgumentError(f"an ONNX model of {len(entry)} entries", expected="one --entry", got=", ".join(entry),
                            hint="export each to a file of its own")
    program = runtime.load(file)
    function = program.main if not entry else program.function(entry[0])
    model = write_onnx(function.entry, function.weights, onnx, opset=opset)
    typer.echo(f"{onnx}: {len(model.graph.node)} nodes, {len(function.weights)} weights, opset {opset}")


def _sizes(text: str) -> dict[str, int]:
    """N=64,T=128 as a dict."""
    found: dict[str, int] = {}
    for part in text.split(","):
        size, sign, number = part.partition("=")
        if not sign or not number.strip().isdecimal() or size.strip() in found:
            raise ArgumentError(f"--sizes {text}", expected="each size once with a number, as in --sizes N=64,T=128")
        found[size.strip()] = int(number)
    return found
