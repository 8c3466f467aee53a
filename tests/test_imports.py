"""The front door: lazy names, and modules that are reachable under the public names."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import graphc


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_graphc_loads_neither_numpy_nor_the_front_end() -> None:
    code = "import sys, graphc; print([m for m in ('numpy', 'llvmlite', 'graphc.frontend') if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("code", ["import graphc; graphc.ones(2).sum()", "import graphc.runtime"])
def test_what_is_seldom_needed_is_not_loaded(code: str) -> None:
    heavy = ("llvmlite", "scipy", "ml_dtypes", "multiprocessing", "_hashlib", "graphc.frontend.data",
             "graphc.frontend.distributions")  # fmt: skip
    assert run(f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])") == "[]"
    if "runtime" in code:
        assert run(f"import sys; {code}; print([m for m in sys.modules if m.startswith('graphc.frontend')])") == "[]"


@pytest.mark.parametrize("name", ["nn", "nn.functional", "nn.init", "optim", "autograd", "random", "cuda"])
def test_public_modules_are_one_object(name: str) -> None:
    module = importlib.import_module(f"graphc.{name}")
    assert module is importlib.import_module(f"graphc.frontend.{name}")
    assert module.__spec__ is not None and module.__spec__.name == f"graphc.frontend.{name}"
    owner = graphc
    for part in name.split("."):
        owner = getattr(owner, part)
    assert owner is module


@pytest.mark.parametrize("code", [
    "import graphc.nn.functional as F; print(F.relu.__module__)",
    "from graphc.nn import functional as F; print(F.relu.__module__)",
    "from graphc.nn.functional import relu; print(relu.__module__)",
])
def test_ways_to_import_in_a_fresh_process(code: str) -> None:
    assert run(code) == "graphc.frontend.activations"


def test_a_module_used_first_finds_its_methods() -> None:
    assert run("import graphc.nn as nn; print(tuple(nn.Linear(2, 1).weight.t().shape))") == "(2, 1)"


def test_missing_modules_are_module_not_found_errors() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"graphc\.nn\.nothing"):
        importlib.import_module("graphc.nn.nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("graphc.nothing")


def test_dir_lists_the_public_names() -> None:
    names = dir(graphc)
    assert {"Tensor", "nn", "optim", "zeros", "float32", "compile", "no_grad"} <= set(names)
    for name in names:
        getattr(graphc, name)
