"""Batching: one op applied to many operands of a kind at once, which is what vmap is made of.

The batch is dimension 0 of the operands that have one, and of the results. The values may be of any kind that ops work
on: tensors, or values of a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.errors import GraphcError
from graphc.ir import Builder, Graph, Value, copy_node
from graphc.op import OpDef, common_dtype
from graphc.ops.movement import stack_operand
from graphc.types import DType, Size, TensorType, dtype_of, scalar_dtype

_NAMES_DIMENSIONS = frozenset(("axis", "axes"))
"""The attributes that are dimensions of the operands and of the result."""


def apply_batched(
    record: OpDef, size: Size, operands: Sequence[Any], batched: Sequence[bool], attrs: Mapping[str, Any]
) -> Any:
    """The op on a batch: result (or tuple of results) number i along dimension 0 is that of the i-th operands.

    operands
        Values, NumPy arrays and Python numbers.
    batched
        Which of the operands have the batch, of `size`, as dimension 0; at least one. The others are the same for all.
    """
    if record.elementwise:
        return _elementwise(record, size, operands, batched)
    like = next(x for x, own in zip(operands, batched) if own)
    values = [x if hasattr(x, "__graphc_emitter__") else ops.constant(like=like, value=_array(x)) for x in operands]
    types = [_element_type(x, own) for x, own in zip(values, batched)]
    if size == 0:
        return _empty(record, types, attrs, like)
    if callable(record.batch):
        return record.batch(size, tuple(batched), *values, **attrs)
    if record.batch == "leading" or record.pointwise:
        shifted: dict[str, Any] | None = dict(attrs)
    else:
        shifted = _shifted(record, types, size, attrs)
    if shifted is None:
        return _one_by_one(record, size, values, batched, attrs)
    return record(*(stack_operand(x, size, own) for x, own in zip(values, batched)), **shifted)


def batched_outputs(graph: Graph, batched: Sequence[bool]) -> list[bool]:
    """Which outputs of a graph have a batch where these inputs have one."""
    own = dict(zip(graph.inputs, batched, strict=True))
    for node in graph.nodes:
        own.update(dict.fromkeys(node.results, any(own[v] for v in node.operands)))
    return [own[v] for v in graph.outputs]


def batch_graph(graph: Graph, size: Size, batched: Sequence[bool], stacked: Sequence[bool]) -> Graph:
    """The graph for a batch of `size`, which is dimension 0 of the inputs that are `batched`. So it is of the `stacked`
    outputs, to which all that depend on such inputs have to belong."""
    builder = Builder(graph.name, locations=False)
    known: dict[Value, Value] = {}
    own: dict[Value, bool] = {}
    for value, has in zip(graph.inputs, batched, strict=True):
        shape = (size, *value.shape) if has else value.shape
        known[value], own[value] = builder.input(value.name, value.type.with_shape(shape), **value.info), has
    for node in graph.nodes:
        flags = [own[v] for v in node.operands]
        operands = tuple(known[v] for v in node.operands)
        builder.location = node.location
        if any(flags):
            results = apply_batched(node.op, size, operands, flags, node.attrs)
        else:
            results = copy_node(builder, node, operands).results
        known.update(zip(node.results, results if isinstance(results, tuple) else (results,)))
        own.update(dict.fromkeys(node.results, any(flags)))
    return builder.finish(
        [stack_operand(known[v], size, own[v]) if to else known[v] for v, to in zip(graph.outputs, stacked, strict=True)])


def _elementwise(record: OpDef, size: Size, operands: Sequence[Any], batched: Sequence[bool]) -> Any:
    """Elements broadcast from the right, so the batch has to stand left of the largest of them."""
    ranks = [len(_shape(x)) - own for x, own in zip(operands, batched)]
    rank = max(ranks)
    mixed = [x for x, name in zip(operands, record.operands) if name not in record.keeps and hasattr(x, "dtype")]
    dtype = None
    if len({_dtype(x) for x in mixed}) > 1:
        # an element without dimensions counts less in promotion; in the batch it has one, so promotion comes first
        dtype = common_dtype(record, [_promotable(x, own) for x, own in zip(operands, batched)])
    aligned = []
    for x, own, name, below in zip(operands, batched, record.operands, ranks):
        if dtype is not None and name not in record.keeps and hasattr(x, "dtype") and _dtype(x) is not dtype:
            x = x.astype(dtype.numpy) if isinstance(x, (np.ndarray, np.generic)) else ops.cast(x, dtype)
        if own and below < rank:
            x = ops.reshape(x, (size, *(1,) * (rank - below), *tuple(x.shape)[1:]))
        aligned.append(x)
    return record(*aligned)


def _promotable(x: Any, batched: bool) -> Any:
    return _element_type(x, batched) if hasattr(x, "dtype") else x


def _shifted(record: OpDef, types: Sequence[TensorType], size: Size, attrs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The attributes with dimensions counted one further, if that is all that the op needs; else None."""
    if not _NAMES_DIMENSIONS.intersection(attrs):
        return None
    moved = dict(attrs)
    for name in _NAMES_DIMENSIONS.intersection(attrs):
        places = moved[name]
        if isinstance(places, int):
            moved[name] = places + 1 if places >= 0 else places
        elif isinstance(places, tuple):
            moved[name] = tuple(i + 1 if i >= 0 else i for i in places)
        else:
            return None
    each = record.infer(*types, **attrs)
    try:
        whole = record.infer(*(t.with_shape((size, *t.shape)) for t in types), **moved)
    except GraphcError:
        return None
    alone, together = (found if isinstance(found, tuple) else (found,) for found in (each, whole))
    return moved if [t.with_shape((size, *t.shape)) for t in alone] == list(together) else None


def _one_by_one(
    record: OpDef, size: Size, operands: Sequence[Any], batched: Sequence[bool], attrs: Mapping[str, Any]
) -> Any:
    if not isinstance(size, int):
        raise GraphcError(f"{record.name} has no batching rule, and the size of the batch is not known: {size}",
                          hint="give its record a `batch`")
    results = [
        record(*(_element(x, i) if own else x for x, own in zip(operands, batched)), **attrs) for i in range(size)
    ]
    if isinstance(results[0], tuple):
        return tuple(map(_stacked, zip(*results)))
    return _stacked(results)


def _element(x: Any, i: int) -> Any:
    shape = tuple(x.shape)
    row = ops.slice(x, (i, *(0,) * (len(shape) - 1)), (i + 1, *shape[1:]), (1,) * len(shape))
    return ops.reshape(row, shape[1:])


def _stacked(rows: Sequence[Any]) -> Any:
    return ops.concat(*(ops.reshape(row, (1, *tuple(row.shape))) for row in rows), axis=0)


def _empty(record: OpDef, types: Sequence[TensorType], attrs: Mapping[str, Any], like: Any) -> Any:
    """The results for a batch of none."""
    found = record.infer(*types, **attrs)
    if isinstance(found, tuple):
        return tuple(ops.full(t.with_shape((0, *t.shape)), 0, like=like) for t in found)
    return ops.full(found.with_shape((0, *found.shape)), 0, like=like)


def _array(x: Any) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else np.asarray(x, scalar_dtype(x).numpy)


def _dtype(x: Any) -> DType:
    return x.dtype if isinstance(x.dtype, DType) else dtype_of(x.dtype)


def _shape(x: Any) -> tuple[Any, ...]:
    return tuple(getattr(x, "shape", ()))


def _element_type(x: Any, batched: bool) -> TensorType:
    """The type of one element of the batch."""
    return TensorType(_dtype(x), _shape(x)[1:] if batched else _shape(x))
