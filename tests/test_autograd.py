"""The tape: gradients, accumulation, versions, changes in place."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from leaves import leaf

import graphc
from graphc.autograd import Function, grad
from graphc.errors import AutogradError


def differences(f: Callable[[graphc.Tensor], graphc.Tensor], x: np.ndarray) -> np.ndarray:
    """Central differences of sum(f * cos(index))."""
    slope = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        total = []
        for step in (1e-6, -1e-6):
            moved = x.copy()
            moved[i] += step
            y = f(graphc.from_numpy(moved)).numpy()
            total.append((y * np.cos(np.arange(y.size)).reshape(y.shape)).sum())
        slope[i] = (total[0] - total[1]) / 2e-6
    return slope


FUNCTIONS = {
    "std": lambda x: x.std(1),
    "var of everything": lambda x: x.var(),
    "norm": lambda x: x.norm(dim=0),
    "3-norm": lambda x: x.norm(3),
    "logsumexp": lambda x: x.logsumexp(1),
    "softmax": lambda x: x.softmax(0),
    "log_softmax": lambda x: x.log_softmax(1),
    "gelu": lambda x: graphc.nn.functional.gelu(x),
    "prod": lambda x: x.prod(1),
    "max": lambda x: x.max(1).values * x.min(0).values.sum(),
    "clamp": lambda x: x.clamp(0.3, 1.1),
    "matmul": lambda x: x @ x.t() @ x[0, :2],
    "index": lambda x: x[1, ::2] * x[[0, 1], [2, 0]],
    "mask": lambda x: x[graphc.tensor([[True, False, True], [False, True, True]])],
    "cat": lambda x: graphc.cat([x, x[:1] * 2], 0).flip(1),
    "roll": lambda x: x.roll((1, -2), (0, 1)) * x,
    "where": lambda x: graphc.where(x > 0.8, x * x, -x),
    "repeat": lambda x: x.repeat(2, 1, 3).pow(3),
    "unfold": lambda x: x.unfold(1, 2, 1).pow(2),
    "pad": lambda x: graphc.nn.functional.pad(x, (1, 2, 0, 1)).exp(),
    "reflect": lambda x: graphc.nn.functional.pad(x[None], (2, 1), mode="reflect") ** 2,
    "scatter": lambda x: x.scatter(1, graphc.tensor([[0, 1], [2, 1]]), x[:, 1:] * 3),
    "index_put": lambda x: x.index_put((graphc.tensor([0, 0]), graphc.tensor([1, 1])), x[0, :2] ** 2, accumulate=True),
    "lerp": lambda x: x.lerp(x * x, x.sigmoid()),
    "layer_norm": lambda x: graphc.nn.functional.layer_norm(x, (3,)),
    "max_pool": lambda x: graphc.nn.functional.max_pool1d(x[None], 2, 1, 1),
    "avg_pool": lambda x: graphc.nn.functional.avg_pool1d(x[None] ** 2, 2, 2, 1, ceil_mode=True, count_include_pad=False),
    "adaptive": lambda x: graphc.nn.functional.adaptive_avg_pool1d(x[None] ** 2, 2),
    "triangle": lambda x: x.t().tril(-1) * 2 + x.t().triu(),
    "tensordot": lambda x: graphc.tensordot(x, x, ([0], [0])),
    "huber": lambda x: graphc.nn.functional.huber_loss(x, x.detach() * 0, reduction="none", delta=0.9),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_gradients_match_differences_to_second_order(name: str) -> None:
    f = FUNCTIONS[name]
    values = np.array([[0.31, 0.72, 1.23], [0.54, 0.95, 0.16]])

    def weights(y: graphc.Tensor) -> graphc.Tensor:
        return graphc.arange(y.numel(), dtype=graphc.float64).cos().reshape(y.shape)

    def slope(x: graphc.Tensor) -> graphc.Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        y = f(x)
        return grad(y, x, weights(y), create_graph=True)[0]

    x = graphc.from_numpy(values.copy()).requires_grad_()
    np.testing.assert_allclose(slope(x).detach().numpy(), differences(f, values), rtol=1e-5, atol=1e-7)
    first = slope(x)
    if first.requires_grad:
        (second,) = grad(first, x, weights(first), allow_unused=True, materialize_grads=True)
        expected = differences(lambda v: slope(v).detach(), values)
        np.testing.assert_allclose(second.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((1,), ()), ((0, 3), (3,)), ((2, 0), (1, 1))])
def test_gradients_of_stretched_operands_have_their_shape_and_dtype(shapes: tuple[tuple[int, ...], ...]) -> None:
    a = graphc.rand(shapes[0], dtype=graphc.float64).requires_grad_()
    b = graphc.rand(shapes[1], dtype=graphc.float32).requires_grad_()
    (a * b).sum().backward()
    assert a.grad.shape == a.shape and b.grad.shape == b.shape
    assert a.grad.dtype is graphc.float64 and b.grad.dtype is graphc.float32
    full = np.broadcast_to(a.detach().numpy(), np.broadcast_shapes(*shapes))
    extra = full.ndim - b.ndim
    summed = full.sum(tuple(range(extra)) + tuple(i + extra for i, n in enumerate(b.shape) if n == 1))
    np.testing.assert_allclose(b.grad.numpy().reshape(-1), summed.reshape(-1), rtol=1e-6)


def test_gradients_are_nobody_elses_memory() -> None:
    a, b = leaf(1, 2), leaf(3, 4)
    g = graphc.ones(2, dtype=graphc.float64)
    (a + b).backward(g)
    a.grad.zero_()
    assert b.grad.tolist() == [1, 1] and g.tolist() == [1, 1]
    c = leaf(1, 2)
    c.sum().backward()
    c.grad += 1  # the gradient of a sum is one number stretched
    assert c.grad.tolist() == [2, 2]
    d = leaf(1, 2, 3, 4)
    d.reshape(2, 2).t().backward(graphc.ones(2, 2, dtype=graphc.float64))
    d.grad.mul_(5)
    assert d.grad.tolist() == [5, 5, 5, 5]


def test_a_leaf_is_its_own_root() -> None:
    x = leaf(2)
    x.backward()
    x.backward(graphc.tensor([3.0], dtype=graphc.float64))
    assert x.grad.tolist() == [4]


def test_chains_of_any_length_run_and_are_freed() -> None:
    x = leaf(1)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    y.backward()
    assert x.grad.tolist() == [1]
    del y
    y = x
    for _ in range(10_000):
        y = y.view(1)
    del y  # never run: the graph goes without recursion all the same


def test_wide_graphs_visit_each_node_once() -> None:
    x = leaf(1)
    y = x
    for _ in range(60):
        y = y + y  # 2**60 paths
    y.backward()
    assert x.grad.item() == 2.0**60


def test_graphs_are_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        x = leaf(1, 2)
        y = (x.exp() * x).sigmoid()
        z = y.sum()
        nodes = [weakref.ref(t.grad_fn) for t in (y, z)]
        tensors = [weakref.ref(t) for t in (y, z)]
        z.backward()
        del y, z
        assert not any(r() for r in (*nodes, *tensors))
    finally:
        gc.enable()


def test_detached_results_do_not_keep_the_graph() -> None:
    x = leaf(1, 2)
    loss = (x * x).sum()
    node = weakref.ref(loss.grad_fn)
    kept = loss.detach()
    del loss
    assert node() is None and kept.item() == 5


# Versions


@pytest.mark.parametrize("change", [
    lambda y: y.add_(1), lambda y: y.__setitem__(0, 5.0), lambda y: y.detach().zero_(), lambda y: y.view(-1).mul_(2),
    lambda y: y[:1].fill_(0), lambda y: y.copy_(y * 2), lambda y: y.uniform_(),
])
def test_a_saved_tensor_that_changed_is_an_error_with_names_and_lines(change: Callable[[graphc.Tensor], object]) -> None:
    x = leaf(1, 2)
    y = x * 1
    z = y.exp() * y
    change(y)
    with pytest.raises(AutogradError, match=r"(?s)MulBackward0 saved.*version 0.*test_autograd\.py"):
        z.sum().backward()


def test_a_saved_result_that_changed_is_an_error() -> None:
    x = leaf(1, 2)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(AutogradError, match=r"ExpBackward0 saved"):
        y.sum().backward()


def test_versions_are_shared_with_views_made_before_and_after() -> None:
    x = graphc.zeros(4)
    before = x[:2]
    x.add_(1)
    after = x.view(2, 2).t()
    after.mul_(2)
    assert x._version == before._version == after._version == x.detach()._version == 2
    x.data.add_(1)
    assert x._version == 2 and x.data._version == 0


# Changes in place


def test_in_place_on_a_result_follows_the_new_history() -> None:
    x = leaf(1, 2, 3)
    y = x * 2
    y.mul_(y.detach().clone())
    y.add_(x)
    y.sum().backward()
    assert x.grad.tolist() == [2 * 2 + 1, 2 * 4 + 1, 2 * 6 + 1]


def test_in_place_through_a_view_changes_the_bases_history() -> None:
    x = leaf(1, 2, 3, 4)
    y = x * 1
    v = y.view(2, 2).t()[1]  # elements 1 and 3
    v.mul_(10)
    y.sum().backward()
    assert y.tolist() == [1, 20, 3, 40] and x.grad.tolist() == [1, 10, 1, 10]


def test_other_views_get_the_new_history() -> None:
    x = leaf(1, 2, 3)
    y = x * 1
    early = y[1:]
    y[1] = x[0] * 7
    early.sum().backward()
    assert early.tolist() == [7, 3] and x.grad.tolist() == [7, 0, 1]
    assert early.grad_fn.name() == "SliceBackward0"


def test_writing_a_graph_into_a_plain_tensor() -> None:
    w, rows = leaf(2), graphc.zeros(3, 1, dtype=graphc.float64)
    for i in range(3):
        rows[i] = w * i
    assert rows.requires_grad
    rows.sum().backward()
    assert w.grad.tolist() == [3]


def test_overwriting_cuts_the_gradient() -> None:
    x = leaf(1, 2)
    y = x * 2
    y.zero_()
    y.sum().backward()
    assert x.grad.tolist() == [0, 0]
    y = x * 2
    y[0] = 5
    y.sum().backward()
    assert x.grad.tolist() == [0, 2]


def test_copies_pass_the_gradient_to_their_source() -> None:
    x, y = leaf(1), graphc.zeros(2, 3)
    y.copy_(x)
    (y * 2).sum().backward()
    assert x.grad.tolist() == [12] and x.grad.dtype is graphc.float64


@pytest.mark.parametrize("change", [
    lambda w: w.add_(1), lambda w: w.__setitem__(0, 1.0), lambda w: w.view(-1).zero_(), lambda w: w.normal_(),
    lambda w: w[0:1].mul_(2), lambda w: w.copy_(w.detach()), lambda w: w.t_(),
])
def test_leaves_are_protected(change: Callable[[graphc.Tensor], object]) -> None:
    w = leaf(1, 2)
    with pytest.raises(AutogradError, match="leaf Variable that requires grad"):
        change(w)
    assert w.tolist() == [1, 2]
    with graphc.no_grad():
        change(w)
    assert w.is_leaf and w.requires_grad


def test_views_made_under_no_grad_are_protected() -> None:
    y = leaf(1, 2) * 2
    with graphc.no_grad():
        v = y[:1]
        v.mul_(2)
    with pytest.raises(AutogradError, match="no_grad mode"):
        v.mul_(2)


def test_stretched_memory_cannot_be_written_to() -> None:
    x = graphc.zeros(1).expand(3)
    with pytest.raises(RuntimeError, match="more than one element"):
        x.add_(1)


def test_in_place_keeps_shape_and_kind() -> None:
    with pytest.raises(RuntimeError, match=r"output with shape \[2\] doesn't match the broadcast shape \[3, 2\]"):
        graphc.ones(2).mul_(graphc.ones(3, 2))
    with pytest.raises(RuntimeError, match="can't be cast"):
        graphc.ones(2, dtype=graphc.int64).div_(2)
    x = graphc.ones(2, dtype=graphc.float16)
    x += graphc.ones(2, dtype=graphc.float64)
    assert x.dtype is graphc.float16 and x.tolist() == [2, 2]


# backward and grad


def test_freed_graphs_say_so() -> None:
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(AutogradError, match=r"(?s)second time.*retain_graph=True"):
        y.backward()
    assert x.grad.tolist() == [2, 4]
    z = (x + 1).sum()  # nothing is saved here, so nothing is missing
    z.backward()
    z.backward()


@pytest.mark.parametrize("call, message", [
    (lambda x: (x * 2).backward(), "scalar outputs"),
    (lambda x: (x * 2).backward(graphc.ones(3, dtype=graphc.float64)), "Mismatch in shape"),
    (lambda x: graphc.ones(1).backward(), "element 0 of tensors does not require grad"),
    (lambda x: grad(x.sum(), graphc.ones(1)), "does not require grad"),
    (lambda x: grad(x.sum(), leaf(1)), "allow_unused=True"),
    (lambda x: graphc.autograd.backward([x.sum()], [None, None]), "1 tensors and 2 gradients"),
    (lambda x: (x * 2).sum().backward(inputs=[]), "cannot be empty"),
])
def test_misuse_is_named(call: Callable[[graphc.Tensor], object], message: str) -> None:
    with pytest.raises(AutogradError, match=message):
        call(leaf(1, 2))


def test_grad_prunes_what_does_not_lead_to_the_inputs() -> None:
    x, y = leaf(1), leaf(2)
    ran = []
    side = y * 1
    side.register_hook(lambda g: ran.append(g))
    (g,) = grad(x * 3 + side, x)
    assert g.item() == 3 and not ran and y.grad is None


def test_batched_grad() -> None:
    x = leaf(1, 2, 3)
    y = x * x
    (jacobian,) = grad(y, x, graphc.eye(3, dtype=graphc.float64), is_grads_batched=True)
    assert jacobian.tolist() == [[2, 0, 0], [0, 4, 0], [0, 0, 6]]


def test_backward_inside_backward() -> None:
    class Inner(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            with graphc.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                (x * x).sum().backward()
            return g * x.grad

    x = leaf(3)
    Inner.apply(x).backward()
    assert x.grad.item() == 6


def test_gradients_lie_in_memory_as_their_leaves_do() -> None:
    """Whatever way they were computed in: `p.grad.view(-1)` goes with `p.view(-1)`."""
    weight = graphc.ones(3, 4, requires_grad=True)
    images = graphc.ones(2, 3, 4, 5).to(memory_format=graphc.channels_last).requires_grad_()
    (graphc.ones(5, 4) @ weight.t()).sum().backward()
    (images.contiguous() * graphc.ones(2, 3, 4, 5)).sum().backward()
    assert weight.grad is not None and weight.grad.stride() == weight.stride()
    assert images.grad is not None and images.grad.stride() == images.stride()
