"""Questions about tensors that are functions."""

from __future__ import annotations

from graphc.errors import GraphcError
from graphc.frontend.arguments import need_tensor
from graphc.frontend.tensor import Storage, Tensor

FUNCTIONS = "get_device is_inference is_nonzero is_same_size is_storage typename"
METHODS = "is_nonzero"


def get_device(input: Tensor) -> int:
    """The number of the GPU that a tensor lives on; -1 for the CPU.

    ArgumentTypeError for what is no tensor.

    >>> graphc.get_device(graphc.ones(1))
    -1
    """
    return need_tensor(input, "get_device").get_device()


def is_inference(input: Tensor) -> bool:
    """Whether a tensor was made under inference_mode.

    ArgumentTypeError for what is no tensor.

    >>> with graphc.inference_mode():
    ...     x = graphc.ones(1)
    >>> graphc.is_inference(x)
    True
    """
    return need_tensor(input, "is_inference").is_inference()


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not zero. GraphcError for tensors of several elements, or none.

    >>> graphc.is_nonzero(graphc.tensor([0.0]))
    False
    """
    if need_tensor(input, "is_nonzero").numel() == 0:
        raise GraphcError("Boolean value of Tensor with no values is ambiguous", expected="one element")
    return bool(input)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_same_size(graphc.zeros(2, 3), graphc.ones(2, 3))
    True
    """
    return need_tensor(input, "is_same_size").is_same_size(need_tensor(other, "is_same_size", "other"))


def is_storage(obj: object) -> bool:
    """Whether an object is the memory of a tensor.

    >>> graphc.is_storage(graphc.ones(2).untyped_storage())
    True
    """
    return isinstance(obj, Storage)


def typename(obj: object) -> str:
    """The old name of a tensor's class, such as "graphc.FloatTensor"; of another object its class with its module.

    >>> graphc.typename(graphc.ones(2))
    'graphc.FloatTensor'
    """
    if isinstance(obj, Tensor):
        return str(obj.type())
    named = obj if hasattr(obj, "__qualname__") else type(obj)
    module = getattr(named, "__module__", "")
    name = named.__qualname__
    return name if module in ("", "builtins", None) else f"{module}.{name}"
