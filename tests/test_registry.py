"""Completeness: every op in the registry has all that an op needs, and all of it agrees with the op's NumPy definition.

The cases are the samples in the ops' own records, so a new op is tested the moment it is defined, and fails here until
its record is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from op_cases import CASES, DIFFERENTIABLE, Case, assert_agree, numbered

import graphc
from graphc.autodiff import vjp_graph
from graphc.compiler import clear_cache, compile_graph
from graphc.errors import GraphcError
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.op import OPS, OpDef, Sample, Undefined, Vjp, not_differentiable, op, vjp_rule
from graphc.parse import parse_graph
from graphc.text import print_graph
from graphc.types import TensorType, dtype_of, float32, float64
from graphc.verify import verify

ORDER = 2
"""Derivatives are checked up to this order."""


every_op = pytest.mark.parametrize("record", OPS.values(), ids=list(OPS))
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
differentiable_case = pytest.mark.parametrize("case", DIFFERENTIABLE.values(), ids=list(DIFFERENTIABLE))


def operand_count(record: OpDef, sample: Sample) -> int:
    return len(sample.operands) if record.variadic else len(record.operands)


@every_op
def test_record_is_whole(record: OpDef) -> None:
    assert record.samples, "give it samples: everything else here is made of them"
    for sample in record.samples:
        assert len(sample.operands) == operand_count(record, sample)
        assert set(sample.attrs) == set(record.attrs)
    rules = record.vjp if isinstance(record.vjp, tuple) else ()
    if record.vjp is not not_differentiable and not isinstance(record.vjp, Vjp):
        assert len(rules) == len(record.operands), "one rule an operand; None where the operand has no derivative"


ZERO = {("squared_deviations", 1)}
"""Operands by which a derivative is known to be zero: by the mean, deviations from it are summed up."""


@every_op
def test_derivative_or_an_explicit_none(record: OpDef) -> None:
    check_rules(record, [case for case in CASES.values() if case.record is record])


def check_rules(record: OpDef, cases: list[Case]) -> None:
    """An operand that is floating point in some sample has a rule, unless the op says that it has no derivative at all."""
    if record.vjp is not_differentiable:
        return
    for i in range(max(len(case.arrays) for case in cases)):
        floating = any(i < len(case.arrays) and case.arrays[i].dtype.kind in "fc" for case in cases)
        rule = vjp_rule(record, i)
        if (record.name, i) in ZERO:
            assert rule is None
        elif rule is None or not isinstance(rule.rule, Undefined):
            assert floating == (rule is not None), f"operand {i}: give it a rule, or a sample in floating point"


@every_case
def test_type_rule_agrees_with_definition(case: Case) -> None:
    graph = case.graph()
    for value, array in zip(graph.outputs, interpret(graph, case.arrays), strict=True):
        assert value.type == TensorType(dtype_of(array.dtype), array.shape)


@every_case
def test_text_round_trip(case: Case) -> None:
    graph = case.graph()
    verify(graph)
    again = parse_graph(print_graph(graph))
    assert again == graph
    assert print_graph(again) == print_graph(graph)


@every_case
def test_compiled_agrees_with_definition(case: Case) -> None:
    """Fails for an op that no back end can lower: scalar form, `lower`, reduction, `decompose` or a kernel of its own."""
    graph = case.graph()
    assert_agree(compile_graph(graph)(*case.arrays), interpret(graph, case.arrays))


@differentiable_case
def test_compiled_derivative_agrees_with_definition(case: Case) -> None:
    graph = vjp_graph(case.graph())
    rng = np.random.default_rng(1)
    cotangents = [rng.uniform(0.5, 1.5, v.shape).astype(v.dtype.numpy) for v in graph.inputs[len(case.arrays) :]]
    arrays = [*case.arrays, *cotangents]
    assert_agree(compile_graph(graph)(*arrays), interpret(graph, arrays))


@every_case
def test_eager_agrees_with_definition(case: Case) -> None:
    like = graphc.zeros(())
    got = case.record(*map(graphc.from_numpy, case.arrays), like=like, **case.sample.attrs)
    results = got if isinstance(got, tuple) else (got,)
    assert_agree([r.detach().numpy() for r in results], interpret(case.graph(), case.arrays))


def slope(graph: Graph, arrays: list[np.ndarray], direction: dict[int, np.ndarray], cotangents: list[np.ndarray]) -> float:
    """d/dt <cotangents, graph(arrays + t * direction)> at t = 0, by central differences."""
    step = 1e-6

    def results(t: float) -> list[np.ndarray]:
        return interpret(graph, [a + t * direction[i] if i in direction else a for i, a in enumerate(arrays)])

    total = 0.0
    ends = [(high, low) for high, low in zip(results(step), results(-step), strict=True) if high.dtype.kind in "fc"]
    for (high, low), cotangent in zip(ends, cotangents, strict=True):
        difference = np.subtract(high, low, out=np.zeros_like(high), where=high != low)  # inf - inf is no slope
        total += inner(difference, cotangent) / (2 * step)
    return total


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """The inner product; of complex numbers as pairs of real ones, which is how their gradients are defined."""
    return float(np.sum((np.conj(x) * y).real))


def normal(rng: np.random.Generator, like: Any) -> np.ndarray:
    """Normally distributed numbers in the shape of an array or a graph value, complex where that is."""
    numbers = rng.standard_normal(like.shape)
    kind = like.dtype.kind if isinstance(like, np.ndarray) else like.dtype.numpy.kind
    return numbers + 1j * rng.standard_normal(like.shape) if kind == "c" else numbers


def seeds(rng: np.random.Generator, graph: Graph) -> list[np.ndarray]:
    """Cotangents of the outputs that have any."""
    return [normal(rng, v) for v in graph.outputs if v.dtype.is_differentiable]


def check_derivative(graph: Graph, arrays: list[np.ndarray], order: int, sample: Sample) -> None:
    """The graph's vector-Jacobian product along a random direction, then that of the product itself."""
    rng = np.random.default_rng(order)
    backward = vjp_graph(graph)
    cotangents = seeds(rng, graph)
    found = interpret(backward, [*arrays, *cotangents])
    floating = [i for i, a in enumerate(arrays) if a.dtype.kind in "fc"]
    direction = {i: normal(rng, arrays[i]) for i in floating}
    if sample.hermitian:
        direction[0] = direction[0] + direction[0].conj().swapaxes(-1, -2)
    if sample.triangular:
        direction[0] = np.tril(direction[0])
    expected = slope(graph, arrays, direction, cotangents)
    got = sum(inner(g, direction[i]) for i, g in zip(floating, found, strict=True))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if order > 1:
        check_derivative(backward, [*arrays, *cotangents], order - 1, sample)


@differentiable_case
def test_derivative_agrees_with_finite_differences(case: Case) -> None:
    wide = case.in_float64()
    check_derivative(wide.graph(), list(wide.arrays), ORDER, wide.sample)


@differentiable_case
def test_tape_agrees_with_graph_derivative(case: Case) -> None:
    """The eager engine and the graph transformation apply the same rules: to the first order, and to the second."""
    case = case.in_float64()
    rng = np.random.default_rng(2)
    wanted = case.differentiable()
    tensors = [graphc.tensor(a, requires_grad=i in wanted) for i, a in enumerate(case.arrays)]
    leaves = [tensors[i] for i in wanted]
    made = case.record(*tensors, **case.sample.attrs)
    outs = [out for out in (made if isinstance(made, tuple) else (made,)) if out.dtype.is_differentiable]
    graph = case.graph()
    backward = vjp_graph(graph, wanted)
    cts = seeds(rng, graph)
    if not any(out.requires_grad for out in outs):
        pytest.fail("the tape recorded nothing")

    grads = graphc.autograd.grad(outs, leaves, [graphc.tensor(ct) for ct in cts], create_graph=True)
    assert_agree([g.detach().numpy() for g in grads], interpret(backward, [*case.arrays, *cts]))

    outer = [normal(rng, case.arrays[i]) for i in wanted]
    second = vjp_graph(backward, wanted)
    expected = interpret(second, [*case.arrays, *cts, *outer])
    linear = [g for g in grads if g.requires_grad]
    got: list[Any] = [None] * len(leaves)
    if linear:
        kept = [graphc.tensor(s) for g, s in zip(grads, outer, strict=True) if g.requires_grad]
        got = list(graphc.autograd.grad(linear, leaves, kept, allow_unused=True))
    assert_agree([np.zeros_like(e) if g is None else g.numpy() for g, e in zip(got, expected, strict=True)], expected)


def check_record(record: OpDef) -> None:
    """All of the above, for an op that was defined after this file was read."""
    test_record_is_whole(record)
    cases = [numbered(record, n, sample) for n, sample in enumerate(record.samples)]
    check_rules(record, cases)
    for case in cases:
        test_type_rule_agrees_with_definition(case)
        test_text_round_trip(case)
        test_compiled_agrees_with_definition(case)
        test_eager_agrees_with_definition(case)
        if case.differentiable():
            test_compiled_derivative_agrees_with_definition(case)
            test_derivative_agrees_with_finite_differences(case)
            test_tape_agrees_with_graph_derivative(case)


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpDef]]:
    """Defines the op `square`, whole but for what is overridden, for the length of a test."""
    whole: dict[str, Any] = {
        "infer": lambda x: x, "ref": np.square, "elementwise": True, "vjp": lambda ct, x: ct * x * 2,
        "scalar": lambda x: x * x, "samples": (Sample((TensorType(float32, (3, 5)),)),),
    }  # fmt: skip
    clear_cache()  # what was compiled for another op of this name
    yield lambda **other: op("square", "x", **{**whole, **other})
    OPS.pop("square", None)


def test_a_whole_record_passes(define: Callable[..., OpDef]) -> None:
    check_record(define())


@pytest.mark.parametrize("missing", [
    {"samples": ()},
    {"infer": lambda x: TensorType(float64, x.shape)},
    {"ref": np.abs},
    {"scalar": None},
    {"vjp": lambda ct, x: ct * x},
    {"vjp": lambda ct, x_type: ct * 2.0},
    {"vjp": (None,)},
])  # fmt: skip
def test_what_is_missing_or_wrong_is_found(define: Callable[..., OpDef], missing: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, GraphcError)):
        check_record(define(**missing))
