"""Results of compiled functions have the identities and share the memory that they would eagerly."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scenes import Scene, Scenes, agree, full

import graphc
from graphc.errors import TraceError

scene = Scenes()
Pair = namedtuple("Pair", "a b")


@dataclass(frozen=True)
class Frozen:
    a: Any
    n: int = 0


class Plain:
    def __init__(self, t: Any) -> None:
        self.t = t


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "argument": lambda x: x,
    "argument_twice": lambda x: (x, x),
    "view": lambda x: x[0:1],
    "view_of_a_view": lambda x: x[1:].view(1, 1)[0],
    "views_of_one_argument": lambda x: (x[0], x.t(), x.view(2, 1)),
    "chunks": lambda x: x.chunk(2),
    "detached": lambda x: x.detach(),
    "detached_twice": lambda x: x.detach().view(2, 1).detach(),
    "argument_changed_in_place": lambda x: (x.mul_(2), x.view(2, 1), x[1:]),
    "broadcast": lambda x: x.expand(3, 2),
    "transposed": lambda x: x.view(2, 1).t(),
    "diagonal": lambda x: (x * graphc.ones(2, 2)).diagonal(),
    "list": lambda x: [x[0:1], {"x": x, "y": x * 2}],
    "object": lambda x: Plain(x * 2),
    "array": lambda x: np.ones(2),
    "dataclass": lambda x: Frozen(x * 2, 3),
    "named_tuple": lambda x: Pair(x, x + 1),
    "ordered_dict": lambda x: OrderedDict(z=x + 1, a=x),
    "default_dict": lambda x: defaultdict(list, a=x * 2),
    "shape": lambda x: (x.shape, x.dtype, x.device),
    "generator": lambda x: [y * 2 for y in map(lambda v: v + 1, (x, x))],  # noqa: C417
    "nothing": lambda x: None,
}


@scene
def result_twice() -> Scene:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y

    return Scene(f)


@scene
def result_and_views_of_it() -> Scene:
    def f(x: Any) -> Any:
        y = x * 2
        return y[0], y, y.view(2, 1), y.detach(), y[0]

    return Scene(f)


@scene
def view_before_a_change() -> Scene:
    def f(x: Any) -> Any:
        v = x[1:]
        x.add_(1)
        v.mul_(3)
        return v

    return Scene(f)


@scene
def view_of_a_captured_tensor() -> Scene:
    w = graphc.arange(4.0)
    return Scene(lambda x: (w[1:3], w, x + 1), state=lambda: w)


@scene
def captured_view() -> Scene:
    w = graphc.arange(4.0)
    v = w[1:3]
    return Scene(lambda x: (v, x + v), state=lambda: (v.add_(1), w)[1])


@scene
def views_with_gradients() -> Scene:
    def arguments(k: int) -> tuple[Any, ...]:
        x = full(k + 1.0).requires_grad_(True)
        return (x * 1 if k % 2 else x,)

    def f(x: Any) -> Any:
        y = x * x
        return x[0:1], y, y[1:], x.view(2, 1).detach()

    return Scene(f, arguments)


@scene
def out_of_a_captured_tensor() -> Scene:
    out = graphc.zeros(2)
    return Scene(lambda x: graphc.add(x, 1, out=out), state=lambda: out)


@scene
def out_of_an_argument() -> Scene:
    return Scene(lambda x, out: graphc.add(x, 1, out=out), lambda k: (full(k), graphc.zeros(2)))


@scene
def objects_that_hold_tensors() -> Scene:
    return Scene(lambda holder: holder.t * 2, lambda k: (Plain(full(k)),))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_of_functions(name: str) -> None:
    agree(lambda: Scene(FUNCTIONS[name]))
    agree(lambda: Scene(FUNCTIONS[name], lambda k: (graphc.arange(4.0)[::2] + 0 if k % 2 else graphc.arange(6.0)[1:3],)))


@pytest.mark.parametrize("name", scene)
def test_results(name: str) -> None:
    agree(scene[name])


def test_gradients_flow_through_views() -> None:
    f = graphc.compile(lambda x: (x[0:1], x * 2))
    for _ in range(4):
        x = full(3.0).requires_grad_(True)
        view, y = f(x)
        (view.sum() * 5 + y.sum()).backward()
        assert x.grad is not None and x.grad.tolist() == [7.0, 2.0]


def test_changes_of_views_are_changes_of_the_argument() -> None:
    f = graphc.compile(lambda x: x[1:])
    x = full(1)
    for k in range(5):
        f(x).add_(1)
        assert x.tolist() == [1.0, k + 2.0]


def test_views_for_changing_sizes() -> None:
    f = graphc.compile(lambda x: (x[1:], x.view(-1, 1)))
    for n in range(2, 8):
        x = graphc.arange(float(n))
        tail, column = f(x)
        tail.fill_(9)
        assert x.tolist() == [0.0] + [9.0] * (n - 1) and column.flatten().tolist() == x.tolist()


def test_results_that_are_views_of_something_hidden_share_its_memory() -> None:
    @graphc.compile
    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        total = x.sum(0, keepdim=True)
        return total, total.unsqueeze(0)

    for _ in range(4):
        total, same = f(graphc.ones(2, 3))
        total.add_(1)
        assert same.tolist() == [[[3.0, 3.0, 3.0]]]
    x = graphc.ones(2, 3, requires_grad=True)
    total, same = f(x)
    (total.sum() + 2 * same.sum()).backward()
    assert x.grad is not None and x.grad.tolist() == [[3.0] * 3] * 2


def view_of_numbers(x: Any) -> Any:
    t = graphc.tensor([0.5, 1.0])
    return t.unsqueeze(0)


def two_views_of_numbers(x: Any) -> Any:
    t = graphc.tensor([0.5, 1.0])
    return t[:1], t.unsqueeze(0), x * 2


def numbers_and_their_view(x: Any) -> Any:
    t = graphc.tensor([0.5, 1.0])
    return t, t.view(2, 1)


def changed_numbers(x: Any) -> Any:
    t = graphc.tensor([0.5, 1.0])
    t.mul_(x)
    return t[0], t[1:]


def leaf_of_numbers(x: Any) -> Any:
    t = graphc.tensor([0.5, 1.0], requires_grad=True)
    return t * x, t


@pytest.mark.parametrize("backend", ["llvm", "reference"])
@pytest.mark.parametrize("function", [view_of_numbers, two_views_of_numbers, numbers_and_their_view, changed_numbers,
                                      leaf_of_numbers])  # fmt: skip
def test_tensors_of_numbers_in_the_code_are_new_ones_in_each_call(function: Any, backend: str) -> None:
    def calls(f: Any) -> list[Any]:
        found = []
        for _ in range(3):
            results = f(graphc.ones(2))
            results = results if isinstance(results, tuple) else (results,)
            if results[0].requires_grad:
                results[0].sum().backward()
                found.append(results[1].grad.tolist())
            with graphc.no_grad():
                results[-1].add_(1)
                results[0].add_(1)
            found.append([t.tolist() for t in results])
        return found

    assert calls(graphc.compile(function, backend=backend)) == calls(function)


@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_an_argument_is_copied_before_it_is_changed(backend: str) -> None:
    @graphc.compile(backend=backend)
    def f(x: Any, y: Any) -> None:
        y.copy_(x)
        x.mul_(0.5)

    for _ in range(3):
        x, y = graphc.full((3,), 4.0), graphc.zeros(3)
        f(x, y)
        assert x.tolist() == [2.0] * 3 and y.tolist() == [4.0] * 3


def test_memory_that_is_read_only_is_refused_as_eagerly() -> None:
    def f(x: Any) -> None:
        x.add_(1)

    for function in (f, graphc.compile(f)):
        with pytest.raises(RuntimeError, match="more than one element"):
            function(graphc.zeros(1).expand(3))


def test_attributes_of_results_and_what_is_kept_in_attributes_are_there_after_each_call() -> None:
    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        y = x * 2
        y.half = x / 2
        y.parts = {"next": [x + 1]}
        y.source = x
        zeros = graphc.zeros(2)
        zeros.tag = "made"
        x.twice = y
        return y, zeros

    compiled = graphc.compile(f)
    for i in range(4):
        x = graphc.ones(2) * i
        y, zeros = compiled(x)
        assert y.tolist() == [2 * i, 2 * i] and y.half.tolist() == [i / 2, i / 2]
        assert y.parts["next"][0].tolist() == [i + 1, i + 1] and y.source is x
        assert zeros.tag == "made" and x.twice is y
    with pytest.raises(TraceError, match="gives attributes to"):
        graphc.compile(f, fullgraph=True)(graphc.ones(2))


def test_attributes_that_were_there_before_have_nothing_done_again() -> None:
    weight = graphc.ones(2, requires_grad=True)
    weight.note = "kept"
    compiled = graphc.compile(lambda x: (weight, weight * x, x), fullgraph=True)
    for i in range(3):
        x = graphc.ones(2) * i
        x.mark = i
        same, _, given = compiled(x)
        assert same is weight and same.note == "kept" and given.mark == i


# What a call computes, in the hands of others than its caller


class Refused(Exception):
    def __init__(self, tensor: Any, nested: Any) -> None:
        super().__init__("refused")
        self.tensor, self.nested = tensor, nested


def _raise_arguments(x: Any) -> Any:
    y = x * 2
    if not (y > 0).all():
        raise ValueError("bad", y, x, y.sum().item())
    return y


def _raise_attributes(x: Any) -> Any:
    y = x * 2
    if not (y > 0).all():
        raise Refused(y, {"k": [y.sum()]})
    return y


def _raise_from(x: Any) -> Any:
    try:
        return _raise_attributes(x)
    except Refused as error:
        raise RuntimeError(error.tensor + 1) from error


def _parts(error: BaseException | None) -> list[Any]:
    if error is None:
        return []
    parts = [*error.args, *vars(error).values(), *_parts(error.__cause__)]
    return [part.tolist() if isinstance(part, graphc.Tensor) else part for part in parts]


@pytest.mark.parametrize("function, number", [
    (_raise_arguments, -1.0), (_raise_attributes, -1.0), (_raise_from, -1.0), (lambda x: {}[x.sum()], 2.0),
    (lambda x: {}[x.item()], 2.0),
])  # fmt: skip
def test_exceptions_carry_what_they_do_eagerly(function: Callable[[Any], Any], number: float) -> None:
    def seen(run: Callable[[Any], Any], x: float) -> Any:
        try:
            return run(graphc.tensor(x)).item()
        except (KeyError, RuntimeError, ValueError, Refused) as error:
            return type(error), str(error), str(_parts(error)), [type(x) for x in error.args]

    compiled = graphc.compile(function)
    for x in (number, number, 1.0, number * 2):
        assert seen(compiled, x) == seen(function, x)


def test_a_tensor_that_an_exception_carries_has_its_history() -> None:
    w = graphc.ones(2, requires_grad=True)

    def f(x: Any) -> Any:
        y = (x * w).sum()
        if y < 0:
            raise Refused(y, None)
        return y

    compiled = graphc.compile(f)
    for k in (1.0, 2.0):
        with pytest.raises(Refused) as caught:
            compiled(graphc.tensor(-k))
        w.grad = None
        caught.value.tensor.backward()
        assert w.grad is not None and w.grad.tolist() == [-k, -k]


def test_distributions_are_returned() -> None:
    def f(x: Any) -> Any:
        normal = graphc.distributions.Normal(x, x + 1)
        return {"a": [graphc.distributions.Independent(normal, 1)], "b": graphc.distributions.Categorical(logits=x)}

    compiled = graphc.compile(f)
    for k in (1.0, 1.0, 2.0):
        x = graphc.tensor([k, 3.0])
        got, want = compiled(x), f(x)
        assert graphc.equal(got["a"][0].log_prob(x), want["a"][0].log_prob(x))
        assert graphc.allclose(got["b"].probs, want["b"].probs)


def _tally(counts: Any, x: Any) -> Any:
    counts[x.item()] = x * 2
    return x


@pytest.mark.parametrize("function", [
    lambda x: {x.item(): 1},
    lambda x: {(x.item(), 1): x * 2, x.item() * 2.5: [x.item()]},
    lambda x: (lambda n: {n: n, "s": x + n})(x.item()),
    lambda x: ({x.item()}, {1: {x.item(): 2}}),
    lambda x: _tally(OrderedDict(a=1), x),
])
def test_numbers_are_keys(function: Callable[[Any], Any]) -> None:
    compiled = graphc.compile(function)
    for k in (1, 1, 2, 3):
        got = compiled(graphc.tensor(k))
        assert str(got) == str(function(graphc.tensor(k)))
        assert "SymbolicNumber" not in str(list(map(type, got)) if isinstance(got, dict) else got)


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_numbers_are_keys_of_what_stays(kind: Any) -> None:
    counts, others = kind(a=0), set()

    def f(x: Any) -> Any:
        others.add(x.item())
        return _tally(counts, x)

    compiled = graphc.compile(f)
    for k in (1, 1, 2, 3):
        compiled(graphc.tensor(k))
    assert [*counts] == ["a", 1, 2, 3] and [type(key) for key in counts] == [str, int, int, int]
    assert others == {1, 2, 3} and {type(x) for x in others} == {int}
    assert [counts[k].item() for k in (1, 2, 3)] == [2, 4, 6]
