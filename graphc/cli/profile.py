"""`graphc profile`: where the time of a function goes, eagerly and compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import check_writable
from graphc.errors import ArgumentError
from graphc.script import Target

if TYPE_CHECKING:
    from graphc.benchmark.both_modes import BothModes


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

    target = Target.parse(what)
    check_writable(output)
    found = both_modes.profile(target, calls)
    for name, made in (("eager", found.eager), ("compiled", found.compiled)):
        typer.echo(f"{name}, {calls} calls:\n{made.key_averages().table(row_limit=rows)}\n")
    if output is not None:
        _write(found, output)


def only_target(targets: Sequence[str]) -> Target:
    """The one target of `graphc bench --profile`; ArgumentError where it is none, or there are others."""
    if len(targets) != 1 or not Target.is_one(targets[0]):
        given = " ".join(targets) or "none"
        raise ArgumentError("--profile", expected="one function of a script, as in train.py:step", got=given)
    return Target.parse(targets[0])


def write_trace(target: Target, path: str) -> None:
    """Profile a function in both ways of running, and write a trace."""
    from graphc.benchmark import both_modes

    _write(both_modes.profile(target), path)


def _write(found: BothModes, path: str) -> None:
    found.write(path)
    typer.echo(f"{path}: open it at https://ui.perfetto.dev")
