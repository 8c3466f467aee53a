"""Complex numbers: made of their parts, taken apart, conjugated."""

from __future__ import annotations

import builtins
import math

from graphc import ops
from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend.arguments import emit, need_tensor, scalar_type
from graphc.frontend.arithmetic import atan2
from graphc.frontend.logic import isnan
from graphc.frontend.movement import transpose
from graphc.frontend.pointwise import cast, cos, sin, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import TensorType, bool_, float16, float32, float64, get_default_dtype

FUNCTIONS = """
    angle complex conj conj_physical imag is_complex is_conj is_neg is_signed polar real resolve_conj resolve_neg
    view_as_complex view_as_real
"""
METHODS = "angle conj conj_physical resolve_conj resolve_neg"
IN_PLACE = "conj_physical"


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """The complex numbers with these real and imaginary parts, both float32 or both float64.

    GraphcError for other dtypes than float16, float32 and float64, and where the two differ; ArgumentTypeError for what is no
    tensor.

    >>> graphc.complex(graphc.tensor([1.0, 2.0]), graphc.tensor([3.0, 4.0]))
    tensor([1.+3.j, 2.+4.j])
    """
    return emit(ops.complex, _parts("complex", real, imag, "imag"), {})


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """The complex numbers abs * (cos(angle) + i sin(angle)).

    GraphcError for other dtypes than float16, float32 and float64, and where the two differ; ArgumentTypeError for what is no
    tensor.

    >>> graphc.polar(graphc.tensor([2.0]), graphc.tensor([0.0]))
    tensor([2.+0.j])
    """
    length, direction = _parts("polar", abs, angle, "angle")
    return named(emit(ops.complex, (length * cos(direction), length * sin(direction)), {}), "Polar")


def _parts(function: str, first: Tensor, second: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(second, Tensor):
        raise ArgumentTypeError(f"{function}(): argument '{name}' (position 2) must be Tensor, not {type(second).__name__}",
                                hint="make one with graphc.tensor(...)")
    if any(x.dtype not in (float16, float32, float64) for x in (first, second)):
        raise GraphcError("Expected both inputs to be Half, Float or Double tensors but got "
                          f"{scalar_type(first.dtype)} and {scalar_type(second.dtype)}")
    if first.dtype is not second.dtype:
        raise GraphcError(f"Expected object of scalar type {scalar_type(first.dtype)} but got scalar type "
                          f"{scalar_type(second.dtype)} for second argument", hint="convert one with .to(dtype)")
    return first, second


def real(input: Tensor) -> Tensor:
    """The real part, on the same memory; of what is not complex, the tensor itself.

    >>> graphc.real(graphc.tensor([1 + 2j, 3 - 4j]))
    tensor([1., 3.])
    """
    return emit(ops.real, (input,), {}) if input.dtype.is_complex else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part, on the same memory. GraphcError for what is not complex.

    >>> graphc.imag(graphc.tensor([1 + 2j, 3 - 4j]))
    tensor([ 2., -4.])
    """
    if not input.dtype.is_complex:
        raise GraphcError("imag is not implemented for tensors with non-complex dtypes.", got=input.dtype.name)
    return emit(ops.imag, (input,), {})


def conj(input: Tensor) -> Tensor:
    """The complex conjugate, computed at once; of what is not complex, the tensor itself.

    >>> graphc.conj(graphc.tensor([1 + 2j]))
    tensor([1.-2.j])
    """
    return emit(ops.conj, (input,), {}) if input.dtype.is_complex else input


def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugate.

    >>> graphc.conj_physical(graphc.tensor([1 + 2j]))
    tensor([1.-2.j])
    """
    return named(conj(input), "ConjPhysical") if input.dtype.is_complex else input


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: `conj` leaves nothing to be resolved.

    ArgumentTypeError for what is no tensor.

    >>> graphc.resolve_conj(graphc.tensor([1 + 2j]).conj())
    tensor([1.-2.j])
    """
    return need_tensor(input, "resolve_conj")


def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: `neg` leaves nothing to be resolved.

    ArgumentTypeError for what is no tensor.

    >>> graphc.resolve_neg(-graphc.tensor([1.0]))
    tensor([-1.])
    """
    return need_tensor(input, "resolve_neg")


def angle(input: Tensor) -> Tensor:
    """The angle to the positive real axis, in radians: 0 for positive real numbers, pi for negative ones. Integers give
    float32.

    ArgumentTypeError for what is no tensor.

    >>> graphc.angle(graphc.tensor([1j, -1 + 0j]))
    tensor([1.5708, 3.1416])
    """
    if input.dtype.is_complex:
        return named(atan2(imag(input), real(input)), "Angle")
    x = input if input.dtype.is_floating_point else cast(input, get_default_dtype())
    if input.dtype is bool_:
        return x * 0
    half_turn = ops.full(TensorType(x.dtype, ()), math.pi, like=x)  # in full precision, which a Python number has not
    return named(where(isnan(x), x, where(x < 0, half_turn, 0.0)), "Angle")


def view_as_real(input: Tensor) -> Tensor:
    """Real and imaginary parts side by side in a new last dimension, on the same memory.

    DTypeError for what is not complex.

    >>> graphc.view_as_real(graphc.tensor([1 + 2j, 3 - 4j]))
    tensor([[ 1.,  2.],
            [ 3., -4.]])
    """
    return emit(ops.view_as_real, (input,), {})


def view_as_complex(input: Tensor) -> Tensor:
    """The complex numbers whose parts stand side by side in the last dimension, of size 2, on the same memory.

    DTypeError for what is not floating-point, ShapeError where the last dimension has not two elements.

    >>> graphc.view_as_complex(graphc.tensor([[1.0, 2.0], [3.0, -4.0]]))
    tensor([1.+2.j, 3.-4.j])
    """
    return emit(ops.view_as_complex, (input,), {})


def is_complex(input: Tensor) -> builtins.bool:
    """Whether the elements are complex numbers.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_complex(graphc.tensor([1j])), graphc.is_complex(graphc.tensor([1.0]))
    (True, False)
    """
    return need_tensor(input, "is_complex").is_complex()


def is_conj(input: Tensor) -> builtins.bool:
    """Whether the conjugate is still to be taken: never.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_conj(graphc.tensor([1j]).conj())
    False
    """
    return need_tensor(input, "is_conj").is_conj()


def is_neg(input: Tensor) -> builtins.bool:
    """Whether the sign is still to be turned: never.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_neg(-graphc.tensor([1.0]))
    False
    """
    return need_tensor(input, "is_neg").is_neg()


def is_signed(input: Tensor) -> builtins.bool:
    """Whether the elements can be negative.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_signed(graphc.tensor([1.0])), graphc.is_signed(graphc.tensor([1], dtype=graphc.uint8))
    (True, False)
    """
    return need_tensor(input, "is_signed").is_signed()


# Properties of tensors


def set_real(self: Tensor, new: Tensor) -> None:
    """Overwrite the real part."""
    real(self).copy_(new)


def set_imag(self: Tensor, new: Tensor) -> None:
    """Overwrite the imaginary part."""
    imag(self).copy_(new)


def swapped_matrices(self: Tensor) -> Tensor:
    """The last two dimensions exchanged: `x.mT`.

    GraphcError for less than two dimensions.

    >>> graphc.zeros(5, 2, 3).mT.shape
    graphc.Size([5, 3, 2])
    """
    return transpose(_matrices(self, "mT"), -2, -1)


def conjugated_matrices(self: Tensor) -> Tensor:
    """The last two dimensions exchanged, and the conjugate: `x.mH`.

    GraphcError for less than two dimensions.

    >>> graphc.tensor([[[1 + 1j, 2 + 0j]]]).mH
    tensor([[[1.-1.j],
             [2.-0.j]]])
    """
    return conj(transpose(_matrices(self, "mH"), -2, -1))


def conjugated_matrix(self: Tensor) -> Tensor:
    """Rows and columns exchanged, and the conjugate: `x.H`.

    GraphcError unless there are two dimensions.

    >>> graphc.tensor([[1 + 1j, 2 + 0j]]).H
    tensor([[1.-1.j],
            [2.-0.j]])
    """
    if self.dim() == 0:
        return conj(self)
    if self.dim() != 2:
        raise GraphcError(f"tensor.H is only supported on matrices (2-D tensors). Got {self.dim()}-D tensor.",
                          hint="x.mH does so for batches of matrices" if self.dim() > 2 else None)
    return conj(transpose(self, 0, 1))


def _matrices(self: Tensor, name: str) -> Tensor:
    if self.dim() < 2:
        raise GraphcError(f"tensor.{name} is only supported on matrices or batches of matrices. Got {self.dim()}-D tensor.")
    return self
