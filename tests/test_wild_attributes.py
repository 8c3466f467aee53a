"""Saved files whose ops have attributes of any kind and size: refused when they are read, or harmless when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from op_samples import draw, graph_of
from package_files import rewrite

import graphc.ops  # noqa: F401  (registers the ops)
from graphc.errors import GraphcError, PackageError
from graphc.interpret import interpret
from graphc.op import OPS
from graphc.package import read_package, write_package
from graphc.text import print_attribute, print_graph
from graphc.types import float32, int64

WILD: tuple[Any, ...] = (
    None, True, 0, -1, 7, 10**20, 0.5, float("nan"), 1j, "", "sum", (), (0,), (-1,), (7,), (2**62, 2**62), (1.5,), ("a",),
    (None,), (1,) * 40, ((0, 1),), float32, (int64,),
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(name for name, record in OPS.items() if record.attrs))
def test_wild_attributes(name: str, tmp_path: Path) -> None:
    record = OPS[name]
    sample = record.samples[0]
    arrays = draw(sample, name)
    graph = graph_of(record, sample, arrays)
    path = tmp_path / "model.gcz"
    write_package(path, {"main": graph}, {})
    text = print_graph(graph)
    (node,) = (node for node in graph.nodes if node.op is record)
    for attribute, value in node.attrs.items():
        plain = f"{attribute} = {print_attribute(value)}"
        right = next(form for indent in ("", "  ", "    ") if (form := plain.replace("\n", f"\n{indent}")) in text)
        for wild in WILD:
            changed = text.replace(right, f"{attribute} = {print_attribute(wild)}")
            rewrite(path, members={"graphs/main.gir": changed.encode()})
            try:
                package = read_package(path)
            except PackageError:
                continue
            read = package.entries["main"].graph
            if sum(value.type.size for node in read.nodes for value in node.results) < 10**6:
                try:
                    interpret(read, arrays)
                except GraphcError as error:
                    assert str(error), f"{attribute} = {wild!r}"
