"""Mixed precision: what runs in which dtype, and scaled gradients."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.amp import GradScaler, autocast, custom_bwd, custom_fwd

X = graphc.tensor(np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32))


@pytest.mark.parametrize("dtype", [graphc.bfloat16, graphc.float16])
@pytest.mark.parametrize("call", [
    lambda: X @ X, lambda: X.mm(X), lambda: F.linear(X, X, X[0]), lambda: graphc.addmm(X, X, X), lambda: X[None].bmm(X[None]),
    lambda: F.conv1d(X[None], X[:, :, None], X[0]), lambda: F.conv_transpose1d(X[None], X[:, :, None]),
    lambda: F.scaled_dot_product_attention(X, X, X, X), lambda: nn.Bilinear(4, 4, 2)(X, X),
    lambda: graphc.baddbmm(X[None], X[None], X[None]), lambda: nn.MultiheadAttention(4, 2)(X, X, X)[0],
])
def test_products_run_in_the_smaller_dtype(call, dtype: graphc.dtype) -> None:
    graphc.manual_seed(0)
    wanted = call()
    graphc.manual_seed(0)
    with autocast("cpu", dtype):
        got = call()
    assert wanted.dtype is graphc.float32 and got.dtype is dtype
    np.testing.assert_allclose(got.float().detach().numpy(), wanted.detach().numpy(), rtol=0.1, atol=0.1)


def test_everything_else_keeps_its_dtype() -> None:
    with graphc.autocast("cpu"):
        assert (X + X).dtype is graphc.float32 and X.exp().dtype is graphc.float32
        assert (X.double() @ X.double()).dtype is graphc.float64
        assert (X.long() @ X.long()).dtype is graphc.int64
        assert (X.half() @ X).dtype is graphc.bfloat16
        assert nn.LSTM(4, 3)(X[None])[0].shape[-1] == 3
    assert (X @ X).dtype is graphc.float32


def test_losses_are_computed_in_single_precision() -> None:
    low, target = X.bfloat16(), graphc.tensor([0, 1, 2, 3])
    with autocast("cpu"):
        assert F.cross_entropy(low, target).dtype is graphc.float32
        assert F.mse_loss(low, low * 2).dtype is graphc.float32
        assert F.binary_cross_entropy_with_logits(low, X).dtype is graphc.float32
        wanted = F.mse_loss(low.float(), (low * 2).float())
        np.testing.assert_allclose(F.mse_loss(low, low * 2).item(), wanted.item(), rtol=1e-6)
    assert F.mse_loss(low, low * 2).dtype is graphc.bfloat16


def test_gradients_have_the_dtype_of_their_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model(X).pow(2).mean().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with autocast("cpu"):
        loss = F.mse_loss(model(X), graphc.zeros(4, 2))
    loss.backward()
    for p, w in zip(model.parameters(), wanted):
        assert p.grad.dtype is graphc.float32
        np.testing.assert_allclose(p.grad.numpy(), w.numpy(), atol=0.02)


def test_nesting_decorating_and_asking() -> None:
    @autocast("cpu", dtype=graphc.float16)
    def product() -> graphc.Tensor:
        assert graphc.is_autocast_enabled("cpu") and graphc.get_autocast_dtype("cpu") is graphc.float16
        with autocast("cpu", enabled=False):
            assert (X @ X).dtype is graphc.float32 and not graphc.is_autocast_enabled("cpu")
        return X @ X

    assert product().dtype is graphc.float16 and not graphc.is_autocast_enabled("cpu")
    assert graphc.get_autocast_dtype("cpu") is graphc.bfloat16
    seen: list[graphc.dtype] = []
    with autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append((X @ X).dtype))
        thread.start()
        thread.join()
    assert seen == [graphc.float32]
    with pytest.raises(ValueError, match="stop"), autocast("cpu"):
        raise ValueError("stop")
    assert (X @ X).dtype is graphc.float32


def test_what_cannot_be_is_switched_off_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="CUDA is not available"), autocast("cuda"):
        assert (X @ X).dtype is graphc.float32
    with pytest.warns(UserWarning, match="not supported"), autocast("cpu", graphc.float64):
        assert (X @ X).dtype is graphc.float32
    with pytest.warns(UserWarning, match="CUDA is not available"), graphc.cuda.amp.autocast():
        assert (X @ X).dtype is graphc.float32
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert not graphc.cuda.amp.GradScaler().is_enabled()
    assert not graphc.cuda.amp.GradScaler(enabled=False).is_enabled()
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        autocast("tpu")


def test_a_compiled_function_has_a_graph_for_each_precision() -> None:
    run = graphc.compile(lambda x: x @ x)
    kinds = []
    for _ in range(3):
        kinds.append(run(X).dtype)
        with autocast("cpu"):
            kinds.append(run(X).dtype)
    assert kinds == [graphc.float32, graphc.bfloat16] * 3

    @graphc.compile
    def inside(x: graphc.Tensor) -> graphc.Tensor:
        with autocast("cpu"):
            return (x @ x).float()

    with autocast("cpu"):
        wanted = (X @ X).float()
    np.testing.assert_allclose(inside(X).numpy(), wanted.numpy(), rtol=0.02, atol=0.02)


def test_custom_functions() -> None:
    class Square(graphc.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu", cast_inputs=graphc.float32)
        def forward(ctx, x: graphc.Tensor) -> graphc.Tensor:
            ctx.save_for_backward(x)
            assert x.dtype is graphc.float32 and not graphc.is_autocast_enabled("cpu")
            return x @ x

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, grad: graphc.Tensor) -> graphc.Tensor:
            (x,) = ctx.saved_tensors
            assert not graphc.is_autocast_enabled("cpu")
            return grad @ x.mT + x.mT @ grad

    x = X.bfloat16().requires_grad_()
    with autocast("cpu"):
        y = Square.apply(x)
    assert y.dtype is graphc.float32
    y.sum().backward()
    assert x.grad.dtype is graphc.bfloat16


# Scaled gradients


def train(scaler: GradScaler, grads: list[float]) -> tuple[list[float], list[float]]:
    """Steps of SGD on one number with the gradients given: its values, and the factors."""
    p = nn.Parameter(graphc.zeros(1))
    optimizer = graphc.optim.SGD([p], lr=1.0)
    values, scales = [], []
    for grad in grads:
        optimizer.zero_grad()
        scaler.scale((p * grad).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        values.append(p.item())
        scales.append(scaler.get_scale())
    return values, scales


def test_steps_with_infinite_gradients_are_left_out() -> None:
    inf = float("inf")
    scaler = GradScaler("cpu", init_scale=8.0, growth_factor=4.0, backoff_factor=0.5, growth_interval=2)
    values, scales = train(scaler, [1.0, inf, 1.0, 1.0, float("nan")])
    assert values == [-1, -1, -2, -3, -3] and scales == [8, 4, 4, 16, 8]
    other = GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == {
        "scale": 8.0, "growth_factor": 4.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 0}
    off = GradScaler("cpu", enabled=False)
    assert train(off, [1.0])[0] == [-1] and off.get_scale() == 1 and off.state_dict() == {}
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert not GradScaler().is_enabled()


def test_small_gradients_survive_in_half_precision() -> None:
    p = nn.Parameter(graphc.ones(1, dtype=graphc.float16))
    scaler, optimizer = GradScaler("cpu", init_scale=2.0**16), graphc.optim.SGD([p], 1.0)
    # 2^-30, the product of the factors, is zero in float16
    scaler.scale((p * 2.0**-15).float().sum() * 2.0**-15).backward()
    assert p.grad.item() == 2.0**-14
    scaler.unscale_(optimizer)
    assert p.grad.item() == 0
    outputs = scaler.scale([graphc.ones(1), (graphc.ones(1, dtype=graphc.float16),)])
    assert outputs[0].item() == 2.0**16 and outputs[1][0].dtype is graphc.float16


def test_the_order_of_calls() -> None:
    p = nn.Parameter(graphc.ones(1))
    optimizer, scaler = graphc.optim.SGD([p], 1.0), GradScaler("cpu", init_scale=2.0)
    with pytest.raises(RuntimeError, match="No inf checks were recorded for this optimizer"):
        scaler.step(optimizer)
    scaler.update(4.0)
    assert scaler.get_scale() == 4
    with pytest.raises(RuntimeError, match="prior to update"):
        scaler.update()
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    assert p.grad.item() == 1
    with pytest.raises(RuntimeError, match="already been called on this optimizer"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called since"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(optimizer, closure=lambda: 0)
    assert p.item() == 0


A = graphc.tensor([[2.0, 1.0], [0.0, 3.0]])
SMALL = {
    "einsum": lambda x: graphc.einsum("ij,kj->ik", x, x), "inner": lambda x: graphc.inner(x, x),
    "tensordot": lambda x: graphc.tensordot(x, x, 1), "vecdot": lambda x: graphc.linalg.vecdot(x, x),
    "prelu": lambda x: nn.functional.prelu(x, graphc.tensor([0.1])), "addmm": lambda x: graphc.addmm(x, x, x),
    "lstm": lambda x: nn.LSTM(2, 3)(x)[0],
}
LARGE = {
    "prod": lambda x: x.prod(), "trace": graphc.trace, "cdist": lambda x: graphc.cdist(x, x),
    "quantile": lambda x: graphc.quantile(x, 0.5), "inverse": graphc.inverse, "svd": lambda x: graphc.linalg.svd(x)[1],
    "solve": lambda x: graphc.linalg.solve(x, x), "cholesky": lambda x: graphc.linalg.cholesky(x @ x.mT),
    "pinv": graphc.pinverse, "eigvals": lambda x: graphc.linalg.eigvalsh(x), "rank": lambda x: graphc.linalg.cond(x),
    "fft": lambda x: graphc.fft.fft(x).real, "pool": lambda x: nn.functional.avg_pool3d(x[None, None], 1),
    "reflect": lambda x: nn.functional.pad(x[None], (1, 1), mode="reflect"), "lstsq": lambda x: graphc.linalg.lstsq(x, x)[0],
    "grid": lambda x: nn.functional.grid_sample(x[None, None], graphc.zeros(1, 2, 2, 2)),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_is_made_of_products_runs_in_the_smaller_dtype(name: str) -> None:
    with graphc.autocast("cpu"):
        assert SMALL[name](A).dtype is graphc.bfloat16


@pytest.mark.parametrize("name", LARGE)
def test_what_needs_precision_runs_in_float32(name: str) -> None:
    expected = LARGE[name](A)
    with graphc.autocast("cpu"):
        out = LARGE[name](A.bfloat16())
        assert out.dtype is graphc.float32
        np.testing.assert_allclose(out, expected, rtol=1e-2, atol=1e-3)
    if name not in ("prod", "trace", "cdist", "pool", "reflect"):
        with pytest.raises(RuntimeError):  # by itself it does not
            LARGE[name](A.bfloat16())


def test_copied_rows_take_the_larger_dtype() -> None:
    with graphc.autocast("cpu"):
        assert graphc.index_copy(graphc.ones(2, 2), 0, graphc.tensor([0]), A[:1].bfloat16()).dtype is graphc.float32
        assert graphc.mv(A, A[0]).dtype is graphc.float32 and graphc.addmv(A[0], A, A[0]).dtype is graphc.float32
