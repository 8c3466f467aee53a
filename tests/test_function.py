"""User-defined operations: what forward may do, and what backward may return."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from leaves import leaf

import graphc
from graphc.autograd import Function, grad
from graphc.errors import AutogradError


class Change(Function):
    """Doubles its input in place; the gradient is multiplied by 5, so as to tell it from that of mul_."""

    @staticmethod
    def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> Any:
        return ct * 5


def test_inputs_changed_in_place() -> None:
    x = leaf(1, 2)
    y = x * 1
    out = Change.apply(y)
    assert out is y
    assert type(y.grad_fn).__name__ == "ChangeBackward"
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5, 5]
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad has been used in an in-place operation"):
        Change.apply(leaf(1))


def test_views_changed_in_place() -> None:
    x = leaf(1, 2)
    y = x * 1
    Change.apply(y[:1])
    assert type(y.grad_fn).__name__ == "CopySlices"
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5, 1]


def test_changed_inputs_have_to_be_returned() -> None:
    class Forgets(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            ctx.mark_dirty(x)
            return x * 2

    with pytest.raises(RuntimeError, match="must all be outputs"):
        Forgets.apply(leaf(1) * 1)


def test_views_that_are_returned_cannot_be_changed() -> None:
    class Turn(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x.view(2, 1)

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct.view(2) * 5

    x = leaf(1, 2)
    base = x * 1
    out = Turn.apply(base)
    with pytest.raises(RuntimeError, match="This view was created inside a custom Function"):
        out.mul_(2)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5, 5]


def test_other_results_pass_through() -> None:
    class Mixed(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> Any:
            counts = x.long()
            extra = x * 3
            ctx.mark_non_differentiable(extra)
            return x * 2, 3, None, counts, extra

        @staticmethod
        def backward(ctx: Any, *cts: Any) -> Any:
            seen.append([None if ct is None else ct.tolist() for ct in cts])
            return cts[0]

    seen: list[Any] = []
    y, number, nothing, counts, extra = Mixed.apply(leaf(1, 2))
    assert (number, nothing) == (3, None)
    assert not counts.requires_grad
    assert not extra.requires_grad
    y.sum().backward()
    assert seen == [[[1, 1], None, None, None, None]]


def test_keywords_and_defaults() -> None:
    class Scale(Function):
        @staticmethod
        def forward(x: graphc.Tensor, by: float = 3.0, *, plus: float = 0.0) -> graphc.Tensor:
            return x * by + plus

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            seen.append(len(inputs))
            ctx.by = inputs[1]

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct * ctx.by, None

    seen: list[int] = []
    x = leaf(1, 2)
    Scale.apply(x).sum().backward()
    Scale.apply(x, by=2.0).sum().backward()
    assert seen == [2, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [5, 5]


def test_what_is_needed_is_told_also_where_nothing_is_recorded() -> None:
    class Needs(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor, y: graphc.Tensor, k: int) -> graphc.Tensor:
            seen.append(ctx.needs_input_grad)
            return x * y

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct, None, None

    seen: list[Any] = []
    Needs.apply(leaf(1), graphc.ones(1), 2)
    with graphc.no_grad():
        assert not Needs.apply(leaf(1), graphc.ones(1), 2).requires_grad
    assert seen == [(True, False, False)] * 2


def returning(*gradients: Any) -> type[Function]:
    class Returns(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor, k: int) -> graphc.Tensor:
            return x * k

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return gradients

    return Returns


@pytest.mark.parametrize("gradients, kind, message", [
    ((graphc.ones(2).double(),), RuntimeError, r"incorrect number of gradients \(expected 2, got 1\)"),
    ((graphc.ones(2).double(), None, graphc.ones(2)), RuntimeError, r"incorrect number of gradients \(expected 2, got 3\)"),
    ((graphc.ones(3).double(), None), RuntimeError, r"invalid gradient at index 0 - got \[3\] but expected shape compatible"),
    ((3.0, None), TypeError, r"expected Variable or None \(got float\)"),
    ((None, graphc.ones(2)), RuntimeError, "gradient different than None at position 2"),
])
def test_what_backward_returns_is_checked(gradients: Any, kind: type[Exception], message: str) -> None:
    out = returning(*gradients).apply(leaf(1, 2), 3)
    with pytest.raises(kind, match=message):
        out.sum().backward()


def test_gradients_are_brought_to_the_type_of_their_argument() -> None:
    x = leaf(1, 2)
    returning(graphc.ones(3, 2), None, None, None).apply(x, 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3]
    assert x.grad.dtype is graphc.float64


def test_misuse_is_named() -> None:
    class Saves(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            ctx.save_for_backward(3)
            return x

    class NoBackward(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

    with pytest.raises(TypeError, match="can only save variables, but argument 0 is of type int"):
        Saves.apply(leaf(1))
    with pytest.raises(NotImplementedError, match="either the backward or vjp method"):
        NoBackward.apply(leaf(1)).backward()
    with pytest.raises(NotImplementedError, match="implement the forward function"):
        Function.apply(leaf(1))
    with pytest.warns(DeprecationWarning, match="should not be instantiated"):
        made = NoBackward()
    with pytest.raises(RuntimeError, match="Legacy autograd function"):
        made(leaf(1))


def test_backward_may_be_called_vjp() -> None:
    class Named(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

        @staticmethod
        def vjp(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct * 7

    x = leaf(1)
    Named.apply(x).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [7]


def test_saved_tensors_are_guarded_and_freed() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            y = x * x
            ctx.save_for_backward(x, y, None)
            return y

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            x, y, nothing = ctx.saved_tensors
            assert nothing is None
            assert y.requires_grad == ct.requires_grad or y.requires_grad
            return ct * 2 * y / x

    x = leaf(1, 2)
    y = Square.apply(x)
    (g,) = graphc.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = graphc.autograd.grad(g.sum(), x)
    assert h.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="second time"):
        graphc.autograd.grad(g.sum() + y.sum(), x)
    z = x * 1
    out = Square.apply(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    gc.collect()
    gc.disable()
    try:
        watched = weakref.ref(Square.apply(x).grad_fn)
        assert watched() is None  # without the help of the collector
    finally:
        gc.enable()


def test_functions_with_setup_context_and_several_outputs() -> None:
    class Split(Function):
        @staticmethod
        def forward(x):
            return x * 2, x.argmax(), x + 1

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0], output[0])
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx, a, index, b):
            x, doubled = ctx.saved_tensors
            assert index is None and doubled.tolist() == [2, 4]
            return a * 2 + b * x

    x = leaf(1, 2)
    a, index, b = Split.apply(x)
    assert not index.requires_grad and a.grad_fn is b.grad_fn and b.output_nr == 2
    b.sum().backward()  # a takes no part: its gradient comes as zeros
    assert x.grad.tolist() == [1, 2]


def test_missing_gradients_can_come_as_none() -> None:
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx, a, b):
            seen.append((a, b))
            return b

    Two.apply(leaf(1))[1].backward()
    assert seen[0][0] is None and seen[0][1].tolist() == [1]


def test_once_differentiable_says_so() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @graphc.autograd.once_differentiable
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0]

    x = leaf(3)
    (g,) = grad(Square.apply(x), x, create_graph=True)
    assert g.item() == 6
    with pytest.raises(AutogradError, match="once_differentiable"):
        g.backward()


def test_a_function_may_return_its_input() -> None:
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 5

    x = leaf(1)
    y = Same.apply(x)
    assert y is not x and y.data_ptr() == x.data_ptr()
    y.backward()
    assert x.grad.item() == 5 and x.is_leaf
