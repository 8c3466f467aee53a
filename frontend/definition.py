"""Writing a graph by hand: what is recorded inside `with graph:`, node by node, under names that last."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.assumptions import Assumptions, Relation
from graphc.bind import substitute
from graphc.dims import Dim, Quotient, decided
from graphc.errors import Location, ShapeError, TraceError, user_location
from graphc.frontend.described import as_dtype
from graphc.frontend.device import HOST, device, placement
from graphc.frontend.generator import default_generator
from graphc.frontend.modes import mode
from graphc.frontend.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook
from graphc.frontend.nn.module import Module
from graphc.frontend.pytree import flatten
from graphc.frontend.static_gradients import CustomCall, run_function
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace, stopped
from graphc.frontend.trace_inputs import Captured, Lifted
from graphc.frontend.tracer import active
from graphc.ir import Builder, Graph, Node, Value
from graphc.op import OPS, OpDef
from graphc.types import DType, TensorType

if TYPE_CHECKING:
    from graphc.frontend import define
    from graphc.frontend.autograd.function import Function

_ANSWERING = frozenset(("graphc.dims", "graphc.assumptions", __name__))
"""Modules through which a question about sizes goes on its way to its answer."""


@dataclass(frozen=True, eq=False)
class Effect:
    """An outside tensor is changed in place: what it holds before and after."""

    lifted: Lifted
    before: Value
    after: Value


class Sizes(Assumptions):
    """The sizes that are only known when something is fed, and what the graph takes for granted of them.

    They have no examples. Code that compares two of them is told that they are equal if they can be, and that one is large
    and no particular number; the answer is kept, and checked against what is fed. A type rule does not rely on such answers,
    since it is applied again to the sizes of a run: there nothing is kept but what has to be so.
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__()
        self._definition = definition
        self.words: dict[str, str] = {}
        """What the user calls a symbol: `x.shape[0]`."""
        self.positions: list[int] = []
        """For each guard, how many nodes there were when it was taken for granted."""
        self._asked_outside: list[bool] = []
        """For each guard, whether it was the user's own code that asked."""
        self._denied: list[Relation] | None = None
        """In a type rule, the equalities that were denied."""

    def declare(self, name: str, words: str) -> Dim:
        """A size of its own, under a name like this."""
        made = self.symbol(name)
        self.words[str(made)] = words
        return made

    def adopt(self, name: str, shape: Sequence[int | Dim]) -> None:
        """Know the symbols of an input that comes with a graph."""
        for axis, size in enumerate(shape):
            for symbol in sorted(size.symbols()) if isinstance(size, Dim) else ():
                if symbol not in self.hints:
                    self.declare(symbol, f"{name}.shape[{axis}]" if str(size) == symbol else symbol)

    def state(self, condition: Relation) -> None:
        """Take something for granted of the whole graph."""
        self.guards.append(condition)
        self.positions.append(0)
        self._asked_outside.append(True)

    def spell(self, text: str) -> str:
        """A message about sizes in the user's words."""
        return re.sub(r"[A-Za-z_]\w*", lambda found: self.words.get(found[0], found[0]), text)

    @contextmanager
    def in_rule(self) -> Iterator[list[Relation]]:
        """Answer for a type rule. Yields the equalities that are denied meanwhile."""
        outer = self._denied
        denied: list[Relation] = []
        self._denied = denied
        count = len(self.guards)
        try:
            yield denied
        finally:
            self._denied = outer
            del self.guards[count:], self.positions[count:], self._asked_outside[count:]

    def holds(self, difference: Dim, relation: str) -> bool:
        if self._denied is None or relation != "==":
            return super().holds(difference, relation)
        gap = self.resolve(difference)
        if not isinstance(gap, Dim):
            return gap == 0
        self._denied.append(Relation(gap, "==", user_location()))
        return False

    def known(self, gap: Dim, relation: str) -> bool | None:
        """What holds for all sizes: other guards may belong to nodes that a run does not execute."""
        return decided(gap, relation)

    def number(self, size: Dim) -> int:
        raise TraceError(
            f"Python needs the number {self.spell(str(size))}, which is not known before something is fed",
            expected="code that computes with sizes, or compares them",
            hint="declare the size as a number, as in placeholder(name, (32, 3))",
        )

    def _equate(self, found: Relation) -> bool:
        """Take an equality for granted, if it can be solved for one of the sizes."""
        gap = found.difference
        common = math.gcd(*(coefficient for _, coefficient in gap.terms))
        gap = Dim({monomial: coefficient // common for monomial, coefficient in gap.terms})
        for name in sorted(gap.symbols(), key=list(self.hints).index, reverse=True):  # the oldest stay
            coefficient = dict(gap.terms).get((name,), 0)
            rest = gap - coefficient * Dim.symbol(name)
            if abs(coefficient) != 1 or (isinstance(rest, Dim) and name in rest.symbols()):
                continue
            value = rest * -coefficient
            if not isinstance(value, Dim) and value < 0:
                return False
            self.equalities.append(found)
            self._put(name, value, found)
            return True
        return False

    def require(self, found: Relation) -> bool:
        """Take for granted that two sizes are equal; False where that cannot be written into the graph."""
        try:
            self._solve(found)
        except ShapeError:
            return False
        return True

    def _solve(self, found: Relation) -> None:
        if self._equate(found):
            return
        if not any(isinstance(factor, Quotient) for monomial, _ in found.difference.terms for factor in monomial):
            raise self._undecided(found)
        super()._solve(found)

    def _add(self, guard: Relation) -> None:
        self.guards.append(guard)
        self.positions.append(len(self._definition.builder.nodes))
        self._asked_outside.append(_is_asked_outside())

    def matters(self, number: int, executed: Collection[int]) -> bool:
        """Whether guard `number` matters to a run that executes nodes of these numbers. One that a function of graphc has
        asked for matters to what was recorded for the same line next; one that the user's code has asked for, to all that
        was written since."""
        nodes, start = self._definition.builder.nodes, self.positions[number]
        stop = start
        while not self._asked_outside[number] and stop < len(nodes) and nodes[stop].location == self.guards[number].location:
            stop += 1
        if stop > start:
            return any(i in executed for i in range(start, stop))
        return start <= max(executed, default=-1) + 1

    def _substitute(self, name: str, value: int | Dim, found: Relation) -> None:
        if not isinstance(value, Dim):  # no solution: a number is what the base class would go on with
            raise self._undecided(found)
        self._put(name, value, found)

    def _put(self, name: str, value: int | Dim, found: Relation) -> None:
        super()._substitute(name, value, found)
        self._definition.builder.substitute({name: value})

    def _undecided(self, found: Relation) -> ShapeError:
        return ShapeError(f"cannot tell whether {self.spell(str(found))}", expected="sizes that are known to fit",
                          hint="declare these sizes as numbers, or give equal sizes one name: placeholder(name, ('n', 3))")


def _is_asked_outside() -> bool:
    """Whether the code that compares two sizes is the user's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _ANSWERING:
        frame = frame.f_back
    return not str(frame.f_globals.get("__name__")).startswith("graphc.")


class GraphBuilder(Builder):
    """Builds a graph whose nodes have names, and a device that they run on."""

    def __init__(self, name: str, definition: Definition) -> None:
        super().__init__(name)
        self.definition = definition
        self.scope = ""
        """The prefix of the names of new nodes: "encoder.layer1."."""
        self.revision = 0
        """Counts the changes of types that were made after the fact."""
        self._names: dict[str, int] = {}
        self._device: str | None = None
        self._constants: dict[str, dict[Any, Value]] = {}
        self._moved: dict[tuple[Value, str], Value] = {}

    # Names

    def unique(self, name: str) -> str:
        """The name within the scope, with a number if it is taken."""
        name = free = self.scope + name
        while free in self._names:
            free = f"{name}_{self._names[name]}"
            self._names[name] += 1
        self._names[free] = 1
        return free

    def is_taken(self, name: str) -> bool:
        """Whether a node has the name."""
        return name in self._names

    # Nodes

    def append(
        self, record: OpDef, operands: Sequence[Value], attrs: Mapping[str, Any], types: Sequence[TensorType],
        location: Location | None = None,
    ) -> Node:
        if record is not OPS["transfer"]:
            device = self._device or placement() or HOST
            types = [t.on(device) for t in types]
        solved = self.definition.sizes.solved
        if solved:  # sizes that the code has kept may be in terms of symbols that are gone
            types = [t.bind(solved) for t in types]
            attrs = {name: _bound(attribute, solved) for name, attribute in attrs.items()}
        node = super().append(record, operands, attrs, types, location or self.location or user_location())
        for i, result in enumerate(node.results):
            result.name = self.unique(f"{record.name}.{i}" if i else record.name)
        return node

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Append a node, and equate sizes that have to be equal for it. It runs on the device of the innermost `with device:`,
        or else where its first operand is; other operands are transferred there."""
        mark = len(self.nodes)
        sizes = self.definition.sizes
        while True:
            try:
                with sizes.in_rule() as denied:
                    return self._emit(record, args, attrs)
            except ShapeError:
                self._take_back(mark)
                # the rule could not do without what it has asked last; that a size is 1 it only asks to stretch it
                stretched = {hash(size) for arg in args if isinstance(arg, Value) for size in arg.shape}
                needed = [found for found in denied if not _is_one(found, stretched)]
                if not needed or not sizes.require(needed[-1]):
                    raise

    def _emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        if record is OPS["transfer"]:
            return super().emit(record, args, attrs)
        before = self._device
        operands = [arg for arg in args if isinstance(arg, Value)]
        device = self._device = placement() or before or (operands[0].type.device if operands else HOST)
        try:
            return super().emit(record, tuple(self._on(arg, device) for arg in args), attrs)
        finally:
            self._device = before

    def _on(self, arg: Any, device: str) -> Any:
        """An operand on a device: itself where it is there, or a transfer, one for all who need it there."""
        if not isinstance(arg, Value) or arg.builder is not self or arg.type.device == device:
            return arg
        if (arg, device) not in self._moved:
            self._moved[arg, device] = super().emit(OPS["transfer"], (arg,), {"device": device})
        return self._moved[arg, device]

    def constant(self, value: Any, dtype: DType | None = None) -> Value:
        self._scalars = self._constants.setdefault(self._device or placement() or HOST, {})
        return super().constant(value, dtype)

    def copy_input(self, value: Value) -> Value:
        """An input like one of another graph."""
        if value.name is not None:
            self._names.setdefault(value.name, 1)
        return self.input(value.name, value.type, **value.info)

    def copy(self, node: Node, operands: Sequence[Value]) -> tuple[Value, ...]:
        """A node like one of another graph; the results."""
        copied = super().append(node.op, operands, node.attrs, [r.type for r in node.results], node.location)
        for old, new in zip(node.results, copied.results):
            new.name = old.name
            if old.name is not None:
                self._names.setdefault(old.name, 1)
        return copied.results

    def _take_back(self, mark: int) -> None:
        """Remove the nodes from number `mark` on."""
        gone = {result for node in self.nodes[mark:] for result in node.results}
        del self.nodes[mark:]
        for value in gone:
            self._names.pop(str(value.name), None)
        for known in (self._moved, *self._constants.values()):
            for key in [key for key, value in known.items() if value in gone]:
                del known[key]

    def substitute(self, sizes: Mapping[str, int | Dim]) -> None:
        """Write sizes in other terms in all that has been recorded."""
        self.revision += 1
        for value in self.inputs:
            value.type = value.type.bind(sizes)
        for node in self.nodes:
            node.attrs = MappingProxyType({name: _bound(attribute, sizes) for name, attribute in node.attrs.items()})
            for value in node.results:
                value.type = value.type.bind(sizes)


def _bound(attribute: Any, sizes: Mapping[str, int | Dim]) -> Any:
    if isinstance(attribute, Graph):
        return substitute(attribute, sizes)
    if isinstance(attribute, tuple):
        return tuple(_bound(item, sizes) for item in attribute)
    return attribute.bind(sizes) if isinstance(attribute, Dim) else attribute


def _is_one(found: Relation, sizes: Collection[int]) -> bool:
    """Whether a relation says that one of some sizes is 1. They are given by their hashes, since to compare them is to ask."""
    return hash(found.difference + 1) in sizes or hash(1 - found.difference) in sizes


class Definition(Trace):
    """The tracer of a graph that is written by hand. It has no end: the graph can be entered again and grows."""

    builder: GraphBuilder

    def __init__(self, name: str, graph: define.Graph) -> None:
        super().__init__(name)
        self.graph = graph
        self.builder = GraphBuilder(name, self)
        self.sizes = Sizes(self)
        self.effects: list[Effect] = []
        """The changes of outside tensors, in order."""
        self.together: list[tuple[Value, list[Effect]]] = []
        """Results of modules, with the changes that are part of computing them."""
        self.calls: list[CustomCall] = []
        """The calls of user-defined Functions."""
        self._literals: set[int] = set()
        self._begun: list[int] = []
        """How many effects there were when each module began that is being called."""

    def place_of(self, value: Value) -> device:
        return device(value.type.device)

    def write(self, tensor: Tensor, value: Value) -> None:
        root = tensor if tensor._base is None else tensor._base
        before = self._root(root)
        super().write(tensor, value)
        lifted = self.lifted(root)
        if lifted is not None:
            self.effects.append(Effect(lifted, before, self._root(root)))

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Value | tuple[Value, ...]:
        result = super().apply(record, args, attrs)
        if mode.grad or any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):
            return result
        # values of the graph can be differentiated by though they do not require grad: no_grad holds for them, too
        if isinstance(result, tuple):
            return tuple(map(stopped, result))
        return stopped(result) if record.operands else result

    def call_function(self, function: type[Function], args: Sequence[Any]) -> Any:
        """Apply a user-defined `Function`, and remember it: `gradients` goes by its backward."""
        if not mode.grad:
            return function.run(tuple(args))
        before = [self.value(arg) if isinstance(arg, Tensor) and arg.dtype.is_differentiable else None for arg in args]
        watched = [None if value is None or args[i].requires_grad else wrap(value).requires_grad_()
                   for i, value in enumerate(before)]
        start = len(self.builder.nodes)
        result, context = run_function(function, args, watched)
        for arg, tensor, value in zip(args, watched, before):
            if tensor is not None and self.value(tensor) is not value:
                self.write(arg, self.value(tensor))  # it was changed in place
        outputs = result if isinstance(result, tuple) else (result,)
        if context is not None and len(self.builder.nodes) > start:
            results = tuple(self.value(out) for out in outputs if isinstance(out, Tensor))
            self.calls.append(CustomCall(context, range(start, len(self.builder.nodes)), tuple(before), results))
        return result

    def made(self, tensor: Tensor) -> None:
        self._literals.add(id(tensor))
        self._alive.append(tensor)

    def concrete(self, tensor: Tensor, what: str) -> Any:
        """There are no numbers before a session runs: a TraceError that names the user's line."""
        shown = TensorType(as_dtype(tensor._data.dtype), tuple(tensor._data.shape))
        raise TraceError(
            f"{what} needs the numbers of a tensor while graph {self.builder.name!r} is being written: it has none before a "
            "session runs",
            expected="code that does not look at the values of tensors",
            got=f"{what} of {self.sizes.spell(str(shown))}",
            hint="choose with where(condition, a, b), keep the value a tensor, or fetch it with Session.run first",
        )

    def decide(self, tensor: Tensor, kind: type[bool] | type[int], what: str) -> Any:
        """As `concrete`: Python cannot go one way or the other yet."""
        return self.concrete(tensor, what)

    def number(self, tensor: Tensor) -> Any:
        """As `concrete`."""
        return self.concrete(tensor, "item()")

    def _root(self, tensor: Tensor) -> Value:
        if id(tensor) in self._literals and id(tensor) not in self._current:
            self._current[id(tensor)] = self.builder.constant(tensor._data)
        return super()._root(tensor)

    def _lift(self, tensor: Tensor, name: str | None = None) -> Lifted:
        if not isinstance(tensor._data, np.ndarray):
            raise TraceError("a tensor of a function that is being transformed was used in a graph")
        kind = "generator" if tensor is default_generator._state else "parameter" if tensor.requires_grad else "tensor"
        return super()._lift(tensor, self.builder.unique(name or kind))

    def name_of(self, tensor: Tensor) -> str:
        """The name of what the tensor holds now."""
        return self.graph.name_of(self._current.get(id(tensor), tensor._data))

    def adopt(self, tensor: Tensor, value: Value) -> None:
        """Let an input stand for a tensor from outside."""
        lifted = self._lifted[id(tensor)] = Lifted(
            Captured(tensor), value, tensor, tensor._node, tensor.requires_grad, tensor._version)
        self.inputs.append(lifted)
        self._alive.append(tensor)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor with numbers is part of the graph: used in it, made in it, or a view of such a one."""
        root = tensor if tensor._base is None else tensor._base
        return id(root) in self._lifted or id(root) in self._literals or id(root) in self._current

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Note which changes of outside tensors, such as running statistics, are made by which module."""
        with register_module_forward_pre_hook(self._begin), register_module_forward_hook(self._end, always_call=True):
            yield
        self._begun.clear()

    def _begin(self, module: Module, args: Any) -> None:
        if active() is self:
            self._begun.append(len(self.effects))

    def _end(self, module: Module, args: Any, output: Any) -> None:
        if active() is not self or not self._begun:
            return
        known = {effect for _, effects in self.together for effect in effects}
        own = [effect for effect in self.effects[self._begun.pop() :] if effect not in known]
        for leaf in flatten(output)[0] if own else ():
            if isinstance(leaf, Tensor):
                self.together.append((self.value(leaf), own))

    def forget_histories(self) -> None:
        """Give tensors from outside the history back that they had: what the graph does to them happens in a run."""
        for lifted in self.inputs:
            if lifted.tensor is not None:
                lifted.tensor._node = lifted.node
