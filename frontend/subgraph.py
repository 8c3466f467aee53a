"""The part of a graph that one run executes: what leads from the feeds to the fetches, and what belongs to that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import graphc.ops as ops
from graphc import ir
from graphc.dims import Dim
from graphc.errors import TraceError
from graphc.frontend.define import Graph
from graphc.frontend.definition import Effect
from graphc.frontend.trace_inputs import Lifted
from graphc.ir import Builder, Node, Value, copy_node


@dataclass(frozen=True, eq=False)
class Subgraph:
    """What a run executes, for some fetches and some feeds."""

    graph: ir.Graph
    """A graph by itself. Outputs: the fetches, then the new contents of tensors from outside."""
    inputs: tuple[Value, ...]
    """The values of the whole graph that its inputs stand for."""
    names: tuple[str, ...]
    """The names of its nodes, in the order of the whole graph."""
    updates: tuple[tuple[Lifted, int], ...]
    """The tensors from outside that the run changes, and the outputs with their new contents."""
    numbers: frozenset[int]
    """Where its nodes stand among those of the whole graph."""


def cut(whole: Graph, fetches: Sequence[Value], fed: Collection[Value]) -> Subgraph:
    """The part of a graph that leads to the fetches; at values that are fed it ends. TraceError for a placeholder that is
    not fed.

    A change of a tensor from outside is part of a run if a fetch depends on it, if it belongs to a call of a module whose
    result the run computes, or if it moves a generator on from which the run draws.
    """
    needed: set[Value] = set()
    _reach(fetches, fed, needed)
    effects = _effects(whole, needed, fed)
    updates = {id(effect.lifted): (effect.lifted, effect.after) for effect in effects}
    outputs = [*fetches, *(after for _, after in updates.values())]
    builder = whole.definition.builder
    nodes = [(i, node) for i, node in enumerate(builder.nodes) if any(r in needed and r not in fed for r in node.results)]
    inputs = [value for value in needed if value in fed or value.node is None]
    inputs += _that_tell_sizes(whole, inputs, [node for _, node in nodes], outputs, fed)
    order = {value: i for i, value in enumerate(whole.definition.builder.inputs)}
    inputs.sort(key=lambda value: (order.get(value, len(order)), whole.name_of(value)))
    for value in inputs:
        if value not in fed:
            _check_known(whole, value)
    return Subgraph(
        _extract(whole, inputs, [node for _, node in nodes], outputs), tuple(inputs),
        tuple(whole.name_of(node.results[0]) for _, node in nodes),
        tuple((lifted, len(fetches) + k) for k, (lifted, _) in enumerate(updates.values())),
        frozenset(i for i, _ in nodes),
    )  # fmt: skip


def _reach(roots: Iterable[Value], fed: Collection[Value], needed: set[Value]) -> None:
    """Add the roots, and all that they are computed from, to what is needed."""
    pending = [value for value in roots if value not in needed]
    while pending:
        value = pending.pop()
        if value not in needed:
            needed.add(value)
            if value not in fed and value.node is not None:
                pending.extend(value.node.operands)


def _effects(whole: Graph, needed: set[Value], fed: Collection[Value]) -> list[Effect]:
    """The changes of outside tensors that belong to a run, in order; `needed` grows by what they are computed from."""
    definition = whole.definition
    draws: dict[Value, list[Value]] = {}
    for node in definition.builder.nodes if definition.effects else ():
        if node.op is ops.random_bits:
            draws.setdefault(node.operands[0], []).append(node.result)
    together: dict[Effect, list[Value]] = {}
    for result, effects in definition.together:
        for effect in effects:
            together.setdefault(effect, []).append(result)
    found: dict[Effect, None] = {}
    while True:
        more = [
            effect for effect in definition.effects
            if effect not in found and effect.after not in fed and any(
                value in needed and value not in fed
                for value in (effect.after, *draws.get(effect.before, ()), *together.get(effect, ())))
        ]
        if not more:
            return [effect for effect in definition.effects if effect in found]
        found.update(dict.fromkeys(more))
        _reach((effect.after for effect in more), fed, needed)


def _that_tell_sizes(
    whole: Graph, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value], fed: Collection[Value]
) -> list[Value]:
    """Inputs that are only needed because their shapes tell sizes which others do not."""
    wanted: dict[str, None] = {}
    for node in nodes:
        for attribute in node.attrs.values():
            wanted.update(dict.fromkeys(_symbols(attribute)))
        for result in node.results:
            wanted.update(dict.fromkeys(_symbols(result.shape)))
    for value in inputs:
        for name in _symbols(value.shape):
            wanted.pop(name, None)
    more: dict[Value, None] = {}
    for name in wanted:
        having = [value for value in (*fed, *whole.definition.builder.inputs) if name in _symbols(value.shape)]
        if having:
            more[having[0]] = None
    return list(more)


def _symbols(attribute: Any) -> list[str]:
    """The names of the sizes that an attribute, or a shape, has in it."""
    if isinstance(attribute, Dim):
        return sorted(attribute.symbols())
    return [name for item in attribute for name in _symbols(item)] if isinstance(attribute, tuple) else []


def _check_known(whole: Graph, value: Value) -> None:
    placeholder = whole.placeholder_of(value)
    if placeholder is not None:
        name = whole.name_of(value)
        declared = f", declared at {placeholder.location}" if placeholder.location is not None else ""
        raise TraceError(f"placeholder {name!r} is needed and was not fed{declared}",
                         expected=f"an array of {value.dtype.name} and shape {shape_text(value)}",
                         hint=f"session.run(fetches, feed_dict={{{name!r}: array}})")


def shape_text(value: Value) -> str:
    """A shape as the user has declared it: `(None, 3)`."""
    return str(tuple(None if isinstance(size, Dim) else size for size in value.shape))


def _extract(whole: Graph, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value]) -> ir.Graph:
    builder = Builder(whole.name, locations=False)
    new: dict[Value, Value] = {}
    for value in inputs:
        new[value] = builder.input(whole.name_of(value), value.type)
    for node in nodes:
        copied = copy_node(builder, node, [new[v] for v in node.operands])
        for old, made in zip(node.results, copied.results):
            made.name = whole.name_of(old)
            new.setdefault(old, made)  # but for results that are fed
    return builder.finish([new[v] for v in outputs])
