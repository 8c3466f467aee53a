"""Normalisation by its mean and deviation: derivatives of any order, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
import graphc.ops as ops
from graphc.autograd import gradcheck, gradgradcheck
from graphc.errors import ShapeError, UnsupportedDTypeError
from graphc.func import hessian, jacfwd, jacrev, vmap
from graphc.ir import Builder
from graphc.passes.decompose import decompose
from graphc.types import TensorType, float32, int64

RNG = np.random.default_rng(11)
SEEN = graphc.tensor([0.5, -1.0, 0.1], dtype=graphc.float64)
NORMS: dict[str, Callable[..., Any]] = {
    "batch": lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    "batch, no weights": lambda x, w, b: F.batch_norm(x, None, None, training=True) * w[:, None] + b[:, None],
    "instance": lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    "group": lambda x, w, b: F.group_norm(x, 1, w, b),
    "layer": lambda x, w, b: F.layer_norm(x, (5,)) * w[:, None] + b[:, None],
    "variance": lambda x, w, b: x.var((0, 2)) * w + b,
    "deviation": lambda x, w, b: x.std(1, correction=0) + (w * b).sum(),
    "variance and mean": lambda x, w, b: graphc.stack(graphc.var_mean(x, dim=(0, 2), keepdim=True)).flatten(1) * w + b,
    "running statistics": lambda x, w, b: F.batch_norm(x, SEEN, SEEN.exp(), w, b),
}  # fmt: skip


def draw(*shape: int) -> graphc.Tensor:
    return graphc.tensor(RNG.standard_normal(shape), requires_grad=True)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("way", [lambda f: f, graphc.compile], ids=["eager", "compiled"])
def test_first_and_second_derivatives(name: str, way: Callable[..., Any]) -> None:
    f, arguments = way(NORMS[name]), (draw(4, 3, 5), draw(3), draw(3))
    assert gradcheck(f, arguments)
    assert gradgradcheck(f, arguments)


@pytest.mark.parametrize("name", NORMS)
def test_forward_and_batched_derivatives_are_the_same(name: str) -> None:
    x, w, b = (t.detach() for t in (draw(4, 3, 5), draw(3), draw(3)))
    expected = jacrev(NORMS[name])(x, w, b)
    np.testing.assert_allclose(jacfwd(NORMS[name])(x, w, b).numpy(), expected.numpy(), atol=1e-12)
    batch = graphc.stack([x, 2 * x + 1])
    for i, each in enumerate(vmap(NORMS[name], (0, None, None))(batch, w, b)):
        np.testing.assert_allclose(each.numpy(), NORMS[name](batch[i], w, b).numpy(), atol=1e-12)


def test_the_mean_moves_in_second_derivatives() -> None:
    n = 7
    found = hessian(lambda x: x.var(correction=0))(graphc.tensor(RNG.standard_normal(n)))
    np.testing.assert_allclose(found.numpy(), 2 / n * (np.eye(n) - 1 / n), atol=1e-15)


def test_gradients_far_from_zero_are_as_good_as_near_it() -> None:
    near = RNG.standard_normal((64, 8)).astype(np.float32)
    ct = graphc.tensor(RNG.standard_normal((64, 8)).astype(np.float32))

    def gradient(offset: float) -> np.ndarray:
        x = graphc.tensor(np.float64(near) + offset).float().requires_grad_()
        F.batch_norm(x, None, None, training=True).backward(ct)
        return x.grad.numpy()

    np.testing.assert_allclose(gradient(1000.0), gradient(0.0), atol=1e-3)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_channel_alone(special: float) -> None:
    data = RNG.standard_normal((4, 3, 5)).astype(np.float32)
    data[1, 1, 2] = special
    x = graphc.tensor(data, requires_grad=True)
    out = F.batch_norm(x, None, None, training=True)
    out.sum().backward()
    for found in (out.detach().numpy(), x.grad.numpy()):
        assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2]]).all()


def test_one_pass_over_the_input_and_its_gradient_gives_all_sums_of_a_gradient() -> None:
    graph = Builder("norm")
    x, mean, scale, ct = (graph.input(name, TensorType(float32, shape)) for name, shape in
                          (("x", (64, 8)), ("mean", (8,)), ("scale", (8,)), ("ct", (64, 8))))
    given = [rule(ct=ct, x=x, mean=mean, scale=scale, mean_type=mean.type) for rule in ops.standardize.vjp]
    assert given[1].shape == (8,)  # summed before it is scaled
    shared = ops.sum(ct, (0,))
    made = graph.finish([*given[1:], shared])
    sums = [node for node in decompose(made).nodes if node.op is ops.sum]
    assert all(node.operands[0].node is None for node in sums)


def test_bad_operands_are_refused() -> None:
    x = TensorType(float32, (4, 3))
    with pytest.raises(ShapeError, match="a mean of another type"):
        ops.squared_deviations.infer(x, TensorType(float32, (4,)), axes=(0,))
    with pytest.raises(UnsupportedDTypeError):
        ops.standardize.infer(*(TensorType(int64, (4,)),) * 3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)])
def test_an_empty_batch_has_a_history(shape: tuple[int, ...], training: bool, compiled: bool) -> None:
    def step(x: graphc.Tensor) -> graphc.Tensor:
        y = layer(x)
        y.sum().backward()
        return y.detach()

    layer = graphc.nn.BatchNorm1d(4).train(training)
    assert (graphc.compile(step) if compiled else step)(graphc.zeros(*shape)).shape == shape
    assert layer.num_batches_tracked is not None
    assert (layer.running_mean.tolist(), layer.running_var.tolist()) == ([0] * 4, [1] * 4)
    assert layer.num_batches_tracked.item() == training
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [0] * 4
    x, w, b = graphc.zeros(*shape, requires_grad=True), graphc.ones(4, requires_grad=True), graphc.ones(4)
    F.batch_norm(x, graphc.zeros(4), graphc.ones(4), w, b, training).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.shape, w.grad.tolist()) == (shape, [0] * 4)
    bias = graphc.ones(4, requires_grad=True)
    out = F.batch_norm(x.detach().bfloat16(), graphc.zeros(4), graphc.ones(4), None, bias, training)
    assert (out.dtype, out.requires_grad) == (graphc.bfloat16, True)
