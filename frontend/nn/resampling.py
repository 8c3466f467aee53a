"""Layers that resize images or rearrange their elements."""

from __future__ import annotations

from typing import Any

from graphc.frontend.nn import functional as F
from graphc.frontend.nn.module import Module
from graphc.frontend.spatial import Ints
from graphc.frontend.tensor import Tensor


class Upsample(Module):
    """[N, C, *S] resized to `size`, or by `scale_factor`; see nn.functional.interpolate.

    At a call ArgumentError unless one of `size` and `scale_factor` is given, and UnsupportedError for a mode that is not for so
    many dimensions.

    >>> nn.Upsample(scale_factor=2)(graphc.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 2., 2.]]])
    """

    def __init__(self, size: Ints | None = None, scale_factor: Any = None, mode: str = "nearest",
                 align_corners: bool | None = None, recompute_scale_factor: bool | None = None) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        if isinstance(scale_factor, tuple):
            self.scale_factor: Any = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        how = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{how}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """[N, C, H, W] resized by taking the nearest element.

    >>> nn.UpsamplingNearest2d(scale_factor=2)(graphc.ones(1, 1, 2, 2)).shape
    graphc.Size([1, 1, 4, 4])
    """

    def __init__(self, size: Ints | None = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """[N, C, H, W] resized bilinearly, with the corners' centres where they were.

    >>> nn.UpsamplingBilinear2d(size=(3, 3))(graphc.ones(1, 1, 2, 2)).shape
    graphc.Size([1, 1, 3, 3])
    """

    def __init__(self, size: Ints | None = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class PixelShuffle(Module):
    """[*, C * r * r, H, W] as [*, C, H * r, W * r].

    At a call ShapeError where the channels cannot be divided by the factor's square.

    >>> nn.PixelShuffle(2)(graphc.zeros(1, 8, 3, 3)).shape
    graphc.Size([1, 2, 6, 6])
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """[*, C, H * r, W * r] as [*, C * r * r, H, W].

    At a call ShapeError where height and width cannot be divided by the factor.

    >>> nn.PixelUnshuffle(2)(graphc.zeros(1, 2, 6, 6)).shape
    graphc.Size([1, 8, 3, 3])
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The channels of [N, C, *], dealt out: the first of each group, then the second ones.

    At a call ShapeError where channels cannot be divided into the groups.

    >>> nn.ChannelShuffle(2)(graphc.arange(4.0).view(1, 4, 1)).flatten()
    tensor([0., 2., 1., 3.])
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class Fold(Module):
    """Columns [N, C * K * K', blocks] as blocks of images [N, C, *output_size]; where blocks overlap, their sum.

    At a call ShapeError where the columns are not those of blocks of such images.

    >>> nn.Fold(output_size=(4, 4), kernel_size=2, stride=2)(graphc.ones(1, 12, 4)).shape
    graphc.Size([1, 3, 4, 4])
    """

    def __init__(self, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
                f"padding={self.padding}, stride={self.stride}")


class Unfold(Module):
    """The sliding blocks of [N, C, H, W] as columns [N, C * K * K', blocks].

    At a call ShapeError for what is not one image or several, and where no block fits into them.

    >>> nn.Unfold(kernel_size=2)(graphc.ones(1, 3, 4, 4)).shape
    graphc.Size([1, 12, 9])
    """

    def __init__(self, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
                f"stride={self.stride}")
