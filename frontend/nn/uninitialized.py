"""Parameters and buffers whose shape is not known yet: what lazy modules hold until they are first called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.creation import empty
from graphc.frontend.described import as_dtype
from graphc.frontend.nn.parameter import Buffer, Parameter
from graphc.frontend.tensor import Size, Tensor
from graphc.types import DType

_slot: Any = Tensor._data
"""Where a tensor keeps its numbers, behind the property of that name below."""


class _Uninitialized(Tensor):
    """A tensor with a dtype and without numbers: all that would look at them is an error."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: DType | None = None) -> None:
        self._node = self._meta = None
        _slot.__set__(self, empty(0, device=device, dtype=dtype)._data)
        if requires_grad:
            self.requires_grad_()

    @property
    def _data(self) -> Any:
        raise ArgumentError(
            "Attempted to use an uninitialized parameter. This error happens when you are using a `LazyModule` or explicitly "
            "manipulating an uninitialized parameter or buffer",
            hint="call the module once, with an input of the size that it is for")

    @_data.setter
    def _data(self, new: Any) -> None:
        _slot.__set__(self, new)

    @property
    def shape(self) -> Size:
        """Not known yet."""
        raise GraphcError(
            "Can't access the shape of an uninitialized parameter or buffer", hint="call the module once: its first input "
            "says what shape it has; a state of modules that were never called fits those alone")

    @property
    def dtype(self) -> DType:
        """The type that the elements will have."""
        return as_dtype(_slot.__get__(self).dtype)

    @property
    def data(self) -> Tensor:
        """The tensor itself."""
        return self

    @data.setter
    def data(self, new: Tensor) -> None:
        _slot.__set__(self, _slot.__get__(new))

    def detach(self) -> Tensor:
        """The tensor itself."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """One without numbers of another dtype."""
        dtype = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, DType)), self.dtype)
        return type(self)(self.requires_grad and dtype.is_differentiable, dtype=dtype)

    def materialize(self, shape: Sequence[int], device: Any = None, dtype: DType | None = None) -> None:
        """Become an ordinary parameter or buffer of a shape, with numbers that mean nothing yet."""
        numbers = empty(tuple(shape), device=device, dtype=dtype or self.dtype)
        self.__class__ = self._becomes  # type: ignore[assignment]
        self._data = numbers._data

    _becomes: type[Tensor] = Tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, dtype=self.dtype)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, None, self.dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter that gets its shape, and then its numbers, from `materialize`.

    >>> weight = nn.UninitializedParameter()
    >>> weight.materialize((2, 3))
    >>> weight.shape
    graphc.Size([2, 3])
    """

    __slots__ = ()
    _becomes = Parameter


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer that gets its shape, and then its numbers, from `materialize`.

    >>> buffer = nn.UninitializedBuffer()
    >>> buffer.materialize((2, 3))
    >>> buffer.shape
    graphc.Size([2, 3])
    """

    __slots__ = ()
    _becomes = Buffer

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__(requires_grad, device, dtype)
        self.persistent = True


def is_lazy(param: Any) -> TypeGuard[_Uninitialized]:
    """Whether something is a parameter or a buffer without a shape."""
    return isinstance(param, _Uninitialized)
