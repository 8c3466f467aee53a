"""One call of a function that Python runs, its operations written down as they come."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.bind import solve
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import Location, TraceError
from graphc.frontend.argument_containers import ArgumentContainers
from graphc.frontend.call_key import has_history
from graphc.frontend.capture import Capture
from graphc.frontend.device_arrays import is_array
from graphc.frontend.device_ops import write
from graphc.frontend.effects import Effect, Watch
from graphc.frontend.follower import Follower, Values
from graphc.frontend.guards import Snapshot
from graphc.frontend.modes import mode
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.segments import Tree
from graphc.frontend.survey import MARKS, PLAIN
from graphc.frontend.symbolic_number import SymbolicNumber, plain_key
from graphc.frontend.tape import AliasNode
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.frontend.trace import NumbersNeeded, OnlyEagerly, Trace, parameter_names
from graphc.frontend.trace_inputs import Number
from graphc.frontend.tracer import activated
from graphc.ir import Graph
from graphc.recompute import current_budget, recompute
from graphc.types import Shape

_STATE = ("state", "state_dict", "__getstate__", "getmembers")
"""How code gets at the state of an optimizer, and sees if there is any."""


class PlainNumbersWanted(Exception):
    """Some code would not do with what `item()` gave: the tree knows now, and the call is to be recorded again."""


class _ChangedMeanwhile(OnlyEagerly):
    """What a trace rests on was changed after the function had run, and by no code of its own."""


class Recording:
    """What Python did in one call.

    Without a tree, or with `fullgraph`, code that looks at numbers is refused. With one, it is told those of the present
    call; and if it has asked for any, or left tensors in Python's state, the call is over when it has run: see `is_done`.
    With a tree, an exception of the function's leaves behind what it would leave eagerly; without, nothing.
    """

    graph: Graph
    """The whole call as one graph, unless it is done."""
    effects: list[Effect]
    """What the function did besides computing tensors, unless it is known that Python runs it at each call."""

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None,
        shapes: Mapping[int, Shape] | None = None, tree: Tree | None = None, known: Values | None = None,
        by_python: bool = False, watched: bool = True, fullgraph: bool = False, may_pass: bool = True, begins: bool = True,
    ) -> None:
        """`shapes` has shapes with symbols for some of the tensors among the leaves, by their number; `known` are values of
        the tree for this call. With `by_python`, the call is done in any case. It is `watched` unless it is known what the
        function asks of the world. With `fullgraph`, a function that does anything else than to compute is refused, but for
        changes of Python's state that `may_pass`. Where it `begins`, state that optimizers make in the call is taken as if it
        had been there."""
        self.function = function
        self.backend = backend
        self._arguments = args, kwargs
        self.leaves, self.structure = flatten((args, kwargs))
        self.inside, doors = _stand_ins(self.leaves, shapes or {})
        self.trace = trace = Trace(name, self.inside, parameter_names(function), doors)
        for i, shape in (shapes or {}).items():
            trace.declare_sizes(self.inside[i], shape)
        inside_args, inside_kwargs = unflatten(self.structure, self.inside)
        self.objects = [leaf for leaf in self.leaves if not isinstance(leaf, Tensor)]
        self.before = Snapshot(function, self.objects, writes=True)
        self.tree = tree
        self.error: Exception | None = None
        """What the call ends with, if it does not return."""
        self.is_done = False
        """Whether the call has been computed, and only its end is still to come about."""
        self.refused: str | None = None
        """Why the call can only be run eagerly; None if it need not."""
        watch = Watch(self.before) if watched else None
        attributes = [(leaf, dict(leaf.__dict__)) for leaf in self.inside if isinstance(leaf, Tensor)]
        self._containers = containers = ArgumentContainers(
            (args, kwargs), (inside_args, inside_kwargs), self.leaves, self.inside
        )
        follower = trace.oracle = None if tree is None else Follower(trace, tree, known, refuses=fullgraph)
        self._outputs: list[np.ndarray] = []
        try:
            with activated(trace):
                try:
                    with contextlib.nullcontext() if watch is None else watch.looking():
                        result = function(*inside_args, **inside_kwargs)
                    _refuse_async(result, name)
                except BaseException as error:
                    result = None
                    if tree is not None and not tree.plain_numbers and trace.given and isinstance(error, TypeError):
                        tree.plain_numbers = True
                        self.before.restore()
                        raise PlainNumbersWanted from error
                    if follower is None or isinstance(error, TraceError) or not isinstance(error, Exception):
                        self.before.restore()
                        raise
                    self.error = error
                begun = trace.state_begun
                alike = begins and all(one.is_alike and one.is_untouched for one in begun)
                if alike and self.error is None and not self.before.mentions(_STATE):
                    self.before.begin_with(begun)
                self.changed = self.before.changed()
                """What of Python's state is different now."""
                if shapes and self.changed is not None:
                    self._leave_sizes(function, result, shapes)
                self.effects = [] if watch is None else watch.effects(result)
                self.effects += containers.effects()
                if any(leaf.__dict__.keys() != before.keys() for leaf, before in attributes):
                    self.effects.append(Effect("gives attributes to an argument, or takes them away", None, True))
                given = self._given_attributes(result, attributes)
                if given:
                    self.effects.append(Effect("gives attributes to a result", None, True))
                if any(one.is_gone for one in begun):
                    self.effects.append(Effect("throws away what an optimizer has made for it", None, True))
                refused = [effect for effect in self.effects if fullgraph and (effect.lasting or not may_pass)]
                if refused and self.error is None:
                    self.before.restore()
                    raise _refusal(name, refused[0])
                result = containers.marked(result)
                left: list[Tensor | SymbolicNumber] = []
                raised = _carried(self.error)
                leaves_traces = bool(
                    self.changed is not None or self.effects or by_python or self.before.remembers or raised
                    or any(number.key is not None for number in self._numbers_held(result)))
                if (follower is not None or shapes) and leaves_traces:
                    trace.leaves_traces = True
                    left = [*self._left_behind(function, result, raised), *containers.left(trace.builder), *self._attributed(
                        [*given, *(leaf for leaf, _ in attributes)]), *self._numbers_left(result)]
                self.capture = Capture(trace, self.inside, result, self.before.tensors, left)
                if follower is not None:
                    follower.end_questions()
                self.is_done = follower is not None and (
                    follower.asked or bool(left) or by_python or bool(self.effects) or self.error is not None)
                try:
                    if follower is not None and self.is_done:
                        self._outputs = follower.finish(self.capture, backend, self.error is not None)
                    else:
                        ran_code = self.capture.differentiate(trace, backend)
                        if self.before.changed() != self.changed:
                            if not (ran_code or self.effects):
                                raise _ChangedMeanwhile(f"another thread changes what {name} reads, while it is traced")
                            raise OnlyEagerly("the backward pass changes Python's state", expected="hooks that only compute")
                except NumbersNeeded as error:
                    if follower is None or fullgraph:
                        raise
                    self.refused, self.is_done = str(error).partition("\n")[0], True
            if not self.is_done:
                self.graph = self.capture.graph(trace)
                budget = current_budget()
                if budget is not None and trace.backward_at is not None and self.capture.differentiable is None:
                    self.graph = recompute(self.graph, trace.backward_at, budget)
        except _ChangedMeanwhile:
            if self.changed is not None:  # perhaps by the function, which is going to run again
                self.before.restore()
            raise
        except OnlyEagerly as error:
            if self.error is not None and (self.before.changed() is not None or containers.effects() or _seen(watch)):
                if self._left_behind(function, None):
                    self.before.restore()
                self.error.add_note(f"what {name} had changed in place until then is as it was before: {error}")
                raise self.error from None
            self.before.restore()
            if fullgraph or self.before.changed() is not None or _seen(watch):
                raise TraceError(error.problem, expected=error.expected, hint=error.hint, at=error.location) from error
            raise  # nothing has been done yet, or it is undone: the function may be run again
        except BaseException:
            if self.error is None:
                self.before.restore()
            raise
        finally:
            trace.restore()
            trace.oracle = None  # each holds the other, and the oracle all numbers of the call

    @property
    def asks_the_world(self) -> str | None:
        """What the function is going to do at each call besides computing tensors."""
        return next((str(effect) for effect in self.effects if effect.lasting), None)

    @property
    def is_passing(self) -> bool:
        """Whether it may have been unlike all calls that follow: a cache was filled, or an optimizer, for which the first step
        is another one, has made its state."""
        return bool(self.effects) and self.asks_the_world is None

    def numbers(self) -> set[tuple[int, str]]:
        """What was read from mappings, and is at each call: (id of the mapping, key)."""
        return {(id(x.source.mapping), x.source.key) for x in self.trace.inputs if isinstance(x.source, Number)}

    def pinned(self, snapshot: Snapshot) -> dict[int, Tensor]:
        """The arguments, by number, that the function also finds by itself, in a state of the world."""
        return {i: x for i, x in enumerate(self.leaves) if x is self.inside[i] and id(x) in snapshot.tensors}

    def finish(self) -> Any:
        """Bring about the end of a call that is done: what it changed is written back. Returns its result."""
        if self.refused is not None:
            args, kwargs = self._arguments
            return self.function(*args, **kwargs)
        capture = self.capture
        tensors = capture.tensors(self.leaves)
        capture.check_writable(tensors)
        before = capture.before(tensors)
        for j, i in capture.updates:
            if self._outputs[j] is not tensors[i]._data:
                write(tensors[i]._data, self._outputs[j])
                self._outputs[j] = tensors[i]._data
        if self.tree is not None and any(reference() is not None for _, reference in capture.returned):
            self.tree.plain_numbers = True
        result = capture.finish(self.leaves, tensors, self._outputs, before)
        capture.left, capture.returned = (), []  # real now, and nobody else's
        result = self._containers.finish(result)
        error, self.error = self.error, None
        if error is None:
            return result
        if any(type(x) is SymbolicNumber for x in error.args):
            error.args = plain_key(error.args)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def _leave_sizes(self, function: Callable[..., Any], result: Any, shapes: Mapping[int, Shape]) -> None:
        """Put the sizes of this call in the place of symbols that the function has left in Python's state."""
        sizes = solve(list(shapes.values()), [self.leaves[i]._data.shape for i in shapes])

        def known(value: Any) -> Any:
            if isinstance(value, (Dim, DimNumber)):
                return value.bind(sizes)
            if type(value) in (tuple, Size) and any(part is not known(part) for part in value):
                return type(value)(map(known, value))
            return value

        returned = [leaf for leaf in flatten(result)[0] if not isinstance(leaf, Tensor)]
        Snapshot(function, [*self.objects, *returned], writes=True).substitute(known)

    def _left_behind(self, function: Callable[..., Any], result: Any, raised: Sequence[Any] = ()) -> list[Tensor]:
        """Tensors of the trace that the function has put where they will be found again, or `raised`."""
        returned = [leaf for leaf in flatten(result)[0] if not isinstance(leaf, Tensor)]
        found = Snapshot(function, [*self.objects, *returned, *raised], writes=True)
        aliases = [leaf for leaf in self.trace.leaves_on_memory() if id(leaf) in found.tensors]
        return [*(tensor for tensor in found.made if tensor._data.builder is self.trace.builder), *aliases]

    def _given_attributes(self, result: Any, arguments: Sequence[tuple[Tensor, Any]]) -> list[Tensor]:
        """The tensors of a result, made in the call, that have attributes."""
        before = {*self.before.tensors, *(id(leaf) for leaf, _ in arguments)}
        return [leaf for leaf in flatten(result)[0]
                if isinstance(leaf, Tensor) and leaf.__dict__.keys() - MARKS and id(leaf) not in before]

    def _attributed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of these and what their attributes are, the tensors of the trace."""
        given = set(map(id, self.inside))
        everything = [*tensors, *(leaf for tensor in tensors for leaf in flatten(list(tensor.__dict__.values()))[0])]
        return [x for x in everything if isinstance(x, Tensor) and id(x) not in given and not is_array(x._data)
                and x._data.builder is self.trace.builder]  # fmt: skip

    def _numbers_left(self, result: Any) -> list[SymbolicNumber]:
        """The same. The next call is given Python's own."""
        found = self._numbers_held(result)
        if found and self.tree is not None:
            self.tree.plain_numbers = True
        return found

    def _numbers_held(self, result: Any) -> list[SymbolicNumber]:
        """Numbers of the trace that somebody holds, besides the result."""
        returned = set(map(id, flatten(result)[0]))
        return [number for reference in self.trace.given if (number := reference()) is not None and id(number) not in returned]


def pinned_differently(pinned: Mapping[int, Tensor], snapshot: Snapshot, leaves: Sequence[Any]) -> str | None:
    """What is different about the arguments, by number, that a function also finds by itself."""
    for i, leaf in enumerate(leaves):
        if i in pinned:
            if leaf is not pinned[i]:
                return "an argument was a tensor that the function also uses by itself, and is another one"
        elif isinstance(leaf, Tensor) and id(leaf) in snapshot.tensors:
            return "an argument is a tensor that the function also uses by itself, and was another one"
    return None


def _carried(error: BaseException | None) -> list[Any]:
    """What an exception, and those that it came of, are made of, but for what no trace can have made."""
    found: list[Any] = []
    pending, seen = [error], set()
    while pending:
        error = pending.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            found += [x for x in (*error.args, *vars(error).values())
                      if type(x) is SymbolicNumber or not isinstance(x, (*PLAIN, Location))]
            pending += [error.__cause__, error.__context__]
    return found


def _refusal(name: str, effect: Effect) -> TraceError:
    return TraceError(f"{name!r} {effect.what}, which a graph would not do again", expected="code that only computes tensors",
                      hint="take it out of the function, or compile without fullgraph=True", at=effect.place)


def recorded(*args: Any, **options: Any) -> Recording:
    """A `Recording`; a second one where the first one met code that takes only Python's own numbers."""
    try:
        return Recording(*args, **options)
    except PlainNumbersWanted:
        return Recording(*args, **options)


def _seen(watch: Watch | None) -> bool:
    """Whether a function has done something that is still so."""
    return watch is not None and bool(watch.effects())


def _refuse_async(result: Any, name: str) -> None:
    if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
        if inspect.iscoroutine(result):
            result.close()  # it would complain that nobody awaited it
        raise TraceError(f"{name!r} is an async function", expected="a function that returns when it is done")


def _stand_ins(leaves: Sequence[Any], shapes: Mapping[int, Shape]) -> tuple[list[Any], list[tuple[Tensor, Tensor]]]:
    """The leaves as the traced function sees them. A view is replaced by a tensor on the same memory that knows nothing of its
    base: the graph must stand for any other view. So is one that is to have symbolic sizes, and a tensor with a history by
    one whose history is a leaf, so that the tape of the trace ends at the function's door: these, with their leaves."""
    made: dict[int, Tensor] = {}
    doors: list[tuple[Tensor, Tensor]] = []
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or id(leaf) in made:
            continue
        if has_history(leaf):
            door = wrap(leaf._data).requires_grad_()
            made[id(leaf)] = inside = wrap(leaf._data)
            inside._node = AliasNode(((door, 0),))
            doors.append((inside, door))
        elif leaf._is_view() or i in shapes:
            made[id(leaf)] = wrap(leaf._data).requires_grad_(leaf.requires_grad and mode.grad)
    return [made.get(id(leaf), leaf) for leaf in leaves], doors
