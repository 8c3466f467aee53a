"""When kernels of compiled programs begin and end, for a profile.

Behind the key of its ops a program finds one more word among its constants: 0, or the address of its *clock*, four words:
the functions `now` and `record`, the program's key, and the function `thread`. So what nobody profiles loads one word more a
call, and looks at it once. The thread pool has a clock of the key 0, by which workers record what they have done of a region,
with the thread that opened it as its number.

Records are written by native code, on any thread and without a lock, to memory for the longest profile that there may be.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.objects import address_of
from graphc.backends.llvm.runtime import set_clock
from graphc.backends.llvm.target import Target
from graphc.errors import ProfilerError

if TYPE_CHECKING:
    from graphc.backends.llvm.backend import LLVMExecutable
    from graphc.kernel_info import KernelInfo, KernelRun

MOST_RECORDS = 1 << 20
"""Runs of kernels in one profile; those that come then are counted, and not kept."""
_RECORD = np.dtype([("key", "i8"), ("number", "i8"), ("start", "i8"), ("stop", "i8"), ("thread", "i8")])
_HEADER = 2
"""Words before the records: how many there are room for, and how many came."""
_NOW, _WRITE = range(2)
"""Words of a clock."""
_POOL = 0

_TEXT = """
define void @record(ptr %clock, i64 %number, i64 %start) nounwind {
  %stop = call i64 @now()
  %thread = call i64 @thread()
  %key.place = getelementptr i64, ptr %clock, i64 2
  %key = load i64, ptr %key.place
  %log = load ptr, ptr @log
  %count.place = getelementptr i64, ptr %log, i64 1
  %count = atomicrmw add ptr %count.place, i64 1 monotonic
  %room = load i64, ptr %log
  %fits = icmp ult i64 %count, %room
  br i1 %fits, label %write, label %full
write:
  %records = getelementptr i64, ptr %log, i64 2
  %place = getelementptr [5 x i64], ptr %records, i64 %count
  store i64 %key, ptr %place
  %number.place = getelementptr i64, ptr %place, i64 1
  store i64 %number, ptr %number.place
  %start.place = getelementptr i64, ptr %place, i64 2
  store i64 %start, ptr %start.place
  %thread.place = getelementptr i64, ptr %place, i64 4
  store i64 %thread, ptr %thread.place
  %stop.place = getelementptr i64, ptr %place, i64 3
  store i64 %stop, ptr %stop.place
  br label %full
full:
  ret void
}

@log = global ptr null
"""
_POSIX = """
declare i32 @clock_gettime(i32, ptr)
declare i64 @pthread_self()

define i64 @now() nounwind {
  %time = alloca [2 x i64]
  %status = call i32 @clock_gettime(i32 @@clock@@, ptr %time)
  %seconds = load i64, ptr %time
  %rest.place = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.place
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}

define i64 @thread() nounwind {
  %thread = call i64 @pthread_self()
  ret i64 %thread
}
"""
_WINDOWS = """
declare i32 @QueryPerformanceCounter(ptr)
declare i32 @GetCurrentThreadId()

define i64 @now() nounwind {
  %time = alloca i64
  %status = call i32 @QueryPerformanceCounter(ptr %time)
  %ticks = load i64, ptr %time
  ret i64 %ticks
}

define i64 @thread() nounwind {
  %thread = call i32 @GetCurrentThreadId()
  %wide = zext i32 %thread to i64
  ret i64 %wide
}
"""
_MONOTONIC = "8" if sys.platform == "darwin" else "1"
"""The clock that `time.perf_counter` reads: CLOCK_UPTIME_RAW, or CLOCK_MONOTONIC."""


@contextmanager
def timed(f: Function, clock: str | None, number: str) -> Iterator[None]:
    """Have the code that is rendered inside, a kernel's call, recorded as this number by the clock at an address, if any."""
    if clock is None:
        yield
        return
    start = f.call("i64", _function(f, clock, _NOW))
    yield
    f.call("void", _function(f, clock, _WRITE), ("ptr", clock), ("i64", number), ("i64", start))


def _function(f: Function, clock: str, word: int) -> str:
    return f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr {clock}, i64 {word}')}")


class Clock:
    """Four words for native code. They last as long as what may look at them."""

    def __init__(self, key: int) -> None:
        now, record, thread = map(_module().address, ("now", "record", "thread"))
        self._words = (ctypes.c_int64 * 4)(now, record, key, thread)
        self.address = ctypes.addressof(self._words)


class _Log:
    """The memory that records are written to: always the same, as threads may come late."""

    def __init__(self) -> None:
        self.words = np.zeros(_HEADER + MOST_RECORDS * _RECORD.itemsize // 8, np.int64)
        ctypes.c_void_p.from_address(_module().address("log")).value = self.words.ctypes.data

    def clear(self, most: int) -> None:
        """Have room for so many records."""
        self.words[_HEADER:][: self.words[1] * _RECORD.itemsize // 8] = 0
        self.words[:_HEADER] = most, 0

    def records(self) -> np.ndarray:
        """Those that there was room for."""
        kept = min(self.words[:_HEADER])
        return self.words[_HEADER:].view(_RECORD)[:kept].copy()

    @property
    def lost(self) -> int:
        """How many there was no room for."""
        return max(0, int(self.words[1] - self.words[0]))


_lock = threading.Lock()
_programs: weakref.WeakSet[LLVMExecutable] = weakref.WeakSet()
"""All that there are."""
_recorded: dict[int, LLVMExecutable] | None = None
"""Those that are being recorded, by their keys. They stay, so that it can be said afterwards what their kernels were."""


def register(code: LLVMExecutable) -> None:
    """Take note of a new program."""
    with _lock:
        _programs.add(code)
        if _recorded is not None:
            _recorded[code.key] = code
            code.record(True)


def start(most: int = MOST_RECORDS) -> None:
    """Record the kernels of all programs from now on, on all threads. ProfilerError where that is being done."""
    global _recorded  # noqa: PLW0603
    with _lock:
        if _recorded is not None:
            raise ProfilerError("kernels are being recorded already", hint="end the other profile first")
        _recorded = {code.key: code for code in _programs}
        _log().clear(most)
        set_clock(_pool_clock().address)
        for code in _recorded.values():
            code.record(True)


def stop() -> tuple[list[KernelRun], int]:
    """Record no more. Returns the runs by their beginning, and how many there was no room for."""
    global _recorded
    with _lock:
        assert _recorded is not None, "start() comes before"
        programs, _recorded = _recorded, None
        set_clock(0)
        for code in programs.values():
            code.record(False)
        records, lost = _log().records(), _log().lost
    return _runs(records, programs), lost


def _runs(records: np.ndarray, programs: Mapping[int, LLVMExecutable]) -> list[KernelRun]:
    from graphc.kernel_info import KernelRun, describe, describe_preparation, inner_kernels, packing

    order = np.argsort(records["start"], kind="stable")
    known: dict[int, tuple[list[KernelInfo], list[KernelInfo], KernelInfo]] = {}
    runs: list[KernelRun] = []
    latest: dict[int, KernelRun] = {}
    for key, number, begin, end, thread in records[order].tolist():
        if not end:  # another thread is still writing it
            continue
        times = _nanoseconds(begin, end)
        if key == _POOL:
            whole = latest.get(number)
            if whole is not None and begin <= whole.stop:
                runs.append(KernelRun(whole.kernel, *times, thread, part=True))
            continue
        if key not in known:
            program = programs[key].program
            known[key] = [*describe(program), *inner_kernels(program)], describe_preparation(program), packing(program)
        always, once, packed = known[key]
        if number < 0:
            kernel = once[-1 - number] if -1 - number < len(once) else packed
        else:
            kernel = always[number]
        latest[thread] = run = KernelRun(kernel, *times, thread)
        runs.append(run)
    return runs


def _nanoseconds(start: int, stop: int) -> tuple[int, int]:
    """Readings of the clock as those of `time.perf_counter_ns`."""
    if sys.platform != "win32":
        return start, stop
    frequency = ctypes.c_int64()
    ctypes.windll.kernel32.QueryPerformanceFrequency(ctypes.byref(frequency))
    return start * 1_000_000_000 // frequency.value, stop * 1_000_000_000 // frequency.value


@functools.cache
def _log() -> _Log:
    return _Log()


@functools.cache
def _pool_clock() -> Clock:
    return Clock(_POOL)


@functools.cache
def _module() -> NativeModule:
    if sys.platform == "win32":
        library = ctypes.windll.kernel32
        imports = {name: address_of(getattr(library, name)) for name in ("QueryPerformanceCounter", "GetCurrentThreadId")}
        return compile_module(_WINDOWS + _TEXT, Target.host(), imports=imports, name="kernel_clock")
    return compile_module(_POSIX.replace("@@clock@@", _MONOTONIC) + _TEXT, Target.host(), name="kernel_clock")
