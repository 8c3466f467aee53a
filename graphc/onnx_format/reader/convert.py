"""Making a graph of the nodes of a model, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.errors import GraphcError
from graphc.interpret import interpret
from graphc.ir import Builder, Value
from graphc.onnx_format.protobuf import element_type, onnx
from graphc.onnx_format.reader.call import Call, Inner
from graphc.onnx_format.reader.limits import BadModel, Limits, NeedsContent
from graphc.onnx_format.reader.scope import Known, Operand, Scope, known, missing
from graphc.onnx_format.reader.symbolic import SYMBOLIC
from graphc.onnx_format.reader.table import READERS, REFUSED
from graphc.onnx_format.reader.tensors import read_tensor
from graphc.types import TensorType, dtype_of, int64

Opsets = Mapping[str, int]

_KEPT = frozenset(("If", "Loop", "Scan"))
"""Operators that are not computed while the model is read: they decide themselves what to do with what is known."""


_OF_SHAPES = frozenset(("Shape", "Size"))
"""Operators whose results do not depend on the numbers in their operands."""


@dataclass
class Converter:
    """Makes the graphs of one model."""

    limits: Limits
    folder: Path | None
    functions: Mapping[tuple[str, str], Any]
    """The model's own functions, by domain and name."""
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: int = 0

    def read(self, proto: Any, scope: Scope, opsets: Opsets) -> None:
        """The initializers and the nodes of a graph; their names are then known in the scope."""
        self._initialize(proto, scope)
        self._all(proto.node, scope, opsets, {})

    def _initialize(self, proto: Any, scope: Scope) -> None:
        if proto.sparse_initializer:
            raise BadModel("the model has sparse weights", hint="make them dense")
        for tensor in proto.initializer:
            if not tensor.name or tensor.name in scope.names:
                continue  # given in the place of the default that it is
            array = read_tensor(tensor, self.folder)
            dtype = dtype_of(array.dtype)
            trained = dtype.is_floating_point and array.ndim > 0 and scope.outer is None
            scope.names[tensor.name] = Known(array, dtype, tensor.name if trained else None)

    def _all(self, nodes: Iterable[Any], scope: Scope, opsets: Opsets, given: Mapping[str, Any]) -> None:
        for node in nodes:
            self.nodes += 1
            if self.nodes > self.limits.nodes:
                raise BadModel(f"the model has more than {self.limits.nodes} nodes",
                               hint="raise the limit if you trust the file")
            node = _with_attributes(node, given)
            try:
                results = self._node(node, scope, opsets)
            except NeedsContent:
                raise
            except BadModel as error:
                if error.reason.startswith("node "):
                    raise
                raise BadModel(f"{_described(node)}: {error.reason}", expected=error.expected, got=error.got,
                               hint=error.hint) from None
            except GraphcError as error:
                error.args = (f"{_described(node)}: {error.args[0]}",)
                error.problem = f"{_described(node)}: {error.problem}"
                raise
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise BadModel(f"{_described(node)} is malformed: {type(error).__name__}: {error}") from error
            self._bind(node, results, scope)

    def _bind(self, node: Any, results: Sequence[Operand | None], scope: Scope) -> None:
        for name, result in zip(node.output, results):
            if not name:
                continue
            if name in scope.names and name not in scope.captured:
                raise BadModel(f"{name!r} is defined twice")
            if result is None:
                raise BadModel(f"{_described(node)}: its result {name!r} is not supported")
            if result.type.is_static and result.type.nbytes > self.limits.tensor_bytes:
                raise BadModel(f"{_described(node)}: the result is too large", got=str(result.type))
            if isinstance(result, Known) and result.weight is None and result.array.size > self.limits.constant_elements:
                result = scope.value(result)
            scope.names[name] = result

    # Nodes

    def _node(self, node: Any, scope: Scope, opsets: Opsets) -> Sequence[Operand | None]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if len(node.output) > self.limits.outputs:
            raise BadModel(f"a node with {len(node.output)} results")
        own = self.functions.get((domain, node.op_type))
        if own is not None:
            return self._function(own, node, scope)
        version = opsets.get(domain)
        if version is None:
            raise BadModel(f"{_described(node)}: the model imports no operators of the domain {domain!r}")
        if domain == "" and node.op_type in READERS:
            return self._read(node, scope, version, opsets)
        function = self._body(node, scope, domain, version)
        if function is None:
            hint = REFUSED.get(node.op_type, "replace it by operators that are, or compute this part outside of the model")
            raise BadModel(f"the operator {f'{domain}.' if domain else ''}{node.op_type} is not supported", hint=hint)
        return self._function(function, node, scope)

    def _read(self, node: Any, scope: Scope, version: int, opsets: Opsets) -> Sequence[Operand | None]:
        call = self._call(node, scope, version, opsets)
        given = [operand for operand in call.operands if operand is not None]
        numbers = [operand for operand in given if isinstance(operand, Known) and operand.weight is None]
        if given and len(numbers) == len(given) and node.op_type not in _KEPT:
            if any(operand.is_symbolic for operand in numbers):
                found = SYMBOLIC.get(node.op_type)
                result = None if found is None else found(call)
                if result is not None:
                    return self._results(node, result, scope)
            else:
                computed = self._computed(node, scope, version)
                if computed is not None:
                    return computed
        return self._results(node, READERS[node.op_type](call), scope)

    def _call(self, node: Any, scope: Scope, version: int, opsets: Opsets) -> Call:
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        return Call(node.op_type, scope, version, list(node.input), attributes, len(node.output), _Inside(self, opsets))

    def _results(self, node: Any, results: Any, scope: Scope) -> list[Operand | None]:
        several = results if isinstance(results, (tuple, list)) else (results,)
        return [_operand(result) for result in several]

    def _computed(self, node: Any, scope: Scope, version: int) -> list[Operand | None] | None:
        """The results of a node whose operands are numbers, unless they are large."""
        builder = Builder("constants", locations=False)
        apart = Scope(builder, scope.weights)
        apart.names = {name: found for name in node.input if (found := scope.find(name)) is not None}
        results = self._results(node, READERS[node.op_type](self._call(node, apart, version, {"": version})), apart)
        values = [result for result in results if isinstance(result, Value)]
        if any(not v.type.is_static or v.type.size > self.limits.constant_elements for v in builder_values(builder)):
            builder.abandon()
            return None
        graph = builder.finish(values)
        arrays = iter(interpret(graph, []))
        return [known(next(arrays), r.dtype) if isinstance(r, Value) else r for r in results]

    def _attribute(self, attribute: Any) -> Any:
        kinds = onnx().AttributeProto
        match attribute.type:
            case kinds.FLOAT:
                return float(attribute.f)
            case kinds.INT:
                return int(attribute.i)
            case kinds.STRING:
                return bytes(attribute.s)
            case kinds.TENSOR:
                return read_tensor(attribute.t, self.folder)
            case kinds.GRAPH:
                return attribute.g
            case kinds.FLOATS:
                return [float(x) for x in attribute.floats]
            case kinds.INTS:
                return [int(x) for x in attribute.ints]
            case kinds.STRINGS:
                return [bytes(x) for x in attribute.strings]
        raise BadModel(f"the attribute {attribute.name!r} is of a kind that is not supported")

    # Functions

    def _body(self, node: Any, scope: Scope, domain: str, version: int) -> Any:
        """The nodes that ONNX defines an operator by, if it does."""
        defs = onnx("onnx.defs")
        try:
            schema = defs.get_schema(node.op_type, version, domain)
        except defs.SchemaError:
            return None
        body = onnx().FunctionProto()
        if schema.has_function:
            body.CopyFrom(schema.function_body)
        elif schema.has_context_dependent_function:
            types = [b"" if not name else _type_proto(scope.find(name), name).SerializeToString() for name in node.input]
            body.ParseFromString(schema.get_context_dependent_function(node.SerializeToString(), types))
        if not body.node:
            return None
        body.attribute_proto.extend(a.default_value for a in schema.attributes.values() if a.default_value.type)
        if all(o.domain for o in body.opset_import):
            body.opset_import.add(domain="", version=defs.onnx_opset_version())
        return body

    def _function(self, function: Any, node: Any, scope: Scope) -> list[Operand | None]:
        """The nodes of a function in the place of a node that calls it."""
        if scope.level >= self.limits.depth:
            raise BadModel(f"graphs and functions are nested more than {self.limits.depth} deep")
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise BadModel(f"{_described(node)} is called with {len(node.input)} operands", expected=str(len(function.input)))
        inside = Scope(scope.builder, scope.weights, None, scope.level + 1)
        inside.absent = set(function.input[len(node.input) :])
        for formal, name in zip(function.input, node.input):
            operand = scope.find(name) if name else None
            if name and operand is None:
                raise missing(name)
            if operand is None:
                inside.absent.add(formal)
                continue
            inside.names[formal] = scope.value(operand) if scope.outer is not None and _is_weight(operand) else operand
        given = {a.name: a for a in (*function.attribute_proto, *node.attribute)}
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in function.opset_import}
        nodes = [_without(n, inside.absent) for n in function.node]
        try:
            self._all(nodes, inside, opsets, given)
        except NeedsContent as error:
            reached = depends_on(error.names, nodes, set(function.input))
            actual = frozenset(name for formal, name in zip(function.input, node.input) if formal in reached and name)
            raise NeedsContent(actual, error.why) from None
        return [inside.names.get(name) for name in function.output[: len(node.output)]]

    # Graphs inside of nodes

    def inner(self, proto: Any, scope: Scope, types: Sequence[TensorType], opsets: Opsets) -> Inner:
        """A graph of its own for a graph inside of a node."""
        if scope.level >= self.limits.depth:
            raise BadModel(f"graphs and functions are nested more than {self.limits.depth} deep")
        if len(proto.input) != len(types):
            raise BadModel(f"the graph {proto.name!r} has {len(proto.input)} inputs", expected=str(len(types)))
        builder = Builder(proto.name or "body", locations=False)
        inside = Scope(builder, scope.weights, scope, scope.level + 1)
        for value, type_ in zip(proto.input, types):
            inside.names[value.name] = builder.input(None, type_)
        self._read_inner(proto, inside, opsets)
        outputs = [inside.value(self._output(inside, value.name)) for value in proto.output]
        captured = tuple(inside.captured)
        outside = tuple(scope.value(self._output(scope, name)) for name in captured)
        return Inner(builder.finish(outputs), captured, outside)

    def inline(self, proto: Any, scope: Scope, opsets: Opsets) -> list[Operand]:
        """The results of a graph without inputs, its nodes put among those of the scope."""
        inside = scope.branch()
        self._read_inner(proto, inside, opsets)
        return [self._output(inside, value.name) for value in proto.output]

    def _read_inner(self, proto: Any, inside: Scope, opsets: Opsets) -> None:
        try:
            self.read(proto, inside, opsets)
        except NeedsContent as error:
            inputs = {value.name for value in proto.input}
            reached = depends_on(error.names, proto.node, None)
            if reached & inputs:
                raise BadModel(f"{error.why}, and is another one at each step of a loop") from None
            raise NeedsContent(reached, error.why) from None

    @staticmethod
    def _output(scope: Scope, name: str) -> Operand:
        found = scope.find(name)
        if found is None:
            raise missing(name)
        return found


@dataclass(frozen=True)
class _Inside:
    """What calls ask for the graphs inside of them."""

    converter: Converter
    opsets: Opsets

    def inner(self, proto: Any, scope: Scope, types: Sequence[TensorType]) -> Inner:
        return self.converter.inner(proto, scope, types, self.opsets)

    def inline(self, proto: Any, scope: Scope) -> list[Operand]:
        return self.converter.inline(proto, scope, self.opsets)


def builder_values(builder: Builder) -> Iterable[Value]:
    """All results of the nodes so far."""
    return (result for node in builder.nodes for result in node.results)


def depends_on(names: Iterable[str], nodes: Iterable[Any], inputs: set[str] | None) -> frozenset[str]:
    """The inputs whose numbers some names depend on; all names that no node makes, where the inputs are not told."""
    made = {output: node for node in nodes for output in node.output if output}
    reached: set[str] = set()
    pending, seen = list(names), set(names)
    while pending:
        name = pending.pop()
        if name not in made:
            reached.add(name)
            continue
        if made[name].op_type in _OF_SHAPES:
            continue
        for other in names_read(made[name]):
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return frozenset(reached if inputs is None else reached & inputs)


def names_read(node: Any) -> set[str]:
    """The names that a node, and the graphs inside of it, take from outside."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            graph = attribute.g
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            own |= {output for inner in graph.node for output in inner.output}
            found |= {name for inner in graph.node for name in names_read(inner)} - own
            found |= {value.name for value in graph.output} - own
    return found - {""}


def _operand(result: Any) -> Operand | None:
    """What a function of the table has returned, as an operand."""
    if result is None or isinstance(result, (Value, Known)):
        return result
    array = np.asarray(result)
    if array.dtype == object:
        return known(array, int64)
    return known(array, dtype_of(array.dtype))


def _is_weight(operand: Operand) -> bool:
    return isinstance(operand, Known) and operand.weight is not None


def _with_attributes(node: Any, given: Mapping[str, Any]) -> Any:
    """The node with attributes of the call in the place of references to them."""
    if not any(a.ref_attr_name for a in node.attribute) and not any(_refers(a) for a in node.attribute):
        return node
    made = type(node)()
    made.CopyFrom(node)
    del made.attribute[:]
    for attribute in node.attribute:
        source = given.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if source is None:
            continue
        copied = made.attribute.add()
        copied.CopyFrom(source)
        copied.name = attribute.name
        if copied.HasField("g"):
            nodes = [_with_attributes(inner, given) for inner in copied.g.node]
            del copied.g.node[:]
            copied.g.node.extend(nodes)
    return made


def _refers(attribute: Any) -> bool:
    """Whether a graph inside of an attribute refers to attributes of a call."""
    return attribute.HasField("g") and any(
        a.ref_attr_name or _refers(a) for node in attribute.g.node for a in node.attribute)


def _without(node: Any, absent: set[str]) -> Any:
    """The node without operands that a call has not given."""
    if not absent.intersection(node.input):
        return node
    made = type(node)()
    made.CopyFrom(node)
    del made.input[:]
    made.input.extend("" if name in absent else name for name in node.input)
    return made


def _type_proto(operand: Operand | None, name: str) -> Any:
    if operand is None:
        raise missing(name)
    type_ = operand.type
    shape = [str(size) if isinstance(size, Dim) else size for size in type_.shape]
    return onnx("onnx.helper").make_tensor_type_proto(element_type(type_.dtype), shape)


def _described(node: Any) -> str:
    return f"node {node.name!r} ({node.op_type})" if node.name else f"node {node.op_type} -> {', '.join(node.output)}"
