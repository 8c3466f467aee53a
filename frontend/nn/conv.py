"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from graphc.errors import ArgumentError
from graphc.frontend.convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from graphc.frontend.creation import empty
from graphc.frontend.nn import functional as F
from graphc.frontend.nn import init
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.spatial import Ints, spread
from graphc.frontend.tensor import Tensor
from graphc.types import DType

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What convolutions over one, two and three dimensions share. The weight is [out, in / groups, *kernel_size]."""

    transposed: ClassVar[bool] = False
    output_padding: tuple[int, ...]
    _dims = 2
    _function: Any

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Any = 0,
                 dilation: Ints = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__()
        if groups <= 0:
            raise ArgumentError("groups must be a positive integer", got=str(groups))
        if in_channels % groups:
            raise ArgumentError("in_channels must be divisible by groups", got=f"{in_channels} channels, {groups} groups")
        if out_channels % groups:
            raise ArgumentError("out_channels must be divisible by groups", got=f"{out_channels} channels, {groups} groups")
        if padding_mode not in _MODES:
            raise ArgumentError(f"padding_mode must be one of {list(_MODES)}, but got padding_mode='{padding_mode}'")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = spread(kernel_size, self._dims, "kernel_size")
        self.stride = spread(stride, self._dims, "stride")
        self.padding = padding if isinstance(padding, str) else spread(padding, self._dims, "padding")
        self.dilation = spread(dilation, self._dims, "dilation")
        self.groups = groups
        self.padding_mode = padding_mode
        self.output_padding = (0,) * self._dims
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ArgumentError("padding='same' is not supported for strided convolutions",
                                expected="a stride of 1", got=str(list(self.stride)))
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ArgumentError(f"Invalid padding string '{padding}', should be one of {{'valid', 'same'}}")
        self.weight = Parameter(empty(self._weight_shape(), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, uniform within 1 / sqrt(fan_in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def _edges(self) -> list[int]:
        """The padding as nn.functional.pad wants it."""
        if isinstance(self.padding, str):
            if self.padding == "valid":
                return [0] * (2 * self._dims)
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            return [x for t in reversed(totals) for x in (t // 2, t - t // 2)]
        return [p for p in reversed(self.padding) for _ in range(2)]

    def forward(self, input: Tensor) -> Tensor:
        function = type(self)._function
        if self.padding_mode != "zeros":
            padded = F.pad(input, self._edges(), mode=self.padding_mode)
            return function(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return function(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * self._dims:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self._dims:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * self._dims:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv1d(_Conv):
    """Cross-correlation over [N, C, L] or [C, L], with learned weights [out_channels, C / groups, kernel_size]; see
    `nn.functional.conv1d`.

    At a call ShapeError where the channels do not fit or the kernel is larger than the padded input, and DTypeError where the
    dtypes differ.

    >>> nn.Conv1d(3, 8, kernel_size=3, padding=1)(graphc.zeros(2, 3, 10)).shape
    graphc.Size([2, 8, 10])
    """

    _dims = 1
    _function = staticmethod(conv1d)


class Conv2d(_Conv):
    """Cross-correlation over [N, C, H, W] or [C, H, W], with learned weights [out_channels, C / groups, *kernel_size]; see
    `nn.functional.conv2d`.

    At a call ShapeError where the channels do not fit or the kernel is larger than the padded input, and DTypeError where the
    dtypes differ.

    >>> nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)(graphc.zeros(2, 3, 8, 8)).shape
    graphc.Size([2, 8, 4, 4])
    """

    _dims = 2
    _function = staticmethod(conv2d)


class Conv3d(_Conv):
    """Cross-correlation over [N, C, D, H, W] or [C, D, H, W], with learned weights [out_channels, C / groups, *kernel_size].

    At a call ShapeError where the channels do not fit or the kernel is larger than the padded input, and DTypeError where the
    dtypes differ.

    >>> nn.Conv3d(3, 8, kernel_size=2)(graphc.zeros(2, 3, 4, 4, 4)).shape
    graphc.Size([2, 8, 3, 3, 3])
    """

    _dims = 3
    _function = staticmethod(conv3d)


class _ConvTranspose(_Conv):
    """What transposed convolutions share. The weight is [in, out / groups, *kernel_size]."""

    transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0,
                 output_padding: Ints = 0, groups: int = 1, bias: bool = True, dilation: Ints = 1, padding_mode: str = "zeros",
                 device: Any = None, dtype: DType | None = None) -> None:
        if padding_mode != "zeros":
            raise ArgumentError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
                         dtype)
        self.output_padding = spread(output_padding, self._dims, "output_padding")

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._output_padding(input, output_size)
        return type(self)._function(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """What has to be added to one end for a result of `output_size`."""
        dims = self._dims
        lead = input.dim() - dims
        wanted = tuple(output_size)[lead:] if len(output_size) == lead + dims else tuple(output_size)
        if len(wanted) != dims:
            raise ArgumentError(f"ConvTranspose{dims}D: for {input.dim()}D input, output_size must have {dims} or "
                                f"{lead + dims} elements (got {len(output_size)})")
        sizes: tuple[int, ...] = tuple(input.shape[lead:])
        padding = self._edges()[::-2]  # one number a dimension, in their order
        settings = zip(sizes, self.stride, padding, self.dilation, self.kernel_size)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in settings]
        if any(not low <= want < low + s for want, low, s in zip(wanted, least, self.stride)):
            most = [low + s - 1 for low, s in zip(least, self.stride)]
            raise ArgumentError(f"requested an output size of {list(wanted)}, but valid sizes range from {least} to {most} "
                                f"(for an input of {list(input.shape[lead:])})")
        return tuple(want - low for want, low in zip(wanted, least))


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over [N, C, L], with learned weights [C, out_channels / groups, kernel_size]; see
    `nn.functional.conv_transpose1d`.

    >>> nn.ConvTranspose1d(3, 8, kernel_size=2, stride=2)(graphc.zeros(2, 3, 10)).shape
    graphc.Size([2, 8, 20])
    """

    _dims = 1
    _function = staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over [N, C, H, W], with learned weights [C, out_channels / groups, *kernel_size].

    >>> nn.ConvTranspose2d(3, 8, kernel_size=2, stride=2)(graphc.zeros(2, 3, 4, 4)).shape
    graphc.Size([2, 8, 8, 8])
    """

    _dims = 2
    _function = staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over [N, C, D, H, W], with learned weights [C, out_channels / groups, *kernel_size].

    >>> nn.ConvTranspose3d(3, 8, kernel_size=2, stride=2)(graphc.zeros(2, 3, 4, 4, 4)).shape
    graphc.Size([2, 8, 8, 8, 8])
    """

    _dims = 3
    _function = staticmethod(conv_transpose3d)
