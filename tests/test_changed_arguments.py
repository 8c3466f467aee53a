"""Arguments that a compiled function changes in place, and that take part in autograd: contents, versions, histories and
gradients are those of eager code, to the second order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autograd import Function
from graphc.errors import AutogradError

w = graphc.tensor([1.0, 2.0, 3.0], requires_grad=True)
Arguments = tuple[list[graphc.Tensor], graphc.Tensor]
NUMBERS = [[0.5, -1.0, 2.0], [1.5, 0.2, -0.7]]


def result_of_a_computation() -> Arguments:
    leaf = graphc.tensor(NUMBERS, requires_grad=True)
    return [leaf], leaf * 1.5


def view_of_a_result() -> Arguments:
    leaf = graphc.tensor([*NUMBERS, [1.0, 1.0, 1.0]], requires_grad=True)
    return [leaf], (leaf * 1.5)[1:]


def plain_tensor() -> Arguments:
    return [], graphc.tensor(NUMBERS)


def leaf() -> Arguments:
    leaf = graphc.tensor(NUMBERS, requires_grad=True)
    return [leaf], leaf


def view_of_a_leaf() -> Arguments:
    leaf = graphc.tensor(NUMBERS, requires_grad=True)
    return [leaf], leaf[:]


def scaled(x: graphc.Tensor) -> Any:
    x.mul_(2)
    return x.sum()


def returned(x: graphc.Tensor) -> Any:
    return x.sin_()


def nothing_returned(x: graphc.Tensor) -> Any:
    x.exp_()


def by_a_parameter(x: graphc.Tensor) -> Any:
    x.mul_(w)
    return (x * x).sum(0)


def in_part(x: graphc.Tensor) -> Any:
    x[0].mul_(w)
    return x.cumsum(0)


def twice(x: graphc.Tensor) -> Any:
    x.mul_(2)
    x.add_(w)
    return x.t()


def overwritten(x: graphc.Tensor) -> Any:
    x.copy_(w.expand(2, 3))
    return x * 2


def views_returned(x: graphc.Tensor) -> Any:
    x.mul_(w)
    return x[0], x.view(-1)


def hidden(x: graphc.Tensor) -> Any:
    y = x + 1
    with graphc.no_grad():
        x.mul_(2)
    return (x * x * w).sum(), y


def by_way_of_detach(x: graphc.Tensor) -> Any:
    x.detach().mul_(3)
    return x * w


def on_a_condition(x: graphc.Tensor) -> Any:
    if x.sum() > 0:
        x.mul_(w)
    return x * 2


def saved_and_changed(x: graphc.Tensor) -> Any:
    y = x * x
    x.mul_(2)
    return y


def asks_what_it_is(x: graphc.Tensor) -> Any:
    return x * (2.0 if x.is_leaf else 3.0)


CHANGES = [scaled, returned, nothing_returned, by_a_parameter, in_part, twice, overwritten, views_returned, hidden,
           by_way_of_detach, on_a_condition, saved_and_changed, asks_what_it_is]  # fmt: skip
ARGUMENTS = [result_of_a_computation, view_of_a_result, plain_tensor, leaf, view_of_a_leaf]


def seen(function: Callable[[graphc.Tensor], Any], make: Callable[[], Arguments], order: int) -> list[Any]:
    """Everything that one call leaves to be seen, or the kind of error that it or the backward pass ends in."""
    leaves, argument = make()
    found: list[Any] = []
    try:
        result = function(argument)
        results = [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]
        tensors = [argument, *results]
        found += [t.detach().numpy().copy() for t in tensors]
        found += [argument._version, *((t is argument, t.is_leaf, t.requires_grad) for t in tensors)]
        weighted = (t * t * graphc.linspace(0.5, 1.5, t.numel()).reshape(t.shape) for t in tensors if t.requires_grad)
        total: Any = sum(t.sum() for t in weighted)
        for k in range(order):
            if not isinstance(total, graphc.Tensor) or not total.requires_grad:
                break
            grads = graphc.autograd.grad(total, [*leaves, w], create_graph=k + 1 < order, allow_unused=True)
            found += [None if g is None else g.detach().numpy().copy() for g in grads]
            total = sum((g * g).sum() for g in grads if g is not None and g.requires_grad)
    except RuntimeError as error:
        found.append(type(error))
    return found


@pytest.mark.parametrize("make", ARGUMENTS)
@pytest.mark.parametrize("function", CHANGES)
def test_changes_are_those_of_eager_code(function: Callable[[graphc.Tensor], Any], make: Callable[[], Arguments]) -> None:
    compiled = graphc.compile(function)
    for order in (1, 2, 1, 2):
        expected, got = seen(function, make, order), seen(compiled, make, order)
        assert len(expected) == len(got), (expected, got)
        for left, right in zip(expected, got, strict=True):
            if isinstance(left, np.ndarray):
                np.testing.assert_allclose(right, left, 1e-4, 1e-5)
            else:
                assert left == right
    if function not in (saved_and_changed, asks_what_it_is) and make not in (leaf, view_of_a_leaf):
        assert "1 graph" in compiled.explain()


def test_a_backward_pass_that_fails_fails_where_it_is() -> None:
    compiled = graphc.compile(saved_and_changed)
    _, x = result_of_a_computation()
    y = compiled(x)
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_change_under_no_grad_of_a_view_of_a_leaf() -> None:
    leaves, x = view_of_a_leaf()

    @graphc.compile
    def f(x: graphc.Tensor) -> None:
        with graphc.no_grad():
            x.mul_(2)

    f(x)
    np.testing.assert_array_equal(leaves[0].detach(), np.float32(NUMBERS) * 2)
    assert leaves[0].is_leaf


def test_a_tensor_from_outside_is_given_a_history_once() -> None:
    state = graphc.zeros(3)

    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        state.mul_(0.5).add_(w * x)
        return state.sum()

    x = graphc.tensor([1.0, 2.0, 3.0])
    (slope,) = graphc.autograd.grad(f(x), w)
    assert slope.tolist() == [1.0, 2.0, 3.0]
    assert state.requires_grad and state.tolist() == [1.0, 4.0, 9.0]


def test_each_call_makes_a_tensor_of_numbers_of_its_own_and_gives_it_a_history() -> None:
    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        t = graphc.tensor([1.0, 2.0])
        t.mul_(x)
        return t

    x = graphc.tensor([3.0, 4.0], requires_grad=True)
    first, second = f(x), f(x)
    assert first is not second and first.tolist() == second.tolist() == [3.0, 8.0]
    assert graphc.autograd.grad(second.sum(), x)[0].tolist() == [1.0, 2.0]


class Cube(Function):
    """Whose backward is not the derivative of its forward."""

    @staticmethod
    def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> graphc.Tensor:
        (x,) = ctx.saved_tensors
        return ct * x * 5


class Once(Cube):
    """That can be differentiated once."""

    backward = staticmethod(graphc.autograd.function.once_differentiable(Cube.backward))


def hooked(x: graphc.Tensor) -> graphc.Tensor:
    y = x * x
    y.register_hook(lambda ct: ct * 10)
    return y * x


@pytest.mark.parametrize("function", [Cube.apply, hooked, lambda x: Cube.apply(Cube.apply(x) * x) + hooked(x)])
def test_derivatives_of_derivatives_are_those_of_the_tape(function: Callable[[graphc.Tensor], graphc.Tensor]) -> None:
    def second(f: Callable[[graphc.Tensor], graphc.Tensor]) -> list[Any]:
        x = graphc.tensor([0.5, -2.0], requires_grad=True)
        weights = graphc.tensor([2.0, 3.0], requires_grad=True)
        (slope,) = graphc.autograd.grad(f(x), x, weights, create_graph=True)
        return [slope.tolist(), *(g.tolist() for g in graphc.autograd.grad((slope * slope).sum(), [x, weights]))]

    compiled = graphc.compile(function)
    expected = second(function)
    for _ in range(3):
        np.testing.assert_allclose(np.array(second(compiled)), np.array(expected), 1e-5)


def test_what_can_be_differentiated_once_says_so_the_second_time() -> None:
    x = graphc.tensor([0.5, -2.0], requires_grad=True)
    (slope,) = graphc.autograd.grad(graphc.compile(Once.apply)(x).sum(), x, create_graph=True)
    assert slope.tolist() == [2.5, -10.0]
    with pytest.raises(AutogradError):
        slope.sum().backward()


def test_a_third_derivative_through_a_users_backward_says_what_to_do() -> None:
    x = graphc.tensor([0.5, -2.0], requires_grad=True)
    y = graphc.compile(lambda x: Cube.apply(x) * x * x)(x).sum()
    (first,) = graphc.autograd.grad(y, x, create_graph=True)
    with pytest.raises(AutogradError, match="third derivative"):
        graphc.autograd.grad(first.sum(), x, create_graph=True)


def test_what_a_derivative_does_not_read_may_change() -> None:
    """Running statistics, say, between a forward pass and a derivative of its derivative."""
    seen = graphc.zeros(2)

    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        with graphc.no_grad():
            seen.add_(x)
        return x * x * x

    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    y = f(x)
    f(x)
    (slope,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
    slope.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6.0, 12.0] and seen.tolist() == [2.0, 4.0]
