"""The `graphc` command. Each command imports what it needs when it runs, so that the help is there at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from graphc.cli.bench import bench
from graphc.cli.bisect import bisect
from graphc.cli.cache import cache
from graphc.cli.diff import diff
from graphc.cli.export import export
from graphc.cli.import_ import import_model
from graphc.cli.inspect import inspect
from graphc.cli.minify import minify
from graphc.cli.opt import opt
from graphc.cli.profile import profile
from graphc.cli.run import run
from graphc.cli.upgrade import upgrade
from graphc.cli.validate import validate
from graphc.cli.view import view
from graphc.config import config
from graphc.errors import GraphcError, ParseError

app = typer.Typer(
    name="graphc",
    help="Inspect, run and transform saved graphs, and measure speed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(inspect)
app.command()(run)
app.command()(diff)
app.command()(validate)
app.command()(view)
app.command()(profile)
app.command()(upgrade)
app.command()(opt)
app.command()(bisect)
app.command()(minify)
app.command()(bench)
app.command()(export)
app.command(name="import")(import_model)
app.add_typer(cache, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"graphc {version('graphc')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options that come before the command."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 after an error that was said in one message, 2 after a wrong usage.

    With `GRAPHC_DEBUG` set, an error comes with its traceback.
    """
    try:
        app(None if argv is None else list(argv), prog_name="graphc")
    except (GraphcError, OSError, ArithmeticError, MemoryError) as error:
        if config.debug:
            raise
        typer.echo(f"graphc: {_message(error)}", err=True)
        sys.exit(1)
    sys.exit(0)


def _message(error: Exception) -> str:
    if isinstance(error, GraphcError) and not isinstance(error, ParseError):
        # the place where graphc was called from is a line of the command's own
        parts = {"expected: ": error.expected, "got:      ": error.got, "fix:      ": error.hint}
        return "\n".join([error.problem, *(f"  {label}{text}" for label, text in parts.items() if text is not None)])
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, GraphcError) else f"{type(error).__name__}: {error}"
