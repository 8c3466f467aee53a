"""Tensors on memory that others own: NumPy's arrays, objects of the DLPack protocol, buffers."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError
from graphc.frontend import device_arrays
from graphc.frontend.arguments import need_tensor
from graphc.frontend.described import as_dtype
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import DType

FUNCTIONS = "from_dlpack from_numpy frombuffer to_dlpack"


def from_numpy(ndarray: np.ndarray, /) -> Tensor:
    """A tensor on the memory of an array: changes of one show in the other. ArgumentTypeError for other objects and for dtypes
    that tensors cannot have, ArgumentError for another byte order than the machine's.

    >>> import numpy as np
    >>> array = np.zeros(2)
    >>> graphc.from_numpy(array).fill_(1.0).sum(), array
    (tensor(2., dtype=graphc.float64), array([1., 1.]))
    """
    array = ndarray
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(f"expected np.ndarray (got {type(array).__name__})")
    if not array.dtype.isnative:
        raise ArgumentError("given numpy array has byte order different from the native byte order. Conversion between byte "
                            "orders is currently not supported.", hint="array.astype(array.dtype.newbyteorder('='))")
    try:
        as_dtype(array.dtype)
    except DTypeError as error:
        raise ArgumentTypeError(f"can't convert np.ndarray of type numpy.{array.dtype.type.__name__}", expected=error.expected,
                                got=error.got) from None
    if any(stride % array.itemsize for stride in array.strides):
        raise ArgumentError("from_numpy: the array's elements do not lie at multiples of their size",
                            expected=f"strides that {array.itemsize} divides", got=str(array.strides), hint="array.copy()")
    return _exposed(array if type(array) is np.ndarray else array.view(np.ndarray))


def _exposed(array: np.ndarray) -> Tensor:
    """A tensor on memory that others know."""
    made = wrap(array)
    made._version_counter().expose()
    return made


_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype, _capsule_name.argtypes = ctypes.c_char_p, [ctypes.py_object]


class _Source:
    """What NumPy is given to take a capsule from: an object of the protocol, or a bare capsule in CPU memory."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.is_silent = False
        """Whether the capsule is of the old kind, which does not say if the memory may be written to."""

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self._source.__dlpack__(**options) if hasattr(self._source, "__dlpack__") else self._source
        self.is_silent = _capsule_name(capsule) == b"dltensor"
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        device = self._source.__dlpack_device__() if hasattr(self._source, "__dlpack_device__") else (1, 0)
        return int(device[0]), int(device[1])


class _Writable:
    """The memory of a read-only array as one that may be written to."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


_CUDA = (2, 13)
"""The numbers that DLPack has for memory of NVIDIA GPUs, and for memory that they share with the CPU."""


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory, of the CPU or a GPU, of another library's tensor or array, or of a DLPack capsule in CPU memory.

    A copy with copy=True. BufferError where copy=False and the memory cannot be shared, ArgumentTypeError for an object that
    does not follow the protocol.

    >>> import numpy as np
    >>> graphc.from_dlpack(np.arange(3))
    tensor([0, 1, 2])
    """
    if isinstance(ext_tensor, Tensor) and not copy:
        return ext_tensor.detach()
    if not hasattr(ext_tensor, "__dlpack__") and type(ext_tensor).__name__ != "PyCapsule":
        raise ArgumentTypeError("from_dlpack(): the object does not follow the DLPack protocol",
                                expected="an object with __dlpack__ and __dlpack_device__, or a capsule",
                                got=type(ext_tensor).__name__)
    source = _Source(ext_tensor)
    if type(ext_tensor).__name__ != "PyCapsule" and source.__dlpack_device__()[0] in _CUDA:
        made = _exposed(device_arrays.cupy().from_dlpack(ext_tensor))
        return made.clone() if copy else made
    options: dict[str, Any] = {} if copy is None else {"copy": copy}
    array = np.from_dlpack(source, **options)
    if source.is_silent and not array.flags.writeable:
        array = np.asarray(_Writable(array))
    return _exposed(array)


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory, which one consumer may take.

    ArgumentTypeError for what is no tensor.

    >>> graphc.from_dlpack(graphc.to_dlpack(graphc.tensor([1, 2])))
    tensor([1, 2])
    """
    return need_tensor(tensor, "to_dlpack", "tensor").__dlpack__()


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A tensor of one dimension on the memory of an object of the buffer protocol, such as bytes or an array.

    `count` elements (-1: all) from `offset`, in bytes, on.

    ArgumentError for an empty buffer, and where it does not hold so many elements from there on.

    >>> graphc.frombuffer(bytearray([1, 2, 3]), dtype=graphc.uint8)
    tensor([1, 2, 3], dtype=graphc.uint8)
    """
    memory = memoryview(buffer).cast("B")
    size = dtype.itemsize
    if not len(memory):
        raise ArgumentError("both buffer length (0) and count (-1) must not be 0")
    if not 0 <= offset < len(memory):
        raise ArgumentError(f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
                            f"({len(memory)} bytes) minus 1")
    if count < 0 and (len(memory) - offset) % size:
        raise ArgumentError(f"buffer length ({len(memory) - offset} bytes) after offset ({offset} bytes) must be a multiple of "
                            f"element size ({size})")
    if count > 0 and offset + count * size > len(memory):
        raise ArgumentError(f"requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must not be "
                            f"greater than actual buffer length ({len(memory)} bytes)")
    if memory.readonly:
        warnings.warn("The given buffer is not writable, and neither is the tensor.", UserWarning, stacklevel=2)
    made = _exposed(np.frombuffer(memory, dtype.numpy, count, offset))
    return made.requires_grad_() if requires_grad else made
