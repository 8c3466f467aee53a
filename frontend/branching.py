"""A function whose way depends on numbers, for arguments of certain types: native code along the ways that are known, and
Python where a new one begins."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graphc.backend import Entry, Layout
from graphc.compiler import executable
from graphc.frontend.capture import given_as
from graphc.frontend.device_arrays import known_on_host
from graphc.frontend.device_ops import write
from graphc.frontend.entry import Given, Item, Plan, entry_spec
from graphc.frontend.follower import Values, outputs_of
from graphc.frontend.guards import Snapshot
from graphc.frontend.native import strides_of
from graphc.frontend.pytree import LEAF
from graphc.frontend.recording import Recording, pinned_differently, recorded
from graphc.frontend.segments import Segment
from graphc.frontend.trace import OnlyEagerly
from graphc.frontend.trace_inputs import Lifted
from graphc.ir import Value
from graphc.recompute import budgeted

_WORTH_RECORDING = 1 << 16
"""Elements that an op has to have, on average, for its code to make up for recording it at each call."""


class Unknown(Exception):
    """Nothing is known of how a call goes on. Not an error: Python runs it then."""


class Raises(Unknown):
    """The call ends with an exception, which Python raises."""


class Open(Unknown):
    """The call comes to a question whose answer Python can use in any way."""


class Branching:
    """Used in the place of a `Compiled` graph: `mismatch`, and a call with leaves."""

    is_bound = False

    def __init__(self, recording: Recording, by_python: str | None, memory_budget: float | int | None = None) -> None:
        """From the first call, which is done."""
        assert recording.tree is not None
        self.function = recording.function
        self.backend = recording.backend
        self.structure = recording.structure
        self.is_passing = recording.is_passing
        self.tree = recording.tree
        self._memory_budget = memory_budget
        self.by_python = by_python
        """Why Python has to run the function at each call; None if only to find new ways."""
        self._asks = by_python is not None
        """Whether it may do something, besides computing tensors, that cannot be undone."""
        self._guarded = True
        """Whether it stands only for the state that the function was seen in; not if it changes that itself."""
        self.eager: str | None = recording.refused
        """Why the function has to run eagerly at each call."""
        self._small = True
        """Whether a call that Python runs takes less time eagerly than with its operations recorded."""
        self.entry: Entry | None = None
        """A native way through the guards and the first segment."""
        self.misses = 0
        """Calls by way of Python, from the one on before which the native entry was last of use."""
        self._exempt: set[tuple[int, str]] = set()
        self._first: Recording | None = recording
        self._learn(recording, new=True)

    def take(self) -> Recording:
        """The first call, once."""
        first, self._first = self._first, None
        assert first is not None
        return first

    def _learn(self, recording: Recording, new: bool = False) -> None:
        """Take note of what a call by way of Python has shown."""
        if recording.refused is not None:
            self.eager = recording.refused
        if recording.asks_the_world is not None:
            self.by_python = f"it {recording.asks_the_world}"
            self._asks = True
        elif recording.effects:
            self.by_python = f"it {recording.effects[0]}"
        elif recording.capture.left and self.by_python is None:
            self.by_python = "it leaves tensors behind"
        self._guarded = self._guarded and recording.changed is None
        nodes = recording.trace.builder.nodes[: recording.capture.nodes]
        elements = sum(math.prod(result.shape) for node in nodes for result in node.results)
        self._small = elements < _WORTH_RECORDING * len(nodes)
        numbers = recording.numbers()
        if new or not numbers <= self._exempt:
            self._exempt |= numbers
            self.snapshot = Snapshot(self.function, recording.objects, self._exempt)
            self.pinned = recording.pinned(self.snapshot)
        recording.capture.forget_arguments()

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """Why it does not stand for a call with these arguments, whose types fit; None if it does."""
        if self.eager is not None or (self.by_python is not None and not self._guarded):
            return None
        changed = self.snapshot.changed()
        if changed is not None:
            return changed
        return pinned_differently(self.pinned, self.snapshot, leaves)

    def __call__(self, leaves: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run on arguments that fit; `leaves` are those of the others."""
        return self._run(leaves, args, kwargs, Values(self.backend), None)

    def make_entry(self, arguments: Sequence[Any], leave: Callable[[], None]) -> None:
        """Have a native way through the guards and the first segment, for calls with positional arguments like these, if
        there can be one. `leave` is called when it computes less than is needed."""
        self.entry = None
        root = self.tree.roots[0] if self.tree.roots else None
        if root is None or root.question is None or root.is_open or self.by_python is not None or self.eager is not None:
            return
        outputs = list(root.needed)
        if not all(none for _, none in root.gradients) or any(entrance.place >= 0 for entrance in root.entrances):
            return
        plan = Plan(
            inputs=[Lifted(entrance.source, entrance.value) for entrance in root.entrances], updates=(), grads=(),
            without_grad=[owner for owner, _ in root.gradients],
            results=[*map(Item, range(len(outputs))), *map(Given, range(len(arguments)))], structure=LEAF, nodes={},
            snapshot=self.snapshot, pinned=self.pinned,
        )  # fmt: skip
        spec = entry_spec(plan, arguments)
        if spec is not None:
            layout = Layout(tuple(strides_of(given_as(x.source, arguments)._data) for x in root.entrances))
            code = executable(self.tree.graph_of(root, outputs), layout, backend=self.backend)
            self.entry = code.entry(replace(spec, result=functools.partial(self._go_on, root, outputs, leave)))
            if self.entry is not None and (self.mismatch(arguments) is not None or not root.fits(arguments)):
                self.entry = None  # another thread has changed something since the spec was made

    def _go_on(self, root: Segment, outputs: Sequence[Value], leave: Callable[[], None], found: Sequence[Any]) -> Any:
        """Go on where the native entry ends: with what it has computed, and the arguments."""
        values = Values(self.backend)
        values.update(zip(outputs, found))
        leaves = found[len(outputs) :]
        root.enter(leaves, values)
        if len(root.needed) > len(outputs):
            leave()
            self.tree.run(root, values, values)
        return self._run(leaves, tuple(leaves), {}, values, root)

    def _run(
        self, leaves: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any], values: Values, root: Segment | None
    ) -> Any:
        again = self.by_python is not None  # whether Python is to run each call of this kind
        if self.eager is None and not again:
            try:
                return self._walk(leaves, values, root)
            except Raises:
                return self.function(*args, **kwargs)
            except Open:
                again = True
            except Unknown:
                again = self.tree.full is not None
        if self.eager is not None or (again and self._small):
            return self.function(*args, **kwargs)
        try:
            with budgeted(self._memory_budget):
                recording = recorded(
                    self.function, self.tree.name, args, kwargs, self.backend, tree=self.tree, known=values,
                    by_python=True, watched=self.by_python is None,
                )
        except OnlyEagerly:
            if self._asks:
                raise
            return self.function(*args, **kwargs)
        self._learn(recording)
        return recording.finish()

    def _walk(self, leaves: Sequence[Any], values: Values, root: Segment | None) -> Any:
        """Go along the segments, from answer to answer; from the end of the first one, if that has been run."""
        among: Sequence[Segment] = self.tree.roots
        segment = root
        while True:
            if segment is None:
                segment = self._fitting(among, leaves)
                segment.enter(leaves, values)
                if segment.question is None:
                    break
                self.tree.run(segment, values, values)
            question = segment.question
            assert question is not None
            try:
                answer = question.answer(known_on_host(values[question.value]))
            except (ValueError, OverflowError):  # int() of what is no integer: Python raises it where it belongs
                raise Unknown from None
            among = segment.branches.get(answer, ())
            segment = None
        if not segment.ends:
            raise Unknown
        end = segment.ends[0]
        if end.raises:
            raise Raises
        if end.capture.updates and end.capture.overlapping(leaves):
            raise Unknown
        tensors = end.capture.tensors(leaves)
        end.capture.check_writable(tensors)
        outputs = outputs_of(self.tree, segment, end, values)
        before = end.capture.before(tensors)
        for j, i in end.capture.updates:
            write(tensors[i]._data, outputs[j])
            outputs[j] = tensors[i]._data
        return end.capture.finish(leaves, tensors, outputs, before)

    def _fitting(self, among: Sequence[Segment], leaves: Sequence[Any]) -> Segment:
        for segment in among:
            if segment.fits(leaves):
                if segment.is_open:
                    raise Open
                return segment
        raise Unknown

    def lines(self) -> list[str]:
        """The tree in words, and what it rests on."""
        if self.eager is not None:
            return [f"runs eagerly: {self.eager}"]
        how = "eagerly, as its tensors are small" if self._small else "and what it computes runs natively"
        always = [] if self.by_python is None else [f"Python runs it at each call, {how}: {self.by_python}"]
        guards = [] if self.by_python is not None and not self._guarded else self.snapshot.lines()
        return [*always, *guards, *self.tree.lines()]
