"""Compiled functions of tensors on a GPU, which a stand-in for CuPy plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import BackendError, TraceError
from graphc.frontend import eager

F = nn.functional


@pytest.fixture(autouse=True)
def gpus() -> Iterator[Any]:
    while not eager.begun:  # native functions have to leave tensors on GPUs alone
        eager.begin()
    with cupy_stand_in.installed() as cupy:
        yield cupy


def both(function: Callable[..., Any], *arguments: graphc.Tensor, calls: int = 3) -> graphc.Tensor:
    """The result on the GPU, compiled, which is that on the CPU, eagerly, at each of some calls."""
    compiled = graphc.compile(function)
    there = [x.cuda() for x in arguments]
    for _ in range(calls):
        expected, found = function(*arguments), compiled(*there)
        assert found.device == graphc.device("cuda:0") and (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found.tolist(), expected.tolist(), rtol=1e-5, atol=1e-6)
    return found


def test_functions_of_tensors_on_a_gpu() -> None:
    x, y = graphc.randn(3, 4), graphc.randn(4, 3)
    both(lambda x, y: (x @ y).relu().sum(0), x, y)
    both(lambda x, y: x.t() * y - 2, x, y)
    both(lambda x, y: x[1:, ::2] + y[:2, 1:], x, y)
    both(lambda x, y: x.sort(1).values, x, y)
    both(lambda x, y: graphc.linalg.svdvals(x), x, y)
    weight = graphc.randn(4, 2)
    there = weight.cuda()
    f = graphc.compile(lambda x: x @ there)
    for _ in range(2):
        np.testing.assert_allclose(f(x.cuda()).tolist(), (x @ weight).tolist(), rtol=1e-5)
    there.add_(1)
    np.testing.assert_allclose(f(x.cuda()).tolist(), (x @ (weight + 1)).tolist(), rtol=1e-5)


def test_one_function_has_a_graph_for_each_device() -> None:
    f = graphc.compile(lambda x: x * 2)
    x = graphc.ones(3)
    for device in ("cpu", "cuda:0", "cuda:1", "cpu", "cuda:1", "cuda:0"):
        assert f(x.to(device)).device == graphc.device(device)
    assert f.explain().count("graph @") == 3


def test_what_moves_between_devices_inside() -> None:
    x = graphc.randn(3)
    f = graphc.compile(lambda x: (x.cpu() * 2, x + 1, graphc.zeros(2), graphc.ones(2, device=x.device), x.device, x.is_cuda))
    for _ in range(3):
        doubled, more, zeros, ones, device, is_cuda = f(x.cuda())
        assert doubled.is_cpu and zeros.is_cpu and more.is_cuda and ones.is_cuda and is_cuda and device == more.device
        assert doubled.tolist() == (x * 2).tolist() and more.tolist() == (x + 1).tolist()
    g = graphc.compile(lambda x, y: (x.to(y.device) + y).cpu())
    for _ in range(2):
        assert g(x, x.cuda()).is_cpu and g(x, x.cuda()).tolist() == (x + x).tolist()
    w = graphc.randn(3, requires_grad=True)
    h = graphc.compile(lambda w: (w.cuda() * 3).sum().cpu())
    h(w).backward()
    assert w.grad.is_cpu and w.grad.tolist() == [3, 3, 3]


def test_devices_that_do_not_go_together() -> None:
    x = graphc.ones(3)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but found at least two"):
        graphc.compile(lambda x, y: x + y)(x, x.cuda())
    with pytest.raises(TraceError, match="a graph runs on one GPU"):
        graphc.compile(lambda x, y: (x + 1, y + 1))(x.cuda(0), x.cuda(1))
    assert graphc.compile(lambda x, n: x * n)(x.cuda(), graphc.tensor(2.0)).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="cannot compute on tensors of cuda:0"):
        graphc.compile(lambda x: x + 1, backend="llvm")(x.cuda())
    with pytest.raises(RuntimeError, match="verify=True"):
        graphc.compile(lambda x: x + 1, verify=True)(x.cuda())


def test_the_back_end_can_be_named_for_tensors_of_the_cpu() -> None:
    f = graphc.compile(lambda x: (x * 2).sum(), backend="cuda")
    x = graphc.ones(3, requires_grad=True)
    for _ in range(2):
        assert f(x).is_cpu and f(x).item() == 6
    f(x).backward()
    assert x.grad.is_cpu and x.grad.tolist() == [2, 2, 2]


def test_without_a_gpu_the_back_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.frontend import device_arrays

    monkeypatch.setattr(cupy_stand_in.state, "devices", 0)
    monkeypatch.setattr(device_arrays, "_cupy", None)
    with pytest.raises(BackendError, match="no CUDA device"):
        graphc.compile(lambda x: x * 2, backend="cuda")(graphc.ones(3))


def test_changes_in_place_are_written_back() -> None:
    def change(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        x.mul_(2)
        y[:, 0] = x.sum(0)[0]
        return x + y

    f = graphc.compile(change)
    here, there = [graphc.ones(2, 3), graphc.zeros(2, 3)], [graphc.ones(2, 3).cuda(), graphc.zeros(3, 2).cuda().t()]
    for _ in range(3):
        assert change(*here).tolist() == f(*there).tolist()
        assert [x.tolist() for x in here] == [x.tolist() for x in there] and there[1].stride() == (1, 2)
    counter = graphc.zeros((), dtype=graphc.int64)
    g = graphc.compile(lambda x: (counter.add_(1), x * counter)[1])
    x = graphc.ones(2, device="cuda")
    assert [g(x)[0].item() for _ in range(3)] == [1, 2, 3] and counter.is_cpu and counter.item() == 3


def test_python_asks_for_numbers() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        if x.sum() > 0:
            return x * 2
        while x.amax() < 3:
            x = x + 1
        return x - x.mean().item()

    compiled = graphc.compile(f)
    for sign in (1, -1, 1, -1, -1, 1):
        x = graphc.tensor([1.0, 2.0, 4.0]) * sign
        assert compiled(x.cuda()).tolist() == f(x).tolist()
    seen: list[Any] = []
    g = graphc.compile(lambda x: (seen.append(x.sum().item()), x + 1)[1])
    for k in range(3):
        assert g(graphc.full((2,), float(k), device="cuda")).tolist() == [k + 1, k + 1]
    assert seen == [0, 2, 4]


def test_gradients_outside_and_inside() -> None:
    def loss(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return (x @ w).softmax(1).square().sum()

    def run(device: str, function: Callable[..., graphc.Tensor]) -> list[Any]:
        graphc.manual_seed(0)
        x, w = graphc.randn(4, 3).to(device).requires_grad_(), graphc.randn(3, 5).to(device).requires_grad_()
        found = []
        for _ in range(2):
            x.grad = w.grad = None
            function(x, w).backward()
            found += [x.grad.tolist(), w.grad.tolist()]
            assert x.grad.device == x.device
        (slope,) = graphc.autograd.grad(function(x, w), x, create_graph=True)
        return [*found, *graphc.autograd.grad(slope.sum(), w)[0].tolist()]

    for here, there in zip(run("cpu", loss), run("cuda", graphc.compile(loss)), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)
    slopes = graphc.compile(graphc.func.vmap(graphc.func.grad(lambda x: (x**3).sum())))
    assert slopes(graphc.tensor([[1.0], [2.0]], device="cuda")).tolist() == [[3.0], [12.0]]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_training_steps(optimizer: str) -> None:
    def run(device: str, compiled: bool) -> list[Any]:
        graphc.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                              nn.Dropout(0.2), nn.Linear(36, 5)).to(device)
        stepper = getattr(graphc.optim, optimizer)(model.parameters(), lr=0.01)
        schedule = graphc.optim.lr_scheduler.StepLR(stepper, 2)
        x, y = graphc.randn(6, 1, 8, 8).to(device), graphc.arange(6).to(device) % 5
        graphc.manual_seed(2)

        def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
            stepper.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            stepper.step()
            return loss

        function = graphc.compile(step) if compiled else step
        losses = []
        for _ in range(5):
            losses.append(function(x, y).item())
            schedule.step()
        assert all(t.device.type == device for t in (*model.parameters(), *model.buffers()))
        assert model[6].weight.grad.device.type == device
        return [*losses, *model[1].running_mean.tolist(), *model[6].bias.tolist(), model[1].num_batches_tracked.item()]

    np.testing.assert_allclose(run("cuda", True), run("cpu", False), rtol=2e-4, atol=2e-5)


def test_random_numbers_of_compiled_functions() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        return F.dropout(x) + graphc.rand(3, device=x.device) + graphc.randn_like(x)

    compiled = graphc.compile(f)
    graphc.manual_seed(5)
    expected = [f(graphc.ones(3)).tolist() for _ in range(3)]
    graphc.manual_seed(5)
    np.testing.assert_allclose([compiled(graphc.ones(3, device="cuda")).tolist() for _ in range(3)], expected, rtol=1e-6)


def test_sizes_that_change() -> None:
    f = graphc.compile(lambda x: (x * 2).sum(0) / x.shape[0])
    for size in (3, 4, 5, 1, 7):
        x = graphc.randn(size, 2)
        np.testing.assert_allclose(f(x.cuda()).tolist(), ((x * 2).sum(0) / size).tolist(), rtol=1e-5, atol=1e-6)


def test_control_flow_inside_one_graph() -> None:
    both(lambda a: graphc.while_loop(lambda y: (y * y - a).abs().max() > 1e-4, lambda y: (y + a / y) / 2, (a,))[0],
         graphc.tensor([2.0, 9.0]))
    both(lambda x: graphc.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,)), graphc.tensor([1.0, 2.0]))
    x = graphc.tensor([1.0, 2.0], device="cuda")
    assert graphc.scan(lambda c, y: (c + y, c * y), graphc.zeros((), device="cuda"), x)[0].item() == 3


def test_modules_that_move_are_traced_again() -> None:
    model = nn.Linear(3, 2)
    compiled = graphc.compile(model)
    x = graphc.randn(4, 3)
    expected = model(x).tolist()
    for device in ("cpu", "cuda", "cpu", "cuda:1"):
        model.to(device)
        for _ in range(2):
            found = compiled(x.to(device))
            assert found.device == model.weight.device
            np.testing.assert_allclose(found.tolist(), expected, rtol=1e-5)
