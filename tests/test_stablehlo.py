"""Graphs as StableHLO text: the text itself, and, where JAX is installed, what XLA computes of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from op_samples import draw, graph_of
from random_graphs import Maker
from stablehlo_jax import needs_jax, parsed, run

import graphc
from graphc import nn
from graphc.errors import ArgumentTypeError, CompileError, ShapeError
from graphc.interpret import interpret
from graphc.ir import Builder
from graphc.op import OPS
from graphc.stablehlo import module_text, to_stablehlo
from graphc.stablehlo.table import WRITERS
from graphc.types import TensorType, complex32, float32

CASES = {f"{record.name}-{n}": (record, sample) for record in OPS.values() for n, sample in enumerate(record.samples)}

LEFT_OUT = """
airy_ai airy_ai_prime bessel_j0 bessel_j1 bessel_k0 bessel_k0e bessel_k1 bessel_k1e bessel_y0 bessel_y1
cholesky cholesky_solve cofactor det eig eigh eigvals eigvalsh erfcx exponent gcd geqrf i0 i0e i1 igamma igammac inv
ldl_factor ldl_solve linear_recurrence log_ndtr logcumsumexp lstsq lu_factor matrix_exp ndtri permutation pinv polynomial qr
searchsorted sgn slogdet solve svd svdvals while_loop_vjp
"""
"""LAPACK, special functions, and what goes along in an order: neither StableHLO nor CHLO has them."""
MISSING = set(LEFT_OUT.split())
_MADE_OF = {"logcumsumexp": "linear_recurrence"}


def text_of(name: str) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """The text of a sample's graph, its inputs, and its results by the op's definition."""
    record, sample = CASES[name]
    arrays = draw(sample, name)
    graph = graph_of(record, sample, arrays)
    return module_text({"main": graph}), arrays, interpret(graph, arrays)


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype.kind in "biu":
            np.testing.assert_array_equal(a, b)
        else:
            wide = np.complex128 if a.dtype.kind == "c" else np.float64
            rtol = {2: 1e-2, 4: 2e-5, 8: 1e-6}.get(a.dtype.itemsize, 1e-6)
            np.testing.assert_allclose(a.astype(wide), b.astype(wide), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", CASES)
def test_every_op_is_written_or_said_to_be_missing(name: str) -> None:
    record, _ = CASES[name]
    if record.name in MISSING:
        with pytest.raises(CompileError, match=f"StableHLO has nothing for ({record.name}|{_MADE_OF.get(record.name)})"):
            text_of(name)
    else:
        text, *_ = text_of(name)
        assert set(re.findall(r'"(\w+)\.\w+"\(', text)) <= {"stablehlo", "chlo"}


def test_the_list_of_missing_ops_is_not_too_long() -> None:
    assert OPS.keys() >= MISSING and not MISSING & WRITERS.keys()


@needs_jax
@pytest.mark.parametrize("name", [name for name, (record, _) in CASES.items() if record.name not in MISSING])
def test_xla_computes_what_the_definition_says(name: str) -> None:
    text, arrays, expected = text_of(name)
    close(run(text, arrays), expected)


@needs_jax
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int) -> None:
    maker = Maker(seed, 10)
    close(run(module_text({"main": maker.graph}), maker.arrays), interpret(maker.graph, maker.arrays))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.recurrent = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Any) -> Any:
        x = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        x = self.attention(x.flatten(2).transpose(1, 2))
        return self.head(self.recurrent(x)[0][:, -1]).softmax(-1)


@needs_jax
@pytest.mark.parametrize("weights", [False, True])
def test_a_network(weights: bool) -> None:
    graphc.manual_seed(0)
    x = graphc.randn(2, 3, 16, 16)
    program = graphc.export(Network().eval(), (x,), dynamic_shapes={"x": {0: graphc.Dim("n", max=9)}}).program
    text = to_stablehlo(program, sizes={"n": 2}, weights=weights)
    function = program.main
    arrays = [function.weights[function.entry.weights[i]] if i in function.entry.weights else x.numpy()
              for i in range(len(function.graph.inputs))]
    close(run(text, [x.numpy()] if weights else arrays), [np.asarray(program(x.numpy()))])
    assert ("0.weight" in text or "conv.weight" in text) == (not weights)


@needs_jax
def test_a_training_step_and_random_numbers() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x = graphc.randn(5, 4)
    program = graphc.export(step, (x,), state=True).program
    function = program.main
    names = function.entry.weights
    arrays = [np.asarray(program.state[names[i]] if names[i] in program.state else function.weights[names[i]])
              if i in names else x.numpy() for i in range(len(function.graph.inputs))]
    results = run(to_stablehlo(program), arrays)
    close([results[number] for number in function.entry.results], [np.asarray(program(x.numpy()))])
    for name, number in function.entry.updates.items():
        close([results[number]], [program.state[name]])


def test_several_entries_are_functions_of_their_names() -> None:
    programs = graphc.export({"double": lambda x: x * 2, "half": lambda x: x / 2},
                             {"double": (graphc.ones(3),), "half": (graphc.ones(3),)})
    text = to_stablehlo(programs)
    assert re.findall(r"func.func public @(\w+)\(", text) == ["double", "half"]
    assert "@main" in to_stablehlo(programs, entries=["half"]) and "double" not in to_stablehlo(programs, entries=["half"])


@needs_jax
def test_names_are_quoted() -> None:
    builder = Builder("f", locations=False)
    x = builder.input('a"b\\c\nd ü */', TensorType(float32, (2,)))
    graph = builder.finish([x])
    text = module_text({'an "entry"\n': graph})
    assert text.isascii()
    parsed(text)


def test_what_cannot_be_written() -> None:
    with pytest.raises(CompileError, match="nothing for linear_recurrence") as raised:
        to_stablehlo(graphc.export(lambda x: graphc.logcumsumexp(x, 0), (graphc.ones(3),)))
    assert "test_stablehlo.py" in str(raised.value)
    builder = Builder("f", locations=False)
    x = builder.input("x", TensorType(complex32, (2,)))
    with pytest.raises(CompileError, match="StableHLO has no complex32"):
        module_text({"main": builder.finish([x])})
    program = graphc.export(lambda x: x * 2, (graphc.ones(3),), dynamic_shapes={"x": {0: graphc.Dim("n")}})
    with pytest.raises(ShapeError, match="numbers, and n is none"):
        to_stablehlo(program)
    assert "tensor<7xf32>" in to_stablehlo(program, sizes={"n": 7})
    bounded = graphc.export(lambda x: x + 1, (graphc.ones(3),), dynamic_shapes=({0: graphc.Dim("n", max=8)},))
    with pytest.raises(ShapeError, match="does not stand for these sizes"):
        to_stablehlo(bounded, sizes={"n": 9})
    with pytest.raises(ArgumentTypeError, match="a int cannot be written"):
        to_stablehlo(3)


def test_from_a_file(tmp_path: Any) -> None:
    program = graphc.export(nn.Linear(2, 1), (graphc.ones(3, 2),))
    program.save(tmp_path / "m.gcz")
    assert to_stablehlo(tmp_path / "m.gcz").count("stablehlo.dot_general") == 1
