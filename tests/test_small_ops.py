"""Functions that get code of their own for small tensors: the results, gradients, errors and streams of numbers stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import override
from graphc.frontend import compiled
from graphc.frontend import composite as composites
from graphc.frontend.tensor import Tensor

F = graphc.nn.functional


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small tensors get code at the second call."""
    monkeypatch.setattr(composites, "OFTEN", 2)
    yield


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Tensor:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


M = numbers(4, 4) > 0
PLACES = graphc.tensor([3, 0, 3])
TABLE = graphc.tensor(np.random.default_rng(5).integers(0, 4, (4, 4)))

CASES: dict[str, Callable[..., Any]] = {
    "amax": lambda x: x.amax(1), "amin": lambda x: x.amin((0, 1)), "max": lambda x: x.max(), "min": lambda x: x.min(),
    "max of rows": lambda x: x.max(1), "min of columns, kept": lambda x: x.min(0, keepdim=True),
    "argmax": lambda x: x.argmax(1), "argmin": lambda x: x.argmin(), "prod": lambda x: x.prod(1),
    "prod of all": lambda x: x.prod(), "all": lambda x: (x > 0).all(1), "any": lambda x: (x > 0).any(),
    "clamp": lambda x: x.clamp(-0.5, 0.5), "clamp from": lambda x: x.clamp(min=0.1),
    "clamp to a tensor": lambda x: x.clamp(max=x.T), "where": lambda x: graphc.where(M, x, x * 2),
    "where, a number": lambda x: graphc.where(M, x, 0.5), "square": lambda x: x**2, "cube": lambda x: x**3,
    "root": lambda x: x.abs() ** 0.5, "2 to the power": lambda x: 2**x,
    "addcmul": lambda x: graphc.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: graphc.addcdiv(x, x, x.abs() + 1, value=0.5), "lerp": lambda x: x.lerp(x * 2, 0.25),
    "gather": lambda x: x.gather(1, TABLE), "index_select": lambda x: x.index_select(0, PLACES),
    "scatter_add": lambda x: x.scatter_add(0, TABLE, x), "index_add": lambda x: x.index_add(0, PLACES, x[:3]),
    "masked_fill": lambda x: x.masked_fill(M, 1.5), "embedding": lambda x: F.embedding(PLACES, x),
    "embedding, a row apart": lambda x: F.embedding(PLACES, x, padding_idx=3), "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1), "roll": lambda x: x.roll(1, 0), "roll two": lambda x: x.roll((1, 2), (0, 1)),
    "bmm": lambda x: graphc.bmm(x[None], x[None]), "outer": lambda x: graphc.outer(x[0], x[1]),
    "pad": lambda x: F.pad(x, (1, 2)), "pad, reflected": lambda x: F.pad(x[None], (1, 2), "reflect"),
    "flip": lambda x: x.flip(0), "repeat": lambda x: x.repeat(2, 1), "norm": lambda x: x.norm(),
    "norm of rows": lambda x: graphc.norm(x, 1, 1), "einsum": lambda x: graphc.einsum("ij,jk->ik", x, x),
    "einsum of a list": lambda x: graphc.einsum("ij,ij->i", [x, x]), "cat": lambda x: graphc.cat([x, x * 2], 1),
    "cat of one": lambda x: graphc.cat([x]), "stack": lambda x: graphc.stack([x, x * 2], -1), "x[i]": lambda x: x[PLACES],
    "x[i, j]": lambda x: x[PLACES, PLACES], "x[:, i]": lambda x: x[:, PLACES], "x[i, None]": lambda x: x[PLACES, None],
    "x[i] of two dimensions": lambda x: x[TABLE], "x[i, ..., j]": lambda x: x[PLACES, ..., PLACES],
    "x[-i]": lambda x: x[-PLACES], "x[i, 0]": lambda x: x[PLACES, 0],
    "erfc": lambda x: x.erfc(), "sign": lambda x: x.sign(), "frac": lambda x: x.frac(), "nan_to_num": lambda x: x.nan_to_num(),
    "fmax": lambda x: graphc.fmax(x, x.T), "fmin": lambda x: graphc.fmin(x, x.T), "hypot": lambda x: graphc.hypot(x, x.T),
    "logaddexp": lambda x: graphc.logaddexp(x, x.T), "clamp to tensors": lambda x: x.clamp(x.T, x.T + 0.5),
    "hardtanh": lambda x: F.hardtanh(x), "hardsigmoid": lambda x: F.hardsigmoid(x), "relu6": lambda x: F.relu6(x * 5),
    "hardshrink": lambda x: F.hardshrink(x), "softshrink": lambda x: F.softshrink(x),
    "threshold": lambda x: F.threshold(x, 0, 1),
    "tanhshrink": lambda x: F.tanhshrink(x), "take": lambda x: x.take(PLACES), "take, from the end": lambda x: x.take(-TABLE),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 0), "trace": lambda x: x.trace(), "mv": lambda x: x.mv(x[0]),
    "mm": lambda x: x.mm(x), "diff": lambda x: x.diff(dim=1), "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(0),
    "logcumsumexp": lambda x: x.logcumsumexp(1), "cummax": lambda x: x.cummax(1), "cummin": lambda x: x.cummin(0),
    "sort": lambda x: x.sort(1), "sort, falling": lambda x: x.sort(0, descending=True), "topk": lambda x: x.topk(2, 1),
    "least ones": lambda x: x.topk(3, 0, largest=False), "kthvalue": lambda x: x.kthvalue(2, 1, keepdim=True),
    "median": lambda x: x.median(), "median of rows": lambda x: x.median(1), "nanmedian": lambda x: x.nanmedian(0),
    "scatter": lambda x: x.scatter(1, TABLE, x.T), "scatter a number": lambda x: x.scatter(1, TABLE[:, :1], 2.0),
    "index_fill": lambda x: x.index_fill(0, PLACES, 1.0), "index_copy": lambda x: x.index_copy(1, PLACES[:2], x[:, :2]),
    "interpolate": lambda x: F.interpolate(x[None, None], scale_factor=2),
    "interpolate, smooth": lambda x: F.interpolate(x[None, None], size=(3, 7), mode="bilinear"),
    "kron": lambda x: graphc.kron(x, x[0]), "block_diag": lambda x: graphc.block_diag(x, x[0], x[:2].double()),
    "block_diag of a list": lambda x: graphc.block_diag([x.exp(), x]), "histc": lambda x: x.histc(7),
    "histc between": lambda x: x.histc(5, -1, 1.5),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x[None], (1, 3)),
}  # fmt: skip


def results(function: Callable[..., Any], x: Tensor) -> tuple[Any, list[Any], list[np.ndarray]]:
    """The type of what it returns, the names of the nodes, and the numbers, those of the gradient last."""
    leaf = x.detach().requires_grad_()
    out = function(leaf)
    outs = list(out) if isinstance(out, tuple) else [out]
    found = [o.detach().numpy() for o in outs]
    if outs[0].requires_grad:
        (outs[0] * graphc.arange(float(outs[0].numel())).reshape(outs[0].shape)).sum().backward()
        found.append(leaf.grad.numpy())
    return type(out), [o.grad_fn and o.grad_fn.name() for o in outs], found


def check(name: str, data: Tensor) -> None:
    with override(fuse_eager=False):
        kind, names, expected = results(CASES[name], data)
    for _ in range(4):
        found = results(CASES[name], data)
        assert found[0] is kind and found[1] == names
        for a, b in zip(found[2], expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_op_by_op(name: str) -> None:
    check(name, numbers(4, 4))


@pytest.mark.parametrize("name", ["max of rows", "clamp", "gather", "cat", "x[i, j]"])
def test_other_layouts_and_dtypes(name: str) -> None:
    check(name, numbers(4, 4).T)
    check(name, numbers(8, 8, seed=3, dtype=np.float64)[::2, 4:])


WRONG: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "gather": lambda x, i: x.gather(0, i[:, None]), "index_select": lambda x, i: x.index_select(0, i),
    "embedding": lambda x, i: F.embedding(i, x), "x[i]": lambda x, i: x[i], "x[i, i]": lambda x, i: x[i, i],
    "scatter_add": lambda x, i: x.scatter_add(0, i[:, None], x), "take": lambda x, i: x[0, :4].take(i),
    "scatter": lambda x, i: x.scatter(0, i[:, None], x), "index_fill": lambda x, i: x.index_fill(0, i, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_an_index_that_is_out_of_bounds_is_named_as_ever(name: str, grad: bool) -> None:
    x, function = numbers(4, 4).requires_grad_(grad), WRONG[name]
    right, wrong = graphc.tensor([0, 3]), graphc.tensor([0, 7])
    with pytest.raises(RuntimeError) as first:
        function(x, wrong)
    for _ in range(4):
        function(x, right)
    with pytest.raises(type(first.value)) as later:
        function(x, wrong)
    assert str(later.value).partition("\n  at ")[0] == str(first.value).partition("\n  at ")[0]
    function(x, right)


def test_large_tensors_run_op_by_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def trace_once(*args: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(compiled, "trace_once", trace_once)
    x = graphc.zeros(200, 200)
    for _ in range(5):
        assert x.flip(0).shape == (200, 200) and graphc.cat([x, x]).shape == (400, 200)
    with pytest.raises(AssertionError):
        for _ in range(3):
            x[:2].flip(0)


@pytest.mark.parametrize("name", ["clamp", "tanhshrink", "cube", "gather", "max of rows", "prod"])
def test_huge_tensors_get_code_when_met_several_times(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composites, "LARGE", 9)
    monkeypatch.setattr(composites, "HUGE", 16)
    composites.forget_forms()
    calls = 0

    def trace_once(*args: Any, original: Callable[..., Any] = compiled.trace_once) -> Any:
        nonlocal calls
        calls += 1
        return original(*args)

    monkeypatch.setattr(compiled, "trace_once", trace_once)
    x = numbers(4, 4, seed=7)
    for _ in range(composites.SEVERAL - 1):
        CASES[name](x)
    assert calls == 0
    CASES[name](x)
    assert calls == 1
    check(name, x)


@pytest.mark.parametrize("draw", [
    lambda: graphc.rand(3, 5), lambda: graphc.rand(3, dtype=graphc.float64), lambda: graphc.randn(7),
    lambda: graphc.randint(0, 9, (4,)), lambda: F.dropout(graphc.ones(16), 0.5), lambda: graphc.rand(4, dtype=graphc.float16),
    lambda: graphc.rand(()), lambda: graphc.rand(0), lambda: graphc.randperm(7), lambda: graphc.randint(0, 1 << 50, (5,)),
    lambda: graphc.randint(-3, 9, (2, 3), dtype=graphc.float32),
])  # fmt: skip
def test_streams_of_numbers_stay_what_they_are(draw: Callable[[], Tensor]) -> None:
    graphc.manual_seed(3)
    with override(fuse_eager=False):
        expected = [draw().numpy().tobytes() for _ in range(6)]
    graphc.manual_seed(3)
    assert [draw().numpy().tobytes() for _ in range(6)] == expected
    state = graphc.get_rng_state()
    once = draw()
    graphc.set_rng_state(state)
    assert draw().numpy().tobytes() == once.numpy().tobytes()


def test_shapes_in_tuples_are_told_apart() -> None:
    for shape in ((2, 3), (3, 2), (2, 3), (6,), (2, 3, 1), (2, 3)) * 3:
        assert graphc.rand(shape).shape == shape
        assert F.layer_norm(numbers(*shape), shape).shape == shape


def test_filling() -> None:
    for dtype in (graphc.float32, graphc.float64, graphc.bfloat16, graphc.int64, graphc.bool_, graphc.complex64):
        x = graphc.ones(4, dtype=dtype)
        before = x._version
        assert x.zero_() is x and not x.any() and x._version == before + 1
    x = graphc.ones(4)
    assert x.fill_(float("inf")).tolist() == [float("inf")] * 4 and x.fill_(1e30).tolist() == [float(np.float32(1e30))] * 4
    with pytest.raises(RuntimeError, match="without overflow"):
        x.fill_(1e300)
    leaf = graphc.ones(4, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        leaf.zero_()
    y = leaf * 2
    y[:2].zero_()
    y.sum().backward()
    assert leaf.grad.tolist() == [0.0, 0.0, 2.0, 2.0]
    z = (leaf * leaf).detach()
    out = leaf * z
    z.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
