"""Padding layers."""

from __future__ import annotations

from typing import ClassVar

from graphc.errors import ArgumentError
from graphc.frontend.nn import functional as F
from graphc.frontend.nn.module import Module
from graphc.frontend.spatial import Ints
from graphc.frontend.tensor import Tensor


class _Pad(Module):
    """Elements put before and after: (left, right, top, bottom, ...), or one number for all sides."""

    _dims: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self._dims) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self._dims:
            raise ArgumentError(f"{type(self).__name__}: {len(self.padding)} numbers of padding",
                                expected=f"one, or {2 * self._dims}")

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(Module):
    _dims: ClassVar[int]

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self._dims) if isinstance(padding, int) else tuple(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """One number around [N, C, L] or [C, L].

    >>> nn.ConstantPad1d(1, 9.0)(graphc.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[9., 1., 2., 3., 9.]]])
    """

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """One number around [N, C, H, W] or [C, H, W].

    >>> nn.ConstantPad2d((1, 0, 0, 1), 9.0)(graphc.ones(1, 1, 1, 2))
    tensor([[[[9., 1., 1.],
              [9., 9., 9.]]]])
    """

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """One number around [N, C, D, H, W] or [C, D, H, W].

    >>> nn.ConstantPad3d(1, 9.0)(graphc.ones(1, 1, 2, 2, 2)).shape
    graphc.Size([1, 1, 4, 4, 4])
    """

    _dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Zeros around [N, C, L] or [C, L].

    >>> nn.ZeroPad1d((2, 0))(graphc.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[0., 0., 1., 2., 3.]]])
    """

    _dims = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around [N, C, H, W] or [C, H, W].

    >>> nn.ZeroPad2d((1, 0, 0, 1))(graphc.ones(1, 1, 1, 2))
    tensor([[[[0., 1., 1.],
              [0., 0., 0.]]]])
    """

    _dims = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around [N, C, D, H, W] or [C, D, H, W].

    >>> nn.ZeroPad3d(1)(graphc.ones(1, 1, 2, 2, 2)).shape
    graphc.Size([1, 1, 4, 4, 4])
    """

    _dims = 3


class ReflectionPad1d(_Pad):
    """[N, C, L] or [C, L] mirrored at its first and last element.

    >>> nn.ReflectionPad1d(2)(graphc.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 2., 1., 2., 3., 2., 1.]]])
    """

    _dims = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] mirrored at its first and last elements.

    >>> nn.ReflectionPad2d(1)(graphc.ones(1, 1, 3, 3)).shape
    graphc.Size([1, 1, 5, 5])
    """

    _dims = 2
    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] mirrored at its first and last elements.

    >>> nn.ReflectionPad3d(1)(graphc.ones(1, 1, 3, 3, 3)).shape
    graphc.Size([1, 1, 5, 5, 5])
    """

    _dims = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """[N, C, L] or [C, L] with its first and last element repeated.

    >>> nn.ReplicationPad1d(2)(graphc.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1., 1., 1., 2., 3., 3., 3.]]])
    """

    _dims = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] with its first and last elements repeated.

    >>> nn.ReplicationPad2d(1)(graphc.ones(1, 1, 3, 3)).shape
    graphc.Size([1, 1, 5, 5])
    """

    _dims = 2
    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] with its first and last elements repeated.

    >>> nn.ReplicationPad3d(1)(graphc.ones(1, 1, 3, 3, 3)).shape
    graphc.Size([1, 1, 5, 5, 5])
    """

    _dims = 3
    _mode = "replicate"


class CircularPad1d(_Pad):
    """[N, C, L] or [C, L] as if it repeated itself.

    >>> nn.CircularPad1d(2)(graphc.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[2., 3., 1., 2., 3., 1., 2.]]])
    """

    _dims = 1
    _mode = "circular"


class CircularPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] as if it repeated itself.

    >>> nn.CircularPad2d(1)(graphc.ones(1, 1, 3, 3)).shape
    graphc.Size([1, 1, 5, 5])
    """

    _dims = 2
    _mode = "circular"


class CircularPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] as if it repeated itself.

    >>> nn.CircularPad3d(1)(graphc.ones(1, 1, 3, 3, 3)).shape
    graphc.Size([1, 1, 5, 5, 5])
    """

    _dims = 3
    _mode = "circular"
