"""`graphc bisect`: which rewrite makes a graph fail."""

from __future__ import annotations

import typer

from graphc.cli.files import BackendName, CaseFile, EntryName, Inputs, InputsFile, Seed, read_case


def bisect(
    file: CaseFile,
    inputs: Inputs = None,
    numbers: InputsFile = None,
    seed: Seed = 0,
    entry: EntryName = None,
    backend: BackendName = None,
) -> None:
    """Find the first rewrite with which the compiled graph computes something else, by its rule and its node."""
    from graphc.bisection import bisect as search

    found = search(*read_case(file, entry, inputs or [], numbers, seed), backend=backend)
    typer.echo("the compiled graph agrees with the definitions of its ops" if found is None else str(found))
    if found is not None:
        raise typer.Exit(1)
