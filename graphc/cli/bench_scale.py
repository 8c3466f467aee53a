"""`graphc bench --scale` and `--memory`: how time grows with size, and how much memory training steps take."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.benchmark.quantities import time_text
from graphc.cli.files import check_writable
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from graphc.benchmark.families import Family
    from graphc.benchmark.growth import Cliff, Point
    from graphc.benchmark.machine import Limits


def show_growth(
    only: str | None, threads: str | None, largest: float | None, seconds: float, json_file: str | None, svg_file: str | None
) -> None:
    """Time the families at all their sizes, and list where time grows too fast."""
    from rich.console import Console
    from rich.progress import Progress

    from graphc.benchmark.families import FAMILIES
    from graphc.benchmark.growth import cliffs, confirmed, measure, sizes, steepest_first
    from graphc.benchmark.machine import describe, measure_limits

    families, most = _chosen(FAMILIES, only), _whole(largest)
    counts = _thread_counts(threads)
    check_writable(json_file, svg_file)
    console = Console(width=None if sys.stdout.isatty() else 1_000_000, highlight=False, markup=False)
    machine = describe()
    for key, text in machine.items():
        console.print(f"{key + ':':<18} {text}")
    limits = {count: measure_limits(count) for count in counts}
    for limit in limits.values():
        fastest, slowest = max(limit.bandwidths.values()) / 1e9, limit.bandwidth(float("inf")) / 1e9
        speeds = f"{limit.flops / 1e9:.0f} GFLOP/s; copies {fastest:.0f} GB/s in caches, {slowest:.0f} GB/s in memory"
        console.print(f"{_threads(limit.threads) + ':':<18} {speeds}")
    points: list[Point] = []
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        task = progress.add_task("", total=sum(len(sizes(f, most)) for f in families) * len(counts))
        for family in families:
            progress.update(task, description=family.name)
            found = list(measure([family], limits, largest=most, seconds=seconds,
                                 progress=lambda point: progress.advance(task)))
            points += found
            console.print()
            _show(console, family, found)
    once, again = cliffs(points), []
    with progress:
        progress.update(task, description="cliffs, again", total=len(once), completed=0)
        for cliff in once:
            again.append(confirmed(cliff, seconds=seconds))
            progress.advance(task)
    steep = steepest_first(filter(None, again))
    console.print()
    _show_cliffs(console, steep)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(_as_json(machine, limits, points, steep), indent=1) + "\n")
    if svg_file is not None:
        Path(svg_file).write_text(_as_svg(machine, points))


def show_memory(only: str | None, json_file: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from graphc.benchmark.footprint import TRAININGS, measure

    names = _named(list(TRAININGS), only)
    check_writable(json_file)
    found = list(measure(names))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("training step", no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in ("base", "peak", "over the base"):
        table.add_column(title, justify="right", no_wrap=True)
    for footprint in found:
        numbers = (footprint.base, footprint.peak, footprint.over_base)
        shown = (footprint.error,) if footprint.error else [f"{number / 1e6:.0f} MB" for number in numbers]
        table.add_row(footprint.step, footprint.side, *shown)
    Console(width=None if sys.stdout.isatty() else 1_000_000, highlight=False, markup=False).print(table)
    if json_file is not None:
        Path(json_file).write_text(json.dumps([asdict(footprint) for footprint in found], indent=1) + "\n")


def _whole(number: float | None) -> int | None:
    if number is not None and not 1 <= number < math.inf:
        raise ArgumentError("--largest", expected="a number of elements, as in 1e6", got=str(number))
    return None if number is None else int(number)


def _chosen(families: Sequence[Family], only: str | None) -> list[Family]:
    wanted = _named([family.name for family in families], only)
    return [family for family in families if family.name in wanted]


def _named(names: list[str], only: str | None) -> list[str]:
    wanted = names if only is None else [name.strip() for name in only.split(",")]
    for name in wanted:
        if name not in names:
            raise ArgumentError(f"--only: there is no computation {name!r}", expected=f"some of {', '.join(names)}")
    return wanted


def _thread_counts(text: str | None) -> list[int]:
    if text is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return sorted({1, count})
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ArgumentError("--threads", expected="positive integers, as in 1,2", got=repr(text))
    return sorted({int(part) for part in parts})


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _show(console: Console, family: Family, points: Sequence[Point]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title=family.name, title_justify="left")
    for title in (family.unit, "threads", "time", "95% interval", "per element", "limit", "of the limit", "outliers"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        timing = point.timing
        if timing is None:
            table.add_row(f"{point.size:,}", str(point.threads), point.error or "")
            continue
        interval = f"{time_text(timing.low)} - {time_text(timing.high)}"
        table.add_row(f"{point.size:,}", str(point.threads), time_text(timing.median), interval, time_text(point.per_element),
                      time_text(point.limit), f"{100 * point.of_limit:.0f}%", f"{timing.outliers} of {timing.samples}")
    console.print(table)


def _show_cliffs(console: Console, found: Sequence[Cliff]) -> None:
    from graphc.benchmark.growth import STEEP

    own, machines = ([cliff for cliff in found if cliff.is_machines is whose] for whose in (False, True))
    if own:
        console.print(f"cliffs (over {STEEP} times the time for an element at a neighbouring size):")
    else:
        beyond = " beyond what the machine's copies show" if machines else ""
        console.print(f"no cliffs: nowhere does an element take {STEEP} times as long as at a neighbouring size{beyond}")
    for cliff in own:
        console.print(f"  {cliff}")
    if machines:
        console.print("the machine's own, whose copies of as many bytes show them:")
    for cliff in machines:
        console.print(f"  {cliff}")


def _as_json(
    machine: Mapping[str, str], limits: Mapping[int, Limits], points: Sequence[Point], steep: Sequence[Cliff]
) -> dict[str, Any]:
    def record(point: Point) -> dict[str, Any]:
        times = None if point.timing is None else asdict(point.timing)
        return {"computation": point.family.name, "size": point.size, "threads": point.threads, "limit": point.limit,
                "elements": point.family.elements(point.size), "seconds": times, "error": point.error}

    return {
        "machine": dict(machine),
        "limits": [asdict(limit) for limit in limits.values()],
        "times": [record(point) for point in points],
        "cliffs": [{"slow": record(c.slow), "plain": record(c.plain), "ratio": c.ratio, "machine": c.machine,
                    "is_machines": c.is_machines} for c in steep],
    }


def _as_svg(machine: Mapping[str, str], points: Sequence[Point]) -> str:
    from graphc.benchmark.chart import Chart, Line, page

    charts = []
    for family in dict.fromkeys(point.family for point in points):
        lines = []
        for colour, threads in enumerate(sorted({point.threads for point in points})):
            own = [p for p in points if p.family is family and p.threads == threads and p.timing is not None]
            times = [(float(p.size), 1e9 * p.per_element) for p in own]
            limit = [(float(p.size), 1e9 * p.limit / family.elements(p.size)) for p in own]
            lines += [Line(_threads(threads), times, colour), Line("limit", limit, colour, dashed=True)]
        charts.append(Chart(family.name, family.unit, "ns for an element", lines))
    return page(f"Time against size on {machine['CPU']}", charts)
