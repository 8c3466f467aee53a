"""Blocks of images as columns and back, and channels as pixels and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.movement import permute, reshape, transpose, unsqueeze
from graphc.frontend.spatial import Ints, spread, unbatched
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

FUNCTIONS = "channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle"


class _Blocks:
    """The sliding blocks of images [H, W]: how they lie, and how many there are a dimension."""

    def __init__(self, size: Sequence[int], kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> None:
        self.kernel = spread(kernel, 2, "kernel_size")
        self.dilation = spread(dilation, 2, "dilation")
        self.padding = spread(padding, 2, "padding")
        self.stride = spread(stride, 2, "stride")
        for what, numbers in (("kernel size", self.kernel), ("dilation", self.dilation), ("stride", self.stride)):
            if min(numbers) < 1:
                raise GraphcError(f"{what} should be greater than zero, but got {what.split()[0]}_height: {numbers[0]} "
                                  f"{what.split()[0]}_width: {numbers[1]}")
        if min(self.padding) < 0:
            raise GraphcError(f"padding should be non-negative, but got pad_height: {self.padding[0]} pad_width: "
                              f"{self.padding[1]}")
        self.count = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
                           zip(size, self.padding, self.dilation, self.kernel, self.stride))

    def __str__(self) -> str:
        return f"kernel_size={self.kernel}, dilation={self.dilation}, padding={self.padding}"


def unfold(input: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> Tensor:
    """The sliding blocks of [N, C, H, W] as columns: [N, C * K * K', number of blocks].

    ShapeError for what is not one image or several, and where no block fits into them.

    >>> F.unfold(graphc.ones(1, 3, 4, 4), kernel_size=2).shape
    graphc.Size([1, 12, 9])
    """
    shape = tuple(input._data.shape)
    if len(shape) not in (3, 4) or 0 in shape[-3:]:
        raise ShapeError("Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for "
                         f"input, but got: {list(shape)}")
    x = input if len(shape) == 4 else unsqueeze(input, 0)
    blocks = _Blocks(shape[-2:], kernel_size, dilation, padding, stride)
    if any(count < 1 for count in blocks.count):
        raise ShapeError(f"Given input with spatial size {shape[-2:]}, {blocks}, calculated shape of the array of sliding "
                         f"blocks as {blocks.count}, but its components must be at least one.")
    edges = (0, 0, *blocks.padding)
    if any(edges):
        x = emit(ops.pad, (x,), {"low": edges, "high": edges, "value": 0.0})
    for i in range(2):
        x = emit(ops.window, (x,), {"axis": 2 + i, "size": blocks.kernel[i], "step": blocks.stride[i],
                                    "dilation": blocks.dilation[i]})
    rows = shape[-3] * math.prod(blocks.kernel)
    out = reshape(permute(x, 0, 1, 4, 5, 2, 3), (x._data.shape[0], rows, math.prod(blocks.count)))
    return named(unbatched(out, len(shape) == 3), "Im2Col")


def fold(input: Tensor, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0,
         stride: Ints = 1) -> Tensor:
    """Columns [N, C * K * K', number of blocks] as blocks of images [N, C, *output_size]; where blocks overlap, their sum.

    ShapeError where the columns are not those of blocks of such images.

    >>> F.fold(graphc.ones(1, 12, 4), output_size=(4, 4), kernel_size=2, stride=2).shape
    graphc.Size([1, 3, 4, 4])
    """
    shape = tuple(input._data.shape)
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise ShapeError("Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions "
                         f"for input, but got: {list(shape)}")
    size = spread(output_size, 2, "output_size")
    blocks = _Blocks(size, kernel_size, dilation, padding, stride)
    area, total = math.prod(blocks.kernel), math.prod(blocks.count)
    if shape[-2] % area:
        raise ShapeError("Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
                         f"input.size(1)={shape[-2]} and kernel_size={blocks.kernel}.")
    if shape[-1] != total or any(count < 1 for count in blocks.count):
        raise ShapeError(f"Given output_size={size}, {blocks}, stride={blocks.stride}, expected size of input's dimension 2 to "
                         f"match the calculated number of sliding blocks {blocks.count[0]} * {blocks.count[1]} = {total}, but "
                         f"got input.size(2)={shape[-1]}.")
    batch = shape[0] if len(shape) == 3 else 1
    x: Any = reshape(input, (batch, shape[-2] // area, *blocks.kernel, *blocks.count))
    x = permute(x, 0, 1, 4, 5, 2, 3)
    for i in reversed(range(2)):
        length = size[i] + 2 * blocks.padding[i]
        x = emit(ops.fold, (x,), {"axis": 2 + i, "length": length, "step": blocks.stride[i], "dilation": blocks.dilation[i]})
    starts = (0, 0, *blocks.padding)
    stops = (*x._data.shape[:2], *(p + n for p, n in zip(blocks.padding, size)))
    out = emit(ops.slice, (x,), {"starts": starts, "stops": stops, "steps": (1,) * 4})
    return named(unbatched(out, len(shape) == 2), "Col2Im")


def _split_sizes(input: Tensor, factor: int, function: str, name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    shape = tuple(input._data.shape)
    if len(shape) < 3:
        raise ShapeError(f"{function} expects input to have at least 3 dimensions, but got input with {len(shape)} "
                         "dimension(s)")
    if factor <= 0:
        raise GraphcError(f"{function} expects a positive {name}, but got {factor}")
    return shape[:-3], shape[-3:]


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[*, C * r * r, H, W] as [*, C, H * r, W * r] (Shi et al. 2016).

    ShapeError where the channels cannot be divided by the factor's square; GraphcError for a factor below 1.

    >>> F.pixel_shuffle(graphc.arange(4.0).view(1, 4, 1, 1), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    r = upscale_factor
    lead, (channels, height, width) = _split_sizes(input, r, "pixel_shuffle", "upscale_factor")
    if channels % (r * r):
        raise ShapeError("pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
                         f"upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}")
    count = len(lead)
    x = reshape(input, (*lead, channels // (r * r), r, r, height, width))
    x = permute(x, *range(count), *(count + i for i in (0, 3, 1, 4, 2)))
    return named(reshape(x, (*lead, channels // (r * r), height * r, width * r)), "PixelShuffle")


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[*, C, H * r, W * r] as [*, C * r * r, H, W]: the way back from pixel_shuffle.

    ShapeError where height and width cannot be divided by the factor; GraphcError for a factor below 1.

    >>> F.pixel_unshuffle(graphc.zeros(1, 1, 4, 4), 2).shape
    graphc.Size([1, 4, 2, 2])
    """
    r = downscale_factor
    lead, (channels, height, width) = _split_sizes(input, r, "pixel_unshuffle", "downscale_factor")
    for what, at, size in (("height", -2, height), ("width", -1, width)):
        if size % r:
            raise ShapeError(f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but input.size({at})={size} "
                             f"is not divisible by {r}")
    count = len(lead)
    x = reshape(input, (*lead, channels, height // r, r, width // r, r))
    x = permute(x, *range(count), *(count + i for i in (0, 2, 4, 1, 3)))
    return named(reshape(x, (*lead, channels * r * r, height // r, width // r)), "PixelUnshuffle")


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of [N, C, *], dealt out: the first of each group, then the second ones (Zhang et al. 2018).

    ShapeError where channels cannot be divided into the groups; GraphcError for fewer than one group.

    >>> F.channel_shuffle(graphc.arange(4.0).view(1, 4, 1), 2).flatten()
    tensor([0., 2., 1., 3.])
    """
    shape = tuple(input._data.shape)
    if len(shape) <= 2:
        raise ShapeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}")
    if groups <= 0:
        raise GraphcError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if shape[1] % groups:
        raise ShapeError(f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} groups.")
    x = reshape(input, (shape[0], groups, shape[1] // groups, *shape[2:]))
    return named(reshape(transpose(x, 1, 2), shape), "NativeChannelShuffle")


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """`channel_shuffle`.

    ShapeError where channels cannot be divided into the groups, GraphcError for fewer than one.

    >>> graphc.native_channel_shuffle(graphc.arange(4.0).view(1, 4, 1), 2).flatten()
    tensor([0., 2., 1., 3.])
    """
    return channel_shuffle(input, groups)
