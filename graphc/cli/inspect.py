"""`graphc inspect`: what a file holds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import is_package, read_graphs
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from graphc.ir import Graph
    from graphc.package import Package


def inspect(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz) or a graph's text (.gir).")],
    graph: Annotated[bool, typer.Option("--graph", help="Print the text of the graphs instead.")] = False,
    entry: Annotated[str | None, typer.Option(help="Only this entry, or graph.")] = None,
) -> None:
    """Show inputs, outputs, weights and ops of a saved program or a graph."""
    from rich.console import Console

    # a pipe has no width: nothing is cut off
    console = Console(width=None if sys.stdout.isatty() else 1_000_000, highlight=False, markup=False)
    if graph:
        for _, one in _chosen(file, read_graphs(file), entry):
            typer.echo(str(one))
    elif is_package(file):
        from graphc.package import read_package

        _show_package(console, file, read_package(file), entry)
    else:
        for _, one in _chosen(file, read_graphs(file), entry):
            _show_graph(console, _signature(one), one)


def _chosen(file: str, graphs: list[tuple[str, Graph]], entry: str | None) -> list[tuple[str, Graph]]:
    chosen = [pair for pair in graphs if entry in (None, pair[0])]
    if not chosen:
        raise ArgumentError(f"{file} has no entry {entry!r}", expected=f"one of {', '.join(name for name, _ in graphs)}")
    return chosen


def _show_package(console: Console, file: str, package: Package, entry: str | None) -> None:
    from graphc.runtime import Function

    console.print(f"{file}: {_size(package.nbytes)}, format {package.format_version}, written by {package.producer}")
    if package.metadata:
        console.print(f"metadata: {json.dumps(package.metadata, ensure_ascii=False)}")
    graphs = _chosen(file, [(name, e.graph) for name, e in package.entries.items()], entry)
    for name, graph in graphs:
        console.print()
        _show_graph(console, Function(name, package.entries[name], package.weights).signature, graph)
    users: dict[str, list[str]] = {name: [] for name in package.weights}
    for name, _ in graphs:
        for weight in package.entries[name].weights.values():
            users[weight].append(name)
    if package.weights:
        console.print()
        _show_weights(console, package.weights, users)


def _show_graph(console: Console, signature: str, graph: Graph) -> None:
    console.print(signature)
    counts = Counter(node.op.name for node in graph.walk())  # what runs many times counts once
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    console.print(f"  {counts.total()} nodes{f': {listed}' if listed else ''}")


def _show_weights(console: Console, weights: Mapping[str, np.ndarray], users: Mapping[str, list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("weight", "type", "size", "used by"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=True)
    for name, array in weights.items():
        shape = ", ".join(map(str, array.shape))
        table.add_row(name, f"{array.dtype.name}[{shape}]", _size(array.nbytes), ", ".join(users[name]) or "nothing")
    console.print(table)
    elements = sum(array.size for array in weights.values())
    console.print(f"{len(weights)} weights, {elements:,} elements, {_size(sum(a.nbytes for a in weights.values()))}")


def _signature(graph: Graph) -> str:
    inputs = ", ".join(f"{value.name or i}: {value.type}" for i, value in enumerate(graph.inputs))
    names = graph.output_names or range(len(graph.outputs))
    outputs = ", ".join(f"{name}: {value.type}" for name, value in zip(names, graph.outputs))
    return f"{graph.name}({inputs}) -> ({outputs})"


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{nbytes} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
