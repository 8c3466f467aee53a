"""Functions of the top level that take other arguments than their namesakes in nn.functional; other names of arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.nn import functional as F

RNG = np.random.default_rng(0)


def floats(*shape: int) -> graphc.Tensor:
    return graphc.from_numpy(RNG.standard_normal(shape))


def test_norms_take_weight_and_bias_before_the_statistics() -> None:
    x, weight, bias, mean = floats(4, 3, 5), floats(3), floats(3), floats(3)
    var = floats(3).square() + 1
    want = F.batch_norm(x, mean, var, weight, bias, False, 0.1, 1e-5)
    assert graphc.equal(graphc.batch_norm(x, weight, bias, mean, var, False, 0.1, 1e-5, True), want)
    want = F.instance_norm(x, mean, var, weight, bias, False, 0.1, 1e-5)
    assert graphc.equal(graphc.instance_norm(x, weight, bias, mean, var, False, 0.1, 1e-5, True), want)
    assert graphc.equal(graphc.layer_norm(x, (5,), None, None, 1e-5, False), F.layer_norm(x, (5,)))
    assert graphc.equal(graphc.group_norm(x, 3, weight, bias, 1e-5, False), F.group_norm(x, 3, weight, bias))


def signs(*shape: int) -> graphc.Tensor:
    return floats(*shape).sign()


# what each takes, and the defaults in its namesake of what stands before the reduction
LOSSES: dict[str, tuple[Callable[[], tuple[graphc.Tensor, ...]], tuple[Any, ...]]] = {
    "binary_cross_entropy_with_logits": (lambda: (floats(4, 3), floats(4, 3).sigmoid()), (None, None)),
    "kl_div": (lambda: (floats(4, 3), floats(4, 3).sigmoid()), ()),
    "poisson_nll_loss": (lambda: (floats(4, 3), floats(4, 3).abs()), (True, False, 1e-8)),
    "cosine_embedding_loss": (lambda: (floats(4, 3), floats(4, 3), signs(4)), (0.0,)),
    "hinge_embedding_loss": (lambda: (floats(4, 3), signs(4, 3)), (1.0,)),
    "margin_ranking_loss": (lambda: (floats(4), floats(4), signs(4)), (0.0,)),
    "triplet_margin_loss": (lambda: (floats(4, 3), floats(4, 3), floats(4, 3)), (1.0, 2.0, 1e-6, False)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_the_number_of_a_reduction(name: str) -> None:
    tensors, settings = LOSSES[name]
    operands = tensors()
    for number, reduction in enumerate(("none", "mean", "sum")):
        want = getattr(F, name)(*operands, reduction=reduction)
        assert graphc.equal(getattr(graphc, name)(*operands, *settings, number), want)
        assert graphc.equal(getattr(graphc, name)(*operands, *settings, reduction), want)
    with pytest.raises(ValueError, match="3 is not a valid value for reduction"):
        getattr(graphc, name)(*operands, *settings, 3)


def test_ctc_takes_the_number_of_a_reduction() -> None:
    given = floats(6, 2, 4).log_softmax(-1), graphc.tensor([[1, 2], [3, 1]]), (6, 5), (2, 1)
    assert graphc.equal(graphc.ctc_loss(*given, 0, 2, False), F.ctc_loss(*given, reduction="sum"))


@pytest.mark.parametrize("call", [
    lambda x: (graphc.sum(x=x, axis=0, keepdims=True), x.sum(0, True)), lambda x: (graphc.add(x1=x, x2=x), x + x),
    lambda x: (graphc.linalg.det(input=x), x.det()), lambda x: (graphc.linalg.vector_norm(input=x), x.norm()),
    lambda x: (graphc.det(input=x), x.det()), lambda x: (graphc.swapdims(x, dim0=0, dim1=1), x.t()),
    lambda x: (x.swapdims(dim0=0, dim1=1), x.t()), lambda x: (graphc.hsplit(x, sections=3)[1], x[:, 1:2]),
    lambda x: (x.tensor_split(indices=[1], dim=0)[1], x[1:]), lambda x: (graphc.dropout(x, 0.5, train=False), x),
    lambda x: (graphc.cholesky_solve(input=x, input2=x.tril()), graphc.cholesky_solve(x, x.tril())),
    lambda x: (graphc.special.expit(x=x), x.sigmoid()), lambda x: (graphc.cat([x, x], axis=1), x.repeat(1, 2)),
])
def test_arguments_go_by_all_their_names(call: Callable[[graphc.Tensor], tuple[graphc.Tensor, graphc.Tensor]]) -> None:
    given, want = call(floats(3, 3))
    np.testing.assert_allclose(given, want)


def test_an_argument_is_not_given_twice() -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'input'"):
        graphc.sum(floats(2), x=floats(2))


def test_tables_and_questions_of_the_top_level() -> None:
    table, x = graphc.arange(6.0).view(3, 2).requires_grad_(), graphc.ones(2, 3)
    assert graphc.embedding(table, graphc.tensor([2, 0])).tolist() == [[4.0, 5.0], [0.0, 1.0]]
    graphc.embedding(table, graphc.tensor([2, 0]), 0).sum().backward()
    assert table.grad.sum(1).tolist() == [0.0, 0.0, 2.0]
    assert graphc.bilinear(x, x, graphc.ones(1, 3, 3), None).tolist() == [[9.0], [9.0]]
    assert graphc.get_device(x) == -1 and not graphc.is_inference(x)
    assert graphc.index_put_(x, (graphc.tensor([0]),), graphc.tensor(5.0)) is x and x[0].tolist() == [5.0] * 3
