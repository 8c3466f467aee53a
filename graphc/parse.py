"""Reading graphs from text; see `graphc.text` for the form.

A parsed graph is a verified one: each line is checked against its op's record as it is read, and what is wrong is
reported with its line and column. Nothing here recurses with the length of the text.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

import graphc.ops  # noqa: F401  (registers the ops)
from graphc.conditions import conditions, relying_on
from graphc.dim_text import parse_dim
from graphc.dims import Dim
from graphc.errors import Location, ParseError, ShapeError
from graphc.ir import Builder, Graph, Value
from graphc.op import OPS
from graphc.types import DTYPES, DType, TensorType, complex32, convert
from graphc.verify import MAX_DIMENSIONS, MAX_NESTING, Violation, attribute_violation, node_violation, type_violation

if TYPE_CHECKING:
    from lark import Lark, Token


def parse_graph(text: str, name: str = "<text>") -> Graph:
    """The graph that `text` holds; `name` is the file's, for errors.

    ParseError, a ValueError, with line and column if it is not one graph that keeps the rules of `graphc.verify`.
    """
    graphs = parse_graphs(text, name)
    if len(graphs) > 1:
        raise ParseError(f"{name} holds {len(graphs)} graphs: {', '.join('@' + g.name for g in graphs)}", expected="one graph")
    return graphs[0]


def parse_graphs(text: str, name: str = "<text>") -> list[Graph]:
    """The graphs that `text` holds, one or more; otherwise as `parse_graph`."""
    source = _Source(text, name)
    types: dict[str, TensorType] = {}
    return [_Reader(source, types).graph(graph) for graph in _syntax(source)]


# Syntax: lark makes these of the text


class _Attribute(NamedTuple):
    key: Token
    item: Any  # a Token or a list of items


class _Input(NamedTuple):
    value: Token
    type: Token
    info: Sequence[_Attribute]


class _Node(NamedTuple):
    results: Sequence[Token]
    op: Token
    operands: Sequence[Token]
    attributes: Sequence[_Attribute]
    types: Sequence[Token]


class _Output(NamedTuple):
    value: Token
    name: Token | None


class _Graph(NamedTuple):
    name: Token
    inputs: Sequence[_Input]
    types: Sequence[Token]
    nodes: Sequence[_Node]
    outputs: Sequence[_Output]


def _items(items: list[Any]) -> list[Any]:
    return [item for item in items if item is not None]  # lark puts None where an optional part is missing


def _node(items: list[Any]) -> _Node:
    results, op, operands, attributes, types = items
    return _Node(results or (), op, operands, attributes or (), types)


_MADE: dict[str, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(
        ("start", "inputs", "types", "nodes", "results", "operands", "outputs", "attributes", "sequence"), _items
    ),
    "graph": lambda items: _Graph(*items),
    "input": lambda items: _Input(items[0], items[1], items[2] or ()),
    "node": _node,
    "output": lambda items: _Output(*items),
    "attribute": lambda items: _Attribute(*items),
}
"""What is made of the parts of each rule of the grammar."""


def _make(rule: str, items: list[Any]) -> Any:
    from lark import Tree

    make = _MADE.get(rule)
    return Tree(rule, items) if make is None else make(items)  # lark has rules of its own for repetitions


@functools.cache
def _lark() -> Lark:
    """The parser. Its tables are built when the first text is read, and kept for other processes: building them takes ten times
    as long as reading them."""
    import lark

    from graphc.disk_cache import DiskCache, cache_key

    text = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    cache, key = DiskCache.configured(), cache_key("grammar", text, lark.__version__, sys.version)
    kept = cache.get(key)
    if kept is not None:
        return lark.Lark.load(io.BytesIO(kept))
    parser = lark.Lark(text, parser="lalr", tree_class=_make)
    tables = io.BytesIO()
    parser.save(tables)
    cache.put(key, tables.getvalue())
    return parser


def _syntax(source: _Source) -> list[_Graph]:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if not source.text.strip():
        raise source.error(1, 1, Violation("there is no graph in the text", expected="graph @name(...) -> ... { ... }"))
    try:
        return _lark().parse(source.text)  # type: ignore[return-value]
    except UnexpectedCharacters as error:
        character = source.text[error.pos_in_stream or 0]
        problem = "a quote that does not end on its line" if character == '"' else f"unexpected {character!r}"
        found = Violation(problem, expected=_expected(error.allowed or ()))
        raise source.error(error.line, error.column, found) from None
    except UnexpectedToken as error:
        expected = _expected(error.accepts or error.expected)
        if error.token.type == "$END":
            raise source.error(*source.end(), Violation("the text ends inside a graph", expected=expected)) from None
        raise source.error(error.line, error.column, Violation(f"unexpected {str(error.token)!r}", expected=expected)) from None


_SPELLED = {
    "VALUE": "a value such as %x", "TYPE": "a type such as float32[2, 3]", "WORD": "a name", "STRING": "a name in quotes",
    "FLOAT": "an attribute's value", "INT": "", "COMPLEX": "", "SIZE": "", "BYTES": "",
    "$END": "the end of the text", "__ANON_0": "'->'",
}


def _expected(terminals: Iterable[str]) -> str:
    patterns = {terminal.name: terminal.pattern.value for terminal in _lark().terminals}
    allowed = set(terminals)
    if "FLOAT" in allowed:
        allowed -= {"WORD", "STRING"}
    return " or ".join(sorted(filter(None, (_SPELLED.get(name, repr(patterns.get(name, name))) for name in allowed))))


# Meaning


class _Source:
    """The text, and errors that show where in it they are."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    def end(self) -> tuple[int, int]:
        """Line and column of the last character that says something."""
        rest = self.text.rstrip()
        return rest.count("\n") + 1, max(len(rest) - rest.rfind("\n") - 1, 1)

    def error(self, line: int, column: int, found: Violation) -> ParseError:
        content = self.text.split("\n", line)[line - 1].replace("\t", " ").rstrip("\r")
        first = max(0, column - 80)
        excerpt = f"    {content[first : first + 120]}\n    {' ' * (column - 1 - first)}^"
        return ParseError(
            f"line {line}, column {column}: {found.problem}\n{excerpt}",
            expected=found.expected, got=found.got, hint=found.hint, at=Location(self.name, line, "<module>"),
        )


class _Reader:
    """Builds one graph from its syntax."""

    def __init__(self, source: _Source, types: dict[str, TensorType], depth: int = 0) -> None:
        self._source = source
        self._types = types
        self._depth = depth
        """How many graphs this one is nested in."""
        self._values: dict[str, Value] = {}

    def graph(self, syntax: _Graph) -> Graph:
        builder = Builder(_name(syntax.name, self._fail), locations=False)
        for item in syntax.inputs:
            self._input(builder, item)
        try:
            stated = conditions(value.info for value in builder.inputs)
        except ShapeError as error:
            self._fail(syntax.name, Violation(error.problem, error.expected))
        with relying_on(stated):
            for node in syntax.nodes:
                self._node(builder, node)
        outputs = [self._value(output.value) for output in syntax.outputs]
        self._check_output_types(syntax, outputs)
        return builder.finish(outputs, self._output_names(syntax.outputs))

    def _input(self, builder: Builder, syntax: _Input) -> None:
        name, repeated = self._value_name(syntax.value)
        if repeated:
            self._fail(syntax.value, Violation("inputs have different names", got=str(syntax.value), hint="leave ~ away"))
        info = self._attributes(syntax.info)
        if any(isinstance(attribute, Graph) for attribute in info.values()):
            self._fail(syntax.value, Violation(f"a graph among what is kept with {syntax.value}"))
        value = builder.input(name, self._type(syntax.type), **info)
        self._define(syntax.value, value)

    def _node(self, builder: Builder, syntax: _Node) -> None:
        record = OPS.get(syntax.op)
        if record is None:
            theirs = "it is somebody's own: import what registers it with graphc.custom_op"
            hint = theirs if "." in syntax.op else _nearest(syntax.op, OPS)
            self._fail(syntax.op, Violation(f"unknown op {str(syntax.op)!r}", hint=hint))
        operands = [self._value(token) for token in syntax.operands]
        types = [self._type(token) for token in syntax.types]
        if len(syntax.results) != len(types):
            self._fail(syntax.op, Violation(f"{len(syntax.results)} results with {len(types)} types"))
        array_type = types[0] if record.name == "constant" and len(types) == 1 else None
        attributes = self._attributes(syntax.attributes, array_type)
        node = builder.append(record, operands, attributes, types)
        # graphs in graphs are looked at once, with the outermost node, not once more for each that they are nested in
        if found := node_violation(node, self._depth, graphs=not self._depth):
            self._fail(syntax.op, found)
        for token, value in zip(syntax.results, node.results):
            value.name, _ = self._value_name(token)
            self._define(token, value)

    def _check_output_types(self, syntax: _Graph, outputs: Sequence[Value]) -> None:
        if len(syntax.types) != len(outputs):
            token = syntax.outputs[0].value if syntax.outputs else syntax.name
            self._fail(token, Violation(f"{len(outputs)} values are returned and {len(syntax.types)} are declared"))
        for (token, _), declared, value in zip(syntax.outputs, syntax.types, outputs):
            if value.type != self._type(declared):
                self._fail(token, Violation(f"{token} is not of the type that the graph declares",
                                               expected=str(declared), got=str(value.type)))

    def _output_names(self, outputs: Sequence[_Output]) -> list[str] | None:
        names: list[str] = []
        for value, token in outputs:
            if (token is None) != (outputs[0].name is None):
                self._fail(value, Violation("some outputs have names and some have none", hint="name all or none"))
            if token is None:
                continue
            name = _string(token, self._fail)
            if name in names:
                self._fail(token, Violation(f"two outputs are called {name!r}"))
            names.append(name)
        return names or None

    def _define(self, token: Token, value: Value) -> None:
        if self._values.setdefault(token, value) is not value:
            hint = None if value.name is None else "another value of the same name is written with a suffix, %name~1"
            self._fail(token, Violation(f"{token} is defined twice", hint=hint))

    def _value(self, token: Token) -> Value:
        value = self._values.get(token)
        if value is None:
            hint = _nearest(token, self._values) or "a value is defined above the line that uses it"
            self._fail(token, Violation(f"{token} is not defined", hint=hint))
        return value

    def _value_name(self, token: Token) -> tuple[str | None, bool]:
        """The name in `%name` or `%"name"`, None for a number; and whether a suffix follows it."""
        body, repeat = token[1:], ""
        if not body.endswith('"'):
            body, repeat, _ = body.partition("~") if not body.startswith('"') else body.rpartition("~")
        if body.isdigit():
            return None, bool(repeat)
        return (_string(token, self._fail, body) if body.startswith('"') else body), bool(repeat)

    def _type(self, token: Token) -> TensorType:
        known = self._types.get(token)
        if known is None:
            known = self._types[str(token)] = self._new_type(token)
        return known

    def _new_type(self, token: Token) -> TensorType:
        name, _, rest = token.partition("[")
        sizes, _, device = rest.partition("]")
        dtype = DTYPES.get(name)
        if dtype is None:
            self._fail(token, Violation(f"unknown dtype {name!r}", f"one of {', '.join(DTYPES)}", hint=_nearest(name, DTYPES)))
        if sizes.count(",") >= MAX_DIMENSIONS:  # each would be read before the type could be checked
            self._fail(token, Violation(f"a shape of more than {MAX_DIMENSIONS} dimensions"))
        shape = tuple(self._size(token, size) for size in sizes.split(",")) if sizes.strip() else ()
        type_ = TensorType(dtype, shape, device[1:] or "cpu")
        if found := type_violation(type_):
            self._fail(token, found)
        return type_

    def _size(self, token: Token, text: str) -> int | Dim:
        text = text.strip()
        if len(text) > _MAX_SIZE_LENGTH:
            self._fail(token, Violation(f"{text[:40]!r} is not a size", expected="such as 8, N or 2*N + 1"))
        try:
            return parse_dim(text)
        except ShapeError as error:
            self._fail(token, Violation(error.problem, error.expected))

    def _attributes(self, syntax: Sequence[_Attribute], array_type: TensorType | None = None) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for key, item in syntax:
            name = _name(key, self._fail)
            if name in attributes:
                self._fail(key, Violation(f"the attribute {name} is given twice"))
            if array_type is not None and name == "value":
                attributes[name] = self._array(key, item, array_type)
            else:
                attributes[name] = self._attribute(key, item, 0)
            if why := attribute_violation(attributes[name]):
                self._fail(key, Violation(f"the attribute {name} is {why}"))
        return attributes

    def _attribute(self, key: Token, item: Any, depth: int) -> Any:
        if isinstance(item, list):
            if depth == MAX_NESTING:
                self._fail(key, Violation(f"the attribute {key} is nested more than {MAX_NESTING} deep"))
            return tuple([self._attribute(key, part, depth + 1) for part in item])
        if isinstance(item, _Graph):
            if self._depth == MAX_NESTING:
                self._fail(key, Violation(f"graphs are nested more than {MAX_NESTING} deep"))
            return _Reader(self._source, self._types, self._depth + 1).graph(item)
        match item.type:
            case "STRING":
                return _string(item, self._fail)
            case "INT":
                return self._integer(item)
            case "FLOAT":
                return float(item)
            case "COMPLEX":
                return _complex(item)
            case "SIZE":
                return self._size(item, item.removeprefix("size(").removesuffix(")") if item.startswith("size(") else item)
            case "WORD":
                return self._word(item)
        self._fail(item, Violation("bytes stand for the elements of a constant alone"))

    def _word(self, token: Token) -> bool | DType | int | Dim | None:
        if token in _WORDS:
            return _WORDS[token]
        return DTYPES.get(token) or self._size(token, token)

    def _integer(self, token: Token) -> int:
        if len(token) > _MAX_DIGITS:
            self._fail(token, Violation("an integer of more than 64 bits"))
        return int(token)

    # Constants

    def _array(self, key: Token, item: Any, type_: TensorType) -> np.ndarray:
        shape = tuple(size for size in type_.shape if isinstance(size, int))
        if len(shape) != type_.ndim:
            self._fail(key, Violation(f"a constant of the type {type_}, whose size is not known"))
        if isinstance(item, (list, _Graph)) or item.type != "BYTES":
            array = self._elements(key, item, type_.dtype, shape)
        else:
            array = self._bytes(item, type_.dtype, shape)
        array.setflags(write=False)
        return array

    def _bytes(self, token: Token, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        try:
            data = base64.b64decode(token.removeprefix('dense<"').removesuffix('">'), validate=True)
        except binascii.Error as error:
            self._fail(token, Violation(f"this is not base64: {error}"))
        nbytes = math.prod(shape) * dtype.itemsize
        if len(data) != nbytes:
            self._fail(token, Violation("the bytes are not those of the type", f"{nbytes} bytes", f"{len(data)} bytes"))
        if dtype.kind == "bool" and not set(data) <= {0, 1}:
            self._fail(token, Violation("the bytes of a bool are 0 or 1"))
        return np.frombuffer(data, dtype.numpy.newbyteorder("<")).reshape(shape).astype(dtype.numpy)

    def _elements(self, key: Token, item: Any, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        items = [item]
        for size in shape if math.prod(shape) else (0,):
            if not all(isinstance(part, list) and len(part) == size for part in items):
                self._fail(key, Violation(f"the elements are not those of a constant of the shape {list(shape)}"))
            items = [part for whole in items for part in whole]
        if any(isinstance(part, (list, _Graph)) for part in items):
            self._fail(key, Violation(f"the elements are not those of a constant of the shape {list(shape)}"))
        numbers = [self._number(token, dtype) for token in items]
        if dtype is complex32:
            return convert(np.array(numbers, np.complex64), dtype).reshape(shape)
        return np.array(numbers, dtype.numpy).reshape(shape)

    def _number(self, token: Token, dtype: DType) -> bool | int | float | complex:
        value = self._attribute(token, token, 0) if token.type in _ELEMENTS[dtype.kind] else None
        if not isinstance(value, (int, float, complex)) or isinstance(value, bool) != (dtype.kind == "bool"):
            self._fail(token, Violation(f"{token} is not an element of a {dtype.name} constant"))
        if not _fits(value, dtype):
            self._fail(token, Violation(f"{token} does not fit {dtype.name}"))
        return value

    def _fail(self, token: Token, found: Violation) -> NoReturn:
        raise self._source.error(token.line or 1, token.column or 1, found)


_WORDS = {"true": True, "false": False, "none": None}
_ELEMENTS = {"bool": ("WORD",), "int": ("INT",), "uint": ("INT",), "float": ("INT", "FLOAT"),
             "complex": ("INT", "FLOAT", "COMPLEX")}
"""The tokens that an element of a constant may be, by the kind of its dtype."""
_MAX_SIZE_LENGTH = 400
_MAX_DIGITS = 21

_Fail = Callable[["Token", Violation], NoReturn]


def _complex(token: str) -> complex:
    """A complex number of two floats: complex("...") would lose the sign of a NaN or a zero."""
    at = max(i for i, character in enumerate(token) if i and character in "+-" and token[i - 1] != "e")
    return complex(float(token[:at]), float(token[at:-1]))


def _fits(value: bool | int | float | complex, dtype: DType) -> bool:
    if dtype.kind == "bool":
        return True
    if isinstance(value, complex) or dtype.is_complex:
        return all(_fits(part, dtype.to_real()) for part in (value.real, value.imag))
    if dtype.kind == "float":
        with np.errstate(over="ignore"):
            return math.isinf(value) or not np.isinf(dtype.numpy.type(value))
    limits = np.iinfo(dtype.name)
    return limits.min <= value <= limits.max


def _nearest(word: str, known: Collection[str]) -> str | None:
    """A hint, if one of the known words is like this one."""
    import difflib  # which a text without mistakes does without

    near = difflib.get_close_matches(word, known, 1) if len(word) < 100 and len(known) < 1000 else []
    return f"did you mean {near[0]}?" if near else None


def _name(token: Token, fail: _Fail) -> str:
    return _string(token, fail) if token.startswith('"') else str(token)


def _string(token: Token, fail: _Fail, text: str | None = None) -> str:
    try:
        string: str = json.loads(token if text is None else text)
    except ValueError as error:
        fail(token, Violation(f"this is not a string: {error}", hint="escapes are those of JSON"))
    return string
