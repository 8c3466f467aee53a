"""trace and export: graphs and programs that stand on their own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentTypeError, PackageError, TraceError
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.verify import verify


def network() -> nn.Module:
    graphc.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(16, 3),
    )


def test_a_trace_is_a_graph_of_the_arguments_and_the_parameters() -> None:
    net = network().eval()
    x = graphc.randn(2, 1, 4, 4)
    graph = graphc.trace(net, (x,)).ir
    verify(graph)
    assert isinstance(graph, Graph) and graph.inputs[0].name == "input"
    names = [v.info["param"] for v in graph.inputs[1:]]
    assert names[0] == "0.weight" and set(names) == {k for k in net.state_dict() if "tracked" not in k}
    weights = [net.state_dict()[name].numpy() for name in names]
    (got,) = interpret(graph, [x.numpy(), *weights])
    np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_nested_arguments_and_results() -> None:
    def f(pair: Any, *, scale: Any = None) -> Any:
        return {"sum": pair[0] + pair[1]["b"], "all": [pair[0], (pair[1]["b"] * 2,)]}

    a, b = graphc.ones(2), graphc.full((2,), 3.0)
    program = graphc.export(f, ((a, {"b": b}),))
    out = program((b, {"b": a}))
    assert out["sum"].tolist() == [4, 4] and out["all"][0].tolist() == [3, 3] and out["all"][1][0].tolist() == [2, 2]


@dataclass
class Pair:
    left: Any
    right: Any


def test_programs_take_dataclasses(tmp_path: Path) -> None:
    program = graphc.export(lambda pair: pair.left - pair.right, (Pair(graphc.ones(2), graphc.zeros(2)),))
    graphc.save(program, tmp_path / "pair.gcz")
    for each in (program, graphc.load(tmp_path / "pair.gcz")):
        assert each(Pair(graphc.zeros(2), graphc.ones(2))).tolist() == [-1, -1]
        assert each({"left": graphc.zeros(2), "right": graphc.ones(2)}).tolist() == [-1, -1]
        with pytest.raises(ArgumentTypeError, match=r"keys \['left', 'right'\]"):
            each(Pair)


def test_unused_and_repeated_arguments_stay_inputs() -> None:
    x = graphc.ones(2)
    program = graphc.export(lambda a, b, c: a + c, (x, x, x))
    assert len(program.graph.inputs) == 3
    assert program(x, x * 5, x * 2).tolist() == [3, 3]


def test_a_program_is_a_snapshot(tmp_path: Path) -> None:
    net = network().eval()
    x = graphc.randn(3, 1, 4, 4)
    program, want = graphc.export(net, (x,)), net(x).detach().clone()
    with graphc.no_grad():
        for p in net.parameters():
            p.zero_()
    np.testing.assert_allclose(program(x).numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
    graphc.save(program, tmp_path / "net.gcz")
    again = graphc.load(tmp_path / "net.gcz")
    np.testing.assert_array_equal(again(x).numpy(), program(x).numpy())
    assert again.signature == program.signature


def test_a_saved_program_runs_without_the_front_end(tmp_path: Path) -> None:
    net = network().eval()
    x = graphc.randn(3, 1, 4, 4)
    graphc.save(graphc.export(net, (x,)), tmp_path / "net.gcz")
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import sys, numpy as np, graphc.runtime\n"
        f"y = graphc.runtime.load({str(tmp_path / 'net.gcz')!r})(np.load({str(tmp_path / 'x.npy')!r}))\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, y)\n"
        "assert not [m for m in sys.modules if m.startswith('graphc.frontend')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_changes_state_is_refused() -> None:
    with pytest.raises(TraceError, match=r"(?s)changes num_batches_tracked in place.*eval\(\)"):
        graphc.export(nn.BatchNorm1d(2), (graphc.ones(3, 2),))
    with pytest.raises(TraceError, match=r"(?s)changes its argument 'x' in place.*fix:      clone\(\) it first"):
        graphc.trace(lambda x: x.add_(1), (graphc.ones(2),))
    total = graphc.zeros(2)
    with pytest.raises(TraceError, match="changes total in place"):
        graphc.export(lambda x: total.add_(x).clone(), (graphc.ones(2),))
    with pytest.raises(TraceError, match=r"(?s)draws random numbers, which an exported graph cannot.*eval\(\).*state=True"):
        graphc.export(nn.Dropout(), (graphc.ones(2),))


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="a str cannot be traced"):
        graphc.export("model.gcz", (graphc.ones(2),))  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="not a tuple"):
        graphc.export(lambda x: x, graphc.ones(2))
    with pytest.raises(ArgumentTypeError, match="argument of type int"):
        graphc.export(lambda x, n: x * n, (graphc.ones(2), 3))
    with pytest.raises(TraceError, match="returns a str"):
        graphc.export(lambda x: "hello", (graphc.ones(2),))
    with pytest.raises(ArgumentTypeError, match="metadata are a list"):
        graphc.export(nn.Linear(2, 1), (graphc.ones(3, 2),), metadata=["cat", "dog"])  # type: ignore[arg-type]


def test_inputs_that_do_not_fit_are_named() -> None:
    program = graphc.export(lambda image: image * 2, (graphc.ones(2, 3),))
    with pytest.raises(RuntimeError, match=r"(?s)image.*float32\[2, 3\].*\[3, 3\]"):
        program(graphc.ones(3, 3))
    with pytest.raises(RuntimeError, match=r"(?s)image.*float32\[2, 3\].*float64"):
        program(graphc.ones(2, 3, dtype=graphc.float64))


def test_damaged_and_newer_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.gcz"
    graphc.save(graphc.export(lambda x: x + 1, (graphc.ones(2),)), path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", whole.replace(b"add", b"sub", 1)):
        path.write_bytes(damaged)
        with pytest.raises((PackageError, ValueError, RuntimeError), match=r"p\.gcz"):
            graphc.load(path)
