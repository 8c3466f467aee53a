"""Memory that several processes see: tensors on anonymous files that each process maps.

Such a file has no name. The system gives its memory back when the last process that holds it lets go or dies, however it
dies, so nothing can be left behind. `graphc.frontend.multiprocessing.reductions` passes the files between processes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np

from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor

METHODS = "is_shared share_memory_"


class Segment(mmap.mmap):
    """The bytes of an anonymous file, mapped for reading and writing; `fd` is its descriptor, for passing it on."""

    fd: int = -1

    def __new__(cls, fd: int) -> Segment:
        """Map a whole file. The segment owns the descriptor from then on."""
        self = super().__new__(cls, fd, os.fstat(fd).st_size)
        self.fd = fd
        return self

    @classmethod
    def create(cls, size: int) -> Segment:
        """A new segment of zeros. It has one byte at least: there are no maps of none."""
        fd = _anonymous_file()
        try:
            os.ftruncate(fd, max(size, 1))
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def __del__(self, close: Any = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("graphc", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def memory_of(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of another, or that covers all of a foreign owner's."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def segment_of(array: np.ndarray) -> Segment | None:
    """The segment that an array lies in, or None where it lies in the process's own memory."""
    owner = memory_of(array).base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, Segment) else None


def is_shared(self: Tensor) -> bool:
    """Whether the memory is shared with other processes that the tensor, or a view of it, is sent to.

    >>> graphc.ones(2).is_shared(), graphc.ones(2).share_memory_().is_shared()
    (False, True)
    """
    return segment_of(self._array("is_shared()")) is not None


def share_memory_(self: Tensor) -> Tensor:
    """Move the tensor to memory that other processes see when it is sent to them; returns the tensor itself.

    All of the memory that it lies in moves, and with a view the tensor that it is a view of. Other views stay on the old
    memory until they are shared too, and arrays that `numpy()` has given for good. Where the tensor is shared already,
    nothing happens.

    >>> graphc.ones(2).share_memory_()
    tensor([1., 1.])
    """
    import graphc.frontend.multiprocessing  # noqa: F401  (from now on the memory is sent, not a copy of the numbers)

    array = self._array("share_memory_()")
    if segment_of(array) is not None:
        return self
    base = self._base
    if base is not None and self._meta is not None and self._meta.view is not None and is_shared(base):
        with no_grad():
            self._data = self._meta.view.read(base)._data
        return self
    self._version_counter().expose()  # to other processes
    owner = memory_of(array)
    if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
        array = owner = np.ascontiguousarray(array)
        self._data = array
    segment = Segment.create(owner.nbytes)
    np.ndarray(owner.shape, owner.dtype, segment, strides=owner.strides)[...] = owner
    for tensor in (self,) if base is None else (self, base):
        old = tensor._data
        if memory_of(old) is owner:
            tensor._data = np.ndarray(old.shape, old.dtype, segment, old.ctypes.data - owner.ctypes.data, old.strides)
    return self
