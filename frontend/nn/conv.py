"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.convolution import Ints, conv1d, conv2d, conv3d, spread
from graphc.frontend.creation import empty
from graphc.frontend.nn import functional as F
from graphc.frontend.nn import init
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor
from graphc.types import DType

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What convolutions over one, two and three dimensions share. The weight is [out, in / groups, *kernel_size]."""

    _dims = 2
    _function: Any

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Any = 0,
                 dilation: Ints = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__()
        if groups <= 0:
            raise ArgumentError("groups must be a positive integer")
        if in_channels % groups:
            raise ArgumentError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ArgumentError("out_channels must be divisible by groups")
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
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ArgumentError("padding='same' is not supported for strided convolutions")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ArgumentError(f"Invalid padding string '{padding}', should be one of {{'valid', 'same'}}")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

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
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv1d(_Conv):
    """Cross-correlation over [N, C, L]."""

    _dims = 1
    _function = staticmethod(conv1d)


class Conv2d(_Conv):
    """Cross-correlation over [N, C, H, W]."""

    _dims = 2
    _function = staticmethod(conv2d)


class Conv3d(_Conv):
    """Cross-correlation over [N, C, D, H, W]."""

    _dims = 3
    _function = staticmethod(conv3d)
