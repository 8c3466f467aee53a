"""`graphc profile`: where the time of a function goes, eagerly and compiled."""

from __future__ import annotations

from typing import Annotated

import typer

from graphc.script import Target


def profile(
    what: Annotated[str, typer.Argument(metavar="SCRIPT.py:FUNCTION", help="A function of a script.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="TRACE.json", help="Write a trace that ui.perfetto.dev opens.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="How many calls are profiled.")] = 3,
    rows: Annotated[int, typer.Option(min=1, help="How many rows the tables have.")] = 15,
) -> None:
    """Show where the time of a function goes: eagerly by operation, compiled by kernel, with lines, FLOPs and bytes.

    A function that takes arguments needs inputs beside it, as for `graphc bench`.
    """
    from graphc.benchmark import both_modes

    found = both_modes.profile(Target.parse(what), calls)
    for name, made in (("eager", found.eager), ("compiled", found.compiled)):
        typer.echo(f"{name}, {calls} calls:\n{made.key_averages().table(row_limit=rows)}\n")
    if output is not None:
        found.write(output)
        typer.echo(f"{output}: open it at https://ui.perfetto.dev")
