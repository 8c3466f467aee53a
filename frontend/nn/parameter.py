"""Tensors that belong to modules: parameters, which are trained, and buffers, which are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend.creation import zeros
from graphc.frontend.printing import tensor_text
from graphc.frontend.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module registers when it is assigned to an attribute, and that requires grad by default.

    >>> layer = nn.Module()
    >>> layer.scale = nn.Parameter(graphc.ones(2))
    >>> [name for name, _ in layer.named_parameters()]
    ['scale']
    """

    __slots__ = ()
    _is_copied_alone = True  # as in PyTorch

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        self._node = self._meta = None
        source = zeros(0) if data is None else data
        self._data: Any = source._data
        if source._meta is not None and source._meta.version is not None:
            self._state().version = source._meta.version
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{tensor_text(self)}"


class Buffer(Tensor):
    """A tensor that a module registers as a buffer when it is assigned to an attribute.

    >>> layer = nn.Module()
    >>> layer.offset = nn.Buffer(graphc.ones(2))
    >>> list(layer.state_dict())
    ['offset']
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        self._node = self._meta = None
        self._data: Any = np.zeros(0, np.float32) if data is None else data._data
        if data is not None and data._meta is not None and data._meta.version is not None:
            self._state().version = data._meta.version
        self.persistent = persistent
