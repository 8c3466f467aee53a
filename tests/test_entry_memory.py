"""Native calls of compiled functions: whose references and memory are, also with several threads and after errors."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from native_calls import entered, native_alone, tensor, training

import graphc
from graphc import nn
from graphc.backends.llvm import blocks
from graphc.backends.llvm.entry import make_entry
from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.workspace import Workspace
from graphc.benchmark import memory
from graphc.frontend.compile import CompiledFunction
from graphc.frontend.entry import TENSORS
from graphc.frontend.tensor import Meta, Tensor
from graphc.specs import EntrySpec, ResultLeaf, TensorCheck
from graphc.types import TensorType, float32

pytestmark = native_alone
X = tensor(1.0, 2.0)


# References


def references(things: list[Any]) -> list[int]:
    gc.collect()
    return [sys.getrefcount(thing) for thing in things]


def test_references_are_given_back() -> None:
    w, grown, held, marker = nn.Parameter(tensor(1.0, 2.0)), graphc.zeros(2), tensor(3.0, 4.0), 12345.678
    options = {"scale": 1.5, "list": [1, 2.5], "deep": {"x": (1, 2)}}

    def step(x: Any, number: float, text: str) -> Any:
        w.grad = None
        loss = (w * x).sum() * options["scale"] + number
        loss.backward()
        grown.add_(held)
        return loss.detach(), x, held, marker, grown, {"more": [x * 2]}

    f = entered(step, X, 0.5, "text")
    graph = f._entered[0]
    dtype = np.dtype(np.float32)
    things = [w, w._data, w._meta, grown, grown._data, grown._meta, held, held._data, X, X._data, marker, options, None, True,
              False, Tensor, Meta, dtype, np.ndarray, f, f._entry, graph, options["list"], options["deep"]]  # fmt: skip
    f(X, 0.5, "text")
    before = references(things)
    for _ in range(1000):
        f(X, 0.5, "text")
    after = references(things)
    assert all(abs(a - b) < 500 for a, b in zip(before, after)), list(zip(before, after))  # what else ends meanwhile is less


def test_references_after_a_miss() -> None:
    f = entered(lambda x, n: x * n, X, 2)
    y = graphc.ones(3)
    for _ in range(3):
        f(y, 2)
        with pytest.raises(TypeError):
            f(y)
    things = [X, X._data, y, y._data, f, f._call, None, Tensor, np.dtype(np.float32)]
    before = references(things)
    for _ in range(300):
        f(y, 2)
        with pytest.raises(TypeError):
            f(y)
    assert all(abs(a - b) < 20 for a, b in zip(before, references(things)))


def test_results_belong_to_the_caller_alone() -> None:
    f = entered(lambda x: (x * 2, [1]), X)
    out, _ = f(X)
    plain = X * 2
    assert sys.getrefcount(out) == sys.getrefcount(plain) and sys.getrefcount(out._data) == sys.getrefcount(plain._data)


def test_a_hundred_thousand_calls_leak_nothing() -> None:
    w = nn.Parameter(tensor(1.0, 2.0))
    total = graphc.zeros(2)

    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        total.add_(x)
        return loss, (x + 1, [x])

    f = entered(step, X)

    def blocks_after(calls: int) -> int:
        for _ in range(calls):
            f(X)
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks_after(1000)
    assert abs(blocks_after(100_000) - before) < 100


def test_compiled_functions_are_collected(python_calls: list[Any]) -> None:
    def use() -> list[weakref.ref[Any]]:
        w = tensor(3.0, 4.0)
        f = entered(lambda x: x * w, X)
        f(X)
        return [weakref.ref(f), weakref.ref(w)]

    watch = use()
    python_calls.clear()
    gc.collect()
    assert [r() for r in watch] == [None, None]


def test_the_first_arguments_are_not_kept() -> None:
    f = graphc.compile(lambda x: x * 2)
    x = graphc.ones(5)
    f(x)
    watch = [weakref.ref(x), weakref.ref(x._data)]
    del x
    gc.collect()
    assert [r() for r in watch] == [None, None]


# Fallbacks, threads, memory


def test_an_exception_comes_through() -> None:
    f = entered(lambda x: x.reshape(2), X)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            f(graphc.ones(3))
        assert f(X).tolist() == [1, 2]


FAILS = """; fails
define i32 @run(ptr %inputs, ptr %outputs, ptr %constants, ptr %arena) {
  ret i32 7
}
"""


@pytest.mark.parametrize("raises", [True, False])
def test_a_program_that_stops(raises: bool) -> None:
    module = compile_module(FAILS, Target.host())
    seen: list[Any] = []

    def failed(status: int) -> None:
        seen.append(status)
        if raises:
            raise IndexError("an index")

    plain = TensorCheck(argument=0, tensor=None, type=Tensor, requires_grad=False, address=None, dtype=np.dtype(np.float32),
                        shape=(2,), strides=None, input=0)  # fmt: skip
    spec = EntrySpec(tensors=TENSORS, thread=(), arguments=(plain,), held=(), numbers=(), guards=(), identities=(), updates=(),
                     grads=(), no_grads=(), leaves=(ResultLeaf("output", 0),), result="one")  # fmt: skip
    entry = make_entry(spec, [TensorType(float32, (2,))], run=module.address("run"), constants=0, workspace=Workspace(0),
                       nanoseconds=0, failed=failed, alive=[module], prepares=False)  # fmt: skip
    assert entry is not None
    call = entry.bind(lambda *args: "fallback")
    before = sys.getrefcount(X._data)
    for _ in range(100):
        with pytest.raises(IndexError if raises else RuntimeError, match="an index" if raises else "compiled code has failed"):
            call(X)
    after = sys.getrefcount(X._data)
    assert seen == [7] * 100 and after == before and call(X, X) == "fallback"


def test_an_index_out_of_bounds() -> None:
    table = graphc.arange(10.0).reshape(5, 2)
    f = entered(lambda i: nn.functional.embedding(i, table), graphc.tensor([0, 4]))
    for bad in ([0, 5], [-1, 0]):
        with pytest.raises(IndexError, match="out of bounds"):
            f(graphc.tensor(bad))
        assert f(graphc.tensor([1, 2])).tolist() == [[2, 3], [4, 5]]


def test_several_graphs_take_turns(python_calls: list[Any]) -> None:
    f = graphc.compile(lambda x, n: x * n)
    calls = [(graphc.ones(k), n) for k in (1, 2) for n in (3, 4)]
    for args in calls * 2:
        f(*args)
    before = len(python_calls)
    for args in random.Random(0).choices(calls, k=50):
        assert f(*args).tolist() == [args[1]] * len(args[0])
    assert len(python_calls) == before


def test_more_graphs_than_entries() -> None:
    f = graphc.compile(lambda x: x * 2)
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 9] * 4:
        assert f(graphc.ones(n)).tolist() == [2] * n


def heavy(x: Any) -> Any:
    for _ in range(30):
        x = (x @ x) * 0.01
    return x


def test_other_threads_run_meanwhile() -> None:
    x = graphc.randn(256, 256)
    f = entered(heavy, x)
    want = f(x).tolist()
    ticks, stop, wrong = 0, threading.Event(), []

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1

    def work() -> None:
        wrong.extend(k for k in range(5) if f(x).tolist() != want)

    threads = [threading.Thread(target=work) for _ in range(3)]
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        stop.set()
        ticker.join()
    assert not wrong and ticks > 0


def test_memory_that_another_thread_lets_go() -> None:
    w = graphc.full((256, 256), 0.01)
    f = entered(lambda x: heavy(x) + w, graphc.zeros(256, 256))
    stop = threading.Event()

    def replace() -> None:
        k = 0
        while not stop.is_set():
            k += 1
            w.data = graphc.full((256, 256), float(k % 7))

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        seen = [np.unique(f(graphc.zeros(256, 256)).numpy()).tolist() for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert all(len(values) == 1 and values[0] in (*range(7), np.float32(0.01).item()) for values in seen)


def test_a_call_from_within_a_call() -> None:
    # a destructor that runs while a native call puts a new gradient in the place of an old one
    f, w = training()
    inner = entered(lambda x: x * 2, X)
    results: list[Any] = []

    class Grad(Tensor):
        def __del__(self) -> None:
            results.append(inner(X).tolist())

    w.grad = Grad([1.0, 2.0])
    f(X)
    assert results == [[2, 4]] and w.grad.tolist() == [1, 2]


def big(elements: int = blocks.KEPT // 4) -> CompiledFunction:
    return entered(lambda x: x + 1, graphc.zeros(elements))


@pytest.mark.parametrize("nbytes, alignment", [
    (blocks.SMALLEST, 64), (blocks.SMALLEST + 4, 64), (blocks.KEPT - 4, 64), (blocks.KEPT, 4096), (blocks.KEPT + 4, 4096),
])  # fmt: skip
def test_large_results_are_ordinary_arrays(nbytes: int, alignment: int) -> None:
    f = big(nbytes // 4)
    out = f(graphc.zeros(nbytes // 4)).numpy()
    assert out.flags.owndata and out.flags.c_contiguous and out.flags.writeable and out.flags.aligned and out.base is None
    assert out.sum() == out.size and out.ctypes.data % alignment == 0
    out = out.copy() if out.ndim != 1 else out
    out.resize(3 * out.size, refcheck=False)
    assert out[: out.size // 3].sum() == out.size // 3 and not out[out.size // 3 :].any()
    out.resize(10, refcheck=False)
    assert out.tolist() == [1] * 10


def test_the_memory_of_large_results_is_used_again() -> None:
    elements = blocks.KEPT // 4 + 5000
    f, x = big(elements), graphc.zeros(elements)
    first = f(x)
    address, view = first.data_ptr(), first[10:20]
    second = f(x)
    assert second.data_ptr() != address
    del first  # the view has the memory still
    third = f(x)
    assert third.data_ptr() != address
    third.fill_(5)
    assert view.tolist() == [1] * 10
    del view
    gc.collect()
    fourth = f(x)
    assert fourth.data_ptr() == address and fourth[0].item() == 1
    assert len({t.data_ptr() for t in (second, third, fourth)}) == 3


def test_a_block_larger_than_all_that_is_kept_is_kept_alone() -> None:
    huge, large = blocks.MOST_BYTES + (1 << 20), blocks.KEPT
    made = {n: (big(n // 4), graphc.zeros(n // 4)) for n in (huge, large)}

    def run(nbytes: int) -> graphc.Tensor:
        function, x = made[nbytes]
        return function(x)

    other, first = run(large), run(huge)
    address = first.data_ptr()
    del other
    del first
    first = run(huge)
    assert first.data_ptr() == address
    del first
    before = memory.resident()
    other = run(large)
    del other  # in the place of the huge one
    after = memory.resident()
    assert before is None or after is None or after < before - blocks.MOST_BYTES // 2


def test_large_blocks_of_many_sizes() -> None:
    rng = random.Random(1)
    function = graphc.compile(lambda x: x + 1)
    sizes = [start + 1024 * k for start in (512, blocks.KEPT // 4 - 1024) for k in range(25)]
    live: dict[int, Any] = {}
    for step in range(200):
        n = rng.choice(sizes)
        live[rng.randrange(6)] = function(graphc.full((n,), float(step)))
        for t in live.values():
            assert t[0].item() == t[-1].item() == t[t.numel() // 2].item()
    assert len({t.data_ptr() for t in live.values()}) == len(live)
