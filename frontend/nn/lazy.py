"""Modules that find the sizes of their parameters from their first input."""

from __future__ import annotations

from typing import Any, ClassVar

from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.frontend.from_data import tensor
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.frontend.nn.linear import Linear
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from graphc.frontend.nn.uninitialized import UninitializedBuffer, UninitializedParameter, is_lazy
from graphc.frontend.spatial import Ints
from graphc.frontend.tensor import Tensor
from graphc.types import DType, int64


class LazyModuleMixin:
    """What makes a module lazy: its first call, before forward, calls `initialize_parameters` with the same arguments.

    The module then becomes one of the class `cls_to_become`, if there is one. Call it once before its parameters are given
    to an optimizer.
    """

    cls_to_become: ClassVar[type[Module] | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._initialize_hook = self.register_forward_pre_hook(_initialize, with_kwargs=True)  # type: ignore[attr-defined]

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give every parameter and buffer its shape and its numbers; subclasses define it."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or a buffer has no shape yet."""
        own: Any = self
        return any(map(is_lazy, [*own._parameters.values(), *own._buffers.values()]))

    def _load_one(self, name: str, own: Tensor, key: str, new: Any, assign: bool) -> str | None:
        if is_lazy(own):
            if is_lazy(new):
                return None
            if isinstance(new, Tensor):
                with no_grad():
                    own.materialize(new.shape)
        return super()._load_one(name, own, key, new, assign)  # type: ignore[misc]


def _initialize(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise GraphcError(f"module {type(module).__name__} has not been fully initialized",
                          hint="initialize_parameters() has to materialize all parameters and buffers")
    module._initialize_hook.remove()
    del module._initialize_hook
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become


class LazyLinear(LazyModuleMixin, Linear):
    """Linear, with `in_features` from the last dimension of the first input.

    >>> layer = nn.LazyLinear(4)
    >>> layer(graphc.zeros(2, 7)).shape, layer.in_features
    (graphc.Size([2, 4]), 7)
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once there are any."""
        if self.in_features and not self.has_uninitialized_params():
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Make weight and bias for inputs like this one."""
        loaded = not self.has_uninitialized_params()
        self.in_features = input.shape[-1]
        if loaded:
            return
        self.weight.materialize((self.out_features, self.in_features))
        if self.bias is not None:
            self.bias.materialize((self.out_features,))
        self.reset_parameters()


class _LazyConv(LazyModuleMixin):
    """What lazy convolutions share: `in_channels` is from dimension -dims - 1 of the first input."""

    _dims: int
    weight: Any
    bias: Any

    def _leave_open(self, out_channels: int, bias: bool, device: Any, dtype: DType | None) -> None:
        self.out_channels = out_channels
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once there are any."""
        if self.in_channels and not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Make weight and bias for inputs like this one."""
        if input.dim() not in (self._dims + 1, self._dims + 2):
            raise ShapeError(f"Expected {self._dims + 1}D (unbatched) or {self._dims + 2}D (batched) input to "
                             f"{type(self).__name__}, but got input of size: {input.shape}")
        loaded = not self.has_uninitialized_params()
        self.in_channels = input.shape[-self._dims - 1]
        if self.in_channels % self.groups:  # type: ignore[attr-defined]
            raise ArgumentError("in_channels must be divisible by groups")
        if loaded:
            return
        self.weight.materialize(self._weight_shape())  # type: ignore[attr-defined]
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


class _LazyForward(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Any = 0, dilation: Ints = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode)
        self._leave_open(out_channels, bias, device, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """Conv1d, with `in_channels` from the first input.

    >>> layer = nn.LazyConv1d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 10)).shape, layer.in_channels
    (graphc.Size([2, 8, 9]), 3)
    """

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """Conv2d, with `in_channels` from the first input.

    >>> layer = nn.LazyConv2d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 8, 8)).shape, layer.in_channels
    (graphc.Size([2, 8, 7, 7]), 3)
    """

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """Conv3d, with `in_channels` from the first input.

    >>> layer = nn.LazyConv3d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 4, 4, 4)).shape, layer.in_channels
    (graphc.Size([2, 8, 3, 3, 3]), 3)
    """

    cls_to_become = Conv3d


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Ints, stride: Ints = 1, padding: Ints = 0, output_padding: Ints = 0,
                 groups: int = 1, bias: bool = True, dilation: Ints = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: DType | None = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode)
        self._leave_open(out_channels, bias, device, dtype)


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """ConvTranspose1d, with `in_channels` from the first input.

    >>> layer = nn.LazyConvTranspose1d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 10)).shape, layer.in_channels
    (graphc.Size([2, 8, 11]), 3)
    """

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """ConvTranspose2d, with `in_channels` from the first input.

    >>> layer = nn.LazyConvTranspose2d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 8, 8)).shape, layer.in_channels
    (graphc.Size([2, 8, 9, 9]), 3)
    """

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """ConvTranspose3d, with `in_channels` from the first input.

    >>> layer = nn.LazyConvTranspose3d(8, kernel_size=2)
    >>> layer(graphc.zeros(2, 3, 4, 4, 4)).shape, layer.in_channels
    (graphc.Size([2, 8, 5, 5, 5]), 3)
    """

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    """What lazy normalisations share: `num_features` is from the channels of the first input."""

    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
                 device: Any = None, dtype: DType | None = None, *, bias: bool = True) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = tensor(0, dtype=int64, device=device)

    def reset_parameters(self) -> None:
        """Weight one, bias zero and no statistics, once there are any."""
        if self.num_features and not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Make parameters and statistics for inputs like this one."""
        self._check_input(input)  # type: ignore[attr-defined]
        loaded = not self.has_uninitialized_params()
        self.num_features = input.size(self._channel_dim(input))  # type: ignore[attr-defined]
        if loaded:
            return
        for part in (self.weight, self.bias, self.running_mean, self.running_var):
            if part is not None:
                part.materialize((self.num_features,))
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """BatchNorm1d, with `num_features` from the first input.

    >>> layer = nn.LazyBatchNorm1d()
    >>> layer(graphc.zeros(2, 3, 10)).shape, layer.num_features
    (graphc.Size([2, 3, 10]), 3)
    """

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """BatchNorm2d, with `num_features` from the first input.

    >>> layer = nn.LazyBatchNorm2d()
    >>> layer(graphc.zeros(2, 3, 8, 8)).shape, layer.num_features
    (graphc.Size([2, 3, 8, 8]), 3)
    """

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """BatchNorm3d, with `num_features` from the first input.

    >>> layer = nn.LazyBatchNorm3d()
    >>> layer(graphc.zeros(2, 3, 4, 4, 4)).shape, layer.num_features
    (graphc.Size([2, 3, 4, 4, 4]), 3)
    """

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """InstanceNorm1d, with `num_features` from the first input.

    >>> layer = nn.LazyInstanceNorm1d()
    >>> layer(graphc.zeros(2, 3, 10)).shape, layer.num_features
    (graphc.Size([2, 3, 10]), 3)
    """

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """InstanceNorm2d, with `num_features` from the first input.

    >>> layer = nn.LazyInstanceNorm2d()
    >>> layer(graphc.zeros(2, 3, 8, 8)).shape, layer.num_features
    (graphc.Size([2, 3, 8, 8]), 3)
    """

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """InstanceNorm3d, with `num_features` from the first input.

    >>> layer = nn.LazyInstanceNorm3d()
    >>> layer(graphc.zeros(2, 3, 4, 4, 4)).shape, layer.num_features
    (graphc.Size([2, 3, 4, 4, 4]), 3)
    """

    cls_to_become = InstanceNorm3d
