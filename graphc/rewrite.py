"""Rewriting graphs by rules. A rule is a pattern, written with the ops themselves, and a replacement.

>>> import graphc.ops as ops
>>> x = Var("x")
>>> double_negation = Rule("double_negation", ops.neg(ops.neg(x)), lambda x: x)
>>> double_negation
double_negation: neg(neg(x))

In a pattern a number stands for a constant of that value in any dtype, broadcast or not. A replacement takes the matched
values by the variables' names (and `node`, the root, if it asks for it); it returns a value, or None to decline.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.config import note
from graphc.errors import RewriteError
from graphc.fuel import allowed
from graphc.ir import Builder, Graph, Node, Value, copy_node
from graphc.op import OpDef

_LIMIT = 20
"""Rewrites of one node before it is taken that the rules turn in a circle."""


class _PatternEmitter:
    priority = 5

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Pattern:
        return Pattern(record, args)


class Var:
    """Stands for any value; where it occurs twice, for the same value."""

    __graphc_emitter__ = _PatternEmitter()

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Pattern:
    """An op applied to patterns. Attributes do not take part: a replacement looks at them itself."""

    __graphc_emitter__ = Var.__graphc_emitter__

    def __init__(self, record: OpDef, args: tuple[Any, ...]) -> None:
        self.op = record
        self.args = args

    def __repr__(self) -> str:
        return f"{self.op.name}({', '.join(map(repr, self.args))})"


class Rule:
    """A named pattern with its replacement."""

    def __init__(self, name: str, pattern: Pattern, replacement: Callable[..., Value | None]) -> None:
        self.name = name
        self.pattern = pattern
        self.replacement = replacement
        self.parameters = tuple(inspect.signature(replacement).parameters)

    def __repr__(self) -> str:
        return f"{self.name}: {self.pattern}"


def match(pattern: Pattern, node: Node) -> dict[str, Value] | None:
    """The values that the pattern's variables stand for at `node`, or None."""
    bound: dict[str, Value] = {}
    return bound if _match_node(pattern, node, bound) else None


def _match_node(pattern: Pattern, node: Node | None, bound: dict[str, Value]) -> bool:
    if node is None or node.op is not pattern.op or len(node.operands) != len(pattern.args):
        return False
    return all(_match(p, v, bound) for p, v in zip(pattern.args, node.operands))


def _match(pattern: Any, value: Value, bound: dict[str, Value]) -> bool:
    if isinstance(pattern, Var):
        return bound.setdefault(pattern.name, value) is value
    if isinstance(pattern, Pattern):
        return _match_node(pattern, value.node, bound)
    number = scalar_constant(value)
    return number == pattern or (pattern != pattern and number is not None and number != number)


def scalar_constant(value: Value) -> bool | int | float | None:
    """The number that a value holds everywhere, if it is a constant with but one number."""
    node = value.node
    while node is not None and node.op.name in ("broadcast_to", "reshape"):
        node = node.operands[0].node
    if node is None or node.op.name != "constant" or node.attrs["value"].ndim:
        return None
    return node.attrs["value"].item()


class Rewriter:
    """Applies rules to a graph, each node once in order, and again to what a rule has put in its place."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_op: dict[OpDef, list[Rule]] = {}
        for rule in rules:
            self.by_op.setdefault(rule.pattern.op, []).append(rule)
        self.fired: Counter[str] = Counter()
        self.is_done = True
        """Whether all that the last sweep has put in has been looked at: it would find nothing if it were made again."""

    def __call__(self, graph: Graph) -> Graph:
        """One sweep over the graph; the same graph if no rule fired."""
        self.is_done = True
        before = self.fired.total()
        builder = Builder(graph.name, locations=False)
        new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
        for node in graph.nodes:
            builder.location = node.location
            copied = copy_node(builder, node, [new[v] for v in node.operands])
            new.update(zip(node.results, copied.results))
            if len(copied.results) == 1:
                new[node.result] = self._rewrite(builder, copied)
        if self.fired.total() == before:
            builder.abandon()
            return graph
        return builder.finish([new[v] for v in graph.outputs], graph.output_names)

    def _rewrite(self, builder: Builder, node: Node) -> Value:
        trail: list[str] = []
        value = node.result
        while value.node is not None and (step := self._step(builder, value.node)) is not None:
            rule, value = step
            self.fired[rule.name] += 1
            trail.append(rule.name)
            if len(trail) > _LIMIT:
                raise RewriteError(
                    f"rewriting of {node.op.name} does not end", got=f"the rules {' -> '.join(trail[-6:])}", at=node.location
                )
        return value

    def _step(self, builder: Builder, node: Node) -> tuple[Rule, Value] | None:
        for rule in self.by_op.get(node.op, ()):
            bound = match(rule.pattern, node)
            if bound is None:
                continue
            available: dict[str, Any] = {**bound, "node": node}
            known = len(builder.nodes)
            replacement = rule.replacement(**{name: available[name] for name in rule.parameters})
            if replacement is None or replacement is node.result:
                continue
            if replacement.type != node.result.type:
                raise RewriteError(
                    f"rule {rule.name} changes a type", expected=str(node.result.type), got=str(replacement.type)
                )
            if not allowed(rule.name, node, node.location):
                return None
            note(3, f"    {rule.name}: {node!r} -> {replacement!r}")
            # a replacement is looked at next, and what was there before has been; what it is made of has not
            self.is_done &= all(made is replacement.node for made in builder.nodes[known:])
            return rule, replacement
        return None


def rewrite(graph: Graph, rules: Sequence[Rule], *, rounds: int = 8) -> Graph:
    """Apply the rules until none fires; RewriteError, naming the last rules, if that takes more than `rounds` sweeps."""
    from graphc.passes.prune import prune

    for _ in range(rounds):
        rewriter = Rewriter(rules)
        graph = prune(rewriter(graph))
        if rewriter.is_done:
            return graph
    raise RewriteError(
        f"graph {graph.name!r} is still being rewritten after {rounds} sweeps", got=f"rules {dict(rewriter.fired)}"
    )
