"""What a file holds for each of its entries: a graph, which of its inputs are weights, and how arrays are nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.ir import Builder, Graph, Node, Value, copy_node
from graphc.package.structure import Structure
from graphc.types import TensorType, dtype_of

WEIGHT_KINDS = ("param", "buffer", "constant", "state")
"""An input whose `info` has one of these is bound to the weight that it names."""

NEXT = "next"
"""An input bound to a weight whose `info` has this holds, at the next call, what the output of that number is at this one."""

MAX_INLINE_ELEMENTS = 64
"""Constants of more elements become weights."""


@dataclass(frozen=True)
class Entry:
    """One function of a saved program.

    inputs
        How the arrays of a call are nested: the structure of `(args, kwargs)`; see `graphc.package.structure`. None: the
        arrays one after another, or by name. Weights do not count as arrays of the call.
    outputs
        How the results are nested; None: one result as it is, several as a tuple.
    """

    graph: Graph
    inputs: Structure | None = None
    outputs: Structure | None = None

    @property
    def weights(self) -> dict[int, str]:
        """The names of the weights by the position of the input that each is bound to."""
        return {i: name for i, value in enumerate(self.graph.inputs) if (name := weight_name(value)) is not None}

    @property
    def updates(self) -> dict[str, int]:
        """The weights that a call changes, each with the number of the output that is its next value."""
        return {name: self.graph.inputs[i].info[NEXT] for i, name in self.weights.items() if NEXT in self.graph.inputs[i].info}

    @property
    def state(self) -> set[str]:
        """The weights that may change from call to call: those that a call changes, and those that are called state."""
        return {*self.updates, *(name for i, name in self.weights.items() if "state" in self.graph.inputs[i].info)}

    @property
    def results(self) -> tuple[int, ...]:
        """The numbers of the outputs that a call gives back: not those that are kept for the next."""
        kept = set(self.updates.values())
        return tuple(number for number in range(len(self.graph.outputs)) if number not in kept)

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The inputs that a call gives."""
        return tuple(value for value in self.graph.inputs if weight_name(value) is None)


def weight_name(value: Value) -> str | None:
    """The weight that an input of a graph is bound to; None for one that the caller gives."""
    name = next((value.info[kind] for kind in WEIGHT_KINDS if kind in value.info), None)
    return name if isinstance(name, str) else None


def with_one_input_each(entry: Entry) -> Entry:
    """The entry with one input for each weight: where two were bound to the same one, the first serves for both."""
    names = list(entry.weights.values())
    if len(set(names)) == len(names):
        return entry
    builder = Builder(entry.graph.name, locations=False)
    new: dict[Value, Value] = {}
    bound: dict[str, Value] = {}
    infos: dict[str, dict[str, Any]] = {}
    for i, name in entry.weights.items():
        infos[name] = {**infos.get(name, {}), **entry.graph.inputs[i].info}  # one of them may say what is next
    for i, value in enumerate(entry.graph.inputs):
        own = entry.weights.get(i)
        if own is None:
            new[value] = builder.input(value.name, value.type, **value.info)
            continue
        if own not in bound:
            bound[own] = builder.input(value.name, value.type, **infos[own])
        new[value] = bound[own]
    for node in entry.graph.nodes:
        _copy(builder, node, new)
    graph = builder.finish([new[value] for value in entry.graph.outputs], entry.graph.output_names)
    return replace(entry, graph=graph)


def updates_violation(entry: Entry) -> str | None:
    """What is wrong with what an entry says of the weights that change; None if nothing is."""
    weights = entry.weights
    changed: set[str] = set()
    outputs: set[int] = set()
    for position, value in enumerate(entry.graph.inputs):
        if NEXT not in value.info:
            continue
        name, output = weights.get(position), value.info[NEXT]
        if name is None or type(output) is not int or not 0 <= output < len(entry.graph.outputs):
            return f"the input {value.name!r} has no weight, or no output, to go on with"
        if name in changed or output in outputs:
            return f"the weight {name!r} is changed twice, or by another's output"
        if entry.graph.outputs[output].type != value.type:
            return f"the weight {name!r} is {value.type}, and would become {entry.graph.outputs[output].type}"
        changed.add(name)
        outputs.add(output)
    return None


def fits(array: np.ndarray, type_: TensorType) -> bool:
    """Whether an array is of the dtype and the shape, wherever the type says that it lives."""
    return dtype_of(array.dtype) is type_.dtype and array.shape == type_.shape


def prepare(entry: Entry) -> tuple[Entry, dict[str, np.ndarray]]:
    """The entry as it is written: every input and output has a name, and large constants are weights of their own,
    named by their content, so that equal ones are kept once."""
    graph = entry.graph
    builder = Builder(graph.name, locations=False)
    taken = {value.name for value in graph.inputs}
    new: dict[Value, Value] = {}
    arguments = 0
    for value in graph.inputs:
        name = value.name
        if name is None:
            name = free_name(weight_name(value) or f"input_{arguments}", taken)
            taken.add(name)
        arguments += weight_name(value) is None
        new[value] = builder.input(name, value.type, **value.info)
    constants: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        array = node.attrs.get("value") if node.op.name == "constant" else None
        if isinstance(array, np.ndarray) and array.size > MAX_INLINE_ELEMENTS:
            new[node.result] = _constant_input(builder, array, constants, taken)
    for node in graph.nodes:
        if not node.results or node.results[0] not in new:
            _copy(builder, node, new)
    names = graph.output_names or _output_names(entry)
    return replace(entry, graph=builder.finish([new[v] for v in graph.outputs], names)), constants


def _constant_input(builder: Builder, array: np.ndarray, constants: dict[str, np.ndarray], taken: set[Any]) -> Value:
    import hashlib  # which loads OpenSSL

    array = np.asarray(array, dtype_of(array.dtype).numpy, order="C")
    described = f"{array.dtype.str}{list(array.shape)}".encode()
    name = f"constant.{hashlib.sha256(described + array.tobytes()).hexdigest()[:16]}"
    if name in constants:
        return next(value for value in builder.inputs if value.info.get("constant") == name)
    constants[name] = array
    input_name = free_name(name, taken)
    taken.add(input_name)
    return builder.input(input_name, TensorType(dtype_of(array.dtype), array.shape), constant=name)


def _copy(builder: Builder, node: Node, new: dict[Value, Value]) -> None:
    new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))


def _output_names(entry: Entry) -> Sequence[str]:
    results = entry.results
    names = dict(zip(results, ["output"] if len(results) == 1 else [f"output_{i}" for i in range(len(results))]))
    names |= {number: f"next.{name}" for name, number in entry.updates.items()}
    return [names[number] for number in range(len(names))]


def free_name(name: str, taken: set[Any]) -> str:
    """`name`, or the first of name_1, name_2, ... that is not taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
