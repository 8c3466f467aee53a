"""What functions over spatial dimensions share: settings a dimension, inputs without a batch, constant tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.movement import squeeze, unsqueeze
from graphc.frontend.tensor import Tensor

Ints = int | Sequence[int]


def spread(value: Any, count: int, what: str) -> tuple[int, ...]:
    """One number for every spatial dimension, or one for each."""
    if isinstance(value, int):
        return (value,) * count
    found = tuple(int(v) for v in value)
    if len(found) == 1:
        return found * count
    if len(found) != count:
        raise GraphcError(f"{what}: {len(found)} numbers for {count} spatial dimensions", expected=f"1 or {count}")
    return found


def batched(input: Tensor, dims: int, function: str) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it had none."""
    ndim = len(input._data.shape)
    if ndim == dims + 1:
        return unsqueeze(input, 0), True
    if ndim != dims + 2:
        raise ShapeError(f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {function}, but got input of "
                         f"size: {list(input.shape)}")
    return input, False


def unbatched(out: Tensor, alone: bool) -> Tensor:
    """The result without the batch dimension that `batched` put there."""
    return squeeze(out, 0) if alone else out


def constant(values: Any, like: Tensor) -> Tensor:
    """Numbers that are known beforehand, in the dtype of `like`."""
    return emit(ops.constant, (), {"value": np.asarray(values, like.dtype.numpy)})


def places(values: Any) -> Tensor:
    """Indices that are known beforehand, as int64."""
    return emit(ops.constant, (), {"value": np.asarray(values, np.int64)})
