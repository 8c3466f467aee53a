"""examples/benchmark_gpu.py: all of it but PyTorch, JAX and a real GPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import graphc
from graphc.backends.cuda import products


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    path = Path(__file__).parents[1] / "examples" / "benchmark_gpu.py"
    spec = importlib.util.spec_from_file_location("benchmark_gpu", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_gpu"] = module
    spec.loader.exec_module(module)
    module._MOST_INPUTS = 2  # type: ignore[attr-defined]
    yield module
    del sys.modules["benchmark_gpu"]


_CHOSEN = "copy,x *,gelu,softmax,norm,sum,matmul,relu,attention,embedding,step on 1"
"""Every kind of workload: of the models, whose compilation takes seconds, one."""


def test_workloads_on_the_cpu(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'graphc[examples]'")
    plot = tmp_path / "plot.svg"
    arguments = ["--device", "cpu", "--scale", "0.0001", "--sides", "graphc", "--rounds", "1", "--plot", str(plot),
                 "--workloads", _CHOSEN]
    assert script.main(arguments) == 0
    out = capsys.readouterr().out
    names = [w.name for w in script.workloads(0.0001) if any(part in w.name for part in _CHOSEN.split(","))]
    assert len(names) == 13 and all(name in out for name in names)
    assert "softmax" in plot.read_text()


def test_products_with_cublas_and_without(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LAUNCH", 0.0)  # then small products go to cuBLAS, too
    side = {name: kind("cuda") for name, kind in script.SIDES.items()}
    workload = next(w for w in script.workloads(0.0001) if w.name == "matmul")
    inputs = [workload.inputs(np.random.default_rng(0)) for _ in range(2)]
    with cupy_stand_in.installed(interpreted=False, cublas=True) as cupy:
        results = {}
        for name in ("graphc", "graphc-kernels"):
            results[name] = side[name].array(side[name].load(workload, inputs)(0))
            assert cupy.cublas_calls == 1  # of the first
    np.testing.assert_allclose(results["graphc"], results["graphc-kernels"], rtol=1e-4, atol=1e-4)


def test_on_a_stand_in_for_a_gpu(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with cupy_stand_in.installed():
        chosen = ["--workloads", "copy,softmax,embedding", "--scale", "0.001", "--rounds", "1", "--plot", ""]
        assert script.main(["--sides", "graphc", *chosen]) == 0
    assert "100%" in capsys.readouterr().out


def test_what_is_missing_is_said(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if graphc.cuda.is_available():
        pytest.skip("there is a GPU")
    assert script.main(["--sides", "graphc,graphc-kernels,torch,torch.compile,jax"]) == 2
    said = capsys.readouterr().err
    for side in script.SIDES:
        assert f"left out {side}: " in said
    with pytest.raises(SystemExit, match="2"):
        script.main(["--sides", "numpy"])


class Side:
    """A side whose results are so much too large."""

    def __init__(self, name: str, excess: float) -> None:
        self.name, self.excess = name, excess

    def load(self, workload: Any, inputs: Sequence[Sequence[np.ndarray]]) -> Callable[[int], Any]:
        return lambda i: inputs[i][0] * (1 + self.excess)

    def array(self, result: np.ndarray) -> np.ndarray:
        return result

    def seconds(self, call: Callable[[int], Any], count: int) -> float:
        assert [call(i).shape for i in range(count)] == [(2, 4096)] * count
        return 0.001 if self.name == "graphc" else 0.002

    def release(self) -> None:
        self.released = True


class Broken(Side):
    """A side that fails while it is measured."""

    def seconds(self, call: Callable[[int], Any], count: int) -> float:
        raise RuntimeError("no such kernel")


def test_results_that_differ_are_marked(script: ModuleType) -> None:
    copy = next(w for w in script.workloads(0.00013) if w.name == "copy")
    figures = script.measure(copy, [Side("graphc", 0), Side("torch", 1e-6), Side("jax", 0.1)], rounds=2)
    assert [script.is_right(figure) for figure in figures] == [True, True, False]
    lines = script.table(figures, ["graphc", "torch", "jax"], 0).splitlines()
    assert lines[1].split() == ["copy", "1.000", "2.000", "2.000", "(!)", "100%", lines[1].split()[-1]]
    assert lines[-1] == "(!) results differ, or a side has failed"


def test_a_side_that_fails_does_not_end_the_others(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install 'graphc[examples]'")
    copy = next(w for w in script.workloads(0.00013) if w.name == "copy")
    sides = [Broken("torch", 0), Side("graphc", 0)]
    figures = script.measure(copy, sides, rounds=1)
    assert [script.is_right(figure) for figure in figures] == [False, True] and all(side.released for side in sides)
    assert "no such kernel" in capsys.readouterr().err
    lines = script.table(figures, ["torch", "graphc"], 0).splitlines()
    assert lines[1].split()[:4] == ["copy", "failed", "(!)", "1.000"] and "failed" in lines[-1]
    script.plot(figures, ["torch", "graphc"], str(tmp_path / "plot.svg"))
    lines = script.table(script.measure(copy, [Broken("graphc", 0)], rounds=1), ["graphc"], 0).splitlines()
    assert "failed (!)" in lines[1]
    script.plot(figures[:1], ["torch"], str(tmp_path / "plot.svg"))
