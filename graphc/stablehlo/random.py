"""Random bits: StableHLO's generator has other streams, so Philox is written out."""

from __future__ import annotations

import math
from typing import Any

import graphc.ops as ops
from graphc.ops.random import MULTIPLIERS, ROUNDS, WEYL, blocks
from graphc.stablehlo.table import EXPANSIONS
from graphc.types import Shape, TensorType, int64, uint32, uint64

_LOW = 0xFFFFFFFF


def _random_bits(state: Any, shape: Shape) -> Any:
    """As `graphc.ops.random.philox` has it, over whole blocks."""
    count = math.prod(shape)
    size = blocks(count)
    type_ = TensorType(uint64, (size,))

    def number(value: int) -> Any:
        return ops.full(type_, value, like=state)

    def word(k: int) -> Any:
        return ops.broadcast_to(ops.cast(ops.slice(state, (k,), (k + 1,), (1,)), uint64), (size,))

    counter = word(1) + ops.cast(ops.iota(shape=(size,), axis=0, dtype=int64, like=state), uint64)
    low, shift = number(_LOW), number(32)
    words = [counter & low, counter >> shift, number(0), number(0)]
    key = [word(0) & low, word(0) >> shift]
    for _ in range(ROUNDS):
        first, second = words[0] * number(MULTIPLIERS[0]), words[2] * number(MULTIPLIERS[1])
        words = [(second >> shift) ^ words[1] ^ key[0], second & low, (first >> shift) ^ words[3] ^ key[1], first & low]
        key = [(half + number(step)) & low for half, step in zip(key, WEYL)]
    columns = [ops.reshape(ops.cast(made, uint32), (size, 1)) for made in words]
    flat = ops.reshape(ops.concat(*columns, axis=1), (4 * size,))
    return ops.reshape(ops.slice(flat, (0,), (count,), (1,)), shape)


EXPANSIONS["random_bits"] = _random_bits
