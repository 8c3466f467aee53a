"""Timing, the machine's limits, growth with size, and `graphc bench --scale`."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import graphc
from graphc.benchmark import footprint, growth, worker
from graphc.benchmark.chart import Chart, Line, page
from graphc.benchmark.families import FAMILIES, Family
from graphc.benchmark.growth import Cliff, Point, cliffs, confirmed, measure, sizes
from graphc.benchmark.machine import Limits, describe, measure_limits
from graphc.benchmark.process import growth_worker
from graphc.benchmark.timing import Timing, sample
from graphc.cli.bench_scale import _show_cliffs

POINTWISE = FAMILIES[0]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "graphc", "bench", *arguments], capture_output=True, text=True, check=False)


def test_the_median_its_interval_and_outliers() -> None:
    found = Timing.of([1.0 + 0.001 * i for i in range(100)] + [50.0])
    assert found.median == pytest.approx(1.05)
    assert 1.03 < found.low < found.median < found.high < 1.07
    assert (found.samples, found.outliers) == (101, 1)
    alone = Timing.of([2.0])
    assert (alone.median, alone.low, alone.high, alone.outliers) == (2.0, 2.0, 2.0, 0)


def test_a_sample_is_the_time_of_one_call() -> None:
    assert min(sample(lambda: time.sleep(0.002), 0.01)) >= 0.002
    short = sample(lambda: None, 0.01)
    assert len(short) >= 3
    assert min(short) < 1e-4


def test_limits_are_what_is_measured() -> None:
    limits = Limits(1, flops=1e9, bandwidths={1000: 4e9, 4000: 1e9})
    assert limits.bandwidth(10) == 4e9
    assert limits.bandwidth(2000) == pytest.approx(2e9)
    assert limits.bandwidth(1e9) == 1e9
    assert limits.seconds(2e9, 8e9, 10) == 2.0
    assert limits.seconds(2e9, 16e9, 10) == 4.0


def test_the_machine_computes_and_copies() -> None:
    limits = measure_limits(1)
    assert limits.flops > 1e8
    assert min(limits.bandwidths.values()) > 1e7
    assert all(describe().values())


def point(size: int, seconds: float, threads: int = 1, limit: float = 1e-9, family: Family = POINTWISE) -> Point:
    return Point(family, size, threads, limit, Timing(seconds, 0.99 * seconds, 1.01 * seconds, 9, 0))


def test_a_cliff_is_a_size_at_which_an_element_takes_longer() -> None:
    plain = [point(1024 << i, (1024 << i) * 1e-9, limit=(1024 << i) * 1e-10) for i in range(4)]
    assert cliffs(plain) == []
    slow = replace(plain[2], timing=Timing(2e-9 * plain[2].size, 1.9e-9 * plain[2].size, 2.1e-9 * plain[2].size, 9, 0))
    [found] = cliffs([*plain[:2], slow, plain[3]])
    assert (found.slow.size, found.plain.size, found.ratio) == (4096, 2048, pytest.approx(2.0))
    assert "4,096 elements take 2.00x as long" in str(found)
    assert not found.is_machines
    # where the machine gets slower itself, it is the machine's, and comes after all others
    [its] = cliffs([*plain[:2], replace(slow, limit=2 * slow.limit)])
    assert its.is_machines and its.machine == pytest.approx(2.0)
    other = [replace(p, threads=2) for p in (*plain[:2], slow)]
    assert [c.slow.threads for c in cliffs([*plain[:2], replace(slow, limit=2 * slow.limit), *other])] == [2, 1]


def test_awkward_sizes_are_compared_with_plain_ones() -> None:
    odd, plain = POINTWISE.odd[0]
    [found] = cliffs([point(plain, plain * 1e-9), point(odd, odd * 1.5e-9)])
    assert (found.slow.size, found.plain.size) == (odd, plain)
    assert cliffs([point(plain, plain * 1e-9), point(odd, odd * 1.2e-9)]) == []


def test_cliffs_are_measured_again_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Cliff(point(2048, 9e-6), point(1024, 2e-6), 2.25, 1.0, is_machines=False)
    seconds = {2048: iter([6e-6, 9e-6, 6e-6]), 1024: iter([2e-6, 3e-6, 2e-6])}

    class Worker(contextlib.nullcontext[Any]):
        def __enter__(self) -> Worker:
            return self

        def ask(self, make: str = "", size: int = 0, time: float = 0.0) -> dict[str, Any]:
            self.times = seconds[size] if make else self.times
            return {} if make else {"samples": [next(self.times)]}

    monkeypatch.setattr(growth, "growth_worker", lambda *_: Worker())
    again = confirmed(once, rounds=3)
    assert again is not None and again.ratio == pytest.approx(1.5) and not again.is_machines
    seconds = {2048: iter([6e-6] * 3), 1024: iter([2e-6] * 3)}
    again = confirmed(replace(once, machine=1.2), rounds=3)
    assert again is not None and again.is_machines
    seconds = {2048: iter([4e-6] * 3), 1024: iter([2e-6] * 3)}
    assert confirmed(once, rounds=3) is None


def test_what_was_slow_once_is_no_cliff() -> None:
    once = Cliff(point(1 << 16, 1.0), point(1 << 15, 1e-6), 1e6, 1.0, is_machines=False)
    assert confirmed(once, seconds=0.05) is None


@pytest.mark.parametrize("whose", [(), (False,), (True,), (False, True)])
def test_cliffs_are_listed_by_whose_they_are(whose: tuple[bool, ...]) -> None:
    shown = io.StringIO()
    _show_cliffs(Console(file=shown, width=1000), [Cliff(point(4096, 2e-6), point(2048, 5e-7), 2.0, 1.9, its) for its in whose])
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("no cliffs") is (False not in whose)
    assert lines[0].endswith("machine's copies show") is (whose == (True,))
    assert sum("take 2.00x as long" in line for line in lines) == len(whose)
    assert ("the machine's own" in shown.getvalue()) is (True in whose)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_families_compute_the_same_compiled(family: Family) -> None:
    size = min(sizes(family))
    assert sizes(family, largest=int(family.elements(size)))[0] == size
    assert "first_seconds" in worker.Worker("graphc").make(family.name, size)
    assert min(family.elements(size), family.flops(size), family.nbytes(size)) > 0


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = io.StringIO()
    monkeypatch.setattr(graphc, "compile", lambda function: lambda *args: function(*args) + 1)
    requests = ['{"make": "pointwise", "size": 1024}', '{"time": 0.01}', '{"stop": true}', "not read"]
    worker.serve(io.StringIO("\n".join(requests)), answers, "graphc")
    wrong, untimed = map(json.loads, answers.getvalue().splitlines())
    assert "off by 1" in wrong["error"]
    assert "no workload" in untimed["error"]


def test_a_process_that_ends_is_an_error() -> None:
    with growth_worker(1, module="graphc.no_such_module") as process:
        assert "ended with status 1" in process.ask(make="pointwise", size=10)["error"]
    limits = {1: Limits(1, 1e9, {1: 1e9})}
    found = list(measure([replace(POINTWISE, sizes=(64,), odd=())], limits, seconds=0.01, module="graphc.no_such_module"))
    assert [p.timing for p in found] == [None]
    assert cliffs(found) == []


def test_charts_are_well_formed() -> None:
    lines = [Line("1 < 2 threads", [(1e3, 2.0), (1e6, 0.5)], 0), Line("limit", [(1e3, 0.1), (1e6, 0.1)], 0, dashed=True)]
    charts = [Chart("a & b", "elements", "ns", lines), Chart("nothing", "x", "y", []), Chart("one", "x", "y", lines[:1])]
    root = ET.fromstring(page("times", charts))
    assert len(root.findall(".//{*}polyline")) == 3
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "1 < 2 threads", "10k", "elements"} <= set(texts)


def test_the_command(tmp_path: Path) -> None:
    found = bench("--scale", "--only", "pointwise,transpose", "--largest", "2100", "--threads", "1", "--seconds", "0.003",
                  "--json", str(tmp_path / "a.json"), "--svg", str(tmp_path / "a.svg"))  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "GFLOP/s" in found.stdout and "pointwise" in found.stdout and "cliffs" in found.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    timed = {(t["computation"], t["size"]) for t in written["times"]}
    assert timed >= {("pointwise", 1024), ("pointwise", 2048), ("transpose", 1024)}
    assert all(t["seconds"]["median"] > 0 for t in written["times"])
    ET.parse(tmp_path / "a.svg")


@pytest.mark.parametrize(("arguments", "message"), [
    (("--scale", "--memory"), "--scale"),
    (("--scale", "--only", "sorting"), "no computation 'sorting'"),
    (("--scale", "--threads", "two"), "positive integers"),
    (("--scale", "--largest", "nan"), "--largest"),
    (("--scale", "--csv", "a.csv"), "--csv with targets"),
    (("--scale", "--svg", "/no/such/folder/a.svg"), "No such file"),
    (("--memory", "--json", "/no/such/folder/a.json"), "No such file"),
])  # fmt: skip
def test_wrong_use(arguments: tuple[str, ...], message: str) -> None:
    found = bench(*arguments)
    assert found.returncode == 1
    assert message in found.stderr


@pytest.mark.parametrize("name", footprint.TRAININGS)
def test_trainings_learn(name: str) -> None:
    graphc.manual_seed(0)
    step = footprint.training_step(graphc, name)
    assert float(step()) > float(step())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory a process has")
def test_a_footprint_counts_what_a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "sides", lambda: [("graphc", "compiled"), ("graphc.no_such_module", "eager")])
    measured, missing = footprint.measure(["perceptron"])
    parameters = 4 * (1024 * 2048 + 2048 * 2048 + 2048 * 10)
    assert measured.error is None and measured.over_base > 4 * parameters  # weights, gradients, two moments
    assert missing.error is not None and "no_such_module" in missing.error


def test_one_thing_is_measured_at_a_time() -> None:
    for arguments in (("--memory", "--scale"), ("--memory", "--only", "nothing")):
        refused = bench(*arguments)
        assert refused.returncode != 0 and "expected" in refused.stderr
