"""Kernels for attention, which read their operands where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import graphc.index as ix
import graphc.ops as ops
from graphc.expression import Axis
from graphc.ir import Node, Value
from graphc.kernel import Attention, AttentionBackward, Block, Kernel
from graphc.rewrite import scalar_constant
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.fusion import widens_halves
from graphc.schedule.loops import map_kernel
from graphc.schedule.machine import Machine
from graphc.types import Size, bfloat16, float16, float32

_HALVES = (float16, bfloat16)
_MASK = 3
"""The operand that is one."""


def attention_kernels(
    name: str, node: Node, memory: Mapping[Value, Stored], targets: Mapping[Value, Stored], machine: Machine,
    temporary: Callable[[Value], Stored],
) -> list[Kernel]:
    """The kernel, and before it those that put operands in order which it cannot read where they are."""
    kernels: list[Kernel] = []
    forward = node.op is ops.attention
    together = -2 if forward else -1  # the dimension of the mask that has to stand side by side

    def read(i: int) -> Block:
        value = node.operands[i]
        block = _block(value, memory, widened=machine.threads)
        turned = block is not None and block.strides[together] != 1 and value.shape[together] != 1
        if block is None or (i == _MASK and turned and not machine.threads):
            if machine.threads:
                value = _before_widening(value)
            place = temporary(value)
            if i == _MASK and forward:
                place = _by_columns(place, value)
            kernels.append(map_kernel(f"{name}.operand{i}", [value], memory, {value: place}, machine))
            block = _at(place, value)
        return block

    q, k, v = (read(i) for i in range(_MASK))
    mask = None
    if scalar_constant(node.operands[_MASK]) is not True:
        mask = _expanded(read(_MASK), (*q.shape[:-1], k.shape[-2]))
    others = [read(i) for i in range(_MASK + 1, len(node.operands))]
    results = [_at(targets[value], value) for value in node.results]
    common = (name, node.attrs["scale"], node.attrs["causal"], q, k, v, mask)
    if forward:
        out, lse = results
        return [*kernels, Attention(*common, node.attrs["zeros"], out, lse)]
    ct, lse, inner = others
    dq, dk, dv = results
    return [*kernels, AttentionBackward(*common, ct, lse, inner, dq, dk, dv)]


def _at(place: Stored, value: Value) -> Block:
    return Block(place.buffer, value.shape, _numbers(place.strides), int(place.offset))


def _block(value: Value, memory: Mapping[Value, Stored], widened: bool) -> Block | None:
    """Where a value stands, as it is or as a view of something; None if it is computed, or not regularly spaced. Of what is
    `widened`, where it stands in half precision."""
    axes = [Axis(f"i{k}", size) for k, size in enumerate(value.shape)]
    element = Elements(memory).at(value, tuple(axis.value if axis.extent != 1 else ix.ZERO for axis in axes))
    if widened and element.op == "cast" and element.dtype is float32 and element.args[0].dtype in _HALVES:
        element = element.args[0]
    if element.op != "load" or len(element.args) > 1:
        return None
    offset = element.args[0]
    strides = [ix.stride(offset, axis) for axis in axes]
    start = ix.substitute(offset, {axis.value: ix.ZERO for axis in axes})
    if start.op != "constant" or any(not isinstance(stride, int) or stride < 0 for stride in strides):
        return None
    return Block(element.attr, value.shape, _numbers(strides), start.attr)


def _before_widening(value: Value) -> Value:
    """The numbers in half precision that a value was made of, if it was; or the value."""
    node = value.node
    return node.operands[0] if node is not None and widens_halves(node) else value


def _by_columns(place: Stored, value: Value) -> Stored:
    """The memory for a value, with the last but one dimension side by side."""
    return Stored(place.buffer, (*place.strides[:-2], 1, value.shape[-2]), place.offset)


def _expanded(block: Block, shape: tuple[int, ...]) -> Block:
    strides = tuple(0 if own == 1 else stride for own, stride in zip(block.shape, block.strides, strict=True))
    return Block(block.buffer, shape, strides, block.offset)


def _numbers(sizes: Iterable[Size | None]) -> tuple[int, ...]:
    return tuple(int(size) for size in sizes if size is not None)
