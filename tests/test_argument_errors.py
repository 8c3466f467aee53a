"""Arguments of the wrong kind: what is said, and that it is a TypeError."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import graphc
import graphc.nn.functional as F

x = graphc.ones(2, 3)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.mse_loss([1.0], graphc.ones(1)), r"mse_loss\(\): argument 'input' \(position 1\) must be Tensor, not list"),
    (lambda: F.cross_entropy(x, [0, 1]), r"cross_entropy\(\): argument 'target' \(position 2\) must be Tensor, not list"),
    (lambda: F.nll_loss(x, target=None), "must be Tensor, not NoneType"),
    (lambda: F.max_pool2d([1.0], 2), r"max_pool2d\(\): argument 'input' \(position 1\) must be Tensor, not list"),
    (lambda: F.grid_sample(graphc.ones(1, 1, 2, 2), 3), "argument 'grid'"),
    (lambda: graphc.index_select(x, 0, [0]), "argument 'index'"),
    (lambda: graphc.masked_fill(x, True, 0.0), "argument 'mask'"),
    (lambda: graphc.mm(x, 3), "argument 'mat2'"),
    (lambda: graphc.sum(x, True), "dim must be int, not bool"),
    (lambda: x.unsqueeze(1.5), "dim must be int, not float"),
    (lambda: x.chunk(1.5), "chunks must be int, not float"),
    (lambda: x.requires_grad_(1), "must be bool, not int"),
    (lambda: x.copy_("a"), "must be Tensor"),
    (lambda: graphc.arange(), "must be Number, not NoneType"),
])  # fmt: skip
def test_what_is_expected_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_errors_of_the_users_own_code_stay_what_they_are() -> None:
    class Strange(graphc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.no_such_method()

    with pytest.raises(AttributeError, match="no_such_method"):
        Strange.apply(x)
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        graphc.sum(x).missing()


@pytest.mark.parametrize(("call", "error"), [
    (lambda: graphc.flatten(graphc.tensor(1.0), 0, 1), IndexError),
    (lambda: graphc.ones(2, 2, dtype=graphc.bool) @ graphc.ones(2, 2), RuntimeError),
    (lambda: graphc.optim.SGD([graphc.nn.Parameter(x)], lr=graphc.ones(2)), ValueError),
    (lambda: graphc.nn.LSTM(0, 3), ValueError),
])  # fmt: skip
def test_arguments_that_make_no_sense(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_numbers_are_copied_everywhere() -> None:
    y = graphc.zeros(2, 2, dtype=graphc.int64)
    assert y.copy_(3).tolist() == [[3, 3], [3, 3]] and graphc.arange(end=2).tolist() == [0, 1]
