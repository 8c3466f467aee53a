"""`graphc validate`: whether a saved program is what it should be."""

from __future__ import annotations

from collections.abc import Sized
from typing import Annotated

import typer

_SIZES = (5, 2, 3, 4, 8, 16, 32, 64, 128, 256, 1, 0)
"""What symbolic sizes are tried to be, until they are within bounds."""


def validate(
    files: Annotated[list[str], typer.Argument(help="Saved programs (.gcz).")],
    run: Annotated[
        bool, typer.Option("--run", help="Run each entry on random numbers, and compare with what its ops are defined to do.")
    ] = False,
    seed: Annotated[int, typer.Option(help="For the random numbers.")] = 0,
) -> None:
    """Check saved programs: the archive, checksums, graphs and weights, trusting nothing in them."""
    from graphc.errors import GraphcError
    from graphc.package import read_package

    bad = 0
    for file in files:
        try:
            package = read_package(file)
            if run:
                _run(file, list(package.entries), seed)
        except (GraphcError, OSError) as error:
            bad += 1
            typer.echo(f"{file}: {error}" if isinstance(error, OSError) else str(error), err=True)
            continue
        counts = _count(package.entries, "entry", "entries"), _count(package.weights, "weight", "weights")
        what = f"{', '.join(counts)}, {package.nbytes:,} bytes"
        typer.echo(f"{file}: good: format {package.format_version}, {what}")
    if bad:
        raise typer.Exit(1)


def _count(things: Sized, one: str, several: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else several}"


def _run(file: str, entries: list[str], seed: int) -> None:
    """AccuracyError, which names the node, where an entry's compiled code does not compute what its ops are defined to."""
    from graphc.bind import bind_graph, bind_sizes
    from graphc.cli.files import read_case
    from graphc.compiler import VERIFIED, compile_graph
    from graphc.errors import ShapeError

    for entry in entries:
        for unknown in _SIZES:
            graph, arrays = read_case(file, entry, (), None, seed, unknown)
            try:
                sizes = bind_sizes(graph, [array.shape for array in arrays])
            except ShapeError:  # not within the bounds that the entry sets
                if unknown == _SIZES[-1]:
                    raise
                continue
            compile_graph(bind_graph(graph, sizes), backend=VERIFIED)(*arrays)
            break
