"""Programs exported with named sizes: one file runs at all sizes within the bounds, and says which those are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Dim, nn, runtime
from graphc.errors import ArgumentError, ArgumentTypeError, ParseError, ShapeError, VerifyError
from graphc.parse import parse_graph
from graphc.verify import verify


def reloaded(program: Any) -> runtime.Program:
    """The program as it is read back from its file, without the front end."""
    stream = io.BytesIO()
    program.save(stream)
    stream.seek(0)
    return runtime.load(stream)


def check(function: Any, shapes: Any, *others: tuple[tuple[int, ...], ...], dynamic_shapes: Any) -> Any:
    """Export for some shapes, and compare with eager code at others, before and after saving."""
    program = graphc.export(function, tuple(graphc.randn(*s) for s in shapes), dynamic_shapes=dynamic_shapes)
    saved = reloaded(program)
    for other in (shapes, *others):
        arguments = [graphc.randn(*s) for s in other]
        expected = function(*arguments).detach().numpy()
        np.testing.assert_allclose(program(*arguments).numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(saved(*(x.numpy() for x in arguments)), program(*arguments).numpy())
    return program


def test_a_batch_of_any_size() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    program = check(model, [(5, 4)], [(1, 4)], [(64, 4)], dynamic_shapes={"input": {0: Dim("batch", min=1, max=64)}})
    assert program.signature == "forward(input: float32[batch, 4]) -> (output: float32[batch, 2])"
    for n, expected in ((65, "batch <= 64"), (0, "batch >= 1")):
        with pytest.raises(ShapeError, match=expected):
            program(graphc.ones(n, 4))
        with pytest.raises(ShapeError, match=expected):
            reloaded(program)(np.ones((n, 4), np.float32))


def test_an_image_of_any_size() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    check(model, [(2, 3, 8, 8)], [(1, 3, 9, 17)], [(3, 3, 30, 12)],
          dynamic_shapes=({0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)},))


def test_a_transformer_of_any_length() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Embedding(32, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Any) -> Any:
            length = x.shape[1]
            mask = graphc.triu(graphc.ones(length, length), 1).bool()
            return self.layer(x + self.positions(graphc.arange(length)), src_mask=mask)

    program = check(Model().eval(), [(2, 6, 8)], [(1, 9, 8)], [(3, 32, 8)],
                    dynamic_shapes={"x": {0: Dim("batch", min=1), 1: Dim("length", min=2, max=32)}})
    assert "float32[batch, length, 8]" in program.signature


def test_sizes_that_follow_from_others() -> None:
    n = Dim("n", min=1, max=10)
    program = check(lambda x, y: x[1::2] + y, [(7,), (3,)], [(3,), (1,)], [(21,), (10,)],
                    dynamic_shapes=({0: 2 * n + 1}, {0: n}))
    assert program.signature == "forward(x: float32[2*n + 1], y: float32[n]) -> (output: float32[n])"
    with pytest.raises(ShapeError):
        program(graphc.ones(8), graphc.ones(3))


def test_sizes_without_names() -> None:
    program = graphc.export(lambda x: x + graphc.ones(3), (graphc.ones(5, 3),), dynamic_shapes=[(Dim.AUTO, Dim.AUTO)])
    assert program.signature == "forward(x: float32[s0, 3]) -> (output: float32[s0, 3])"
    assert program(graphc.ones(9, 3)).shape == (9, 3)
    program = graphc.export(lambda x: x * 2, (graphc.ones(5, 3),), dynamic_shapes={"x": (Dim.DYNAMIC, Dim.STATIC)})
    assert program(graphc.ones(9, 3)).shape == (9, 3)
    with pytest.raises(ShapeError, match="dimension 0 of 'x' is to change, and the code makes it 5"):
        graphc.export(lambda x: x + graphc.ones(5), (graphc.ones(5),), dynamic_shapes=({0: Dim.DYNAMIC},))


def test_nested_arguments() -> None:
    batch = Dim("batch")

    def f(pair: Any, options: Any) -> Any:
        return pair[0] @ pair[1] + options["bias"]

    given = ((graphc.ones(4, 3), graphc.ones(3, 2)), {"bias": graphc.ones(4, 1)})
    program = graphc.export(f, given, dynamic_shapes={"pair": ({0: batch}, None), "options": {"bias": {0: batch}}})
    assert program((graphc.ones(6, 3), graphc.ones(3, 2)), {"bias": graphc.ones(6, 1)}).tolist() == [[4, 4]] * 6


def test_a_size_that_the_code_makes_a_number() -> None:
    def f(x: Any) -> Any:
        return sum(x[i] for i in range(x.shape[0]))

    with pytest.raises(ShapeError, match="dimension 0 of 'x', 'batch', is to change, and the code makes it 4") as caught:
        graphc.export(f, (graphc.ones(4, 3),), dynamic_shapes={"x": {0: Dim("batch")}})
    assert "test_dynamic_export.py" in str(caught.value) and "batch == 4" in str(caught.value)


def test_sizes_that_the_code_makes_equal() -> None:
    with pytest.raises(ShapeError, match="'b', is to change, and the code makes it a"):
        graphc.export(lambda x, y: x + y, (graphc.ones(4), graphc.ones(4)), dynamic_shapes=({0: Dim("a")}, {0: Dim("b")}))


def test_bounds_that_the_code_does_not_stand_for() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x.shape[0] > 5 else x

    with pytest.raises(ShapeError, match="from 2 to 64, and the code tells apart those with batch >= 6") as caught:
        graphc.export(f, (graphc.ones(8),), dynamic_shapes={"x": {0: Dim("batch", min=2, max=64)}})
    assert "in f" in str(caught.value)
    program = graphc.export(f, (graphc.ones(8),), dynamic_shapes={"x": {0: Dim("batch")}})
    assert program(graphc.ones(6)).tolist() == [2] * 6
    with pytest.raises(ShapeError, match="batch >= 6"):
        program(graphc.ones(5))


def test_conditions_are_part_of_the_text() -> None:
    program = graphc.export(lambda x: x * 2, (graphc.ones(8),), dynamic_shapes=({0: Dim("n", min=3, max=9)},))
    text = str(program.graph)
    assert '%x: float32[n] {where = ["n >= 3", "n <= 9"]}' in text
    assert parse_graph(text) == program.graph


@pytest.mark.parametrize("where", ['["N"]', '["N >= "]', '[3]', '"N >= 2"', '["N != N"]', '["M >= 2"]', '["N//0 >= 2"]'])
def test_what_is_no_condition(where: str) -> None:
    with pytest.raises((ParseError, VerifyError)):
        verify(parse_graph(f"graph @g(%x: float32[N] {{where = {where}}}) -> float32[N] {{\n  return %x\n}}"))


def test_type_rules_rely_on_conditions() -> None:
    text = """graph @g(%x: float32[N] {where = ["N >= 4"]}) -> float32[N - 3] {
      %0 = slice(%x) {starts = [3], stops = [N], steps = [1]} : float32[N - 3]
      return %0
    }"""
    verify(parse_graph(text))
    with pytest.raises(ParseError, match="outside dimension 0"):
        parse_graph(text.replace("[3], stops = [N]", "[0], stops = [3]").replace("N >= 4", "N <= 2"))


@pytest.mark.parametrize("dynamic_shapes, error", [
    ({"y": {0: Dim("n")}}, ArgumentError),
    (({0: Dim("n")}, None), ArgumentTypeError),
    (({2: Dim("n")},), ArgumentError),
    (({0: "n"},), ArgumentTypeError),
    ((Dim("n"),), ArgumentTypeError),
    (((Dim("n"),),), ArgumentError),
    (({0: Dim("n", min=6)},), ArgumentError),
    (({0: Dim("n"), 1: Dim("n")},), ArgumentError),
    (({0: Dim("n"), 1: 2 * Dim("n", max=9)},), ArgumentError),
    (({0: 5},), ArgumentError),
])
def test_shapes_that_do_not_fit(dynamic_shapes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"dynamic_shapes|example|two sizes|bounds"):
        graphc.export(lambda x: x * 2, (graphc.ones(4, 3),), dynamic_shapes=dynamic_shapes)


def test_names_of_sizes() -> None:
    assert repr(Dim("n", max=3)) == "Dim('n', max=3)" and repr(3 * Dim("n") - 1) == "3*n - 1"
    for wrong in (lambda: Dim("2n"), lambda: Dim("n", min=3, max=2), lambda: Dim("n", min=-1), lambda: Dim("n") * -1):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(TypeError):
        Dim("n") * 0.5  # type: ignore[operator]


def test_a_traced_function_takes_other_batches() -> None:
    traced = graphc.jit.trace(nn.Linear(3, 2), graphc.ones(4, 3))
    stream = io.BytesIO()
    traced.save(stream)
    stream.seek(0)
    loaded = graphc.jit.load(stream)
    for n in (4, 7, 1):
        x = graphc.randn(n, 3)
        np.testing.assert_allclose(loaded(x).numpy(), traced(x).detach().numpy(), rtol=1e-6)


def test_what_is_expanded_to_a_symbolic_size_may_be_flattened() -> None:
    rows = graphc.Dim("rows", min=2, max=50)
    program = graphc.export(lambda x: x[:1].expand(x.shape[0], 3).flatten(), (graphc.ones(4, 3),), dynamic_shapes=({0: rows},))
    assert program(graphc.arange(15.0).reshape(5, 3)).tolist() == [0.0, 1.0, 2.0] * 5
