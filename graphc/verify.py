"""Checking graphs: what every pass may rely on and has to keep.

Each operand is defined before it is used, in the same graph and once; each node has the operands and the attributes
that its op's record names; the recorded types are those that the op's type rule gives; the operands of an elementwise
op have one shape and one dtype, in which it is computed; the names of inputs, and those of outputs, are different.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.assumptions import Relation
from graphc.conditions import conditions, relying_on
from graphc.dims import Dim
from graphc.errors import GraphcError, ShapeError, VerifyError
from graphc.ir import Graph, Node, Value
from graphc.op import OPS
from graphc.text import print_attribute, print_node, print_types, value_names
from graphc.types import DTYPES, DType, TensorType, complex32

MAX_DIMENSIONS = 64  # NumPy's own limit
MAX_BYTES = 2**63 - 1
MAX_NESTING = 16
"""How deep the tuples of an attribute may be nested, and graphs in each other."""

_DEVICE = re.compile(r"[a-z]+(:\d+)?")
_EXCERPT = 240


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with a node or a type, in the parts of an error message."""

    problem: str
    expected: str | None = None
    got: str | None = None
    hint: str | None = None


def verify(graph: Graph) -> None:
    """Raise VerifyError, with the line of the offending node, if the graph breaks a rule of the IR. So may the graphs that
    are attributes of its nodes."""
    _verify(graph, 0)


def _verify(graph: Graph, depth: int) -> None:
    _check_inputs(graph)
    with relying_on(_conditions(graph)):
        defined = _check_nodes(graph, depth)
    _check_outputs(graph, defined)


def _check_nodes(graph: Graph, depth: int) -> set[Value]:
    """All values of the graph, whose nodes keep the rules."""
    defined = set(graph.inputs)
    for node in graph.nodes:
        for operand in node.operands:
            if operand not in defined:
                _fail(graph, node, _undefined(graph, node, operand))
        if found := node_violation(node, depth):
            _fail(graph, node, found)
        for index, result in enumerate(node.results):
            if result in defined:
                _fail(graph, node, Violation("a value is defined twice", got=value_names(graph)[result]))
            if result.node is not node or result.index != index:
                _fail(graph, node, Violation("a result does not point back to its node"))
            if result.name is not None and not isinstance(result.name, str):
                _fail(graph, node, Violation("a result's name is not a string", got=repr(result.name)))
            defined.add(result)
    return defined


def node_violation(node: Node, depth: int = 0, *, graphs: bool = True) -> Violation | None:
    """What is wrong with a node by itself, its operands' types being right; None if nothing is. `depth` is how many graphs
    its own graph is nested in; without `graphs`, those among its attributes have been looked at."""
    record = node.op
    if OPS.get(record.name) is not record:
        return Violation(f"{record.name!r} is not a registered op")
    rules: list[Callable[[Node], Violation | None]] = [_arity, _attribute_names]
    if graphs and any(isinstance(attribute, Graph) for attribute in node.attrs.values()):
        rules.append(lambda node: _graphs(node, depth))
    rules += [_attribute_values, _elementwise, _computed_in, _placement, _result_types]
    return next((found for rule in rules if (found := rule(node))), None)


def _graphs(node: Node, depth: int) -> Violation | None:
    """What is wrong with the graphs among the attributes of a node."""
    for name, graph in node.attrs.items():
        if not isinstance(graph, Graph):
            continue
        if depth == MAX_NESTING:
            return Violation(f"{node.op.name}: graphs nested more than {MAX_NESTING} deep")
        try:
            _verify(graph, depth + 1)
        except VerifyError as error:
            return Violation(f"{node.op.name}: {name}: {error.problem}", error.expected, error.got, error.hint)
    return None


def type_violation(type_: TensorType) -> Violation | None:
    """What is wrong with a type; None if nothing is."""
    if not isinstance(type_.dtype, DType) or DTYPES.get(type_.dtype.name) is not type_.dtype:
        return Violation(f"{type_.dtype!r} is not a dtype", expected=f"one of {', '.join(DTYPES)}")
    if not isinstance(type_.shape, tuple):
        return Violation(f"{type_.shape!r} is not a shape", expected="a tuple of sizes")
    if len(type_.shape) > MAX_DIMENSIONS:
        return Violation(f"a shape of {len(type_.shape)} dimensions", expected=f"at most {MAX_DIMENSIONS}")
    for size in type_.shape:
        # not isinstance: True and numpy.int64(2) are equal to sizes, and neither prints as one
        number = size if type(size) is int else 0 if type(size) is Dim and not _is_large(size) else -1
        if not 0 <= number <= MAX_BYTES:
            return Violation(f"{size!r} is not a size", expected="an int from 0 to 2**63 - 1, or a symbolic size",
                             got=f"the shape {type_.shape}")
    try:
        nbytes = type_.nbytes
    except GraphcError as error:
        return Violation(f"{error.problem} in the shape {type_.shape}", expected=error.expected)
    present = [size for size in type_.shape if isinstance(size, int) and size]  # NumPy counts these beside a 0, too
    if (isinstance(nbytes, int) and nbytes > MAX_BYTES) or math.prod(present) * type_.dtype.itemsize > MAX_BYTES:
        return Violation(f"{type_} is too large for any memory", expected="at most 2**63 - 1 bytes")
    if not _DEVICE.fullmatch(type_.device):
        return Violation(f"{type_.device!r} is not a device", expected="such as cpu or cuda:0")
    return None


def attribute_violation(attribute: Any, depth: int = 0) -> str | None:
    """Why a value cannot be an attribute; None where it can."""
    if isinstance(attribute, tuple):
        if depth == MAX_NESTING:
            return f"tuples nested more than {MAX_NESTING} deep"
        return next((why for item in attribute if (why := attribute_violation(item, depth + 1))), None)
    if type(attribute) is int and not -(2**63) <= attribute < 2**64:
        return "an integer of more than 64 bits"
    if isinstance(attribute, Dim) and _is_large(attribute):
        return "a size with factors of more than 64 bits"
    if attribute is None or type(attribute) in (bool, int, str) or isinstance(
            attribute, (float, complex, Dim, DType, np.ndarray, Graph)):
        return None
    return f"{attribute!r}, a {type(attribute).__name__}"


def _is_large(size: Dim) -> bool:
    return any(abs(coefficient) > MAX_BYTES for _, coefficient in size.terms)


def _check_inputs(graph: Graph) -> None:
    seen: set[Value] = set()
    names: set[str] = set()
    for index, value in enumerate(graph.inputs):
        label = repr(value.name) if value.name is not None else str(index)
        if value in seen:
            raise VerifyError(f"graph {graph.name!r}: input {label} is listed twice")
        if value.node is not None or value.index != index:
            raise VerifyError(f"graph {graph.name!r}: input {label} is a result of a node, or has another place")
        if value.name is not None and not isinstance(value.name, str):
            raise VerifyError(f"graph {graph.name!r}: input {label} has a name that is not a string")
        if value.name in names:
            raise VerifyError(f"graph {graph.name!r}: two inputs are called {label}", hint="give each a name of its own")
        if found := type_violation(value.type):
            raise VerifyError(f"graph {graph.name!r}, input {label}: {found.problem}", expected=found.expected, got=found.got)
        for key, item in value.info.items():
            if why := "a graph" if isinstance(item, Graph) else attribute_violation(item):
                raise VerifyError(f"graph {graph.name!r}, input {label}: {key} = {why}, cannot be kept with an input")
        seen.add(value)
        if value.name is not None:
            names.add(value.name)


def _conditions(graph: Graph) -> list[Relation]:
    try:
        stated = conditions(value.info for value in graph.inputs)
    except ShapeError as error:
        raise VerifyError(f"graph {graph.name!r}: {error.problem}", expected=error.expected) from None
    known = {name for value in graph.inputs for size in value.shape if isinstance(size, Dim) for name in size.symbols()}
    for condition in stated:
        if unknown := condition.difference.symbols() - known:
            raise VerifyError(f"graph {graph.name!r}: {condition} is of a size that no input has",
                              got=", ".join(sorted(unknown)))
    return stated


def _check_outputs(graph: Graph, defined: set[Value]) -> None:
    for index, value in enumerate(graph.outputs):
        if value not in defined:
            raise VerifyError(f"graph {graph.name!r}: output {index} is not defined in it", got=repr(value))
    names = graph.output_names
    if names is None:
        return
    if len(names) != len(graph.outputs):
        raise VerifyError(f"graph {graph.name!r}: {len(names)} names for {len(graph.outputs)} outputs", got=str(names))
    if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise VerifyError(f"graph {graph.name!r}: the names of the outputs are not different strings", got=str(names))


def _fail(graph: Graph, node: Node, found: Violation) -> None:
    line = print_node(node, value_names(graph))
    line = line if len(line) <= _EXCERPT else f"{line[: _EXCERPT // 2]} ... {line[-_EXCERPT // 2 :]}"
    raise VerifyError(
        f"graph {graph.name!r}: {found.problem}\n    {line}",
        expected=found.expected, got=found.got, hint=found.hint, at=node.location,
    )


def _undefined(graph: Graph, node: Node, operand: Value) -> Violation:
    if operand in set(node.results):
        return Violation(f"{node.op.name} uses its own result")
    if operand in set(graph.values()):
        return Violation(f"{node.op.name} uses {value_names(graph)[operand]} before it is defined")
    return Violation(f"{node.op.name} uses a value that is not in the graph", got=repr(operand))


def _arity(node: Node) -> Violation | None:
    record, count = node.op, len(node.operands)
    wanted = len(record.operands)
    if record.variadic and wanted > 1:
        wanted -= 1  # what follows others may be nothing
    if count == wanted or (record.variadic and count > wanted):
        return None
    signature = f"{record.name}({', '.join(record.operands)})"
    return Violation(f"{record.name} has {count} operand{'' if count == 1 else 's'}",
                     expected=f"{wanted}{' or more' if record.variadic else ''}: {signature}")


def _attribute_names(node: Node) -> Violation | None:
    record = node.op
    wrong = [f"no {name}" for name in record.attrs if name not in node.attrs]
    wrong += [f"an unknown {name}" for name in node.attrs if name not in record.attrs]
    if not wrong:
        return None
    return Violation(f"{record.name} has {' and '.join(wrong)} among its attributes",
                     expected=", ".join(record.attrs) or "no attributes", got=", ".join(node.attrs) or "no attributes")


def _attribute_values(node: Node) -> Violation | None:
    record = node.op
    for name, attribute in node.attrs.items():
        if why := attribute_violation(attribute):
            return Violation(f"{record.name}: the attribute {name} is {why}",
                             expected="bool, int, float, complex, str, None, a dtype, a size, an array, a graph, or a tuple of "
                             "these")
        examples = [sample.attrs[name] for sample in record.samples]
        if examples and not _is_like(attribute, examples):  # a user's op has no samples
            return Violation(f"{record.name}: the attribute {name} is of the wrong kind",
                             expected=f"such as {print_attribute(examples[0])}", got=print_attribute(attribute))
    return None


def _is_like(attribute: Any, examples: Sequence[Any]) -> bool:
    """Whether an attribute is of the kind of one of the examples: those of the samples in the op's record.

    Type rules compute with sizes and dimensions and may take True or 1.0 for 1, which code generation would not.
    """
    if isinstance(attribute, tuple):
        tuples = [example for example in examples if isinstance(example, tuple)]
        items = [item for example in tuples for item in example]
        return bool(tuples) and (not items or all(_is_like(item, items) for item in attribute))
    kinds = {type(example) for example in examples}
    if int in kinds:
        kinds.add(Dim)
    if float in kinds:
        kinds |= {int, bool, complex}
    return any(isinstance(attribute, float) if kind is float else type(attribute) is kind for kind in kinds)


def _elementwise(node: Node) -> Violation | None:
    record = node.op
    if not record.elementwise:
        return None
    types = [value.type for value in node.operands]
    if any(type_.shape != types[0].shape for type_ in types):
        return Violation(f"{record.name}: the operands of an elementwise op differ in shape", expected="equal shapes",
                         got=print_types(types), hint="insert broadcast_to")
    if len({type_.dtype for type_, name in zip(types, record.operands) if name not in record.keeps}) > 1:
        return Violation(f"{record.name}: the operands of an elementwise op differ in dtype", expected="equal dtypes",
                         got=print_types(types), hint="insert cast")
    return None


def _computed_in(node: Node) -> Violation | None:
    """What is wrong with the dtypes of the operands, whatever the op is."""
    record = node.op
    for value, name in zip(node.operands, record.operands):
        if record.floating and not value.dtype.is_differentiable and name not in record.keeps:
            return Violation(f"{record.name} is not computed in {value.dtype.name}", expected="a floating-point dtype",
                             got=print_types([v.type for v in node.operands]), hint="insert cast")
    if record.computes and any(value.dtype is complex32 for value in node.operands):
        return Violation(f"{record.name} is not computed in complex32", expected="complex64",
                         got=print_types([v.type for v in node.operands]), hint="insert cast")
    return None


def _placement(node: Node) -> Violation | None:
    """A node runs on the device of its results, and so do its operands; only a transfer's comes from elsewhere."""
    devices = {value.type.device for value in node.results}
    if node.op.name != "transfer":
        devices.update(value.type.device for value in node.operands)
    if len(devices) <= 1:
        return None
    return Violation(f"{node.op.name} is on several devices", expected="operands and results on one device",
                     got=print_types([v.type for v in (*node.operands, *node.results)]), hint="insert transfer")


def _result_types(node: Node) -> Violation | None:
    record = node.op
    try:
        inferred = record.infer(*(value.type for value in node.operands), **node.attrs)
    except GraphcError as error:
        return Violation(error.problem, expected=error.expected, got=error.got, hint=error.hint)
    except Exception as error:  # a type rule may trip over attributes of the wrong kind in any way
        problem = f"{record.name}: attributes and operands do not fit: {type(error).__name__}: {error}"
        return Violation(problem, got=_described(node))
    expected: Sequence[TensorType] = inferred if isinstance(inferred, tuple) else (inferred,)
    if node.op.name != "transfer" and node.results:  # type rules say nothing of devices
        expected = [type_.on(node.results[0].type.device) for type_ in expected]
    for type_ in expected:
        if found := type_violation(type_):
            return found
    got = [value.type for value in node.results]
    if list(expected) != got:
        return Violation(f"{record.name}: the result's type is not what the operands give",
                         expected=print_types(expected), got=print_types(got))
    return None


def _described(node: Node) -> str:
    attributes = (f"{name} = {print_attribute(value)}" for name, value in node.attrs.items())
    text = ", ".join((*(str(value.type) for value in node.operands), *attributes))
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]} ..."
