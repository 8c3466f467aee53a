"""The thread pool: every chunk once, whatever else the process does at the same time."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from graphc.backends.llvm import runtime
from graphc.backends.llvm.jit import NativeModule, compile_module, emit_object
from graphc.backends.llvm.runtime import ThreadPool, get_num_threads, parallel_for_address, set_num_threads
from graphc.backends.llvm.target import Target
from graphc.errors import ArgumentError, ArgumentTypeError

BODIES = """; bodies for the pool's tests
declare void @parallel_for(ptr, ptr, i64)
declare i64 @llvm.readcyclecounter()

; counts[chunk] += 1
define void @count(ptr %counts, i64 %chunk) {
  %p = getelementptr i64, ptr %counts, i64 %chunk
  %old = load i64, ptr %p
  %new = add i64 %old, 1
  store i64 %new, ptr %p
  ret void
}

; outer chunk i: a region of 10 more, on counts[10 i ...]
define void @nest(ptr %counts, i64 %chunk) {
  %first = mul i64 %chunk, 10
  %p = getelementptr i64, ptr %counts, i64 %first
  call void @parallel_for(ptr @count, ptr %p, i64 10)
  ret void
}

; regions, one after the other, each of `chunks` counts; returns how often a count was wrong after its region
define i64 @many(ptr %counts, i64 %regions, i64 %chunks) {
entry:
  br label %region
region:
  %r = phi i64 [ 0, %entry ], [ %r.next, %checked ]
  %wrong = phi i64 [ 0, %entry ], [ %wrong.now, %checked ]
  %more = icmp slt i64 %r, %regions
  br i1 %more, label %go, label %out
go:
  %r.next = add i64 %r, 1
  call void @parallel_for(ptr @count, ptr %counts, i64 %chunks)
  br label %check
check:
  %i = phi i64 [ 0, %go ], [ %i.next, %check ]
  %w = phi i64 [ %wrong, %go ], [ %wrong.now, %check ]
  %p = getelementptr i64, ptr %counts, i64 %i
  %v = load i64, ptr %p
  %bad = icmp ne i64 %v, %r.next
  %bad.count = zext i1 %bad to i64
  %wrong.now = add i64 %w, %bad.count
  %i.next = add i64 %i, 1
  %again = icmp slt i64 %i.next, %chunks
  br i1 %again, label %check, label %checked
checked:
  br label %region
out:
  ret i64 %wrong
}

; counts[chunk] += 1 after some 20 ms
define void @dawdle(ptr %counts, i64 %chunk) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  store volatile i64 %i, ptr getelementptr (i8, ptr @sink, i64 0)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, 30000000
  br i1 %more, label %loop, label %out
out:
  call void @count(ptr %counts, i64 %chunk)
  ret void
}
@sink = internal global i64 0
"""


class Bodies:
    """The native bodies above, bound to one pool."""

    def __init__(self, parallel_for: int) -> None:
        self.module: NativeModule = compile_module(BODIES, Target.host(), imports={"parallel_for": parallel_for})
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        self._run = ctypes.CFUNCTYPE(None, pointer, pointer, integer)(parallel_for)
        self._many = self.module.function("many", integer, pointer, integer, integer)

    def run(self, body: str, counts: np.ndarray, chunks: int) -> None:
        self._run(self.module.address(body), counts.ctypes.data, chunks)

    def many(self, regions: int, chunks: int) -> int:
        """How many counts were wrong, in all regions together."""
        counts = np.zeros(chunks, np.int64)
        return self._many(counts.ctypes.data, regions, chunks)


@pytest.fixture(scope="module")
def bodies() -> Bodies:
    return Bodies(parallel_for_address())


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("graphc-worker")]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 64, 100_003])
def test_every_chunk_runs_once(bodies: Bodies, threads: int, chunks: int) -> None:
    set_num_threads(threads)
    for regions in range(1, 20):
        counts = np.zeros(chunks + 1, np.int64)
        bodies.run("count", counts, chunks)
        assert counts[:chunks].tolist() == [1] * chunks, regions
        assert counts[chunks] == 0


@pytest.mark.parametrize("chunks", [0, -1, -(2**62)])
def test_no_chunks_do_nothing(bodies: Bodies, chunks: int) -> None:
    set_num_threads(2)
    counts = np.zeros(4, np.int64)
    bodies.run("count", counts, chunks)
    assert not counts.any()


@pytest.mark.parametrize("chunks", [2, 3, 16])
def test_two_hundred_thousand_tiny_regions(bodies: Bodies, chunks: int) -> None:
    set_num_threads(3)
    assert bodies.many(200_000, chunks) == 0


def test_regions_that_find_the_workers_asleep(bodies: Bodies) -> None:
    set_num_threads(4)
    for _ in range(50):
        assert bodies.many(3, 8) == 0
        time.sleep(0.002)


def test_several_threads_run_their_chunks_at_once() -> None:
    pool = ThreadPool(3)
    try:
        seen: set[int] = set()
        together = threading.Barrier(3)

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        def body(context: int, chunk: int) -> None:
            seen.add(threading.get_ident())
            together.wait(timeout=20)  # passes only if three threads are inside at the same time

        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(pool.parallel_for)
        run(ctypes.cast(body, ctypes.c_void_p), None, 3)
        assert len(seen) == 3
        assert not together.broken
    finally:
        pool.stop()


def test_each_thread_begins_with_chunks_of_its_own() -> None:
    pool = ThreadPool(2)
    try:
        for _ in range(20):
            order: list[int] = []

            @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
            def body(context: int, chunk: int) -> None:
                order.append(chunk)  # noqa: B023
                wait_until(lambda: len(order) > 1)  # noqa: B023  # so that the other thread begins, too

            run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(pool.parallel_for)
            run(ctypes.cast(body, ctypes.c_void_p), None, 9)
            assert set(order[:2]) == {0, 4}
            assert sorted(order) == list(range(9))
    finally:
        pool.stop()


def test_a_region_inside_a_region_is_serial_and_complete(bodies: Bodies) -> None:
    set_num_threads(3)
    for _ in range(200):
        counts = np.zeros(70, np.int64)
        bodies.run("nest", counts, 7)
        assert counts.tolist() == [1] * 70


def test_several_python_threads_at_once(bodies: Bodies) -> None:
    set_num_threads(3)
    wrong: list[int] = []
    callers = [threading.Thread(target=lambda: wrong.append(bodies.many(20_000, 5))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == [0, 0, 0, 0]


def test_the_number_of_threads_changes_between_regions(bodies: Bodies) -> None:
    for threads in [1, 5, 2, 8, 1, 3, 3, 1, 2]:
        set_num_threads(threads)
        assert get_num_threads() == threads
        assert bodies.many(200, 9) == 0
        wait_until(lambda threads=threads: len(workers()) == threads - 1)


def test_the_number_of_threads_changes_while_regions_run(bodies: Bodies) -> None:
    wrong: list[int] = []
    caller = threading.Thread(target=lambda: wrong.append(bodies.many(150_000, 6)))
    set_num_threads(2)
    caller.start()
    sizes = 0
    while caller.is_alive():
        set_num_threads(1 + sizes % 5)
        sizes += 1
    caller.join()
    assert wrong == [0]
    assert sizes > 1
    set_num_threads(1)
    wait_until(lambda: not workers())


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**30])
def test_a_number_of_threads_out_of_range_is_refused(threads: int) -> None:
    with pytest.raises(ArgumentError, match="from 1 to 1024") as caught:
        set_num_threads(threads)
    assert isinstance(caught.value, ValueError)
    assert str(threads) in str(caught.value)


def test_a_number_of_threads_must_be_an_integer() -> None:
    with pytest.raises(ArgumentTypeError, match="float"):
        set_num_threads(2.0)  # type: ignore[arg-type]
    set_num_threads(np.int64(2))  # type: ignore[arg-type]
    assert get_num_threads() == 2


def test_where_no_thread_can_be_started_regions_are_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = ThreadPool(4)
    bodies = Bodies(pool.parallel_for)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.warns(RuntimeWarning, match="runs on 1 threads, not 4"):
        assert bodies.many(1, 5) == 0
    assert bodies.many(100, 5) == 0
    pool.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX threads")
def test_parking_with_posix_threads() -> None:
    pool = ThreadPool(4, parking="pthread")
    try:
        bodies = Bodies(pool.parallel_for)
        assert bodies.many(20_000, 6) == 0
        for _ in range(50):  # long enough to fall asleep in between
            assert bodies.many(3, 8) == 0
            time.sleep(0.002)
        pool.resize(2)
        assert bodies.many(100, 8) == 0
    finally:
        pool.stop()


def test_a_stopped_pool_has_no_workers_and_runs_serially() -> None:
    before = set(workers())
    pool = ThreadPool(5)
    bodies = Bodies(pool.parallel_for)
    assert bodies.many(100, 8) == 0
    assert len(set(workers()) - before) == 4
    pool.stop()
    assert not set(workers()) - before
    assert bodies.many(100, 8) == 0
    assert not set(workers()) - before


@pytest.mark.skipif(sys.platform == "win32", reason="stands in for the functions that Windows has")
def test_parking_on_windows_with_its_functions_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[int, int]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32)
    def wait_on_address(state: int, expected: int, size: int, milliseconds: int) -> int:
        waits.append((size, milliseconds))
        time.sleep(0.0005)  # an early return is allowed
        return 1

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def wake_by_address_all(state: int) -> None:
        pass

    @ctypes.CFUNCTYPE(ctypes.c_int32)
    def switch_to_thread() -> int:
        return 0

    functions = {
        "WaitOnAddress": wait_on_address,
        "WakeByAddressAll": wake_by_address_all,
        "SwitchToThread": switch_to_thread,
    }
    addresses = {name: ctypes.cast(function, ctypes.c_void_p).value for name, function in functions.items()}
    monkeypatch.setattr(runtime, "_system_functions", lambda parking: addresses)
    pool = ThreadPool(2, parking="windows")
    bodies = Bodies(pool.parallel_for)
    for _ in range(20):
        assert bodies.many(3, 8) == 0
        time.sleep(0.002)
    pool.stop()
    assert waits
    assert set(waits) == {(4, -1)}


@pytest.mark.parametrize(
    ("triple", "parking", "magic"),
    [
        ("aarch64-unknown-linux-gnu", "futex", b"\x7fELF"),
        ("x86_64-unknown-linux-gnu", "futex", b"\x7fELF"),
        ("riscv64-unknown-linux-gnu", "futex", b"\x7fELF"),
        ("arm64-apple-darwin23", "pthread", b"\xcf\xfa\xed\xfe"),
        ("x86_64-unknown-freebsd", "pthread", b"\x7fELF"),
        ("x86_64-pc-windows-msvc", "windows", b"\x64\x86"),
    ],
)
def test_the_pool_compiles_for_other_machines(triple: str, parking: str, magic: bytes) -> None:
    target = Target.named(triple)
    assert runtime.parking_for(target) == parking
    text = runtime.runtime_text(target, parking)
    assert "@@" not in text.replace("@@...@@", "").replace("@@futex@@ is", "")
    assert emit_object(text, target).startswith(magic)


# What needs a process of its own.

SETUP = """
import ctypes, os, signal, sys, threading, time
import numpy as np
sys.path.insert(0, {tests!r})
from test_pool import Bodies, workers
from graphc.backends.llvm.runtime import get_num_threads, parallel_for_address, set_num_threads
"""


def run_script(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SETUP.format(tests=os.path.dirname(__file__)) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )


def expect_output(expected: str, script: str, **environment: str) -> None:
    done = run_script(script, **environment)
    assert (done.stdout.split(), done.returncode) == (expected.split(), 0), done.stderr
    assert "Error" not in done.stderr


def test_nothing_starts_before_the_first_region() -> None:
    expect_output(
        "0 0 2",
        """
        print(len(workers()))
        bodies = Bodies(parallel_for_address())
        print(len(workers()))
        bodies.many(1, 2)
        print(len(workers()))
        """,
        GRAPHC_NUM_THREADS="3",
    )


def test_the_environment_sets_the_number_of_threads() -> None:
    expect_output("5", "print(get_num_threads())", GRAPHC_NUM_THREADS="5")


@pytest.mark.parametrize("value", ["0", "-3", "two", "1.5", "5000"])
def test_the_environment_is_checked(value: str) -> None:
    done = run_script("get_num_threads()", GRAPHC_NUM_THREADS=value)
    assert done.returncode == 1
    assert "ArgumentError: GRAPHC_NUM_THREADS" in done.stderr
    assert value in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no CPU affinity on this system")
def test_the_default_is_the_cpus_that_the_process_may_use() -> None:
    expect_output(
        "1",
        """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(get_num_threads())
        """,
        GRAPHC_NUM_THREADS="",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_makes_workers_of_its_own() -> None:
    expect_output(
        "0 0 2 2",
        """
        bodies = Bodies(parallel_for_address())
        assert bodies.many(1000, 4) == 0
        child = os.fork()
        if child == 0:
            before = len(workers())
            wrong = bodies.many(1000, 4)
            print(before, wrong, len(workers()), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert bodies.many(1000, 4) == 0
        print(len(workers()))
        """,
        GRAPHC_NUM_THREADS="3",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_while_a_region_is_running() -> None:
    expect_output(
        "0 done",
        """
        bodies = Bodies(parallel_for_address())
        going = True
        def run():
            while going:
                assert bodies.many(100, 4) == 0
        caller = threading.Thread(target=run)
        caller.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(bodies.many(200, 4) != 0 or len(workers()) != 2)
            assert os.waitpid(child, 0)[1] == 0
            time.sleep(0.001)
        going = False
        caller.join()
        print(bodies.many(100, 4), "done")
        """,
        GRAPHC_NUM_THREADS="3",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_that_ends_like_any_other() -> None:
    expect_output(
        "0 0",
        """
        bodies = Bodies(parallel_for_address())
        assert bodies.many(1000, 4) == 0
        child = os.fork()
        assert bodies.many(1000, 4) == 0
        if child:
            os.waitpid(child, 0)
        print(0)
        """,
        GRAPHC_NUM_THREADS="3",
    )


@pytest.mark.parametrize(
    "ending",
    ["pass", "sys.exit(0)", "time.sleep(0.01)", "threading.Thread(target=lambda: bodies.many(50_000, 4)).start()"],
)
def test_exit_while_the_pool_is_hot(ending: str) -> None:
    expect_output(
        "0",
        f"""
        bodies = Bodies(parallel_for_address())
        print(bodies.many(10_000, 4), flush=True)
        {ending}
        """,
        GRAPHC_NUM_THREADS="3",
    )


def test_exit_while_a_daemon_thread_runs_regions() -> None:
    expect_output(
        "ready",
        """
        bodies = Bodies(parallel_for_address())
        def run():
            while True:
                bodies.many(1000, 4)
        threading.Thread(target=run, daemon=True).start()
        time.sleep(0.05)
        print("ready", flush=True)
        """,
        GRAPHC_NUM_THREADS="3",
    )


def test_regions_in_exit_handlers_still_run() -> None:
    expect_output(
        "0 0",
        """
        import atexit
        bodies = None
        atexit.register(lambda: print(bodies.many(100, 4)))  # registered before the pool's own, so it runs after it
        bodies = Bodies(parallel_for_address())
        print(bodies.many(100, 4))
        """,
        GRAPHC_NUM_THREADS="3",
    )


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_an_interrupt_waits_for_the_region_to_end() -> None:
    expect_output(
        "interrupted [1,1,1,1,1,1] 0",
        """
        bodies = Bodies(parallel_for_address())
        assert bodies.many(10, 4) == 0
        counts = np.zeros(6, np.int64)
        threading.Timer(0.01, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            bodies.run("dawdle", counts, 6)
            time.sleep(10)
        except KeyboardInterrupt:
            print("interrupted", str(counts.tolist()).replace(" ", ""), bodies.many(1000, 4))
        """,
        GRAPHC_NUM_THREADS="2",
    )


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_an_interrupt_while_the_workers_start_is_not_lost() -> None:
    expect_output(
        "interrupted 0 2",
        """
        from graphc.backends.llvm.runtime import ThreadPool
        measure = ThreadPool._set_patience
        def interrupted(pool):
            measure(pool)
            raise KeyboardInterrupt
        ThreadPool._set_patience = interrupted
        bodies = Bodies(parallel_for_address())
        try:
            wrong = bodies.many(10, 4)
            time.sleep(10)
        except KeyboardInterrupt:
            print("interrupted", wrong, len(workers()))
        """,
        GRAPHC_NUM_THREADS="3",
    )
