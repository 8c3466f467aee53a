"""Tensors on a GPU with the kernels that would run there: a stand-in for CuPy, and the emulator."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from cuda_runs import trained

import graphc
from graphc import gpu, nn
from graphc.errors import BackendError, DimError

F = nn.functional

pytestmark = pytest.mark.skipif(cupy_stand_in.cuda_emulator.COMPILER is None, reason="the emulator needs g++")


@pytest.fixture(autouse=True)
def gpus() -> Iterator[Any]:
    with cupy_stand_in.installed(interpreted=False) as cupy:
        yield cupy


def test_eager_ops_are_kernels() -> None:
    x = graphc.randn(3, 4)
    y = x.cuda()
    np.testing.assert_allclose((y.t()[1:] * 2.5).sum(1).tolist(), (x.t()[1:] * 2.5).sum(1).tolist(), rtol=1e-5)
    for z in (x, y):
        z[::2] += 1
        z.t()[0].mul_(3.0)
    np.testing.assert_allclose(y.tolist(), x.tolist(), rtol=1e-6)
    assert y.sort(1).values.tolist() == y.cpu().sort(1).values.tolist()  # by the host
    graphc.manual_seed(1)
    drawn = graphc.rand(5, device="cuda")
    graphc.manual_seed(1)
    assert drawn.tolist() == graphc.rand(5).tolist()
    assert cupy_stand_in.Module.emulator.launches > 5


def test_gpus_that_kernels_cannot_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_stand_in.Device, "compute_capability", "75")
    x = graphc.tensor([1.0, 1.0, 1.0]).cuda()
    with pytest.raises(BackendError, match=r"cuda:0, a GPU of compute capability 7\.5(.|\n)*8\.0 or later"):
        x + 1
    assert x.tolist() == [1, 1, 1]  # memory is there all the same


def test_an_index_out_of_bounds_is_an_error() -> None:
    table = graphc.randn(5, 2, device="cuda")
    assert table[graphc.tensor([4, -5], device="cuda")].tolist() == table.cpu()[[4, 0]].tolist()
    wrong = table.gather(0, graphc.tensor([[7, 0]], device="cuda"))  # which nobody waits for
    with pytest.raises(DimError, match="out of bounds"):
        wrong.tolist()
    assert wrong.tolist() == [[table[4, 0].item(), table[0, 1].item()]]  # the nearest place was read
    assert (table + 1).is_cuda  # the process goes on
    nothing = graphc.empty(0, 2, device="cuda")
    with pytest.raises(DimError, match="out of bounds"):  # there is no place to go on with
        nothing.gather(0, graphc.tensor([[0, 0]], device="cuda"))


@pytest.mark.parametrize("wait", ["call", "synchronize", "event", "stream"])
def test_a_wrong_index_in_a_compiled_function_is_heard_of(wait: str) -> None:
    """One launch has it all, without a look at the indices in between; and who waits hears of it."""
    f = graphc.compile(lambda t, i: (t[i] * 2).sum(0) + t.exp()[0])
    table, index = graphc.randn(5, 2), graphc.tensor([4, 0, 3])
    there, places = table.cuda(), index.cuda()
    for _ in range(4):
        np.testing.assert_allclose(f(there, places).tolist(), f(table, index).tolist(), rtol=1e-5)
    downloads = cupy_stand_in.state.downloads
    for _ in range(4):
        f(there, places)
    assert cupy_stand_in.state.downloads == downloads + 4  # of what is reported, which nobody waits for
    event = graphc.cuda.Event()
    wrong = graphc.tensor([4, 5, 3]).cuda()
    f(there, wrong)
    event.record()
    looks = {"call": lambda: f(there, places), "synchronize": graphc.cuda.synchronize, "event": event.synchronize,
             "stream": graphc.cuda.current_stream().synchronize}
    with pytest.raises(DimError, match="out of bounds"):
        looks[wait]()
    np.testing.assert_allclose(f(there, places).tolist(), f(table, index).tolist(), rtol=1e-5)


def test_a_wrong_index_is_heard_of_before_another_stream_is_done() -> None:
    table, index = graphc.randn(5, 2).cuda(), graphc.tensor([4, 0, 3]).cuda()
    f = graphc.compile(lambda t, i: (t[i] * 2).sum(0))
    f(table, index)
    cupy_stand_in.state.is_slow = True
    with graphc.cuda.stream(graphc.cuda.Stream()):
        f(table, index)
    cupy_stand_in.state.is_slow = False
    f(table, index + 2)
    with pytest.raises(DimError, match="out of bounds"):
        graphc.cuda.current_stream().synchronize()


def test_a_training_step_is_replayed() -> None:
    def run(device: str) -> list[Any]:
        return trained(device, features=(4, 8, 3), rows=6)

    with graphc.cuda.stream(graphc.cuda.Stream()):
        there = run("cuda")
    np.testing.assert_allclose(there, run("cpu"), rtol=1e-4, atol=1e-6)
    assert cupy_stand_in.Module.emulator.launches > 10


@pytest.mark.parametrize("kind", [graphc.optim.AdamW, graphc.optim.SGD])
def test_a_training_step_waits_for_nothing(kind: Any) -> None:
    """What an optimizer counts on the CPU is computed there; and a rate that a schedule changes makes no new recording."""

    def run(device: str) -> tuple[list[float], Any]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(device)
        optimizer = kind(model.parameters(), lr=0.1)
        schedule = graphc.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        x, y = graphc.randn(6, 4).to(device), (graphc.arange(6) % 3).to(device)

        @graphc.compile
        def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        losses = []
        for k in range(16):
            if k == 8:
                before = cupy_stand_in.state.waits, cupy_stand_in.state.captures
            losses.append(step(x, y))
            schedule.step()
        assert before == (cupy_stand_in.state.waits, cupy_stand_in.state.captures)
        counts = [state["step"] for state in optimizer.state.values() if "step" in state]
        assert all(not count.is_cuda and count.item() == 16 for count in counts)
        return [loss.item() for loss in losses], len(counts)

    there, here = run("cuda"), run("cpu")
    np.testing.assert_allclose(there[0], here[0], rtol=1e-4, atol=1e-6)
    assert there[1] == here[1]


def test_gradients_take_the_places_of_those_before() -> None:
    """But of those that somebody else has, or a part of; and one recording is enough."""
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to("cuda")
    x = graphc.randn(6, 4).to("cuda")

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss.detach()

    def grads() -> list[graphc.Tensor]:
        return [parameter.grad for parameter in model.parameters()]

    def places() -> list[int]:
        return [grad.data_ptr() for grad in grads()]

    for _ in range(6):
        loss = step(x)
    first, captures = places(), cupy_stand_in.state.captures
    for _ in range(3):
        loss = step(x)
        assert places() == first
    assert cupy_stand_in.state.captures == captures
    kept, part, numbers = grads()[0], grads()[1][2:4], [grad.tolist() for grad in grads()]
    used = graphc.cuda.memory_allocated()
    other = x * 2
    step(other)
    assert [a == b for a, b in zip(places(), first)] == [False, False, True, True]
    assert kept.tolist() == numbers[0] and part.tolist() == numbers[1][2:4]
    assert graphc.cuda.memory_allocated() > used
    there = [grad.tolist() for grad in grads()]
    model.zero_grad()
    model(other).square().mean().backward()
    for got, want in zip(there, grads(), strict=True):
        np.testing.assert_allclose(got, want.tolist(), rtol=1e-4, atol=1e-6)
    del loss


def test_what_is_on_the_cpu_beside_a_gpu() -> None:
    """Small and large inputs, in any order of memory, those that are written over, and what is computed of them alone."""
    small, large, turned = graphc.arange(4.0), graphc.randn(2000), graphc.randn(3, 4).t()
    count, there = graphc.zeros(2, dtype=graphc.int64), graphc.randn(4, 3).cuda()

    @graphc.compile
    def f(small: Any, large: Any, turned: Any, count: Any, there: Any) -> Any:
        count.add_(1)
        turned.mul_(2.0)
        sum_ = (turned.cuda() + there).sum() + large.cuda().mean() + small.cuda().sum() * count.cuda()[0]
        return sum_, turned.sum() + small.sum(), small * 2, sum_.cpu()

    for k in range(1, 5):
        small += 1
        double = turned.clone() * 2
        found = f(small, large, turned, count, there)
        expected = (double + there.cpu()).sum() + large.mean() + small.sum() * k
        assert [x.is_cuda for x in found] == [True, False, False, False]
        np.testing.assert_allclose([found[0].item(), found[3].item()], expected.item(), rtol=1e-5)
        np.testing.assert_allclose(found[1].item(), (double.sum() + small.sum()).item(), rtol=1e-5)
        assert found[2].tolist() == (small * 2).tolist() and turned.tolist() == double.tolist()
        assert count.tolist() == [k, k]


def test_what_is_on_the_cpu_beside_sizes_that_change() -> None:
    count = graphc.zeros(())

    @graphc.compile(dynamic=True)
    def f(x: Any, count: Any) -> Any:
        count.add_(1)
        return (x * count).sum(0)

    for rows in (3, 5, 4):
        x = graphc.randn(rows, 2)
        there = x.cuda()
        f(there, count)
        waits = cupy_stand_in.state.waits
        found = f(there, count)
        assert cupy_stand_in.state.waits == waits
        np.testing.assert_allclose(found.tolist(), (x * count).sum(0).tolist(), rtol=1e-5)
    assert count.item() == 6


def test_small_inputs_of_several_streams_and_threads() -> None:
    f = graphc.compile(lambda x, scale: x * scale.cuda() + scale.cuda().sum())
    x = graphc.arange(5.0).cuda()
    f(x, graphc.ones(5))
    wrong: list[Any] = []

    def call(first: int) -> None:
        with graphc.cuda.stream(graphc.cuda.Stream()):
            wrong.extend(k for k in range(first, first + 20)
                         if f(x, graphc.full((5,), float(k))).tolist() != [k * i + 5.0 * k for i in range(5)])

    threads = [threading.Thread(target=call, args=(100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Net(nn.Module):
    """With something of all kinds that a call rests on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = 2.0

    def forward(self, x: graphc.Tensor, flip: bool = False) -> graphc.Tensor:
        y = self.linear(x) * self.scale
        y = F.relu(y) if self.training else y
        return -y if flip else y


def _other_weights(net: Net) -> None:
    net.linear.weight = nn.Parameter(graphc.ones(2, 3).cuda())


def _data_of_weights(net: Net) -> None:
    net.linear.weight.data = graphc.ones(2, 3).cuda()


CHANGES: dict[str, Any] = {
    "weights": _other_weights,
    "memory of weights": _data_of_weights,
    "numbers of weights": lambda net: net.linear.weight.data.fill_(3.0),
    "mode": lambda net: net.eval(),
    "attribute": lambda net: setattr(net, "scale", -3.0),
    "gradients": lambda net: net.linear.bias.requires_grad_(False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_short_way_into_a_graph_is_left_when_the_world_changes(change: str) -> None:
    net = Net().cuda()
    with graphc.no_grad():
        f = graphc.compile(lambda x: net(x))
        x = graphc.randn(4, 3).cuda()
        for _ in range(4):
            f(x)
        served = [graph.entry.calls for graphs in f._graphs.values() for graph in graphs if graph.entry is not None]
        assert len(served) == 1 and served[0] >= 1
        CHANGES[change](net)
        for _ in range(4):
            np.testing.assert_allclose(f(x).tolist(), net(x).tolist(), rtol=1e-5)


def test_arguments_of_other_kinds_do_not_come_the_short_way() -> None:
    net = Net().cuda()
    f = graphc.compile(net)
    x = graphc.randn(4, 3).cuda()
    with graphc.no_grad():
        rows = graphc.randn(8, 3).cuda()
        others = [x.double().float(), graphc.randn(5, 3).cuda(), graphc.randn(3, 4).cuda().t(), x[1:3], rows[2:6]]
        for other in (x, *others, x):
            for _ in range(4):
                np.testing.assert_allclose(f(other).tolist(), net(other).tolist(), rtol=1e-5)
        for flip in (True, False, True):
            for _ in range(4):
                np.testing.assert_allclose(f(x, flip).tolist(), net(x, flip).tolist(), rtol=1e-5)
                np.testing.assert_allclose(f(x, flip=flip).tolist(), net(x, flip).tolist(), rtol=1e-5)
    y = x.clone().requires_grad_()
    f(y).sum().backward()
    assert y.grad is not None and y.grad.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        f(x.cpu())


def test_a_tensor_that_shares_memory_with_what_is_written() -> None:
    state = graphc.zeros(6).cuda()

    @graphc.compile
    def f(x: graphc.Tensor) -> graphc.Tensor:
        state.add_(1.0)
        return state + x

    x = graphc.arange(6.0).cuda()
    for k in range(1, 6):
        assert f(x).tolist() == [k + i for i in range(6)]
    assert f(state).tolist() == [12.0] * 6 and f(state[:]).tolist() == [14.0] * 6
    assert f(x).tolist() == [8.0 + i for i in range(6)]


def test_a_gradient_that_comes_from_either_device() -> None:
    x = graphc.arange(3.0).cuda().requires_grad_()
    f = graphc.compile(lambda x: (x * x).sum())
    for seed in (graphc.tensor(2.0).cuda(), graphc.tensor(3.0).cuda()):
        x.grad = None
        f(x).backward(seed)
        assert x.grad.tolist() == [0.0, 2 * seed.item(), 4 * seed.item()]


def test_a_profile_has_the_kernels_of_a_gpu() -> None:
    f = graphc.compile(lambda x, y: ((x @ y).softmax(1), x.sum()))
    x, y = graphc.randn(34, 40).cuda(), graphc.randn(40, 36).cuda()
    for _ in range(4):
        f(x, y)
    captures = cupy_stand_in.state.captures
    with graphc.profiler.profile(activities=[graphc.profiler.ProfilerActivity.CUDA]) as prof:
        for _ in range(3):
            f(x, y)
    kernels = [event for event in prof.events() if event.kind == "kernel"]
    assert {event.thread for event in kernels} == {-1} and prof._threads[-1] == "GPU 0"
    products = [event for event in kernels if event.detail["kind"] == "gemm"]
    assert len(products) == 3, [event.name for event in kernels]
    assert all(event.flops == 2 * 34 * 40 * 36 and event.time > 0 for event in products)
    assert all(before.stop <= after.start for before, after in itertools.pairwise(kernels))
    assert cupy_stand_in.state.captures == captures
    np.testing.assert_allclose(f(x, y)[1].item(), x.sum().item(), rtol=1e-5)
    with graphc.profiler.profile() as prof:  # eager ops are kernels, too
        (x * 2).exp()
    assert [event.name for event in prof.events() if event.kind == "kernel"] == ["mul", "exp"]


def test_reports_are_heard_in_their_order_when_they_are_there() -> None:
    class Moment:
        done = False

    first, second = Moment(), Moment()
    heard: list[int] = []

    def hear(numbers: np.ndarray) -> None:
        heard.append(int(numbers[0]))

    for moment, number in ((first, 1), (second, 2)):
        gpu.report(moment, np.array([number]), hear)
    second.done = True
    gpu.look()
    assert heard == []
    first.done = True
    gpu.look()
    gpu.look()
    assert heard == [1, 2]
