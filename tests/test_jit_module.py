"""graphc.jit: recorded functions under the names that older PyTorch code knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc


def model() -> graphc.nn.Module:
    nn = graphc.nn
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).eval()


def test_a_traced_function() -> None:
    traced = graphc.jit.trace(lambda v: (v * 2).relu() + 1, graphc.ones(3))
    assert traced(graphc.tensor([-1.0, 0.5, 2.0])).tolist() == [1, 2, 5]
    assert "relu" in traced.code and "float32[s0]" in repr(traced)


def test_a_traced_module_takes_other_sizes_and_other_weights() -> None:
    net = model()
    traced = graphc.jit.trace(net, (graphc.rand(2, 3),))
    x = graphc.rand(5, 3)
    np.testing.assert_allclose(traced(x).detach(), net(x).detach(), rtol=1e-5, atol=1e-6)
    with graphc.no_grad():
        net[0].weight.mul_(2)
    np.testing.assert_allclose(traced(x).detach(), net(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_file_runs_without_the_code(tmp_path: Path) -> None:
    net, path = model(), tmp_path / "model.pt"
    graphc.jit.save(graphc.jit.trace(net, graphc.rand(2, 3)), path)
    x = graphc.linspace(-1, 1, 6).reshape(2, 3)
    np.testing.assert_allclose(graphc.jit.load(path)(x), net(x).detach(), rtol=1e-5, atol=1e-6)
    code = f"from graphc import runtime; import numpy as np; p = runtime.load({os.fspath(path)!r})\n" \
           "print(*np.ravel(p(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose([float(v) for v in out.stdout.split()], net(x).detach().reshape(-1), rtol=1e-5)


def test_script_is_compile() -> None:
    @graphc.jit.script
    def f(x):
        return x * 2 if graphc.jit.is_scripting() else x + 1

    assert f(graphc.ones(2)).tolist() == [2, 2] and not graphc.jit.is_tracing()


def test_decorators_for_scripting_change_nothing() -> None:
    assert graphc.jit.ignore(model) is graphc.jit.ignore(drop=True)(model) is model
    assert graphc.jit.export(model) is graphc.jit.unused(model) is model and graphc.jit.annotate(list[int], [1]) == [1]


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="example_inputs must be tensors"):
        graphc.jit.trace(lambda x: x, (1,))
    with pytest.raises(TypeError, match="does not take 'example_kwarg_inputs'"):
        graphc.jit.trace(lambda x: x, graphc.ones(1), example_kwarg_inputs={})
    with pytest.raises(TypeError, match=r"what jit.trace\(\) has made"):
        graphc.jit.save(model(), "x.pt")
