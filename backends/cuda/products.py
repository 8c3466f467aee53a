"""Which matrix products cuBLAS computes, and what it is told of them.

cuBLAS takes matrices where they stand, turned or not, at equal distances in a batch, and writes them as they are. A product
whose operands are computed on the way, such as a convolution's, is left to `gemm.py`. What follows a product element by element
is fused into a kernel of ours; where cuBLAS is so much faster that it is worth it, it writes the sums to where the results will
be, and a second kernel computes the results there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr, cast
from graphc.kernel import Gemm, Loops, Store
from graphc.schedule.threads import map_nest
from graphc.sizes import estimate, evaluate
from graphc.types import DType, Size, float32

OURS = {"float16": 330e12, "bfloat16": 330e12, "float32": 30e12, "tf32": 150e12, "float64": 15e12}
THEIRS = {"float16": 650e12, "bfloat16": 650e12, "float32": 45e12, "tf32": 350e12, "float64": 55e12}
"""Operations a second on an H100, of kernels of ours and of cuBLAS, whose kernels multiply by instructions that take more at a
time (`wgmma`, and tensor cores for double precision). Nobody has measured these numbers, nor the others here:
examples/benchmark_gpu.py times products both ways."""
_BANDWIDTH = 3e12
"""Bytes a second of memory."""
_LAUNCH = 3e-6
"""What one more kernel takes, such as cuBLAS may launch to add up parts of sums."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Element (i, j) of the b-th matrix stands at `offset` + b * `apart` + i * `leading` + j; of those that are `turned`, at
    j * `leading` + i. In elements of the buffer."""

    buffer: Buffer
    offset: Size
    apart: Size
    leading: Size
    turned: bool

    def at(self, sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """Offset, distance and leading dimension as numbers."""
        offset, apart, leading = (evaluate(size, sizes) for size in (self.offset, self.apart, self.leading))
        return offset, apart, leading


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """out[b, m, n] = the sum over k of left[b, m, k] * right[b, k, n], all of one dtype. With `tf32`, factors in single
    precision may be rounded to 11 bits."""

    dtype: DType
    tf32: bool
    batch: Size
    m: Size
    n: Size
    k: Size
    left: Matrix
    right: Matrix
    out: Matrix


def by_cublas(kernel: Gemm, tf32: bool) -> tuple[Product, Loops | None] | None:
    """A product for cuBLAS, and what computes the results of its sums, if they are not the results; None for those that a
    kernel of ours is better for, or that cuBLAS cannot be told of."""
    if len(kernel.epilogue) != 1:
        return None
    store, dtype = kernel.epilogue[0], kernel.lhs.dtype
    if dtype.name not in OURS or kernel.rhs.dtype is not dtype or store.buffer.dtype is not dtype or store.mask is not None:
        return None
    tf32 = tf32 and dtype is float32
    if not _is_worth_it(kernel, store, tf32):
        return None
    left = _matrix(kernel.lhs, kernel.batch, kernel.m, kernel.k)
    right = _matrix(kernel.rhs, kernel.batch, kernel.k, kernel.n)
    out = _matrix(ex.load(store.buffer, store.offset), kernel.batch, kernel.m, kernel.n)
    if left is None or right is None or out is None:
        return None
    batch, m, n, k = (math.prod(axis.extent for axis in axes) for axes in (kernel.batch, kernel.m, kernel.n, kernel.k))
    product = Product(dtype, tf32, batch, m, n, k, left, right, out)
    if _is_plain(kernel, store):
        return product, None
    # what is read there must not have been written over: outputs may stand where inputs do
    others = [e for e in store.value.walk() if e.op == "load"]
    if any(e.attr is store.buffer or (e.attr.role == "input" and e.args[0] == store.offset) for e in others):
        return None
    sums = cast(ex.load(store.buffer, store.offset), kernel.accumulator.dtype)
    value = ix.substitute(store.value, {kernel.accumulator.value: sums})
    axes = (*kernel.batch, *kernel.m, *kernel.n)
    return product, map_nest(f"{kernel.name}.results", axes, (Store(store.buffer, store.offset, value),), 1.0)


def _is_plain(kernel: Gemm, store: Store) -> bool:
    """Whether the sums, rounded, are the results."""
    value = store.value
    return value is kernel.accumulator.value or (value.op == "cast" and value.args[0] is kernel.accumulator.value)


def _is_worth_it(kernel: Gemm, store: Store, tf32: bool) -> bool:
    """Whether cuBLAS, with what it takes besides, is faster than a kernel of ours."""
    batch, m, n, k = (estimate(math.prod(a.extent for a in axes)) for axes in (kernel.batch, kernel.m, kernel.n, kernel.k))
    rate = "tf32" if tf32 else kernel.lhs.dtype.name
    besides = _LAUNCH
    if not _is_plain(kernel, store):
        besides += _LAUNCH + 2 * batch * m * n * store.buffer.dtype.itemsize / _BANDWIDTH
    return 2 * batch * m * n * k * (1 / OURS[rate] - 1 / max(THEIRS[rate], 1.0)) > besides


def _matrix(element: Expr, batch: Sequence[Axis], rows: Sequence[Axis], columns: Sequence[Axis]) -> Matrix | None:
    """Where matrices stand, of which this is an element; None where they are computed, or stand otherwise than cuBLAS can be
    told."""
    if element.op != "load" or len(element.args) > 1:
        return None
    offset = element.args[0]
    start = ix.substitute(offset, {axis.value: ix.ZERO for axis in (*batch, *rows, *columns)})
    if start.op not in ("constant", "size"):
        return None
    apart, down, along = (_distance(offset, axes) for axes in (batch, rows, columns))
    if apart is None or down is None or along is None:
        return None
    height, width = (math.prod(axis.extent for axis in axes) for axes in (rows, columns))
    first = start.attr if start.op == "size" else int(start.attr)
    if width == 1 or along == 1:
        leading = width if height == 1 else down
        return Matrix(element.attr, first, apart, leading, False) if ix.surely(leading, width) else None
    if height == 1 or down == 1:
        return Matrix(element.attr, first, apart, along, True) if ix.surely(along, height) else None
    return None


def _distance(offset: Expr, axes: Sequence[Axis]) -> Size | None:
    """How far neighbours along the product of axes stand from each other; None where that is not the same for all. Of axes
    that there are not, 0."""
    distance: Size = 0
    extent: Size = 1
    for axis in reversed(axes):
        stride = ix.stride(offset, axis)
        if stride is None or (extent != 1 and stride != distance * extent):
            return None
        if extent == 1:
            distance = stride
        extent = extent * axis.extent
    return distance
