"""The page: what is drawn as columns of numbers and words, and the HTML around it, in one file that needs no other."""

from __future__ import annotations

import base64
import gzip
import json
import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from graphc.backend import ShowsCode, get_backend
from graphc.errors import Location
from graphc.flops import node_flops
from graphc.graph_view.layout import layered
from graphc.graph_view.stages import Stage, stages
from graphc.ir import Graph, Node, Value
from graphc.kernel_info import KernelCode, nodes_of_graph
from graphc.text import print_attribute, value_names

GENERATOR = '<meta name="generator" content="graphc view">'
"""What stands at the beginning of a page, and of no other file."""
_LONGEST = 4000
"""Characters of an attribute that are shown."""
_LONGEST_CODE = 400_000
"""Characters of a kernel's code that are shown."""


@dataclass(frozen=True)
class Page:
    """A finished page."""

    html: str
    nodes: int
    """Of the first stage."""
    stages: tuple[str, ...]
    """What was done to the graph."""
    kernels: int


def make_page(graph: Graph, *, title: str | None = None, code: bool = True, backend: str = "llvm") -> Page:
    """The page of a graph whose sizes are numbers. Without `code`, kernels are shown, and not their LLVM IR and assembly.

    >>> from graphc.parse import parse_graph
    >>> page = make_page(parse_graph('''graph @f(%x: float32[4]) -> float32[4] {
    ...   %0 = neg(%x) : float32[4]
    ...   %1 = neg(%0) : float32[4]
    ...   %2 = tanh(%1) : float32[4]
    ...   return %2
    ... }'''), code=False)
    >>> page.nodes, page.stages, page.kernels
    (3, ('traced', 'simplify'), 1)
    """
    found = stages(graph)
    made = get_backend(backend)
    kernels = made.code(found[-1].graph, assembly=code) if isinstance(made, ShowsCode) else []
    data = _Data()
    document = {
        "title": title or graph.name,
        "stages": data.stages(found, kernels),
        "kernels": [data.kernel(kernel, code) for kernel in kernels],
        "words": data.words,
        "lines": data.lines,
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Page(_html(title or graph.name, text), len(graph.nodes), tuple(stage.name for stage in found), len(kernels))


def _html(title: str, data: str) -> str:
    folder = resources.files("graphc.graph_view")
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("view.html", "view.css", "view.js")}
    packed = base64.b64encode(gzip.compress(data.encode(), 6, mtime=0)).decode("ascii")
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    # in this order: what is put in is not looked at again
    page = parts["view.html"]
    for mark, text in (("@@title@@", escaped), ("@@style@@", parts["view.css"]), ("@@script@@", parts["view.js"]),
                       ("@@data@@", packed)):  # fmt: skip
        page = page.replace(mark, text, 1)
    return page


class _Data:
    """The parts of the document. Words, which repeat, are numbers in it."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}
        self.lines: list[tuple[int, int, int]] = []
        """File and line, the function, and the text that stands there, each a word but for the line's number."""
        self._places: dict[Location | None, int] = {None: -1}

    def stages(self, found: Sequence[Stage], kernels: Sequence[KernelCode]) -> list[dict[str, Any]]:
        """The stages. Each node has the kernel that it, or what became of it, is computed by."""
        last = nodes_of_graph(found[-1].graph, [kernel.info for kernel in kernels])
        groups: list[dict[Node, int]] = [last]
        for stage in reversed(found[1:]):
            groups.append({old: groups[-1][new] for new, old in stage.same.items() if new in groups[-1]})
        groups.reverse()
        following = [*(stage.same for stage in found[1:]), None]
        return [self._stage(stage, group, kept) for stage, group, kept in zip(found, groups, following, strict=True)]

    def kernel(self, kernel: KernelCode, code: bool) -> dict[str, Any]:
        """A kernel, with its code."""
        info = kernel.info
        return {
            "name": info.name, "title": info.title, "kind": info.kind, "flops": str(info.flops), "bytes": str(info.bytes),
            "lines": [self._line(location) for location in info.locations], "text": info.text,
            "ir": _cut(kernel.ir) if code else "", "assembly": _cut(kernel.assembly) if code else "",
        }

    def _stage(self, stage: Stage, groups: dict[Node, int], kept: dict[Node, Node] | None) -> dict[str, Any]:
        graph = stage.graph
        names = value_names(graph)
        numbers: dict[Value, int] = {}
        operands: list[list[int]] = []
        rows: list[tuple[int, ...]] = []
        alive = None if kept is None else set(kept.values())
        for value in graph.inputs:
            numbers[value] = len(operands)
            operands.append([])
            meaning = ", ".join(f"{key} = {text}" for key, text in value.info.items())
            rows.append((*self._numbers_of("input", names[value], str(value.type), meaning), -1, -1, 0, 0))
        constants = _constants(graph)
        for node in graph.nodes:
            if node in constants:
                continue
            number = len(operands)
            operands.append([numbers[operand] for operand in node.operands if operand.node not in constants])
            numbers.update(dict.fromkeys(node.results, number))
            types = ", ".join(str(result.type) for result in node.results)
            about = [f"{name} = {_shortened(print_attribute(value))}" for name, value in node.attrs.items()]
            about += [f"operand {i} = {constants[operand.node]}" for i, operand in enumerate(node.operands)
                      if operand.node in constants]
            attributes = "\n".join(about)
            change = (1 if alive is not None and node not in alive else 0) | (2 if stage.same and node not in stage.same else 0)
            if stage.name != "traced" and not stage.same:
                change |= 2
            flops = node_flops(node)
            rows.append((
                *self._numbers_of(node.op.name, ", ".join(names[result] for result in node.results), types, attributes),
                self._line(node.location), groups.get(node, -1), change, flops if isinstance(flops, int) else 0,
            ))  # fmt: skip
        for i, value in enumerate(graph.outputs):
            operands.append([numbers[value]] if value in numbers else [])
            name = graph.output_names[i] if graph.output_names else str(i)
            rows.append((*self._numbers_of("output", name, str(value.type), ""), -1, -1, 0, 0))
        place = layered(operands)
        keys = ("op", "names", "type", "attributes", "line", "kernel", "change", "flops")
        columns = dict(zip(keys, map(list, zip(*rows)))) if rows else {key: [] for key in keys}
        return {"name": stage.name, "count": len(graph.nodes), **columns, "operands": operands, "layer": place.layers,
                "column": [round(column, 2) for column in place.columns]}

    def _numbers_of(self, *texts: str) -> Iterable[int]:
        return [self._word(text) for text in texts]

    def _word(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self.words))
        if number == len(self.words):
            self.words.append(text)
        return number

    def _line(self, location: Location | None) -> int:
        known = self._places.get(location)
        if known is None or location is None:
            if location is None:
                return -1
            known = self._places[location] = len(self.lines)
            source = linecache.getline(location.file, location.line).strip()
            self.lines.append((self._word(location.file), location.line, self._word(f"{location}\n{source}")))
        return known


def _constants(graph: Graph) -> dict[Node, str]:
    """The nodes that are numbers in the code, perhaps stretched: what they are. They are not drawn."""
    found: dict[Node, str] = {}
    for node in graph.nodes:
        if node.op.name == "constant" and node.result.type.size == 1:
            found[node] = print_attribute(node.attrs["value"]).strip("[]")
        elif node.op.name in ("broadcast_to", "reshape", "cast") and node.operands[0].node in found:
            found[node] = found[node.operands[0].node]
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"


def _cut(text: str) -> str:
    if len(text) <= _LONGEST_CODE:
        return text
    return f"{text[:_LONGEST_CODE]}\n... ({len(text) - _LONGEST_CODE} more characters)"
