"""vmap: what a function gives for a batch is what it gives for each element, whatever it does inside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.autograd import Function
from graphc.func import functional_call, grad, stack_module_state, vmap
from graphc.nn import functional as F

RNG = np.random.default_rng(0)


def draw(*shape: int) -> graphc.Tensor:
    return graphc.tensor(RNG.uniform(0.2, 1.0, shape))


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    assert a.dtype is b.dtype
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


def loop(function: Callable[..., Any], *args: graphc.Tensor) -> graphc.Tensor:
    return graphc.stack([function(*row) for row in zip(*args)])


W = draw(4, 5)
BATCH = draw(3, 2, 4)

FUNCTIONS: dict[str, Callable[[graphc.Tensor], graphc.Tensor]] = {
    "arithmetic": lambda x: (x * 2 + 1) / x - x**2,
    "broadcast": lambda x: x + x.sum(0) + x.mean(),
    "new dimensions": lambda x: x[:, None] * x[None],
    "matmul": lambda x: x @ W,
    "matmul from the right": lambda x: W.t() @ x.t(),
    "product with itself": lambda x: x @ x.t(),
    "linear": lambda x: F.linear(x, W.t(), W[0]),
    "einsum": lambda x: graphc.einsum("ij,kj->ik", x, x),
    "reductions": lambda x: x.sum(1) * x.amax(1) - x.prod(1) + x.var(1),
    "all": lambda x: x.sum() + x.max() + x.norm(),
    "argmax": lambda x: x.argmax(1),
    "sort": lambda x: x.sort(1, descending=True)[0],
    "topk": lambda x: x.topk(2, dim=1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "softmax": lambda x: F.softmax(x, -1),
    "layer norm": lambda x: F.layer_norm(x, (4,)),
    "cross entropy": lambda x: F.cross_entropy(x, graphc.tensor([1, 3])),
    "embedding": lambda x: F.embedding((x * 3).long(), W),
    "views": lambda x: x.reshape(4, 2).t().unsqueeze(0).expand(3, 2, 4).permute(2, 0, 1).flatten(1),
    "flip": lambda x: x.flip(1).roll(1, 0),
    "slices": lambda x: x[1, ::2] + x[0, -2:],
    "index": lambda x: x[:, graphc.tensor([2, 0, 0])],
    "gather": lambda x: x.gather(1, graphc.tensor([[0, 1], [3, 3]])),
    "scatter": lambda x: graphc.zeros(2, 5, dtype=x.dtype).scatter_add(1, graphc.tensor([[0, 1, 1, 4], [0, 0, 0, 2]]), x),
    "where": lambda x: graphc.where(x > 0.5, x, x.sum()),
    "mask": lambda x: x.masked_fill(x > 0.5, 0.0),
    "cat": lambda x: graphc.cat([x, W.t()[:2], x * 2], 0),
    "stack": lambda x: graphc.stack([x[0], x[1], W[:, 0]]),
    "split": lambda x: functools.reduce(lambda a, b: a * b, x.split(2, 1)),
    "pad": lambda x: F.pad(x, (1, 2)),
    "triangle": lambda x: x.tril(),
    "diagonal": lambda x: x.diagonal(),
    "pooling": lambda x: F.max_pool1d(x[None], 2)[0] + F.avg_pool1d(x[None], 2)[0],
    "unfold": lambda x: x.unfold(1, 2, 1),
    "inverse": lambda x: graphc.linalg.inv(x[:, :2] + 2 * graphc.eye(2, dtype=x.dtype)),
    "casts": lambda x: (x * 10).int().double() + x.float(),
    "constants": lambda x: x + graphc.arange(4) + graphc.ones(2, 1) + 3,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    f = FUNCTIONS[name]
    close(vmap(f)(BATCH), loop(f, BATCH))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled(name: str) -> None:
    f = FUNCTIONS[name]
    close(graphc.compile(vmap(f))(BATCH), loop(f, BATCH))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_flow_through(name: str) -> None:
    f = FUNCTIONS[name]
    x, y = (BATCH.clone().requires_grad_() for _ in range(2))
    whole, parts = vmap(f)(x), loop(f, y)
    if not whole.requires_grad:
        assert not parts.requires_grad
        return
    weight = graphc.arange(whole.numel(), dtype=graphc.float64).cos().reshape(whole.shape).to(whole.dtype)
    (whole * weight).sum().backward()
    (parts * weight).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    close(x.grad, y.grad)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_each(name: str) -> None:
    f = FUNCTIONS[name]
    if not f(BATCH[0]).dtype.is_floating_point:
        return

    def total(x: graphc.Tensor) -> graphc.Tensor:
        y = f(x)
        return (y * graphc.arange(y.numel(), dtype=y.dtype).cos().reshape(y.shape)).sum().double()

    close(vmap(grad(total))(BATCH), loop(grad(total), BATCH))


def test_dimensions_of_arguments_and_results() -> None:
    x, y = draw(2, 3, 4), draw(3, 5)
    out = vmap(lambda a, b: (a, a[0] * b[0]), in_dims=(1, 0), out_dims=(2, -1))(x, y)
    assert out[0].shape == (2, 4, 3)
    close(out[0], x.permute(0, 2, 1))
    close(out[1], graphc.stack([x[0, i] * y[i, 0] for i in range(3)], 1))
    close(vmap(lambda a, b: a + b, in_dims=(0, None))(y, y[0]), y + y[0])
    nested = vmap(lambda d, k: d["a"] * d["b"][0] * k, in_dims=({"a": 1, "b": (-1, None)}, None))
    close(nested({"a": y, "b": (y, 7)}, 2), graphc.stack([y[:, i] ** 2 * 2 for i in range(5)]))


def test_results_that_are_the_same_for_all_are_repeated_or_not() -> None:
    x = draw(3, 2)
    repeated, plain, other = vmap(lambda a: (W[0], W[0], "text"), out_dims=(0, None, None))(x)
    assert repeated.shape == (3, 5)
    assert plain is not None
    assert plain.shape == (5,)
    assert other == "text"


def test_nested() -> None:
    a, b = draw(3, 4), draw(5, 4)
    close(vmap(lambda x: vmap(lambda y: x @ y)(b))(a), a @ b.t())
    close(vmap(vmap(graphc.dot, in_dims=(None, 0)), in_dims=(0, None))(a, b), a @ b.t())


def test_promotion_is_that_of_the_elements() -> None:
    scale, vector = graphc.ones(2, dtype=graphc.float64), graphc.ones(3)
    assert vmap(lambda s, v: s * v, in_dims=(0, None))(scale, vector).dtype is graphc.float32


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_chunks(chunk_size: int) -> None:
    x = draw(5, 4)
    out = vmap(lambda a: (a.sum(), {"twice": a * 2}), out_dims=(0, {"twice": 1}), chunk_size=chunk_size)(x)
    close(out[0], x.sum(1))
    close(out[1]["twice"], (x * 2).t())


def test_a_batch_of_none() -> None:
    assert vmap(lambda x: (x @ W).sum(0))(graphc.ones(0, 2, 4, dtype=graphc.float64)).shape == (0, 5)


# In place


def test_what_is_made_inside_can_be_changed() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x.clone()
        view = y[1:]
        y[0] = 7.0
        y.add_(x)
        view.mul_(2)
        z = graphc.zeros(4, dtype=x.dtype)
        z[1] = view[0]
        z[x > 0.5] = -1.0
        return graphc.cat([y, z])

    x = draw(3, 4)
    close(vmap(f)(x), loop(f, x))


def test_arguments_are_changed_outside() -> None:
    x = draw(2, 3)
    before = x.clone()

    def f(column: graphc.Tensor) -> graphc.Tensor:
        column.mul_(3)
        column[0] = 1.0
        return column.sum()

    out = vmap(f, in_dims=1)(x)
    assert x[0].tolist() == [1, 1, 1]
    close(x[1], before[1] * 3)
    close(out, x.sum(0))


def test_what_all_share_cannot_take_different_values() -> None:
    shared = graphc.zeros(3, dtype=graphc.float64)
    with pytest.raises(RuntimeError, match="vmap: inplace arithmetic"):
        vmap(shared.add_)(draw(2, 3))
    with pytest.raises(RuntimeError, match="vmap: inplace arithmetic"):
        vmap(lambda x: shared[0].copy_(x[0]))(draw(2, 3))
    assert shared.tolist() == [0, 0, 0]
    vmap(lambda x: shared.add_(1))(draw(2, 3))
    assert shared.tolist() == [1, 1, 1]


# Random numbers


def test_randomness() -> None:
    x = graphc.zeros(4, 1)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda a: a + graphc.rand(2))(x)
    same = vmap(lambda a: a + graphc.rand(2), randomness="same")(x)
    assert (same == same[0]).all()
    different = vmap(lambda a: a + graphc.rand(2), randomness="different")(x)
    assert len({tuple(row) for row in different.tolist()}) == 4
    dropped = vmap(lambda a: F.dropout(a.expand(100), 0.5), randomness="different")(x + 1)
    assert 0.3 < (dropped == 0).float().mean().item() < 0.7


def test_random_streams_go_on_after_what_a_batch_has_drawn() -> None:
    graphc.manual_seed(3)
    first = vmap(lambda a: graphc.rand(3), randomness="different")(graphc.zeros(4))
    after = graphc.rand(5)
    assert not set(after.tolist()) & set(first.flatten().tolist())
    graphc.manual_seed(3)
    again = vmap(lambda a: graphc.rand(3), randomness="different")(graphc.zeros(4))
    assert (first == again).all()
    assert (after == graphc.rand(5)).all()


def test_chunks_of_one_stream() -> None:
    same = vmap(lambda a: graphc.rand(3), randomness="same", chunk_size=2)(graphc.zeros(5))
    assert (same == same[0]).all()


# Modules


def test_an_ensemble() -> None:
    models = [nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.BatchNorm1d(3)).eval() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    assert parameters["0.weight"].shape == (3, 3, 4)
    assert parameters["0.weight"].is_leaf
    assert parameters["0.weight"].requires_grad
    x = draw(6, 4).float()
    out = vmap(lambda p, b: functional_call(models[0], (p, b), x))(parameters, buffers)
    close(out, graphc.stack([m(x) for m in models]), 1e-5)
    with pytest.raises(RuntimeError, match="same class"):
        stack_module_state([nn.Linear(1, 1), nn.ReLU()])


def test_gradients_for_each_example() -> None:
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)
    model = nn.Sequential(*layers)
    parameters = dict(model.named_parameters())
    x, y = draw(5, 2, 6, 6).float(), graphc.tensor([0, 1, 2, 1, 0])

    def loss(parameters: Any, x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    compiled = graphc.compile(vmap(grad(loss), in_dims=(None, 0, 0)))(parameters, x, y)
    for i in range(5):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            close(found[name][i], parameter.grad, 1e-5)
            close(compiled[name][i], parameter.grad, 1e-5)


# Custom functions


class Cube(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: graphc.Tensor, k: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        return x**3 * k, x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor, _: Any) -> Any:
        x, k = ctx.saved_tensors
        return ct * 3 * x**2 * k * 10, ct * x**3  # ten times too large, so as to be told from the true one


def test_functions_with_a_generated_rule() -> None:
    x, k = draw(4, 3), draw(3)
    close(vmap(lambda a: Cube.apply(a, k)[0])(x), x**3 * k)
    close(vmap(grad(lambda a: Cube.apply(a, k)[0].sum()))(x), 30 * x**2 * k)
    close(grad(lambda a: vmap(lambda row: Cube.apply(row, k)[0])(a).sum())(x), 30 * x**2 * k)
    a, b = x.clone().requires_grad_(), k.clone().requires_grad_()
    out, plain = vmap(lambda row: Cube.apply(row, b))(a)
    assert not plain.requires_grad
    out.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    close(a.grad, 30 * x**2 * k)
    close(b.grad, (x**3).sum(0))


def test_functions_with_a_rule_of_their_own() -> None:
    class Twice(Function):
        @staticmethod
        def forward(x: graphc.Tensor, dim: int) -> graphc.Tensor:
            return x.cumsum(dim)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.dim = inputs[1]

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct.flip(ctx.dim).cumsum(ctx.dim).flip(ctx.dim), None

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: graphc.Tensor, dim: int) -> Any:
            seen.append((info.batch_size, info.randomness, in_dims))
            return Twice.apply(x.movedim(in_dims[0], 0), dim + 1), 0

    seen: list[Any] = []
    x = draw(4, 2, 3)
    close(vmap(lambda a: Twice.apply(a, 1))(x), x.cumsum(2))
    assert seen == [(4, "error", (0, None))]
    slope = graphc.tensor([3.0, 2.0, 1.0], dtype=x.dtype).expand(4, 2, 3)
    close(grad(lambda a: vmap(lambda row: Twice.apply(row, 1))(a).sum())(x), slope)


def test_functions_without_a_rule() -> None:
    class Plain(Function):
        @staticmethod
        def forward(x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

    class Old(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

    with pytest.raises(RuntimeError, match="does not have vmap support"):
        vmap(Plain.apply)(draw(2))
    with pytest.raises(RuntimeError, match="must override the setup_context staticmethod"):
        vmap(Old.apply)(draw(2))


# Errors


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: vmap(lambda: 1)(), ValueError, "got no inputs"),
    (lambda x: vmap(lambda a, b: a)(x, x[0]), ValueError, "same size in the mapped dimension"),
    (lambda x: vmap(lambda a: a, in_dims=2)(x), ValueError, "expected in_dim to satisfy"),
    (lambda x: vmap(lambda a: a)(x[0, 0]), ValueError, "dimensionality 0"),
    (lambda x: vmap(lambda a: a, in_dims=None)(x), ValueError, "expected `in_dims` to be int or"),
    (lambda x: vmap(lambda a: a, in_dims=(None,))(x), ValueError, "at least one Tensor"),
    (lambda x: vmap(lambda a: a, in_dims=(0, 0))(x), ValueError, "not compatible with the structure of `inputs`"),
    (lambda x: vmap(lambda a, b: a)(x, 2), ValueError, "non-Tensor arguments"),
    (lambda x: vmap(lambda a: 3)(x), ValueError, "must only return Tensors"),
    (lambda x: vmap(lambda a: a, out_dims=None)(x), ValueError, "BatchedTensor when out_dim is None"),
    (lambda x: vmap(lambda a: (a, a), out_dims=(0, 0, 0))(x), ValueError, "structure of `outputs`"),
    (lambda x: vmap(lambda a: a, out_dims="0")(x), ValueError, "must be an int, None or"),
    (lambda x: vmap(lambda a: a, randomness="some"), RuntimeError, "'error', 'different', or 'same'"),
    (lambda x: vmap(lambda a: a, chunk_size=0), ValueError, "greater than 0"),
    (lambda x: vmap(lambda a: a[0].item())(x), RuntimeError, r"\.item\(\) of a tensor that stands for a batch"),
    (lambda x: vmap(lambda a: a if a[0] > 0 else -a)(x), RuntimeError, "data-dependent control flow"),
])
def test_misuse_is_named(call: Callable[[graphc.Tensor], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(draw(2, 3))


def test_what_escapes_says_so() -> None:
    kept = []
    vmap(lambda x: kept.append(x * 2) or x)(draw(2, 3))  # type: ignore[func-returns-value]
    with pytest.raises(RuntimeError, match="after the function has returned"):
        kept[0] + 1


def test_gradients_of_what_was_recorded_outside() -> None:
    """The older way to a Jacobian: the backward pass for a batch of cotangents."""
    x = draw(3).requires_grad_()
    y = (x * x).cumsum(0)
    rows = vmap(lambda v: graphc.autograd.grad(y, x, v, retain_graph=True)[0])(graphc.eye(3, dtype=x.dtype))
    close(rows, graphc.func.jacrev(lambda x: (x * x).cumsum(0))(x.detach()))


@pytest.mark.parametrize("make, shapes", [
    (lambda: nn.LSTM(4, 5), [(6, 4)]), (lambda: nn.MultiheadAttention(8, 2), [(5, 8)] * 3),
    (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), [(2, 4, 4)]), (lambda: nn.GroupNorm(2, 4), [(1, 4, 5)]),
    (lambda: nn.Bilinear(4, 4, 3), [(4,), (4,)]), (lambda: nn.PReLU(), [(4,)]),
])
def test_modules(make: Callable[[], nn.Module], shapes: Any) -> None:
    graphc.manual_seed(0)
    module = make()
    inputs = [graphc.randn(3, *shape) for shape in shapes]
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters: Any, *args: graphc.Tensor) -> graphc.Tensor:
        out = functional_call(module, parameters, args)
        return ((out[0] if isinstance(out, tuple) else out) ** 2).sum()

    dims = (None, *[0] * len(inputs))
    close(vmap(loss, dims)(parameters, *inputs), graphc.stack([loss(parameters, *row) for row in zip(*inputs)]), 1e-4)
    found = vmap(grad(loss), dims)(parameters, *inputs)
    for i, row in enumerate(zip(*inputs)):
        module.zero_grad()
        loss(dict(module.named_parameters()), *row).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            close(found[name][i], parameter.grad, 1e-3)
