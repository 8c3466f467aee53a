"""`graphc bisect`: which rewrite makes a graph fail."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.cli.files import read_case


def bisect(
    file: Annotated[str, typer.Argument(help="A text (.gir) or a saved program (.gcz).")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="An input; once for each.")
    ] = None,
    numbers: Annotated[
        str | None, typer.Option("--inputs", metavar="FILE.npz", help="Inputs by their names, or in0, in1 and so on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Inputs that are not given are random numbers.")] = 0,
    entry: Annotated[str | None, typer.Option(help="The graph; by default the first.")] = None,
    backend: Annotated[str | None, typer.Option(help='"llvm" or "reference".')] = None,
) -> None:
    """Find the first rewrite with which the compiled graph computes something else, by its rule and its node."""
    from graphc.bisection import bisect as search

    found = search(*read_case(file, entry, inputs or [], numbers, seed), backend=backend)
    typer.echo("the compiled graph agrees with the definitions of its ops" if found is None else str(found))
    if found is not None:
        raise typer.Exit(1)
