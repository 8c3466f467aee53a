"""The recorded graph and those who watch it: edges, hooks in their order, saved tensors, versions, anomaly mode."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from leaves import leaf

import graphc
from graphc.autograd import grad, graph
from graphc.autograd.graph import GradientEdge, Node, get_gradient_edge, register_multi_grad_hook, saved_tensors_hooks

# Edges and nodes


def test_edges_stand_for_tensors() -> None:
    x = leaf(1, 2)
    y = x * 3
    edge = get_gradient_edge(y)
    assert isinstance(edge.node, Node)
    assert edge.node is y.grad_fn
    assert edge.output_nr == 0
    assert grad((y * y).sum(), edge)[0].tolist() == [6, 12]
    assert grad(edge, x, graphc.ones(2, dtype=graphc.float64), retain_graph=True)[0].tolist() == [3, 3]
    at_leaf = get_gradient_edge(x)
    assert at_leaf.node.variable is x
    assert grad((x * x).sum(), at_leaf)[0].tolist() == [2, 4]
    graphc.autograd.backward([(y * y).sum()], inputs=[GradientEdge(at_leaf.node, 0)])
    assert x.grad is not None
    assert x.grad.tolist() == [18, 36]
    with pytest.raises(RuntimeError, match="does not require gradients"):
        get_gradient_edge(graphc.ones(1))
    with pytest.raises(RuntimeError, match="scalar outputs"):
        graphc.autograd.backward(get_gradient_edge(x * 2))


def test_gradients_by_name() -> None:
    a, b = leaf(1, 2), leaf(3, 4)
    found = grad((a * b).sum(), {"a": a, "b": b})
    assert {name: g.tolist() for name, g in found.items()} == {"a": [3, 4], "b": [1, 2]}
    graphc.autograd.backward((a * b).sum(), inputs={"b": b})
    assert a.grad is None
    assert b.grad is not None


def test_backward_to_results() -> None:
    x = leaf(1, 2)
    y = x * 2
    (y * y).sum().backward(inputs=[y])
    assert y.grad is not None
    assert y.grad.tolist() == [4, 8]
    assert x.grad is None


def test_materialized_gradients() -> None:
    x, unused = leaf(1, 2), leaf(3)
    assert grad(x.sum(), [x, unused], allow_unused=True)[1] is None
    assert grad(x.sum(), [x, unused], materialize_grads=True)[1].tolist() == [0]
    with pytest.raises(ValueError, match="allow_unused to be True or not passed"):
        grad(x.sum(), x, allow_unused=False, materialize_grads=True)
    with pytest.warns(FutureWarning, match="only_inputs"):
        grad(x.sum(), x, only_inputs=False)


def test_batches_of_cotangents() -> None:
    x = leaf(1, 2, 3)
    y = (x * x).cumsum(0)
    basis = graphc.eye(3, dtype=graphc.float64)
    (rows,) = grad(y, x, basis, is_grads_batched=True, retain_graph=True)
    assert rows.tolist() == [[2, 0, 0], [2, 4, 0], [2, 4, 6]]
    (rows,) = grad(y, x, basis, is_grads_batched=True, create_graph=True)
    (second,) = grad(rows.sum(), x)
    assert second.tolist() == [6, 4, 2]
    compiled = graphc.compile(lambda x: (x * x).cumsum(0))
    assert grad(compiled(x), x, basis, is_grads_batched=True)[0].tolist() == [[2, 0, 0], [2, 4, 0], [2, 4, 6]]
    assert grad([x.sum(), x * 2], [x, leaf(1)], [graphc.ones(2).double(), basis[:2]], is_grads_batched=True,
                allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="another shape than the output"):
        grad(x * 2, x, graphc.ones(2, 4).double(), is_grads_batched=True)
    with pytest.raises(RuntimeError, match="is the batch, of one size"):
        grad([x * 2, x * 3], x, [basis, basis[:2]], is_grads_batched=True)


# Hooks


def test_the_order_of_hooks() -> None:
    log: list[Any] = []
    x = leaf(1, 2)
    y = x * 2
    y.register_hook(lambda g: log.append("first"))
    y.retain_grad()
    y.register_hook(lambda g: log.append(("second", y.grad)) or g * 10)  # type: ignore[func-returns-value]
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda gs: log.append(("before the node", gs[0].tolist())))
    y.grad_fn.register_hook(lambda gi, go: log.append(("after the node", gi[0].tolist(), go[0].tolist())))
    x.register_hook(lambda g: log.append(("leaf", g.tolist())))
    accumulator = x.view_as(x).grad_fn.next_functions[0][0]
    accumulator.register_prehook(lambda gs: log.append(("before adding", x.grad)))
    accumulator.register_hook(lambda gi, go: log.append(("after adding", gi, go[0].tolist())))
    x.register_post_accumulate_grad_hook(lambda p: log.append(("added", p.grad.tolist())))
    y.sum().backward()
    assert log == [
        "first", ("second", None), ("before the node", [10, 10]), ("after the node", [20, 20], [10, 10]), ("leaf", [20, 20]),
        ("before adding", None), ("added", [20, 20]), ("after adding", (), [20, 20]),
    ]
    assert y.grad is not None
    assert y.grad.tolist() == [10, 10]  # what the hooks made of it, although retain_grad() came before one of them


def test_hooks_of_the_accumulator_last_as_long_as_it_is_held() -> None:
    x, calls = leaf(1), []
    x.view_as(x).grad_fn.next_functions[0][0].register_hook(lambda *_: calls.append(1))
    (x * 2).backward()
    assert calls == []


def test_captured_gradients_and_hooks() -> None:
    """As in PyTorch: what is captured on the way to another input has not gone through the hooks."""
    x = leaf(1, 2)
    y = x * 2
    y.register_hook(lambda g: g * 3)
    assert [g.tolist() for g in grad(y.sum(), [y, x], retain_graph=True)] == [[1, 1], [6, 6]]
    assert [g.tolist() for g in grad(y.sum(), [y])] == [[3, 3]]


def test_hooks_around_a_change_in_place() -> None:
    """Hooks stay with the contents that they were hung on; a gradient is kept for the contents that there are in the end."""
    x, log = leaf(1, 2), []
    y = x.clone()
    y.register_hook(lambda g: log.append(("before", g.tolist())))
    y.retain_grad()
    y.mul_(2)
    y.register_hook(lambda g: log.append(("after", g.tolist())))
    (y * 3).sum().backward()
    assert log == [("after", [3, 3]), ("before", [6, 6])]
    assert y.grad is not None
    assert y.grad.tolist() == [3, 3]


@pytest.mark.parametrize("watch, kind, message", [
    (lambda y: y.register_hook(lambda g: "text"), TypeError, "expected Variable, but hook returned 'str'"),
    (lambda y: y.grad_fn.register_hook(lambda gi, go: graphc.ones(2)), TypeError, "expected tuple, but hook returned"),
    (lambda y: y.grad_fn.register_prehook(lambda gs: (*gs, *gs)), RuntimeError, r"number of values \(got 2, but expected 1\)"),
])
def test_what_hooks_return_is_checked(watch: Callable[[Any], Any], kind: type[Exception], message: str) -> None:
    y = leaf(1, 2) * leaf(3, 4)
    watch(y)
    with pytest.raises(kind, match=message):
        y.sum().backward()


def test_hooks_on_several_tensors() -> None:
    a, b, c = leaf(1), leaf(2), leaf(3)
    seen: list[Any] = []
    handle = register_multi_grad_hook((a, b, c), lambda gs: seen.append([None if g is None else g.item() for g in gs]))
    (a * b).backward()
    (a * b * c).backward()
    assert seen == [[2, 1, None], [6, 3, 2]]
    handle.remove()
    (a * b).backward()
    assert len(seen) == 2
    first: list[float] = []
    with register_multi_grad_hook((a, b), lambda g: first.append(g.item()), mode="any"):
        (a * b).backward()
        (a * b).backward()
    assert len(first) == 2
    with pytest.raises(ValueError, match="'all', 'any'"):
        register_multi_grad_hook((a,), print, mode="some")
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        register_multi_grad_hook((graphc.ones(1),), print)


# Saved tensors


def test_saved_tensors_go_through_hooks() -> None:
    x, log = leaf(1, 2), []

    def pack(t: graphc.Tensor) -> Any:
        log.append("pack")
        return t.detach().numpy().copy()

    def unpack(packed: Any) -> graphc.Tensor:
        log.append("unpack")
        return graphc.from_numpy(packed)

    with saved_tensors_hooks(pack, unpack):
        y = (x * x).exp()
    assert log == ["pack"] * 3  # x twice, and the result of exp
    y.sum().backward()
    assert log[3:] == ["unpack"] * 3
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx((2 * x * (x * x).exp()).tolist())


def test_unpacked_tensors_have_their_history() -> None:
    x = leaf(1, 2)
    with saved_tensors_hooks(lambda t: t.detach().numpy().copy(), graphc.from_numpy):
        y = (x * x).exp().sum()
        (g,) = grad(y, x, create_graph=True)
    (second,) = grad(g.sum(), x)
    expected = (2 + 4 * x * x) * (x * x).exp()
    assert second.tolist() == pytest.approx(expected.tolist())


def test_hooks_nest_and_belong_to_their_thread() -> None:
    x, log = leaf(1, 2), []

    def hooks(name: str) -> saved_tensors_hooks:
        return saved_tensors_hooks(lambda t: log.append(name) or t, lambda t: t)  # type: ignore[func-returns-value]

    with hooks("outer"):
        with hooks("inner"):
            x.exp()
        thread = threading.Thread(target=lambda: x.exp())
        thread.start()
        thread.join()
        x.sin()
    x.exp()
    assert log == ["inner", "outer"]


def test_hooks_can_be_forbidden() -> None:
    with graph.disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"), \
            saved_tensors_hooks(lambda t: t, lambda t: t):
        pass
    with saved_tensors_hooks(lambda t: t, lambda t: t), pytest.raises(RuntimeError, match="not here"), \
            graph.disable_saved_tensors_hooks("not here"):
        pass


def test_bad_hooks_are_named() -> None:
    x = leaf(1, 2)
    with saved_tensors_hooks(lambda t: t, lambda t: 3):
        y = x * x
    with pytest.raises(TypeError, match="expected to be a Tensor but got result of type int"):
        y.sum().backward()
    with saved_tensors_hooks(lambda t: t.mul_(2), lambda t: t), pytest.raises(RuntimeError, match="modifying its input"):
        x.clone().sin()


def test_waiting_on_the_cpu() -> None:
    x = leaf(1, 2)
    with graph.save_on_cpu():
        y = (x * x).exp()
    y.sum().backward()
    assert x.grad is not None


def test_saved_tensors_may_change_where_copies_are_kept() -> None:
    x = leaf(1, 2)
    with graph.allow_mutation_on_saved_tensors():
        y = x.clone()
        z = (y**3).sum()
        y.zero_()
        z.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 12]
    with graph.allow_mutation_on_saved_tensors() as kept:
        z = (x**3).sum()
        kept.clear()
        with pytest.raises(RuntimeError, match="outside of the 'allow_mutation_on_saved_tensors'"):
            z.backward()


def test_changes_that_autograd_did_not_see_can_be_told() -> None:
    x = leaf(1, 2)
    y = x.clone()
    z = (y * y).sum()
    y.detach().numpy()[0] = 7
    graph.increment_version(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()
    graph.increment_version([y, y])
    assert y._version == 3


# Changes in place


@pytest.mark.parametrize("change", [
    lambda y, x: y.mul_(x), lambda y, x: y.div_(x), lambda y, x: y.pow_(2), lambda y, x: y.sin_(), lambda y, x: y.exp_(),
    lambda y, x: y.mul_(y), lambda y, x: y.add_(x), lambda y, x: y.clamp_(0.5, 1.5), lambda y, x: y.tanh_(),
])
def test_what_is_overwritten_is_kept_for_the_gradient(change: Callable[[Any, Any], Any]) -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x * 1.5
        change(y, x)
        return (y * y).sum()

    assert graphc.autograd.gradcheck(f, leaf(0.3, 0.7, 0.4))
    assert graphc.autograd.gradgradcheck(f, leaf(0.3, 0.7, 0.4))


@pytest.mark.parametrize("pick", [
    lambda y: y.unbind()[0], lambda y: y.split(1)[1], lambda y: y.chunk(2)[0],
])
def test_views_that_come_several_at_a_time_are_protected(pick: Callable[[Any], Any]) -> None:
    part = pick(leaf(1, 2) * 2)
    with pytest.raises(RuntimeError, match="comes from a function that returns several"):
        part.mul_(2)
    plain = graphc.ones(2)
    pick(plain).mul_(2)
    assert sorted(plain.tolist()) == [1, 2]


# Anomaly mode


def test_anomaly_mode_names_the_line_of_the_forward_pass() -> None:
    x = leaf(-1, 1)
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):
        anomaly = graphc.autograd.detect_anomaly()
    with anomaly:
        assert graphc.is_anomaly_enabled()
        y = x.sqrt().sum()  # the line in question
        with pytest.warns(UserWarning, match=r"(?s)Error detected in SqrtBackward0.*# the line in question"), \
                pytest.raises(RuntimeError, match="Function 'SqrtBackward0' returned nan values in its 0th output"):
            y.backward()
    assert not graphc.is_anomaly_enabled()
    x.sqrt().sum().backward()  # outside, a nan is a number like any other


def test_anomaly_mode_tells_of_errors_too() -> None:
    class Fails(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            raise ArithmeticError("on purpose")

    with graphc.autograd.set_detect_anomaly(True, check_nan=False):
        assert not graphc.is_anomaly_check_nan_enabled()
        y = Fails.apply(leaf(1))
        with pytest.warns(UserWarning, match="Error detected in FailsBackward"), pytest.raises(ArithmeticError):
            y.backward()
        x = leaf(-1)
        x.sqrt().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ArithmeticError):
            Fails.apply(leaf(1)).backward()


def test_nodes_recorded_before_say_that_they_do_not_know() -> None:
    y = leaf(-1).sqrt()
    with graphc.autograd.set_detect_anomaly(True), pytest.warns(UserWarning, match="No forward pass information available"), \
            pytest.raises(RuntimeError, match="nan"):
        y.backward()
