"""The shape and type of a tensor, and where it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Dim
from graphc.errors import DimError
from graphc.frontend.device import CPU, device
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.formats import layout, strided
from graphc.frontend.meta import Size
from graphc.frontend.tracer import active
from graphc.ops import normalize_axis
from graphc.types import BY_NUMPY, DType, dtype_of

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor

_new_tuple = tuple.__new__


def as_dtype(dtype: Any) -> DType:
    """graphc's dtype for NumPy's; one of graphc's as it is."""
    return dtype if type(dtype) is DType else BY_NUMPY.get(dtype) or dtype_of(dtype)


class Described:
    """The part of `Tensor` that tells what it is."""

    __slots__ = ()

    _data: Any

    @property
    def shape(self) -> Size:
        """The sizes of the dimensions. Of a value of a graph, seen from outside `with graph:`, those that are only known when
        something is fed are None.

        >>> x = graphc.zeros(2, 3)
        >>> x.shape, x.shape[1]
        (graphc.Size([2, 3]), 3)
        """
        data = self._data
        if type(data) is np.ndarray or active() is not None:
            return _new_tuple(Size, data.shape)
        return _new_tuple(Size, [None if isinstance(size, Dim) else size for size in data.shape])

    @property
    def dtype(self) -> DType:
        """The type of the elements.

        >>> graphc.tensor([1.0]).dtype, graphc.tensor([1]).dtype
        (graphc.float32, graphc.int64)
        """
        return as_dtype(self._data.dtype)

    @property
    def ndim(self) -> int:
        """How many dimensions.

        >>> graphc.zeros(2, 3).ndim
        2
        """
        return len(self._data.shape)

    def dim(self) -> int:
        """How many dimensions.

        >>> graphc.zeros(2, 3).dim()
        2
        """
        return len(self._data.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension.

        DimError for a dimension that there is not.

        >>> x = graphc.zeros(2, 3)
        >>> x.size(), x.size(-1)
        (graphc.Size([2, 3]), 3)
        """
        shape = self.shape
        if dim is None:
            return shape
        axis = normalize_axis(dim, len(shape))
        if not shape:
            raise DimError(f"Dimension specified as {dim} but tensor has no dimensions")
        return shape[axis]

    def numel(self) -> int:
        """How many elements.

        >>> graphc.zeros(2, 3).numel()
        6
        """
        return math.prod(self._data.shape)

    def element_size(self) -> int:
        """Bytes an element.

        >>> graphc.zeros(2, dtype=graphc.float64).element_size()
        8
        """
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers.

        >>> graphc.zeros(2).is_floating_point(), graphc.arange(2).is_floating_point()
        (True, False)
        """
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the elements are complex numbers.

        >>> graphc.tensor([1j]).is_complex()
        True
        """
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        """Whether the elements can be negative.

        >>> graphc.tensor([1], dtype=graphc.uint8).is_signed()
        False
        """
        return self.dtype.is_signed

    def is_conj(self) -> bool:
        """Whether the conjugate is still to be taken: never, it is taken at once.

        >>> graphc.tensor([1j]).conj().is_conj()
        False
        """
        return False

    def is_neg(self) -> bool:
        """Whether the sign is still to be turned: never, it is turned at once.

        >>> (-graphc.tensor([1.0])).is_neg()
        False
        """
        return False

    @property
    def itemsize(self) -> int:
        """Bytes an element.

        >>> graphc.zeros(2).itemsize
        4
        """
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements together.

        >>> graphc.zeros(2, 3).nbytes
        24
        """
        return self.numel() * self.dtype.itemsize

    @property
    def device(self) -> device:
        """Where the tensor lives; of a value of a graph, where it is computed.

        >>> graphc.zeros(2).device
        device(type='cpu')
        """
        data = self._data
        if type(data) is np.ndarray:
            return CPU
        if is_on_device(data):
            return device("cuda", data.data.device_id)
        tracer = active()
        if tracer is not None:
            return tracer.device_of(self)  # type: ignore[arg-type]
        placed = getattr(data, "type", None)
        return CPU if placed is None else device(placed.device)

    @property
    def name(self) -> str | None:
        """The name of a value of a graph that is written by hand; None for other tensors, as in PyTorch.

        >>> with graphc.Graph():
        ...     x = graphc.placeholder("x", (2,))
        >>> x.name
        'x'
        """
        definition = getattr(getattr(self._data, "builder", None), "definition", None)
        return None if definition is None else definition.name_of(self)

    @property
    def is_cuda(self) -> bool:
        """Whether the tensor lives on a GPU.

        >>> graphc.zeros(2).is_cuda
        False
        """
        return self.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether the tensor lives in CPU memory.

        >>> graphc.zeros(2).is_cpu
        True
        """
        return self.device.type == "cpu"

    @property
    def layout(self) -> layout:
        """The kind of storage: strides over dense memory.

        >>> graphc.zeros(2).layout
        graphc.strided
        """
        return strided

    @property
    def is_sparse(self) -> bool:
        """Whether elements that are zero are left out of memory: never. PyTorch has such tensors.

        >>> graphc.zeros(2).is_sparse
        False
        """
        return False

    @property
    def is_mkldnn(self) -> bool:
        """Whether the memory is laid out by oneDNN: never. PyTorch has such tensors.

        >>> graphc.zeros(2).is_mkldnn
        False
        """
        return False

    @property
    def is_quantized(self) -> bool:
        """Whether elements are integers that stand for other numbers: never. PyTorch has such tensors.

        >>> graphc.zeros(2).is_quantized
        False
        """
        return False

    @property
    def is_meta(self) -> bool:
        """Whether there are no numbers: never. PyTorch has such tensors.

        >>> graphc.zeros(2).is_meta
        False
        """
        return False

    def get_device(self) -> int:
        """The number of the GPU that the tensor lives on; -1 for the CPU.

        >>> graphc.zeros(2).get_device()
        -1
        """
        where = self.device
        return (where.index or 0) if where.type == "cuda" else -1

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the memory is page-locked for a GPU.

        >>> graphc.zeros(2).is_pinned()
        False
        """
        return False

    def is_same_size(self, other: Tensor) -> bool:
        """Whether another tensor has the same shape.

        >>> graphc.zeros(2).is_same_size(graphc.ones(2))
        True
        """
        return self._data.shape == other._data.shape
