"""The tree of a function whose way depends on numbers: what runs between two questions of Python, and where answers lead.

A path is what one call has computed: stretches of nodes, each of which ends with a question. Paths that begin alike share
their segments. Values belong to the tree: a call that Python runs again is compared with it node by node, and what it
calls its values is translated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import Location
from graphc.frontend.capture import Capture, differs, given_as, gradient_differs
from graphc.frontend.device_arrays import index_of
from graphc.frontend.graph_call import ArrayFunction
from graphc.frontend.native import strides_of
from graphc.frontend.trace_inputs import Argument, Captured, Gradient, Lifted, Number, Source
from graphc.ir import Builder, Graph, Node, Value, attribute_key, copy_node

MOST_BRANCHES = 32
"""Answers to one question that ways are kept for."""
_MOST_VARIANTS = 4
"""Ways kept for one answer: they differ in what no answer tells, such as whether there was a gradient."""
_MOST_SEGMENTS = 1 << 13
"""Segments of a tree, all rounds of its loops included; what comes then is not kept."""
_MOST_FUNCTIONS = 1 << 10
"""Graphs of segments that code is kept for."""

Env = dict[Value, np.ndarray]
"""The values that a call knows so far."""


@dataclass(frozen=True, eq=False)
class Question:
    """What Python wanted to know."""

    value: Value
    kind: type[bool] | type[int] | None
    """None where it can make anything of the numbers: each call has to run Python then."""
    what: str
    location: Location | None

    def __str__(self) -> str:
        return f"{self.what} of {self.value.type}" + (f" at {self.location}" if self.location is not None else "")

    def answer(self, array: np.ndarray) -> Any:
        """What the numbers come to; the errors of int() for those that are no integers."""
        assert self.kind is not None
        return self.kind(array.item())


class Entrance:
    """An input that a segment is the first to read."""

    def __init__(self, lifted: Lifted) -> None:
        self.source = lifted.source
        self.value = Value(lifted.value.type, None, lifted.value.index)
        tensor = lifted.tensor
        self.layout = None if tensor is None else strides_of(tensor._data)
        self.place = -1 if tensor is None else index_of(tensor._data)
        self.needs_grad = lifted.needs_grad

    def matches(self, lifted: Lifted) -> bool:
        """Whether a trace has found the same."""
        tensor = lifted.tensor
        return (
            self.value.type == lifted.value.type and same_source(self.source, lifted.source)
            and (tensor is None or (strides_of(tensor._data) == self.layout and index_of(tensor._data) == self.place
                                and lifted.needs_grad == self.needs_grad))
        )

    def differs(self, leaves: Sequence[Any]) -> str | None:
        """What is different about it at a call with these arguments; it is no argument, whose types fit."""
        return differs(given_as(self.source, leaves), self.value.type, self.layout, self.needs_grad, self.place)


@dataclass(eq=False)
class Code:
    """Some nodes as a native function."""

    function: ArrayFunction
    inputs: list[Value]
    outputs: list[Value]

    def run(self, env: Mapping[Value, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs, in new arrays."""
        return self.function(*[env[value] for value in self.inputs])


@dataclass(eq=False)
class End:
    """What a path comes to."""

    capture: Capture
    signature: Any
    outputs: list[Value]
    """All outputs of the capture, in the tree's values."""
    fresh: list[int]
    """Numbers of those that the last segment makes; the others are there when it begins."""
    code: Code | None = None
    raises: bool = False
    """Whether the path ends with an exception: Python runs the function then, which raises it where it belongs."""


@dataclass(eq=False)
class Segment:
    """What runs from an answer to the next question, or to the end."""

    entrances: list[Entrance]
    gradients: list[tuple[Argument | Captured, bool]]
    """Whose gradient is looked at here, and whether there was none."""
    nodes: list[Node]
    question: Question | None
    branches: dict[Any, list[Segment]] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    needed: dict[Value, None] = field(default_factory=dict)
    """Those of its values that the question or what comes later asks for."""
    code: Code | None = None

    def __post_init__(self) -> None:
        self._guarded = [entrance for entrance in self.entrances if isinstance(entrance.source, (Captured, Gradient))]

    @property
    def is_open(self) -> bool:
        """Whether it ends with a question whose answer Python can use in any way."""
        return self.question is not None and self.question.kind is None

    def fits(self, leaves: Sequence[Any]) -> bool:
        """Whether it stands for a call with these arguments."""
        for owner, none in self.gradients:
            if gradient_differs(owner, none, leaves):
                return False
        return all(entrance.differs(leaves) is None for entrance in self._guarded) if self._guarded else True

    def enter(self, leaves: Sequence[Any], env: Env) -> None:
        """Put the arrays of the inputs that are first read here among the known ones."""
        for entrance in self.entrances:
            env[entrance.value] = given_as(entrance.source, leaves)._data

    def need(self, values: Iterable[Value]) -> None:
        """Let the segment compute these of its values, too."""
        more = [value for value in values if value not in self.needed]
        if more:
            self.needed |= dict.fromkeys(more)
            self.code = None


class Tree:
    """The segments of the calls that a function was seen to make. All changes are made under the lock."""

    def __init__(self, name: str, backend: str | None) -> None:
        self.name = name
        self.roots: list[Segment] = []
        self.segments = 0
        self.full: Question | None = None
        """A question that has had more answers than ways are kept for."""
        self.plain_numbers = False
        """Whether `item()` gives Python's own numbers: code that the others would not do for was met."""
        self.backend = backend
        self._functions: dict[Graph, ArrayFunction] = {}
        self._lock = threading.RLock()

    # Growing

    def place(
        self, among: list[Segment] | None, inputs: Sequence[Lifted], gradients: Sequence[tuple[Argument | Captured, bool]],
        nodes: Sequence[Node], asked: tuple[Value, Any, str, Location | None] | None, canon: dict[Value, Value],
    ) -> tuple[Segment, bool]:
        """The segment for what a trace has recorded since the last question, and whether it was there already.

        among
            The known ones that can come next; the segment is put first among them. None if it is not to be kept.
        canon
            The tree's values for those of the trace, to which those of the segment are added.
        """
        with self._lock:
            for segment in among or ():
                found = _matched(segment, inputs, gradients, nodes, asked, canon)
                if found is not None:
                    canon.update(found)
                    assert among is not None
                    if among[0] is not segment:
                        among.remove(segment)
                        among.insert(0, segment)
                    return segment, True
            entrances = [Entrance(lifted) for lifted in inputs]
            canon.update((lifted.value, entrance.value) for lifted, entrance in zip(inputs, entrances))
            own = [_copied(node, canon) for node in nodes]
            question = None if asked is None else Question(canon[asked[0]], *asked[1:])
            segment = Segment(entrances, list(gradients), own, question)
            if among is not None and self.segments < _MOST_SEGMENTS:
                among.insert(0, segment)
                self.segments += len(among[:_MOST_VARIANTS]) - len(among) + 1
                del among[_MOST_VARIANTS:]
            return segment, False

    def after(self, segment: Segment, answer: Any) -> list[Segment] | None:
        """What can come after an answer; None if no more ways are kept."""
        assert segment.question is not None
        with self._lock:
            found = segment.branches.get(answer)
            if found is None:
                if len(segment.branches) >= MOST_BRANCHES:
                    self.full = segment.question
                    return None
                found = segment.branches[answer] = []
            return found

    def finish(self, path: Sequence[Segment], end: End) -> None:
        """Note what the segments of a whole path have to compute for its end, which is added to them."""
        with self._lock:
            last = path[-1]
            last.ends.insert(0, end)
            del last.ends[_MOST_VARIANTS:]
            fresh = set(end.fresh)
            live = dict.fromkeys(value for j, value in enumerate(end.outputs) if j not in fresh)
            live |= dict.fromkeys(free_values(last.nodes, [end.outputs[j] for j in end.fresh]))
            for segment in reversed(path[:-1]):
                assert segment.question is not None
                live[segment.question.value] = None
                own = {value for node in segment.nodes for value in node.results}
                segment.need(value for value in live if value in own)
                live = {value: None for value in live if value not in own}
                live |= dict.fromkeys(free_values(segment.nodes, segment.needed))

    # Running

    def run(self, segment: Segment, env: Mapping[Value, np.ndarray], into: Env) -> None:
        """Compute what is needed of a segment."""
        code = segment.code
        if code is None:
            with self._lock:
                code = segment.code = self._code(segment.nodes, list(segment.needed))
        if code.outputs:
            into.update(zip(code.outputs, code.run(env)))

    def outputs(self, last: Segment, end: End, env: Mapping[Value, np.ndarray]) -> list[np.ndarray]:
        """The outputs of a path whose values before its last segment are known."""
        code = end.code
        if code is None:
            with self._lock:
                code = end.code = self._code(last.nodes, [end.outputs[j] for j in end.fresh])
        made = dict(zip(end.fresh, code.run(env) if code.outputs else ()))
        return [made[j] if j in made else env[value] for j, value in enumerate(end.outputs)]

    def _code(self, nodes: Sequence[Node], outputs: list[Value]) -> Code:
        inputs = free_values(nodes, outputs)
        nodes = [*_sources(nodes, outputs), *nodes]
        graph = _graph(self.name, nodes, inputs, outputs)
        function = self._functions.get(graph)  # the rounds of a loop are equal
        if function is None:
            if len(self._functions) >= _MOST_FUNCTIONS:
                self._functions.clear()
            function = self._functions[graph] = ArrayFunction(graph, self.backend)
        return Code(function, inputs, outputs)

    def graph_of(self, segment: Segment, outputs: Sequence[Value]) -> Graph:
        """What computes these values of a first segment of all its inputs, used or not."""
        nodes = [*_sources(segment.nodes, outputs), *segment.nodes]
        return _graph(self.name, nodes, [entrance.value for entrance in segment.entrances], outputs)

    # For people

    def lines(self) -> list[str]:
        """The tree in words, a line a segment: what runs, what is asked where, and to which segments answers lead."""
        numbers: dict[Segment, int] = {}
        pending = list(reversed(self.roots))
        while pending:
            segment = pending.pop()
            numbers[segment] = len(numbers)
            pending += reversed([s for following in list(segment.branches.values()) for s in following])
        lines = []
        for segment, number in numbers.items():
            runs = f"segment {number}: {len(segment.nodes)} node{'' if len(segment.nodes) == 1 else 's'}"
            question = segment.question
            if question is None:
                raises = any(end.raises for end in segment.ends)
                lines.append(f"{runs}, then {'an exception, which Python raises' if raises else 'the end'}")
                continue
            ways = [f"{answer}: {numbers[s]}" for answer, following in list(segment.branches.items()) for s in following
                    if s in numbers and answer is not None]
            then = "; Python goes on" if segment.is_open else f"; {', '.join(ways)}"
            lines.append(f"{runs}, then {question}{then}")
        if self.full is not None:
            lines.append(f"warning: {self.full} has had more than {MOST_BRANCHES} answers: for others Python runs the function")
        return lines


def free_values(nodes: Sequence[Node], outputs: Iterable[Value]) -> list[Value]:
    """What the nodes take from outside to compute these values, and those of the values that they do not compute, in the
    order of use. Constants are not taken, but made again."""
    return [value for value in _foreign(nodes, outputs) if not _is_source(value)]


def _sources(nodes: Sequence[Node], outputs: Iterable[Value]) -> list[Node]:
    """The constants from outside that the nodes use."""
    return list(dict.fromkeys(v.node for v in _foreign(nodes, outputs) if v.node is not None and _is_source(v)))


def _is_source(value: Value) -> bool:
    return value.node is not None and not value.node.operands


def _foreign(nodes: Sequence[Node], outputs: Iterable[Value]) -> dict[Value, None]:
    own = {value for node in nodes for value in node.results}
    wanted = list(outputs)
    live = set(wanted)
    for node in reversed(nodes):
        if any(value in live for value in node.results):
            live.update(node.operands)
    used = (v for node in nodes if any(r in live for r in node.results) for v in node.operands)
    return dict.fromkeys(value for values in (used, wanted) for value in values if value not in own)


def _graph(name: str, nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    live = set(outputs)
    for node in reversed(nodes):
        if any(value in live for value in node.results):
            live.update(node.operands)
    builder = Builder(name, locations=False)
    new: dict[Value, Value] = {value: builder.input(None, value.type) for value in inputs}
    for node in nodes:
        if any(value in live for value in node.results):
            new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[value] for value in outputs])


def _copied(node: Node, canon: dict[Value, Value]) -> Node:
    own = Node(node.op, [canon[v] for v in node.operands], node.attrs, [r.type for r in node.results], node.location, None)
    canon.update(zip(node.results, own.results))
    return own


def _matched(
    segment: Segment, inputs: Sequence[Lifted], gradients: Sequence[tuple[Argument | Captured, bool]], nodes: Sequence[Node],
    asked: tuple[Value, Any, str, Location | None] | None, canon: Mapping[Value, Value],
) -> dict[Value, Value] | None:
    """The segment's values for those of a trace, if it has recorded the same."""
    question = segment.question
    alike = (
        len(nodes) == len(segment.nodes) and len(inputs) == len(segment.entrances) and (asked is None) == (question is None)
        and len(gradients) == len(segment.gradients)
        and all(none == own_none and same_source(owner, own)
                for (owner, none), (own, own_none) in zip(gradients, segment.gradients))
        and all(entrance.matches(lifted) for entrance, lifted in zip(segment.entrances, inputs))
    )  # fmt: skip
    if not alike:
        return None
    found = {lifted.value: entrance.value for lifted, entrance in zip(inputs, segment.entrances)}
    for node, own in zip(nodes, segment.nodes):
        if node.op is not own.op or len(node.operands) != len(own.operands):
            return None
        for value, known in zip(node.operands, own.operands):
            if (found[value] if value in found else canon[value]) is not known:
                return None
        if not _same_attributes(node.attrs, own.attrs):
            return None
        found.update(zip(node.results, own.results))
    if asked is not None and question is not None:
        value, kind = asked[:2]
        if kind is not question.kind or (found[value] if value in found else canon[value]) is not question.value:
            return None
    return found


def _same_attributes(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(value is right[key] or attribute_key(value) == attribute_key(right[key]) for key, value in left.items())


def same_source(left: Source, right: Source) -> bool:
    """Whether two inputs are the same of what a call gives and finds."""
    match left, right:
        case Argument(i), Argument(j):
            return i == j
        case Captured(a), Captured(b):
            return a is b
        case Gradient(a), Gradient(b):
            return same_source(a, b)
        case Number(mapping, key), Number(other, other_key):
            return mapping is other and key == other_key
    return False
