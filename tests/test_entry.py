"""Native calls of compiled functions: what they check, what they change, and what they make."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native_calls import entered, native_alone, tensor, training

import graphc
from graphc import nn
from graphc.frontend.tensor import Tensor

pytestmark = native_alone
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
