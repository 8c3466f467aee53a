"""Convolution and transposed convolution over one, two or three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import lowered
from graphc.frontend.composite import composite
from graphc.frontend.modes import mode
from graphc.frontend.movement import permute, reshape
from graphc.frontend.spatial import Ints, batched, spread, unbatched
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.op import OpDef

FUNCTIONS = "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d"


def _checked(function: str, weight: Tensor, stride: Ints, dilation: Ints, groups: int,
             dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stride and dilation with a number a dimension, after a look at the weight and at the other settings."""
    if len(weight._data.shape) != dims + 2:
        raise ShapeError(f"{function}: the weight has {weight.dim()} dimensions", expected=str(dims + 2))
    if groups < 1:
        raise GraphcError("non-positive groups is not supported", expected="1 or more", got=str(groups))
    steps, gaps = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    if any(s < 1 for s in steps):
        raise GraphcError("non-positive stride is not supported", expected="1 or more", got=str(list(steps)))
    if any(g < 1 for g in gaps):
        raise GraphcError("dilation should be greater than zero", expected="1 or more", got=str(list(gaps)))
    return steps, gaps


def _padding(padding: Any, dims: int) -> tuple[int, ...]:
    found = spread(padding, dims, "padding")
    if any(p < 0 for p in found):
        raise GraphcError("negative padding is not supported", got=str(list(found)))
    return found


def _check_bias(given: str, weight: Tensor, bias: Tensor | None, input: Tensor, channels: Any) -> None:
    if bias is None:
        return
    if bias.dtype is not input.dtype:
        raise DTypeError(f"Input type ({input.dtype.name}) and bias type ({bias.dtype.name}) should be the same")
    if tuple(bias._data.shape) != (channels,):
        raise ShapeError(f"Given {given}weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {channels} "
                         f"elements, but got bias of size {list(bias.shape)} instead")


def _run(record: OpDef, input: Tensor, weight: Tensor, bias: Tensor | None, attrs: dict[str, Any]) -> Tensor:
    if weight.dtype is not input.dtype:
        raise DTypeError(f"Input type ({input.dtype.name}) and weight type ({weight.dtype.name}) should be the same",
                         expected="one dtype", hint="input.to(weight.dtype)")
    out = emit(record, (input, weight), attrs)
    if bias is not None:
        out = emit(ops.add, (out, reshape(bias, (-1, *(1,) * len(attrs["stride"])))), {})
    return out


def _same_padding(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    if any(s != 1 for s in stride):
        raise GraphcError("padding='same' is not supported for strided convolutions",
                          expected="a stride of 1", got=str(list(stride)))
    totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return [(t // 2, t - t // 2) for t in totals]


def _conv(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Any, dilation: Ints, groups: int,
          dims: int) -> Tensor:
    function = f"conv{dims}d"
    if mode.autocast is not None:
        input, weight, bias = lowered(input, mode.autocast), lowered(weight, mode.autocast), lowered(bias, mode.autocast)
    input, alone = batched(input, dims, function)
    steps, gaps = _checked(function, weight, stride, dilation, groups, dims)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise GraphcError(f"Invalid padding string: '{padding}'", expected="'same' or 'valid'")
        kernel = tuple(weight._data.shape[2:])
        pairs = _same_padding(kernel, steps, gaps) if padding == "same" else [(0, 0)] * dims
    else:
        pairs = [(p, p) for p in _padding(padding, dims)]
    channels = input._data.shape[1]
    if channels != weight._data.shape[1] * groups:
        raise ShapeError(f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
                         f"have {weight._data.shape[1] * groups} channels, but got {channels} channels instead")
    _check_bias("", weight, bias, input, weight._data.shape[0])
    attrs = {"stride": steps, "padding": tuple(pairs), "dilation": gaps, "groups": groups}
    return named(unbatched(_run(ops.conv, input, weight, bias, attrs), alone), "Convolution")


@composite(weight="weight")
def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, L] with weights [O, C / groups, K], as [N, O, L'] with L' = (L + 2 padding - dilation (K -
    1) - 1) // stride + 1. `padding` may be "same" or "valid".

    ShapeError where the channels do not fit or the kernel is larger than the padded input, DTypeError where the dtypes differ,
    GraphcError for strides, dilations and groups below 1, and for negative padding.

    >>> F.conv1d(graphc.tensor([[[1.0, 2.0, 3.0, 4.0]]]), graphc.tensor([[[1.0, -1.0]]]))
    tensor([[[-1., -1., -1.]]])
    """
    return _conv(input, weight, bias, stride, padding, dilation, groups, 1)


@composite(weight="weight")
def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, H, W] with weights [O, C / groups, K, K'], as [N, O, H', W']; sizes are those of `conv1d`
    along each dimension. `padding` may be "same" or "valid".

    ShapeError where the channels do not fit or the kernel is larger than the padded input, DTypeError where the dtypes differ,
    GraphcError for strides, dilations and groups below 1, and for negative padding.

    >>> F.conv2d(graphc.ones(1, 3, 8, 8), graphc.ones(4, 3, 3, 3), padding=1, stride=2).shape
    graphc.Size([1, 4, 4, 4])
    """
    return _conv(input, weight, bias, stride, padding, dilation, groups, 2)


@composite(weight="weight")
def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, D, H, W] with weights [O, C / groups, K, K', K''], as [N, O, D', H', W']; see `conv1d`.

    ShapeError where the channels do not fit or the kernel is larger than the padded input, DTypeError where the dtypes differ,
    GraphcError for strides, dilations and groups below 1, and for negative padding.

    >>> F.conv3d(graphc.ones(1, 2, 4, 4, 4), graphc.ones(3, 2, 2, 2, 2)).shape
    graphc.Size([1, 3, 3, 3, 3])
    """
    return _conv(input, weight, bias, stride, padding, dilation, groups, 3)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """conv1d of [L, N, C] with weights [K, C, O], as [L', N, O].

    ShapeError unless input and weight have three dimensions whose sizes fit.

    >>> F.conv_tbc(graphc.ones(5, 1, 2), graphc.ones(3, 2, 4), graphc.zeros(4)).shape
    graphc.Size([3, 1, 4])
    """
    if input.dim() != 3 or weight.dim() != 3:
        raise ShapeError("conv_tbc: Input and weight must have 3 dims: time, batch, in_channel and kernel, in, out",
                         got=f"input {list(input.shape)}, weight {list(weight.shape)}")
    return permute(conv1d(permute(input, 1, 2, 0), permute(weight, 2, 1, 0), bias, padding=pad), 2, 0, 1)


# Transposed convolution: the derivative of a convolution by its input, as a function of its own


def _conv_transpose(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, output_padding: Ints,
                    groups: int, dilation: Ints, dims: int) -> Tensor:
    function = f"conv_transpose{dims}d"
    if mode.autocast is not None:
        input, weight, bias = lowered(input, mode.autocast), lowered(weight, mode.autocast), lowered(bias, mode.autocast)
    input, alone = batched(input, dims, function)
    steps, gaps = _checked(function, weight, stride, dilation, groups, dims)
    edges, extra = _padding(padding, dims), spread(output_padding, dims, "output_padding")
    if any(e < 0 for e in extra):
        raise GraphcError("negative output_padding is not supported", got=str(list(extra)))
    if any(e >= max(s, g) for e, s, g in zip(extra, steps, gaps)):
        raise GraphcError("output padding must be smaller than either stride or dilation", got=f"output_padding {extra}, "
                          f"stride {steps}, dilation {gaps}")
    if input._data.shape[1] != weight._data.shape[0]:
        raise ShapeError(f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
                         f"{weight._data.shape[0]} channels, but got {input._data.shape[1]} channels instead")
    if weight._data.shape[0] % groups:
        raise ShapeError(f"{function}: groups={groups} does not divide the {weight._data.shape[0]} channels of the input")
    _check_bias("transposed=1, ", weight, bias, input, weight._data.shape[1] * groups)
    size = tuple((n - 1) * s - 2 * p + g * (k - 1) + e + 1 for n, s, p, g, k, e in
                 zip(input._data.shape[2:], steps, edges, gaps, weight._data.shape[2:], extra))
    if any(n < 1 for n in size):
        raise ShapeError(f"Given input size per channel: {list(input.shape[2:])}. Calculated output size per channel: "
                         f"{list(size)}. Output size is too small")
    attrs = {"size": size, "stride": steps, "padding": tuple((p, p) for p in edges), "dilation": gaps, "groups": groups}
    return named(unbatched(_run(ops.conv_input_grad, input, weight, bias, attrs), alone), "Convolution")


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Transposed convolution of [N, C, L] with weights [C, O / groups, K], as [N, O, L'] with
    L' = (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1.

    ShapeError where the channels do not fit or the result would be empty, DTypeError where the dtypes differ, GraphcError for
    an `output_padding` that neither stride nor dilation exceeds.

    >>> F.conv_transpose1d(graphc.tensor([[[1.0, 2.0]]]), graphc.tensor([[[1.0, 10.0]]]), stride=2)
    tensor([[[ 1., 10.,  2., 20.]]])
    """
    return _conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, 1)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Transposed convolution of [N, C, H, W] with weights [C, O / groups, K, K']; see conv_transpose1d for the sizes.

    ShapeError where the channels do not fit or the result would be empty, DTypeError where the dtypes differ, GraphcError for
    an `output_padding` that neither stride nor dilation exceeds.

    >>> F.conv_transpose2d(graphc.ones(1, 3, 4, 4), graphc.ones(3, 2, 2, 2), stride=2).shape
    graphc.Size([1, 2, 8, 8])
    """
    return _conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, 2)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Transposed convolution of [N, C, D, H, W] with weights [C, O / groups, K, K', K'']; see conv_transpose1d for sizes.

    ShapeError where the channels do not fit or the result would be empty, DTypeError where the dtypes differ, GraphcError for
    an `output_padding` that neither stride nor dilation exceeds.

    >>> F.conv_transpose3d(graphc.ones(1, 3, 2, 2, 2), graphc.ones(3, 2, 2, 2, 2), stride=2).shape
    graphc.Size([1, 2, 4, 4, 4])
    """
    return _conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, 3)
