"""Compiling without Python's search for garbage in between, and tracing with little of it; giving back what that has taken of
memory.

A compilation makes hundreds of thousands of objects that stay until it is over, and each few hundred of them have Python go
through all objects of the process, for cycles that nobody needs any more: that took two thirds of the time of the passes.
A trace makes as many; but it runs the user's code, for who knows how long, so there the search only comes less often.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SELDOM = 50_000
"""New objects after which garbage is sought while a function is traced. Python's own number is 700, or 2000."""


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0
        """How many blocks of all threads are being run."""
        self.enabled = False
        """Whether garbage was collected before the first of them."""
        self.traces = 0
        """How many blocks in which it is sought seldom."""
        self.threshold = gc.get_threshold()
        """How often it was sought before the first of them."""


_state = _State()


@contextmanager
def kept_for_now() -> Iterator[None]:
    """Put off the collection of garbage, in the whole process, until the block is over.

    >>> import gc
    >>> with kept_for_now():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    state = _state
    with state.lock:
        if state.blocks == 0:
            state.enabled = gc.isenabled()
            gc.disable()
        state.blocks += 1
    try:
        yield
    finally:
        with state.lock:
            state.blocks -= 1
            if state.blocks == 0 and state.enabled:
                gc.enable()


_releases: list[Callable[[], object]] = []


def when_giving_back(release: Callable[[], object]) -> None:
    """Have a function called that frees what is kept only to be used again."""
    _releases.append(release)


def give_back() -> None:
    """Free what is kept to be used again, and have the C library return memory that nobody uses to the system, where it can:
    glibc keeps what is freed in between what is not. Takes about a millisecond."""
    for release in _releases:
        release()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Any:
    import ctypes

    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


@contextmanager
def sought_seldom() -> Iterator[None]:
    """Have garbage sought after many more objects than usual, in the whole process, until the block is over.

    >>> import gc
    >>> with sought_seldom():
    ...     gc.get_threshold()[0]
    50000
    """
    state = _state
    with state.lock:
        if state.traces == 0:
            state.threshold = gc.get_threshold()
            if 0 < state.threshold[0] < _SELDOM:
                gc.set_threshold(_SELDOM, *state.threshold[1:])
        state.traces += 1
    try:
        yield
    finally:
        with state.lock:
            state.traces -= 1
            if state.traces == 0:
                _seek_as_before(state)


def _seek_as_before(state: _State) -> None:
    """Undo it, unless the user's code has said by itself how often."""
    if gc.get_threshold() == (_SELDOM, *state.threshold[1:]):
        gc.set_threshold(*state.threshold)


def _forget_blocks() -> None:
    """In a forked child, where the threads that were in them do not exist."""
    global _state
    before, _state = _state, _State()
    if before.blocks and before.enabled:
        gc.enable()
    if before.traces:
        _seek_as_before(before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_blocks)
