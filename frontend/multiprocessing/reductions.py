"""How tensors travel between processes: by handing over the memory that they lie in, not their numbers.

Pickled for another process, a tensor first moves to a shared segment. What is sent is the segment's file descriptor,
by the means of the standard library: inherited where a process is being started, through a socket otherwise. For the
latter the process that sent a tensor has to live until it is received, as in PyTorch.
"""

from __future__ import annotations

import os
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np

from graphc.errors import AutogradError, GraphcError
from graphc.frontend.nn.parameter import Buffer, Parameter
from graphc.frontend.sharing import Segment, segment_of, share_memory_
from graphc.frontend.tensor import Tensor, rebuild
from graphc.types import DTYPES

TENSORS = (Tensor, Parameter, Buffer)
"""The classes that share memory when they are sent; tensors of other classes are copied."""

_known: weakref.WeakValueDictionary[tuple[int, int], Segment] = weakref.WeakValueDictionary()
"""The segments that came from other processes, by the identity of their files: what comes again is mapped once."""


def refuse_results(tensor: Tensor) -> None:
    """AutogradError for a tensor whose graph would be lost on the way."""
    if tensor.requires_grad and not tensor.is_leaf:
        raise AutogradError("Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd does not "
                            "support crossing process boundaries.", hint="send tensor.detach()")


def _reduce_tensor(tensor: Tensor) -> tuple[Any, ...]:
    refuse_results(tensor)
    array = share_memory_(tensor)._array("sending it to another process")
    segment = segment_of(array)
    assert segment is not None
    start = np.frombuffer(segment, np.uint8).ctypes.data
    place = (array.ctypes.data - start, array.shape, array.strides)
    return _tensor, (type(tensor), segment, tensor.dtype.name, place, tensor.requires_grad, tensor.__dict__)


def _tensor(
    cls: type[Tensor], segment: Segment, dtype: str, place: Any, requires_grad: bool, attributes: dict[str, Any]
) -> Tensor:
    offset, shape, strides = place
    return rebuild(cls, np.ndarray(shape, DTYPES[dtype].numpy, segment, offset, strides), requires_grad, attributes)


def _reduce_segment(segment: Segment) -> tuple[Any, ...]:
    return _segment, (reduction.DupFd(segment.fd),)


def _segment(handle: Any) -> Segment:
    try:
        fd = handle.detach()
    except (ConnectionError, FileNotFoundError, EOFError) as error:
        raise GraphcError(f"a tensor from another process cannot be received ({type(error).__name__}): the process that sent "
                          "it has ended", hint="keep it alive until what it sent has been received") from None
    status = os.fstat(fd)
    key = status.st_dev, status.st_ino
    segment = _known.get(key)
    if segment is None:
        segment = _known[key] = Segment(fd)
    elif fd != segment.fd:
        os.close(fd)
    return segment


for _class in TENSORS:
    reduction.ForkingPickler.register(_class, _reduce_tensor)
reduction.ForkingPickler.register(Segment, _reduce_segment)
