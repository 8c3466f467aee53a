"""`graphc inspect`: what a file holds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import is_package, read_graphs
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from graphc.ir import Graph
    from graphc.package import Package
    from graphc.types import Size


_EXAMPLE = 64
"""What symbolic sizes are where shares are told."""


def inspect(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz) or a graph's text (.gir).")],
    graph: Annotated[bool, typer.Option("--graph", help="Print the text of the graphs instead.")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="Print the CUDA kernels of the graphs instead.")] = False,
    entry: Annotated[str | None, typer.Option(help="Only this entry, or graph.")] = None,
) -> None:
    """Show inputs, outputs, state, ops with what they compute, and weights of a saved program, or those of a graph."""
    from rich.console import Console

    # a pipe has no width: nothing is cut off
    console = Console(width=None if sys.stdout.isatty() else 1_000_000, highlight=False, markup=False)
    if graph:
        for _, one in _chosen(file, read_graphs(file), entry):
            typer.echo(str(one))
    elif cuda:
        from graphc.backend import get_backend

        for _, one in _chosen(file, read_graphs(file), entry):
            typer.echo(get_backend("cuda").source(one))
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
        described = package.entries[name]
        _show_graph(console, Function(name, described, package.weights).signature, graph)
        if described.updates:
            console.print(f"  changes {', '.join(described.updates)}")
    users: dict[str, list[str]] = {name: [] for name in package.weights}
    for name, _ in graphs:
        for weight in package.entries[name].weights.values():
            users[weight].append(name)
    if package.weights:
        console.print()
        _show_weights(console, package.weights, users)


def _show_graph(console: Console, signature: str, graph: Graph) -> None:
    from graphc.conditions import conditions
    from graphc.flops import node_flops

    console.print(signature)
    if stated := conditions(value.info for value in graph.inputs):
        console.print(f"  where {', '.join(map(str, stated))}")
    counts = Counter(node.op.name for node in graph.walk())  # what runs many times counts once
    flops: dict[str, Size] = {}
    for node in graph.nodes:
        flops[node.op.name] = flops.get(node.op.name, 0) + node_flops(node)
    total = sum(flops.values(), start=0)
    console.print(f"  {counts.total()} nodes, {_operations(total)} floating-point operations a call")
    table = _table("  op", "nodes", "operations", "share" if isinstance(total, int) else f"share at {_EXAMPLE}")
    for name, count in sorted(counts.items(), key=lambda pair: (-_example(flops.get(pair[0], 0)), -pair[1], pair[0])):
        own = flops.get(name)
        share = f"{100 * _example(own) / _example(total):.1f}%" if own is not None and _example(total) else ""
        table.add_row(f"  {name}", str(count), "within others" if own is None else _operations(own), share)
    console.print(table)


def _show_weights(console: Console, weights: Mapping[str, np.ndarray], users: Mapping[str, list[str]]) -> None:
    table = _table("weight", "type", "size", "used by", left=("type", "used by"))
    stored: dict[int, str] = {}
    for name, array in weights.items():
        shape = ", ".join(map(str, array.shape))
        first = stored.setdefault(id(array), name)
        size = _size(array.nbytes) if first == name else f"as {first}"
        table.add_row(name, f"{array.dtype.name}[{shape}]", size, ", ".join(users[name]) or "nothing")
    console.print(table)
    elements = sum(array.size for array in weights.values())
    nbytes = sum(weights[name].nbytes for name in stored.values())
    console.print(f"{len(weights)} weights, {elements:,} elements, {_size(nbytes)}")


def _table(first: str, *titles: str, left: Collection[str] = ()) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (first, *titles):
        table.add_column(title, justify="left" if title in (first, *left) else "right", no_wrap=True)
    return table


def _example(size: Size) -> int:
    """A number for an expression of sizes, to put such expressions in an order."""
    if isinstance(size, int):
        return size
    bound = size.bind(dict.fromkeys(size.symbols(), _EXAMPLE))
    assert isinstance(bound, int)
    return bound


def _operations(number: Size) -> str:
    """`1.23 G`, or the expression that it is where sizes are symbols."""
    if not isinstance(number, int):
        return str(number)
    size, unit = float(number), ""
    for larger in ("K", "M", "G", "T", "P"):
        if size < 1000:
            break
        size, unit = size / 1000, f" {larger}"
    return f"{size:.3g}{unit}" if unit else str(number)


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
