"""`graphc minify`: a small graph that fails as a large one does."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.cli.files import BackendName, CaseFile, EntryName, Inputs, InputsFile, Seed, read_case


def minify(
    file: CaseFile,
    inputs: Inputs = None,
    numbers: InputsFile = None,
    seed: Seed = 0,
    entry: EntryName = None,
    backend: BackendName = None,
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
