"""`graphc opt`: passes over the text of graphs, as in the golden tests."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import STDIN, read_graphs
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    from graphc.ir import Graph


def opt(
    file: Annotated[str, typer.Argument(help="A text (.gir), a saved program (.gcz), or - for the standard input.")] = STDIN,
    passes: Annotated[
        str | None, typer.Option("--passes", "-p", metavar="NAME,NAME", help="The passes; by default those of compilation.")
    ] = None,
    print_all: Annotated[bool, typer.Option("--print-all", help="Print the graph after each pass.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write the result there instead of printing it.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Verify the graph after each pass.")] = False,
    list_passes: Annotated[bool, typer.Option("--list", help="List the passes and exit.")] = False,
) -> None:
    """Run passes over graphs and print what they make of them."""
    from graphc.config import config, override
    from graphc.passes import pipeline
    from graphc.passes.order import DEFAULT

    if list_passes:
        width = max(map(len, pipeline.PASSES))
        for name, function in pipeline.PASSES.items():
            typer.echo(f"{name:{width}}  {(inspect.getdoc(function) or '').partition(chr(10))[0]}".rstrip())
        return
    names = DEFAULT if passes is None else _names(passes, list(pipeline.PASSES))

    def show(name: str, graph: Graph) -> None:
        typer.echo(f"# after {name}\n{graph}\n")

    graphs = read_graphs(file)
    with override(verify=verify or config.verify):
        results = [pipeline.run(graph, names, after=show if print_all else None) for _, graph in graphs]
    text = "\n\n".join(map(str, results))
    if output is not None:
        Path(output).write_text(f"{text}\n", encoding="utf-8")
    elif not print_all or not names:
        typer.echo(text)


def _names(text: str, known: list[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else None
            raise ArgumentError(f"there is no pass {name!r}", expected=f"some of {', '.join(known)}", hint=hint)
    return names
