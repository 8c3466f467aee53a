"""Text that is no graph: each mistake is named with its place, and nothing else than ParseError comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ParseError
from graphc.parse import _parsed, _Source, parse_graph, parse_graphs
from graphc.syntax import GraphText, Nodes, Scanner, Unread

FOLDER = Path(__file__).parent / "golden"
BAD = sorted((FOLDER / "bad").glob("*.gir"))
GOOD = [path.read_text(encoding="utf-8") for path in sorted((FOLDER / "text").glob("*.gir"))]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_mistakes_are_named_with_their_place(path: Path) -> None:
    """The first line of the file says what the error's first line is, and what else stands in it."""
    text = path.read_text(encoding="utf-8")
    problem, *others = text.split("\n")[0].removeprefix("# ").split(" | ")
    with pytest.raises(ParseError) as caught:
        parse_graph(text, str(path))
    lines = str(caught.value).split("\n")
    assert lines[0] == problem
    for other in others:
        assert any(other in line for line in lines[1:]), f"{other!r} is not in the message:\n{caught.value}"
    line = int(problem.split()[1].rstrip(","))
    assert lines[-1] == f"  at {path.name}:{line}"
    assert lines[1].strip() == text.split("\n")[line - 1].strip() and lines[2].strip() == "^"
    column = int(problem.split("column ")[1].split(":")[0])
    assert lines[2].index("^") == 4 + column - 1


def test_bad_files_are_found() -> None:
    assert len(BAD) >= 20


def test_parse_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"line 1, column 1: there is no graph in the text"):
        parse_graph("  \n\n")


def test_one_graph_is_expected() -> None:
    with pytest.raises(ParseError, match="holds 2 graphs: @f, @g"):
        parse_graph("graph @f() -> () { return }\ngraph @g() -> () { return }")


def test_long_lines_are_shown_in_part() -> None:
    line = "graph @f(" + ", ".join(f"%x{i}: float32[2]" for i in range(1000)) + ", %y: what[2]) -> () {"
    with pytest.raises(ParseError) as caught:
        parse_graph(line + " return }")
    excerpt, caret = str(caught.value).split("\n")[1:3]
    assert len(excerpt) < 140 and excerpt[caret.index("^") :].startswith("what[2]")


def test_whitespace_and_comments_do_not_matter() -> None:
    (golden,) = (text for text in GOOD if "@forward" in text)
    squeezed = " ".join(golden.split())
    spread = squeezed.replace(") ", ")\r\n\t# a comment } \n").replace("%", "\n %")
    assert parse_graph(squeezed) == parse_graph(golden) == parse_graph(spread)


@pytest.mark.parametrize("depth, fits", [(16, True), (17, False), (100_000, False)])
def test_nesting_is_limited(depth: int, fits: bool) -> None:
    text = f"graph @f(%x: int8[] {{key = {'[' * depth}{']' * depth}}}) -> () {{ return }}"
    if fits:
        parse_graph(text)
    else:
        with pytest.raises(ParseError, match="nested more than 16 deep"):
            parse_graph(text)


@pytest.mark.parametrize("text", [
    "int8[%s]", "int8[2, %s]", "int8[%s*N]", "int8[N + %s]",
])  # fmt: skip
def test_huge_numbers_are_refused(text: str) -> None:
    for digits in (20, 100, 10_000, 1_000_000):
        with pytest.raises(ParseError, match=r"line 1, column \d+"):
            parse_graph(f"graph @f(%x: {text % ('9' * digits)}) -> () {{ return }}")
        with pytest.raises(ParseError, match="more than 64 bits"):
            parse_graph(f"graph @f(%x: int8[] {{key = 9{'9' * digits}}}) -> () {{ return }}")


@pytest.mark.parametrize("golden", GOOD)
def test_every_truncation_is_an_error(golden: str) -> None:
    text = golden.rstrip()
    for end in range(0, len(text), 1 if len(text) < 600 else 3):
        with pytest.raises(ParseError, match=r"line \d+, column \d+"):
            parse_graph(text[:end])


SIGNS = list('%"[](){}=:,*+-~#@<>.0129eNx \n\\\x00é')


@given(st.sampled_from(GOOD), st.integers(0, 2000), st.sampled_from(SIGNS), st.integers(0, 3))
def test_damaged_text_is_refused_or_another_graph(golden: str, at: int, character: str, removed: int) -> None:
    at %= len(golden)
    text = golden[:at] + character + golden[at + removed :]
    try:
        graph = parse_graph(text)
    except ParseError:
        return
    assert parse_graph(str(graph)) == graph


def written(graphs: Sequence[GraphText]) -> list[Any]:
    """What was read, with all places and kinds of tokens."""

    def part(item: Any) -> Any:
        if isinstance(item, GraphText):
            nodes = [item.nodes.placed(n) if isinstance(item.nodes, Nodes) else item.nodes[n] for n in range(len(item.nodes))]
            lines = [(part(n.results), part(n.op), part(n.operands), part(n.attributes), part(n.types)) for n in nodes]
            plain = [(*map(str, n.results), "=", str(n.op), *map(str, n.operands), *map(str, n.types)) for n in item.nodes]
            assert plain == [(*map(str, n.results), "=", str(n.op), *map(str, n.operands), *map(str, n.types)) for n in nodes]
            return part(item.name), part(item.inputs), part(item.types), lines, part(item.outputs)
        if isinstance(item, str):
            return str(item), item.type, item.start_pos  # type: ignore[attr-defined]  # both kinds of tokens have them
        return item if item is None else [part(x) for x in item]

    return [part(graph) for graph in graphs]


def assert_read_alike(text: str) -> None:
    """The two readers take the same texts, for the same, and mistakes are where lark says that they are."""
    try:
        expected = _parsed(_Source(text, "<text>"), text)
    except ParseError as error:
        with pytest.raises(Unread):
            Scanner(text).graphs()
        if text.strip():
            with pytest.raises(ParseError) as caught:
                parse_graphs(text)
            assert str(caught.value) == str(error)
        return
    assert written(Scanner(text).graphs()) == written(expected)


@pytest.mark.parametrize("golden", GOOD)
def test_saved_text_is_read_without_lark(golden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_read_alike(golden)
    monkeypatch.setattr("graphc.parse.lark_parser", None)
    assert parse_graphs(golden) == parse_graphs(golden + "\n# a comment")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_both_readers_take_bad_files_alike(path: Path) -> None:
    assert_read_alike(path.read_text(encoding="utf-8"))


@given(st.sampled_from(GOOD), st.integers(0, 2000), st.sampled_from([*SIGNS, "graph", "return", "as", "size(", "->"]),
       st.integers(0, 3))  # fmt: skip
def test_both_readers_take_damaged_text_alike(golden: str, at: int, character: str, removed: int) -> None:
    at %= len(golden)
    assert_read_alike(golden[:at] + character + golden[at + removed :])


@pytest.mark.parametrize("attributes", [
    "", "{}", "{a = []}", "{a = graph+1, b = graph}", "{a = [graph]}", "{a = [[1, 2.5], [[x, [y]], -3]]}", "{graph = as}",
    '{"a b" = "# {", c = size(N), d = 2*N - 1, e = -N, f = 1-2j, g = nan, h = -inf+infj, i = infinite, j = 1e5, k = 1e}',
    "{a = # {\n 1}", "{a = graph @g() -> () { return }, b = [graph @h(%x: int8[] {a = [[[1]]]}) -> int8[] { return %x }]}",
    '{a = dense<"AAAA">, b = dense}', "{a = 1,}", "{a 1}", "{a = [1 2]}", "{a = 1.5.2}", "{return = return}",
])  # fmt: skip
def test_both_readers_take_attributes_alike(attributes: str) -> None:
    for node in (f"%a, %0 # %b\n = neg(%x~1) {attributes} : (int8[2], int8[])", f"return(){attributes}: int8[]",
                 f"%r = return () {attributes}:()", f"%r = = neg(%x) {attributes} : int8[]"):
        text = f"graph @f(%x: int8[] {attributes}) -> (int8[]) {{\n  {node}\n  return %a as \"b\", %0 }}\n"
        assert_read_alike(text)
        assert_read_alike(text * 2)
        assert_read_alike(text.replace("  return %a", f"  {node}\n  oh\n return %a"))


def test_a_wrong_node_after_one_like_it() -> None:
    """What was right once is not looked at again: all that it depends on has to be the same."""
    line = "%{0} = reshape(%x{1}) {{shape = {2}}} : {3}\n"
    head = "graph @f(%x0: int8[2, 3], %x1: int8[5], %x2: int16[2, 3]) -> () {\n"
    right = line.format("a", 0, "[6]", "int8[6]")
    parse_graph(head + right + right.replace("%a", "%b") + "return }")
    for wrong in ((1, "[6]", "int8[6]"), (0, "[7]", "int8[6]"), (0, "[6]", "int8[7]"), (2, "[6]", "int8[6]")):
        with pytest.raises(ParseError, match="line 3, column 6"):
            parse_graph(head + right + line.format("b", *wrong) + "return }")


@given(st.text(st.sampled_from("graph @f(%x: float32[2]) -> { return } \n\"=~#"), max_size=60))
def test_arbitrary_text(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse_graphs(text)
