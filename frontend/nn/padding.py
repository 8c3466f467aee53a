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
    """One number around [N, C, L] or [C, L]."""

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """One number around [N, C, H, W] or [C, H, W]."""

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """One number around [N, C, D, H, W] or [C, D, H, W]."""

    _dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Zeros around [N, C, L] or [C, L]."""

    _dims = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around [N, C, H, W] or [C, H, W]."""

    _dims = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around [N, C, D, H, W] or [C, D, H, W]."""

    _dims = 3


class ReflectionPad1d(_Pad):
    """[N, C, L] or [C, L] mirrored at its first and last element."""

    _dims = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] mirrored at its first and last elements."""

    _dims = 2
    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] mirrored at its first and last elements."""

    _dims = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """[N, C, L] or [C, L] with its first and last element repeated."""

    _dims = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] with its first and last elements repeated."""

    _dims = 2
    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] with its first and last elements repeated."""

    _dims = 3
    _mode = "replicate"


class CircularPad1d(_Pad):
    """[N, C, L] or [C, L] as if it repeated itself."""

    _dims = 1
    _mode = "circular"


class CircularPad2d(_Pad):
    """[N, C, H, W] or [C, H, W] as if it repeated itself."""

    _dims = 2
    _mode = "circular"


class CircularPad3d(_Pad):
    """[N, C, D, H, W] or [C, D, H, W] as if it repeated itself."""

    _dims = 3
    _mode = "circular"
