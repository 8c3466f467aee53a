"""How a traced tensor would lie in memory: what decides whether `reshape` shares it, and what `contiguous` has to copy.

A model is an array of the tensor's shape and strides, with no memory behind it: views of it can be made, but nothing read.
What was computed in the trace lies in row-major order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.frontend.device_arrays import is_array
from graphc.frontend.tensor import Tensor

_NOTHING = np.zeros((), np.int8)


def model(tensor: Tensor) -> np.ndarray | None:
    """The model of a tensor; None where it cannot be told, as where sizes are not known."""
    view = None if tensor._meta is None else tensor._meta.view
    base = tensor if view is None or view.base is None else view.base
    data = base._data
    found: np.ndarray | None
    if is_array(data):
        found = _strided(data.shape, tuple(s // data.itemsize for s in data.strides))
    elif all(isinstance(size, int) for size in data.shape):
        found = _strided(data.shape, None)
    else:
        return None
    if base is tensor or view is None:
        return found
    for record, attrs in view.steps:
        if found is None or not all(isinstance(size, int) for size in found.shape):
            return None
        if record.name == "reshape":
            found = _reshaped(found, attrs["shape"])
        elif record.name == "permute":
            found = found.transpose(attrs["order"])
        elif record.name == "broadcast_to":
            if not all(isinstance(size, int) for size in attrs["shape"]):
                return None
            found = np.broadcast_to(found, attrs["shape"])
        elif record.name == "slice":
            found = found[tuple(map(slice, attrs["starts"], attrs["stops"], attrs["steps"]))]
        else:
            return None
    return found


def can_share(tensor: Tensor, shape: tuple[Any, ...]) -> bool:
    """Whether `reshape` to the shape is a view."""
    known = model(tensor)
    if known is None or not all(isinstance(size, int) for size in shape):
        return True
    return _reshaped(known, shape) is not None


def is_row_major(tensor: Tensor) -> bool:
    """Whether a traced tensor lies in row-major order without gaps."""
    known = model(tensor)
    return known is None or known.flags.c_contiguous


def _strided(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> np.ndarray:
    if strides is None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return np.lib.stride_tricks.as_strided(_NOTHING, shape, strides, writeable=False)


def _reshaped(known: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        return known.reshape(shape, copy=False)
    except ValueError:
        return None
