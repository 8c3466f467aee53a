"""Compiled programs do what they do eagerly, whatever they are: results, what they change, gradients, random numbers.

`GRAPHC_FUZZ_PROGRAMS=50000 GRAPHC_FUZZ_SEED=1 pytest -n 2 tests/test_fuzz_programs.py` looks at so many, others than usual.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_programs import BUFFERS, INPUTS, PARAMETERS, Program, programs

import graphc
from graphc import nn
from graphc.frontend.pytree import flatten

SHARDS = 8
EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_PROGRAMS", "2000"))
SEED = int(os.environ.get("GRAPHC_FUZZ_SEED", "0"))
SIZES = (2, 2, 5, 3, 2)
"""N in each call, one after another."""
SEEN = ("results", "arguments", "gradients", "state", "random numbers", "memory of the results")
"""What `call` returns."""


def numbers(shape: Any, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=[size if n == "N" else n for n in shape])


class World:
    """The tensors that a program finds by name, and the state that it leaves."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.parameters = {
            name: graphc.tensor(numbers(shape, 0, rng), requires_grad=True) for name, shape in PARAMETERS.items()
        }
        self.buffers = {name: graphc.tensor(numbers(shape, 0, rng)) for name, shape in BUFFERS.items()}
        graphc.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 3)).double()
        self.opt = graphc.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.log: list[float] = []

    def names(self) -> dict[str, Any]:
        return {**self.parameters, **self.buffers, "net": self.net, "opt": self.opt, "log": self.log}

    def state(self) -> list[Any]:
        parameters = [*self.parameters.values(), *self.net.parameters()]
        grads = [None if p.grad is None else p.grad.numpy().copy() for p in parameters]
        tensors = [*parameters, *self.buffers.values(), *self.net.buffers()]
        return [*(t.detach().numpy().copy() for t in tensors), *grads, list(self.log)]


def call(function: Any, world: World, number: int, with_history: bool) -> Any:
    """One call, with everything that can be seen of it: or the kind of error that it ends in."""
    rng = np.random.default_rng(number)
    arguments = [graphc.tensor(numbers(shape, SIZES[number], rng)) for shape in INPUTS.values()]
    leaves = [a.clone().requires_grad_() for a in arguments]
    inside = [leaf * 1.0 for leaf in leaves] if with_history else arguments
    graphc.manual_seed(number)
    try:
        result = function(*inside)
        found, _ = flatten(result)
        total: Any = 0
        for leaf in (*found, *inside):
            if isinstance(leaf, graphc.Tensor) and leaf.requires_grad:
                total = total + (leaf * leaf).sum()
        if isinstance(total, graphc.Tensor):
            total.backward()
    except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
        return error
    values = [leaf.detach().numpy().copy() if isinstance(leaf, graphc.Tensor) else leaf for leaf in found]
    grads = [None if leaf.grad is None else leaf.grad.numpy().copy() for leaf in leaves]
    changed = [(a.detach().numpy().copy(), a._version, a.is_leaf, a.requires_grad) for a in inside]
    state = world.state()
    with graphc.no_grad():
        for leaf in found:  # what shares memory with a result?
            if isinstance(leaf, graphc.Tensor) and not leaf.requires_grad:
                leaf.add_(0.125)
    shared = [x.detach().numpy().copy() for x in (*inside, *found) if isinstance(x, graphc.Tensor)]
    return values, changed, grads, state, graphc.rand(1).item(), shared


def same(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)):
        return isinstance(right, (list, tuple)) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and left.dtype == right.dtype and np.allclose(left, right, 1e-7, 1e-9, equal_nan=True)
    if isinstance(left, float):
        return type(right) is float and bool(np.isclose(left, right, 1e-7, 1e-9, equal_nan=True))
    return type(left) is type(right) and left == right


def check(program: Program, dynamic: bool | None) -> None:
    eager_world, compiled_world = World(), World()
    eager = program.load(eager_world.names())
    compiled = graphc.compile(program.load(compiled_world.names()), dynamic=dynamic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(len(SIZES)):
            with_history = number in (1, 3)
            expected = call(eager, eager_world, number, with_history)
            if isinstance(expected, Exception) and not isinstance(expected, ValueError):
                return  # what a broken backward leaves behind need not be the same
            found = call(compiled, compiled_world, number, with_history)
            if isinstance(expected, Exception):
                assert type(found) is type(expected), f"call {number} of {program!r} returns {found}, instead of {expected!r}"
                return
            if isinstance(found, Exception):
                raise AssertionError(f"call {number} of {program!r} fails when compiled") from found
            for what, left, right in zip(SEEN, expected, found, strict=True):
                assert same(left, right), f"call {number} of {program!r}\n{what}: {left}\ncompiled: {right}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_compiled_programs_do_what_they_do_eagerly(shard: int) -> None:
    @seed(SEED * SHARDS + shard)
    @settings(max_examples=EXAMPLES // SHARDS, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              report_multiple_bugs=False,
              phases=(Phase.generate, Phase.shrink))
    @given(programs())
    def run(program: Program) -> None:
        check(program, (None, None, True, False)[shard % 4])

    run()
