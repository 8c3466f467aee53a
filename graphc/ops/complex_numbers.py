"""Ops between complex numbers and their parts.

Gradients of complex functions are those of PyTorch: of a real-valued loss L by z = x + iy, dL/dx + i dL/dy. So where a
function has a complex derivative, the cotangent is multiplied by its conjugate.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.creation import zeros_like
from graphc.types import DType, TensorType, complex32, complex64, dtype_of, float16, float32, float64

_z = TensorType(complex64, (3, 5))
_f = TensorType(float32, (3, 5))


def _need_complex(name: str, x: TensorType) -> TensorType:
    if not x.dtype.is_complex:
        raise DTypeError(f"{name} is only supported for complex tensors", expected="a complex dtype", got=str(x))
    return x


def _part(name: str) -> Any:
    """The NumPy rule for a part of complex numbers: a view of them."""
    return lambda x: x[name] if x.dtype == complex32.numpy else getattr(x, name)


def _complex_infer(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is not y.dtype or x.dtype not in (float16, float32, float64):
        raise DTypeError("Expected both inputs to be Half, Float or Double tensors but got "
                         f"{x.dtype.name} and {y.dtype.name}",
                         expected="two tensors of one of these dtypes", got=f"{x} and {y}")
    return x.with_dtype(x.dtype.to_complex())


def _complex_ref(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.broadcast_arrays(x, y)
    made = np.empty_like(x, dtype_of(x.dtype).to_complex().numpy, order="C")
    if made.dtype == complex32.numpy:
        made["real"], made["imag"] = x, y
    else:
        made.real, made.imag = x, y
    return made


complex = op("complex", "x y", infer=_complex_infer, ref=_complex_ref, elementwise=True, kernel="host",
             vjp=(lambda ct: real(ct), lambda ct: imag(ct)), samples=(Sample((_f, _f)),))
real = op("real", "x", infer=lambda x: _need_complex("real", x).with_dtype(x.dtype.to_real()), ref=_part("real"),
          kernel="host", view=lambda base, new: complex(new, imag(base)), batch="leading",
          vjp=lambda ct: complex(ct, zeros_like(ct)), samples=(Sample((_z,)),))
imag = op("imag", "x", infer=lambda x: _need_complex("imag", x).with_dtype(x.dtype.to_real()), ref=_part("imag"),
          kernel="host", view=lambda base, new: complex(real(base), new), batch="leading",
          vjp=lambda ct: complex(zeros_like(ct), ct), samples=(Sample((_z,)),))


conj = op("conj", "x", infer=lambda x: x, ref=lambda x: np.conjugate(x) if x.dtype.kind == "c" else x, elementwise=True,
          vjp=lambda ct: conj(ct), scalar=lambda x: x,
          samples=(Sample((_z,)), Sample((_f,))))


def conjugate(x: Any) -> Any:
    """The complex conjugate of a tensor, a graph value, or a number of Python's or NumPy's; what is real as it is."""
    dtype = getattr(x, "dtype", None)
    if isinstance(dtype, DType):
        return conj(x) if dtype.is_complex else x
    return x.conjugate() if isinstance(x, (builtins.complex, np.generic, np.ndarray)) else x


def _pairs_infer(x: TensorType) -> TensorType:
    return TensorType(_need_complex("view_as_real", x).dtype.to_real(), (*x.shape, 2), x.device)


def _pairs_ref(x: np.ndarray) -> np.ndarray:
    return x[..., np.newaxis].view(dtype_of(x.dtype).to_real().numpy)


def _joined_infer(x: TensorType) -> TensorType:
    if x.dtype not in (float16, float32, float64):
        raise DTypeError("view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar "
                         f"type: {x.dtype.name}", got=str(x))
    if not x.shape or x.shape[-1] != 2:
        raise ShapeError("Tensor must have a last dimension of size 2", got=str(x))
    return TensorType(x.dtype.to_complex(), x.shape[:-1], x.device)


def _joined_ref(x: np.ndarray) -> np.ndarray:
    size = x.itemsize
    if x.strides[-1] != size or any(stride % (2 * size) for stride in x.strides[:-1]):
        return _complex_ref(x[..., 0], x[..., 1])
    return x.view(dtype_of(x.dtype).to_complex().numpy)[..., 0]


view_as_real = op("view_as_real", "x", infer=_pairs_infer, ref=_pairs_ref, kernel="host", batch="leading",
                  view=lambda base, new: view_as_complex(new), vjp=lambda ct: view_as_complex(ct), samples=(Sample((_z,)),))
view_as_complex = op("view_as_complex", "x", infer=_joined_infer, ref=_joined_ref, kernel="host", batch="leading",
                     view=lambda base, new: view_as_real(new), vjp=lambda ct: view_as_real(ct),
                     samples=(Sample((TensorType(float32, (3, 2)),)),))
