"""What the text of graphs is made of, before it means anything.

`graphc/grammar.lark` has the form. Text that keeps to it is read here by regular expressions, made of the grammar's own
terminals, one for a whole node; lark, which takes ten times as long, reads what does not, and says what is wrong with it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lark import Lark

_MOST_DIGITS = 400
"""Of numbers in attributes that are read together with their node."""
_DEEPEST = 32
"""How deep lists and graphs may be nested here; what is deeper is nothing that a graph may hold."""


class Token(str):
    """A part of the text, with the name of its terminal and its place."""

    __slots__ = ("start_pos", "type")
    type: str
    start_pos: int


def _token(type_: str, text: str, start: int) -> Token:
    token = Token(text)
    token.type = type_
    token.start_pos = start
    return token


class Attribute(NamedTuple):
    key: Token
    item: Any  # a Token, a GraphText, or a list of items


class Input(NamedTuple):
    value: Token
    type: Token
    info: Sequence[Attribute]


class Node:
    """A line of a graph. Its attributes are read when they are asked for."""

    __slots__ = ("_attributes", "_scanner", "attribute_text", "op", "operands", "results", "types")

    def __init__(self, results: Sequence[str], op: str, operands: Sequence[str], attributes: Sequence[Attribute] | int,
                 types: Sequence[str], scanner: Scanner | None = None, attribute_text: str | None = None) -> None:
        self.results = results
        self.op = op
        self.operands = operands
        self._attributes = attributes
        self.types = types
        self._scanner = scanner
        self.attribute_text = attribute_text
        """What stands between the braces, and they; None where there are graphs in it."""

    @property
    def attributes(self) -> Sequence[Attribute]:
        if not isinstance(self._attributes, int):
            return self._attributes
        assert self._scanner is not None
        return self._scanner.attributes(self._attributes, 0)[0] if self.attribute_text else ()


class Output(NamedTuple):
    value: Token
    name: Token | None


class GraphText(NamedTuple):
    name: Token
    inputs: Sequence[Input]
    types: Sequence[Token]
    nodes: Nodes | Sequence[Node]
    outputs: Sequence[Output]


class Nodes:
    """The nodes of a graph, each of which is read again when it is asked for: their places take a tenth of the memory. Their
    parts are strings that do not know where they stand, as they are needed once and most are right; `placed` gives those that
    do."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self.places: list[int | Node] = []

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Node]:
        for place in self.places:
            yield self._scanner.node_at(place) if isinstance(place, int) else place

    def placed(self, number: int) -> Node:
        """A node whose parts are tokens."""
        place = self.places[number]
        return self._scanner.placed_node_at(place) if isinstance(place, int) else place


# Fast, where there is no mistake


class Unread(Exception):
    """The text has not the form, or one that is read by lark alone."""


@dataclass(frozen=True)
class _Patterns:
    space: re.Pattern[str]
    value: re.Pattern[str]
    values: re.Pattern[str]
    type: re.Pattern[str]
    types: re.Pattern[str]
    name: re.Pattern[str]
    string: re.Pattern[str]
    item: re.Pattern[str]
    head: re.Pattern[str]
    """A node up to its attributes."""
    tail: re.Pattern[str]
    """Its types."""
    node: re.Pattern[str]
    """A whole node whose attributes are neither graphs, nor lists of lists of lists, nor huge numbers."""


@functools.cache
def _patterns() -> _Patterns:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    found = re.findall(r"^([A-Z]+)(?:\.(\d+))?: /(.*)/$", grammar, re.MULTILINE)
    # groups that nobody asks for, and no way back into what has been read as one token
    terminals = {name: "(?>" + re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern) + ")" for name, _, pattern in found}
    priorities = {name: int(priority or 0) for name, priority, _ in found}
    space = r"(?:[ \t\r\n]++|#[^\n]*+)*+"
    value, type_ = terminals["VALUE"], terminals["TYPE"]
    names = sorted(("BYTES", "STRING", "WORD", "INT", "FLOAT", "COMPLEX", "SIZE"), key=lambda name: -priorities[name])
    item = "|".join(terminals[name] for name in names)

    def listed(what: str) -> str:
        return f"(?:{what}{space}(?:,{space}{what}{space})*+)?+"

    # a number of a million digits is not looked at again and again
    short = item.replace(r"\d++", rf"\d{{1,{_MOST_DIGITS}}}+").replace(r"\d*+", rf"\d{{0,{_MOST_DIGITS}}}+")
    plain = f"(?>(?!graph(?![\\w.]))(?:{short}))"
    for _ in range(2):
        plain = f"(?>{plain}|\\[{space}{listed(plain)}\\])"
    name = f"(?>{terminals['WORD']}|{terminals['STRING']})"
    attribute = f"{name}{space}={space}{plain}"
    head = (f"(?P<results>(?:{value}{space}(?:,{space}{value}{space})*+={space})?+)(?P<op>{terminals['WORD']}){space}"
            f"\\({space}(?P<operands>{listed(value)})\\){space}")
    tail = f":{space}(?P<types>{type_}|\\({space}{listed(type_)}\\)){space}"
    compiled = re.compile
    return _Patterns(
        compiled(space), compiled(value), compiled(f"#[^\\n]*+|({value})"), compiled(type_), compiled(f"#[^\\n]*+|({type_})"),
        compiled(f"(?P<WORD>{terminals['WORD']})|(?P<STRING>{terminals['STRING']})"), compiled(terminals["STRING"]),
        compiled("|".join(f"(?P<{name}>{terminals[name]})" for name in names)), compiled(head), compiled(tail),
        compiled(f"{head}(?P<attributes>(?:\\{{{space}{listed(attribute)}\\}}{space})?+){tail}"),
    )  # fmt: skip


def _strings(pattern: re.Pattern[str], text: str) -> list[str]:
    """Values or types, in a text that holds nothing else but comments."""
    found: list[str] = pattern.findall(text)
    return list(filter(None, found)) if "#" in text else found


class Scanner:
    """Reads a text from the left to the right. Methods take a place, and return the one behind what they have read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.patterns = _patterns()
        self.read: list[tuple[int, int]] = []
        """Of each graph that stands by itself, where its first node begins, and the last one that is right."""

    def graphs(self) -> list[GraphText]:
        """All graphs of the text."""
        found: list[GraphText] = []
        at = self._space(0)
        while at < len(self.text) or not found:
            graph, at = self.graph(at, 0)
            found.append(graph)
        return found

    def without_what_is_read(self) -> str:
        """The text with blanks for nodes that are right, up to the last: what is wrong is where it was."""
        text = self.text
        for start, end in self.read:
            text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
        return text

    def node_at(self, place: int) -> Node:
        patterns, text = self.patterns, self.text
        found = patterns.node.match(text, place)
        assert found is not None  # it has been there
        results, op, operands, attributes, types = found.group("results", "op", "operands", "attributes", "types")
        return Node(_strings(patterns.values, results), op, _strings(patterns.values, operands), found.start("attributes"),
                    _strings(patterns.types, types), self, attributes)

    def placed_node_at(self, place: int) -> Node:
        found = self.patterns.node.match(self.text, place)
        assert found is not None
        return Node(
            self._tokens("VALUE", self.patterns.values, *found.span("results")), _token("WORD", found["op"], found.start("op")),
            self._tokens("VALUE", self.patterns.values, *found.span("operands")), found.start("attributes"),
            self._tokens("TYPE", self.patterns.types, *found.span("types")), self, found["attributes"],
        )  # fmt: skip

    def graph(self, at: int, depth: int) -> tuple[GraphText, int]:
        if depth == _DEEPEST:
            raise Unread
        at = self._skip(at, "graph")
        name, at = self._name(self._skip(at, "@"))
        inputs, at = self._list(self._skip(at, "("), ")", self._input, depth)
        types, at = self._types(self._skip(at, "->"))
        at = self._skip(at, "{")
        nodes, end = Nodes(self), at
        places, match, before = nodes.places, self.patterns.node.match, at
        if depth == 0:
            self.read.append((at, at))
        while True:
            found = match(self.text, end)
            if found is not None and (found["op"] != "return" or found["results"]):
                places.append(end)
                before, end = end, found.end()
                continue
            if depth == 0:
                self.read[-1] = at, before
            following = self._node_with_graphs(end, depth)
            if following is None:
                break
            places.append(following[0])
            before, end = end, following[1]
        at = self._skip(end, "return")
        outputs: list[Output] = []
        if not self.text.startswith("}", at):
            while True:
                output, at = self._output(at)
                outputs.append(output)
                if not self.text.startswith(",", at):
                    break
                at = self._skip(at, ",")
        return GraphText(name, inputs, types, nodes, outputs), self._skip(at, "}")

    def attributes(self, at: int, depth: int) -> tuple[list[Attribute], int]:
        return self._list(self._skip(at, "{"), "}", self._attribute, depth)

    def _node_with_graphs(self, at: int, depth: int) -> tuple[Node, int] | None:
        """A node with any attributes; None where the nodes end."""
        head = self.patterns.head.match(self.text, at)
        if head is None or (head["op"] == "return" and not head["results"]):
            return None
        attributes: Sequence[Attribute] = ()
        at = head.end()
        if self.text.startswith("{", at):
            attributes, at = self.attributes(at, depth)
        tail = self.patterns.tail.match(self.text, at)
        if tail is None:
            raise Unread
        return Node(
            self._tokens("VALUE", self.patterns.values, *head.span("results")), _token("WORD", head["op"], head.start("op")),
            self._tokens("VALUE", self.patterns.values, *head.span("operands")), attributes,
            self._tokens("TYPE", self.patterns.types, *tail.span("types")),
        ), tail.end()  # fmt: skip

    def _input(self, at: int, depth: int) -> tuple[Input, int]:
        value, at = self._one("VALUE", self.patterns.value, at)
        type_, at = self._one("TYPE", self.patterns.type, self._skip(at, ":"))
        info: Sequence[Attribute] = ()
        if self.text.startswith("{", at):
            info, at = self.attributes(at, depth)
        return Input(value, type_, info), at

    def _output(self, at: int) -> tuple[Output, int]:
        value, at = self._one("VALUE", self.patterns.value, at)
        if not self.text.startswith("as", at):
            return Output(value, None), at
        name, at = self._one("STRING", self.patterns.string, self._skip(at, "as"))
        return Output(value, name), at

    def _attribute(self, at: int, depth: int) -> tuple[Attribute, int]:
        key, at = self._name(at)
        item, at = self._item(self._skip(at, "="), depth)
        return Attribute(key, item), at

    def _item(self, at: int, depth: int) -> tuple[Any, int]:
        if depth == _DEEPEST:
            raise Unread
        if self.text.startswith("[", at):
            return self._list(self._skip(at, "["), "]", self._item, depth + 1)
        found = self.patterns.item.match(self.text, at)
        if found is None or found.lastgroup is None:
            raise Unread
        if found.lastgroup == "WORD" and found[0] == "graph":
            return self.graph(at, depth + 1)
        return _token(found.lastgroup, found[0], at), self._space(found.end())

    def _list(self, at: int, end: str, read: Any, depth: int) -> tuple[list[Any], int]:
        """What stands between commas, up to the sign at the end."""
        items: list[Any] = []
        while not (self.text.startswith(end, at) and not items):
            item, at = read(at, depth)
            items.append(item)
            if not self.text.startswith(",", at):
                break
            at = self._skip(at, ",")
        return items, self._skip(at, end)

    def _types(self, at: int) -> tuple[list[Token], int]:
        if self.text.startswith("(", at):
            return self._list(self._skip(at, "("), ")", lambda at, _: self._one("TYPE", self.patterns.type, at), 0)
        type_, at = self._one("TYPE", self.patterns.type, at)
        return [type_], at

    def _name(self, at: int) -> tuple[Token, int]:
        found = self.patterns.name.match(self.text, at)
        if found is None or found.lastgroup is None:
            raise Unread
        return _token(found.lastgroup, found[0], at), self._space(found.end())

    def _one(self, type_: str, pattern: re.Pattern[str], at: int) -> tuple[Token, int]:
        found = pattern.match(self.text, at)
        if found is None:
            raise Unread
        return _token(type_, found[0], at), self._space(found.end())

    def _tokens(self, type_: str, pattern: re.Pattern[str], start: int, end: int) -> list[Token]:
        return [_token(type_, found[0], found.start()) for found in pattern.finditer(self.text, start, end) if found[1]]

    def _skip(self, at: int, expected: str) -> int:
        if not self.text.startswith(expected, at):
            raise Unread
        return self._space(at + len(expected))

    def _space(self, at: int) -> int:
        found = self.patterns.space.match(self.text, at)
        assert found is not None  # which may be nothing
        return found.end()


# Slow, to say what is wrong


@functools.cache
def lark_parser() -> Lark:
    """The parser, its tables built when it is first needed. It returns a list of `GraphText`."""
    from lark import Lark, Transformer

    class Syntax(Transformer[Any, Any]):
        def sequence(self, items: list[Any]) -> list[Any]:
            return [item for item in items if item is not None]  # lark puts None where an optional part is missing

        start = inputs = types = nodes = results = operands = outputs = attributes = sequence

        def attribute(self, items: list[Any]) -> Attribute:
            return Attribute(*items)

        def input(self, items: list[Any]) -> Input:
            return Input(items[0], items[1], items[2] or ())

        def node(self, items: list[Any]) -> Node:
            results, op, operands, attributes, types = items
            return Node(results or (), op, operands, attributes or (), types)

        def output(self, items: list[Any]) -> Output:
            return Output(*items)

        def graph(self, items: list[Any]) -> GraphText:
            return GraphText(*items)

    return Lark.open("grammar.lark", rel_to=__file__, parser="lalr", transformer=Syntax())
