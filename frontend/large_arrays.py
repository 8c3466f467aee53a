"""Elementwise ops on large arrays and copies of such, by code of their own: on several threads, and turning tiles in registers
where arrays lie in memory in different orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from graphc import compiler, ops
from graphc.backend import Layout
from graphc.config import config
from graphc.frontend.described import as_dtype
from graphc.frontend.native import array_function, strides_of
from graphc.ir import Builder, Graph
from graphc.op import OpDef
from graphc.types import TensorType

LARGE = 1 << 17
"""From how many elements on an elementwise op or a copy runs compiled, when it is seen a second time."""
_MOST = 1 << 10

_codes: dict[Any, Callable[..., np.ndarray] | None] = {}  # None for what has been seen once


def computed(record: OpDef, arrays: list[np.ndarray]) -> np.ndarray | None:
    """The result of an elementwise op; None where there is no code for it, or not yet."""
    return _run((record, False), arrays, record.costly, lambda: _computes(record, arrays))


def computed_over(record: OpDef, arrays: list[np.ndarray]) -> bool:
    """Compute an elementwise op over its first operand, of the result's type, if there is code for that."""
    own, *others = arrays
    if not own.flags.c_contiguous or any(np.may_share_memory(own, array) for array in others):
        return False
    return _run((record, True), arrays, record.costly, lambda: _writes_over(_graph(record, arrays), arrays)) is not None


def copied_over(target: np.ndarray, source: np.ndarray) -> bool:
    """Copy an array over another one of its shape, if there is code for that."""
    if target.dtype != source.dtype or not (target.flags.aligned and source.flags.aligned):
        return False
    if np.may_share_memory(target, source):
        return False
    return _run((ops.copy, True), [target, source], False, lambda: _copies([target, source])) is not None


def duplicate(array: np.ndarray) -> np.ndarray:
    """A copy that lies in memory as the array does, but for gaps; row-major if the array is stretched."""
    order: Literal["C", "K"] = "C" if 0 in array.strides else "K"
    if array.size >= LARGE and array.flags.aligned:
        if array.flags.c_contiguous:  # whose code makes the array, too, in memory that is there
            made = _run((ops.copy, False), [array], False, lambda: _computes(ops.copy, [array]))
            if made is not None:
                return made
        else:
            copy = np.empty_like(array, order=order)
            if copied_over(copy, array):
                return copy
    return array.copy(order=order)


def _run(
    key: tuple[Any, ...], arrays: list[np.ndarray], at_once: bool, make: Callable[[], Callable[..., np.ndarray]]
) -> np.ndarray | None:
    """What the code for such arrays returns. It is made when they are seen a second time, unless `at_once`."""
    if not config.fuse_eager:
        return None
    key = (*key, *[part for array in arrays for part in (array.dtype, array.shape, array.strides)])
    code = _codes.get(key)
    if code is None:
        if len(_codes) > _MOST:
            _codes.clear()
        if key not in _codes and not at_once:
            _codes[key] = None
            return None
        if not all(as_dtype(array.dtype).has_code for array in arrays):
            return None
        code = _codes[key] = make()
    return code(*arrays)


def _graph(record: OpDef, arrays: list[np.ndarray]) -> Graph:
    builder = Builder(record.name, locations=False)
    return builder.finish([record(*_inputs(builder, arrays))])


def _inputs(builder: Builder, arrays: list[np.ndarray]) -> list[Any]:
    return [builder.input(None, TensorType(as_dtype(array.dtype), array.shape)) for array in arrays]


def _writes_over(graph: Graph, arrays: list[np.ndarray]) -> Callable[..., np.ndarray]:
    """Code for arrays like these that writes over the first."""
    code = compiler.executable(graph, Layout(tuple(map(strides_of, arrays)), donated=((0, 0),)))

    def run(*arrays: np.ndarray) -> np.ndarray:
        code.run(arrays, arrays[:1])
        return arrays[0]

    return run


def _copies(arrays: list[np.ndarray]) -> Callable[..., np.ndarray]:
    """Code that copies the second of arrays like these over the first, whose dimensions are gone over as they lie in memory."""
    order = sorted(range(arrays[0].ndim), key=lambda axis: -abs(arrays[0].strides[axis]))
    like = [array.transpose(order) for array in arrays]
    builder = Builder("copy", locations=False)
    _, source = _inputs(builder, like)
    code = _writes_over(builder.finish([ops.copy(source)]), like)
    return lambda *arrays: code(*[array.transpose(order) for array in arrays])


def _computes(record: OpDef, arrays: list[np.ndarray]) -> Callable[..., np.ndarray]:
    """Code for the op on arrays like these. Its results lie in memory as NumPy's do."""
    order = _order(arrays)

    def turned(array: np.ndarray) -> np.ndarray:
        if order is None or not array.ndim:
            return array
        return array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(order)

    like = list(map(turned, arrays))
    code = array_function(compiler.executable(_graph(record, like), Layout(tuple(map(strides_of, like)))))
    if order is None:
        return lambda *arrays: code(*arrays)[0]
    back = np.argsort(order)
    return lambda *arrays: code(*map(turned, arrays))[0].transpose(back)


def _order(arrays: list[np.ndarray]) -> tuple[int, ...] | None:
    """The dimensions of NumPy's result from the outermost in memory to the innermost; None for row-major."""
    if all(array.flags.c_contiguous for array in arrays):
        return None
    dtypes = [*(array.dtype for array in arrays), np.dtype(np.int8)]
    result = np.nditer([*arrays, None], ["zerosize_ok"], op_dtypes=dtypes).operands[-1]
    order = sorted(range(result.ndim), key=lambda axis: -abs(result.strides[axis]))
    return None if order == sorted(order) else tuple(order)
