"""Compiled functions that ask something of the world do so at each call: clocks, files, random numbers, iterators, output.

Each scene is run eagerly and compiled, five calls of each, and shows the same results, exceptions and state.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import io
import itertools
import logging
import os
import random
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scenes import Scene, Scenes, agree, ones_times

import graphc
from graphc.errors import TraceError

scene = Scenes()


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same world at the beginning of each test, and the one before at its end."""
    monkeypatch.setenv("GRAPHC_TEST_SCALE", "1")
    monkeypatch.chdir("/")
    limit, threads = sys.getrecursionlimit(), graphc.get_num_threads()
    yield
    sys.setrecursionlimit(limit)
    graphc.set_num_threads(threads)
    if hasattr(sys, "graphc_test_scale"):
        del sys.graphc_test_scale


# Random numbers


@scene
def random_numbers() -> Scene:
    random.seed(0)
    return Scene(lambda x: x * random.random(), state=random.getstate)


@scene
def random_numbers_imported_within() -> Scene:
    random.seed(0)

    def f(x: Any) -> Any:
        from random import uniform as draw

        return x * draw(1, 2)

    return Scene(f)


@scene
def random_numbers_by_another_name() -> Scene:
    random.seed(0)
    draw = random.uniform
    return Scene(lambda x: x * draw(1, 2))


@scene
def random_numbers_by_partial() -> Scene:
    random.seed(0)
    draw = functools.partial(random.uniform, 1, 2)
    return Scene(lambda x: x * draw())


@scene
def random_numbers_of_ones_own() -> Scene:
    own = random.Random(3)
    return Scene(lambda x: x * own.random(), state=own.getstate)


@scene
def shuffled() -> Scene:
    random.seed(0)

    def f(x: Any) -> Any:
        order = [0, 1, 2, 3]
        random.shuffle(order)
        return x * order[0]

    return Scene(f)


@scene
def numpy_numbers() -> Scene:
    np.random.seed(0)
    return Scene(lambda x: x * float(np.random.rand()), state=lambda: np.random.get_state()[1])


@scene
def numpy_numbers_as_a_tensor() -> Scene:
    np.random.seed(0)
    return Scene(lambda x: x + graphc.from_numpy(np.random.randn(2)))


@scene
def numpy_generator() -> Scene:
    generator = np.random.default_rng(0)
    return Scene(lambda x: x * generator.random(), state=lambda: generator.bit_generator.state)


@scene
def numpy_generator_of_an_object() -> Scene:
    class Noise:
        def __init__(self) -> None:
            self.generator = np.random.RandomState(0)

        def __call__(self, x: Any) -> Any:
            return x * self.generator.rand()

    return Scene(Noise())


@scene
def random_numbers_on_one_way_only() -> Scene:
    random.seed(0)
    options = SimpleNamespace(noisy=False)
    return Scene(lambda x: x * (random.random() if options.noisy else 2.0),
                 before=lambda k: setattr(options, "noisy", k in (2, 3)))  # fmt: skip


# Clocks and the process


def test_the_clock_goes_on() -> None:
    f = graphc.compile(lambda x: (x, time.perf_counter()))
    times = [f(graphc.ones(1))[1] for _ in range(6)]
    assert times == sorted(set(times))


@scene
def date() -> Scene:
    return Scene(lambda x: x * (datetime.datetime.now().year > 2000))


@scene
def identifiers() -> Scene:
    return Scene(lambda x: x * len(str(uuid.uuid4())) + (threading.get_ident() > 0) + (os.getpid() > 0))


@scene
def folder() -> Scene:
    return Scene(lambda x: x * len(os.getcwd()), before=lambda k: os.chdir(["/", "/tmp"][k // 2 % 2]))


@scene
def environment() -> Scene:
    def before(k: int) -> None:
        os.environ["GRAPHC_TEST_SCALE"] = str(k // 2)

    return Scene(lambda x: x * float(os.environ["GRAPHC_TEST_SCALE"]), before=before)


@scene
def environment_with_a_default() -> Scene:
    def before(k: int) -> None:
        os.environ.pop("GRAPHC_TEST_SCALE", None)
        if k % 2:
            os.environ["GRAPHC_TEST_SCALE"] = str(k)

    return Scene(lambda x: x * float(os.environ.get("GRAPHC_TEST_SCALE", "7")) + float(os.getenv("GRAPHC_TEST_SCALE", "8")),
                 before=before)  # fmt: skip


@scene
def variable_of_a_known_module() -> Scene:
    sys.graphc_test_scale = 9  # type: ignore[attr-defined]
    return Scene(lambda x: x * sys.graphc_test_scale,  # type: ignore[attr-defined]
                 before=lambda k: setattr(sys, "graphc_test_scale", k // 2))  # fmt: skip


@scene
def setting_of_the_interpreter() -> Scene:
    limit = sys.getrecursionlimit()
    return Scene(lambda x: x * (sys.getrecursionlimit() - limit), before=lambda k: sys.setrecursionlimit(limit + k // 2))


@scene
def number_of_threads() -> Scene:
    return Scene(lambda x: x * graphc.get_num_threads(), before=lambda k: graphc.set_num_threads(1 + k // 2 % 2))


# What is used up by reading


@scene
def counter() -> Scene:
    numbers = itertools.count()
    return Scene(lambda x: x * next(numbers), state=lambda: repr(numbers))


@scene
def iterator_of_a_list() -> Scene:
    numbers = iter([1.0, 2.0, 3.0])
    return Scene(lambda x: x * next(numbers))  # StopIteration in the end


@scene
def rest_of_an_iterator() -> Scene:
    numbers = iter([1, 2, 3])
    return Scene(lambda x: x * len(list(numbers)))


@scene
def generator_that_is_running() -> Scene:
    def numbers() -> Iterator[int]:
        k = 0
        while True:
            k += 1
            yield k

    running = numbers()
    return Scene(lambda x: x * next(running))


@scene
def iterator_of_an_object() -> Scene:
    class Alternating:
        def __init__(self) -> None:
            self.factors = itertools.cycle([1, 2])

        def apply(self, x: Any) -> Any:
            return x * next(self.factors)

    return Scene(Alternating().apply)


@scene
def loop_over_what_is_left() -> Scene:
    numbers = iter(range(100))

    def f(x: Any) -> Any:
        for k in numbers:
            x = x + k
            if k % 3 == 2:
                break
        return x

    return Scene(f)


@pytest.mark.parametrize("make", [lambda: enumerate("abcdefgh"), lambda: zip(range(9), range(9)), lambda: map(abs, range(9))],
                         ids=["enumerate", "zip", "map"])  # fmt: skip
def test_iterators_of_all_kinds(make: Callable[[], Iterator[Any]]) -> None:
    def scene() -> Scene:
        numbers = make()

        def f(x: Any) -> Any:
            item = next(numbers)
            return x * (item[0] if isinstance(item, tuple) else item)

        return Scene(f)

    agree(scene)


@scene
def batches_of_a_loader() -> Scene:
    data = graphc.utils.data.TensorDataset(graphc.arange(4.0))
    loader = graphc.utils.data.DataLoader(data, batch_size=2)
    seen: list[Any] = []

    def f(x: Any) -> Any:
        for (batch,) in loader:
            x = x + batch
        return x

    return Scene(f, before=lambda k: data.tensors[0].add_(1), state=lambda: seen)


# Output and input


@scene
def printing() -> Scene:
    out = io.StringIO()

    def f(x: Any) -> Any:
        print("doubling", file=out)
        return x * 2

    return Scene(f, state=out.getvalue)


@scene
def printing_numbers() -> Scene:
    out = io.StringIO()

    def f(x: Any) -> Any:
        y = x * 2
        print(y, file=out)
        return y + 1

    return Scene(f, state=out.getvalue)


@scene
def printing_to_what_is_redirected() -> Scene:
    out = io.StringIO()

    def f(x: Any) -> Any:
        with contextlib.redirect_stdout(out):
            print("doubling")
        return x * 2

    return Scene(f, state=out.getvalue)


@scene
def printing_by_map() -> Scene:
    out = io.StringIO()

    def f(x: Any) -> Any:
        list(map(print, ["a"], itertools.repeat(out, 0)))
        with contextlib.redirect_stdout(out):
            list(map(print, "ab"))
        return x * 2

    return Scene(f, state=out.getvalue)


@scene
def writing() -> Scene:
    out = io.StringIO()

    def f(x: Any) -> Any:
        out.write("doubled")
        return x * 2

    return Scene(f, state=out.getvalue)


@scene
def reading(folder: Path) -> Scene:
    path = folder / "scale"

    def f(x: Any) -> Any:
        with open(path) as file:
            return x * float(file.read())

    return Scene(f, before=lambda k: path.write_text(str(k)))


@scene
def reading_on_in_an_open_file(folder: Path) -> Scene:
    path = folder / "scales"
    path.write_text("1\n2\n3\n4\n5\n6\n")
    file = open(path)  # noqa: SIM115

    def f(x: Any) -> Any:
        for line in file:
            return x * float(line)

    return Scene(f, before=lambda k: file.close() if k == 4 else None)


@scene
def asking_for_a_file(folder: Path) -> Scene:
    path = folder / "flag"

    def before(k: int) -> None:
        path.touch() if k % 2 else path.unlink(missing_ok=True)

    return Scene(lambda x: x * (2 if path.exists() else 3) * (2 if os.path.exists(path) else 5), before=before)


@scene
def logging_() -> Scene:
    out = io.StringIO()
    log = logging.getLogger("graphc_test")
    log.handlers[:] = [logging.StreamHandler(out)]
    log.propagate = False

    def f(x: Any) -> Any:
        log.info("doubling")
        return x * 2

    return Scene(f, before=lambda k: log.setLevel("WARNING" if k < 2 else "INFO"), state=out.getvalue)


@scene
def warning() -> Scene:
    seen: list[str] = []

    def f(x: Any) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("doubling", stacklevel=1)
        seen.extend(str(w.message) for w in caught)
        return x * 2

    return Scene(f, state=lambda: seen)


@scene
def code_in_a_string() -> Scene:
    names = {"scale": 1}
    return Scene(lambda x: x * eval("scale", names), before=lambda k: names.update(scale=k // 2))


@scene
def a_compiled_function_within_that_asks() -> Scene:
    random.seed(0)
    noise = graphc.compile(lambda x: x * random.random())
    return Scene(lambda x: noise.function(x) if x is None else noise(x) + 1)


@pytest.mark.parametrize("name", scene)
def test_the_world_is_asked_at_each_call(name: str, tmp_path: Path) -> None:
    make = scene[name]
    folders = (tmp_path / str(k) for k in range(2))

    def with_folder() -> Scene:
        folder = next(folders)
        folder.mkdir()
        return make(folder) if "folder" in make.__code__.co_varnames[: make.__code__.co_argcount] else make()

    agree(with_folder)


# What is said about it


def noisy(x: Any) -> Any:
    return x * random.random()


def test_fullgraph_refuses_and_names_the_place() -> None:
    line = noisy.__code__.co_firstlineno + 1
    with pytest.raises(TraceError, match=rf"calls random\.Random\.random(.|\n)*test_guards_world\.py:{line} in noisy"):
        graphc.compile(noisy, fullgraph=True)(graphc.ones(2))


def test_explain_names_the_place() -> None:
    f = graphc.compile(noisy)
    f(graphc.ones(2))
    line = noisy.__code__.co_firstlineno + 1
    assert f"calls random.Random.random at test_guards_world.py:{line} in noisy" in f.explain()


def test_what_does_not_ask_on_its_way_stays_one_graph() -> None:
    def f(x: Any, verbose: bool = False) -> Any:
        if verbose:
            print(time.time())
        return x * 2

    compiled = graphc.compile(f, fullgraph=True)
    for args in (ones_times(k) for k in range(5)):
        assert compiled(*args).tolist() == f(*args).tolist()


def test_what_the_garbage_collector_runs_is_not_done_by_the_function() -> None:
    collections = []

    def callback(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            collections.append(time.perf_counter())

    def f(x: Any, verbose: bool = False) -> Any:
        if verbose:
            print(time.time())
        return [[x * k] for k in range(3)]

    threshold = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        (result,) = graphc.compile(f, fullgraph=True)(*ones_times(2))[2]
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    assert result.tolist() == f(*ones_times(2))[2][0].tolist() and collections


def test_what_asks_on_one_way_is_one_graph_on_the_other() -> None:
    options = SimpleNamespace(noisy=True)
    f = graphc.compile(lambda x: x * (random.random() if options.noisy else 2.0))
    assert len({f(graphc.ones(1)).item() for _ in range(5)}) == 5
    options.noisy = False
    for _ in range(5):
        assert f(graphc.ones(1)).item() == 2.0
    options.noisy = True
    assert len({f(graphc.ones(1)).item() for _ in range(5)}) == 5
    assert len(f._tracings.all) == 2
