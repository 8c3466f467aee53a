"""Elementwise ops on large tensors run by code of their own, eagerly: NumPy's numbers, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import override
from graphc.frontend import dispatch, eager, large_arrays
from graphc.frontend.composite import HUGE, SEVERAL

RNG = np.random.default_rng(0)
FLOATS = RNG.standard_normal((6, 10)).astype(np.float32)

CASES: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y, "number on the right": lambda x, y: x * 2.5, "number on the left": lambda x, y: 1.0 - x,
    "integer beside floats": lambda x, y: x * 3, "stretched": lambda x, y: x + y[:1],
    "stretched on the left": lambda x, y: y[:1] + x, "outer": lambda x, y: x[:, :1] * y[:1],
    "strided": lambda x, y: x[::2, ::3] / y[1::2, ::3], "turned": lambda x, y: x.t() + y.t(),
    "reversed": lambda x, y: x.flip(0) * y,
    "comparison": lambda x, y: x > y, "where": lambda x, y: graphc.where(x > 0, x, 0.0), "exp": lambda x, y: x.exp(),
    "where of tensors": lambda x, y: graphc.where(x > 0, x, y), "relu": lambda x, y: x.relu(), "abs": lambda x, y: x.abs(),
    "integers": lambda x, y: (x * 4).long() // 3, "mixed": lambda x, y: x.double() * y, "logic": lambda x, y: (x > 0) & (y > 0),
    "half": lambda x, y: x.half() * y.half(), "half and number": lambda x, y: x.half() + 0.1, "0-d": lambda x, y: x * y[0, 0],
    "complex": lambda x, y: graphc.complex(x, y) * 2j, "bfloat16": lambda x, y: x.bfloat16() * y.bfloat16(),
    "pow": lambda x, y: x.abs() ** 1.5, "lerp": lambda x, y: graphc.lerp(x, y, 0.3), "clamp": lambda x, y: x.clamp(-0.5, 0.5),
}  # fmt: skip


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_arrays, "LARGE", 1)
    monkeypatch.setattr(dispatch, "COSTLY", 1)
    monkeypatch.setattr(large_arrays, "_codes", {})
    monkeypatch.setattr(eager, "functions", {})  # these serve small tensors
    for methods in eager._methods.values():
        for name, by_python in methods:
            monkeypatch.setattr(graphc.Tensor, name, by_python)


@pytest.mark.parametrize("name", CASES)
def test_same_as_numpy(name: str) -> None:
    x, y = graphc.tensor(FLOATS), graphc.tensor(FLOATS[::-1].copy())
    with override(fuse_eager=False):
        want = CASES[name](x, y)
    for _ in range(3):
        got = CASES[name](x, y)
        assert got.dtype is want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got.to(graphc.complex128).numpy(), want.to(graphc.complex128).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["row-major", "turned", "gaps", "stretched", "part"])
def test_clones_own_their_memory_and_lie_as_the_first_one_does(name: str) -> None:
    x = graphc.tensor(FLOATS)
    laid = {"row-major": x, "turned": x.t(), "gaps": x[::2, ::3], "stretched": x[:, :1].expand(6, 10),
            "part": x[1:]}[name]  # fmt: skip
    clones = [laid.clone() for _ in range(4)]
    for clone in clones:
        assert clone._data.flags.owndata and clone._data.flags.writeable
        assert clone.stride() == clones[0].stride()
        np.testing.assert_array_equal(clone.numpy(), laid.numpy())
    assert len({clone.data_ptr() for clone in clones}) == len(clones)


TURNED: dict[str, Callable[[Any, Any], Any]] = {
    "number": lambda x, y: x.t() * 2, "both": lambda x, y: x.t() + y.t(), "one of two": lambda x, y: x.t() + y.t().contiguous(),
    "row": lambda x, y: x.t() + y[:, 0], "stretched": lambda x, y: x.t() + y[:1, :1].expand(6, 10).t(),
    "costly": lambda x, y: x.t().exp(), "channels last": lambda x, y: -x.reshape(1, 2, 3, 10).permute(0, 3, 1, 2),
    "half": lambda x, y: x.half().t() + 1, "where": lambda x, y: graphc.where(x.t() > 0, x.t(), y.t()),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNED)
def test_results_lie_in_memory_as_numpys_do(name: str) -> None:
    x, y = graphc.tensor(FLOATS), graphc.tensor(FLOATS[::-1].copy())
    with override(fuse_eager=False):
        want = TURNED[name](x, y)
    for _ in range(3):
        got = TURNED[name](x, y)
        assert got.stride() == want.stride()
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_number_beyond_the_dtype_is_infinite() -> None:
    for _ in range(3):
        assert (graphc.ones(4) * 1e40).tolist() == [float("inf")] * 4


def test_gradients_flow() -> None:
    x = graphc.tensor(FLOATS, requires_grad=True)
    for _ in range(3):
        x.grad = None
        (x * x + 2.0 * x).sum().backward()
        np.testing.assert_allclose(x.grad, 2 * FLOATS + 2, rtol=1e-6)


def test_code_is_made_at_the_second_sighting() -> None:
    x = graphc.tensor(FLOATS)
    for count in range(3):
        x + x
        assert sum(function is not None for function in large_arrays._codes.values()) == min(count, 1)


def test_errors_stay() -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError, match="must match the size"):
            graphc.tensor(FLOATS) + graphc.tensor(FLOATS[:, :3])
        with pytest.raises(RuntimeError):
            graphc.tensor(FLOATS) & graphc.tensor(FLOATS)
    assert (graphc.tensor(FLOATS[:0]) + 1.0).shape == (0, 10)


IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x.add_(y), "number": lambda x, y: x.mul_(3), "float": lambda x, y: x.sub_(0.5),
    "itself": lambda x, y: x.div_(x), "relu": lambda x, y: x.relu_(), "of a function": lambda x, y: graphc.relu_(x),
    "of nn.functional": lambda x, y: graphc.nn.functional.relu(x, inplace=True), "operator": lambda x, y: x.__iadd__(y),
    "turned": lambda x, y: x.t().relu_(), "strided": lambda x, y: x[1::2, ::3].relu_(), "half": lambda x, y: x.half().relu_(),
    "what overlaps": lambda x, y: x.view(-1)[:30].add_(x.view(-1)[7:37]), "integers": lambda x, y: x.long().relu_(),
    "stretched": lambda x, y: x.add_(y[0]), "other dtype": lambda x, y: x.add_(y.double()), "empty": lambda x, y: x[:0].relu_(),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, _, by_python in eager._in_place:
        monkeypatch.setattr(graphc.Tensor, method, by_python)
    y = graphc.tensor(FLOATS[::-1].copy())
    wanted = graphc.tensor(FLOATS)
    with override(fuse_eager=False):
        want = IN_PLACE[name](wanted, y)
    for _ in range(3):
        x = graphc.tensor(FLOATS)
        memory, version = x.data_ptr(), x._version
        got = IN_PLACE[name](x, y)
        assert got.dtype is want.dtype and np.array_equal(got, want)
        assert np.array_equal(x, wanted) and x.data_ptr() == memory and x._version - version == wanted._version


COPIES: dict[str, Callable[[Any, Any], Any]] = {
    "same order": lambda x, y: x.copy_(y), "turned": lambda x, y: x.t().copy_(y.flatten().view(10, 6)),
    "into a part": lambda x, y: x[1::2, ::3].copy_(y[::2, 5:9]), "stretched": lambda x, y: x.copy_(y[:1]),
    "from one number": lambda x, y: x.copy_(y[0, 0]), "other dtype": lambda x, y: x.copy_(y.double()),
    "what overlaps": lambda x, y: x.view(-1)[:30].copy_(x.view(-1)[7:37]),
    "itself turned": lambda x, y: x[:, :6].copy_(x[:, :6].t()),
    "half": lambda x, y: x.view(graphc.float16).copy_(y.view(graphc.float16)),
    "complex": lambda x, y: x.view(graphc.complex64).copy_(y.view(graphc.complex64)),
    "flags": lambda x, y: x.view(graphc.bool).copy_((y > 0).repeat(1, 4)), "empty": lambda x, y: x[:0].copy_(y[:0]),
    "subscript": lambda x, y: x.__setitem__(slice(None), y),
    "columns": lambda x, y: x.__setitem__((slice(None), slice(2, 5)), y[:, 7:]),
    "a row": lambda x, y: x.__setitem__(3, y[2]), "stretched to a part": lambda x, y: x.__setitem__((slice(0, 4), ...), y[5]),
    "subscript that overlaps": lambda x, y: x.__setitem__(slice(1, None), x[:-1]),
    "clone": lambda x, y: x.copy_(y.clone()), "clone of turned": lambda x, y: x.t().copy_(y.t().clone()),
    "clone with gaps": lambda x, y: x[:, ::2].copy_(y[:, ::2].clone()),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_copies_into_what_is_there(name: str) -> None:
    y, wanted = graphc.tensor(FLOATS[::-1].copy()), graphc.tensor(FLOATS)
    with override(fuse_eager=False):
        COPIES[name](wanted, y)
    for _ in range(3):
        x = graphc.tensor(FLOATS)
        version = x._version
        COPIES[name](x, y)
        assert x.numpy().tobytes() == wanted.numpy().tobytes() and x._version - version == wanted._version


def test_copies_have_code_of_their_own() -> None:
    x, y = graphc.zeros(6, 10), graphc.tensor(FLOATS)
    copies: list[Callable[[], Any]] = [
        lambda: x.copy_(y), lambda: x.t().copy_(y.t()), lambda: x.__setitem__(slice(None, None, 2), y[1::2]), y.clone,
    ]  # fmt: skip
    for function in copies:
        large_arrays._codes.clear()
        for count in range(3):
            function()
            assert sum(code is not None for code in large_arrays._codes.values()) == min(count, 1)


def test_a_clone_lies_as_its_source_does() -> None:
    x = graphc.tensor(FLOATS)
    for _ in range(3):
        assert x.t().clone().stride() == (1, 10) and x[:, ::2].clone().stride() == (5, 1)
        assert x[0].expand(4, 10).clone().stride() == (10, 1)


def test_what_must_not_be_written_is_refused() -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError, match="single memory location"):
            graphc.zeros(10).expand(6, 10).copy_(graphc.tensor(FLOATS))
        with pytest.raises(IndexError):
            graphc.zeros(6, 10)[7] = graphc.zeros(10)


def test_relu_in_place_with_a_gradient() -> None:
    for _ in range(3):
        leaf = graphc.tensor(FLOATS, requires_grad=True)
        x = leaf * 2
        out = graphc.nn.functional.relu(x, inplace=True)
        assert out is x and x.grad_fn.name() == "ReluBackward0"
        out.sum().backward()
        assert np.array_equal(leaf.grad, np.where(FLOATS > 0, 2.0, 0.0))
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            leaf.relu_()
    with pytest.raises(RuntimeError, match="Boolean inputs not supported for relu"):
        graphc.nn.functional.relu(graphc.tensor([True]), inplace=True)
    with pytest.raises(RuntimeError, match="single memory location"):
        graphc.zeros(3).expand(4, 3).relu_()


@pytest.mark.parametrize("function", [
    lambda x: x.t().contiguous(), lambda x: x.half(), lambda x: x.double(), lambda x: x.to(graphc.bfloat16),
    lambda x: x[:, ::2].expand(2, 367, 184).contiguous(),
], ids=["turned", "half", "double", "bfloat16", "stretched"])  # fmt: skip
def test_copies_and_conversions_of_huge_tensors(function: Any) -> None:
    numbers = np.random.default_rng(0).standard_normal((367, 367)).astype(np.float32)
    x = graphc.tensor(numbers, requires_grad=True)
    assert x.numel() >= HUGE
    with override(fuse_eager=False):
        expected = function(x)
        expected.sum().backward()
    gradient, x.grad = x.grad, None
    for _ in range(SEVERAL + 1):
        out = function(x)
        assert out.dtype is expected.dtype and out.is_contiguous() and out.grad_fn.name() == expected.grad_fn.name()
        assert out.tolist() == expected.tolist()
        out.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), gradient.numpy(), rtol=1e-3)
        x.grad = None
