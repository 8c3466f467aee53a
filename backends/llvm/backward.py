"""Nodes of the tape that run natively; see `backward_code` and `backward_node` for how."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.backends.llvm import objects
from graphc.backends.llvm.backward_node import MOST_ARRAYS, MOST_EDGES, Call
from graphc.backends.llvm.backward_step import Kind, Step, Steps
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.composite_code import MOST_TENSORS, recorded_table
from graphc.backends.llvm.eager import MOST
from graphc.backends.llvm.eager_code import fill
from graphc.backends.llvm.entry import entry_module
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.target import Target
from graphc.config import note
from graphc.errors import GraphcError
from graphc.expression import Axis, Buffer, Expr, constant, load, walk
from graphc.kernel import Store
from graphc.op import OpDef, Vjp, vjp_rule
from graphc.specs import CallSpec, RecordedSpec, RuleSpec, TensorClass
from graphc.types import DType, float32, float64, int64

_PARTS = frozenset((
    "load", "constant", "axis", "cast", "add", "sub", "mul", "div", "neg", "abs", "sqrt", "sign", "relu", "maximum", "minimum",
    "where", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not",
    "exp", "log", "sin", "cos", "rsqrt",
))  # fmt: skip
"""What a rule may be made of, so that its loop computes what its ops compute one by one: all of it to the bit, but for the
functions in the last line."""

_MOVED = {
    ops.reshape: Kind.RESHAPE, ops.permute: Kind.PERMUTE, ops.slice: Kind.SLICE,
    **dict.fromkeys((ops.copy, ops.cast, ops.broadcast_to), Kind.PASS),
}  # fmt: skip
"""Ops that move numbers, and convert them, and how the cotangents of their operands are made of those of their results."""

_SIZE = 1 << 30  # of memory whose size is not known


def make_engine(tensors: TensorClass) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """See `Backend.engine`."""
    try:
        entries = entry_module(tensors)
    except objects.Unsupported as reason:
        note(1, f"graphc: nodes do not run natively: {reason}")
        return None
    return entries.new((), "walk"), entries.new((), "dependencies")


def make_rules(spec: RuleSpec, target: Target) -> np.ndarray | None:
    """See `Backend.rules`."""
    operands = len(spec.op.operands)
    if not 0 < operands <= MOST_EDGES:
        return None
    words = [operands, len(spec.wanted), MOST]
    assert len(words) == len(Steps)
    for operand in spec.wanted:
        step = _step(spec, operand, target)
        if step is None:
            return None
        words += step
    return np.array(words, np.int64)


def make_call(spec: CallSpec) -> np.ndarray | None:
    """See `Backend.rules`."""
    arguments = spec.kept + len(spec.taken) + len(spec.outputs)
    if len(spec.sources) > MOST_EDGES or arguments > MOST_ARRAYS:
        return None
    words = {
        Call.EDGES: len(spec.sources),
        Call.KEPT: spec.kept,
        Call.TAKEN: len(spec.taken),
        Call.FUNCTION: id(spec.function),
        Call.OUTPUTS: len(spec.outputs),
        Call.MOST: MOST,
    }
    head = [words[which] for which in Call if which < Call.LISTS]
    sources = [sum(1 << k for k in numbers) for numbers in spec.sources]
    return np.array([*head, *map(id, spec.outputs), *spec.taken, *sources], np.int64)


def make_recorded(spec: RecordedSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """See `Backend.recorded`."""
    if max(len(spec.inputs), len(spec.seeds)) > MOST_TENSORS:
        return None
    alive: list[Any] = [spec]
    try:
        entries = entry_module(spec.tensors)
        table = recorded_table(spec, entries, alive)
        checks = entries.checks(spec.arguments, spec.identities, spec.thread, alive)
    except objects.Unsupported as reason:
        note(1, f"graphc: no native calls that are recorded: {reason}")
        return None
    words = np.array([*table, *checks], np.int64)
    return lambda fallback: entries.new((words, (alive, entries), fallback), "recorded")


def _step(spec: RuleSpec, operand: int, target: Target) -> list[int] | None:
    """The words of a step; None for a rule that there is no code for."""
    words = [0] * Step.END
    words[Step.OPERAND] = operand
    if spec.op in _MOVED:
        words[Step.KIND] = _MOVED[spec.op]
        return words
    rule = vjp_rule(spec.op, operand)
    if rule is None:
        return None
    if not spec.op.elementwise or spec.op.attrs or spec.op.kernel is not None:
        return None
    sources: list[int] = []
    for need in rule.needs:
        if need in spec.op.operands:
            sources.append(1 + spec.saves.index(spec.op.operands.index(need)))
        elif need == "out":
            sources.append(-1)
        elif need != "ct":
            return None
    if len(sources) > 2:
        return None
    _, _, values = _operands(rule, float32)
    expression = _applied(rule, values)
    if expression is values["ct"]:
        words[Step.KIND] = Kind.PASS
        return words
    if expression is None or any(part.op not in _PARTS for part in walk([expression])):
        return None
    words[Step.KIND] = Kind.LOOP
    for place, source in zip((Step.FIRST, Step.SECOND), sources, strict=False):
        words[place] = source
    for k, dtype in enumerate((float32, float64)):
        loops = _loops(spec.op, operand, dtype, target)
        words[Step.LOOPS + 2 * k] = loops.address("whole")
        words[Step.LOOPS + 2 * k + 1] = loops.address("number") if len(sources) == 1 else 0
    return words


def _operands(rule: Vjp, dtype: DType) -> tuple[Axis, dict[str, Buffer], dict[str, Expr]]:
    """What a rule is given for one element: where the elements are, in which memory, and the elements."""
    axis = Axis("i", _SIZE)
    buffers = {need: Buffer(need, dtype, _SIZE, "input") for need in rule.needs}
    return axis, buffers, {need: load(buffer, axis.value) for need, buffer in buffers.items()}


def _applied(rule: Vjp, values: dict[str, Expr]) -> Expr | None:
    """The rule for one element; None where it is not made for those."""
    try:
        made = rule(**values)
    except GraphcError:
        return None
    return made if isinstance(made, Expr) and made.dtype is values["ct"].dtype else None


@functools.cache
def _loops(record: OpDef, operand: int, dtype: DType, target: Target) -> NativeModule:
    """The loops `(result, ct, first, second, count)` of a rule: `whole`, and `number`, where the first is a single element."""
    rule = vjp_rule(record, operand)
    assert rule is not None
    module = Module(f"backward {record.name} {operand} {dtype.name}", target.has_fma, target.vector_bytes)
    others = [need for need in rule.needs if need != "ct"]
    for name in ("whole", "number") if len(others) == 1 else ("whole",):
        params = [("ptr", "result"), ("ptr", "ct"), ("ptr", "first"), ("ptr", "second"), ("i64", "count")]
        f = module.function(name, params)
        axis, buffers, values = _operands(rule, dtype)
        if name == "number":
            values[others[0]] = load(buffers[others[0]], constant(0, int64))
        expression = _applied(rule, values)
        assert expression is not None
        out = Buffer("result", dtype, _SIZE, "output")
        places = {"ct": "%ct", **dict(zip(others, ("%first", "%second"), strict=False))}
        pointers = {out: "%result", **{buffers[need]: place for need, place in places.items()}}
        fill(f, axis, Store(out, axis.value, expression), pointers, module.vector_bytes // dtype.itemsize)
    return compile_module(str(module), target)
