"""What kernels of attention have in common: matrices in memory, and which keys a query looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import C_TYPE, cast, literal
from graphc.expression import Buffer
from graphc.kernel import Attention, AttentionBackward, Block


class AttentionCode:
    """The text of one kernel, and where its matrices stand."""

    def __init__(self, kernel: Attention | AttentionBackward, buffers: Sequence[Buffer]) -> None:
        self.shape = kernel
        self.code = Code()
        self.buffers = buffers
        self.dtype = kernel.q.buffer.dtype.computes_in
        self.type = C_TYPE[self.dtype.name]
        self.zero, self.lowest = literal(0.0, self.dtype), literal(float("-inf"), self.dtype)
        self.batch = math.prod(kernel.batch)
        self._names = {buffer: f"b{i}" for i, buffer in enumerate(buffers)}
        self._starts: dict[int, str] = {}

    def bind_batch(self, place: str) -> None:
        """Where each matrix of a place in the batch begins."""
        code, kernel = self.code, self.shape
        index: list[str] = []
        for size in reversed(kernel.batch):
            index.append(code.value("int", f"{place} % {size}", "i"))
            place = code.value("int", f"{place} / {size}", "i")
        index.reverse()
        for block in (*kernel.operands, *kernel.results):
            terms = [f"{i} * {stride}LL" for i, stride in zip(index, block.strides) if stride]
            self._starts[id(block)] = code.value("long long", " + ".join([f"{block.offset}LL", *terms]), "start")

    def at(self, block: Block, *place: str) -> str:
        """A number of this batch's matrix, or vector, as it stands in memory."""
        terms = [f"{i} * {stride}LL" for i, stride in zip(place, block.strides[len(self.shape.batch) :], strict=True)]
        return f"{self._names[block.buffer]}[{' + '.join((self._starts[id(block)], *terms))}]"

    def store(self, block: Block, value: str, *place: str) -> None:
        """Write a number to memory."""
        self.code.line(f"{self.at(block, *place)} = {cast(value, self.dtype, block.buffer.dtype)};")

    def seen(self) -> str:
        """Whether `query` looks at `key`."""
        kernel = self.shape
        conditions = [f"key < {kernel.keys}", f"query < {kernel.queries}"]
        if kernel.causal:
            conditions.append("key <= query")
        if kernel.mask is not None:
            conditions.append(f"{self.at(kernel.mask, 'query', 'key')} != 0")
        return " && ".join(conditions)
