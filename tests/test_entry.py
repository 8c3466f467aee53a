"""Native calls of compiled functions: what they check, what they make, and whose the references are."""

from __future__ import annotations

import gc
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backend import EntrySpec, ResultLeaf, TensorCheck
from graphc.backends.llvm import blocks
from graphc.backends.llvm.entry import make_entry
from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.objects import Unsupported, array_constructor
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.workspace import Workspace
from graphc.frontend.compile import Compiled, CompiledFunction
from graphc.frontend.entry import TENSORS
from graphc.frontend.tensor import Meta, Tensor
from graphc.types import TensorType, float32

try:
    array_constructor()
except Unsupported as reason:
    pytest.skip(f"no native entries here: {reason}", allow_module_level=True)


@pytest.fixture(autouse=True)
def python_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were called by way of Python."""
    called: list[Any] = []
    run = Compiled.__call__
    monkeypatch.setattr(Compiled, "__call__", lambda self, leaves: called.append(self) or run(self, leaves))
    return called


def entered(function: Callable[..., Any], *args: Any) -> CompiledFunction:
    """A compiled function that is called natively with such arguments."""
    f = graphc.compile(function)
    for _ in range(2):
        f(*args)
    assert isinstance(f._entry, types.BuiltinFunctionType)
    return f


def tensor(*values: float, **kwargs: Any) -> Any:
    return graphc.tensor(list(values), **kwargs)


X = tensor(1.0, 2.0)


# Arguments


def test_the_call_is_native(python_calls: list[Any]) -> None:
    f = entered(lambda a, b: a + b, X, X * 2)
    before = len(python_calls)
    for k in range(10):
        assert f(tensor(k, 1.0), X).tolist() == [k + 1, 3]
    assert len(python_calls) == before


@pytest.mark.parametrize("other", [
    lambda: tensor(1.0, 2.0, 3.0),
    lambda: graphc.ones(2, 2),
    lambda: graphc.ones(2, 1),
    lambda: graphc.tensor(5.0),
    lambda: tensor(1.0, 2.0, dtype=graphc.float64),
    lambda: tensor(1, 2),
    lambda: tensor(True, False),
    lambda: graphc.arange(4.0)[::2],
    lambda: graphc.arange(4.0)[1:3],
    lambda: graphc.arange(2.0).flip(0),
    lambda: graphc.ones(1).expand(2),
    lambda: graphc.zeros(0),
    lambda: nn.Parameter(tensor(1.0, 2.0), requires_grad=False),
    lambda: graphc.from_numpy(np.frombuffer(b"\0" * 9, np.uint8)[1:].view(np.float32)),
    lambda: graphc.from_numpy(np.array([3.0, 4.0], ">f4").astype("<f4")),
    lambda: 3.0,
    lambda: 3,
    lambda: True,
    lambda: -0.0,
], ids=range(19))  # fmt: skip
def test_other_arguments_in_the_place_of_a_tensor(other: Callable[[], Any]) -> None:
    f = entered(lambda x: x * 2 + 1, X)
    argument = other()
    for _ in range(4):
        got = f(argument)
        want = argument * 2 + 1
        assert getattr(got, "dtype", None) == getattr(want, "dtype", None)
        assert (got.tolist() if isinstance(got, Tensor) else got) == (want.tolist() if isinstance(want, Tensor) else want)
        assert f(X).tolist() == [3, 5]


def test_strides_of_dimensions_of_one_do_not_matter(python_calls: list[Any]) -> None:
    f = entered(lambda x: x * 2, graphc.ones(1, 3))
    wide = graphc.arange(24.0).reshape(4, 6)
    before = len(python_calls)
    assert f(wide[1:2, :3]).tolist() == [[12, 14, 16]]
    assert len(python_calls) == before


def test_tensors_of_no_elements_and_of_no_dimensions() -> None:
    for shape in ((), (0,), (3, 0), (1, 1, 1)):
        x = graphc.full(shape, 3.0)
        f = entered(lambda x: (x * 2, x.sum()), x)
        double, total = f(x)
        assert double.shape == shape and double.tolist() == (x * 2).tolist() and total.item() == x.sum().item()


@pytest.mark.parametrize("old, new", [(2.0, 3.0), (2, 3), (2, 2.0), (1, True), (0.0, -0.0), (True, False), ("sum", "mean"),
                                      (None, 0), (b"a", b"b"), (2**70, 2**70 + 1)])  # fmt: skip
def test_arguments_that_are_no_tensors(old: Any, new: Any) -> None:
    f = entered(lambda x, value: (x * 2, value), X, old)
    for value in (old, new, old, new, new, old):
        got = f(X, value)[1]
        assert got == value and repr(got) == repr(value)


def test_equal_numbers_and_strings_are_as_good(python_calls: list[Any]) -> None:
    f = entered(lambda x, a, b, c: getattr(x * a + b, c)(), X, 1.5, 10**6, "sum")
    before = len(python_calls)
    for _ in range(5):
        assert f(X, float("1.5"), int("1000000"), "".join(["su", "m"])).item() == 2000004.5
    assert len(python_calls) == before


def test_a_number_of_its_own_sign() -> None:
    f = graphc.compile(lambda x, zero: x / zero)
    for zero, sign in ((0.0, 1), (-0.0, -1), (0.0, 1), (-0.0, -1), (-0.0, -1), (0.0, 1)):
        assert f(X, zero).tolist() == [sign * np.inf] * 2


def test_keyword_arguments() -> None:
    f = entered(lambda x, scale=2.0: x * scale, X)
    for _ in range(3):
        assert f(X, scale=3.0).tolist() == [3, 6] and f(x=X).tolist() == [2, 4] and f(X).tolist() == [2, 4]
    with pytest.raises(TypeError, match="unexpected keyword"):
        f(X, shift=1)


@pytest.mark.parametrize("args", [(), (X, X, X), ([X],), ({},), (object,), ([],)])
def test_arguments_that_the_function_refuses(args: Any) -> None:
    f = entered(lambda a, b: a + b, X, X)
    for _ in range(3):
        with pytest.raises((TypeError, RuntimeError)):
            f(*args)
        assert f(X, X).tolist() == [2, 4]


def test_containers_go_by_way_of_python() -> None:
    f = graphc.compile(lambda pair: pair[0] + pair[1])
    for _ in range(5):
        assert f((X, X)).tolist() == [2, 4]
    assert f([X, X * 2]).tolist() == [3, 6]


def test_the_same_tensor_twice() -> None:
    f = entered(lambda a, b: a * 10 + b, X, X)
    y = tensor(5.0, 6.0)
    for _ in range(4):
        assert f(X, X).tolist() == [11, 22]
        assert f(X, y).tolist() == [15, 26]
        assert f(y, X).tolist() == [51, 62]


def test_a_tensor_that_the_function_has_as_well() -> None:
    w = tensor(3.0, 4.0)
    f = entered(lambda x: x * 10 + w, w)
    for _ in range(4):
        assert f(w).tolist() == [33, 44]
        assert f(X).tolist() == [13, 24]


def test_views() -> None:
    data = graphc.arange(12.0).reshape(6, 2)
    f = entered(lambda x: x * 2, data[0])
    for k in range(6):
        assert f(data[k]).tolist() == [4 * k, 4 * k + 2]
    with graphc.no_grad():
        data.add_(1)
    assert f(data[5]).tolist() == [22, 24]


def test_a_view_whose_base_has_got_a_history() -> None:
    base = graphc.zeros(2, 2)
    view = base[0]
    f = entered(lambda x: x * 2, view)
    w = graphc.ones(2, requires_grad=True)
    base[1].copy_(w * 3)
    assert f(view).requires_grad
    (f(view).sum() + f(base[1]).sum()).backward()
    assert w.grad is not None and w.grad.tolist() == [6, 6]


# Autograd and modes


def test_tensors_that_require_grad() -> None:
    f = entered(lambda x: x * 2, X)
    leaf = tensor(1.0, 2.0, requires_grad=True)
    for x in (leaf, leaf * 3, leaf):
        out = f(x)
        assert out.requires_grad
        leaf.grad = None
        out.sum().backward()
        assert not f(X).requires_grad
    assert leaf.grad.tolist() == [2, 2]


def test_grad_mode() -> None:
    w = nn.Parameter(tensor(3.0, 4.0))
    f = graphc.compile(lambda x: x * w)
    for _ in range(3):
        assert f(X).requires_grad
        with graphc.no_grad():
            for _ in range(3):
                out = f(X)
                assert not out.requires_grad and out.tolist() == [3, 8]
        with graphc.inference_mode():
            out = f(X)
            assert out.is_inference() and not out.requires_grad
        with graphc.no_grad(), graphc.enable_grad():
            assert f(X).requires_grad


def test_grad_mode_that_the_code_asks_for() -> None:
    f = entered(lambda x: x * (2 if graphc.is_grad_enabled() else 3), X)
    for _ in range(4):
        assert f(X).tolist() == [2, 4]
        with graphc.no_grad():
            assert f(X).tolist() == [3, 6]


def test_each_thread_has_its_own_mode() -> None:
    f = entered(lambda x: x * (2 if graphc.is_grad_enabled() else 3), X)
    wrong: list[Any] = []

    def work(number: int) -> None:
        with graphc.set_grad_enabled(number % 2 == 0):
            wrong.extend(number for _ in range(300) if f(X)[0].item() != 2 + number % 2)

    for _ in range(5):  # new threads may get the memory of the states of old ones
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        work(0)
        work(1)
    assert not wrong


def test_a_call_within_a_trace() -> None:
    inner = entered(lambda x: x * 2, X)
    outer = graphc.compile(lambda x: inner(x) + inner(X))
    for _ in range(4):
        assert outer(tensor(5.0, 6.0)).tolist() == [12, 16]
        assert inner(X).tolist() == [2, 4]
    assert outer.explain().count("mul(") == 2


# Captured tensors


def test_new_data_for_a_captured_tensor() -> None:
    w = tensor(3.0, 4.0)
    f = entered(lambda x: x * w, X)
    for k in range(20):
        w.data = tensor(float(k), 1.0)
        assert f(X).tolist() == [k, 2] and f(X).tolist() == [k, 2]
    w.data = graphc.ones(3, 2)
    assert f(X).tolist() == [[1, 2]] * 3
    w.data = tensor(3, 4)
    assert f(X).tolist() == [3, 8]
    w.data = graphc.arange(4.0)[::2]
    assert f(X).tolist() == [0, 4]


def test_new_contents_of_a_captured_tensor(python_calls: list[Any]) -> None:
    w = tensor(3.0, 4.0)
    f = entered(lambda x: x * w, X)
    before = len(python_calls)
    for k in range(5):
        w.fill_(k)
        assert f(X).tolist() == [k, 2 * k]
    assert len(python_calls) == before


def test_requires_grad_of_a_captured_tensor() -> None:
    w = tensor(3.0, 4.0)
    f = entered(lambda x: x * w, X)
    for _ in range(3):
        w.requires_grad_(True)
        assert f(X).requires_grad
        w.requires_grad_(False)
        assert not f(X).requires_grad


def test_a_shape_that_is_set_on_the_array() -> None:
    w = graphc.ones(2, 2)
    f = entered(lambda x: x + w, X)
    array = w.numpy()
    array.resize((4,), refcheck=False)
    with pytest.raises(RuntimeError):
        f(X)
    array.resize((2, 2), refcheck=False)
    assert f(X).tolist() == [[2, 3], [2, 3]]


# What is changed in place


def test_in_place_changes_and_their_versions(python_calls: list[Any]) -> None:
    total = graphc.zeros(2)
    f = entered(lambda x: total.add_(x), X)
    before, version = len(python_calls), total._version
    for _ in range(10):
        assert f(X) is total
    assert total.tolist() == [12, 24] and total._version == version + 10 and len(python_calls) == before


def test_versions_protect_what_was_saved() -> None:
    total = graphc.ones(2)
    f = entered(lambda x: total.add_(x).sum(), X)
    w = graphc.ones(2, requires_grad=True)
    loss = (w * total).sum()
    f(X)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_argument_changed_in_place() -> None:
    f = entered(lambda x: x.add_(1), graphc.zeros(3))
    for _ in range(3):
        x = graphc.zeros(3)
        assert f(x) is x and x.tolist() == [1, 1, 1] and x._version == 1
        assert f(x) is x and x.tolist() == [2, 2, 2] and x._version == 2
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        f(graphc.from_numpy(frozen))
    assert frozen.tolist() == [0, 0, 0]


def test_arguments_that_share_memory_with_what_is_changed() -> None:
    state = graphc.zeros(4)
    f = entered(lambda x: state[1:].add_(x[:3]).sum(), graphc.ones(4))
    state.zero_()
    memory = state.numpy()
    for other in (memory, memory[:], np.lib.stride_tricks.as_strided(memory[3:], (4,), (-4,))):
        assert f(graphc.from_numpy(other)).item() == 0
    memory[0] = 1
    assert f(graphc.from_numpy(memory)).item() == 1  # run eagerly: each number is read before it is written
    assert state.tolist() == [1, 1, 0, 0]
    assert f(graphc.ones(4)).item() == 4
    swap = entered(lambda a, b: a.copy_(b.flip(0)), graphc.ones(4), graphc.ones(4))
    array = np.arange(6, dtype=np.float32)
    swap(graphc.from_numpy(array[:4]), graphc.from_numpy(array[2:]))
    assert array.tolist() == [5, 4, 3, 2, 4, 5]
    swap(graphc.from_numpy(array[:4].reshape(4)), graphc.tensor([9.0, 8, 7, 6]))
    assert array.tolist() == [6, 7, 8, 9, 4, 5]


def test_random_numbers_go_on() -> None:
    f = entered(lambda: graphc.rand(3))
    graphc.manual_seed(1)
    native = [f().tolist() for _ in range(3)]
    graphc.manual_seed(1)
    assert native == [graphc.rand(3).tolist() for _ in range(3)]


# Gradients


def training() -> tuple[CompiledFunction, nn.Parameter]:
    w = nn.Parameter(tensor(1.0, 2.0))

    def step(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    f = entered(step, X)
    return f, w


def test_gradients_are_set(python_calls: list[Any]) -> None:
    f, w = training()
    before = len(python_calls)
    for k in range(4):
        f(tensor(k, 5.0))
        assert type(w.grad) is Tensor and w.grad.tolist() == [k, 5] and w.grad.grad_fn is None
    assert len(python_calls) == before


def test_a_gradient_that_somebody_holds_keeps_its_numbers() -> None:
    f, w = training()
    f(tensor(1.0, 1.0))
    held = w.grad
    f(tensor(2.0, 2.0))
    array = w.grad.numpy()
    f(tensor(3.0, 3.0))
    view = w.grad[:1]
    f(tensor(4.0, 4.0))
    memory = memoryview(w.grad.numpy())
    f(tensor(5.0, 5.0))
    detached = w.grad.detach()
    f(tensor(6.0, 6.0))
    reference = weakref.ref(w.grad)
    f(tensor(7.0, 7.0))
    weak_array = weakref.ref(w.grad._data)
    f(tensor(8.0, 8.0))
    assert held.tolist() == [1, 1] and array.tolist() == [2, 2] and view.tolist() == [3] and memory.tolist() == [4, 4]
    assert detached.tolist() == [5, 5] and reference() is None and weak_array() is None and w.grad.tolist() == [8, 8]


def test_a_gradient_that_nobody_holds_lends_its_memory() -> None:
    f, w = training()
    f(X)
    w.grad.note = "not for the next one"
    address = w.grad._data.ctypes.data
    f(X)
    assert w.grad._data.ctypes.data == address and not hasattr(w.grad, "note")


@pytest.mark.parametrize("grad", [
    lambda: tensor(1.0, 1.0, requires_grad=True),
    lambda: tensor(1.0, 1.0, requires_grad=True) * 2,
    lambda: graphc.arange(4.0)[::2],
    lambda: nn.Parameter(tensor(1.0, 1.0)),
    lambda: None,
])  # fmt: skip
def test_gradients_of_other_kinds_are_replaced(grad: Callable[[], Any]) -> None:
    f, w = training()
    w.grad = grad()
    f(X)
    assert type(w.grad) is Tensor and w.grad.tolist() == [1, 2] and not w.grad.requires_grad


def test_a_step_that_reads_whether_there_is_a_gradient() -> None:
    w = nn.Parameter(tensor(1.0, 2.0))

    @graphc.compile
    def accumulate(x: Any) -> None:
        (w * x).sum().backward()

    for _ in range(4):
        w.grad = None
        accumulate(X)
        assert w.grad.tolist() == [1, 2]
        accumulate(X)
        accumulate(X)
        assert w.grad.tolist() == [3, 6]


def test_a_loss_whose_graph_is_used_up() -> None:
    w = nn.Parameter(tensor(1.0, 2.0))

    def step(x: Any) -> Any:
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        return loss, loss.detach()

    f = entered(step, X)
    loss, plain = f(X)
    assert loss.item() == plain.item() == 5 and not plain.requires_grad
    assert loss.requires_grad
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


# Results


def test_results_of_all_shapes() -> None:
    y = tensor(7.0, 8.0)
    marker = object()

    def f(x: Any) -> Any:
        return None

    assert entered(f, X)(X) is None
    assert entered(lambda x: (), X)(X) == ()
    assert entered(lambda x: marker, X)(X) is marker
    assert entered(lambda x: x, X)(X) is X and entered(lambda x: y, X)(X) is y
    one = entered(lambda x: (x + 1,), X)(X)
    assert type(one) is tuple and one[0].tolist() == [2, 3]
    several = entered(lambda x: [x, x + 1, 5, y, "text", None], X)(X)
    assert type(several) is list and several[0] is X and several[3] is y and several[1].tolist() == [2, 3]
    nested = entered(lambda x: {"a": (x + 1, [x * 2]), "b": {"c": x, "d": 1}}, X)(X)
    assert nested["a"][0].tolist() == [2, 3] and nested["a"][1][0].tolist() == [2, 4] and nested["b"] == {"c": X, "d": 1}


def test_results_are_fresh_and_plain() -> None:
    f = entered(lambda x: (x * 2, x * 2), X)
    (a, b), (c, d) = f(X), f(X)
    a.add_(1)
    assert b.tolist() == c.tolist() == d.tolist() == [2, 4]
    assert type(a) is Tensor and a._node is None and b._meta is None and a.is_leaf and not a.requires_grad
    array = a.numpy()
    assert array.flags.owndata and array.flags.c_contiguous and array.flags.writeable and array.base is None
    b.note = 1
    assert b.__dict__ == {"note": 1} and c.__dict__ == {} and weakref.ref(c)() is c
    with pytest.raises(AttributeError):
        c.missing  # noqa: B018


@pytest.mark.parametrize("count", [31, 32, 33, 200])
def test_many_inputs_and_outputs(count: int, python_calls: list[Any]) -> None:
    """Some frames fit on the stack, some do not."""
    weights = [graphc.full((3,), float(k)) for k in range(count)]
    f = entered(lambda *xs: [x + w for x, w in zip(xs, weights)], *[graphc.ones(3) for _ in range(count)])
    out = f(*[graphc.full((3,), 100.0 * k) for k in range(count)])
    assert [o.tolist() for o in out] == [[101.0 * k] * 3 for k in range(count)] and len(python_calls) == 2
    out = f(*[graphc.ones(3) for _ in range(count - 1)], graphc.ones(3, 1))  # a miss, known only from the last one
    assert out[-1].tolist() == [[float(count)] * 3] * 3


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
