"""Eager elementwise ops and views as built-in functions; see `eager_code` and `view_code` for what they do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType
from typing import Any, TypeVar

import numpy as np

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.eager_code import LOOPS, Eager, render_loops, render_ufunc
from graphc.backends.llvm.entry import END, EntryModule, entry_module
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.subscript_code import subscript_table
from graphc.backends.llvm.tape_code import plan_words
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.view_code import view_table
from graphc.config import note
from graphc.op import OpDef
from graphc.specs import EagerSpec, SubscriptSpec, ViewSpec
from graphc.types import DType, TensorType

_Spec = TypeVar("_Spec", bound=ViewSpec | SubscriptSpec)

MOST = 1 << 14
"""Elements of the largest result: one thread is at it, and the interpreter's lock is held."""


def make_eager(spec: EagerSpec, target: Target) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """See `Backend.eager`."""
    alive: list[Any] = [spec]

    def at(thing: Any) -> int:
        """The address of an object, which stays as long as the table does."""
        alive.append(thing)
        return id(thing)

    operands = len(spec.op.operands)
    result = spec.op.infer(*[TensorType(spec.dtype, ())] * operands).dtype
    try:
        entries = entry_module(spec.tensors)
        grad, hooks = (entries.thread_attribute(*which, alive) for which in (spec.grad, spec.hooks))
        thread = entries.thread_check(spec.thread, alive)
        loops = _loops(spec.op, spec.dtype, result, spec.ufunc, target)
    except objects.Unsupported as reason:
        note(1, f"graphc: no native eager ops: {reason}")
        return None
    addresses = [loops.address(name) for name in LOOPS[: 1 if operands == 1 else 3]]
    words = {
        Eager.OPERANDS: operands,
        Eager.DTYPE: at(spec.dtype.numpy),
        Eager.RESULT: at(result.numpy),
        Eager.ITEMSIZE: spec.dtype.itemsize,
        Eager.RESULT_ITEMSIZE: result.itemsize,
        Eager.MOST: MOST,
        Eager.IN_PLACE: int(spec.in_place),
        Eager.RECORD: 0 if spec.record is None else at(spec.record),
        **dict(zip((Eager.WHOLE, Eager.NUMBER_RIGHT, Eager.NUMBER_LEFT), [*addresses, 0, 0], strict=False)),
    }
    plans = [word for plan in (*spec.nodes, None, None, None)[:3] for word in plan_words(plan)]
    table = np.array([*(words[which] for which in Eager if which < Eager.GRAD), *grad, *hooks, *plans, *thread, *END], np.int64)
    kept = (alive, loops, entries)
    return lambda fallback: entries.new_documented((table, kept, fallback), "eager", fallback)


@functools.cache
def _loops(record: OpDef, dtype: DType, result: DType, ufunc: np.ufunc | None, target: Target) -> NativeModule:
    module = Module(f"eager {record.name} {dtype.name}", target.has_fma, target.vector_bytes)
    if ufunc is None:
        render_loops(module, record, dtype, result)
        return compile_module(str(module), target)
    loop, data = objects.ufunc_loop(ufunc, dtype.numpy)
    render_ufunc(module, dtype.itemsize)
    return compile_module(str(module), target, imports={"numpy_loop": loop, "numpy_data": data})


def make_view(spec: ViewSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """See `Backend.view`."""
    made = _entries_and_table(spec, view_table, "views")
    if made is None:
        return None
    entries, table, kept = made
    return lambda fallback: entries.new((table, kept, fallback), "view")


def make_subscript(spec: SubscriptSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """See `Backend.subscript`."""
    makers = (spec.lazy, spec.cut, spec.selected, spec.dropped, spec.alias)
    if not all(isinstance(make, BuiltinFunctionType) for make in makers):
        return None
    made = _entries_and_table(spec, subscript_table, "subscripts")
    if made is None:
        return None
    entries, table, kept = made
    return lambda fallback: entries.new_documented((table, kept, fallback), "subscript", fallback)


def _entries_and_table(
    spec: _Spec, table_of: Callable[[_Spec, EntryModule, list[Any]], Sequence[int]], name: str
) -> tuple[EntryModule, np.ndarray, Any] | None:
    """The module with native entries, the table of one of them, and what the table's addresses keep alive."""
    alive: list[Any] = [spec]
    try:
        entries = entry_module(spec.tensors)
        table = table_of(spec, entries, alive)
    except objects.Unsupported as reason:
        note(1, f"graphc: no native {name}: {reason}")
        return None
    return entries, np.array([*table, *END], np.int64), (alive, entries)
