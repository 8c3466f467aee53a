"""The thread pool that compiled code runs its parallel loops on.

The pool itself is native code, `runtime.ll`. Its workers are daemon threads of Python's that enter the native loop with
the GIL released, and need it again only to end. Nothing starts before the first region.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import operator
import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import SupportsIndex

from graphc.backends.llvm.cpus import available_cpus
from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.objects import address_of
from graphc.backends.llvm.target import Target
from graphc.errors import ArgumentError, ArgumentTypeError

_MAX_THREADS = 1024  # the state word has room for 2047 workers
_SPIN_SECONDS = 200e-6
_MEASURED_TURNS = 500
_EXIT_SECONDS = 1.0
_RAISE_AGAIN_SECONDS = 0.05
_FUTEX_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "powerpc64le": 221}

_start_lock = threading.RLock()
_threads: int | None = None
_pool: ThreadPool | None = None
_clock = 0
"""The address of the clock that workers' parts are recorded by; see `kernel_clock`."""


def parallel_for_address() -> int:
    """The address of `void parallel_for(void (*body)(void *context, int64_t chunk), void *context, int64_t chunks)`.

    It runs `body(context, chunk)` for each chunk in [0, chunks), each once, in any order, on any thread of the pool,
    and returns when all are done; with the GIL held or not. Serial on the calling thread where the pool is taken: by a
    region of another thread, or by the region that the call is made from.
    """
    global _pool  # noqa: PLW0603
    with _start_lock:
        if _pool is None:
            _pool = ThreadPool(get_num_threads())
            _pool.set_clock(_clock)
            atexit.register(_pool.stop)
        return _pool.parallel_for


def get_num_threads() -> int:
    """How many threads a parallel loop runs on, the calling one included.

    By default `GRAPHC_NUM_THREADS`, else the number of CPUs that this process may use.
    """
    global _threads  # noqa: PLW0603
    if _threads is None:
        _threads = _default_threads()
    return _threads


def set_num_threads(threads: int) -> None:
    """Run parallel loops on `threads` threads from now on, the calling one included.

    An ArgumentError (a ValueError) if `threads` is below 1 or above 1024.
    """
    global _threads  # noqa: PLW0603
    count = _checked(threads, "set_num_threads")
    with _start_lock:
        _threads = count
        if _pool is not None:
            _pool.resize(count)


def set_clock(address: int) -> None:
    """Have what workers do recorded by the clock at this address (see `kernel_clock`), or not: 0."""
    global _clock  # noqa: PLW0603
    with _start_lock:
        _clock = address
        if _pool is not None:
            _pool.set_clock(address)


class ThreadPool:
    """One instance of the native pool. `parking` is how its idle workers sleep, by default the system's best way:
    "futex", "pthread" or "windows"."""

    def __init__(self, threads: int, parking: str | None = None) -> None:
        target = Target.host()
        parking = parking or parking_for(target)
        self._start_callback = ctypes.CFUNCTYPE(None)(self._start)
        module = compile_module(
            runtime_text(target, parking),
            target,
            imports={"start_workers": address_of(self._start_callback)} | _system_functions(parking),
        )
        self.parallel_for = module.address("parallel_for")
        self._work = module.function("worker", None, ctypes.c_void_p, ctypes.c_int64)
        self._set_helpers = module.function("set_helpers", None, ctypes.c_int32)
        self._rouse = module.function("rouse_workers", None)
        self._reset = module.function("reset", None)
        self._spin = module.function("spin", None, ctypes.c_int64)
        self._set_turns = module.function("set_patience", None, ctypes.c_int32)
        self.set_clock = module.function("set_clock", None, ctypes.c_void_p)
        """Has what workers do recorded by the clock at an address, or by none: 0."""
        self._lock = threading.RLock()
        self._workers: list[_Worker] = []
        self._started = False
        self._threads = threads
        self._reset()
        self._set_helpers(threads - 1)

    def resize(self, threads: int) -> None:
        """Grow or shrink to `threads`, also while a region runs: a worker that is to go finishes its part first."""
        with self._lock:
            self._threads = threads
            self._set_helpers(threads - 1)
            if self._started:
                self._adjust()

    def stop(self) -> None:
        """End the workers, and run serially from now on."""
        with self._lock:
            workers = list(self._workers)
            self.resize(1)
        for worker in workers:
            worker.thread.join(_EXIT_SECONDS)

    def work(self, stop: ctypes.c_int32, number: int) -> None:
        """What a worker thread does until `stop` is not 0. The first one's number is 1."""
        self._work(ctypes.byref(stop), number)

    def forget_workers(self) -> None:
        """Start over in a forked process, which has none of its parent's threads."""
        self._lock = threading.RLock()
        self._workers = []
        self._started = False
        self._reset()

    def _start(self) -> None:
        """What the native pool calls at its first region, on the thread that runs it."""
        try:
            self._set_patience()
            self._adjust()
        except KeyboardInterrupt:
            # It cannot pass through the native code that called; it is raised again once that is likely to be over.
            self._adjust()
            threading.Timer(_RAISE_AGAIN_SECONDS, _interrupt_main_thread).start()

    def _set_patience(self) -> None:
        """Have idle workers spin for _SPIN_SECONDS: how long one turn takes differs tenfold between CPUs."""
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            self._spin(_MEASURED_TURNS)
            seconds.append(time.perf_counter() - begin)
        self._set_turns(int(_MEASURED_TURNS * _SPIN_SECONDS / min(seconds)))

    def _adjust(self) -> None:
        """Start or end workers until there are as many as wanted."""
        with self._lock:
            self._started = True
            wanted = self._threads - 1
            # Only threads that run are counted: the last adjustment may have been interrupted anywhere.
            self._workers = [worker for worker in self._workers if worker.thread.is_alive() and not worker.stop.value]
            for worker in self._workers[wanted:]:
                worker.stop.value = 1
            self._rouse()
            del self._workers[wanted:]
            for number in range(len(self._workers) + 1, wanted + 1):
                worker = _Worker(self, number)
                self._workers.append(worker)
                try:
                    worker.thread.start()
                except RuntimeError as error:  # the system gives no more threads
                    self._workers.pop()
                    self._set_helpers(number - 1)
                    warnings.warn(
                        f"graphc runs on {number} threads, not {self._threads}: {error}", RuntimeWarning, stacklevel=2
                    )
                    return


class _Worker:
    """A thread in the native loop, and the word that tells it to leave."""

    def __init__(self, pool: ThreadPool, number: int) -> None:
        self.stop = ctypes.c_int32(0)
        # The thread holds the pool: code that workers are in must not be unloaded.
        self.thread = threading.Thread(target=pool.work, args=(self.stop, number), name=f"graphc-worker-{number}", daemon=True)


def parking_for(target: Target) -> str:
    """How idle workers sleep on a target's operating system: "futex", "windows" or "pthread"."""
    if "linux" in target.triple and target.architecture in _FUTEX_CALL:
        return "futex"
    return "windows" if "windows" in target.triple else "pthread"


def runtime_text(target: Target, parking: str) -> str:
    """The LLVM IR of the pool for a target and a way of parking."""
    folder = Path(__file__).parent
    text = (folder / "runtime.ll").read_text() + (folder / f"parking_{parking}.ll").read_text()
    name, arguments = target.pause or ("", ())
    text = text.replace("@@pause@@", name and f"call void @{name}({', '.join(map(' '.join, arguments))})")
    return text.replace("@@futex@@", str(_FUTEX_CALL.get(target.architecture, "")))


def _system_functions(parking: str) -> dict[str, int]:
    if parking != "windows":
        return {}  # they are the C library's
    library = ctypes.CDLL("api-ms-win-core-synch-l1-2-0.dll")
    return {name: address_of(getattr(library, name)) for name in ("WaitOnAddress", "WakeByAddressAll")}


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:  # ends a sleep too, which interrupt_main does not
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _default_threads() -> int:
    text = os.environ.get("GRAPHC_NUM_THREADS")
    if not text:
        return min(available_cpus(), _MAX_THREADS)
    try:
        return _checked(int(text), "GRAPHC_NUM_THREADS")
    except ValueError:
        raise ArgumentError(
            "GRAPHC_NUM_THREADS is not a number of threads",
            expected=f"an integer from 1 to {_MAX_THREADS}",
            got=repr(text),
            hint="unset the environment variable or correct it",
        ) from None


def _checked(threads: SupportsIndex, where: str) -> int:
    try:
        count = operator.index(threads)
    except TypeError:
        raise ArgumentTypeError(
            f"{where}: not a number of threads", expected="an integer", got=type(threads).__name__
        ) from None
    if not 1 <= count <= _MAX_THREADS:
        raise ArgumentError(
            f"{where}: not a number of threads",
            expected=f"an integer from 1 to {_MAX_THREADS}",
            got=str(count),
            hint="1 runs everything on the calling thread",
        )
    return count


def _after_fork() -> None:
    global _start_lock  # noqa: PLW0603
    _start_lock = threading.RLock()
    if _pool is not None:
        _pool.forget_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
