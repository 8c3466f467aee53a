"""`graphc bench TARGET...`: the same computation in several libraries, as a table that fills while it runs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from graphc.benchmark import workloads
from graphc.benchmark.comparison import Plan, allowed_cpus, run
from graphc.benchmark.libraries import Task
from graphc.benchmark.machine import describe, measure_limits
from graphc.benchmark.markdown import as_markdown
from graphc.benchmark.quantities import amount, bytes_text, interval_text, ratio_text, time_text
from graphc.benchmark.results import Case, Comparison, Outcome, as_csv, as_json
from graphc.benchmark.sides import SIDES, Side, absent, chosen, interpreters
from graphc.errors import ArgumentError
from graphc.script import Target

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_INTERRUPTED = 130
"""The exit status of a command that Ctrl-C has ended."""
_TITLES = {side.name: side.title for side in SIDES}


@dataclass(frozen=True)
class Files:
    """Where results are written."""

    html: str | None = None
    json: str | None = None
    csv: str | None = None
    markdown: str | None = None

    def write(self, comparison: Comparison) -> None:
        writers: tuple[tuple[str | None, Callable[[Comparison], str]], ...] = (
            (self.json, as_json), (self.csv, as_csv), (self.markdown, as_markdown), (self.html, _as_html),
        )  # fmt: skip
        for path, text in writers:
            if path is not None:
                Path(path).write_text(text(comparison), encoding="utf-8")


def _as_html(comparison: Comparison) -> str:
    from graphc.benchmark.report import page

    return page(comparison)


def compare(
    targets: Sequence[str], *, sides: str | None, sizes: str | None, by_size: bool, rounds: int, seconds: float,
    threads: str | None, pythons: Sequence[str], timeout: float, files: Files,
) -> None:
    """Run, show and write a comparison. The exit status is 1 where graphc is wrong or fails, or nothing could be timed."""
    taking_part, interpreter_of = chosen(sides), interpreters(pythons)
    cpus = allowed_cpus()
    count = _count(threads, cpus)
    tasks = _tasks(targets, _sizes(sizes), by_size, taking_part)
    missing = absent(taking_part, interpreter_of)
    if all(side.name in missing for side in taking_part):
        raise ArgumentError("graphc bench: none of the sides can take part", got="; ".join(sorted(set(missing.values()))))
    for _, case in tasks:
        for name, reason in missing.items():
            case.outcomes[name].status, case.outcomes[name].problem = "absent", reason
    comparison = Comparison(describe(), count, cpus[:count], rounds, seconds,
                            {side.name: None for side in taking_part if side.name not in missing}, missing)
    plan = Plan(tasks, taking_part, interpreter_of, count, rounds, seconds, timeout)
    _show(plan, comparison, measure=files.html is not None or by_size or len({case.name for _, case in tasks}) < len(tasks))
    files.write(comparison)
    if comparison.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if comparison.failed():
        raise typer.Exit(1)


def show_workloads() -> None:
    """The built-in workloads by their groups."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("workload", "", "size"):
        table.add_column(title, no_wrap=True)
    for group, names in workloads.GROUPS.items():
        table.add_row(f"[bold]{group}[/bold]")
        for workload in (workloads.WORKLOADS[name] for name in names):
            table.add_row(f"  {workload.name}", workload.summary, amount(workload.size, workload.unit))
    _console(markup=True).print(table)


def _console(stderr: bool = False, markup: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(width=None if stream.isatty() else 1_000_000, highlight=False, markup=markup, stderr=stderr)


def _count(text: str | None, cpus: Sequence[int]) -> int:
    if text is None:
        return max(1, len(cpus))
    if not text.isdecimal() or not int(text):
        raise ArgumentError("--threads", expected="a positive integer (several only with --scale)", got=repr(text))
    if cpus and int(text) > len(cpus):
        raise ArgumentError("--threads", expected=f"at most {len(cpus)}, as many CPUs as this process may use", got=text)
    return int(text)


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ArgumentError("--sizes", expected="positive integers, as in 16,64,256", got=repr(text))
    return [int(part) for part in parts]


def _tasks(targets: Sequence[str], sizes: list[int] | None, by_size: bool, sides: Sequence[Side]) -> list[tuple[Task, Case]]:
    found = []
    for text in targets:
        if Target.is_one(text):
            target = Target.parse(text)
            if not Path(target.path).is_file():
                raise ArgumentError(f"{target.path}: there is no such file", expected="SCRIPT.py:FUNCTION")
            if by_size and sizes is None:
                raise ArgumentError(f"--by-size: {text} has no sizes of its own", hint="name them: --sizes 16,64,256")
            path = str(Path(target.path).absolute())
            wanted: list[int | None] = [*sizes] if sizes is not None else [None]
            found += [(Task(target.name, path, size), _case(str(target), "", size, "", sides)) for size in wanted]
            continue
        for name in workloads.GROUPS.get(text, (text,)):
            workload = workloads.find(name)
            for size in sizes or (workload.sizes if by_size else (workload.size,)):
                case = _case(name, workload.summary, size, workload.unit, sides)
                found.append((Task(name, size=size, trains=workload.trains), case))
    return found


def _case(name: str, summary: str, size: int | None, unit: str, sides: Sequence[Side]) -> Case:
    return Case(name, summary, size, unit, {side.name: Outcome(side.name, compiles=side.compiled) for side in sides})


def _show(plan: Plan, comparison: Comparison, measure: bool) -> None:
    """Run the comparison before the reader's eyes: in place on a terminal, otherwise case by case."""
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = _console()
    left_out = [("left out", f"{names} ({reason})") for names, reason in _by_reason(comparison.absent)]
    for key, text in (*comparison.machine.items(), *left_out, ("method", comparison.method)):
        console.print(_beside(key, text, console.width))
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=console if console.is_terminal else _console(stderr=True), transient=True,
                        disable=not (console.is_terminal or sys.stderr.isatty()))
    bar = progress.add_task("", total=plan.steps)
    shown = 0

    def table() -> RenderableType:
        from rich.console import Group

        tables = [_table(case, comparison.absent, console.width) for case in comparison.cases[shown:]]
        return Group(*tables, "", progress)

    live = Live(get_renderable=table, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def print_done(until: int) -> None:
        nonlocal shown
        while shown < until:
            console.print(_table(comparison.cases[shown], comparison.absent, console.width))
            shown += 1

    def report(text: str) -> None:
        if text:
            print_done(len(comparison.cases) - 1)
            known = "" if live is None else f"{comparison.cases[-1].label}: "  # stands above the bar
            progress.update(bar, description=text.removeprefix(known))
        else:
            progress.advance(bar)

    try:
        with live if live is not None else progress:
            if measure:
                progress.update(bar, description="the machine's limits")
                comparison.limits = measure_limits(comparison.threads)
            run(plan, comparison, report)
    except KeyboardInterrupt:
        comparison.interrupted = True
    print_done(len(comparison.cases))
    _show_summary(console, plan, comparison)


def _beside(key: str, text: str, width: int) -> str:
    """A text beside what it is called, or below that where there is little room."""
    first, indent = f"{key + ':':<18} ", " " * (19 if width >= 72 else 2)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)


def _by_reason(found: dict[str, str]) -> list[tuple[str, str]]:
    reasons = dict.fromkeys(found.values())
    return [(", ".join(_TITLES[name] for name in found if found[name] == reason), reason) for reason in reasons]


def _table(case: Case, absent_sides: Collection[str], width: int) -> RenderableType:
    """What there is of a case so far, with the columns that there is room for."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    there = [outcome for outcome in case.outcomes.values() if outcome.side not in absent_sides]
    rows = [(_TITLES[outcome.side], _cells(case, outcome)) for outcome in there if outcome.status != "absent"]
    headings = _fitting(rows, width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("side", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, min_width=_COLUMNS[heading])
    for title, cells in rows:
        table.add_row(title, *(cells.get(heading, "") for heading in headings))
    notes = []
    for outcome in there:
        if outcome.problem is not None:
            notes.append(Text(f"{_TITLES[outcome.side]}: {outcome.problem}", style="red" if outcome.status == "wrong" else ""))
        elif outcome.unchecked:
            notes.append(Text(f"{_TITLES[outcome.side]}: returns nothing that could be compared"))
    title = f"{case.label}: {case.summary}" if case.summary else case.label
    return Group("", Text(title, style="bold"), table, *notes)


_COLUMNS = {"time": 7, "interval": 15, "speed-up": 8, "compile": 7, "cached": 7, "memory": 7, "outliers": 9}
"""With the widths that they have at least, so that nothing jumps as they fill."""
_DISPENSABLE = ("outliers", "cached", "memory", "interval", "compile")
"""Columns that are left out, the first one first, where the table would be too wide."""
_GAP = 2


def _fitting(rows: Sequence[tuple[str, Mapping[str, str]]], width: int) -> list[str]:
    """The columns that fit beside the names of the sides."""
    widths = {name: max(least, *(len(cells.get(name, "")) for _, cells in rows), 0) for name, least in _COLUMNS.items()}
    room = width - max((len(title) for title, _ in rows), default=0)
    for name in _DISPENSABLE:
        if sum(widths.values()) + _GAP * len(widths) > room:
            del widths[name]
    return list(widths)


def _cells(case: Case, outcome: Outcome) -> dict[str, str]:
    """What stands in the columns."""
    timing, speed_up = outcome.timing, case.speed_up(outcome)
    if timing is None or speed_up is None:
        return {"time": "" if outcome.status == "waiting" else outcome.status}
    cold, warm, memory = outcome.compile_seconds(warm=False), outcome.compile_seconds(warm=True), outcome.over_base
    return {
        "time": time_text(timing.median),
        "interval": interval_text(timing.low, timing.high),
        "speed-up": ratio_text(speed_up.median),
        "compile": "" if cold is None else time_text(cold),
        "cached": "" if warm is None else time_text(warm),
        "memory": "" if memory is None else bytes_text(memory),
        "outliers": f"{timing.outliers} of {timing.samples}",
    }


def _show_summary(console: Console, plan: Plan, comparison: Comparison) -> None:
    if comparison.interrupted:
        console.print("\ninterrupted: what there is so far")
    means = {side.title: comparison.mean_speed_up(side.name) for side in plan.sides}
    found = {title: mean for title, mean in means.items() if mean is not None}
    if len(plan.tasks) > 1 and len(found) > 1:
        console.print("\nspeed-up, geometric mean:")
        for title, (mean, count) in found.items():
            console.print(f"  {title + ':':<18} {ratio_text(mean)}  ({count} of {len(plan.tasks)})")
