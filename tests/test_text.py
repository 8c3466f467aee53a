"""The textual form: what is printed, and that it is read back exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphc.ops as ops
from graphc.dims import Dim
from graphc.errors import Location
from graphc.ir import Builder, Graph
from graphc.parse import parse_graph, parse_graphs
from graphc.text import RESERVED, print_attribute, print_graph
from graphc.types import DTYPES, TensorType, float32, int64

GOLDEN = sorted((Path(__file__).parent / "golden" / "text").glob("*.gir"))


def constant_graph(array: np.ndarray) -> Graph:
    builder = Builder("constant")
    return builder.finish([builder.constant(array)])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_text_prints_as_it_was_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert print_graph(parse_graph(text)) + "\n" == text


def test_golden_files_are_found() -> None:
    assert len(GOLDEN) >= 4


def test_str_is_the_textual_form() -> None:
    builder = Builder("f")
    x = builder.input("x", TensorType(float32, (2, 3)))
    assert str(builder.finish([ops.add(x, x)])) == (
        "graph @f(%x: float32[2, 3]) -> float32[2, 3] {\n  %0 = add(%x, %x) : float32[2, 3]\n  return %0\n}"
    )


def test_locations_are_comments() -> None:
    builder = Builder("f")
    x = builder.input("x", TensorType(float32, (2,)))
    builder.location = Location("/home/me/model.py", 12, "forward")
    graph = builder.finish([ops.exp(x)])
    text = print_graph(graph, locations=True)
    assert "%0 = exp(%x) : float32[2]  # model.py:12 in forward" in text
    assert parse_graph(text) == graph
    assert "#" not in print_graph(graph)


def test_several_graphs_in_one_text() -> None:
    texts = [path.read_text(encoding="utf-8") for path in GOLDEN]
    assert parse_graphs("\n# between\n".join(texts)) == [parse_graph(text) for text in texts]


@pytest.mark.parametrize("value, text", [
    (True, "true"), (1, "1"), (1.0, "1.0"), (-0.0, "-0.0"), (1e22, "1e+22"), (math.inf, "inf"), (-math.inf, "-inf"),
    (math.nan, "nan"), (1 - 2.5j, "1.0-2.5j"), (complex(-0.0, math.inf), "-0.0+infj"),
    (None, "none"), ("a\n\"b\"", '"a\\n\\"b\\""'), (float32, "float32"),
    ((1, (2.5, "x")), '[1, [2.5, "x"]]'),
    ((), "[]"), (2 * Dim.symbol("N") + 1, "2*N + 1"), (Dim.symbol("nan") + 1, "size(nan + 1)"), (object, "<<class 'object'>>"),
])  # fmt: skip
def test_attributes(value: Any, text: str) -> None:
    assert print_attribute(value) == text


def test_values_that_compare_equal_are_told_apart() -> None:
    def graph(value: Any) -> Graph:
        builder = Builder("f")
        builder.input("x", TensorType(float32, ()), key=value)
        return builder.finish([])

    for value in (1, 1.0, True, 0.0, -0.0):
        read = parse_graph(print_graph(graph(value))).inputs[0].info["key"]
        assert type(read) is type(value) and repr(read) == repr(value)


def test_names_of_one_value_do_not_meet_those_of_another() -> None:
    builder = Builder("f")
    x = builder.input("0", TensorType(float32, (2,)))
    for name in ("x", "x", None, "x~1", "x", "0", "", "%", 'a"b', "é", "é"):
        x = ops.exp(x)
        x.name = name
    graph = builder.finish([x])
    read = parse_graph(print_graph(graph))
    assert read == graph
    assert [v.name for v in read.values()] == ["0", "x", "x", None, "x~1", "x", "0", "", "%", 'a"b', "é", "é"]


@given(st.data())
def test_constants_are_exact(data: st.DataObject) -> None:
    """Any bits of any dtype: NaNs with payloads, negative zeros, subnormal numbers."""
    dtype = data.draw(st.sampled_from([d.numpy for d in DTYPES.values()]))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    if dtype == np.bool_:
        array = data.draw(hnp.arrays(dtype, shape))
    else:
        size = min(dtype.itemsize, 8)  # there is no integer as wide as complex128
        words = data.draw(hnp.arrays(f"u{size}", (*shape, dtype.itemsize // size)))
        array = words.reshape(-1).view(dtype).reshape(shape)
    graph = constant_graph(array)
    (read,) = parse_graph(print_graph(graph)).nodes
    assert read.attrs["value"].dtype == dtype and read.attrs["value"].tobytes() == array.tobytes()
    assert read.attrs["value"].shape == array.shape


@given(hnp.arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=False)))
def test_short_floats_are_exact(array: np.ndarray) -> None:
    text = print_graph(constant_graph(array))
    assert "dense" not in text
    assert parse_graph(text).nodes[0].attrs["value"].tobytes() == array.tobytes()


symbols = st.sampled_from(["N", "M", "_a1", "e5", "size", "dense", *RESERVED]).map(Dim.symbol)
sizes = st.one_of(st.integers(-(2**40), 2**40), st.builds(
    lambda terms, n: sum((c * a * b for c, a, b in terms), n),
    st.lists(st.tuples(st.integers(-9, 9), symbols, st.one_of(symbols, st.just(1))), max_size=4),
    st.integers(-9, 9)))  # fmt: skip
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.complex_numbers(),
                    st.text(), st.none(), sizes,
                    st.sampled_from(list(DTYPES.values())))  # fmt: skip
attributes = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)


@given(st.text(), st.dictionaries(st.text(), attributes, max_size=4), st.lists(st.one_of(st.none(), st.text()), max_size=5))
def test_any_attribute_and_any_name_survives(name: str, info: dict[str, Any], names: list[str | None]) -> None:
    builder = Builder(name)
    x = builder.input("x", TensorType(float32, (2, Dim.symbol("N"))), **info)
    for result in names:
        x = ops.exp(x)
        x.name = result
    outputs = list(dict.fromkeys(n for n in names if n is not None))
    graph = builder.finish([x] * len(outputs), outputs)
    text = print_graph(graph)
    read = parse_graph(text)
    assert read == graph and print_graph(read) == text
    assert repr(dict(read.inputs[0].info)) == repr(info)  # repr: 1, 1.0 and True are equal, nan is not


def test_shapes_with_symbols_in_every_place() -> None:
    n = Dim.symbol("N")
    builder = Builder("f")
    x = builder.input("x", TensorType(int64, (n, n * n - 2, 3)))
    y = ops.broadcast_to(x, (4, n, n * n - 2, 3))
    graph = builder.finish([ops.reshape(y, (12 * n, n * n - 2))])
    assert parse_graph(print_graph(graph)) == graph


def test_long_graphs_print_and_parse_without_recursion() -> None:
    builder = Builder("long")
    x = builder.input("x", TensorType(float32, (2, 3)))
    for _ in range(3000):
        x = ops.reshape(ops.reshape(ops.exp(x), (6,)), (2, 3))
    graph = builder.finish([x])
    read = parse_graph(print_graph(graph))
    assert len(read.nodes) == 9000 and read == graph
