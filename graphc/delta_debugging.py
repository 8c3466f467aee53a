"""Making a failing graph small: nodes are taken out in ever smaller pieces as long as it goes on to fail in the same way.

What a piece that is taken out has computed becomes an input, with the numbers that the ops are defined to give there. This is
the method of Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (IEEE Transactions on Software
Engineering 28, 2002).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphc.autodiff import extract
from graphc.bind import bind_graph, bind_sizes
from graphc.config import config
from graphc.differential import Failure, check
from graphc.errors import ArgumentError, GraphcError
from graphc.interpret import evaluate
from graphc.ir import Graph, Node, Value
from graphc.text import print_graph

Check = Callable[[Graph, Sequence[np.ndarray]], "Failure | None"]

_PATIENCE = 120.0
"""Seconds that a process on its own may take for one graph."""
_RECIPES: dict[str, Callable[[tuple[int, ...], np.dtype], np.ndarray]] = {
    "numpy.zeros(shape, dtype)": np.zeros,
    "numpy.ones(shape, dtype)": np.ones,
    "numpy.arange(size).reshape(shape).astype(dtype)": lambda shape, dtype: np.arange(np.prod(shape, dtype=int))
    .reshape(shape).astype(dtype),
    "numpy.random.default_rng(0).standard_normal(shape).astype(dtype)": lambda shape, dtype: np.random.default_rng(0)
    .standard_normal(shape).astype(dtype),
}
"""Inputs that need no file, by how to make them."""


@dataclass(frozen=True)
class Minimal:
    """A small graph that fails, and inputs that it fails on."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]
    recipe: str | None
    """How all inputs are made; None if it takes their very numbers."""
    failure: Failure

    def report(self) -> str:
        """What belongs in a bug report: the failure, the graph, and the inputs, unless they are large."""
        lines = [f"# {self.failure}", *(f"# {line}" for line in _versions()), print_graph(self.graph)]
        if self.recipe is not None:
            lines.append(f"# inputs: {self.recipe}")
        else:
            with np.printoptions(threshold=64, floatmode="unique"):
                names = [v.name or str(i) for i, v in enumerate(self.graph.inputs)]
                text = [f"{name} = {array!r}" for name, array in zip(names, self.inputs)]
            lines += [f"# {line}" for one in text for line in one.splitlines()]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the report to `path` and, where it takes their numbers, the inputs to a file .npz beside it."""
        path = Path(path)
        path.write_text(f"{self.report()}\n", encoding="utf-8")
        if self.recipe is None:
            names = [v.name or f"in{i}" for i, v in enumerate(self.graph.inputs)]
            _save(path.with_suffix(".npz"), dict(zip(names, map(_plain, self.inputs))))


def minify_graph(
    graph: Graph,
    arrays: Sequence[np.ndarray],
    *,
    backend: str | None = None,
    fails: Check | None = None,
    isolated: bool | None = None,
) -> Minimal:
    """The smallest graph that can be found which fails as `graph` does on these inputs; ArgumentError if it does not fail.

    fails
        How a graph fails on inputs, None if it does not; by default the compiled code is compared with the definitions.
    isolated
        Whether each graph is tried in a process of its own, so that one may crash. By default the first one is, and the
        others if that crashed.
    """
    arrays = [np.asarray(array) for array in arrays]
    graph = bind_graph(graph, bind_sizes(graph, [array.shape for array in arrays]))

    def alone(graph: Graph, arrays: Sequence[np.ndarray]) -> Failure | None:
        return check_isolated(graph, arrays, backend=backend)

    def here(graph: Graph, arrays: Sequence[np.ndarray]) -> Failure | None:
        return check(graph, arrays, backend=backend)

    chosen = fails or (here if isolated is False else alone)
    failure = chosen(graph, arrays)
    if failure is None and isolated is None and fails is None:
        chosen = here  # what only this process does, such as a rule that somebody has added
        failure = chosen(graph, arrays)
    elif failure is not None and failure.kind != "crash" and isolated is None and fails is None:
        chosen = here
    if failure is None:
        raise ArgumentError(f"graph {graph.name!r} does not fail on these inputs", expected="a graph that fails",
                            hint="pass inputs that it fails on")
    return _Reduction(graph, arrays, failure, chosen).run()


def check_isolated(graph: Graph, arrays: Sequence[np.ndarray], *, backend: str | None = None) -> Failure | None:
    """`check` of `graphc.differential` in a process of its own, whose end by a signal is a failure, too."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "graph.gir").write_text(print_graph(graph), encoding="utf-8")
        _save(place / "inputs.npz", {str(i): _plain(array) for i, array in enumerate(arrays)})
        command = "from graphc.delta_debugging import _answer; _answer()"
        given = json.dumps({"path": sys.path, "folder": folder, "backend": backend or config.backend, "fuel": config.fuel})
        setup = "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given['path']; "
        try:
            done = subprocess.run([sys.executable, "-c", setup + command, given], capture_output=True, text=True,
                                  timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return Failure("crash", f"no end within {_PATIENCE:g} seconds")
        answer = place / "answer.json"
        if answer.exists():
            found = json.loads(answer.read_text(encoding="utf-8"))
            return None if found is None else Failure(**found)
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        return Failure("crash", f"the process ended with {done.returncode}: {last[0]}")


def _answer() -> None:
    """What the process does."""
    from graphc.config import override
    from graphc.parse import parse_graph

    given = json.loads(sys.argv[1])
    place = Path(given["folder"])
    try:
        graph = parse_graph((place / "graph.gir").read_text(encoding="utf-8"))
    except GraphcError:  # an op that only the other process has: it cannot be tried here
        (place / "answer.json").write_text("null", encoding="utf-8")
        return
    with np.load(place / "inputs.npz") as stored:
        arrays = [stored[str(i)].view(v.dtype.numpy).reshape(v.shape) for i, v in enumerate(graph.inputs)]
    with override(fuel=given["fuel"]):
        found = check(graph, arrays, backend=given["backend"])
    answer = None if found is None else {"kind": found.kind, "detail": found.detail, "exception": found.exception}
    (place / "unfinished").write_text(json.dumps(answer), encoding="utf-8")
    (place / "unfinished").rename(place / "answer.json")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _plain(array: np.ndarray) -> np.ndarray:
    """As a dtype that .npy files know."""
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array


def _versions() -> list[str]:
    from importlib.metadata import version

    import llvmlite

    return [f"graphc {version('graphc')}, llvmlite {llvmlite.__version__}, Python {sys.version.split()[0]}, {sys.platform}, "
            f"CPU {config.cpu}"]


class _Reduction:
    """One search. The state is which nodes are left, and which values are returned."""

    def __init__(self, graph: Graph, arrays: Sequence[np.ndarray], failure: Failure, fails: Check) -> None:
        self.whole = graph
        self.failure = failure
        self.fails = fails
        self.values: dict[Value, np.ndarray] = evaluate(graph, arrays)
        self.nodes: list[Node] = list(graph.nodes)
        self.outputs: list[Value] = list(dict.fromkeys(graph.outputs))
        self.best, self.arrays = graph, list(arrays)

    def run(self) -> Minimal:
        """Fewer outputs, fewer nodes, simpler numbers."""
        for output in self.outputs if len(self.outputs) > 1 else ():
            if self._try(self.nodes, [output]):
                break
        before = len(self.nodes) + 1
        while len(self.nodes) < before:
            before = len(self.nodes)
            size = max(1, before // 2)
            while True:
                self._sweep(size)
                if size == 1:
                    break
                size = max(1, size // 2)
        return self._finish()

    def _sweep(self, size: int) -> None:
        """Take out pieces of so many nodes, the last ones first."""
        end = len(self.nodes)
        while end > 0:
            start = max(0, end - size)
            self._take_out(self.nodes[start:end])
            end = min(start, len(self.nodes))

    def _take_out(self, piece: Sequence[Node]) -> bool:
        gone = set(piece)
        left = [node for node in self.nodes if node not in gone]
        if not left:
            return False
        outputs = [v for v in self.outputs if v.node not in gone]
        if len(outputs) < len(self.outputs):
            # what the piece has read is to be seen in its place
            made = {result for node in left for result in node.results}
            outputs += [v for node in piece for v in node.operands if v in made]
        return bool(outputs) and self._try(left, list(dict.fromkeys(outputs)))

    def _try(self, nodes: Sequence[Node], outputs: Sequence[Value]) -> bool:
        """Keep these nodes and outputs if that still fails."""
        graph, sources = _cut(self.whole.name, nodes, outputs)
        arrays = [np.ascontiguousarray(self.values[v]) for v in sources]
        failure = self.fails(graph, arrays)
        if not self.failure.resembles(failure) or failure is None:
            return False
        self.best, self.arrays, self.failure = graph, arrays, failure
        self.nodes = _needed(nodes, outputs)
        self.outputs = list(outputs)
        return True

    def _finish(self) -> Minimal:
        for recipe, make in _RECIPES.items():
            arrays = [make(v.shape, v.dtype.numpy) for v in self.best.inputs]
            failure = self.fails(self.best, arrays)
            if failure is not None and self.failure.resembles(failure):
                return Minimal(self.best, tuple(arrays), recipe, failure)
        return Minimal(self.best, tuple(self.arrays), None, self.failure)


def _needed(nodes: Sequence[Node], outputs: Collection[Value]) -> list[Node]:
    """The nodes that lead to outputs."""
    live = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(r in live for r in node.results):
            live.update(node.operands)
            kept.append(node)
    return kept[::-1]


def _cut(name: str, nodes: Sequence[Node], outputs: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """A graph of some nodes of another one, and what its inputs are there."""
    kept = _needed(nodes, outputs)
    made = {result for node in kept for result in node.results}
    sources = list(dict.fromkeys(v for values in (*(node.operands for node in kept), outputs) for v in values if v not in made))
    return extract(name, sources, kept, outputs), sources
