"""The verifier: every rule of the IR, broken."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.dims import Dim
from graphc.errors import GraphcError, Location, VerifyError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Node, Value
from graphc.op import OPS, OpDef, Sample
from graphc.types import TensorType, dtype_of, float32, float64, int64
from graphc.verify import node_violation, verify

VECTOR = TensorType(float32, (2,))
MATRIX = TensorType(float32, (2, 3))


def node(record: OpDef, operands: list[Value], types: list[TensorType], **attrs: Any) -> Node:
    return Node(record, operands, attrs, types, None, None)


def one_node(record: OpDef, types: list[TensorType], result: TensorType, **attrs: Any) -> Graph:
    inputs = [Value(t, None, i, f"x{i}") for i, t in enumerate(types)]
    made = node(record, inputs, [result], **attrs)
    return Graph("f", inputs, [made], made.results)


def test_a_good_graph_passes() -> None:
    builder = Builder("f")
    x, w = builder.input("x", MATRIX), builder.input("w", TensorType(float32, (3, 4)))
    verify(builder.finish([ops.sum(ops.matmul(x, w), (1,)), x], ["y", "x"]))


BROKEN: dict[str, tuple[Callable[[], Graph], str]] = {
    "wrong arity": (lambda: one_node(ops.add, [VECTOR], VECTOR), "add has 1 operand"),
    "wrong variadic arity": (lambda: one_node(ops.concat, [], VECTOR, axis=0), "concat has 0 operands"),
    "missing attribute": (lambda: one_node(ops.reshape, [MATRIX], VECTOR), "reshape has no shape among"),
    "unknown attribute": (lambda: one_node(ops.exp, [VECTOR], VECTOR, base=2), "exp has an unknown base among"),
    "wrong type": (lambda: one_node(ops.exp, [VECTOR], MATRIX), "the result's type is not what the operands give"),
    "wrong dtype": (lambda: one_node(ops.exp, [VECTOR], TensorType(float64, (2,))), "the result's type is not what"),
    "type rule refuses": (lambda: one_node(ops.matmul, [MATRIX, MATRIX], MATRIX), "mat1 and mat2 shapes cannot be multiplied"),
    "type rule trips": (lambda: one_node(ops.argmax, [MATRIX], VECTOR, axis=5), "cannot reduce|do not fit"),
    "unequal shapes": (lambda: one_node(ops.add, [VECTOR, MATRIX], MATRIX), "differ in shape"),
    "unequal dtypes": (lambda: one_node(ops.add, [VECTOR, TensorType(int64, (2,))], VECTOR), "differ in dtype"),
    "list attribute": (lambda: one_node(ops.reshape, [MATRIX], TensorType(float32, (6,)), shape=[6]), "a list"),
    "numpy attribute": (lambda: one_node(ops.reshape, [MATRIX], TensorType(float32, (6,)), shape=(np.int64(6),)), "a int64"),
    "float for int": (lambda: one_node(ops.sum, [MATRIX], VECTOR, axes=(1.0,)), "attribute axes is of the wrong kind"),
    "bool for int": (lambda: one_node(ops.sum, [MATRIX], VECTOR, axes=(True,)), "attribute axes is of the wrong kind"),
    "negative size": (lambda: one_node(ops.exp, [TensorType(float32, (-1,))], TensorType(float32, (-1,))), "-1 is not a size"),
    "numpy size": (lambda: one_node(ops.exp, [TensorType(float32, (np.int64(2),))], VECTOR), "is not a size"),
    "too large": (lambda: one_node(ops.exp, [TensorType(float32, (2**31, 2**31))], VECTOR), "too large for any memory"),
    "bad device": (lambda: one_node(ops.exp, [TensorType(float32, (2,), "a b")], VECTOR), "is not a device"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_nodes(case: str) -> None:
    make, problem = BROKEN[case]
    with pytest.raises(VerifyError, match=problem):
        verify(make())


def test_the_line_and_its_origin_are_shown() -> None:
    x = Value(VECTOR, None, 0, "x")
    bad = Node(ops.exp, [x], {}, [MATRIX], Location("/a/model.py", 41, "forward"), None)
    with pytest.raises(VerifyError) as caught:
        verify(Graph("f", [x], [bad], bad.results))
    assert str(caught.value) == (
        "graph 'f': exp: the result's type is not what the operands give\n"
        "    %0 = exp(%x) : float32[2, 3]\n"
        "  expected: float32[2]\n"
        "  got:      float32[2, 3]\n"
        "  at model.py:41 in forward"
    )


def test_order_of_definitions() -> None:
    x = Value(VECTOR, None, 0, "x")
    first = node(ops.exp, [x], [VECTOR])
    second = node(ops.log, [first.result], [VECTOR])
    verify(Graph("f", [x], [first, second], second.results))
    with pytest.raises(VerifyError, match=r"log uses %1 before it is defined\n    %0 = log\(%1\)"):
        verify(Graph("f", [x], [second, first], second.results))
    with pytest.raises(VerifyError, match="log uses a value that is not in the graph"):
        verify(Graph("f", [x], [second], second.results))
    with pytest.raises(VerifyError, match="a value is defined twice"):
        verify(Graph("f", [x], [first, first], first.results))
    with pytest.raises(VerifyError, match="output 1 is not defined in it"):
        verify(Graph("f", [x], [first], [*first.results, *second.results]))


def test_inputs() -> None:
    x, y = Value(VECTOR, None, 0, "x"), Value(VECTOR, None, 1, "x")
    with pytest.raises(VerifyError, match="two inputs are called 'x'"):
        verify(Graph("f", [x, y], [], [x]))
    with pytest.raises(VerifyError, match="input 'x' is listed twice"):
        verify(Graph("f", [x, x], [], [x]))
    with pytest.raises(VerifyError, match="has another place"):
        verify(Graph("f", [y], [], [y]))
    with pytest.raises(VerifyError, match=r"key = \[1\], a list, cannot be kept"):
        verify(Graph("f", [Value(VECTOR, None, 0, "x", {"key": [1]})], [], []))


@pytest.mark.parametrize("names, problem", [
    (["a"], "1 names for 2 outputs"), (["a", "a"], "not different strings"), (["a", 3], "not different strings"),
])  # fmt: skip
def test_output_names(names: list[Any], problem: str) -> None:
    x = Value(VECTOR, None, 0, "x")
    with pytest.raises(VerifyError, match=problem):
        verify(Graph("f", [x], [], [x, x], names))


def test_results_point_back() -> None:
    x = Value(VECTOR, None, 0, "x")
    bad = node(ops.exp, [x], [VECTOR])
    bad.results[0].index = 1
    with pytest.raises(VerifyError, match="does not point back"):
        verify(Graph("f", [x], [bad], bad.results))


def test_an_op_that_only_bears_a_registered_name() -> None:
    import dataclasses

    with pytest.raises(VerifyError, match="'exp' is not a registered op"):
        verify(one_node(dataclasses.replace(ops.exp), [VECTOR], VECTOR))


# What the verifier lets through must run: files from anywhere go through it before they reach code generation

HOSTILE: tuple[Any, ...] = (
    0, 1, -1, 2, 5, 7, 2**40, 2**44, 1.0, 0.5, float("nan"), True, False, None, "a", "ik,kj->ij", float32, int64,
    (), (0,), (1,), (-1,), (1, 1), (0, 0), (2, 3), (5, 3), (1.0, 0.0), ((0, 0), (0, 0)), ((0, -1), (0, 0)), (2**40,), (("a",),),
    Dim.symbol("N"),
)  # fmt: skip


def mutate(value: Any, choose: random.Random) -> Any:
    if isinstance(value, tuple) and value and choose.random() < 0.6:
        i = choose.randrange(len(value))
        return (*value[:i], mutate(value[i], choose), *value[i + 1 :])
    if type(value) is int and choose.random() < 0.7:
        return choose.choice([value + 1, value - 1, -value, 7 * value, float(value), bool(value)])
    if type(value) is bool and choose.random() < 0.5:
        return not value
    return choose.choice(HOSTILE)


@pytest.mark.parametrize("name", sorted(name for name, record in OPS.items() if record.attrs and name != "constant"))
def test_attributes_that_pass_can_be_run(name: str) -> None:
    record, choose = OPS[name], random.Random(name)
    passed = 0
    for sample in record.samples:
        arrays = [np.ones(x.shape, x.dtype.numpy) if isinstance(x, TensorType) else np.asarray(x) for x in sample.operands]
        for _ in range(150):
            passed += run_mutated(record, sample, arrays, choose)
    assert passed, "no mutation left the op valid: the test tests nothing"


def run_mutated(record: OpDef, sample: Sample, arrays: list[np.ndarray], choose: random.Random) -> bool:
    """Whether the changed node passed the verifier; then it must compute results of the inferred types."""
    attrs = dict(sample.attrs)
    for _ in range(choose.choice((1, 1, 2))):
        changed = choose.choice(record.attrs)
        others = [other.attrs[changed] for other in record.samples]
        attrs[changed] = choose.choice(others) if choose.random() < 0.2 else mutate(attrs[changed], choose)
    types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
    try:
        found = record.infer(*types, **attrs)
    except Exception:  # whatever a type rule says of nonsense, the verifier makes a VerifyError of it
        return False
    inferred = list(found) if isinstance(found, tuple) else [found]
    made = node(record, [Value(t, None, i) for i, t in enumerate(types)], inferred, **attrs)
    if node_violation(made) or not all(type_.is_static and type_.nbytes <= 1 << 20 for type_ in inferred):
        return False
    try:
        results = interpret(Graph("f", made.operands, [made], made.results), arrays)
    except (GraphcError, MemoryError):  # indices are data, and sizes inside an op may be huge: known at run time only
        return True
    assert [TensorType(dtype_of(result.dtype), result.shape) for result in results] == [t.on("cpu") for t in inferred], attrs
    return True
