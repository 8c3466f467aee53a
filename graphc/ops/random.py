"""Random bits from a counter: Philox4x32-10.

The stream is a function of a seed and a position alone, so it is the same eagerly, compiled, on any number of threads
and on any device. A generator's state is int64[2]: the seed (the key) and the number of blocks used so far. A draw of
n words takes ceil(n / 4) blocks: word i is word i % 4 of block `position + i // 4`.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), figures 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc.expression as ex
import graphc.index as ix
from graphc.errors import ShapeError
from graphc.expression import Expr
from graphc.op import Sample, not_differentiable, op
from graphc.ops.elementwise import where
from graphc.types import Shape, TensorType, int64, uint32, uint64

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
"""What is added to the two halves of the key after each round."""


def blocks(count: int) -> int:
    """How many blocks a draw of `count` words takes."""
    return -(-count // 4)


def philox(seed: int, counter: np.ndarray) -> np.ndarray:
    """The four words (uint32[4, n]) of the blocks at the positions `counter` (uint64[n])."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    words = [counter & low, counter >> shift, np.zeros_like(counter), np.zeros_like(counter)]
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(ROUNDS):
        first = words[0] * np.uint64(MULTIPLIERS[0])
        second = words[2] * np.uint64(MULTIPLIERS[1])
        words = [(second >> shift) ^ words[1] ^ np.uint64(key[0]), second & low,
                 (first >> shift) ^ words[3] ^ np.uint64(key[1]), first & low]
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, WEYL)]
    return np.stack(words).astype(np.uint32)


def _infer(state: TensorType, shape: Shape) -> TensorType:
    if state.dtype is not int64 or state.shape != (2,):
        raise ShapeError("random_bits: not the state of a generator", expected="int64[2]: seed, position", got=str(state))
    return TensorType(uint32, shape, state.device)


def _ref(state: np.ndarray, shape: Shape) -> np.ndarray:
    count = math.prod(shape)
    start = np.int64(state[1]).astype(np.uint64)
    counter = start + np.arange(blocks(count), dtype=np.uint64)
    return philox(int(state[0]), counter).T.reshape(-1)[:count].reshape(shape)


def _lower(read: Any, index: tuple[Expr, ...], types: Any, shape: Shape) -> Expr:
    """`philox`, for one word, in kernel expressions."""
    position = ix.ravel(index, shape)
    seed, start = (ex.cast(read(0, (ix.number(i),)), uint64) for i in range(2))
    low, shift = ex.constant(0xFFFFFFFF, uint64), ex.constant(32, uint64)
    counter = start + ex.cast(ix.quotient(position, 4), uint64)
    zero = ex.constant(0, uint64)
    words = [counter & low, counter >> shift, zero, zero]
    key = [seed & low, seed >> shift]
    for _ in range(ROUNDS):
        first = words[0] * ex.constant(MULTIPLIERS[0], uint64)
        second = words[2] * ex.constant(MULTIPLIERS[1], uint64)
        words = [(second >> shift) ^ words[1] ^ key[0], second & low, (first >> shift) ^ words[3] ^ key[1], first & low]
        key = [(k + ex.constant(w, uint64)) & low for k, w in zip(key, WEYL)]
    which = ix.modulo(position, 4)
    out = words[3]
    for i in (2, 1, 0):
        out = where(ix.equals(which, i), words[i], out)
    return ex.cast(out, uint32)


random_bits = op("random_bits", "state", "shape", infer=_infer, ref=_ref, lower=_lower,
                 nanoseconds=30, vjp=not_differentiable, costly=True,
                 samples=(Sample((np.array([7, 3]),), {"shape": (5, 3)}), Sample((np.array([-1, 0]),), {"shape": (64,)})))
