"""Calling exported native code: shared libraries by ctypes, with memory that is guarded on both sides."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from graphc.native import NativeFiles
from graphc.native.signature import Signature

CC = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")
_MARGIN = 256
_GUARD = 0xA5


class Guarded:
    """Memory of so many bytes at an address that divides by 16 and by nothing more, or that is odd."""

    def __init__(self, nbytes: int, odd: bool = False) -> None:
        self._memory = np.full(nbytes + 2 * _MARGIN + 64, _GUARD, np.uint8)
        base = self._memory.ctypes.data + _MARGIN
        self._start = _MARGIN + (-base % 64) + (1 if odd else 16)
        self.bytes = self._memory[self._start : self._start + nbytes]
        self.address = self.bytes.ctypes.data if nbytes else self._memory.ctypes.data + self._start

    def check(self) -> None:
        outside = np.concatenate([self._memory[: self._start], self._memory[self._start + self.bytes.size :]])
        assert (outside == _GUARD).all(), "something was written beside the memory that was given"


class NativeEntry:
    """A function of a shared library, called with NumPy arrays by the names in the program."""

    def __init__(self, files: NativeFiles, number: int = 0) -> None:
        self.signature: Signature = files.signatures[number]
        code = self.signature.code
        library = ctypes.CDLL(str(files.library))
        self._run, self._workspace = library[code.symbol], library[f"{code.symbol}_workspace"]
        self._workspace.restype = ctypes.c_int64
        self.weights = Guarded(files.weights.stat().st_size) if files.weights is not None else None
        if files.weights is not None and self.weights is not None:
            self.weights.bytes[:] = np.fromfile(files.weights, np.uint8)
        self.state = Guarded(files.shared.state_bytes) if self.signature.takes_state else None
        if self.state is not None:
            weights = [] if self.weights is None else [ctypes.c_void_p(self.weights.address)]
            library[f"{files.shared.prefix}_reset"](ctypes.c_void_p(self.state.address), *weights)
            self.state.check()
        self.prepared = Guarded(code.prepared, odd=True) if code.prepared else None
        if self.prepared is not None:
            workspace = Guarded(code.preparing, odd=True)
            assert library[f"{code.symbol}_prepare"](*self._last(workspace, None, fills=True)) == 0
            workspace.check()
            self.prepared.check()

    def _last(self, workspace: Guarded, threads: Any, *, fills: bool = False) -> list[Any]:
        weights, state = self.weights if self.signature.takes_weights else None, None if fills else self.state
        given = [weights, self.prepared, state, workspace]
        found: list[Any] = [ctypes.c_void_p(memory.address) for memory in given if memory is not None]
        return [*found, threads] if self.signature.threads else found

    def workspace(self, **sizes: int) -> int:
        return int(self._workspace(*(ctypes.c_int64(sizes[name]) for name, _ in self.signature.sizes)))

    def __call__(
        self, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int] | None = None, threads: Any = None
    ) -> tuple[int, list[np.ndarray]]:
        """What the function returns, and the results."""
        sizes = sizes or {}
        given = [Guarded(inputs[array.name].nbytes) for array in self.signature.inputs]
        for memory, array in zip(given, self.signature.inputs):
            memory.bytes[:] = np.ascontiguousarray(inputs[array.name]).reshape(-1).view(np.uint8)
        types = [array.type.bind(sizes) for array in self.signature.outputs]
        results = [Guarded(int(np.prod(t.shape)) * t.dtype.itemsize) for t in types]
        workspace = Guarded(max(0, self.workspace(**sizes)), odd=True)
        status = self._run(
            *(ctypes.c_void_p(memory.address) for memory in (*given, *results)),
            *(ctypes.c_int64(sizes[name]) for name, _ in self.signature.sizes),
            *self._last(workspace, threads),
        )
        for memory in (*given, *results, workspace, *filter(None, (self.weights, self.prepared, self.state))):
            memory.check()
        return status, [memory.bytes.view(t.dtype.numpy).reshape(t.shape) for memory, t in zip(results, types)]


def close(found: list[np.ndarray], expected: Any) -> None:
    """Results are what is expected: integers the same, floating-point numbers to 1e-5."""
    wanted = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    for a, b in zip(found, wanted, strict=True):
        b = np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype.kind in "biu":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-5, atol=1e-6)
