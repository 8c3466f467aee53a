"""On an NVIDIA GPU: `pytest -m gpu`. Elsewhere these are skipped; test_gpu_stand_in.py runs some of them on a stand-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import gpu_checks
import numpy as np
import pytest
from op_cases import CASES, DIFFERENTIABLE

import graphc
from graphc import nn
from graphc.backends.cuda.driver import Driver

_REASON = gpu_checks.why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(_REASON), reason=_REASON)]
_HERE = Path(__file__).parent
_SUITE = _HERE.parents[1] / "shared" / "conformance" / "run.py"


@pytest.fixture(scope="module")
def driver() -> Driver:
    from graphc.backends.cuda.cupy_driver import CupyDriver

    return CupyDriver()


@pytest.mark.parametrize("name", CASES)
def test_each_op(driver: Driver, name: str) -> None:
    gpu_checks.check_op(driver, CASES[name])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_derivative(driver: Driver, name: str) -> None:
    gpu_checks.check_derivative(driver, DIFFERENTIABLE[name])


@pytest.mark.skipif(not _SUITE.is_file(), reason=f"the conformance suite is not there: {_SUITE}")
@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("suite", ["ops", "fft"])
def test_conformance(suite: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, str(_SUITE), "--suite", suite, "--mode", mode, "--adapter", str(_HERE / "gpu_conformance.py"),
         "--json", str(path), "--require", "0"], check=True)
    result = json.loads(path.read_text())
    assert result["passed"] >= 0.98 * (result["passed"] + result["failed"]), result["failures"][:20]


@pytest.mark.parametrize("compiled", [False, True])
def test_training_on_digits(compiled: bool) -> None:
    gpu_checks.check_training("cuda", compiled, steps=200, batch=64)


@pytest.mark.parametrize("compiled", [False, True])
def test_10_000_calls_take_no_more_memory(compiled: bool) -> None:
    model = nn.Linear(64, 64).to("cuda")
    x = graphc.randn(32, 64).to("cuda")

    def step() -> graphc.Tensor:
        loss = model(x).softmax(1).square().sum()
        loss.backward()
        model.zero_grad()
        return loss

    gpu_checks.check_no_leak(graphc.compile(step) if compiled else step, 10_000, graphc.cuda.memory_allocated)


def test_out_of_memory_is_an_error_that_says_so() -> None:
    gpu_checks.check_out_of_memory("cuda")


def test_halves_and_factors_of_11_bits_on_tensor_cores() -> None:
    x, y = graphc.randn(512, 768), graphc.randn(768, 640)
    exact = x.double().numpy() @ y.double().numpy()
    bound = np.abs(x.numpy()) @ np.abs(y.numpy())
    for there, few in ((lambda x, y: x @ y, 2.0**-10), (lambda x, y: x.bfloat16() @ y.bfloat16(), 2.0**-6)):
        function = graphc.compile(there, numerics="high")
        result = function(x.to("cuda"), y.to("cuda")).float().cpu().numpy()
        assert (np.abs(result - exact) <= few * bound).all()


@pytest.mark.parametrize("width", [32, 64, 80, 128, 256])
@pytest.mark.parametrize(("dtype", "numerics"), [("float16", "strict"), ("bfloat16", "strict"), ("float32", "high")])
def test_attention_on_tensor_cores(dtype: str, numerics: str, width: int) -> None:
    gpu_checks.check_attention("cuda", getattr(graphc, dtype), 333, width, numerics)


_SANITIZER = shutil.which("compute-sanitizer")


@pytest.mark.skipif(_SANITIZER is None, reason="compute-sanitizer is not installed: it comes with the CUDA toolkit")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_kernels_under_compute_sanitizer(tool: str) -> None:
    names = [*list(CASES)[:: 1 if tool == "memcheck" else 10], *gpu_checks.BY_TENSOR_CORES]
    done = subprocess.run(
        [str(_SANITIZER), "--tool", tool, "--error-exitcode", "9", sys.executable, str(_HERE / "gpu_kernels.py"), *names],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
