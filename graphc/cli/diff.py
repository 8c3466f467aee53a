"""`graphc diff`: what differs between two saved programs, or graphs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphc.cli.files import is_package, read_graphs

if TYPE_CHECKING:
    import numpy as np


def diff(
    first: Annotated[str, typer.Argument(help="A saved program (.gcz) or a graph's text (.gir).")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing: only exit with 0 or 1.")] = False,
) -> None:
    """Show how two saved programs or graphs differ; exit with 1 if they do."""
    found = 0
    for line in _differences(first, second):
        found += 1
        if not quiet:
            typer.echo(line)
    if found:
        raise typer.Exit(1)


def _differences(first: str, second: str) -> Iterator[str]:
    before, after = dict(read_graphs(first)), dict(read_graphs(second))
    yield from _names("entry", before, after)
    for name in filter(after.__contains__, before):
        old, new = str(before[name]).split("\n"), str(after[name]).split("\n")
        yield from difflib.unified_diff(old, new, f"{first}:{name}", f"{second}:{name}", lineterm="")
    if is_package(first) and is_package(second):
        from graphc.package import read_package

        old_package, new_package = read_package(first), read_package(second)
        yield from _metadata(old_package.metadata, new_package.metadata)
        yield from _weights(old_package.weights, new_package.weights)
        for name in filter(after.__contains__, before):
            old_entry, new_entry = old_package.entries[name], new_package.entries[name]
            if (old_entry.inputs, old_entry.outputs) != (new_entry.inputs, new_entry.outputs):
                yield f"entry {name}: the arguments or the results are nested in another way"


def _names(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {what} {name}" for name in before if name not in after)
    yield from (f"+ {what} {name}" for name in after if name not in before)


def _metadata(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in {**before, **after}:
        old, new = (json.dumps(side[key], ensure_ascii=False) if key in side else None for side in (before, after))
        if old != new:
            yield from (f"{sign} metadata {key}: {text}" for sign, text in (("-", old), ("+", new)) if text is not None)


def _weights(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Iterator[str]:
    import numpy as np

    from graphc.types import TensorType, dtype_of

    yield from _names("weight", before, after)
    for name in filter(after.__contains__, before):
        old, new = before[name], after[name]
        types = [TensorType(dtype_of(array.dtype), array.shape) for array in (old, new)]
        if types[0] != types[1]:
            yield f"weight {name}: {types[0]} and {types[1]}"
        elif old.tobytes() != new.tobytes():
            wide = np.complex128 if types[0].dtype.is_complex else np.float64
            with np.errstate(all="ignore"):
                distances = np.abs(old.astype(wide) - new.astype(wide))
            count = int((distances != 0).sum())
            yield f"weight {name}: {count:,} of {old.size:,} elements differ, by up to {distances.max():.3g}"
