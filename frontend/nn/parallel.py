"""A model on several devices, of which there is one here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.nn.module import Module


class DataParallel(Module):
    """Calls the module that it holds, whose parameters are found under `module.`: there are no GPUs to divide a batch among.

    >>> import graphc
    >>> model = graphc.nn.DataParallel(graphc.nn.Linear(2, 1))
    >>> list(model.state_dict())
    ['module.weight', 'module.bias']
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        del device_ids, output_device
        self.module = module
        self.device_ids: list[int] = []
        self.dim = dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
