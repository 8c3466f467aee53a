"""Kernels for attention, which read their operands where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import graphc.index as ix
import graphc.ops as ops
from graphc.ir import Node, Value
from graphc.kernel import Attention, AttentionBackward, Axis, Block, Kernel
from graphc.rewrite import scalar_constant
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.loops import map_kernel
from graphc.schedule.machine import Machine
from graphc.types import Size

_MASK = 3
"""The operand that is one."""


def attention_kernels(
    name: str, node: Node, memory: Mapping[Value, Stored], targets: Mapping[Value, Stored], machine: Machine,
    temporary: Callable[[Value], Stored],
) -> list[Kernel]:
    """The kernel, and before it those that put operands in order which it cannot read where they are."""
    kernels: list[Kernel] = []
    blocks: list[Block | None] = []
    forward = node.op is ops.attention
    together = -2 if forward else -1  # the dimension of the mask that has to stand side by side
    for i, value in enumerate(node.operands):
        if i == _MASK and scalar_constant(value) is True:
            blocks.append(None)
            continue
        block = _block(value, memory)
        if block is None or (i == _MASK and block.strides[together] != 1 and value.shape[together] != 1):
            place = temporary(value)
            if i == _MASK and forward:
                place = _by_columns(place, value)
            kernels.append(map_kernel(f"{name}.operand{i}", [value], memory, {value: place}, machine))
            block = _at(place, value)
        blocks.append(block)
    if (mask := blocks[_MASK]) is not None:
        blocks[_MASK] = _expanded(mask, (*node.operands[0].shape[:-1], node.operands[1].shape[-2]))
    results = [_at(targets[value], value) for value in node.results]
    attrs = node.attrs
    if forward:
        return [*kernels, Attention(name, attrs["scale"], attrs["causal"], *blocks, attrs["zeros"], *results)]
    return [*kernels, AttentionBackward(name, attrs["scale"], attrs["causal"], *blocks, *results)]


def _at(place: Stored, value: Value) -> Block:
    return Block(place.buffer, value.shape, _numbers(place.strides), int(place.offset))


def _block(value: Value, memory: Mapping[Value, Stored]) -> Block | None:
    """Where a value stands, as it is or as a view of something; None if it is computed, or not regularly spaced."""
    axes = [Axis(f"i{k}", size) for k, size in enumerate(value.shape)]
    element = Elements(memory).at(value, tuple(axis.value if axis.extent != 1 else ix.ZERO for axis in axes))
    if element.op != "load" or len(element.args) > 1:
        return None
    offset = element.args[0]
    strides = [ix.stride(offset, axis) for axis in axes]
    start = ix.substitute(offset, {axis.value: ix.ZERO for axis in axes})
    if start.op != "constant" or any(not isinstance(stride, int) or stride < 0 for stride in strides):
        return None
    return Block(element.attr, value.shape, _numbers(strides), start.attr)


def _by_columns(place: Stored, value: Value) -> Stored:
    """The memory for a value, with the last but one dimension side by side."""
    return Stored(place.buffer, (*place.strides[:-2], 1, value.shape[-2]), place.offset)


def _expanded(block: Block, shape: tuple[int, ...]) -> Block:
    strides = tuple(0 if own == 1 else stride for own, stride in zip(block.shape, block.strides, strict=True))
    return Block(block.buffer, shape, strides, block.offset)


def _numbers(sizes: Iterable[Size | None]) -> tuple[int, ...]:
    return tuple(int(size) for size in sizes if size is not None)
