"""What a function does besides computing tensors is seen while it is traced: what it asks of the world, what it changes."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import io
import itertools
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.frontend.effects import Effect, Watch
from graphc.frontend.guards import Snapshot

NUMBERS = iter(range(1000))
RANDOM = random.Random(0)
LOG = logging.getLogger("test_effects")
COUNT = 0


def seen(function: Callable[..., Any], *args: Any) -> list[Effect]:
    """What is seen of a call."""
    watch = Watch(Snapshot(function, args, writes=True))
    with watch.looking():
        function(*args)
    return watch.effects()


def asks_random() -> float:
    return random.random()


def asks_in_an_import() -> float:
    from random import uniform

    return uniform(1, 2)


def reads_a_file() -> str:
    with open(__file__) as file:
        return file.readline()


def counts() -> None:
    global COUNT  # noqa: PLW0603
    COUNT += 1


class Machine:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)
        self.clock = time.perf_counter
        self.count = 0

    def draw(self) -> float:
        return self.generator.random()

    def now(self) -> float:
        return self.clock()

    def work(self) -> None:
        self.count += 1


@pytest.mark.parametrize(("function", "what"), [
    (asks_random, "calls random.Random.random"),
    (asks_in_an_import, "calls random.uniform"),
    (lambda: random.choice([1, 2]), "calls random.choice"),
    (lambda: RANDOM.random(), "calls random.Random.random"),
    (lambda: np.random.rand(), "reads from numpy.random"),
    (Machine().draw, "reads from the function.__self__.generator"),
    (Machine().now, "calls time.perf_counter"),
    (lambda: time.time(), "calls time.time"),
    (lambda: datetime.datetime.now(), "calls datetime.datetime.now"),
    (lambda: datetime.date.today(), "calls datetime.date.today"),
    (lambda: uuid.uuid4(), "calls uuid.uuid4"),
    (lambda: secrets.token_hex(), "calls secrets.token_hex"),
    (lambda: os.getpid(), "calls posix.getpid"),
    (lambda: os.path.exists("/"), "calls genericpath.exists"),
    (lambda: Path("/").exists(), "calls pathlib.exists"),
    (lambda: print(end=""), "calls print"),
    (lambda: list(map(print, [])), "uses print"),
    (lambda: id(RANDOM), "calls id"),
    (lambda: eval("1"), "calls eval"),
    (reads_a_file, "calls open"),
    (lambda: io.StringIO().write("text"), "calls _io.StringIO.write"),
    (lambda: next(NUMBERS), "uses the global 'NUMBERS', an iterator"),
    (lambda: LOG.error("text"), "calls logging"),
    (lambda: threading.get_ident(), "calls _thread.get_ident"),
    (lambda: graphc.get_num_threads(), "calls graphc.threads.get_num_threads"),
    (counts, "changes Python state (the global 'COUNT'"),
], ids=itertools.count())  # fmt: skip
def test_it_is_seen(function: Callable[[], Any], what: str) -> None:
    effects = seen(function)
    assert any(effect.what.startswith(what) for effect in effects), effects


def test_the_place_is_named() -> None:
    line = asks_random.__code__.co_firstlineno + 1
    assert str(seen(asks_random)[0]) == f"calls random.Random.random at test_effects.py:{line} in asks_random"
    machine = Machine()
    line = Machine.work.__code__.co_firstlineno + 1
    (effect,) = seen(machine.work)
    assert str(effect).endswith(f"count was 0, is 1) at test_effects.py:{line} in work")


def quiet(verbose: bool = False) -> float:
    if verbose:
        print(time.time())
    return 1.0


@pytest.mark.parametrize("function", [
    quiet,
    lambda: max(1, 2) + len([1]) + sum(x for x in (1, 2)),
    lambda: next(iter([1, 2])),
    lambda: datetime.timedelta(days=1) / 2,
    lambda: LOG.debug("nobody reads this"),
    lambda: os.environ.get("HOME"),
    lambda: os.path.join("a", "b"),
    lambda: uuid.UUID(int=1),
    lambda: functools.reduce(lambda a, b: a + b, itertools.repeat(1, 3)),
    lambda: [k for k, _ in zip(itertools.count(), "abc")],
    lambda: warnings.catch_warnings(),
    lambda: sys.version_info >= (3, 11),
    lambda: graphc.randn(2) + graphc.rand(2),
    lambda: np.ones(2).sum(),
], ids=itertools.count())  # fmt: skip
def test_what_is_pure_is_not_seen(function: Callable[[], Any]) -> None:
    assert seen(function) == []


def test_the_interpreter_tells_only_where_something_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(sys, "setprofile", told.append)
    seen(lambda: max(1, 2))
    assert told == []
    seen(quiet)
    assert len(told) == 2 and told[1] is None


def test_beside_another_profiler_what_may_be_asked_counts() -> None:
    sys.setprofile(lambda frame, event, argument: None)
    try:
        effects = seen(quiet)
    finally:
        sys.setprofile(None)
    assert {effect.what for effect in effects} == {"uses time.time", "uses the global 'print'"}


def test_an_exception_ends_the_looking() -> None:
    watch = Watch(Snapshot(quiet))
    with contextlib.suppress(ValueError), watch.looking():
        raise ValueError
    assert sys.getprofile() is None
    assert builtins.print is print
