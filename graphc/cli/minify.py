"""`graphc minify`: a small graph that fails as a large one does."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.cli.files import read_case


def minify(
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
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write it there instead of printing it.")] = None,
) -> None:
    """Make a failing graph small, for a bug report: one that computes something else than its ops are defined to, that cannot
    be compiled, or that crashes."""
    from graphc.delta_debugging import minify_graph

    found = minify_graph(*read_case(file, entry, inputs or [], numbers, seed), backend=backend)
    if output is None:
        typer.echo(found.report())
    else:
        found.save(output)
        typer.echo(f"{output}: {len(found.graph.nodes)} nodes, {found.failure}")
