"""What the functions on matrices ask of their arguments, with PyTorch's words for what is wrong."""

from __future__ import annotations

from typing import Any

from graphc.errors import DTypeError, ShapeError
from graphc.frontend.arguments import emit, need_tensor, scalar_type
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.op import OpDef
from graphc.types import broadcast_shapes, float32


def several(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any], name: str) -> tuple[Tensor, ...]:
    """The results of an op that has several; on the tape it is called `name`."""
    results = emit(record, args, attrs)
    named(results[0], name)
    return results


def need_matrices(x: Any, name: str, what: str = "A") -> Tensor:
    """A tensor of two dimensions or more."""
    need_tensor(x, name, what)
    if len(x._data.shape) < 2:
        raise ShapeError(f"{name}: The input tensor {what} must have at least 2 dimensions.", expected="[..., m, n]",
                         got=str(list(x.shape)))
    return x


def need_square(x: Any, name: str, what: str = "A") -> Tensor:
    """A tensor of square matrices."""
    rows, columns = need_matrices(x, name, what)._data.shape[-2:]
    if rows != columns:
        raise ShapeError(f"{name}: {what} must be batches of square matrices, but they are {rows} by {columns} matrices")
    return x


def need_numbers(x: Tensor, name: str, low_precision: bool = False) -> Tensor:
    """A tensor of a dtype that the operation is defined on: float32, float64 or the complex ones of these. Under autocast
    smaller ones become float32."""
    if not x.dtype.is_differentiable:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {scalar_type(x.dtype)}",
                         hint="convert it with .to(graphc.float32)")
    if not low_precision and x.dtype.to_real().bits < 32:
        if mode.autocast is not None and not x.dtype.is_complex:
            return cast(x, float32)
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {scalar_type(x.dtype)}",
                         hint="convert it with .to(graphc.float32)")
    return x


def matrices(x: Any, name: str) -> Tensor:
    """Matrices that LAPACK can be given."""
    return need_numbers(need_matrices(x, name), name)


def squares(x: Any, name: str) -> Tensor:
    """Square matrices that LAPACK can be given."""
    return need_numbers(need_square(x, name), name)


def one_dtype(a: Tensor, b: Tensor, name: str, names: tuple[str, str] = ("A", "B")) -> None:
    """DTypeError where two operands differ in dtype."""
    if a.dtype is not b.dtype:
        first, second = names
        raise DTypeError(f"{name}: Expected {first} and {second} to have the same dtype, but found {first} of type "
                         f"{scalar_type(a.dtype)} and {second} of type {scalar_type(b.dtype)} instead")


def one_batch(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with their leading dimensions, all but two, stretched to one shape."""
    batch = broadcast_shapes(*(x._data.shape[:-2] for x in tensors))
    return tuple(x if x._data.shape[:-2] == batch else expand(x, (*batch, *x._data.shape[-2:])) for x in tensors)


def is_vector(a: Tensor, b: Tensor) -> bool:
    """Whether the right-hand sides b are a vector for each of the matrices a, and not matrices of them."""
    shape = b._data.shape
    return len(shape) == 1 or (len(shape) == len(a._data.shape) - 1 and shape == a._data.shape[:-1])
