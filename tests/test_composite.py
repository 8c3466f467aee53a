"""Functions that run as one native function, eagerly too: the same numbers, gradients and errors as op by op."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import override
from graphc.errors import AutogradError
from graphc.frontend import composite as module
from graphc.frontend.composite import composite
from graphc.frontend.graph_call import CompiledBackward
from graphc.frontend.tape import OpNode

F = graphc.nn.functional


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code is made at the first call."""
    monkeypatch.setattr(module, "LARGE", 1)
    yield


def tensor(*shape: int, seed: int = 0) -> Any:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


CASES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "softmax": (lambda x: F.softmax(x, -1), [tensor(5, 7)]),
    "log_softmax": (lambda x: F.log_softmax(x, 0), [tensor(5, 7)]),
    "gelu": (F.gelu, [tensor(3, 5)]),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), [tensor(3, 5)]),
    "silu": (F.silu, [tensor(6)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (7,), w, b), [tensor(5, 7), tensor(7, seed=1), tensor(7, seed=2)]),
    "mse_loss": (F.mse_loss, [tensor(4, 3), tensor(4, 3, seed=1)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, graphc.tensor([1, 0, 2, 2])), [tensor(4, 3)]),
    "linear": (F.linear, [tensor(4, 3), tensor(5, 3, seed=1), tensor(5, seed=2)]),
    "linear, of a stack": (F.linear, [tensor(2, 4, 3), tensor(5, 3, seed=1)]),
    "sum": (lambda x: x.sum(1), [tensor(4, 3)]),
    "mean": (lambda x: x.mean(), [tensor(4, 3)]),
    "std": (lambda x: x.std(0), [tensor(4, 3)]),
    "logsumexp": (lambda x: graphc.logsumexp(x, 1), [tensor(4, 3)]),
}


def gradients(function: Callable[..., Any], tensors: list[Any]) -> list[Any]:
    """The result, and its derivatives of first and second order."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    first = graphc.autograd.grad((out * out).sum(), leaves, create_graph=True)
    second = graphc.autograd.grad(sum((g * g).sum() for g in first), leaves)
    return [out, *first, *second]


@pytest.mark.parametrize("name", CASES)
def test_same_as_op_by_op(name: str) -> None:
    function, tensors = CASES[name]
    with override(fuse_eager=False):
        want = gradients(function, tensors)
    for _ in range(2):
        got = gradients(function, tensors)
        assert type(got[0].grad_fn).__mro__[1] is CompiledBackward
        assert got[0].grad_fn.name() == want[0].grad_fn.name()
        for g, w in zip(got, want, strict=True):
            assert g.shape == w.shape and g.dtype is w.dtype
            np.testing.assert_allclose(g.detach(), w.detach(), rtol=1e-4, atol=1e-5)
    with graphc.no_grad():
        np.testing.assert_allclose(function(*tensors), want[0].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 1), (3, 0)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    x = tensor(*shape)
    with override(fuse_eager=False):
        want = F.gelu(x)
    np.testing.assert_allclose(F.gelu(x), want, rtol=1e-6)


def test_layouts_and_broadcast_cotangents() -> None:
    x = tensor(6, 8).t()[::2]
    leaf = x.detach().requires_grad_()
    F.softmax(leaf, -1).sum().backward()  # the cotangent is one number, stretched
    np.testing.assert_allclose(leaf.grad, np.zeros(leaf.shape), atol=1e-6)
    np.testing.assert_allclose(F.softmax(leaf, -1).sum(-1).detach(), np.ones(leaf.shape[0]), rtol=1e-6)


def test_small_tensors_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1 << 14)
    x = tensor(3).requires_grad_()
    kinds = [type(F.gelu(x).grad_fn).__mro__[1] for _ in range(module.OFTEN + 5)]
    assert kinds[0] is OpNode and kinds[-1] is CompiledBackward and kinds.index(CompiledBackward) == module.OFTEN - 1


def test_values_of_arguments_are_told_apart() -> None:
    @composite
    def scaled(x: Any, by: Any = 1, plus: Any = 0) -> Any:
        return x * by + plus

    x = graphc.tensor([1, 2])
    for by in (1, True, 1.0, 2):
        for _ in range(3):
            assert scaled(x, by).dtype is (graphc.float32 if type(by) is float else graphc.int64)
            np.testing.assert_array_equal(scaled(x, by), x.numpy() * by)
    assert scaled(x, plus=2).tolist() == [3, 4] and scaled(x, by=2).tolist() == [2, 4]
    assert scaled(x, by=2, plus=1).tolist() == scaled(x, plus=1, by=2).tolist() == [3, 5]


def test_one_tensor_twice() -> None:
    @composite
    def product(a: Any, b: Any) -> Any:
        return a * b

    for _ in range(2):
        x = tensor(3).requires_grad_()
        y = tensor(3, seed=1)
        product(x, x).sum().backward()
        np.testing.assert_allclose(x.grad, 2 * x.detach())
        np.testing.assert_allclose(product(x, y).detach(), x.detach() * y)


def test_what_is_not_pure_runs_op_by_op() -> None:
    total = graphc.zeros(3)

    @composite
    def counting(x: Any) -> Any:
        total.add_(1)
        return x + total

    @composite
    def identity(x: Any) -> Any:
        return x

    x = tensor(3)
    for k in range(1, 5):
        np.testing.assert_allclose(counting(x), x + k)
        assert identity(x) is x
    assert total.tolist() == [4, 4, 4]


def test_a_change_in_place_is_noticed() -> None:
    x = tensor(3, 4).requires_grad_()
    y = F.softmax(x, -1)
    y.mul_(2)  # softmax's derivative is made of its result
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    z = x * 1
    out = F.linear(z, tensor(2, 4).requires_grad_())
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_backward_twice() -> None:
    x = tensor(3, 4).requires_grad_()
    y = F.softmax(x, -1).pow(2).sum()
    y.backward(retain_graph=True)
    once = x.grad.clone()
    y.backward()
    np.testing.assert_allclose(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_errors_stay() -> None:
    for _ in range(3):
        with pytest.raises(IndexError):
            F.softmax(tensor(2, 3), 5)
        with pytest.raises(RuntimeError):
            F.linear(tensor(2, 3), tensor(4, 5))
        with pytest.raises(IndexError):
            F.cross_entropy(tensor(2, 3), graphc.tensor([0, 3]))
    assert F.softmax(tensor(2, 3), 1).shape == (2, 3)


def test_modes() -> None:
    x = tensor(3, 4).requires_grad_()
    for _ in range(3):
        with graphc.no_grad():
            assert not F.softmax(x, -1).requires_grad
        with graphc.inference_mode():
            assert F.softmax(x, -1).is_inference()
        assert F.softmax(x, -1).requires_grad
        assert not F.softmax(x.detach(), -1).requires_grad


def test_inside_compiled_functions() -> None:
    x = tensor(3, 4)
    compiled = graphc.compile(lambda x: F.softmax(F.gelu(x), -1))
    for _ in range(3):
        np.testing.assert_allclose(compiled(x), F.softmax(F.gelu(x), -1), rtol=1e-6)


def test_several_threads() -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        x = tensor(4, 5 + seed % 3, seed=seed).requires_grad_()
        for _ in range(20):
            x.grad = None
            (F.softmax(x, -1) * x).sum().backward()
            s = np.exp(x.detach().numpy())
            s /= s.sum(-1, keepdims=True)
            v = x.detach().numpy()
            want = s + s * (v - (s * v).sum(-1, keepdims=True))
            if not np.allclose(x.grad, want, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_the_default_dtype_may_change() -> None:
    x = graphc.tensor([1, 2, 3])
    try:
        for dtype in (graphc.float32, graphc.float64) * 2:
            graphc.set_default_dtype(dtype)
            for _ in range(3):
                assert graphc.nn.functional.softsign(x).dtype is dtype
    finally:
        graphc.set_default_dtype(graphc.float32)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.gelu(3), r"gelu\(\): argument 'input' \(position 1\) must be Tensor, not int"),
    (lambda: F.linear(graphc.ones(1, 1), 2.0), r"linear\(\): argument 'weight' \(position 2\) must be Tensor, not float"),
    (lambda: F.linear([1.0], graphc.ones(1, 1)), r"linear\(\): argument 'input' \(position 1\) must be Tensor, not list"),
    (lambda: F.mse_loss(graphc.ones(2), target=[1.0, 2.0]), r"argument 'target' \(position 2\) must be Tensor"),
])  # fmt: skip
def test_what_is_no_tensor_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_autocast_has_code_of_its_own() -> None:
    x, w = tensor(6, 5), tensor(4, 5, seed=1)
    for _ in range(2):
        with graphc.autocast("cpu"):
            assert F.linear(x, w).dtype is graphc.bfloat16
        with graphc.autocast("cpu", graphc.float16):
            assert F.linear(x, w).dtype is graphc.float16
        assert F.linear(x, w).dtype is graphc.float32
        w.requires_grad_()


def test_parameters_have_a_native_entry_where_no_gradient_is_wanted() -> None:
    x, w, b = tensor(6, 7), tensor(7, seed=1).requires_grad_(), tensor(7, seed=2).requires_grad_()
    want = F.layer_norm(x, (7,), w, b).detach()
    for _ in range(3):
        with graphc.no_grad():
            found = F.layer_norm(x, (7,), w, b)
            assert not found.requires_grad and np.array_equal(found, want)
        assert F.layer_norm(x, (7,), w, b).requires_grad


def test_inference_mode() -> None:
    x = tensor(3, 5)
    want = F.gelu(x)
    with graphc.inference_mode():
        found = F.gelu(x)
        assert found.is_inference() and np.array_equal(found, want)
    assert not F.gelu(x).is_inference()


def test_what_is_cheap_to_compute_again_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    start = module._Form.__init__
    monkeypatch.setattr(module._Form, "__init__", lambda self, *args: (start(self, *args), made.append(self))[0])
    x, w, b = tensor(8, 96).requires_grad_(), tensor(96, seed=1).requires_grad_(), tensor(96, seed=2).requires_grad_()
    F.layer_norm(x, (96,), w, b).sum().backward()
    # the result, and two numbers a row
    assert [tuple(v.shape) for v in made[0].function._graph.outputs] == [(8, 96), (8,), (8,)]


@pytest.mark.parametrize("size", [4, 1 << 15])
def test_a_negative_zero_is_not_taken_for_zero(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OFTEN", 2)
    x = graphc.ones(size)
    for value in (0.0, 0.0, 0.0, -0.0):
        found_all = (graphc.where(x > 2, x, value), x.masked_fill(x < 2, value), F.pad(x, (1, 0), value=value))
        for found in (*found_all, -F.leaky_relu(-x, value)):
            assert np.signbit(found.numpy()[0]) == np.signbit(value)


def test_tuples_of_other_types_have_code_of_their_own() -> None:
    @composite
    def scaled(input: Any, factors: tuple[Any, ...]) -> Any:
        return input * factors[0]

    x = graphc.ones(3, dtype=graphc.int64)
    for _ in range(2):
        assert scaled(x, (2, 1)).dtype is graphc.int64 and scaled(x, (2.0, 1)).dtype is graphc.float32


def test_others_get_code_after_values_that_always_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1 << 14)
    forms: list[Any] = []
    start = module._Form.__init__
    monkeypatch.setattr(module._Form, "__init__", lambda self, *args: (start(self, *args), forms.append(self))[0])

    @composite
    def scaled(input: Any, factor: float) -> Any:
        return input * factor + factor

    x = graphc.ones(3)
    for k in range(3 * module._MOST):
        scaled(x, k + 0.5)
    assert not forms
    for _ in range(module.OFTEN + 1):
        scaled(x, 0.25)
    assert len(forms) == 1


@pytest.mark.parametrize("name", ["hardtanh", "hardsigmoid", "hardswish", "silu", "elu", "selu", "mish", "leaky_relu"])
def test_in_place_they_run_as_one_function_too(name: str) -> None:
    """Without a gradient: what is recorded for one must not be written over."""
    function = getattr(F, name)
    numbers = np.random.default_rng(0).standard_normal((130, 140)).astype(np.float32) * 4
    expected = function(graphc.tensor(numbers)).numpy()
    x = graphc.tensor(numbers)
    part = x[:100]
    assert function(x, inplace=True) is x and x._version == 1
    np.testing.assert_array_equal(x.numpy(), expected)
    np.testing.assert_array_equal(part.numpy(), expected[:100])
    with graphc.profiler.profile() as profile:
        function(graphc.tensor(numbers), inplace=True)
    kernels = [event.name for event in profile.events() if event.kind == "kernel" and event.name != "copy"]
    assert len(kernels) == 1


def test_in_place_with_a_gradient() -> None:
    numbers = np.random.default_rng(0).standard_normal((130, 140)).astype(np.float32) * 4
    leaf = graphc.tensor(numbers, requires_grad=True)
    x = leaf * 1
    F.hardtanh(x, inplace=True).sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), np.abs(numbers) < 1)
    with pytest.raises(AutogradError, match="leaf"):
        F.hardtanh(leaf, inplace=True)
