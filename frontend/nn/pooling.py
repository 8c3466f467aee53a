"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.nn import functional as F
from graphc.frontend.nn.module import Module
from graphc.frontend.spatial import Ints, spread
from graphc.frontend.tensor import Tensor


class _MaxPool(Module):
    """The largest element of each window; with `return_indices` its place too."""

    _function: Any

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return type(self)._function(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                                    self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
                f"ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The largest element of each window of [N, C, L].

    >>> nn.MaxPool1d(2)(graphc.arange(4.0).view(1, 1, 4))
    tensor([[[1., 3.]]])
    """

    _function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window of [N, C, H, W].

    >>> nn.MaxPool2d(2)(graphc.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """

    _function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest element of each window of [N, C, D, H, W].

    >>> nn.MaxPool3d(2)(graphc.arange(64.0).view(1, 1, 4, 4, 4)).shape
    graphc.Size([1, 1, 2, 2, 2])
    """

    _function = staticmethod(F.max_pool3d)


class AvgPool1d(Module):
    """The mean of each window of [N, C, L].

    >>> nn.AvgPool1d(2)(graphc.arange(4.0).view(1, 1, 4))
    tensor([[[0.5000, 2.5000]]])
    """

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        super().__init__()
        self.kernel_size = (kernel_size,) if isinstance(kernel_size, int) else kernel_size
        self.stride = self.kernel_size if stride is None else (stride,) if isinstance(stride, int) else stride
        self.padding = (padding,) if isinstance(padding, int) else padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    _function: Any

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                                    self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of [N, C, H, W].

    >>> nn.AvgPool2d(2)(graphc.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """

    _function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The mean of each window of [N, C, D, H, W].

    >>> nn.AvgPool3d(2)(graphc.arange(64.0).view(1, 1, 4, 4, 4)).shape
    graphc.Size([1, 1, 2, 2, 2])
    """

    _function = staticmethod(F.avg_pool3d)


class _AdaptiveAvgPool(Module):
    """Means of as many windows as asked for."""

    _function: Any

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """[N, C, L] as [N, C, output_size].

    >>> nn.AdaptiveAvgPool1d(1)(graphc.arange(4.0).view(1, 1, 4))
    tensor([[[1.5000]]])
    """

    _function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """[N, C, H, W] as [N, C, *output_size].

    >>> nn.AdaptiveAvgPool2d(1)(graphc.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[7.5000]]]])
    """

    _function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """[N, C, D, H, W] as [N, C, *output_size].

    >>> nn.AdaptiveAvgPool3d(1)(graphc.arange(64.0).view(1, 1, 4, 4, 4))
    tensor([[[[[31.5000]]]]])
    """

    _function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    """Maxima of as many windows as asked for; with `return_indices` their places too."""

    _function: Any

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self)._function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """[N, C, L] as [N, C, output_size].

    >>> nn.AdaptiveMaxPool1d(1)(graphc.arange(4.0).view(1, 1, 4))
    tensor([[[3.]]])
    """

    _function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """[N, C, H, W] as [N, C, *output_size].

    >>> nn.AdaptiveMaxPool2d(1)(graphc.arange(16.0).view(1, 1, 4, 4))
    tensor([[[[15.]]]])
    """

    _function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """[N, C, D, H, W] as [N, C, *output_size].

    >>> nn.AdaptiveMaxPool3d(1)(graphc.arange(64.0).view(1, 1, 4, 4, 4))
    tensor([[[[[63.]]]]])
    """

    _function = staticmethod(F.adaptive_max_pool3d)


class _FractionalMaxPool(Module):
    """Maxima of pseudo-randomly placed windows: `output_size` of them, or `output_ratio` of the input's size."""

    _function: Any
    _dims = 2

    def __init__(self, kernel_size: Ints, output_size: Ints | None = None, output_ratio: Any = None,
                 return_indices: bool = False, _random_samples: Tensor | None = None) -> None:
        super().__init__()
        self.kernel_size = spread(kernel_size, self._dims, "kernel_size")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        name = type(self).__name__
        if output_size is None and output_ratio is None:
            raise ArgumentError(f"{name} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise ArgumentError("only one of output_size and output_ratio may be specified")
        self.output_size = None if output_size is None else spread(output_size, self._dims, "output_size")
        self.output_ratio: tuple[float, ...] | None = None
        if output_ratio is not None:
            ratios = (output_ratio,) * self._dims if isinstance(output_ratio, (int, float)) else tuple(output_ratio)
            if not all(0 < r < 1 for r in ratios):
                raise ArgumentError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
            self.output_ratio = ratios

    def forward(self, input: Tensor) -> Any:
        return type(self)._function(input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
                                    _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """Fractional max pooling of [N, C, H, W] (Graham 2014).

    >>> nn.FractionalMaxPool2d(2, output_size=4)(graphc.ones(1, 1, 7, 7)).shape
    graphc.Size([1, 1, 4, 4])
    """

    _function = staticmethod(F.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    """Fractional max pooling of [N, C, D, H, W] (Graham 2014).

    >>> nn.FractionalMaxPool3d(2, output_size=4)(graphc.ones(1, 1, 7, 7, 7)).shape
    graphc.Size([1, 1, 4, 4, 4])
    """

    _dims = 3
    _function = staticmethod(F.fractional_max_pool3d)


class _MaxUnpool(Module):
    """Maxima put back to the places that a max pooling gave, zeros elsewhere."""

    _function: Any
    _dims = 2

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0) -> None:
        super().__init__()
        self.kernel_size = spread(kernel_size, self._dims, "kernel_size")
        self.stride = self.kernel_size if stride is None else spread(stride, self._dims, "stride")
        self.padding = spread(padding, self._dims, "padding")

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return type(self)._function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The way back from MaxPool1d.

    >>> values, indices = nn.MaxPool1d(2, return_indices=True)(graphc.arange(4.0).view(1, 1, 4))
    >>> nn.MaxUnpool1d(2)(values, indices)
    tensor([[[0., 1., 0., 3.]]])
    """

    _dims = 1
    _function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """The way back from MaxPool2d.

    >>> values, indices = nn.MaxPool2d(2, return_indices=True)(graphc.arange(16.0).view(1, 1, 4, 4))
    >>> nn.MaxUnpool2d(2)(values, indices)
    tensor([[[[ 0.,  0.,  0.,  0.],
              [ 0.,  5.,  0.,  7.],
              [ 0.,  0.,  0.,  0.],
              [ 0., 13.,  0., 15.]]]])
    """

    _function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """The way back from MaxPool3d.

    >>> values, indices = nn.MaxPool3d(2, return_indices=True)(graphc.arange(64.0).view(1, 1, 4, 4, 4))
    >>> nn.MaxUnpool3d(2)(values, indices).shape
    graphc.Size([1, 1, 4, 4, 4])
    """

    _dims = 3
    _function = staticmethod(F.max_unpool3d)


class _LPPool(Module):
    """(sum of x^p)^(1/p) of each window."""

    _function: Any

    def __init__(self, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPool):
    """Power means of [N, C, L].

    >>> nn.LPPool1d(2, 2)(graphc.ones(1, 1, 4)).shape
    graphc.Size([1, 1, 2])
    """

    _function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    """Power means of [N, C, H, W].

    >>> nn.LPPool2d(2, 2)(graphc.ones(1, 1, 4, 4)).shape
    graphc.Size([1, 1, 2, 2])
    """

    _function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """Power means of [N, C, D, H, W].

    >>> nn.LPPool3d(2, 2)(graphc.ones(1, 1, 4, 4, 4)).shape
    graphc.Size([1, 1, 2, 2, 2])
    """

    _function = staticmethod(F.lp_pool3d)
