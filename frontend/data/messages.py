"""What a worker sends to the main process: one segment of shared memory a batch.

The segment holds the pickled batch and, behind it, the numbers of its tensors and arrays, which are not copied again:
what the main process unpickles lies in the segment. Only its file descriptor and three numbers go through the socket, so
a worker that has finished a batch never waits for the main process to read.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import GraphcError
from graphc.frontend.multiprocessing.reductions import TENSORS, refuse_results
from graphc.frontend.sharing import Segment
from graphc.frontend.tensor import Tensor, rebuild
from graphc.types import DTYPES

_HEADER = struct.Struct("<3q")
"""The epoch, the number of the batch, and how many parts its segment has."""

_ALIGNMENT = 64  # a cache line, and the widest vector

_MOST_SEGMENTS = 128
"""Batches beyond so many are copied out of their segments, as each of these holds two file descriptors."""

_alive: weakref.WeakSet[Segment] = weakref.WeakSet()


class Packed(NamedTuple):
    """A segment with an object in it."""

    segment: Segment
    parts: int
    """How many parts it has: the pickled object, and each block of numbers."""


class _Pickler(ForkingPickler):
    """Puts the numbers of tensors out of band."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) not in TENSORS:
            return NotImplemented
        refuse_results(obj)
        array = np.ascontiguousarray(obj._array("sending it to another process"))
        numbers = pickle.PickleBuffer(array.reshape(-1).view(np.uint8).data)
        return _tensor, (type(obj), numbers, obj.dtype.name, obj._data.shape, obj.requires_grad, obj.__dict__)


def _tensor(
    cls: type[Tensor], numbers: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool, attributes: dict[str, Any]
) -> Tensor:
    return rebuild(cls, np.ndarray(shape, DTYPES[dtype].numpy, numbers), requires_grad, attributes)


def pack(obj: Any) -> Packed:
    """An object in a segment of its own."""
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Pickler(stream, pickle.HIGHEST_PROTOCOL, True, buffers.append).dump(obj)
    parts = [stream.getbuffer(), *(buffer.raw() for buffer in buffers)]
    sizes = np.array([part.nbytes for part in parts], np.int64)
    starts, total = _layout(sizes)
    segment = Segment.create(total)
    segment[: sizes.nbytes] = sizes.tobytes()
    for part, start in zip(parts, starts):
        segment[start : start + part.nbytes] = part
    return Packed(segment, len(parts))


def unpack(packed: Packed) -> Any:
    """The object that `pack` put into a segment."""
    data = memoryview(packed.segment)
    if len(_alive) < _MOST_SEGMENTS:
        _alive.add(packed.segment)
    else:
        data = memoryview(bytearray(data))
    sizes = np.frombuffer(data, np.int64, packed.parts)
    starts, _ = _layout(sizes)
    pickled, *numbers = (data[start : start + size] for start, size in zip(starts, sizes.tolist()))
    return pickle.loads(pickled, buffers=numbers)


def _layout(sizes: np.ndarray) -> tuple[list[int], int]:
    """Where each part begins behind the table of sizes, and where the last one ends."""
    padded = -(-np.concatenate(([sizes.nbytes], sizes)) // _ALIGNMENT) * _ALIGNMENT
    ends = np.cumsum(padded)
    return ends[:-1].tolist(), int(ends[-1])


def send(connection: socket.socket, epoch: int, number: int, packed: Packed) -> None:
    """Send what answers a request."""
    socket.send_fds(connection, [_HEADER.pack(epoch, number, packed.parts)], [packed.segment.fd])


def receive(connection: socket.socket) -> tuple[int, int, Packed]:
    """The epoch and the number of a request, and what answers it; EOFError if nothing more comes."""
    header, fds, _, _ = socket.recv_fds(connection, _HEADER.size, 1)
    if not header:
        raise EOFError
    if len(header) != _HEADER.size or len(fds) != 1:
        raise GraphcError("a batch cannot be received: this process has too many files open",
                          hint="hold fewer shared tensors at a time, or raise the limit (ulimit -n)")
    epoch, number, parts = _HEADER.unpack(header)
    return epoch, number, Packed(Segment(fds[0]), parts)
