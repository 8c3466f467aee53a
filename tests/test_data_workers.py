"""Loaders with worker processes: order, seeds, shared memory, errors, and what happens when processes die."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.data import DataLoader, IterableDataset, TensorDataset, get_worker_info
from graphc.frontend.data import pool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers pass files between processes")


class Squares:
    """Squares, and the process that made each."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[graphc.Tensor, int]:
        return graphc.tensor([i, i * i]), os.getpid()


class Stream(IterableDataset):
    """0, 1, ... up to n, every worker its part."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        return iter(range(self.n)) if info is None else iter(range(info.id, self.n, info.num_workers))


class Drawn:
    """Random numbers of three kinds, and the worker's seed."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[float, float, float, int]:
        info = get_worker_info()
        assert info is not None
        return random.random(), float(np.random.random()), graphc.rand(1).item(), info.seed


class Failing:
    """Sample 3 raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> int:
        if i == 3:
            raise self.error
        return i


class Dying:
    """Sample 2 ends the worker."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> int:
        if i == 2:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)
        return i


class Slow:
    """Samples that take a while, and note that they were fetched."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> int:
        time.sleep(self.seconds)
        return i


class Opposite(Exception):
    """An exception that wants two arguments."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} against {b}")


def ages(samples: list[object]) -> object:
    return {"text": [f"sample {s}" for s in samples], "array": np.arange(3), "none": None}


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_same_batches_from_other_processes(method: str) -> None:
    loader = DataLoader(Squares(10), batch_size=3, num_workers=2, multiprocessing_context=method)
    pids: set[int] = set()
    batches = list(loader)
    for (x, there), (expected, here) in zip(batches, DataLoader(Squares(10), batch_size=3), strict=True):
        assert x.tolist() == expected.tolist() and x.dtype is graphc.int64 and set(here.tolist()) == {os.getpid()}
        pids |= set(there.tolist())
    assert len(pids) == 2 and os.getpid() not in pids and not pids & set(children())


def test_batches_come_in_shared_memory_and_can_be_changed() -> None:
    for x, pid in DataLoader(Squares(4), batch_size=2, num_workers=1):
        assert x.is_shared() and pid.is_shared()
        assert x.add_(1)[0, 0].item() in (1, 3)


def test_what_is_no_tensor_comes_too() -> None:
    batch = next(iter(DataLoader(range(4), batch_size=2, num_workers=1, collate_fn=ages)))
    assert batch["text"] == ["sample 0", "sample 1"] and batch["array"].tolist() == [0, 1, 2] and batch["none"] is None
    large = np.random.default_rng(0).random(300_000)
    (got,) = DataLoader([large], batch_size=None, num_workers=1)
    assert got.numpy().tobytes() == large.tobytes()
    kinds = [graphc.ones(2, dtype=d) for d in (graphc.bfloat16, graphc.bool, graphc.float16)]
    for sent, received in zip(kinds, DataLoader(kinds, batch_size=None, num_workers=1), strict=True):
        assert received.dtype is sent.dtype and received.tolist() == sent.tolist()
    empty, scalar = DataLoader([graphc.zeros(0, 3), graphc.tensor(2.5)], batch_size=None, num_workers=1)
    assert empty.shape == (0, 3) and scalar.item() == 2.5 and scalar.shape == ()


def test_the_order_does_not_depend_on_the_workers() -> None:
    def order(workers: int) -> list[list[int]]:
        generator = graphc.Generator().manual_seed(2)
        loader = DataLoader(TensorDataset(graphc.arange(20)), 3, shuffle=True, num_workers=workers, generator=generator)
        return [x.tolist() for _ in range(2) for (x,) in loader]

    assert order(0) == order(1) == order(2)


def test_streams_are_shared_among_workers() -> None:
    assert [b.tolist() for b in DataLoader(Stream(7), batch_size=2, num_workers=2)] == [[0, 2], [1, 3], [4, 6], [5]]
    # a worker that runs dry early leaves the rest to the others
    assert sorted(x.item() for x in DataLoader(Stream(1), num_workers=2)) == [0]
    assert list(DataLoader(Stream(0), num_workers=2)) == []
    assert sorted(DataLoader(Stream(5), batch_size=None, num_workers=2)) == [0, 1, 2, 3, 4]


def test_workers_are_seeded_each_by_its_own() -> None:
    def drawn() -> list[list[float]]:
        generator = graphc.Generator().manual_seed(7)
        return [[part.item() for part in batch] for batch in DataLoader(Drawn(), num_workers=2, generator=generator)]

    first = drawn()
    assert drawn() == first
    for column in zip(*first[:2]):
        assert column[0] != column[1]
    assert first[1][3] == first[0][3] + 1


def test_worker_info_and_initialization(tmp_path: Path) -> None:
    def begin(worker: int) -> None:
        info = get_worker_info()
        assert info is not None and (info.id, info.num_workers) == (worker, 2)
        info.dataset.n = 2 + worker
        (tmp_path / str(worker)).touch()

    assert get_worker_info() is None
    loader = DataLoader(Squares(4), num_workers=2, worker_init_fn=begin, multiprocessing_context="fork")
    assert len(list(loader)) == 4 and sorted(os.listdir(tmp_path)) == ["0", "1"]
    assert get_worker_info() is None


def test_workers_that_stay() -> None:
    loader = DataLoader(Squares(6), batch_size=2, num_workers=2, persistent_workers=True)
    pids = [{p for _, pid in loader for p in pid.tolist()} for _ in range(2)]
    assert pids[0] == pids[1] and len(pids[0]) == 2 and pids[0] <= set(children())
    next(iter(loader))  # a pass that is left in the middle
    assert [x[:, 0].tolist() for x, _ in loader] == [[0, 1], [2, 3], [4, 5]]
    stream = DataLoader(Stream(5), num_workers=2, persistent_workers=True)
    assert [sorted(x.item() for x in stream) for _ in range(2)] == [[0, 1, 2, 3, 4]] * 2
    del loader, stream
    gc.collect()
    assert not pids[0] & set(children())


def test_batches_as_they_are_ready() -> None:
    class FirstIsSlow(Squares):
        def __getitem__(self, i: int) -> tuple[graphc.Tensor, int]:
            if i == 0:
                time.sleep(0.5)
            return super().__getitem__(i)

    loader = DataLoader(FirstIsSlow(8), num_workers=2, in_order=False, multiprocessing_context="fork")
    numbers = [x[0, 0].item() for x, _ in loader]
    assert sorted(numbers) == list(range(8)) and numbers[0] != 0


@pytest.mark.parametrize("error, kind, message", [
    (KeyError("no such key"), KeyError, r"(?s)Caught KeyError in DataLoader worker process \d.*Traceback.*no such key"),
    (ValueError("a bad value"), ValueError, r"(?s)worker process.*__getitem__.*a bad value"),
    (Opposite("one", "other"), RuntimeError, r"(?s)Caught Opposite in DataLoader worker.*one against other"),
])  # fmt: skip
def test_errors_are_raised_again(error: Exception, kind: type[Exception], message: str) -> None:
    iterator = iter(DataLoader(Failing(error), batch_size=2, num_workers=2))
    assert next(iterator).tolist() == [0, 1]
    with pytest.raises(kind, match=message):
        next(iterator)
    assert next(iterator).tolist() == [4, 5]


def test_errors_in_the_beginning_and_in_sending() -> None:
    def refuse(worker: int) -> None:
        raise ValueError("not today")

    class Local(Exception):
        pass

    def local(samples: list[int]) -> None:
        raise Local("made here")

    fork = {"num_workers": 1, "multiprocessing_context": "fork"}
    with pytest.raises(ValueError, match="not today"):
        list(DataLoader(range(3), worker_init_fn=refuse, **fork))
    with pytest.raises(RuntimeError, match=r"(?s)Caught Local in DataLoader worker process 0.*made here"):
        list(DataLoader(range(3), collate_fn=local, **fork))
    with pytest.raises((AttributeError, TypeError), match=r"(?s)DataLoader worker process 0.*pickle"):
        list(DataLoader(range(3), collate_fn=lambda samples: lambda: samples, **fork))
    with pytest.raises(RuntimeError, match=r"(?s)non-leaf tensor which requires_grad.*detach"):
        list(DataLoader(range(3), collate_fn=lambda samples: graphc.ones(1, requires_grad=True) * 2, **fork))


@pytest.mark.parametrize("how, told", [("kill", "ended by SIGKILL"), ("exit", "exit code 3")])
def test_a_worker_that_dies_is_an_error(how: str, told: str) -> None:
    before = children()
    loader = DataLoader(Dying(how), num_workers=2)
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly: it .*{told}"):
        list(loader)
    assert set(children()) <= set(before)
    stays = DataLoader(Dying(how), num_workers=2, persistent_workers=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            list(stays)


def test_a_batch_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 0.1)
    before = children()
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.2 seconds"):
        list(DataLoader(Slow(60), num_workers=1, timeout=0.2))
    assert set(children()) <= set(before)
    with pytest.raises(AssertionError, match="timeout == 0"):
        iter(DataLoader(range(3), timeout=1))


def test_a_pass_that_is_left_ends_its_workers() -> None:
    gc.collect()
    before, files = set(children()), open_files()
    iterator = iter(DataLoader(Slow(0.01), num_workers=2))
    next(iterator)
    assert len(set(children()) - before) == 2
    del iterator
    gc.collect()
    assert set(children()) == before and open_files() == files


def test_many_batches_can_be_kept() -> None:
    """Each batch in shared memory holds descriptors, of which a process has not many."""
    before = open_files()
    batches = list(DataLoader(TensorDataset(graphc.arange(600)), num_workers=2))
    assert [x.item() for (x,) in batches] == list(range(600))
    assert open_files() - before < 300
    del batches
    gc.collect()
    assert open_files() == before


def test_a_fork_leaves_the_workers_alone() -> None:
    iterator = iter(DataLoader(Squares(6), num_workers=1))
    next(iterator)
    pid = os.fork()
    if pid == 0:
        try:
            del iterator
            gc.collect()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(list(iterator)) == 5


def run(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)


ENDLESS = """
    import os, sys
    from graphc.data import DataLoader

    class Endless:
        def __len__(self):
            return 1 << 60

        def __getitem__(self, i):
            return os.getpid()

    pids = set()
    for i, batch in enumerate(DataLoader(Endless(), num_workers=2)):
        pids |= set(batch.tolist())
        if i == 10:
            print(*pids, flush=True)
"""


def gone(pids: list[int], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="looks for processes in /proc")
def test_an_interrupt_ends_everything() -> None:
    process = run(ENDLESS)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert errors.strip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1
    assert gone(pids)


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="looks for processes in /proc")
def test_workers_end_when_the_main_process_is_killed() -> None:
    process = run(ENDLESS)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.kill()
    process.communicate(timeout=60)
    assert gone(pids)
