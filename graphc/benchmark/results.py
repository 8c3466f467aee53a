"""What a comparison has found, and how it is written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from graphc.benchmark.machine import Limits
from graphc.benchmark.quantities import amount
from graphc.benchmark.timing import Timing, coverage, ratio

Status = Literal["waiting", "ready", "timed", "wrong", "failed", "absent"]


@dataclass(frozen=True)
class Part:
    """What a part of a call took: an op, a node of a backward pass, a kernel."""

    name: str
    kind: str
    """"op", "backward", "kernel", or "compiled" for what is around kernels."""
    calls: float
    """In one call of the function."""
    seconds: float
    flops: float


@dataclass
class Outcome:
    """What came of one side at one workload. Seconds and bytes are those of its process."""

    side: str
    status: Status = "waiting"
    problem: str | None = None
    """Why there are no times."""
    rounds: list[list[float]] = field(default_factory=list)
    """Seconds of calls, round by round."""
    first_cold: list[float] = field(default_factory=list)
    """Seconds of the first calls, in a process that finds nothing in a cache."""
    first_warm: list[float] = field(default_factory=list)
    """And in one that finds what the other has left there, where the side compiles."""
    base: int | None = None
    """Bytes of memory of the process with the library alone."""
    peak: int | None = None
    """The most that it had from the first call on."""
    peak_compiling: int | None = None
    """That of the process that compiled."""
    compiles: bool = False
    """Whether it does anything at the first call that a later process finds done."""
    parts: list[Part] = field(default_factory=list)
    """Where the time of a call goes, the longest first; of graphc's own sides."""
    unchecked: bool = False
    """Whether the function returns nothing that could be compared."""

    @property
    def timing(self) -> Timing | None:
        return Timing.of_rounds(self.rounds) if self.rounds else None

    @property
    def over_base(self) -> int | None:
        """The most memory that it took beyond the library's own."""
        return None if self.peak is None or self.base is None else self.peak - self.base

    def compile_seconds(self, warm: bool) -> float | None:
        """How much longer the first calls took than as many later ones: tracing, compiling, loading. None if it does not
        compile, or has no cache."""
        first = self.first_warm if warm else self.first_cold
        if not first or not self.compiles:
            return None
        later = self.timing.median if self.timing is not None else min(first)
        return max(0.0, sum(first) - len(first) * later)


@dataclass
class Case:
    """One workload at one size, on all sides."""

    name: str
    summary: str
    size: int | None
    unit: str
    outcomes: dict[str, Outcome]
    flops: float | None = None
    nbytes: float | None = None
    """What a call has to read and write at least."""

    @property
    def label(self) -> str:
        if self.size is None:
            return self.name
        return f"{self.name}, {amount(self.size, self.unit)}"

    @property
    def reference(self) -> Outcome | None:
        """The first side with times: what the others are compared with."""
        return next((outcome for outcome in self.outcomes.values() if outcome.rounds), None)

    def speed_up(self, outcome: Outcome) -> Timing | None:
        """How many times as fast as the reference it is."""
        reference = self.reference
        return None if reference is None or not outcome.rounds else ratio(reference.rounds, outcome.rounds)


@dataclass
class Comparison:
    """All cases, and what they were measured on and how."""

    machine: dict[str, str]
    threads: int
    cpus: list[int]
    rounds: int
    seconds: float
    sides: dict[str, str | None]
    """With their versions, as far as they have started."""
    absent: dict[str, str]
    """Sides that cannot take part, and why."""
    limits: Limits | None = None
    cases: list[Case] = field(default_factory=list)
    interrupted: bool = False

    def outcomes(self) -> Iterator[tuple[Case, Outcome]]:
        return ((case, outcome) for case in self.cases for outcome in case.outcomes.values())

    @property
    def method(self) -> str:
        """How it was measured, in a sentence or two."""
        where = f"on CPU{'s' if len(self.cpus) > 1 else ''} {', '.join(map(str, self.cpus))}" if self.cpus else "on any CPU"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        rounds = f"{self.rounds} round{'s' if self.rounds > 1 else ''}"
        return (
            f"Each side runs in a process of its own, {threads} {where}, on the same numbers; results of the first calls are "
            f"compared before anything is timed. The sides take turns, {rounds} of {self.seconds:g} s each, after "
            "a call that is not counted. A time is the median of the rounds' medians, beside its "
            f"{coverage(self.rounds)}% interval by order statistics; a speed-up is the median of the ratios of rounds that "
            "stand side by side."
        )

    def mean_speed_up(self, side: str) -> tuple[float, int] | None:
        """The geometric mean of a side's speed-ups over the reference, and of how many."""
        found = [case.speed_up(outcome) for case, outcome in self.outcomes() if outcome.side == side]
        medians = [timing.median for timing in found if timing is not None]
        return (statistics.geometric_mean(medians), len(medians)) if medians else None

    def failed(self) -> bool:
        """Whether graphc computed something else than it should, or failed, or nothing could be timed at all."""
        ours = [outcome for _, outcome in self.outcomes() if outcome.side.startswith("graphc")]
        untimed = any(not any(outcome.rounds for outcome in case.outcomes.values()) for case in self.cases)
        return untimed or any(outcome.status in ("wrong", "failed") for outcome in ours)


def as_json(comparison: Comparison) -> str:
    """Everything, with all samples."""
    def of(case: Case, outcome: Outcome) -> dict[str, Any]:
        timing, speed_up = outcome.timing, case.speed_up(outcome)
        return {
            **asdict(outcome), "over_base": outcome.over_base,
            "seconds": None if timing is None else asdict(timing),
            "speed_up": None if speed_up is None else {key: getattr(speed_up, key) for key in ("median", "low", "high")},
            "compile_cold": outcome.compile_seconds(warm=False), "compile_warm": outcome.compile_seconds(warm=True),
        }  # fmt: skip

    cases = [
        {"workload": case.name, "summary": case.summary, "size": case.size, "unit": case.unit, "flops": case.flops,
         "nbytes": case.nbytes, "sides": [of(case, outcome) for outcome in case.outcomes.values()]}
        for case in comparison.cases
    ]  # fmt: skip
    head = {key: getattr(comparison, key) for key in ("machine", "method", "threads", "cpus", "sides", "absent", "interrupted")}
    limits = None if comparison.limits is None else asdict(comparison.limits)
    return json.dumps({**head, "limits": limits, "cases": cases}, indent=1, ensure_ascii=False) + "\n"


_COLUMNS = ("workload", "size", "unit", "side", "status", "seconds", "low", "high", "speed_up", "speed_up_low", "speed_up_high",
            "samples", "outliers", "compile_cold", "compile_warm", "base_bytes", "peak_bytes", "problem")


def as_csv(comparison: Comparison) -> str:
    """A line for each side of each case; seconds and bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case, outcome in comparison.outcomes():
        timing, speed_up = outcome.timing, case.speed_up(outcome)
        times: Sequence[Any] = ("",) * 3 if timing is None else (timing.median, timing.low, timing.high)
        ratios: Sequence[Any] = ("",) * 3 if speed_up is None else (speed_up.median, speed_up.low, speed_up.high)
        counts: Sequence[Any] = ("",) * 2 if timing is None else (timing.samples, timing.outliers)
        first = (outcome.compile_seconds(warm=False), outcome.compile_seconds(warm=True))
        row = (case.name, case.size, case.unit, outcome.side, outcome.status, *times, *ratios, *counts, *first, outcome.base,
               outcome.peak, outcome.problem)
        writer.writerow("" if value is None else value for value in row)
    return text.getvalue()
