"""Profiles of a script's function in both ways of running."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = {
    "graphc": """
import graphc
model = graphc.nn.Linear(6, 4)
optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)

def step(x):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss

def inputs():
    return graphc.randn(8, 6),
""",
    "torch": """
import torch

@torch.compile
def step(x):
    return torch.tanh(x @ x.T).sum()

inputs = torch.randn(8, 6),
""",
}


@pytest.mark.parametrize("library", SCRIPTS)
def test_a_profile_of_both_modes(library: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPTS[library])
    # in a process of its own, where `import torch` may come to mean graphc
    command = [sys.executable, "-P", "-m", "graphc", "profile", "script.py:step", "-o", "trace.json", "--calls", "2"]
    made = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    eager, compiled = made.stdout.split("compiled, 2 calls:")
    assert "eager, 2 calls:" in eager and "script.py" in eager and " op " in eager and "compiled step" not in eager
    assert "main.py" not in compiled  # a line of the command's own
    assert "compiled step" in compiled and " kernel " in compiled and " op " not in compiled
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"eager", "compiled"}
    assert sum(e["name"] == "compiled step" for e in events) == 2


def test_the_option_of_bench(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPTS["graphc"])
    command = [sys.executable, "-P", "-m", "graphc", "bench", "--profile", "trace.json"]
    refused = subprocess.run([*command, "matmul"], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1 and "one function of a script" in refused.stderr
    options = ["--sides", "graphc-eager", "--rounds", "1", "--seconds", "0.01", "--threads", "1"]
    made = subprocess.run([*command, *options, "script.py:step"], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"eager", "compiled"}
