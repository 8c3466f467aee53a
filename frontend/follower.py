"""Python runs a function of which paths may be known: what it records is compared with them, what it asks is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.autodiff import extract
from graphc.errors import Location, TraceError, user_location
from graphc.frontend.capture import Capture
from graphc.frontend.device_arrays import is_on_device, known_on_host
from graphc.frontend.device_ops import code_for, copied, is_writable, outputs_for
from graphc.frontend.modes import no_grad
from graphc.frontend.segments import End, Segment, Tree
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace
from graphc.frontend.tracer import suspended
from graphc.ir import Node, Value
from graphc.recompute import nanoseconds

_SLOWER = 20
"""How much longer ops take one by one than compiled together."""
_COMPILING = 500_000.0
"""Nanoseconds that a node takes to compile."""


class Values(dict[Value, np.ndarray]):
    """The values of a graph that are known; asked for others, they are computed from those: op by op, or, where that would
    take longer than to compile them, by code; on a GPU, where each op is compiled too, always by code."""

    def __init__(self, backend: str | None = None) -> None:
        super().__init__()
        self._backend = backend
        self.loose: set[Value] = set()
        """Those computed here, which may be views of inputs."""
        self.own: set[Value] = set()
        """Those in arrays that nothing else has."""

    def __missing__(self, value: Value) -> np.ndarray:
        self.compute([value])
        return self[value]

    def compute(self, values: Iterable[Value], over: Mapping[Value, Value] = MappingProxyType({})) -> None:
        """See to it that the values are known. Those in `over` may be written over the arrays of known ones, which is done
        where code computes them of these."""
        wanted = [value for value in dict.fromkeys(values) if value not in self]
        nodes = self._missing_nodes(wanted)
        on_gpu = len(nodes) > 1 and any(is_on_device(self[v]) for node in nodes for v in node.operands if v in self)
        if on_gpu or _take_longer(nodes, _COMPILING * max(len(nodes), 100) / _SLOWER):
            self._run(nodes, wanted, over)
            return
        with suspended(), no_grad():
            for node in nodes:
                results = node.op(*(wrap(self[v]) for v in node.operands), like=Tensor, **node.attrs)
                for made, tensor in zip(node.results, results if isinstance(results, tuple) else (results,)):
                    self[made] = tensor._data
                    self.loose.add(made)

    def _missing_nodes(self, values: Iterable[Value]) -> list[Node]:
        """What has to be computed for the values, in an order in which it can be."""
        pending = list(map(_node_of, values))
        found: dict[Node, None] = {}
        made: set[Value] = set()
        while pending:
            node = pending[-1]
            missing = [v for v in node.operands if v not in self and v not in made]
            if missing:
                pending += map(_node_of, missing)
                continue
            pending.pop()
            found[node] = None
            made.update(node.results)
        return list(found)

    def _run(self, nodes: Sequence[Node], wanted: Sequence[Value], over: Mapping[Value, Value]) -> None:
        made = {value for node in nodes for value in node.results}
        known = list(dict.fromkeys(v for node in nodes for v in node.operands if v not in made))
        arrays = [self[value] for value in known]
        graph = extract("values", known, nodes, wanted)
        numbers = {value: i for i, value in enumerate(known)}
        donated = {j: numbers[over[value]] for j, value in enumerate(wanted) if over.get(value) in numbers}
        code = code_for(graph, arrays, self._backend, tuple(donated.items()))
        outputs = [arrays[donated[j]] if j in donated else new for j, new in enumerate(outputs_for(code))]
        code.run(arrays, outputs)
        self.update(zip(wanted, outputs))
        self.own.update(wanted)

    def take(self, value: Value) -> np.ndarray:
        """A value in an array that nothing else has: another one the next time."""
        array = self[value]
        if value not in self.own:
            return copied(array)
        self.own.remove(value)
        return array


def _take_longer(nodes: Iterable[Node], limit: float) -> bool:
    """Whether nodes take more nanoseconds."""
    for node in nodes:
        limit -= nanoseconds(node)
        if limit < 0:
            return True
    return False


def _node_of(value: Value) -> Node:
    assert value.node is not None  # inputs are known
    return value.node


class Follower:
    """The oracle of one trace. It follows the known paths of a tree, as far as they go, and adds to them.

    What was seen before runs as native code; what is new is computed op by op, for this may be the only call of its kind.
    Nothing outside is written to before the path is complete.
    """

    def __init__(self, trace: Trace, tree: Tree, known: Values | None = None, refuses: bool = False) -> None:
        """`known` are the values that a call has computed already. If it `refuses`, it tells nothing but constants."""
        self.trace = trace
        self.tree = tree
        self.asked = False
        """Whether Python has wanted to know something."""
        self.refuses = refuses
        self._plain = tree.plain_numbers
        self._values = Values(tree.backend) if known is None else known
        self._canon: dict[Value, Value] = {}
        self._path: list[Segment] = []
        self._next: list[Segment] | None = tree.roots
        self._nodes = self._inputs = self._grads = self._surveyed = 0
        self._constants: set[Value] = set()

    @property
    def plain_numbers(self) -> bool:
        """Whether `item()` is to give Python's own numbers."""
        return self._plain

    def end_questions(self) -> None:
        """What comes now is the derivative: of the numbers that it will have, nothing is known."""
        self._plain = self._plain or not self.refuses
        self.refuses = True

    # What Python asks

    def numbers(self, value: Value, what: str) -> np.ndarray:
        """The numbers of a value."""
        known = self._constant(value)
        if known is None:
            segment = self._ask(value, None, what)
            assert segment.question is not None
            known = self._values[segment.question.value]
            self._values.own.discard(segment.question.value)
            self._next = self.tree.after(segment, None) if self._next is not None else None
        array = known_on_host(known).view()
        array.flags.writeable = False  # writing would change nothing: what goes on is the graph
        return array

    def decide(self, value: Value, kind: type[bool] | type[int], what: str) -> bool | int:
        """Its one element as a bool or an int."""
        array = self._constant(value)
        if array is not None:
            return kind(array.item())
        segment = self._ask(value, kind, what)
        assert segment.question is not None
        answer = segment.question.answer(known_on_host(self._values[segment.question.value]))
        self._next = self.tree.after(segment, answer) if self._next is not None else None
        return answer

    def _ask(self, value: Value, kind: type[bool] | type[int] | None, what: str) -> Segment:
        if self.refuses:
            raise self.trace.refusal(value, what)
        if value.builder is not self.trace.builder:
            raise TraceError(f"{what} needs the numbers of a tensor in a graph of its own, such as the body of a loop",
                             expected="a function of tensors that does not look at their values",
                             hint="choose with where(condition, a, b)")
        self.asked = True
        return self._close(len(self.trace.builder.nodes), (value, kind, what, user_location()))

    def _constant(self, value: Value) -> np.ndarray | None:
        """The numbers of what depends on nothing but constants."""
        nodes = self.trace.builder.nodes
        for node in nodes[self._surveyed :]:
            if all(v in self._constants for v in node.operands):
                self._constants.update(node.results)
        self._surveyed = len(nodes)
        return Values()[value] if value in self._constants else None

    # The path

    def _close(self, nodes: int, asked: tuple[Value, Any, str, Location | None] | None) -> Segment:
        """End the segment that has been recorded, of the nodes up to a number."""
        trace = self.trace
        gradients = [(trace.owner(state.tensor), state.initial is None)
                     for state in list(trace.grads.values())[self._grads :] if state.read]
        inputs = trace.inputs[self._inputs :]
        segment, known = self.tree.place(
            self._next, inputs, gradients, trace.builder.nodes[self._nodes : nodes], asked, self._canon
        )
        for lifted, entrance in zip(inputs, segment.entrances):
            self._values[entrance.value] = lifted.data
        self._nodes, self._inputs, self._grads = nodes, len(trace.inputs), len(trace.grads)
        self._path.append(segment)
        if known and segment.question is not None and any(value not in self._values for value in segment.needed):
            self.tree.run(segment, self._values, self._values)
        return segment

    def finish(self, capture: Capture, backend: str | None, raises: bool = False) -> list[np.ndarray]:
        """The outputs of the call; the path is kept. If it `raises`, no more of it than the way to there."""
        keep = self._next is not None
        last = self._close(capture.nodes, None)
        if raises:
            capture.differentiate(self.trace, backend, again=False)
            values = [self._canon[value] for value in capture.outputs]
            if keep and not any(end.raises for end in last.ends):
                self.tree.finish(self._path, End(capture, None, [], [], raises=True))
            self._values.compute(values)
            return [copied(self._values[value]) for value in values]
        outputs = [self._canon[value] for value in capture.outputs]
        signature = capture.signature(self.trace)
        end = next((e for e in last.ends if signature is not None and e.signature == signature
                    and e.outputs[: len(outputs)] == outputs), None)
        if end is not None:
            capture.adopt(end.capture)
            return outputs_of(self.tree, last, end, self._values)
        capture.differentiate(self.trace, backend, again=False)
        end = End(capture, signature, [self._canon[value] for value in capture.outputs], [])
        own = {value for node in last.nodes for value in node.results}
        end.fresh = [j for j, value in enumerate(end.outputs)
                     if j < len(outputs) or value.node is None or not value.node.operands or value in own]
        if keep:
            self.tree.finish(self._path, end)
        there = {value: copied(self._values[value]) for value in end.outputs if value in self._values}
        self._values.compute(end.outputs, self._in_place(end))
        return [there.pop(value) if value in there else self._values.take(value) for value in end.outputs]

    def _in_place(self, end: End) -> dict[Value, Value]:
        """Which outputs may be written over inputs at once: those that these are to hold in the end, where nobody else sees the
        one or the other. Nothing outside is written to before all that can fail has been computed."""
        capture = end.capture
        changed = [(end.outputs[j], capture.inputs[i]) for j, i in capture.updates]
        if len(self._path) > 1 or capture.differentiable is not None:
            return {}  # what is known may be a view of an input, or the derivative needs what it holds
        if any(not is_writable(lifted.data) or _may_refuse(lifted.tensor, watched)
               for (_, lifted), watched in zip(changed, capture.watched, strict=True)):
            return {}
        times = Counter(end.outputs)
        return {value: self._canon[lifted.value] for value, lifted in changed
                if times[value] == 1 and value.type == lifted.value.type}


def _may_refuse(tensor: Tensor | None, watched: bool) -> bool:
    """Whether autograd may still refuse that a tensor is changed in place, where it sees it or not."""
    meta = None if tensor is None else tensor._meta
    return meta is not None and (meta.inference or (watched and (meta.requires_grad or meta.view is not None)))


def outputs_of(tree: Tree, last: Segment, end: End, values: Values) -> list[np.ndarray]:
    """The outputs of a path, in arrays of their own."""
    arrays = tree.outputs(last, end, values)
    if not values.loose:
        return arrays
    fresh = set(end.fresh)
    return [copied(array) if value in values.loose and j not in fresh else array
            for j, (array, value) in enumerate(zip(arrays, end.outputs))]
