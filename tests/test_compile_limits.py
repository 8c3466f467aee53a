"""What a compiled function tells of its graphs, how many it may have, and what it keeps alive."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.config import override
from graphc.errors import ArgumentTypeError, TraceError

SCALE = 2.0


def test_explain_lists_guards_and_reasons_in_the_users_names() -> None:
    options, shift = SimpleNamespace(scale=3.0), 1.5

    def f(x: Any, n: int = 2) -> Any:
        return x * options.scale * SCALE + shift * n

    compiled = graphc.compile(f)
    compiled(graphc.ones(2))
    options.scale = 4.0
    compiled(graphc.ones(2))
    compiled(graphc.ones(2), n=5)
    text = compiled.explain()
    assert f"f (test_compile_limits.py:{f.__code__.co_firstlineno}): 3 graphs" in text
    for line in (
        "where the closure variable 'shift' is 1.5", "where the global 'SCALE' is 2.0", "where options.scale is 3.0",
        "traced because of options.scale was 3.0, is 4.0, at test_compile_limits.py", "traced because of other arguments",
        "f(float32[2], n=5)", "where the default dtype is graphc.float32",
    ):  # fmt: skip
        assert line in text


def test_explain_of_a_module_and_of_a_callable() -> None:
    net = graphc.compile(nn.Linear(2, 2))
    net(graphc.ones(1, 2))
    assert "traced because of a first call" in net.explain() and "the module.training is True" in net.explain()
    assert "1 graph" in graphc_of(abs).explain()


def graphc_of(function: Callable[..., Any]) -> Any:
    compiled = graphc.compile(function)
    compiled(graphc.ones(2))
    return compiled


def test_too_many_graphs_are_told_once_and_the_rest_runs_eagerly() -> None:
    f = graphc.compile(lambda x, n: x * n, max_graphs=3)
    for n in range(3):
        assert f(graphc.ones(1), n).item() == n
    with pytest.warns(UserWarning, match=r"lambda \(test_compile_limits\.py:\d+\) has 3 graphs.*other arguments") as caught:
        for n in range(3, 9):
            assert f(graphc.ones(1), n).item() == n
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [f(graphc.ones(1), n).item() for n in range(9)] == list(range(9))
    assert repr(f) == "<compiled lambda: 3 graphs>"


def test_state_that_has_ever_other_values_does_not_pile_up() -> None:
    options = SimpleNamespace(scale=0.0)
    f = graphc.compile(lambda x: x * options.scale)
    for k in range(40):
        options.scale = float(k)
        assert f(graphc.ones(1)).item() == k
    assert sum(map(len, f._graphs.values())) <= 16


def test_never_again() -> None:
    options = SimpleNamespace(scale=2.0)
    f = graphc.compile(lambda x: x * options.scale, retrace=False)
    assert [f(graphc.ones(2)).tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
    options.scale = 3.0
    with pytest.raises(TraceError, match=r"options.scale was 2.0, is 3.0(.|\n)*test_compile_limits.py"):
        f(graphc.ones(2))
    options.scale = 2.0
    with pytest.raises(TraceError, match="other arguments"):
        f(graphc.ones(2, 2))
    assert f(graphc.ones(2)).tolist() == [2.0, 2.0]


def test_never_again_for_a_whole_program() -> None:
    f = graphc.compile(lambda x, n: x * n)
    f(graphc.ones(1), 1)
    with override(retrace=False):
        assert f(graphc.ones(1), 1).item() == 1
        with pytest.raises(TraceError, match="other arguments"):
            f(graphc.ones(1), 2)
    assert f(graphc.ones(1), 2).item() == 2


def test_a_training_step_is_not_traced_again() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = graphc.optim.Adam(model.parameters())

    @graphc.compile(retrace=False, fullgraph=True)
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(graphc.ones(4, 2)).item() for _ in range(6)]
    assert len(losses) == 6


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, None])
def test_limits_that_are_none(wrong: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="max_graphs"):
        graphc.compile(lambda x: x, max_graphs=wrong)


# What is kept


def called(function: Callable[..., Any], wrap: Callable[[Any], Any] = lambda x: x) -> tuple[Any, list[weakref.ref[Any]]]:
    """A compiled function, and the arguments of its calls."""
    compiled, arguments = graphc.compile(function), []
    for _ in range(4):
        x = graphc.ones(2)
        arguments.append(weakref.ref(x))
        compiled(wrap(x))
    return compiled, arguments


def branches(x: Any) -> Any:
    return x * 2 if x.sum() > 0 else x


COUNTS = {"calls": 0}


def counts(x: Any) -> Any:
    COUNTS["calls"] += 1
    return x * COUNTS["calls"]


@pytest.mark.parametrize("function", [lambda x: x * 2, branches, counts, lambda x: x[0]],
                         ids=["pure", "branches", "counts", "view"])  # fmt: skip
def test_arguments_are_let_go(function: Callable[..., Any]) -> None:
    compiled, arguments = called(function)
    gc.collect()
    assert compiled.explain() and [x() for x in arguments] == [None] * 4


def test_arguments_in_containers_are_let_go() -> None:
    compiled, arguments = called(lambda items: items[0] * 2, lambda x: [x])
    gc.collect()
    assert compiled.explain() and [x() for x in arguments] == [None] * 4


def test_models_go_with_their_compiled_forms() -> None:
    net = nn.Linear(2, 2)
    compiled = graphc.compile(net)
    for _ in range(4):
        compiled(graphc.ones(1, 2))
    kept = [weakref.ref(net), weakref.ref(net.weight), weakref.ref(compiled)]
    del net, compiled
    gc.collect()
    assert [x() for x in kept] == [None] * 3


class Scaled:
    def __init__(self, scale: float) -> None:
        self.scale = graphc.tensor(scale)

    @graphc.compile
    def apply(self, x: Any) -> Any:
        return x * self.scale


def test_instances_go_with_the_graphs_of_their_methods() -> None:
    kept = []
    for k in range(3):
        scaled = Scaled(k)
        kept += [weakref.ref(scaled), weakref.ref(scaled.scale)]
        for _ in range(4):
            assert scaled.apply(graphc.ones(1)).item() == k
        assert repr(scaled.apply) == "<compiled apply: 1 graph>"
        del scaled
    gc.collect()
    assert [x() for x in kept] == [None] * 6


def test_copies_of_instances_have_graphs_of_their_own() -> None:
    scaled = Scaled(2.0)
    assert scaled.apply(graphc.ones(1)).item() == 2
    for other in (copy.deepcopy(scaled), pickle.loads(pickle.dumps(scaled))):
        other.scale = graphc.tensor(5.0)
        assert [other.apply(graphc.ones(1)).item() for _ in range(3)] == [5.0] * 3
        assert scaled.apply(graphc.ones(1)).item() == 2
    assert Scaled.apply(scaled, graphc.ones(1)).item() == 2


@graphc.compile
def doubled(x: Any) -> Any:
    return x * 2


def test_compiled_functions_are_pickled_by_their_names() -> None:
    assert pickle.loads(pickle.dumps(doubled)) is doubled


def test_compiled_modules_are_copied_with_their_options() -> None:
    net = graphc.compile(graphc.nn.Linear(2, 3), numerics="fast")
    x = graphc.ones(1, 2)
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other) is type(net) and other._compiled.options == net._compiled.options
        assert other(x).tolist() == expected.tolist() and other.weight is not net.weight
        with graphc.no_grad():
            other.weight.zero_()
        assert net(x).tolist() == expected.tolist()
