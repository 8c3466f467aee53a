"""Whether a tensor holds what it held before, and whether anybody could change that unnoticed.

Everything that changes a tensor in place counts at its counter, and everything that hands its memory out, too (see `Version`).
What had been handed out before shows in the references to the array.
"""

from __future__ import annotations

import sys

import numpy as np

from graphc.frontend.meta import Version
from graphc.frontend.tensor import Tensor, wrap


def _references(tensor: Tensor) -> int:
    return sys.getrefcount(tensor._data)


_ALONE = _references(wrap(np.empty(0)))
"""The references to an array that nobody has but one tensor."""


def is_owned(tensor: Tensor) -> bool:
    """Whether a tensor's memory is its own, as far as it knows, and nobody has been told the address."""
    data, meta = tensor._data, tensor._meta
    known = meta is not None and meta.version is not None and meta.version.lent < 0
    return type(data) is np.ndarray and data.base is None and data.flags.owndata and not known


def is_exclusive(tensor: Tensor) -> bool:
    """Whether nobody else can change a tensor's memory without asking the tensor for it."""
    return is_owned(tensor) and _references(tensor) == _ALONE


def state_of(tensor: Tensor) -> tuple[Version, int, int]:
    """What differs when an exclusive tensor has been changed, or others have got at its memory."""
    version = tensor._version_counter()
    return version, version.count, version.lent
