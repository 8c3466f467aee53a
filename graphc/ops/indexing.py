"""Reading and writing at places that are themselves data."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

import graphc.expression as ex
from graphc.dims import surely_less
from graphc.errors import DimError, DTypeError, ShapeError
from graphc.expression import Expr
from graphc.op import Sample, not_differentiable, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.creation import full, iota
from graphc.ops.elementwise import cast, eq, maximum, minimum, where
from graphc.ops.movement import broadcast_to, check_axis, slice
from graphc.types import TensorType, float32, int64

_f = TensorType(float32, (3, 5))
_index = np.array([[4, 0], [1, 1], [2, 3]])


def _check(name: str, x: TensorType, index: TensorType, axis: int) -> None:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the index is not of an integer dtype", expected="int64", got=str(index))
    if x.ndim != index.ndim:
        raise ShapeError(f"{name}: index and input differ in their number of dimensions", expected=f"{x.ndim}", got=str(index))
    check_axis(name, axis, x)
    for i, (size, wanted) in enumerate(zip(x.shape, index.shape)):
        if i != axis and surely_less(size, wanted):
            raise ShapeError(f"{name}: the index is larger than the input in dimension {i}",
                             expected=f"{index} to be at most {x} but in dimension {axis}")


def _in_range(index: np.ndarray, size: int, axis: int, name: str) -> np.ndarray:
    if index.size and (index.min() < 0 or index.max() >= size):
        wrong = index.min() if index.min() < 0 else index.max()
        raise DimError(f"{name}: index {wrong} is out of bounds for dimension {axis} with size {size}",
                       expected=f"0 <= index < {size} along dimension {axis}")
    return index


def _in_range_infer(index: TensorType, size: int, axis: int, name: str) -> TensorType:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the index is not of an integer dtype", expected="int64", got=str(index))
    return index


in_range = op("in_range", "index", "size axis name", infer=_in_range_infer, ref=_in_range, vjp=not_differentiable,
              lower=lambda read, index, types, **_: read(0, index), pointwise=True, nanoseconds=0,
              samples=(Sample((_index,), {"size": 5, "axis": 1, "name": "gather"}),))
"""The index itself, if all places are below `size`. Passes put it before the ops that go by the index."""


def _places(index: np.ndarray, size: int, axis: int, name: str) -> tuple[np.ndarray, ...]:
    _in_range(index, size, axis, name)
    last = index.ndim - 1
    return tuple([index if k == axis else np.arange(n).reshape(n, *(1,) * (last - k)) for k, n in enumerate(index.shape)])


def _gather_infer(x: TensorType, index: TensorType, axis: int) -> TensorType:
    _check("gather", x, index, axis)
    return x.with_shape(index.shape)


def _line(index: np.ndarray, axis: int) -> np.ndarray | None:
    """The index along `axis`, if it is one vector stretched along all other dimensions: so whole rows are meant."""
    if index.size == 0 or any(n > 1 and step for k, (n, step) in enumerate(zip(index.shape, index.strides)) if k != axis):
        return None
    return index[tuple(builtins.slice(None) if k == axis else 0 for k in range(index.ndim))]


def _met(index: np.ndarray, axis: int) -> tuple[builtins.slice, ...]:
    """The part of the input that an index reaches: all along `axis`, as much as the index's own size elsewhere."""
    return tuple(builtins.slice(None) if k == axis else builtins.slice(n) for k, n in enumerate(index.shape))


def _gather_ref(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    line = _line(index, axis)
    if line is None:
        return x[_places(index, x.shape[axis], axis, "gather")]
    return np.take(x[_met(index, axis)], _in_range(line, x.shape[axis], axis, "gather"), axis)


def _inside(place: Expr, size: int) -> Expr:
    # indices are data: what is out of bounds is not read
    return (place >= 0) & (place < size)


def _gather_lower(read: Any, index: tuple[Expr, ...], types: Any, axis: int) -> Expr:
    place = ex.cast(read(1, index), int64)
    return read(0, (*index[:axis], place, *index[axis + 1 :]), _inside(place, types[0].shape[axis]))


gather = op("gather", "x indices", "axis", infer=_gather_infer, ref=_gather_ref, lower=_gather_lower, index_operand=1,
            vjp=(lambda ct, x_type, indices, axis: scatter_add(full(x_type, 0, ct), indices, ct, axis), None),
            samples=(Sample((_f, _index), {"axis": 1}), Sample((_f, np.array([[2, 0, 1, 1, 0]])), {"axis": 0})))


def _scatter_infer(base: TensorType, index: TensorType, src: TensorType, axis: int) -> TensorType:
    _check("scatter_add", base, index, axis)
    if index.shape != src.shape or src.dtype is not base.dtype:
        raise ShapeError("scatter_add: index, source and base do not fit", expected=f"{base.dtype.name}{list(index.shape)}",
                         got=str(src))
    return base


_LONG = 64
"""From how many elements a row on one addition a row is faster than NumPy's loop over elements."""


def _scatter_ref(base: np.ndarray, index: np.ndarray, src: np.ndarray, axis: int) -> np.ndarray:
    out = base.copy()
    line = _line(index, axis)
    if line is None or src.size < _LONG * len(line):
        np.add.at(out, _places(index, base.shape[axis], axis, "scatter_add"), src)
        return out
    rows = np.moveaxis(out[_met(index, axis)], axis, 0)
    for place, row in zip(_in_range(line, base.shape[axis], axis, "scatter_add"), np.moveaxis(src, axis, 0)):
        rows[place] += row
    return out


_FEW = 4


def _scatter_decompose(base: Any, index: Any, src: Any, axis: int) -> Any:
    """Where few numbers go along the axis, each element looks whether one is for it: no loop of its own is needed."""
    count = index.shape[axis]
    beside = [n for k, n in enumerate(base.shape) if k != axis]
    if not isinstance(count, int) or count > _FEW or beside != [n for k, n in enumerate(index.shape) if k != axis]:
        return None
    place = iota(shape=tuple(base.shape), axis=axis, dtype=int64, like=base)
    starts = [0] * len(base.shape)
    out = base
    for j in range(count):
        low = tuple(j if k == axis else 0 for k in range(len(starts)))
        high = tuple(j + 1 if k == axis else n for k, n in enumerate(index.shape))
        steps = (1,) * len(starts)
        there, new = (broadcast_to(slice(v, low, high, steps), tuple(base.shape)) for v in (cast(index, int64), src))
        out = where(eq(place, there), out + new, out)
    return out


scatter_add = op("scatter_add", "base indices src", "axis", infer=_scatter_infer, ref=_scatter_ref,
                 decompose=_scatter_decompose, kernel="scatter", step=lambda there, new: there + new, index_operand=1,
                 vjp=(lambda ct: ct, None, lambda ct, indices, axis: gather(ct, indices, axis)),
                 samples=(Sample((_f, _index, TensorType(float32, (3, 2))), {"axis": 1}),))


def _writing(name: str) -> Any:
    def infer(base: TensorType, index: TensorType, src: TensorType, axis: int) -> TensorType:
        _check(name, base, index, axis)
        if index.shape != src.shape or src.dtype is not base.dtype:
            raise ShapeError(f"{name}: index, source and base do not fit", expected=f"{base.dtype.name}{list(index.shape)}",
                             got=str(src))
        return base

    return infer


def _update_ref(base: np.ndarray, index: np.ndarray, src: np.ndarray, axis: int) -> np.ndarray:
    out = base.copy()
    line = _line(index, axis)
    if line is None:
        out[_places(index, base.shape[axis], axis, "scatter")] = src
    else:
        rows = np.moveaxis(out[_met(index, axis)], axis, 0)
        rows[_in_range(line, base.shape[axis], axis, "scatter")] = np.moveaxis(src, axis, 0)
    return out


def _update_base_vjp(ct: Any, indices: Any, src_type: TensorType, axis: int) -> Any:
    return scatter_update(ct, indices, full(src_type, 0, ct), axis)


_unique = np.array([[4, 0], [1, 2], [2, 3]])
_src = TensorType(float32, (3, 2))

scatter_update = op("scatter_update", "base indices src", "axis", infer=_writing("scatter"), ref=_update_ref, kernel="scatter",
                    step=lambda there, new: new, index_operand=1,
                    vjp=(_update_base_vjp, None, lambda ct, indices, axis: gather(ct, indices, axis)),
                    samples=(Sample((_f, _unique, _src), {"axis": 1}),
                             Sample((TensorType(int64, (3, 5)), _index, TensorType(int64, (3, 2))), {"axis": 1})))
"""The base with `src` at the places. Of several writes to one place the last one counts, and each gets the cotangent of
the place, as in PyTorch."""


def _scatter_at(ufunc: np.ufunc, name: str) -> Any:
    def ref(base: np.ndarray, index: np.ndarray, src: np.ndarray, axis: int) -> np.ndarray:
        out = base.copy()
        ufunc.at(out, _places(index, base.shape[axis], axis, name), src)
        return out

    return ref


def _one_where_zero(x: Any) -> tuple[Any, Any]:
    """The numbers with ones in the place of zeros, and where the zeros were."""
    zero = eq(x, full(_type(x), 0, x))
    return where(zero, full(_type(x), 1, x), x), zero


def _type(x: Any) -> TensorType:
    return TensorType(x.dtype, tuple(x.shape))


def _mul_base_vjp(ct: Any, base: Any, indices: Any, src: Any, axis: int) -> Any:
    """The product of the sources of each place."""
    return ct * scatter_mul(full(_type(base), 1, base), indices, conjugate(src), axis)


def _mul_src_vjp(ct: Any, base: Any, indices: Any, src: Any, axis: int) -> Any:
    """What a place holds without the source: divided by it, or by what else is zero in the place if it is zero itself."""
    nonzero, zero = _one_where_zero(conjugate(src))
    zeros = scatter_add(full(_type(base), 0, base), indices, cast(zero, src.dtype), axis)
    rest = gather(ct * scatter_mul(conjugate(base), indices, nonzero, axis), indices, axis) / nonzero
    others = gather(zeros, indices, axis) - cast(zero, src.dtype)
    return where(eq(others, full(_type(src), 0, src)), rest, full(_type(src), 0, src))


scatter_mul = op("scatter_mul", "base indices src", "axis", infer=_writing("scatter_reduce"),
                 ref=_scatter_at(np.multiply, "scatter_reduce"), kernel="scatter",
                 step=lambda there, new: there * new, index_operand=1,
                 vjp=(_mul_base_vjp, None, _mul_src_vjp),
                 samples=(Sample((_f, _index, _src), {"axis": 1}), Sample((_f, _index, _src), {"axis": 1}, 0.5, 2.0)))
"""The base times all of `src` that goes to each place."""


def _shares(ct: Any, base: Any, indices: Any, src: Any, out: Any, axis: int) -> tuple[Any, Any, Any]:
    """Which of base and sources are the extreme of their place, and the cotangent of a place over their number."""
    from_base = cast(eq(base, out), ct.dtype)
    from_src = cast(eq(src, gather(out, indices, axis)), ct.dtype)
    return from_base, from_src, ct / scatter_add(from_base, indices, from_src, axis)


def _extreme_base_vjp(ct: Any, base: Any, indices: Any, src: Any, out: Any, axis: int) -> Any:
    from_base, _, share = _shares(ct, base, indices, src, out, axis)
    return from_base * share


def _extreme_src_vjp(ct: Any, base: Any, indices: Any, src: Any, out: Any, axis: int) -> Any:
    _, from_src, share = _shares(ct, base, indices, src, out, axis)
    return from_src * gather(share, indices, axis)


scatter_max = op("scatter_max", "base indices src", "axis", infer=_writing("scatter_reduce"),
                 ref=_scatter_at(np.maximum, "scatter_reduce"), kernel="scatter", step=maximum, index_operand=1,
                 vjp=(_extreme_base_vjp, None, _extreme_src_vjp),
                 samples=(Sample((_f, _index, _src), {"axis": 1}),))
scatter_min = op("scatter_min", "base indices src", "axis", infer=_writing("scatter_reduce"),
                 ref=_scatter_at(np.minimum, "scatter_reduce"), kernel="scatter", step=minimum, index_operand=1,
                 vjp=(_extreme_base_vjp, None, _extreme_src_vjp),
                 samples=(Sample((_f, _index, _src), {"axis": 1}),))
"""The extreme of the base and of all of `src` that goes to each place; the cotangent is shared evenly among equals."""
