"""Kernels for control flow: the graphs that an op runs become programs of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import graphc.index as ix
import graphc.ops as ops
from graphc.expression import Buffer
from graphc.ir import Graph, Node
from graphc.kernel import Block, Control
from graphc.program import Program
from graphc.types import DType

_Lower = Callable[[Graph, Sequence[Any], Mapping[int, int]], tuple[Program, set[int]]]
"""From a graph, the strides of its inputs and wished donations to a program, and the outputs whose donations were granted."""
_Scratch = Callable[[str, DType, int], Buffer]


def is_control(node: Node | None) -> TypeGuard[Node]:
    """Whether a node runs graphs."""
    return node is not None and node.op.kernel == "control"


def must_be_plain(node: Node) -> frozenset[int]:
    """The operands that have to be row-major: the first values of what is carried, which then stands elsewhere."""
    count = len(node.operands)
    if node.op is ops.cond:
        return frozenset()
    carries = node.attrs["carries"]
    if node.op is ops.while_loop_vjp:
        return frozenset((*range(carries), *range(len(node.attrs["body"].inputs), count)))
    return frozenset(range(carries))


def control_kernel(
    name: str, node: Node, operands: Sequence[Block], results: Sequence[Block], lower: _Lower, scratch: _Scratch
) -> Control:
    """The kernel of a node that runs graphs."""
    attrs = node.attrs
    strides = [_strides(block) for block in operands]
    programs: dict[str, Program] = {}
    spares: list[Buffer | None] = []

    def carried(graph: Graph, strides: Sequence[Any], places: Sequence[int]) -> Program:
        """A step, whose first outputs take the place of these inputs."""
        program, granted = lower(graph, strides, dict(enumerate(places)))
        for j, block in enumerate(results[: len(places)]):
            spares.append(None if j in granted else scratch(f"{name}.spare{j}", block.buffer.dtype, _size(block)))
        return program

    if node.op is ops.cond:
        for branch in ("then", "otherwise"):
            programs[branch] = lower(attrs[branch], strides[1:], {})[0]
    elif node.op is ops.scan:
        carries, scanned = attrs["carries"], attrs["scanned"]
        rows = [Block(b.buffer, b.shape[1:], b.strides[1:], b.offset) for b in operands[carries : carries + scanned]]
        taken = [*strides[:carries], *map(_strides, rows), *strides[carries + scanned :]]
        programs["body"] = carried(attrs["body"], taken, range(carries))
    elif node.op is ops.while_loop:
        programs["condition"] = lower(attrs["condition"], strides, {})[0]
        programs["body"] = carried(attrs["body"], strides, range(attrs["carries"]))
    else:
        count = len(attrs["body"].inputs)
        programs["condition"] = lower(attrs["condition"], strides[:count], {})[0]
        programs["body"] = lower(attrs["body"], strides[:count], {})[0]
        backward = attrs["backward"]
        sums = [None] * (len(backward.inputs) - len(operands))
        programs["backward"] = carried(backward, [*strides, *sums], range(count, len(backward.inputs)))
    return Control(name, node.op, attrs, programs, tuple(operands), tuple(results), tuple(spares))


def _strides(block: Block) -> tuple[int, ...] | None:
    return None if block.strides == ix.contiguous_strides(block.shape) else block.strides


def _size(block: Block) -> int:
    size = 1
    for extent in block.shape:
        size *= extent
    return size
