"""The files of the commands: reading what they are given, and making sure that results can be written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphc.dims import Dim
from graphc.errors import ArgumentError, ParseError

if TYPE_CHECKING:
    import numpy as np

    from graphc.ir import Graph
    from graphc.types import DType

CaseFile = Annotated[str, typer.Argument(help="A text (.gir) or a saved program (.gcz).")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="An input; once for each.")
]
InputsFile = Annotated[
    str | None, typer.Option("--inputs", metavar="FILE.npz", help="Inputs by their names, or in0, in1 and so on.")
]
Seed = Annotated[int, typer.Option(help="Inputs that are not given are random numbers.")]
EntryName = Annotated[str | None, typer.Option(help="The graph; by default the first.")]
BackendName = Annotated[str | None, typer.Option(help='"llvm" or "reference".')]

STDIN = "-"
_UNKNOWN_SIZE = 5
"""What symbolic sizes are that no input tells."""


def is_package(path: str) -> bool:
    """Whether a file is a saved program rather than text: by its first bytes, as names may be anything, and by its name where
    it should be one."""
    if path == STDIN:
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"PK" or path.endswith(".gcz")


def check_writable(*paths: str | None) -> None:
    """Fail now where a result could not be written later, or would be written over another; None is a file that nobody wants.
    What is not there yet is not there afterwards."""
    from graphc.package.replacing import is_replaceable

    seen: set[str] = set()
    for path in paths:
        if path is None:
            continue
        target = os.path.realpath(path)
        if is_replaceable(path):
            if target in seen:
                raise ArgumentError(f"{path} is named for two results", expected="a file for each")
            seen.add(target)
        if os.path.exists(target) and stat.S_ISFIFO(os.stat(target).st_mode):
            continue  # to open a pipe is to wait for who reads it, and to close it is its end
        new = not os.path.exists(target)
        with open(path, "ab"):
            pass
        if new:
            os.unlink(target)


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


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file; ArgumentError for a file of another kind. Nothing in it is executed."""
    import numpy as np

    with open(path, "rb") as file:
        start = file.read(6)
        file.seek(0)
        if start[:2] == b"PK":
            raise ArgumentError(f"{path} holds several arrays", expected="a .npy file with one")
        problem = f"{path} is not a .npy file of numbers"
        if start != b"\x93NUMPY":
            raise ArgumentError(problem, hint="write it with numpy.save")
        try:
            array: np.ndarray = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ArgumentError(f"{problem}: {error}", hint="write it with numpy.save") from None
    return array


def of_dtype(array: np.ndarray, dtype: DType) -> np.ndarray:
    """An array of a file for an input: .npy files have no name for bfloat16, and tell of two bytes alone."""
    unnamed = array.dtype.kind == "V" and array.dtype.names is None and dtype.numpy.kind == "V"
    return array.view(dtype.numpy) if unnamed and array.dtype.itemsize == dtype.itemsize else array


def read_case(
    path: str, entry: str | None, inputs: Sequence[str], numbers: str | None, seed: int, size: int = _UNKNOWN_SIZE
) -> tuple[Graph, list[np.ndarray]]:
    """A graph of a file and arrays for its inputs: from .npy files given as NAME=FILE, from an .npz file with their names, a
    saved program's weights, and for all others numbers drawn by a seed. Symbolic sizes that no file tells are `size`."""
    import numpy as np

    graphs = dict(read_graphs(path))
    name = next(iter(graphs)) if entry is None and graphs else entry
    if name not in graphs:
        raise ArgumentError(f"{path} has no graph {name!r}", expected=f"one of {', '.join(graphs)}")
    graph = graphs[name]
    given: dict[str, np.ndarray] = {}
    if is_package(path):
        from graphc.package import read_package

        package = read_package(path)
        weights = package.entries[name].weights
        given = {_label(graph, i): package.weights[weight] for i, weight in weights.items()}
    if numbers is not None:
        with np.load(numbers, allow_pickle=False) as stored:
            given |= {key: stored[key] for key in stored.files}
    for text in inputs:
        key, sign, file = text.partition("=")
        if not sign:
            raise ArgumentError(f"--input {text}", expected="NAME=FILE.npy")
        given[key] = read_array(file)
    labels = [_label(graph, i) for i in range(len(graph.inputs))]
    if unknown := given.keys() - set(labels):
        raise ArgumentError(f"{path} has no input {min(unknown)!r}", expected=f"some of {', '.join(labels)}")
    rng = np.random.default_rng(seed)
    sizes = _sizes(graph, [given.get(label) for label in labels], size)
    arrays = []
    for label, value in zip(labels, graph.inputs):
        array = given.get(label)
        if array is None:
            shape = value.type.bind(sizes).shape
            integers = value.dtype.kind not in ("float", "complex")
            drawn = rng.integers(0, 2, shape) if integers else rng.standard_normal(shape)
            array = np.asarray(drawn).astype(value.dtype.numpy)
        arrays.append(of_dtype(np.asarray(array), value.dtype))
    return graph, arrays


def _sizes(graph: Graph, given: Sequence[np.ndarray | None], number: int) -> dict[str, int]:
    """The symbolic sizes of a graph: those of the arrays that are given, and a number for the others."""
    sizes: dict[str, int] = {}
    unknown: set[str] = set()
    for value, array in zip(graph.inputs, given):
        for i, dim in enumerate(value.shape):
            symbols = dim.symbols() if isinstance(dim, Dim) else frozenset()
            if array is not None and len(symbols) == 1 and str(dim) in symbols:
                sizes.setdefault(str(dim), array.shape[i])
            unknown |= symbols
    return dict.fromkeys(unknown, number) | sizes


def _label(graph: Graph, index: int) -> str:
    return graph.inputs[index].name or f"in{index}"
