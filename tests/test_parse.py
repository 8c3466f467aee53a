"""Text that is no graph: each mistake is named with its place, and nothing else than ParseError comes out."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc import parse
from graphc.config import override
from graphc.errors import ParseError
from graphc.parse import parse_graph, parse_graphs

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


def test_a_parser_from_the_disk_cache_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> object:
        try:
            return parse_graphs(text)
        except ParseError as error:
            return str(error)

    texts = [*GOOD, *(path.read_text(encoding="utf-8") for path in BAD)]
    with override(cache_dir=tmp_path):
        monkeypatch.setattr(parse, "_lark", functools.cache(parse._lark.__wrapped__))
        built = [read(text) for text in texts]
        assert parse._lark().source_path != "<deserialized>"
        parse._lark.cache_clear()
        assert [read(text) for text in texts] == built
        assert parse._lark().source_path == "<deserialized>"


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


@given(st.text(st.sampled_from("graph @f(%x: float32[2]) -> { return } \n\"=~#"), max_size=60))
def test_arbitrary_text(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse_graphs(text)
