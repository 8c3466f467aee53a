"""Compiled functions that are called natively."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.backends.llvm.objects import Unsupported, array_constructor
from graphc.frontend.compile import CompiledFunction

try:
    array_constructor()
    lacking = ""
except Unsupported as reason:
    lacking = str(reason)

native = not lacking
"""Whether calls can be native here. Where not, everything goes by way of Python."""

native_alone = pytest.mark.skipif(not native, reason=f"no native entries here: {lacking}")


def tensor(*values: float, **kwargs: Any) -> Any:
    return graphc.tensor(list(values), **kwargs)


def entered(function: Callable[..., Any], *args: Any) -> CompiledFunction:
    """A compiled function that is called natively with such arguments."""
    f = graphc.compile(function)
    for _ in range(2):
        f(*args)
    assert isinstance(f._entry, types.BuiltinFunctionType)
    return f


def training() -> tuple[CompiledFunction, nn.Parameter]:
    """A step that computes the gradient of a parameter of two numbers."""
    w = nn.Parameter(tensor(1.0, 2.0))

    def step(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    return entered(step, tensor(1.0, 2.0)), w


def graphs(f: CompiledFunction) -> int:
    """How many graphs it has been traced to."""
    return sum(map(len, f._graphs.values()))
