"""The functions behind the modules of `graphc.nn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DimError, DTypeError, GraphcError
from graphc.frontend.activations import (
    celu,
    dropout,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    relu_,
    selu,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from graphc.frontend.arguments import emit
from graphc.frontend.convolution import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    conv1d,
    conv2d,
    conv3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from graphc.frontend.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from graphc.frontend.matrices import linear
from graphc.frontend.movement import reshape, unsqueeze
from graphc.frontend.normalization import batch_norm, group_norm, instance_norm, layer_norm, normalize, rms_norm
from graphc.frontend.pointwise import cast, sigmoid, tanh
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import int64

log_sigmoid = logsigmoid
swish = silu

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "conv1d", "conv2d", "conv3d",
    "cross_entropy", "dropout", "elu", "embedding", "gelu", "glu", "group_norm", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "huber_loss", "instance_norm", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear", "log_sigmoid",
    "log_softmax", "logsigmoid", "max_pool1d", "max_pool2d", "max_pool3d", "mish", "mse_loss", "nll_loss", "normalize",
    "one_hot", "pad", "prelu", "relu", "relu6", "relu_", "rms_norm", "selu", "sigmoid", "silu", "smooth_l1_loss", "softmax",
    "softmin", "softplus", "softshrink", "softsign", "swish", "tanh", "tanhshrink", "threshold",
]


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of `weight` that the integers of `input` name. The row `padding_idx` gets no gradient."""
    if input.dtype.is_floating_point:
        raise DTypeError("embedding: Expected tensor for argument #1 'indices' to have one of the following scalar types: "
                         "Long, Int", got=input.dtype.name)
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise ArgumentError("embedding: max_norm, scale_grad_by_freq and sparse are not part of graphc's embedding")
    rows, width = weight._data.shape
    flat = reshape(cast(input, int64), (-1, 1))
    _check_rows(flat, rows)
    if padding_idx is not None:
        padding_idx = padding_idx + rows if padding_idx < 0 else padding_idx
        row = ops.iota(shape=(rows, 1), axis=0, dtype=int64, like=Tensor)
        weight = (row == padding_idx).where(weight.detach(), weight)
    index = flat.expand(flat._data.shape[0], width)
    out = emit(ops.gather, (weight, index), {"axis": 0})
    return named(reshape(out, (*input._data.shape, width)), "Embedding")


def _check_rows(index: Tensor, rows: Any) -> None:
    array = index._data
    if hasattr(array, "min") and array.size and (array.min() < 0 or array.max() >= rows):
        raise DimError("index out of range in self", expected=f"0 <= index < {rows}",
                       got=str(array.min() if array.min() < 0 else array.max()))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Each integer as a vector of zeros with a one at its place, int64."""
    if tensor.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.", got=tensor.dtype.name)
    if num_classes == -1:
        num_classes = int(tensor.max().item()) + 1
    shape = (*tensor._data.shape, num_classes)
    array = tensor._data
    if hasattr(array, "min") and array.size:
        if array.min() < 0:
            raise GraphcError("Class values must be non-negative.")
        if array.max() >= num_classes:
            raise GraphcError("Class values must be smaller than num_classes.")
    place = ops.iota(shape=shape, axis=len(shape) - 1, dtype=int64, like=Tensor)
    return cast(place == unsqueeze(tensor, -1), int64)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements put before and after: (left, right, top, bottom, ...) from the last dimension backwards.

    Negative numbers cut off. `mode` "reflect", "replicate" or "circular" takes them from the input.
    """
    shape = input._data.shape
    if len(pad) % 2:
        raise GraphcError("Padding length must be divisible by 2")
    if len(pad) // 2 > len(shape):
        raise GraphcError("Padding length should be less than or equal to two times the input dimension but got padding "
                          f"length {len(pad)} and input of dimension {len(shape)}")
    low, high = [0] * len(shape), [0] * len(shape)
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    if mode == "constant":
        starts = tuple(max(0, -a) for a in low)
        stops = tuple(s - max(0, -b) for s, b in zip(shape, high))
        if any(isinstance(b, int) and b < a for a, b in zip(starts, stops)):
            raise GraphcError(f"The input size {list(shape)}, plus negative padding {list(pad)}, resulted in a negative output "
                              "size, which is invalid.")
        if starts != (0,) * len(shape) or stops != tuple(shape):
            input = emit(ops.slice, (input,), {"starts": starts, "stops": stops, "steps": (1,) * len(shape)})
        fill = 0 if value is None else value
        out = emit(ops.pad, (input,), {
            "low": tuple(max(0, a) for a in low), "high": tuple(max(0, b) for b in high),
            "value": float(fill) if input.dtype.is_floating_point else fill})
        return named(out, "ConstantPadNd")
    if mode not in ("reflect", "replicate", "circular"):
        raise GraphcError(f"Unrecognised padding mode {mode}", expected="'constant', 'reflect', 'replicate' or 'circular'")
    if value is not None and value != 0:
        raise ArgumentError(f'Padding mode "{mode}" doesn\'t take in value argument')
    out = input
    for axis, (before, after) in enumerate(zip(low, high)):
        if before or after:
            out = _padded_from_input(out, axis, before, after, mode)
    return out


def _padded_from_input(input: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = input._data.shape[axis]
    if mode == "reflect" and max(before, after) >= size:
        raise GraphcError(f"Padding size should be less than the corresponding input dimension, but got: padding ({before}, "
                          f"{after}) at dimension {axis} of input {list(input.shape)}")
    if mode == "circular" and max(before, after) > size:
        raise GraphcError("Padding value causes wrapping around more than once.")
    places = []
    for i in range(-before, size + after):
        if mode == "replicate":
            places.append(min(max(i, 0), size - 1))
        elif mode == "circular":
            places.append(i % size)
        else:
            places.append(-i if i < 0 else 2 * (size - 1) - i if i >= size else i)
    from graphc.frontend.creation import tensor

    return input.index_select(axis, tensor(places, dtype=int64))
