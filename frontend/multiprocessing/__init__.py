"""The standard library's `multiprocessing`, with tensors that share memory when they are sent to another process.

A tensor put into a queue, or given to a process that is being started, arrives as a tensor on the same memory.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import *  # noqa: F403
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.multiprocessing import reductions
from graphc.frontend.multiprocessing.processes import (
    ProcessContext,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    spawn,
    start_processes,
)

_STRATEGIES = {"file_descriptor"}


def get_all_sharing_strategies() -> set[str]:
    """The ways in which memory is shared."""
    return set(_STRATEGIES)


def get_sharing_strategy() -> str:
    """The way in which memory is shared."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Choose the way in which memory is shared. There is one; "file_system", PyTorch's other one, is taken for it."""
    if new_strategy not in (*_STRATEGIES, "file_system"):
        raise ArgumentError(f"set_sharing_strategy: no strategy {new_strategy!r}", expected="'file_descriptor'")


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing, name)


__all__ = [  # noqa: PLE0604
    "ProcessContext", "ProcessException", "ProcessExitedException", "ProcessRaisedException", "get_all_sharing_strategies",
    "get_sharing_strategy", "reductions", "set_sharing_strategy", "spawn", "start_processes", *multiprocessing.__all__,
]
