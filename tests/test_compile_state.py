"""graphc.compile: arguments that are nearly alike, results of their own at each call, and state beside arguments."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentTypeError, TraceError
from graphc.frontend.pytree import flatten

CALLS = 6  # enough for a native entry


@pytest.fixture
def default_dtype() -> Iterator[None]:
    yield
    graphc.set_default_dtype(graphc.float32)


class Scale:
    """Equal by name, whatever the factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scale)

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("use", "first", "second"),
    [
        (lambda s: s, np.float64(0.0), np.float64(-0.0)),
        (lambda s: np.copysign(1.0, s.real), complex(0.0, 0.0), complex(-0.0, 0.0)),
        (lambda s: 2.0 if type(next(iter(s))) is bool else 3.0, frozenset([1]), frozenset([True])),
        (lambda s: s.factor, Scale(2.0), Scale(5.0)),
        (lambda s: s.stop, slice(1), slice(2)),
        (lambda s: 2.0 if type(s) is bool else 3.0, 1, True),
    ],
    ids=["numpy-zero", "complex-zero", "frozenset", "equal-objects", "slice", "bool"],
)
def test_arguments_that_are_equal_and_not_the_same(use: Any, first: Any, second: Any) -> None:
    def f(x: Any, s: Any) -> Any:
        return x * use(s)

    compiled, x = graphc.compile(f), graphc.tensor([1.0, 2.0])
    for _ in range(CALLS):
        assert compiled(x, first).numpy().tobytes() == f(x, first).numpy().tobytes()
    assert compiled(x, second).numpy().tobytes() == f(x, second).numpy().tobytes()


def test_nan_from_numpy_is_traced_once() -> None:
    f = graphc.compile(lambda x, s: x * s)
    for _ in range(CALLS):
        assert np.isnan(f(graphc.ones(1), np.float64("nan")).item())
    assert repr(f) == "<compiled lambda: 1 graph>"


def test_a_parameter_is_not_a_plain_tensor() -> None:
    f = graphc.compile(lambda x: isinstance(x, nn.Parameter))
    assert f(nn.Parameter(graphc.ones(2)))
    assert not f(graphc.ones(2, requires_grad=True))


def test_arrays_and_sets_are_refused_with_a_way_out() -> None:
    f = graphc.compile(lambda x: x)
    with pytest.raises(ArgumentTypeError, match="from_numpy"):
        f(np.ones(2))
    with pytest.raises(ArgumentTypeError, match="frozenset"):
        f({1})


@pytest.mark.usefixtures("default_dtype")
def test_the_default_dtype() -> None:
    f = graphc.compile(lambda: graphc.zeros(2))
    for _ in range(CALLS):
        assert f().dtype == graphc.float32
    graphc.set_default_dtype(graphc.float64)
    assert f().dtype == graphc.float64


def test_a_constant_result_is_the_callers_own() -> None:
    f = graphc.compile(lambda x: (x * 2, graphc.tensor([1.0, 2.0])))
    for _ in range(CALLS):
        result = f(graphc.ones(1))[1]
        assert result.tolist() == [1.0, 2.0]
        result.add_(9)


def test_a_gradient_that_is_returned_untouched() -> None:
    w = graphc.ones(2, requires_grad=True)
    f = graphc.compile(lambda: w.grad)
    assert f() is None
    for k in range(CALLS):
        w.grad = graphc.full((2,), float(k))
        assert f() is w.grad


def test_dicts_of_all_kinds_go_in_and_out() -> None:
    f = graphc.compile(lambda d: (d, {k: v * 2 for k, v in d.items()}))
    for made in (defaultdict(list, a=graphc.ones(1)), Counter({"a": graphc.ones(1)}), OrderedDict(a=graphc.ones(1))):
        same, double = f(made)
        assert type(same) is type(made)
        assert same["a"] is made["a"]
        assert double["a"].item() == 2
    assert f(defaultdict(list, a=graphc.ones(1)))[0]["missing"] == []


def test_what_runs_only_once_is_refused() -> None:
    def numbers(x: Any) -> Any:
        yield x

    async def later(x: Any) -> Any:
        return x

    x = graphc.ones(1)
    with pytest.raises(TraceError, match="returns a generator"):
        graphc.compile(numbers)(x)
    with pytest.raises(TraceError, match="async"):
        graphc.compile(later)(x)
    with pytest.raises(ArgumentTypeError, match="runs only once"):
        graphc.compile(lambda x, numbers: x * next(numbers))(x, iter([2.0]))


def test_a_changed_container_among_the_arguments_is_the_callers() -> None:
    def append(items: list[Any], x: Any) -> Any:
        items.append(x * len(items))
        return items

    compiled = graphc.compile(append)
    for _ in range(CALLS):
        items: list[Any] = [0]
        for k in range(1, 4):
            assert compiled(items, graphc.ones(1)) is items
            assert len(items) == k + 1 and items[-1].item() == k


def test_copies_of_compiled_functions_go_with_their_objects() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(graphc.ones(1))
            self.run = graphc.compile(self._run)

        def _run(self, x: Any) -> Any:
            return x * self.weight

    net = Net()
    net.run(graphc.ones(1))
    other = copy.deepcopy(net)
    with graphc.no_grad():
        other.weight.fill_(5)
    assert other.run(graphc.ones(1)).item() == 5
    assert net.run(graphc.ones(1)).item() == 1


@pytest.mark.parametrize("calls", [1, CALLS])
def test_hooks_of_parameters_that_come_and_go(calls: int) -> None:
    layer = nn.Linear(2, 1)

    def step() -> None:
        layer.zero_grad()
        layer(graphc.ones(1, 2)).sum().backward()

    compiled = graphc.compile(step)
    for _ in range(calls):
        compiled()
    handle = layer.weight.register_hook(lambda grad: grad * 3)
    for _ in range(calls):
        compiled()
        assert layer.weight.grad.tolist() == [[3.0, 3.0]]
    handle.remove()
    compiled()
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]


def test_gradients_of_what_an_input_was_before_it_changed() -> None:
    w = graphc.tensor([2.0, 3.0])

    def f(x):
        y = (x * w.clone()).exp() * w.clone()
        w.add_(1)
        return y

    compiled = graphc.compile(f)
    for _ in range(3):
        before = w.clone()
        x = graphc.tensor([0.5, -0.5], requires_grad=True)
        compiled(x).sum().backward()
        np.testing.assert_allclose(x.grad, (before * before * (x * before).exp()).detach(), rtol=1e-5)
        np.testing.assert_allclose(w, before + 1)


class Tagged(dict[str, Any]):
    """A dict whose constructor wants more than items."""

    def __init__(self, tag: int, **items: Any) -> None:
        super().__init__(**items)
        self.tag = tag


class Row(list[Any]):
    tag = 0


@dataclass
class Point:
    x: Any
    y: Any = None


def test_containers_of_own_classes_keep_their_attributes() -> None:
    def f(table: Tagged, row: Row, point: Point) -> Any:
        made = Row([table["x"] * table.tag, row[0] + row.tag])
        made.tag = 9
        return made, Tagged(table.tag + 1, y=point.x * point.weight)  # type: ignore[attr-defined]

    compiled, x = graphc.compile(f), graphc.tensor([1.0, 2.0])
    for tag in [*range(3)] * 3:
        row, point = Row([x]), Point(x)
        row.tag, point.weight = tag, tag + 2  # type: ignore[attr-defined]
        for found, expected in zip(compiled(Tagged(tag, x=x), row, point), f(Tagged(tag, x=x), row, point)):
            assert type(found) is type(expected) and found.tag == expected.tag
            assert [t.tolist() for t in flatten(found)[0][:-1]] == [t.tolist() for t in flatten(expected)[0][:-1]]


def test_keys_of_dicts_are_not_taken_for_each_other() -> None:
    f = graphc.compile(lambda d, x: x * (2 if type(next(iter(d))) is bool else 3))
    for key, expected in ((1, 3.0), (True, 2.0), (1.0, 3.0), (1, 3.0)):
        assert f({key: 0}, graphc.ones(1)).item() == expected


def test_what_no_result_depends_on_gets_no_gradient() -> None:
    w, b = graphc.ones(2, requires_grad=True), graphc.ones(2, requires_grad=True)

    @graphc.compile
    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        graphc.tanh(x * b)
        return x * w, x * w * b

    x = graphc.tensor([1.0, 2.0])
    f(x)[0].sum().backward()
    assert w.grad is not None and w.grad.tolist() == [1.0, 2.0]
    assert b.grad is None
    assert graphc.autograd.grad(f(x)[0].sum(), [w, b], create_graph=True, allow_unused=True)[1] is None
    f(x)[1].sum().backward()
    assert b.grad is not None and b.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("change", [
    lambda x: x.flip(-1), lambda x: x[:1].flip(0), lambda x: x.t().contiguous(), lambda x: x.t().reshape(-1),
    lambda x: x.reshape(-1), lambda x: x[:, 1:].reshape(-1), lambda x: x[:, 1:].reshape(2, 1, 2), lambda x: x.contiguous(),
    lambda x: x.repeat(1, 1), lambda x: x[:, None].flatten(), lambda x: x.t().flatten(0), lambda x: x[..., 0].reshape(2, 1),
])  # fmt: skip
def test_what_shares_memory_eagerly_does_so_compiled(change: Callable[[graphc.Tensor], graphc.Tensor]) -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        part = change(x)
        part.mul_(2)
        return part * 1

    x, y = graphc.arange(6.0).reshape(2, 3), graphc.arange(6.0).reshape(2, 3)
    assert f(x).tolist() == graphc.compile(f)(y).tolist()
    assert x.tolist() == y.tolist()


@pytest.mark.parametrize("make", [lambda: graphc.tensor([0.0]), lambda: graphc.as_tensor([0.0]), lambda: graphc.zeros(1)])
def test_tensors_that_the_function_makes_are_new_in_each_call(make: Callable[[], graphc.Tensor]) -> None:
    kept: list[graphc.Tensor] = []

    def f(x: graphc.Tensor, keep: bool) -> tuple[graphc.Tensor, graphc.Tensor]:
        total = make()
        total.add_(x)
        if keep:
            kept.append(total)
        return total * 1, total

    compiled = graphc.compile(f)
    for k in range(4):
        for keep in (False, True):
            once, total = compiled(graphc.full((1,), float(k)), keep)
            assert once.tolist() == total.tolist() == [k]
    assert [t.tolist() for t in kept] == [[k] for k in range(4)]


@pytest.mark.parametrize("from_outside", [False, True])
def test_leaves_that_each_call_makes_on_memory_that_it_is_given(from_outside: bool) -> None:
    """As attacks on a model make them: whether they had a gradient is no question of the next call."""
    weight = nn.Parameter(graphc.full((3,), 2.0))

    @graphc.compile
    def gradient(x: graphc.Tensor) -> graphc.Tensor:
        weight.grad = None
        y = (weight if from_outside else x).detach().requires_grad_()
        (y * y * weight).sum().backward()
        assert y.grad is not None
        return y.grad

    for k in range(4):
        x = graphc.full((3,), float(k))
        assert gradient(x).tolist() == [4.0 * (2 if from_outside else k)] * 3
        assert weight.grad is not None and weight.grad.tolist() == [float(2 if from_outside else k) ** 2] * 3 and x.grad is None
    assert gradient.explain().count("traced because of") == 1, gradient.explain()


def test_such_a_leaf_is_returned_with_its_gradient() -> None:
    def leaf(x: graphc.Tensor) -> graphc.Tensor:
        y = x.detach().requires_grad_()
        (y * y).sum().backward()
        return y

    compiled = graphc.compile(leaf)
    for k in range(3):
        x = graphc.full((3,), float(k))
        y = compiled(x)
        assert y.requires_grad and y.is_leaf and y.grad is not None and y.grad.tolist() == [2.0 * k] * 3
        assert y.data_ptr() == x.data_ptr()


def test_leaves_that_a_call_computes() -> None:
    """They are returned as leaves, with the gradients that they have been given, and the object is the one that is kept. Where
    something else that is returned has to do with them, Python runs the function."""
    weight, kept = nn.Parameter(graphc.full((3,), 2.0)), []

    def made(x: graphc.Tensor) -> graphc.Tensor:
        return (x * weight).detach().requires_grad_()

    def trained(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor | None]:
        y = made(x)
        (y * y).sum().backward()
        return y, y.grad

    def stored(x: graphc.Tensor) -> graphc.Tensor:
        y = made(x)
        (y * y).sum().backward()
        kept[:] = [y]
        return y

    def view(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        y = x.detach().requires_grad_()
        (y * y).sum().backward()
        return y, x + 1

    def used(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        y = made(x)
        return y, y * 3

    for function, traces in ((made, 1), (trained, 0), (stored, 2), (view, 1), (used, 0)):
        compiled = graphc.compile(function)
        for k in range(CALLS):
            x = graphc.full((3,), float(k))
            results, wanted = (flatten(f(x))[0] for f in (compiled, function))
            if function is stored:
                assert kept[0] is wanted[0]
                results = flatten(compiled(x))[0]
                assert results[0] is kept[0]
            for a, b in zip(results, wanted, strict=True):
                assert (a.tolist(), a.is_leaf, a.requires_grad) == (b.tolist(), b.is_leaf, b.requires_grad)
                if b.is_leaf and b.requires_grad:
                    assert (a.grad is None) == (b.grad is None) and (a.grad is None or a.grad.tolist() == b.grad.tolist())
        assert compiled.explain().count("traced because of") == traces, compiled.explain()


@pytest.mark.parametrize("renew", [
    lambda w, x: (w - x).detach().requires_grad_(), lambda w, x: nn.Parameter(w.detach() - x),
    lambda w, x: graphc.zeros(2, requires_grad=True), lambda w, x: nn.Parameter(x), lambda w, x: w.detach().requires_grad_(),
])  # fmt: skip
@pytest.mark.parametrize("is_used", [False, True])
def test_leaves_that_a_call_makes_and_keeps(renew: Callable[[Any, Any], Any], is_used: bool) -> None:
    """They are leaves whatever history the result has, and gradients of the result flow to those that it is computed from."""

    def results(compiled: bool) -> list[Any]:
        held = {"w": graphc.ones(2).requires_grad_()}

        def step(x: graphc.Tensor) -> graphc.Tensor:
            before = held["w"]
            held["w"] = renew(before, x)
            return ((held["w"] if is_used else before) * x).sum()

        run, found = graphc.compile(step) if compiled else step, []
        for k in range(CALLS):
            w, x = held["w"], graphc.full((2,), float(k))
            loss = run(x)
            loss.backward()
            now = held["w"]
            grads = [None if leaf.grad is None else leaf.grad.tolist() for leaf in (w, now)]
            found.append((loss.item(), now.is_leaf, now.requires_grad, now is w, now.tolist(), type(now), grads))
        return found

    assert results(True) == results(False)


def test_state_is_as_it_was_where_a_call_cannot_be_traced(capsys: pytest.CaptureFixture[str]) -> None:
    weight = graphc.ones(2).requires_grad_()
    held = {"w": weight}

    def step(x: graphc.Tensor) -> graphc.Tensor:
        print("once")
        held["w"] = (held["w"] - x).detach().requires_grad_()
        return (held["w"] * x).sum()

    compiled = graphc.compile(step)
    for _ in range(2):
        with pytest.raises(TraceError, match="a leaf that it makes"):
            compiled(graphc.ones(2))
        assert held["w"] is weight and weight.tolist() == [1.0, 1.0]


def test_gradients_of_leaves_that_are_found_in_ways_of_their_own() -> None:
    """They are views, made outside: what a call does to them is not lost."""
    for way in ("history", "method", "container"):
        def gradients(compiled: bool, way: str = way) -> list[list[float]]:
            base = graphc.full((2, 3), 2.0)
            leaf = base[0].detach().requires_grad_()
            get = {"leaf": leaf}.get
            held = np.empty(1, object)
            held[0] = leaf
            product = leaf * 3

            def f(x: graphc.Tensor) -> graphc.Tensor:
                found = product if way == "history" else get("leaf") if way == "method" else held[0]
                (found * x).sum().backward(retain_graph=True)
                return x * 2

            run, seen = graphc.compile(f) if compiled else f, []
            for k in range(3):
                run(graphc.full((3,), float(k)))
                assert leaf.grad is not None
                seen.append(leaf.grad.tolist())
            return seen

        assert gradients(True) == gradients(False), way


@pytest.mark.parametrize("is_trained", [False, True])
def test_gradients_flow_from_results_to_detached_leaves_on_memory_of_others(is_trained: bool) -> None:
    def gradients(compiled: bool) -> list[Any]:
        base = graphc.ones(2, requires_grad=is_trained)
        leaf = base.detach().requires_grad_()

        def f(x: graphc.Tensor) -> graphc.Tensor:
            with graphc.no_grad():
                leaf.mul_(2)
            return (leaf * leaf * x + base * x).sum() if is_trained else (leaf * leaf * x).sum()

        run, seen = graphc.compile(f) if compiled else f, []
        for _ in range(CALLS):
            run(graphc.ones(2)).backward()
            assert leaf.grad is not None
            seen.append([leaf.grad.tolist(), leaf.tolist(), base.tolist(), None if base.grad is None else base.grad.tolist()])
        return seen

    assert gradients(True) == gradients(False)


def test_methods_of_containers_change_these_at_each_call() -> None:
    seen: list[graphc.Tensor] = []
    table: dict[str, graphc.Tensor] = {}
    add, put = seen.append, table.__setitem__

    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x.detach().requires_grad_()
        (y * y).sum().backward()
        add(y)
        put("y", y)
        return x + 1

    for k in range(CALLS):
        f(graphc.full((3,), float(k)))
        assert len(seen) == k + 1 and seen[-1].tolist() == table["y"].tolist() == [float(k)] * 3
        assert table["y"].grad is not None and table["y"].grad.tolist() == [2.0 * k] * 3


def test_attributes_of_arguments_are_written_at_each_call() -> None:
    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x.detach().requires_grad_()
        (y * y).sum().backward()
        x.leaf = y  # type: ignore[attr-defined]
        return x + 1

    for k in range(CALLS):
        x = graphc.full((3,), float(k))
        f(x)
        assert x.leaf.grad.tolist() == [2.0 * k] * 3  # type: ignore[attr-defined]


class Counts:
    backwards = 0


class Counted(graphc.autograd.Function, Counts):
    @staticmethod
    def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> graphc.Tensor:
        Counts.backwards += 1
        return ct * ctx.saved_tensors[0].exp()


def test_what_hooks_and_backward_functions_do_is_done_when_the_backward_pass_is() -> None:
    seen: list[list[float]] = []
    layer = nn.Linear(2, 1)
    layer.weight.register_hook(lambda ct: seen.append(ct.clone().tolist()))
    inner = nn.Sequential(nn.Linear(2, 1))
    inner[0].register_full_backward_hook(lambda *_: seen.append([]))

    def hooked(x: graphc.Tensor) -> graphc.Tensor:
        y = x * 2
        y.register_hook(lambda ct: seen.append(ct.tolist()))
        return y.sum()

    cases: list[tuple[Any, Any]] = [
        (lambda x: layer(x).sum(), lambda n: [[n, 3.0 * n]]), (lambda x: inner(x).sum(), lambda n: []),
        (hooked, lambda n: [[1.0, 1.0]]),
    ]  # fmt: skip
    for f, expected in cases:
        compiled = graphc.compile(f)
        for n in range(1, 4):
            seen.clear()
            loss = compiled((graphc.tensor([[1.0, 3.0]]) * n).requires_grad_())
            assert seen == []
            loss.backward()
            assert seen == [expected(n)]

    Counts.backwards = 0
    compiled = graphc.compile(lambda x: Counted.apply(x).sum())
    for call in range(3):
        loss = compiled(graphc.ones(3, requires_grad=True))
        assert Counted.backwards == call
        loss.backward()
        assert Counted.backwards == call + 1
    assert "backwards" not in vars(Counted)


def test_what_no_graph_could_say_is_traced_ever_more_rarely_and_again_when_it_is_gone() -> None:
    layer = nn.Linear(2, 1)
    seen: list[Any] = []
    handle = layer.weight.register_hook(lambda ct: seen.append(ct.clone()))
    compiled = graphc.compile(lambda x: layer(x).sum())
    made, traces = compiled._made, []
    compiled._made = lambda *call: (traces.append(call), made(*call))[1]
    for _ in range(40):
        compiled(graphc.ones(1, 2))
    assert len(traces) == 7
    assert "run eagerly: the backward pass changes Python's state" in compiled.explain()
    handle.remove()
    for _ in range(40):
        compiled(graphc.ones(1, 2))
    assert len(traces) == 8 and "run eagerly" not in compiled.explain()
