"""`graphc import`: a model in another format as a saved program."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.errors import ArgumentError


def import_model(
    file: Annotated[str, typer.Argument(help="An ONNX model.")],
    out: Annotated[str, typer.Argument(help="The program to write (.gcz).")],
    constants: Annotated[
        list[str] | None, typer.Option("--constant", metavar="NAME=FILE.npy", help="An input that is always the same.")
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", metavar="NAME=N,3,8", help="The shape of an input: numbers and names.")
    ] = None,
) -> None:
    """Make a saved program of an ONNX model."""
    import numpy as np

    from graphc.onnx_format import read_onnx

    fixed = {name: np.load(path, allow_pickle=False) for name, path in _pairs(constants or [], "--constant")}
    sizes = {name: [int(size) if size.isdecimal() else size for size in text.replace(" ", "").split(",") if size]
             for name, text in _pairs(shapes or [], "--shape")}
    program = read_onnx(file, constants=fixed, shapes=sizes).program
    program.save(out)
    typer.echo(f"{out}: {program.signature}")


def _pairs(given: list[str], option: str) -> list[tuple[str, str]]:
    found = []
    for text in given:
        name, sign, value = text.rpartition("=")
        if not sign:
            raise ArgumentError(f"{option} {text}", expected="NAME=...")
        found.append((name, value))
    return found
