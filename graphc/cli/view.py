"""`graphc view`: a graph as a page to look at."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import EntryName, read_graphs
from graphc.errors import ArgumentError
from graphc.script import Target, function, inputs, load, running

if TYPE_CHECKING:
    from graphc.graph_view import Page

_SIZE = 64
"""What symbolic sizes are that nobody tells."""


def view(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|SCRIPT.py:FUNCTION", help="A saved program (.gcz), a graph's text, a script's function."),
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="OUT.html", help="By default in this folder.")] = None,
    entry: EntryName = None,
    sizes: Annotated[str | None, typer.Option(metavar="N=64,...", help=f"What symbolic sizes are; {_SIZE} by default.")] = None,
    code: Annotated[bool, typer.Option("--code/--no-code", help="With the LLVM IR and the assembly of kernels.")] = True,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a page of a graph before and after each pass, with the kernels that it becomes, and their code."""
    is_script = Target.is_one(what) and (what.endswith(".py") or not Path(what).is_file())
    if is_script and (entry is not None or sizes is not None):
        option = "--entry" if entry is not None else "--sizes"
        raise ArgumentError(f"graphc view: {option} is for files",
                            hint="a function is compiled for what the script's inputs function returns")
    stem = Path(what.rpartition(":")[0] if is_script else what).stem
    if output is None:
        _check_replaceable(Path(f"{stem}.html"))
    page = _of_script(what, code) if is_script else _of_file(what, entry, _sizes(sizes), code)
    path = Path(output or f"{stem}.html")
    path.write_text(page.html, encoding="utf-8")
    typer.echo(f"{path}: {_count(page.nodes, 'node')}, {_count(page.kernels, 'kernel')}; passes that change something: "
               f"{len(page.stages) - 1}")
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def _check_replaceable(path: Path) -> None:
    """Nobody has named the page, so it takes the place of nothing but an older one."""
    from graphc.graph_view.page import GENERATOR

    if path.exists() and GENERATOR not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise ArgumentError(f"{path} is there, and graphc view has not written it", hint=f"-o {path} writes over it")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _of_script(text: str, code: bool) -> Page:
    target = Target.parse(text)
    module = load(target.path)
    called = function(module, target.name)
    public = importlib.import_module("graphc")  # functions are the front end's, which the script has imported
    with running(target):
        args, keywords = inputs(module, target.name)
        made: Page = public.view_graph(called, *args, code=code, **keywords)
    return made


def _of_file(path: str, entry: str | None, sizes: dict[str, int], code: bool) -> Page:
    from graphc.bind import bind_graph
    from graphc.config import config
    from graphc.dims import Dim
    from graphc.graph_view import make_page

    graphs = dict(read_graphs(path))
    name = next(iter(graphs), "") if entry is None else entry
    if name not in graphs:
        raise ArgumentError(f"{path} has no entry {name!r}", expected=f"one of {', '.join(graphs)}")
    graph = graphs[name]
    symbols = {s for value in graph.inputs for size in value.shape if isinstance(size, Dim) for s in size.symbols()}
    if unknown := sizes.keys() - symbols:
        raise ArgumentError(f"--sizes: {path} has no size {min(unknown)!r}", expected=f"some of {', '.join(sorted(symbols))}")
    if symbols:
        graph = bind_graph(graph, dict.fromkeys(symbols, _SIZE) | sizes)
    return make_page(graph, title=f"{Path(path).name}: {name}", code=code, backend=config.backend)


def _sizes(text: str | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        name, sign, number = part.partition("=")
        if not sign or not number.strip().isdecimal():
            raise ArgumentError(f"--sizes {text}", expected="names and numbers, as in N=64,M=128")
        found[name.strip()] = int(number)
    return found
