"""The numbers of a tensor, as NumPy, Python and other libraries see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import ArgumentError, ArgumentTypeError, AutogradError, GraphcError, TraceError
from graphc.frontend.device_arrays import is_array, is_on_device, known_on_host
from graphc.frontend.tracer import active
from graphc.types import complex32, complex64, convert

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor

_REDUCTIONS = frozenset((np.all, np.any, np.amax, np.amin, np.max, np.mean, np.min, np.prod, np.ptp, np.std, np.sum, np.var))


class Values:
    """The part of `Tensor` that gives its numbers away."""

    __slots__ = ()

    _data: Any

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...

    def _array(self, what: str) -> np.ndarray:
        """The numbers, where Python needs to see them: of a tensor on a GPU a copy, which is read-only. A TraceError while they
        are not known."""
        tracer = active()
        if tracer is not None:
            return tracer.concrete(self, what)  # type: ignore[arg-type]
        data = self._data
        if type(data) is not np.ndarray:
            if is_on_device(data):
                return known_on_host(data)
            data.__graphc_emitter__  # noqa: B018  (raises where the tensor outlived the trace that made it)
            raise TraceError(f"{what} needs the numbers of a value that has none before a session runs: {self!r}",
                             hint="compute with it inside `with graph:`, and fetch it with Session(graph).run(value)")
        return data

    def _known(self) -> np.ndarray | None:
        """The numbers, for checks that are left out where there are none yet or none to check."""
        data = self._data
        return data if type(data) is np.ndarray and data.size and active() is None else None

    def _can_be_decided(self) -> bool:
        """Whether bool() of what is computed from it has an answer, for checks that are left out otherwise."""
        tracer = active()
        return self._known() is not None if tracer is None else tracer.tells_of(self)  # type: ignore[arg-type]

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The array itself, which shares memory with the tensor, or with `force` a copy. Without `force`, AutogradError for a
        tensor that requires grad and ArgumentTypeError for one on a GPU.

        >>> graphc.tensor([1.0, 2.0]).numpy()
        array([1., 2.], dtype=float32)
        """
        if self.requires_grad and not force:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if is_on_device(self._data) and not force:
            raise ArgumentTypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the "
                                    "tensor to host memory first.", hint="x.cpu().numpy()")
        array = self._array("numpy()")
        if array.dtype == complex32.numpy:
            raise ArgumentTypeError("Got unsupported ScalarType ComplexHalf: NumPy has no dtype for it",
                                    hint="x.to(graphc.complex64).numpy()")
        self._version_counter().expose()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None and not copy else np.array(array, dtype, copy=copy)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # reductions would call the tensor's own methods, which are called with other arguments
        if function in _REDUCTIONS:
            return function(*(a.numpy() if isinstance(a, Values) else a for a in args), **kwargs)
        return function._implementation(*args, **kwargs)

    def _known_to_python(self, what: str) -> np.ndarray:
        """The numbers, in a dtype that Python has a type for."""
        array = self._array(what)
        return convert(array, complex64) if array.dtype == complex32.numpy else array

    def tolist(self) -> Any:
        """Python numbers in nested lists.

        >>> graphc.tensor([[1, 2], [3, 4]]).tolist()
        [[1, 2], [3, 4]]
        """
        return self._known_to_python("tolist()").tolist()

    def item(self) -> Any:
        """The one element as a Python number. GraphcError for a tensor of several elements, or none.

        >>> graphc.tensor([1.5]).item()
        1.5
        """
        if self.numel() != 1:
            raise GraphcError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar",
                              expected="one element", got=f"shape {list(self.shape)}")
        tracer = active()
        if tracer is not None:
            return tracer.number(self)  # type: ignore[arg-type]
        return self._known_to_python("item()").reshape(()).tolist()

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise GraphcError(f"Boolean value of Tensor with {'no values' if not self.numel() else 'more than one value'} is "
                              "ambiguous", hint="use any() or all()")
        tracer = active()
        if tracer is not None:
            return tracer.decide(self, bool, "bool()")  # type: ignore[arg-type]
        return bool(self._known_to_python("bool()").item())

    def __int__(self) -> int:
        tracer = active()
        if tracer is not None and self.numel() == 1 and not self.dtype.is_complex:
            return tracer.decide(self, int, "int()")  # type: ignore[arg-type]
        return int(self._real_item("int64_t"))

    def __float__(self) -> float:
        return float(self._real_item("double"))

    def __complex__(self) -> complex:
        return complex(self._one_item())

    def _one_item(self) -> Any:
        if self.numel() != 1:
            raise ArgumentError("only one element tensors can be converted to Python scalars", expected="one element",
                                got=f"shape {list(self.shape)}")
        return self.item()

    def _real_item(self, kind: str) -> Any:
        value = self._one_item()
        if not isinstance(value, complex):
            return value
        if value.imag:
            raise GraphcError(f"value cannot be converted to type {kind} without overflow", expected="a real number",
                              got=str(value), hint="take x.real first")
        return value.real

    def __index__(self) -> int:
        if self.dtype.is_differentiable or self.numel() != 1:
            raise ArgumentTypeError("only integer tensors of a single element can be converted to an index",
                                    got=f"{self.dtype.name}{list(self.shape)}")
        return int(self)

    def __len__(self) -> int:
        if not self._data.shape:
            raise ArgumentTypeError("len() of a 0-d tensor")
        return self._data.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._data.shape:
            raise ArgumentTypeError("iteration over a 0-d tensor")
        return iter([self[i] for i in range(self._data.shape[0])])

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Values, bool, int, float, complex, np.generic)):
            raise GraphcError("Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
                              f"{type(element)}.")
        found: Any = self == element
        return bool(found.any())

    def __reversed__(self) -> Tensor:
        return self.flip(0) if self._data.shape else self  # type: ignore[return-value]

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        return format(self.item(), spec) if not self._data.shape else object.__format__(self, spec)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        array = self._data if is_array(self._data) else self._array("__dlpack__()")
        self._version_counter().expose()
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        array = self._data if is_array(self._data) else self._array("__dlpack_device__()")
        return array.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The memory of a tensor on a GPU for CuPy, Numba and others; AttributeError for one on the CPU."""
        if not is_on_device(self._data):
            raise AttributeError("__cuda_array_interface__ is there for tensors on a GPU alone: x.cuda()")
        if self.requires_grad:
            raise GraphcError("can't get __cuda_array_interface__ of a tensor that requires gradient", hint="x.detach()")
        self._version_counter().expose()
        interface: dict[str, Any] = self._data.__cuda_array_interface__
        return interface
