"""Ops of the user's own: eagerly, compiled, in files, with derivatives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import config
from graphc.errors import GraphcError
from graphc.frontend.export import trace_function
from graphc.op import OPS
from graphc.passes.pipeline import run as run_passes
from graphc.schedule import Machine, lower
from graphc.types import TensorType

NATIVE = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end runs NumPy rules only")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    before = dict(OPS)
    yield
    for name in OPS.keys() - before.keys():
        del OPS[name]
    graphc.compiler.clear_cache()


def softsign(**options: Any) -> Any:
    def function(x: np.ndarray) -> Any:
        return x / (1 + np.abs(x))

    return graphc.custom_op("tests.softsign", function, vjp=lambda ct, x: ct / (1 + abs(x)) ** 2, **options)


def scalar_softsign() -> Any:
    return softsign(scalar=lambda x: x / (1 + abs(x)))


def power_sum(**options: Any) -> Any:
    """An op with two operands, an attribute and a type rule."""

    def function(x: np.ndarray, w: np.ndarray, *, power: int = 2) -> Any:
        return np.einsum("nk,k->n", x**power, w)

    return graphc.custom_op(
        "tests.power_sum", function, infer=lambda x, w, power: x.with_shape(x.shape[:1]),
        vjp=(lambda ct, x, w, power: ct[:, None] * power * x ** (power - 1) * w,
             lambda ct, x, power: (ct[:, None] * x**power).sum(0)), **options,
    )  # fmt: skip


@pytest.mark.parametrize("make", [softsign, lambda: softsign(elementwise=True), scalar_softsign],
                         ids=["function", "elementwise", "scalar"])
def test_the_same_eagerly_compiled_and_differentiated(make: Any) -> None:
    op = make()
    x = graphc.tensor([[-1.0, 0.5], [2.0, -3.0]], dtype=graphc.float64, requires_grad=True)
    assert op(x).tolist() == [[-0.5, 0.5 / 1.5], [2 / 3, -0.75]]
    assert graphc.allclose(graphc.compile(lambda v: op(v * 2) + 1)(x), op(x * 2) + 1)
    assert repr(op(x).grad_fn).startswith("<SoftsignBackward0")
    assert graphc.autograd.gradcheck(op, x)
    assert graphc.autograd.gradgradcheck(op, x)

    @graphc.compile
    def penalty(v: Any) -> Any:
        (slope,) = graphc.autograd.grad(op(v).sum(), v, create_graph=True)
        return (slope**2).sum()

    expected = ((1 + abs(x.detach())) ** -4).sum()
    penalty(x).backward()
    assert penalty(x).item() == pytest.approx(expected.item())
    compiled, x.grad = x.grad, None
    (slope,) = graphc.autograd.grad(op(x).sum(), x, create_graph=True)
    (slope**2).sum().backward()
    assert compiled is not None and x.grad is not None
    assert graphc.allclose(compiled, x.grad)
    assert graphc.allclose(graphc.func.vmap(op)(x.detach()), op(x.detach()))
    assert graphc.allclose(graphc.func.grad(lambda v: op(v).sum())(x.detach()), slope)


def test_operands_and_attributes() -> None:
    op = power_sum()
    x = graphc.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=graphc.float64, requires_grad=True)
    w = graphc.tensor([1.0, 10.0], dtype=graphc.float64, requires_grad=True)
    assert op(x, w).tolist() == [41.0, 169.0]
    assert op(x, w=w, power=3).tolist() == [81.0, 667.0]
    assert graphc.compile(lambda a, b: op(a, b, power=3))(x, w).tolist() == [81.0, 667.0]
    assert graphc.autograd.gradcheck(lambda a, b: op(a, b, power=3), (x, w))
    assert graphc.autograd.gradgradcheck(lambda a, b: op(a, b, power=3), (x, w))
    graph = graphc.trace(lambda a, b: op(a, b), (x.detach(), w.detach()))
    assert "tests.power_sum(%a, %b) {power = 2} : float64[2]" in str(graph)
    assert graphc.parse_ir(str(graph)) == graph
    assert repr(op).startswith("<custom op tests.power_sum(")


def test_several_results_and_a_rule_by_trial() -> None:
    def vjp(ct: Any) -> Any:
        first, second = ct
        return second * 2 if first is None else first if second is None else first + second * 2

    @graphc.custom_op("tests.parts", vjp=vjp)
    def parts(x: np.ndarray) -> Any:
        return x + 1, x * 2

    x = graphc.tensor([1.0, 2.0], requires_grad=True)
    one, two = parts(x)
    (one * two).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6.0, 10.0]
    x.grad = None
    parts(x)[1].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 2.0]
    assert [r.tolist() for r in graphc.compile(lambda v: parts(v))(x)] == [[2.0, 3.0], [2.0, 4.0]]


def test_a_saved_file_has_it_by_name(tmp_path: Path) -> None:
    op = power_sum()
    x, w = graphc.ones(3, 2), graphc.tensor([1.0, 5.0])
    path = tmp_path / "model.gcz"
    graphc.save(graphc.export(lambda v: op(v * 2, w), (x,)), path)
    assert graphc.load(path)(x).tolist() == [24.0] * 3
    code = f"import graphc\ntry: graphc.load({str(path)!r})\nexcept Exception as error: print(type(error).__name__, error)"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "tests.power_sum" in text
    assert "graphc.custom_op" in text


@NATIVE
def test_scalar_forms_join_the_kernels_around_them() -> None:
    op = scalar_softsign()
    graph = trace_function(lambda v: graphc.exp(op(v) * 2), (graphc.ones(8),)).graph
    program = lower(run_passes(graph), Machine(vector_bytes=32))
    assert len(program.kernels) == 1


SCALE = """
define void @kernel(ptr %out, ptr %x, i64 %rows, i64 %columns, double %factor) {
entry:
  %count = mul i64 %rows, %columns
  %narrow = fptrunc double %factor to float
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %from = getelementptr float, ptr %x, i64 %i
  %to = getelementptr float, ptr %out, i64 %i
  %value = load float, ptr %from
  %scaled = fmul float %value, %narrow
  store float %scaled, ptr %to
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}
"""


@NATIVE
def test_llvm_code_runs_instead_of_the_function() -> None:
    calls = []

    @graphc.custom_op("tests.scale", infer=lambda x, factor: x, llvm=SCALE, vjp=lambda ct, factor: ct * factor)
    def scale(x: np.ndarray, *, factor: float) -> Any:
        calls.append(x.shape)
        return (x * factor).astype(x.dtype)

    x = graphc.arange(12.0).reshape(3, 4)
    f = graphc.compile(lambda v: scale(v.t() + 1, factor=0.5) * 2)
    assert f(x).tolist() == (x.t() + 1).tolist()
    assert not calls
    assert scale(x, factor=3.0).tolist() == (x * 3).tolist()
    assert calls == [(3, 4)]
    strided = graphc.compile(lambda v: scale(v, factor=0.5))
    assert strided(x.t()).tolist() == (x.t() / 2).tolist()
    p = x.clone().requires_grad_()
    graphc.compile(lambda v: scale(v, factor=0.5).sum())(p).backward()
    assert p.grad is not None and p.grad.tolist() == [[0.5] * 4] * 3


@NATIVE
@pytest.mark.parametrize(("llvm", "message"), [
    ("define void @other() { ret void }", "no function @kernel"), ("this is not LLVM", "LLVM refuses the module"),
])
def test_llvm_code_that_is_wrong(llvm: str, message: str) -> None:
    op = softsign(llvm=llvm)
    with pytest.raises(GraphcError, match=message):
        graphc.compile(lambda v: op(v))(graphc.ones(2))


def test_what_registering_refuses() -> None:
    def function(x: np.ndarray) -> Any:
        return x

    for name in ("plain", "", "a.b-c", 3):
        with pytest.raises((ValueError, TypeError)):
            graphc.custom_op(name, function)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="positional parameters"):
        graphc.custom_op("tests.none", lambda *, a: a)
    with pytest.raises(ValueError, match=r"\*xs"):
        graphc.custom_op("tests.many", lambda *xs: xs)
    with pytest.raises(ValueError, match="2 derivative rules for 1 operands"):
        graphc.custom_op("tests.rules", function, vjp=(None, None))
    with pytest.raises(ValueError, match="leave infer"):
        graphc.custom_op("tests.rule", function, elementwise=True, infer=lambda x: x)
    assert not [name for name in OPS if name.startswith("tests.")]
    graphc.custom_op("tests.twice", function)
    with pytest.raises(ValueError, match="replace=True"):
        graphc.custom_op("tests.twice", function)


def test_a_replaced_op_is_the_new_one() -> None:
    f = graphc.custom_op("tests.changing", lambda x: x + 1, elementwise=True)
    x = graphc.ones(2)
    assert graphc.compile(lambda v: f(v))(x).tolist() == [2.0, 2.0]
    f = graphc.custom_op("tests.changing", lambda x: x + 5, elementwise=True, replace=True)
    assert graphc.compile(lambda v: f(v))(x).tolist() == [6.0, 6.0]
    assert f(x).tolist() == [6.0, 6.0]


def test_errors_of_use() -> None:
    op = graphc.custom_op("tests.plus", lambda x, *, n=1: x + n)
    x = graphc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"'tests\.plus' is not implemented"):
        op(x).sum().backward()
    with pytest.raises(TypeError, match="missing a required argument"):
        op()
    with pytest.raises(TypeError, match="no tensor among the operands"):
        op(1.0)
    with pytest.raises(TypeError, match="cannot be a Tensor"):
        op(x, n=x)
    wrong = graphc.custom_op("tests.wrong", lambda x: x.astype(np.float64), infer=lambda x: x)
    for call in (wrong, graphc.compile(lambda v: wrong(v))):
        with pytest.raises(RuntimeError, match=r"(?s)does not return what its type rule says.*float32\[2\].*float64\[2\]"):
            call(graphc.ones(2))


def test_gradients_can_be_cut_off() -> None:
    op = graphc.custom_op("tests.cut", lambda x: np.sign(x), elementwise=True, vjp=graphc.not_differentiable)
    assert not op(graphc.ones(2, requires_grad=True)).requires_grad


def test_types_are_what_rules_get() -> None:
    seen: list[Any] = []

    def infer(x: TensorType, *, times: int) -> TensorType:
        seen.append((x.dtype, x.shape, times))
        return x.with_shape((times, *x.shape))

    op = graphc.custom_op("tests.tiled", lambda x, *, times: np.stack([x] * times), infer=infer)
    assert graphc.compile(lambda v: op(v, times=3))(graphc.ones(2)).shape == (3, 2)
    assert (graphc.float32, (2,), 3) in seen
