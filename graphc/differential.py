"""Whether compiled code computes what the ops are defined to compute, and at which node it first does not.

The definitions are those of `graphc.interpret`. Compiled sums have another order, and elementary functions other last bits:
results agree if they differ by no more than rounding explains, of which there is an estimate in the difference between
the definitions as they are and in float64.

>>> import numpy as np
>>> from graphc.parse import parse_graph
>>> graph = parse_graph("graph @main(%x: float32[3]) -> float32[3] {\\n  %0 = exp(%x) : float32[3]\\n  return %0\\n}")
>>> check(graph, [np.ones(3, np.float32)]) is None
True
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphc.autodiff import extract
from graphc.backend import Entry, Executable, Layout
from graphc.bind import bind_graph, bind_sizes
from graphc.compiler import compile_graph, executable
from graphc.errors import AccuracyError, GraphcError
from graphc.interpret import evaluate, interpret
from graphc.ir import Graph, Node, Value
from graphc.specs import EntrySpec
from graphc.types import DType, bfloat16, complex32, complex64, complex128, float16, float32, float64

TOLERANCES: Mapping[DType, float] = {
    bfloat16: 2e-2, float16: 4e-3, float32: 2e-5, float64: 1e-11, complex32: 4e-3, complex64: 2e-5, complex128: 1e-11,
}
"""By how much results of a dtype may differ, relative to the greatest number of the result. Other dtypes agree to the bit."""
_NOISE = 16.0
"""How many times the rounding errors of the definitions those of compiled code may be."""


@dataclass(frozen=True)
class Mismatch:
    """Where two arrays differ more than they may."""

    index: tuple[int, ...]
    """The element that differs most."""
    expected: Any
    got: Any
    error: float
    """The greatest difference; infinite where one of the two is no finite number."""
    count: int
    """How many elements differ too much."""
    size: int

    def __str__(self) -> str:
        return f"{self.got} at {list(self.index)}, off by {self.error:.3g}; {self.count} of {self.size} elements differ"


@dataclass(frozen=True)
class Failure:
    """How a graph fails: another result, an exception, or the end of the process."""

    kind: Literal["wrong", "error", "crash"]
    detail: str
    exception: str = ""
    """The name of the exception's class."""

    def resembles(self, other: Failure | None) -> bool:
        """Whether another failure is likely to have the same cause."""
        return other is not None and (self.kind, self.exception) == (other.kind, other.exception)

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Difference:
    """The first node whose result is not what its op is defined to make of its operands."""

    node: Node
    result: int
    mismatch: Mismatch


def mismatch(got: np.ndarray, expected: np.ndarray, dtype: DType, exact: np.ndarray | None = None) -> Mismatch | None:
    """Where `got` differs from `expected` by more than rounding; None if nowhere. `exact` is the result in float64."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        wanted, made = (f"{array.dtype}{list(array.shape)}" for array in (expected, got))
        return Mismatch((), wanted, made, np.inf, got.size, got.size)
    if not got.size:
        return None
    tolerance = TOLERANCES.get(dtype)
    if tolerance is None:
        wrong = np.asarray(got != expected)
        errors = np.where(wrong, np.abs(got.astype(np.float64) - expected.astype(np.float64)), 0.0)
        errors = np.where(wrong & (errors == 0), 1.0, errors)
    else:
        wide = np.complex128 if dtype.is_complex else np.float64
        left, right = got.astype(wide), expected.astype(wide)
        with np.errstate(all="ignore"):
            errors = np.abs(left - right)
            same = (left == right) | (np.isnan(left) & np.isnan(right))
            errors = np.where(same, 0.0, np.where(np.isnan(errors), np.inf, errors))
            finite = np.abs(right[np.isfinite(right)])
            allowed = tolerance * max(float(finite.max(initial=0.0)), float(np.finfo(np.float32).tiny))
            if exact is not None:
                noise = np.abs(right - exact)
                # where the definition itself has overflowed by rounding, anything goes
                errors = np.where(np.isfinite(right) | ~np.isfinite(exact), errors, 0.0)
                allowed += _NOISE * float(noise[np.isfinite(noise)].max(initial=0.0))
            wrong = errors > allowed
    if not wrong.any():
        return None
    place = np.unravel_index(int(np.argmax(np.where(wrong, errors, -1.0))), errors.shape)
    index = tuple(int(i) for i in place)
    return Mismatch(index, expected[index], got[index], float(errors[index]), int(np.count_nonzero(wrong)), int(got.size))


def check(graph: Graph, arrays: Sequence[np.ndarray], *, backend: str | None = None) -> Failure | None:
    """How the compiled graph fails on these inputs; None if it does not. An error that the definitions raise too is none."""
    arrays = [np.asarray(array) for array in arrays]
    try:
        graph = bind_graph(graph, bind_sizes(graph, [array.shape for array in arrays]))
        expected = interpret(graph, arrays)
    except (GraphcError, ArithmeticError, ValueError, IndexError):
        return None
    try:
        got = compile_graph(graph, backend=backend)(*arrays)
    except Exception as error:
        text = error.problem if isinstance(error, GraphcError) else str(error).partition("\n")[0]
        return Failure("error", f"{type(error).__name__}: {text}", type(error).__name__)
    found = _first_wrong(graph, arrays, got, expected)
    return None if found is None else Failure("wrong", f"output {found[0]} is {found[1]}, not {found[1].expected}")


def _first_wrong(
    graph: Graph, arrays: Sequence[np.ndarray], got: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[int, Mismatch] | None:
    """The first output that is wrong. That in float64 is computed only where the outputs seem to be."""
    exact: list[np.ndarray | None] | None = None
    for j, value in enumerate(graph.outputs):
        if mismatch(got[j], expected[j], value.dtype) is None:
            continue
        if exact is None:
            known = _widely(graph, arrays)
            exact = [known.get(v) for v in graph.outputs]
        found = mismatch(got[j], expected[j], value.dtype, exact[j])
        if found is not None:
            return j, found
    return None


def first_difference(graph: Graph, arrays: Sequence[np.ndarray], *, backend: str | None = None) -> Difference | None:
    """The first node at which compiled code goes wrong; None if it does not.

    Each node is judged by what the compiled code has given it, so errors of others do not count. Where that finds nothing,
    since values that are wanted are not fused, prefixes of the graph are tried.
    """
    arrays = [np.asarray(array) for array in arrays]
    graph = bind_graph(graph, bind_sizes(graph, [array.shape for array in arrays]))
    values = [result for node in graph.nodes for result in node.results]
    probe = Graph(graph.name, graph.inputs, graph.nodes, values)
    known = dict(zip(graph.inputs, arrays)) | dict(zip(values, compile_graph(probe, backend=backend)(*arrays)))
    nodes = [node for node in graph.nodes if node.operands]
    for node in nodes:
        operands = [known[v] for v in node.operands]
        for i, (value, right, exact) in enumerate(zip(node.results, _apply(node, operands), _apply_widely(node, operands))):
            found = mismatch(known[value], right, value.dtype, exact)
            if found is not None:
                return Difference(node, i, found)
    return _first_by_prefixes(graph, arrays, nodes, backend)


def _first_by_prefixes(
    graph: Graph, arrays: Sequence[np.ndarray], nodes: Sequence[Node], backend: str | None
) -> Difference | None:
    """The first node whose result is wrong as the only output of a graph."""
    expected = evaluate(graph, arrays)
    low, high = 0, len(nodes)
    found: Difference | None = None
    while low < high:
        middle = (low + high) // 2
        node = nodes[middle]
        prefix = extract(graph.name, graph.inputs, graph.nodes, node.results)
        got = compile_graph(prefix, backend=backend)(*arrays)
        wrong = _first_wrong(prefix, arrays, got, [expected[v] for v in node.results])
        if wrong is None:
            low = middle + 1
        else:
            found, high = Difference(node, *wrong), middle
    return found


def _apply(node: Node, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        results = node.op.ref(*operands, **node.attrs)
    return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))


def _apply_widely(node: Node, operands: Sequence[np.ndarray]) -> tuple[np.ndarray | None, ...]:
    """The same in float64; None where the op does not take that."""
    try:
        with np.errstate(all="ignore"):
            attrs = {name: _wide_attribute(attribute) for name, attribute in node.attrs.items()}
            results = node.op.ref(*map(_wide, operands), **attrs)
    except (GraphcError, ArithmeticError, ValueError, TypeError, IndexError):
        return (None,) * len(node.results)
    return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))


def _widely(graph: Graph, arrays: Sequence[np.ndarray]) -> dict[Value, np.ndarray]:
    """The values of a graph in float64, as far as its ops take that."""
    known: dict[Value, np.ndarray] = dict(zip(graph.inputs, map(_wide, map(np.asarray, arrays))))
    for node in graph.nodes:
        if all(v in known for v in node.operands):
            results = _apply_widely(node, [known[v] for v in node.operands])
            known |= {v: r for v, r in zip(node.results, results) if r is not None and r.shape == v.shape}
    return known


def _wide(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def _wide_attribute(attribute: Any) -> Any:
    if isinstance(attribute, np.ndarray):
        return _wide(attribute)
    if isinstance(attribute, DType) and attribute.is_differentiable:
        return complex128 if attribute.is_complex else float64
    return attribute


class Verified:
    """An executable whose every run is compared with the definitions of the graph's ops; slow, and not for production."""

    def __init__(self, graph: Graph, layout: Layout, backend: str | None = None) -> None:
        self._code: Executable = executable(graph, layout, backend=backend)
        self._graph = graph
        self._donated = dict(layout.donated)
        self._backend = backend
        self.inputs = self._code.inputs
        self.outputs = self._code.outputs

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute into `outputs`. AccuracyError where they are wrong, which names the first node that differs; what would have
        been overwritten then is as it was."""
        before = [np.array(array, order="C") for array in inputs]
        self._code.run(inputs, outputs)
        found = _first_wrong(self._graph, before, outputs, interpret(self._graph, before))
        if found is None:
            return
        for i in self._donated.values():
            inputs[i][...] = before[i]
        raise _accuracy_error(self._graph, *found, first_difference(self._graph, before, backend=self._backend))

    @property
    def preparation(self) -> None:
        """None: all is to be checked."""

    def at(self, sizes: Mapping[str, int]) -> Verified:
        """The same with numbers for symbolic sizes."""
        new = copy.copy(self)
        new._code, new._graph = self._code.at(sizes), bind_graph(self._graph, sizes)
        new.inputs, new.outputs = new._code.inputs, new._code.outputs
        return new

    def entry(self, spec: EntrySpec) -> Entry | None:
        """None: all calls are checked."""
        return None


def _accuracy_error(graph: Graph, output: int, wrong: Mismatch, first: Difference | None) -> AccuracyError:
    problem = f"{graph.name}: output {output} of the compiled code is not what its ops are defined to compute"
    if first is None:
        return AccuracyError(problem, expected=str(wrong.expected), got=str(wrong), at="no single node is wrong by itself",
                             hint="this is a bug in graphc: graphc.minify makes a small graph for a report")
    node = first.node
    return AccuracyError(
        f"{problem}: the first node that differs is {node.op.name}",
        expected=f"{first.mismatch.expected}, of {node!r}",
        got=f"{first.mismatch}",
        hint="this is a bug in graphc: graphc.minify makes a small graph for a report",
        at=node.location or repr(node),
    )
