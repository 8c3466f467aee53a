"""Compiled elementwise functions beside NumPy's in double precision: one in a thousand of all float32 numbers, for each kind of
CPU that this machine can run code of. `accuracy.py` takes all of them."""

from __future__ import annotations

import accuracy
import numpy as np
import pytest

import graphc.ops
from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.errors import BackendError, GraphcError
from graphc.op import OpDef
from graphc.types import TensorType, float32

STEP = 1009
EXACT = {"abs", "ceil", "conj", "copysign", "floor", "floor_divide", "fmod", "maximum", "minimum", "neg", "relu", "round",
         "sign", "stop_gradient", "trunc"}
ROUNDED = {"add", "div", "mul", "sqrt", "sub"}
ABOVE_TWO = {"erfc", "logaddexp", "logaddexp2", "sigmoid", "xlog1py"}
"""Further than 2 from the true value, but no more than 2 from the number next to it."""


def bound(name: str) -> float:
    """The largest error that is let pass, in units in the last place."""
    return 0.0 if name in EXACT else 0.5 if name in ROUNDED else 2.5 if name in ABOVE_TWO else 2.0


def cpus() -> list[str]:
    """The native CPU and lesser ones that this machine can pass for."""
    found = ["native"]
    for cpu in ("haswell", "x86-64") if Target.host().architecture == "x86_64" else ():
        with override(cpu=cpu):
            try:
                Target.host()
            except BackendError:
                continue
        found.append(cpu)
    return found


@pytest.mark.parametrize("name", [*accuracy.UNARY, *accuracy.BINARY])
def test_error(name):
    for cpu, worst in accuracy.walk(name, cpus(), STEP).items():
        assert worst.ulp <= bound(name), f"{cpu}: {worst}"


def test_no_function_is_left_out():
    compiled = set()
    for record in vars(graphc.ops).values():
        if isinstance(record, OpDef) and record.elementwise and record.kernel != "host":
            try:
                result = record.infer(*[TensorType(float32, (1,))] * len(record.operands))
            except GraphcError:  # not for floating-point numbers
                continue
            if result.dtype is float32 and record is not graphc.ops.standardize:  # a difference and a product, both bounded
                compiled.add(record.name)
    assert compiled == {*accuracy.UNARY, *accuracy.BINARY}


def test_errors_are_counted_in_last_places_of_the_true_value():
    exact = np.array([1.0, 1.0, 0.75, 2.0**-149, 0.0, 1e60, -1e60, np.nan, 1.0 + 2.0**-25])
    result = np.array([1 + 2.0**-22, 1.0, 0.75 - 2.0**-24, 2.0**-148, 0.0, np.inf, -np.inf, np.nan, 1.0], np.float32)
    assert accuracy.errors(result, exact).tolist() == [2, 0, 1, 1, 0, 0, 0, 0, 0.25]
    assert accuracy.errors(np.float32([3.4028234663852886e38]), np.array([1e60])) == 1
    wrong = accuracy.errors(np.float32([np.nan, 1.0, -0.0, np.inf]), np.array([1.0, np.nan, 0.0, -1e60]))
    assert np.isinf(wrong).all()


def test_a_run_is_taken_up_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "ARGUMENTS", 1 << 18)  # subnormal numbers, whose square root is right
    monkeypatch.setattr(accuracy, "SLICES", 2)
    log = tmp_path / "log.jsonl"
    once = accuracy.walk("sqrt", ["native"], 1, log)
    assert 0.4 < once["native"].ulp <= 0.5
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    log.write_text(lines[0] + "\n")
    assert accuracy.walk("sqrt", ["native"], 1, log) == once
    assert sorted(log.read_text().splitlines()) == sorted(lines)
