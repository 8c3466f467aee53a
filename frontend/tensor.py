"""The tensor: an array, or a value of a graph that is being traced, with what autograd knows about it.

Here is its memory; its shape and type are in `graphc.frontend.described`, its history and gradient in
`graphc.frontend.tracked`, its way to NumPy and Python in `graphc.frontend.values`. It holds no mathematics: functions are in
`graphc.frontend.pointwise` and its neighbours, and become methods in `graphc.frontend.methods`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import ArgumentTypeError, AutogradError, user_location
from graphc.frontend import device_arrays
from graphc.frontend.described import Described
from graphc.frontend.device_arrays import is_array, is_on_device
from graphc.frontend.formats import channels_last_order, contiguous_format
from graphc.frontend.meta import Meta, Size, Version, View
from graphc.frontend.modes import mode
from graphc.frontend.tracer import active
from graphc.frontend.tracked import Tracked
from graphc.frontend.values import Values
from graphc.ops import normalize_axis
from graphc.types import get_default_dtype

if TYPE_CHECKING:
    from graphc.frontend.node import Node
    from graphc.op import Emitter

_new = object.__new__


def wrap(data: Any) -> Tensor:
    """A tensor around an array or a graph value, which it does not copy."""
    tensor = _new(Tensor)
    tensor._data = data
    tensor._node = None
    tensor._meta = None
    if mode.inference:
        tensor._state().inference = True
    return tensor


class Tensor(Described, Tracked, Values):
    """A multi-dimensional array of one dtype that records what is done to it, for gradients and for graphs.

    Make one with `graphc.tensor(data)`; called directly, `Tensor(2, 3)` is an uninitialised float32 tensor of that shape
    and `Tensor([1, 2])` a float32 tensor of those numbers, as in PyTorch.

    ArgumentTypeError for a single number that is no size.

    >>> x = graphc.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([[2., 4.],
            [6., 8.]])
    """

    __slots__ = ("__dict__", "__weakref__", "_data", "_meta", "_node")
    __array_priority__ = 1000
    __hash__ = object.__hash__
    __graphc_emitter__: ClassVar[Emitter]

    _data: Any
    _node: Node | None
    _meta: Meta | None

    def __init__(self, *args: Any) -> None:
        self._node = None
        self._meta = None
        dtype = get_default_dtype().numpy
        if len(args) == 1 and isinstance(args[0], Tensor):
            self._data = args[0]._data
            self._state().version = args[0]._version_counter()
        elif len(args) == 1 and isinstance(args[0], (float, complex)):
            raise ArgumentTypeError(f"new(): data must be a sequence (got {type(args[0]).__name__})")
        elif len(args) == 1 and not isinstance(args[0], int):
            self._data = np.array(args[0], dtype) if not isinstance(args[0], Size) else np.zeros(args[0], dtype)
        else:
            self._data = np.zeros(args, dtype) if args else np.zeros(0, dtype)

    if TYPE_CHECKING:
        # functions become methods and operators in graphc.frontend.methods
        def __getattr__(self, name: str) -> Any: ...
        def _unary(self) -> Tensor: ...
        def _binary(self, other: Any) -> Tensor: ...

        __neg__ = __pos__ = __invert__ = __abs__ = _unary
        __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _binary
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _binary
        __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = _binary
        __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = _binary
        __lt__ = __le__ = __gt__ = __ge__ = _binary
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # Memory

    def is_set_to(self, tensor: Tensor) -> bool:
        """Whether another tensor is the same piece of the same memory, in the same shape.

        >>> x = graphc.zeros(2, 3)
        >>> x.is_set_to(x.detach()), x.is_set_to(x.clone())
        (True, False)
        """
        own, other = self._memory("is_set_to()"), tensor._memory("is_set_to()")
        return _address(own) == _address(other) and own.shape == other.shape and own.strides == other.strides

    def stride(self, dim: int | None = None) -> Any:
        """By how many elements the position in memory grows along each dimension, or along one.

        DimError for a dimension that there is not.

        >>> x = graphc.zeros(2, 3)
        >>> x.stride(), x.t().stride(), x.stride(0)
        ((3, 1), (1, 3), 3)
        """
        if is_array(self._data):
            strides = tuple(s // self._data.itemsize for s in self._data.strides)
        else:
            shape = self._data.shape
            strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return strides if dim is None else strides[normalize_axis(dim, len(strides))]

    def is_contiguous(self, memory_format: object = None) -> bool:
        """Whether the elements lie in memory in row-major order without gaps, or so in another memory format.

        >>> x = graphc.zeros(2, 3)
        >>> x.is_contiguous(), x.t().is_contiguous()
        (True, False)
        """
        data = self._data
        if memory_format is None or memory_format is contiguous_format:
            return not is_array(data) or data.flags.c_contiguous
        order = channels_last_order(memory_format, len(data.shape))
        if is_on_device(data) and order is not None:
            return device_arrays.viewed(data, lambda array: array.transpose(order)).flags.c_contiguous
        return order is not None and isinstance(data, np.ndarray) and data.transpose(order).flags.c_contiguous

    def dim_order(self) -> tuple[int, ...]:
        """The dimensions in the order of memory, the one with the longest steps first.

        >>> x = graphc.zeros(2, 3)
        >>> x.dim_order(), x.t().dim_order()
        ((0, 1), (1, 0))
        """
        strides = self.stride()
        return tuple(sorted(range(len(strides)), key=lambda d: -strides[d]))

    def data_ptr(self) -> int:
        """The address of the first element.

        >>> x = graphc.zeros(2, 3)
        >>> x[1].data_ptr() - x.data_ptr()
        12
        """
        array = self._memory("data_ptr()")
        self._version_counter().expose()
        return _address(array)

    def storage_offset(self) -> int:
        """How many elements lie between the start of the memory and the first element.

        >>> x = graphc.zeros(2, 3)
        >>> x[1].storage_offset()
        3
        """
        array = self._memory("storage_offset()")
        base = self._base
        start = array if base is None else base._memory("storage_offset()")
        return (_address(array) - _address(start)) // array.itemsize

    def _memory(self, what: str) -> Any:
        """The array, on the CPU or a GPU; a TraceError while there is none."""
        return self._data if is_on_device(self._data) and active() is None else self._array(what)

    def untyped_storage(self) -> Storage:
        """The memory that the tensor lies in.

        >>> x = graphc.zeros(2, 3)
        >>> x[1].untyped_storage().nbytes()
        24
        """
        return Storage(self)

    def storage(self) -> Storage:
        """The memory that the tensor lies in.

        >>> x = graphc.zeros(2, 3)
        >>> x.storage().data_ptr() == x.data_ptr()
        True
        """
        return Storage(self)

    # Sharing memory

    def _alias(self, share_version: bool) -> Tensor:
        """Another tensor on the same memory, outside the graph."""
        tensor = _new(Tensor)
        tensor._data = self._data
        tensor._node = None
        meta = tensor._meta = Meta()
        own = self._state()
        view = own.view
        root = None if view is None else view.base
        meta.view = View(self if root is None else root, None if root is None else view, None, tracked=False, detached=True)
        own_version = self._version_counter()
        if share_version:
            meta.version = own_version
        else:
            own_version.lend()
            meta.version = Version(own_version)
            meta.version.lent = min(own_version.lent, 0)
        meta.inference = own.inference
        tracer = active()
        if tracer is not None:
            tracer.aliased(tensor)
        return tensor

    def detach(self) -> Tensor:
        """The same memory, outside the graph: no gradient flows through the result.

        >>> x = graphc.ones(2, requires_grad=True)
        >>> x.detach().requires_grad
        False
        """
        return self._alias(share_version=True)

    @property
    def data(self) -> Tensor:
        """The same memory, outside the graph, whose changes autograd does not notice. Prefer `detach()`.

        Assigning what is no tensor is an ArgumentTypeError.

        >>> x = graphc.ones(2, requires_grad=True)
        >>> x.data.mul_(3)
        tensor([3., 3.])
        >>> x
        tensor([3., 3.], requires_grad=True)
        """
        return self._alias(share_version=False)

    @data.setter
    def data(self, new: Tensor) -> None:
        if not isinstance(new, Tensor):
            raise ArgumentTypeError("data: not a tensor", expected="a Tensor", got=type(new).__name__)
        tracer = active()
        if tracer is not None:
            tracer.replace(self, new)
        else:
            self._data = new._data
            version = self._version_counter()
            version.lend()
            if new._meta is not None and new._meta.version is not None and new._meta.version.lent < 0:
                version.expose()

    def _version_counter(self) -> Version:
        meta = self._state()
        if meta.version is None:
            meta.version = Version()
        return meta.version

    @property
    def _version(self) -> int:
        return 0 if self._meta is None or self._meta.version is None else self._meta.version.count

    @property
    def _base(self) -> Tensor | None:
        return None if self._meta is None or self._meta.view is None else self._meta.view.base

    def _is_view(self) -> bool:
        return self._base is not None

    def is_inference(self) -> bool:
        """Whether the tensor was made under inference_mode.

        >>> with graphc.inference_mode():
        ...     x = graphc.ones(2)
        >>> x.is_inference()
        True
        """
        return self._meta is not None and self._meta.inference

    # Copies, and what NumPy's functions make of tensors

    _is_copied_alone = False
    """Whether deep copies have memory of their own, whatever else lies in the tensor's."""

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
        # what NumPy's functions make of tensors is a tensor
        return wrap(np.asarray(array))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise AutogradError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol",
                                hint="deepcopy x.detach()", at=user_location())
        copy = self._copied(memo)
        copy.__dict__.update(self.__dict__)
        if self.requires_grad:
            copy._state().requires_grad = True
        if self._meta is not None and self._meta.grad is not None:
            copy._state().grad = self._meta.grad.__deepcopy__(memo)
        memo[id(self)] = copy
        return copy

    def _copied(self, memo: dict[int, Any]) -> Tensor:
        """A leaf with the same numbers. Of a view the whole memory is copied, once for all that lies in it."""
        view = None if self._meta is None else self._meta.view
        base = None if view is None else view.base
        if view is None or base is None or self._is_copied_alone:
            return self._duplicate(type(self))
        if base.is_leaf and not base._is_copied_alone:
            whole = base.__deepcopy__(memo)
        else:  # what is found under its own id would be taken for its copy
            key = id(base._state())
            whole = memo[key] = memo[key] if key in memo else base._duplicate(Tensor)
        part = view.read(whole._alias(share_version=False))
        if type(self) is Tensor:
            return part
        copy = _new(type(self))
        copy._data, copy._node, copy._meta = part._data, None, part._meta
        return copy

    def _duplicate(self, cls: type[Tensor]) -> Tensor:
        """A leaf with the same numbers in memory of its own."""
        copy = _new(cls)
        array = self._memory("deepcopy()")
        copy._data = device_arrays.duplicate(array) if is_on_device(array) else array.copy(order="K")
        copy._node = copy._meta = None
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.is_leaf:
            raise AutogradError("a tensor that is not a leaf cannot be pickled: its graph would be lost",
                                hint="pickle x.detach()")
        array = np.asarray(self._array("pickle"), order="C")
        if self._meta is not None and self._meta.version is not None:
            self._meta.version.lend()
        if is_on_device(self._data):
            return rebuild, (type(self), array, self.requires_grad, self.__dict__, self.get_device())
        return rebuild, (type(self), array, self.requires_grad, self.__dict__)


def _address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def rebuild(
    cls: type[Tensor], array: np.ndarray, requires_grad: bool, attributes: dict[str, Any], gpu: int | None = None
) -> Tensor:
    """A leaf of a class around an array, or a copy of it on a GPU, with the attributes that were set on it: what a pickled
    tensor becomes."""
    tensor = _new(cls)
    tensor._data = array if gpu is None else device_arrays.upload(array, gpu)
    tensor._node = tensor._meta = None
    tensor.__dict__.update(attributes)
    if requires_grad:
        tensor._state().requires_grad = True
    return tensor


class Storage:
    """The memory behind a tensor and its views."""

    def __init__(self, tensor: Tensor) -> None:
        base = tensor._base
        self._array = (tensor if base is None else base)._memory("storage()")
        tensor._version_counter().expose()

    def __repr__(self) -> str:
        return f"<storage of {self.nbytes()} bytes>"

    def data_ptr(self) -> int:
        """The address."""
        return _address(self._array)

    def nbytes(self) -> int:
        """The size in bytes."""
        return self._array.nbytes

    def __len__(self) -> int:
        return self._array.nbytes

