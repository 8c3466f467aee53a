"""All parameters of a model as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.errors import ArgumentTypeError, ShapeError
from graphc.frontend.joining import cat
from graphc.frontend.movement import part, reshape
from graphc.frontend.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other.

    ArgumentError for no parameters.

    >>> nn.utils.parameters_to_vector([graphc.ones(2), graphc.zeros(1, 2)])
    tensor([1., 1., 0., 0.])
    """
    return cat([reshape(parameter, (-1,)) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give the parameters the elements of a vector; they share its memory from then on.

    ShapeError where the vector is shorter than the parameters together, ArgumentTypeError for what is no tensor.

    >>> weight = nn.Parameter(graphc.zeros(1, 2))
    >>> nn.utils.vector_to_parameters(graphc.tensor([1.0, 2.0]), [weight])
    >>> weight.detach()
    tensor([[1., 2.]])
    """
    if not isinstance(vec, Tensor):
        raise ArgumentTypeError(f"expected graphc.Tensor, but got: {type(vec).__name__}")
    begin = 0
    for parameter in parameters:
        end = begin + parameter.numel()
        if end > vec._data.shape[0]:
            raise ShapeError("vector_to_parameters: the vector is shorter than the parameters together",
                             expected=f"{end} elements or more", got=str(vec.numel()))
        parameter.data = reshape(part(vec.detach(), 0, begin, end), parameter._data.shape)
        begin = end
