"""Reading what the commands are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.errors import ParseError

if TYPE_CHECKING:
    from graphc.ir import Graph

STDIN = "-"


def is_package(path: str) -> bool:
    """Whether a file is a saved program rather than text; by its first bytes, as names may be anything."""
    if path == STDIN:
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def read_graphs(path: str) -> list[tuple[str, Graph]]:
    """The graphs of a text or a saved program with their names; `-` is the standard input."""
    if is_package(path):
        from graphc.package import read_package

        return [(name, entry.graph) for name, entry in read_package(path).entries.items()]
    from graphc.parse import parse_graphs

    data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    name = "<stdin>" if path == STDIN else path
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "graphs are UTF-8 text, saved programs zip files"
        raise ParseError(f"{name}, line {line}: this is not text", hint=hint, at=name) from None
    return [(graph.name, graph) for graph in parse_graphs(text, name)]
