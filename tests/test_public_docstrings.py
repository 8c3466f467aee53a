"""Every public name has a docstring with an example. That the examples are right is for tests/test_documents.py."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from test_documents import ASSUMED

import graphc
import graphc.data
import graphc.nn.utils
import graphc.optim.lr_scheduler
import graphc.runtime
import graphc.signal.windows
import graphc.stablehlo
from graphc import native
from graphc.frontend.conversion import CONVERTERS, TYPED

MODULES: dict[str, Any] = {
    "": graphc, "amp": graphc.amp, "autograd": graphc.autograd, "cuda": graphc.cuda, "data": graphc.data,
    "distributions": graphc.distributions, "fft": graphc.fft, "func": graphc.func, "jit": graphc.jit, "linalg": graphc.linalg,
    "native": native, "nn": graphc.nn, "nn.functional": graphc.nn.functional, "nn.init": graphc.nn.init,
    "nn.utils": graphc.nn.utils, "onnx": graphc.onnx, "optim": graphc.optim, "optim.lr_scheduler": graphc.optim.lr_scheduler,
    "random": graphc.random, "runtime": graphc.runtime, "signal.windows": graphc.signal.windows, "special": graphc.special,
    "stablehlo": graphc.stablehlo, "testing": graphc.testing, "Tensor": graphc.Tensor,
}

REMOVED = {"eig", "lstsq", "matrix_rank", "solve", "symeig"}
"""PyTorch's functions that do nothing but say what has taken their place."""


def public_names() -> Iterator[tuple[str, str, Any, Any]]:
    for path, module in MODULES.items():
        for name in getattr(module, "__all__", None) or dir(module):
            value = inspect.getattr_static(module, name) if path == "Tensor" else getattr(module, name)
            documented = callable(value) or isinstance(value, (property, staticmethod, classmethod))
            if not name.startswith("_") and documented and not inspect.ismodule(value):
                yield path, name, module, value


def lacks_example(name: str, module: Any, value: Any) -> bool:
    text = inspect.getdoc(value) or ""
    if ">>>" in text:
        return False
    # an in-place method says what it is the in-place form of
    base = name.removesuffix("_")
    return base == name or not text.startswith("`") or lacks_example(base, module, getattr(module, base))


@pytest.mark.parametrize("path", MODULES)
def test_public_names_have_examples(path: str) -> None:
    removed = REMOVED if path in ("", "Tensor") else set()
    lacking = {name for at, name, module, value in public_names() if at == path and lacks_example(name, module, value)}
    assert lacking == removed & {name for at, name, *_ in public_names() if at == path}


@pytest.mark.parametrize("name", [*CONVERTERS, *TYPED])
def test_examples_that_are_made(name: str) -> None:
    """Those of docstrings that stand in no source, which the search for examples in modules does not find."""
    text = (CONVERTERS.get(name) or TYPED[name]).__doc__ or ""
    example = doctest.DocTestParser().get_doctest(text, dict(ASSUMED), name, None, 0)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0
