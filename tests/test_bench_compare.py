"""`graphc bench TARGET...`: the same function in several libraries, checked and timed side by side."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
from graphc.benchmark import agreement, workloads
from graphc.benchmark.comparison import Plan, allowed_cpus, run
from graphc.benchmark.libraries import Task
from graphc.benchmark.markdown import as_markdown
from graphc.benchmark.process import foreign_worker, own_worker
from graphc.benchmark.reachable import Reach, fill, save
from graphc.benchmark.results import Case, Comparison, Outcome, as_csv, as_json
from graphc.benchmark.sides import Side, absent, chosen, interpreters
from graphc.benchmark.timing import Timing, ratio, sample
from graphc.cli import main
from graphc.cli.bench_compare import _table
from graphc.cli.files import check_writable
from graphc.errors import ArgumentError

PARTICIPANT = "graphc.benchmark.participant"
EAGER, COMPILED = Side("graphc-eager", "graphc", False), Side("graphc-compiled", "graphc", True)
EAGER_TOO = Side("graphc-too", "graphc", False)
START = {"library": "graphc", "compiled": False, "threads": 1, "cpus": allowed_cpus()[:1]}
SCRIPT = """
import torch
from torch import nn

model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = torch.randn(8, 3), torch.randn(8, 1)

@torch.compile
def loss_of(x, y):
    return nn.functional.mse_loss(model(x), y)

def step():
    optimizer.zero_grad()
    loss = loss_of(*data)
    loss.backward()
    optimizer.step()
    return loss

def predict(x):
    with torch.no_grad():
        return model(x)

def inputs(size=4):
    return torch.randn(size, 3)

def fails(x):
    return x.reshape(7)

def silent(x):
    x.add_(1)

def asks(x):
    return x + len(input())

def dies(x):
    import os
    os._exit(3)

def hangs(x):
    while True: pass

calls = []

def fails_later(x):
    calls.append(x)
    if len(calls) > 4:
        raise ValueError("not again")
    return x + 1
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return str(path)


class Found(NamedTuple):
    status: object
    stdout: str
    stderr: str


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> Found:
    with pytest.raises(SystemExit) as raised:
        main(["bench", "--rounds", "2", "--seconds", "0.002", *arguments])
    return Found(raised.value.code, *capsys.readouterr())


def race(tasks: list[Task], sides: list[Side], timeout: float = 120) -> Comparison:
    pairs = [(task, Case(task.name, "", task.size, "", {s.name: Outcome(s.name, compiles=s.compiled) for s in sides}))
             for task in tasks]  # fmt: skip
    comparison = Comparison({}, 1, allowed_cpus()[:1], 2, 0.002, {}, {})
    run(Plan(pairs, sides, {}, 1, 2, 0.002, timeout), comparison, lambda text: None)
    return comparison


def test_a_time_is_the_median_of_rounds() -> None:
    found = Timing.of_rounds([[1.0, 1.0, 1.1], [2.0, 2.0], [1.5], [1.2], [1.3], [1.4], [1.6]])
    assert (found.median, found.low, found.high, found.samples) == (1.4, 1.0, 2.0, 10)
    # what slows both sides down is no part of their ratio
    assert ratio([[2.0], [20.0], [2.0]], [[1.0], [10.0], [1.0], [5.0]]) == Timing(2.0, 2.0, 2.0, 3, 0)
    assert len(sample(lambda: time.sleep(0.003), 0.0, fewest=1)) == 1


def test_tensors_are_found_by_the_names_that_a_script_has_for_them(tmp_path: Path) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = graphc.nn.Linear(2, 1)
            self.state = {"mean": graphc.ones(2), 3: [graphc.zeros(1)], "text": "t"}
            self.itself = self

        def step(self) -> None: ...

    shared = graphc.ones(4)

    def closed() -> Any:
        return shared, later

    names = list(Reach(graphc, modules=(__name__,)).tensors({"inputs": (shared,), "trainer": Trainer().step, "closed": closed}))
    own = "trainer.__self__"
    assert names == ["inputs[0]", f"{own}.model.weight", f"{own}.model.bias", f"{own}.state['mean']", f"{own}.state[3][0]"]
    assert list(Reach(graphc).tensors({"trainer": Trainer()})) == []  # somebody else's object
    later = 1  # a cell that was empty


def test_numbers_go_from_one_library_to_the_other(tmp_path: Path) -> None:
    path = str(tmp_path / "numbers.npz")
    half = graphc.tensor([1.5, 2.5], dtype=graphc.bfloat16)
    save({"a b[0]": graphc.arange(3), "half": half}, path)
    there = {"a b[0]": graphc.zeros(3, dtype=graphc.int64), "half": graphc.zeros(2, dtype=graphc.bfloat16)}
    assert fill(there, path, graphc.from_numpy) is None
    assert there["a b[0]"].tolist() == [0, 1, 2] and there["half"].tolist() == [1.5, 2.5]
    assert "no half" in str(fill({"a b[0]": graphc.zeros(3)}, path, graphc.from_numpy))
    assert "c is new" in str(fill({**there, "c": graphc.zeros(1)}, path, graphc.from_numpy))
    assert "has the shape [3] here" in str(fill({**there, "half": graphc.zeros(3)}, path, graphc.from_numpy))


def test_results_are_compared(tmp_path: Path) -> None:
    def as_array(value: Any) -> np.ndarray | None:
        return value if isinstance(value, np.ndarray) else None

    ones = np.ones(3, np.float32)
    assert [name for name, _ in agreement.leaves({"b": (ones, "text", None), "a": [2.5]}, as_array)] == ["float32", "float32"]
    good, bad = ("float32", ones), ("float32", ones * np.float32(1.01))
    assert agreement.difference(("float16", bad[1]), good) is None
    assert "off by 0.01" in str(agreement.difference(bad, good))
    assert "shape [2]" in str(agreement.difference(("float32", ones[:2]), good))
    nan = ("float32", np.array([1, np.nan, np.inf], np.float32))
    assert agreement.difference(nan, nan) is None
    assert "not a number" in str(agreement.difference(nan, good)) and "not a number" in str(agreement.difference(good, nan))
    assert agreement.difference(("int64", np.array([10**6])), ("int64", np.array([10**6 + 1]))) is not None
    assert agreement.difference(("float32", ones[:0]), ("float32", ones[:0])) is None
    one, other = tmp_path / "1", tmp_path / "2"
    assert agreement.write([[good]] * agreement.CALLS, str(one)) == 1
    agreement.write([[good], [good], [bad]], str(other))
    assert agreement.compare(one, one) is None
    assert "in call 3, result 1 is off" in str(agreement.compare(other, one))
    agreement.write([[good], [], [good]], str(other))
    assert agreement.compare(other, one) == "call 2 gives 0 results instead of 1"


def test_sides_are_chosen() -> None:
    assert [side.name for side in chosen("torch-compile,graphc")] == ["torch-compile", "graphc-eager", "graphc-compiled"]
    with pytest.raises(ArgumentError, match="no side 'tensorflow'"):
        chosen("graphc,tensorflow")
    for wrong in ("torch", "numpy=/bin/true", "torch=/no/such/python"):
        with pytest.raises(ArgumentError, match="--python"):
            interpreters([wrong])
    missing = absent([Side("none", "no_such_library", True), EAGER], {"no_such_library": sys.executable})
    assert list(missing) == ["none"] and "pip install no_such_library" in missing["none"]


@pytest.mark.parametrize("name", [*workloads.GROUPS["functions"], "perceptron_training", "lstm_training"])
def test_workloads_compute_the_same_compiled(name: str) -> None:
    if name == "lstm_training" and workloads.models_folder() is None:
        pytest.skip("the models are in examples/models of the repository")
    results = []
    for compile in (lambda function: function, graphc.compile):
        graphc.manual_seed(0)
        size = {"linear": 16, "transpose": 16, "attention": 16}.get(name, 1)
        function, arguments = workloads.find(name).make(graphc, size)
        results += agreement.leaves(compile(function)(*arguments), lambda x: x.detach().numpy())
    assert agreement.difference(results[1], results[0]) is None


def test_a_training_step_of_a_script_for_pytorch(script: str) -> None:
    comparison = race([Task("step", script), Task("predict", script, size=5)], [EAGER, COMPILED])
    for case in comparison.cases:
        eager, compiled = (case.outcomes[side.name] for side in (EAGER, COMPILED))
        assert eager.status == compiled.status == "timed", (eager.problem, compiled.problem)
        assert len(eager.rounds) == len(compiled.rounds) == 2
        assert compiled.first_warm and compiled.compile_seconds(warm=False) is not None and eager.first_warm == []
        assert case.reference is eager
    assert comparison.cases[1].flops == 5 * (2 * 3 + 1)
    assert not comparison.failed()


def test_what_goes_wrong_is_said_with_the_line_of_the_script(script: str) -> None:
    comparison = race([Task(name, script) for name in ("fails", "dies", "missing", "asks")], [EAGER])
    problems = [str(case.outcomes[EAGER.name].problem) for case in comparison.cases]
    assert re.fullmatch(r"ShapeError: .* at train.py:\d+ in fails", problems[0])
    assert "ended with status 3" in problems[1]
    assert re.match(r"train.py has no missing; expected: one of .*\bstep, predict\b", problems[2])
    assert re.fullmatch(r"EOFError: .* at train.py:\d+ in asks", problems[3])  # and takes no request for an answer
    assert comparison.failed()


def test_inputs_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "predict.py"
    path.write_text("def predict(x):\n    return x\n")
    [case] = race([Task("predict", str(path))], [EAGER]).cases
    problem = str(case.outcomes[EAGER.name].problem)
    assert problem.startswith("predict in predict.py takes x") and "fix: def predict_inputs(): return (" in problem


def test_who_fails_while_timed_has_failed_although_others_have_not(script: str) -> None:
    comparison = race([Task("fails_later", script)], [EAGER])
    [case] = comparison.cases
    found = case.outcomes[EAGER.name]
    assert found.status == "failed" and not found.rounds
    assert re.fullmatch(r"ValueError: not again at train.py:\d+ in fails_later", str(found.problem))
    case.outcomes["torch-eager"] = timed("torch-eager", 1e-3)
    assert comparison.failed()
    case.outcomes[EAGER.name] = timed(EAGER.name, 1e-3)
    assert not comparison.failed()


def test_what_returns_nothing_is_timed_unchecked(script: str) -> None:
    [case] = race([Task("silent", script)], [EAGER]).cases
    assert case.outcomes[EAGER.name].unchecked and case.outcomes[EAGER.name].status == "timed"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say how much memory was used")
def test_memory_is_that_of_calls(tmp_path: Path) -> None:
    path = tmp_path / "large.py"
    path.write_text("import numpy, torch\nlarge = float(numpy.ones(40_000_000).sum())\n"
                    "def f(x):\n    return x + large\ndef g(x):\n    return torch.ones(40_000_000).sum() + x\n"
                    "def inputs():\n    return torch.ones(4)\n")  # fmt: skip
    small, large = race([Task("f", str(path)), Task("g", str(path))], [EAGER]).cases
    assert (small.outcomes["graphc-eager"].over_base or 0) < 100e6 < 150e6 < (large.outcomes["graphc-eager"].over_base or 0)


def test_a_wrong_result_is_not_timed(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "compare", lambda one, other: "is off by 1")
    [case] = race([Task("predict", script)], [EAGER, EAGER_TOO]).cases
    wrong = case.outcomes["graphc-too"]
    assert (wrong.status, wrong.rounds) == ("wrong", []) and "is off by 1, beside graphc eager" in str(wrong.problem)


def test_a_side_that_hangs_is_ended(script: str) -> None:
    comparison = race([Task("hangs", script)], [EAGER], timeout=8)
    assert "took longer than 8 s" in str(comparison.cases[0].outcomes["graphc-eager"].problem)


def test_a_process_needs_no_installed_package(tmp_path: Path) -> None:
    with foreign_worker(PARTICIPANT, threads=1) as process:
        answer = process.ask(60, start={**START, "library": "no_such_library"})
        assert "ModuleNotFoundError: No module named 'no_such_library'" in answer["error"]
    with foreign_worker("graphc.no_such_module", threads=1) as process:
        assert "ended with status 1: " in process.ask(60, start={})["error"]
        assert "ended with status 1: " in process.ask(60, start={})["error"]


def test_who_is_not_for_a_task_has_not_failed() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install graphc[bench]")
    with foreign_worker(PARTICIPANT, threads=1) as process:
        process.ask(120, start={**START, "library": "onnxruntime"})
        answer = process.ask(60, load={"name": "step", "trains": True})
    assert answer == {"error": "onnxruntime does not train", "not_applicable": True}


def test_children_end_with_the_one_who_asks(script: str) -> None:
    with pytest.raises(KeyboardInterrupt), own_worker(PARTICIPANT, threads=1) as process:
        process.ask(60, start=START)
        raise KeyboardInterrupt
    assert process._process.poll() is not None


def case_of(outcomes: dict[str, Outcome]) -> Case:
    return Case("gelu", "GELU by tanh", 4096, "elements", outcomes)


def timed(name: str, seconds: float, compiles: bool = False) -> Outcome:
    rounds = [[seconds, 1.1 * seconds]] * 6
    return Outcome(name, "timed", rounds=rounds, first_cold=[0.25] * 3, compiles=compiles, base=1, peak=9)


SIDES_OF_ALL_KINDS = {outcome.side: outcome for outcome in (
    timed("graphc-eager", 0.0123), timed("graphc-compiled", 0.00123, True),
    Outcome("torch-eager", "wrong", "result 1 is off by 1, of numbers up to 2"),
    Outcome("jax", "ready"), Outcome("onnxruntime", "absent", "does not train"),
)}  # fmt: skip


@pytest.mark.parametrize(("width", "columns"), [(40, 2), (60, 4), (80, 6), (120, 7)])
def test_tables_have_the_columns_that_there_is_room_for(width: int, columns: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(_table(case_of(SIDES_OF_ALL_KINDS), (), width))
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    (head,) = (line for line in text.splitlines() if line.startswith("side"))
    assert len(re.split(r" {2,}", head.strip())) == 1 + columns and "speed-up" in head
    assert re.search(r"graphc compiled +1\.29 ms .* 10\.0x", text) and "jax: " not in text and "onnxruntime: does not" in text
    waiting = Console(width=width, record=True, file=io.StringIO())
    waiting.print(_table(case_of({name: Outcome(name) for name in SIDES_OF_ALL_KINDS}), (), width))
    assert head in waiting.export_text()  # nothing jumps as the table fills


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are there on POSIX systems alone")
def test_the_table_on_a_narrow_terminal(script: str) -> None:
    import fcntl
    import pty
    import struct
    import termios

    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    command = [sys.executable, "-m", "graphc", "bench", f"{script}:predict", "--sides", "graphc", "--rounds", "2",
               "--seconds", "0.002"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # that of pytest's
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env={**environment, "TERM": "xterm"})
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # the other end has been closed
        while data := os.read(mine, 1 << 16):
            written += data
    os.close(mine)
    assert process.wait(30) == 0
    frames = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame) for frame in re.split(r"\x1b\[2K", written.decode())]
    lines = [line.strip("\r") for frame in frames for line in frame.split("\n")]
    assert max(map(len, lines)) <= 40 and not any("…" in line for line in lines)
    assert any(re.match(r"graphc compiled +[━╸╺ ]+ +\d/4 0:0\d:\d\d", line) for line in lines)  # while it ran
    last = frames[-1]
    assert "━" not in last
    assert len(re.findall(r"^graphc (?:eager|compiled) +[\d.]+ [nmu]s +[\d.]+x", last, re.MULTILINE)) == 2


def test_the_command(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("a.json", "a.csv", "a.md")]
    found = bench(capsys, f"{script}:predict", "--sides", "graphc-eager", "--sizes", "4,8", "--threads", "1",
                  "--json", str(files[0]), "--csv", str(files[1]), "--markdown", str(files[2]),
                  "--html", str(tmp_path / "a.html"))  # fmt: skip
    assert found.status == 0, found.stdout + found.stderr
    for text in ("CPU:", "1 thread on CPU", "train.py:predict, 4", "train.py:predict, 8", "graphc eager", "1.00x"):
        assert text in found.stdout
    assert "<h2>Where the time goes</h2>" in (tmp_path / "a.html").read_text()
    assert re.search(r"^\| `.*train.py:predict`: 8 \| \*\*[\d.]+ [nmu]s\*\* \|$", files[2].read_text(), re.MULTILINE)
    written = json.loads(files[0].read_text())
    assert len(written["cases"]) == 2 and written["limits"]["flops"] > 0
    assert all(side["seconds"]["median"] > 0 for case in written["cases"] for side in case["sides"])
    rows = list(csv.DictReader(io.StringIO(files[1].read_text())))
    assert [(row["size"], row["side"], row["status"]) for row in rows] == [(n, "graphc-eager", "timed") for n in ("4", "8")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_whether_results_can_be_written_changes_nothing(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.json", tmp_path / "pipe.json"
    link.symlink_to(tmp_path / "none.json")
    os.mkfifo(pipe)
    check_writable(str(link), str(pipe), None, str(tmp_path / "new.json"))
    assert {path.name for path in tmp_path.iterdir()} == {"link.json", "pipe.json"}


@pytest.mark.parametrize(("arguments", "message"), [
    (("sorting",), "no workload 'sorting'"),
    (("nowhere.py:f",), "no such file"),
    (("gelu", "--sizes", "many"), "--sizes"),
    (("gelu", "--threads", "1,2"), "--threads"),
    (("gelu", "--threads", "1000"), "at most"),
    (("gelu", "--scale"), "one thing at a time"),
    (("gelu", "--json", "/no/such/folder/a.json"), "No such file"),
    (("train.py:step", "--profile", "/no/such/folder/a.json"), "No such file"),
    (("gelu", "--json", "a.json", "--csv", "./a.json"), "named for two results"),
    (("gelu", "--seconds", "nan"), "--seconds"),
    (("gelu", "--seconds", "-1"), "a positive number"),
    (("gelu", "--svg", "a.svg"), "--svg with --scale"),
    (("--list", "--html", "a.html"), "--html is not for --list"),
])  # fmt: skip
def test_wrong_use_is_said_before_anything_runs(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(capsys, *arguments)
    assert found.status == 1
    assert message in found.stderr and found.stdout == ""
    assert not Path("a.json").exists()


def test_peers_that_are_not_installed_are_said(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("jax") is not None:
        pytest.skip("JAX is installed here")
    found = bench(capsys, f"{script}:predict", "--sides", "jax")
    assert found.status == 1 and "pip install jax" in found.stderr
    found = bench(capsys, f"{script}:fails", "--sides", "graphc-eager,jax")
    assert found.status == 1 and "left out:" in found.stdout and "ShapeError" in found.stdout


def test_a_full_disk_loses_nothing_that_was_shown(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full, a file that is always full, on this system")
    found = bench(capsys, f"{script}:predict", "--sides", "graphc-eager", "--json", "/dev/full")
    assert found.status == 1 and "No space left" in found.stderr
    assert "train.py:predict" in found.stdout and " us" in found.stdout


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal on POSIX systems alone")
def test_an_interruption_shows_what_there_is(script: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    command = [sys.executable, "-m", "graphc", "bench", f"{script}:predict", f"{script}:hangs", "--sides", "graphc-eager",
               "--rounds", "1", "--seconds", "0.001", "--json", str(path)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        head = ""
        while "predict" not in head.rpartition("method:")[2]:  # the first case is shown when the second begins
            head += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130
    assert "interrupted" in rest
    written = json.loads(path.read_text())
    assert written["interrupted"] and [case["sides"][0]["status"] for case in written["cases"]] == ["timed", "waiting"]


def test_a_table_for_a_readme() -> None:
    comparison = Comparison({"CPU": "x"}, 1, [], 6, 0.1, {"graphc-eager": "1.0", "graphc-compiled": "1.0", "torch-eager": "2.0",
                                                         "jax": None}, {})  # fmt: skip
    comparison.cases = [case_of(SIDES_OF_ALL_KINDS), case_of({**SIDES_OF_ALL_KINDS, "torch-eager": timed("torch-eager", 0.1)})]
    table, about = as_markdown(comparison).split("\n\n")
    assert table.splitlines() == [
        "|  | graphc eager 1.0 | graphc compiled 1.0 | torch eager 2.0 |",
        "| --- | ---: | ---: | ---: |",
        "| `gelu`: GELU by tanh, 4,096 elements | 12.9 ms | **1.29 ms** (746 ms) | wrong |",
        "| `gelu`: GELU by tanh, 4,096 elements | 12.9 ms | **1.29 ms** (746 ms) | 105 ms |",
        "| faster than the first, geometric mean | 1.00x | 10.0x | 0.12x (of 1) |",
    ]
    assert about.startswith("CPU: x. Each side runs")


def test_files_hold_what_failed_too() -> None:
    outcomes = {"a": Outcome("a", "timed", rounds=[[1.0], [1.1]], first_cold=[5.0, 1.0, 1.0], compiles=True, base=1, peak=3),
                "b": Outcome("b", "wrong", 'is "off", by 1')}  # fmt: skip
    comparison = Comparison({"CPU": "x"}, 1, [], 2, 0.1, {"a": "1.0"}, {}, cases=[Case("f", "", None, "", outcomes)])
    assert "its 50% interval" in comparison.method  # two rounds are no more than that
    [good, bad] = json.loads(as_json(comparison))["cases"][0]["sides"]
    assert good["compile_cold"] == pytest.approx(7.0 - 3 * 1.05) and good["over_base"] == 2 and bad["seconds"] is None
    assert [row["problem"] for row in csv.DictReader(io.StringIO(as_csv(comparison)))] == ["", 'is "off", by 1']
    assert comparison.mean_speed_up("a") == (1.0, 1) and comparison.mean_speed_up("b") is None
