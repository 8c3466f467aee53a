"""Making modules whose parameters will be overwritten."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend.nn.module import Module
from graphc.frontend.random import fork_rng


def skip_init(module_cls: Callable[..., Module], *args: Any, **kwargs: Any) -> Any:
    """The module `module_cls(*args, **kwargs)`, with parameters that mean nothing; no random numbers are used up.

    For modules whose parameters come from somewhere else, such as a file.

    ArgumentTypeError for what is no class of modules, GraphcError for one that takes no `device`.

    >>> nn.utils.skip_init(nn.Linear, 3, 5).weight.shape
    graphc.Size([5, 3])
    """
    if not isinstance(module_cls, type) or not issubclass(module_cls, Module):
        raise ArgumentTypeError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise GraphcError("Module must support a 'device' arg to skip initialization", got=module_cls.__name__)
    with fork_rng():
        return module_cls(*args, **kwargs)
