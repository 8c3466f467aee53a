"""Tensors in memory that processes share, sent by queues and pipes and as arguments; and processes that fail."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.multiprocessing as mp

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="memory is shared by passing files between processes")

METHODS = mp.get_all_start_methods()


def double(*tensors: graphc.Tensor) -> None:
    for tensor in tensors:
        tensor.mul_(2)


def answer(inbox: Any, outbox: Any) -> None:
    """Double what comes, tell what it was, and stay until the other side has looked."""
    while (tensor := inbox.get()) is not None:
        with graphc.no_grad():
            tensor.mul_(2)
        outbox.put((type(tensor).__name__, tensor.requires_grad, tensor.is_shared(), tuple(tensor.stride()), tensor))
    inbox.get()


def check_ties(module: graphc.nn.Module, whole: graphc.Tensor, part: graphc.Tensor) -> None:
    assert module[0].weight is module[1].weight
    part.fill_(5)
    assert whole.tolist() == [0, 5, 5, 0]


def send_and_go(queue: Any) -> None:
    queue.put(graphc.ones(2))


def set_rank(rank: int, tensor: graphc.Tensor, value: float = 1.0) -> None:
    tensor[rank] = rank + value


def fail(rank: int, how: str) -> None:
    if rank == 0:
        time.sleep(60)
    if how == "raise":
        raise ValueError("no such luck ä")
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def started(method: str, function: Any, *args: object) -> Any:
    process = mp.get_context(method).Process(target=function, args=args)
    process.start()
    return process


def finish(process: Any) -> None:
    process.join(120)
    assert process.exitcode == 0


# Moving tensors


def test_moving_to_shared_memory() -> None:
    x = graphc.arange(6.0).view(2, 3)
    assert not x.is_shared() and x.share_memory_() is x and x.is_shared() and x.tolist() == [[0, 1, 2], [3, 4, 5]]
    pointer = x.data_ptr()
    assert x.share_memory_().data_ptr() == pointer
    assert x[0].is_shared() and x.t().is_shared() and x.detach().is_shared() and not x.clone().is_shared()
    assert not (x + 1).is_shared()
    x[0, 0] = 9
    assert x.numpy()[0, 0] == 9


def test_a_view_takes_what_it_is_a_view_of_along() -> None:
    whole = graphc.zeros(4)
    part = whole[1:3]
    part.share_memory_().fill_(5)
    assert whole.is_shared() and whole.tolist() == [0, 5, 5, 0]
    assert part.data_ptr() - whole.data_ptr() == 4


@pytest.mark.parametrize("tensor", [
    graphc.zeros(0, 3), graphc.tensor(2.0), graphc.arange(6).view(2, 3).t(), graphc.ones(3, 1).expand(3, 4),
    graphc.from_numpy(np.asfortranarray(np.arange(6.0).reshape(2, 3))), graphc.tensor([True, False]),
    graphc.from_numpy(np.frombuffer(bytearray(range(16)), np.uint8)[::2]),
])  # fmt: skip
def test_layouts_are_kept(tensor: graphc.Tensor) -> None:
    numbers, strides = tensor.tolist(), tensor.stride()
    assert tensor.share_memory_().is_shared() and tensor.tolist() == numbers
    assert tensor.stride() == strides or not tensor.is_contiguous() or tensor.numel() == 8


def test_what_is_trained_stays_what_it_was() -> None:
    net = graphc.nn.Linear(2, 1)
    before = [p.tolist() for p in net.parameters()]
    weight = net.weight
    assert net.share_memory() is net and net.weight is weight and weight.is_shared() and weight.requires_grad
    assert [p.tolist() for p in net.parameters()] == before
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.5)
    net(graphc.ones(1, 2)).sum().backward()
    optimizer.step()
    assert weight.is_shared() and weight.tolist() == (np.array(before[0], np.float32) - np.float32(0.5)).tolist()


# Sending tensors


@pytest.mark.parametrize("method", METHODS)
def test_arguments_share_memory(method: str) -> None:
    shared, other = graphc.ones(3).share_memory_(), graphc.ones(2, 2).share_memory_().t()
    finish(started(method, double, shared, other, other))
    assert shared.tolist() == [2, 2, 2] and other.tolist() == [[4, 4], [4, 4]]


def test_arguments_move_to_shared_memory() -> None:
    x = graphc.ones(2)
    finish(started("spawn", double, x))
    assert x.is_shared() and x.tolist() == [2, 2]


def test_tied_weights_and_views_stay_tied() -> None:
    layer = graphc.nn.Linear(2, 2)
    module = graphc.nn.Sequential(layer, graphc.nn.Linear(2, 2))
    module[1].weight = layer.weight
    whole = graphc.zeros(4)
    finish(started("spawn", check_ties, module, whole, whole[1:3]))
    assert whole.tolist() == [0, 5, 5, 0]


@pytest.mark.parametrize("method", METHODS)
def test_queues_pass_memory_both_ways(method: str) -> None:
    context = mp.get_context(method)
    inbox, outbox = context.Queue(), context.SimpleQueue()
    process = started(method, answer, inbox, outbox)
    sent = [graphc.ones(3), graphc.nn.Parameter(graphc.ones(2, 2)), graphc.arange(6.0).view(2, 3).t()[1:],
            graphc.ones(1, dtype=graphc.float16), graphc.zeros(0)]
    expected = [(2 * x).tolist() for x in sent]
    for x, numbers in zip(sent, expected):
        inbox.put(x)
        kind, requires_grad, shared, strides, back = outbox.get()
        assert (kind, requires_grad) == (type(x).__name__, x.requires_grad) and shared and strides == x.stride()
        assert x.tolist() == back.tolist() == numbers and type(back) is type(x)
        with graphc.no_grad():
            back += 1
        assert x.tolist() == back.tolist()
    for _ in range(2):
        inbox.put(None)
    finish(process)


def test_what_comes_twice_is_mapped_once() -> None:
    queue = mp.get_context("fork").SimpleQueue()
    x = graphc.ones(4).share_memory_()
    queue.put(x)
    first = queue.get()
    queue.put(x[1:])
    second = queue.get()
    assert second.data_ptr() - first.data_ptr() == 4
    second.zero_()
    assert x.tolist() == first.tolist() == [1, 0, 0, 0]


def test_results_of_operations_are_not_sent() -> None:
    x = graphc.ones(2, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match=r"(?s)Cowardly refusing to serialize non-leaf tensor.*detach\(\)"):
        mp.get_context("fork").SimpleQueue().put(x)
    queue = mp.get_context("fork").SimpleQueue()
    queue.put(x.detach())
    assert queue.get().tolist() == [2, 2]


def test_a_sender_that_has_gone_is_named() -> None:
    queue = mp.get_context("fork").SimpleQueue()
    finish(started("fork", send_and_go, queue))
    with pytest.raises(RuntimeError, match=r"(?s)the process that sent it has ended.*keep it alive"):
        queue.get()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files in /proc")
def test_memory_and_files_are_given_back() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    x = graphc.ones(10).share_memory_()
    view = x[2:]
    del x
    gc.collect()
    assert view.sum().item() == 8 and len(os.listdir("/proc/self/fd")) > before
    del view
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    if os.path.isdir("/dev/shm"):
        assert not [name for name in os.listdir("/dev/shm") if "graphc" in name]


# spawn


@pytest.mark.parametrize("method", METHODS)
def test_one_process_a_rank(method: str) -> None:
    t = graphc.zeros(3).share_memory_()
    mp.start_processes(set_rank, (t, 10.0), nprocs=3, start_method=method)
    assert t.tolist() == [10, 11, 12]


def test_processes_to_join_later() -> None:
    t = graphc.zeros(2).share_memory_()
    context = mp.spawn(set_rank, (t,), nprocs=2, join=False)
    assert len(context.pids()) == 2
    while not context.join(timeout=60):
        pass
    assert t.tolist() == [1, 2] and context.join()
    with pytest.warns(FutureWarning, match="only supports start_method=spawn"):
        mp.spawn(set_rank, (t,), nprocs=1, start_method="fork")


@pytest.mark.parametrize("how, kind, message", [
    ("raise", mp.ProcessRaisedException, r"(?s)-- Process 1 terminated with the following error:.*in fail.*no such luck ä"),
    ("exit", mp.ProcessExitedException, "process 1 terminated with exit code 7"),
    ("kill", mp.ProcessExitedException, "process 1 terminated with signal SIGKILL"),
])  # fmt: skip
def test_a_process_that_fails_ends_the_others(how: str, kind: type[Exception], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=message) as caught:
        mp.start_processes(fail, (how,), nprocs=2, start_method="fork")
    assert time.monotonic() - began < 50 and caught.value.error_index == 1 and caught.value.error_pid > 0
    if how == "kill":
        assert caught.value.exit_code == -signal.SIGKILL and caught.value.signal_name == "SIGKILL"


def test_the_standard_library_is_there() -> None:
    import multiprocessing

    assert set(multiprocessing.__all__) <= set(dir(mp)) and mp.Queue is not None and mp.cpu_count() > 0
    assert mp.get_sharing_strategy() in mp.get_all_sharing_strategies()
    mp.set_sharing_strategy("file_descriptor")
    with pytest.raises(ValueError, match="no strategy 'telepathy'"):
        mp.set_sharing_strategy("telepathy")
    assert mp.Pool is multiprocessing.Pool or callable(mp.Pool)
    with mp.get_context("fork").Pool(1) as pool:
        assert pool.apply(graphc.zeros, (2,)).tolist() == [0, 0]
