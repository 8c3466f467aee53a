"""Running the same computation in several libraries, side by side: what `graphc bench` does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphc.benchmark import agreement
from graphc.benchmark.libraries import Task
from graphc.benchmark.process import WorkerProcess
from graphc.benchmark.results import Case, Comparison, Outcome, Part
from graphc.benchmark.sides import Side

WARM_UP = 0.2
"""Seconds of calls before the first round: what is compiled or rewritten after some calls is by then."""

Report = Callable[[str], None]
"""Is told what happens, and once for each step that is done."""


@dataclass(frozen=True)
class Plan:
    """What to run, and how."""

    tasks: Sequence[tuple[Task, Case]]
    """Each with where its results go."""
    sides: Sequence[Side]
    pythons: Mapping[str, str]
    threads: int
    rounds: int
    seconds: float
    timeout: float

    @property
    def steps(self) -> int:
        """How many steps there are to report."""
        return len(self.tasks) * (len(self.sides) + self.rounds)


def allowed_cpus() -> list[int]:
    """The CPUs that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def run(plan: Plan, comparison: Comparison, report: Report) -> None:
    """Measure all cases, one after the other; what there is so far stands in `comparison`, whenever this is interrupted."""
    for task, case in plan.tasks:
        comparison.cases.append(case)
        with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
            _Race(plan, comparison, task, case, Path(folder), report).run()


class _Race:
    """One case: its processes, and the files by which they have the same numbers."""

    def __init__(self, plan: Plan, comparison: Comparison, task: Task, case: Case, folder: Path, report: Report) -> None:
        self.plan, self.comparison, self.task, self.case = plan, comparison, task, case
        self.folder, self.report = folder, report
        self.cpus = comparison.cpus
        self.tensors = folder / "tensors.npz"
        self.model = folder / "model.onnx"
        self.reference: Side | None = None
        self.no_model: str | None = None

    def run(self) -> None:
        with ExitStack() as stack:
            ready: list[tuple[Side, WorkerProcess]] = []
            for side in self.plan.sides:
                outcome = self.case.outcomes[side.name]
                if outcome.status != "absent":
                    self.report(f"{self.case.label}: {side.title}")
                    process = self._prepare(side, outcome, stack)
                    if process is not None:
                        ready.append((side, process))
                self.report("")
            self._time(ready)
            for side, process in ready:
                outcome = self.case.outcomes[side.name]
                if outcome.status == "ready":
                    self._finish(side, outcome, process)

    def _prepare(self, side: Side, outcome: Outcome, stack: ExitStack) -> WorkerProcess | None:
        """A process that is ready to be timed; None if there is none, and why stands in the outcome."""
        cache = self.folder / side.name
        if side.compiled and side.library != "onnxruntime":
            with self._process(side, cache) as cold:
                answer = self._begin(cold, side, outcome)
                if answer is None:
                    return None
                outcome.first_cold = answer["seconds"]
                outcome.peak_compiling = self._ask(cold, memory=True).get("peak")
        process = stack.enter_context(self._process(side, cache))
        answer = self._begin(process, side, outcome)
        if answer is None:
            return None
        if outcome.first_cold:
            outcome.first_warm = answer["seconds"]
        else:
            outcome.first_cold = answer["seconds"]
        outcome.unchecked = answer["results"] == 0
        outcome.status = "ready"
        return process

    def _process(self, side: Side, cache: Path) -> WorkerProcess:
        cache.mkdir(exist_ok=True)
        return side.process(self.plan.threads, self.plan.pythons.get(side.library, ""), cache)

    def _begin(self, process: WorkerProcess, side: Side, outcome: Outcome) -> dict[str, Any] | None:
        """Start, load, take the reference's numbers, or be the reference, and check the first calls."""
        options = {"library": side.library, "compiled": side.compiled, "threads": self.plan.threads, "cpus": self.cpus}
        started = self._step(process, outcome, start=options)
        if started is None:
            return None
        self.comparison.sides[side.name] = started["version"]
        outcome.base = started["base"]
        if self._step(process, outcome, load=asdict(self.task)) is None:
            return None
        if side.library == "onnxruntime":
            problem = self._export() if self.tensors.exists() else "there is nothing to compare it with"
            if problem is not None:
                outcome.status, outcome.problem = "failed", problem
                return None
            self._ask(process, model=str(self.model))
        first = not self.tensors.exists()
        if self._step(process, outcome, **{"save" if first else "fill": str(self.tensors)}) is None:
            self.tensors.unlink(missing_ok=first)
            return None
        answer = self._step(process, outcome, check=str(self.folder / f"{side.name}.npz"))
        if answer is None:
            if first:
                self.tensors.unlink()  # another side is the first one that works
            return None
        self.reference = self.reference or side
        if self.reference is not side:
            files = (self.folder / f"{each.name}.npz" for each in (side, self.reference))
            problem = agreement.compare(*files)
            if problem is not None:
                outcome.status, outcome.problem = "wrong", f"{problem}, beside {self.reference.title}"
                return None
        return answer

    def _export(self) -> str | None:
        """Have the model written for onnxruntime, by graphc, with the numbers of the reference; what hinders it."""
        if self.model.exists() or self.no_model is not None:
            return self.no_model
        exporter = Side("graphc-eager", "graphc", False)
        options = {"library": "graphc", "compiled": False, "threads": self.plan.threads, "cpus": self.cpus}
        with self._process(exporter, self.folder / exporter.name) as process:
            for request in (
                {"start": options}, {"load": asdict(self.task)}, {"fill": str(self.tensors)}, {"export": str(self.model)}
            ):
                answer = self._ask(process, **request)
                if "error" in answer:
                    self.no_model = f"cannot be exported: {answer['error']}"
                    break
        return self.no_model

    def _step(self, process: WorkerProcess, outcome: Outcome, **request: Any) -> dict[str, Any] | None:
        answer = self._ask(process, **request)
        if "error" in answer:
            outcome.status = "absent" if answer.get("not_applicable") else "failed"
            outcome.problem = answer["error"]
            return None
        return answer

    def _ask(self, process: WorkerProcess, **request: Any) -> dict[str, Any]:
        return process.ask(self.plan.timeout, **request)

    def _time(self, ready: Sequence[tuple[Side, WorkerProcess]]) -> None:
        for side, process in ready:
            self._step(process, self.case.outcomes[side.name], time=WARM_UP)
        for number in range(self.plan.rounds):
            self.report(f"{self.case.label}: round {number + 1} of {self.plan.rounds}")
            turn = number % max(len(ready), 1)
            for side, process in (*ready[turn:], *ready[:turn]):  # nobody always comes first
                outcome = self.case.outcomes[side.name]
                if outcome.status == "ready":
                    answer = self._step(process, outcome, time=self.plan.seconds)
                    if answer is None:
                        outcome.rounds = []  # the times of what has failed since are nobody's
                    else:
                        outcome.rounds.append(answer["samples"])
            self.report("")

    def _finish(self, side: Side, outcome: Outcome, process: WorkerProcess) -> None:
        outcome.status = "timed"
        outcome.peak = self._ask(process, memory=True).get("peak")
        if side.library == "graphc":
            outcome.parts = [Part(**part) for part in self._ask(process, profile=True).get("parts", [])]
        if side.name == "graphc-eager":
            work = self._ask(process, work=True)  # what cannot be traced has no such numbers
            self.case.flops, self.case.nbytes = work.get("flops"), work.get("nbytes")
