"""A comparison as one HTML page that needs nothing else: plots, each beside the table of its numbers."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from graphc.benchmark.plots import Bar, Line, bars, lines
from graphc.benchmark.quantities import bytes_text, interval_text, ratio_text, time_text
from graphc.benchmark.results import Case, Comparison, Outcome
from graphc.benchmark.sides import SIDES
from graphc.benchmark.timing import coverage

_TITLES = {side.name: side.title for side in SIDES}
_FEWEST_SIZES = 3
"""From how many sizes on a workload's times are drawn by size."""
_MOST_PARTS, _LONGEST = 10, 14
"""How many parts of a call are drawn, and how many letters of their names."""


def page(comparison: Comparison) -> str:
    """The whole page.

    >>> "<h1>" in page(Comparison({}, 1, [], 9, 0.1, {}, {}))
    True
    """
    own = Path(__file__)
    style, code = (own.with_name(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    names = list(dict.fromkeys(case.name for case in comparison.cases))
    title = f"Speed of {names[0]}" if len(names) == 1 else f"Speed of {len(names)} workloads"
    body = [
        *_head(title, comparison), *_speed(comparison), *_by_size(comparison), *_compilation(comparison), *_memory(comparison),
        *_parts(comparison), *_problems(comparison), *_machine(comparison),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f'\n<div id="tip" hidden></div>\n<script>\n{code}</script>\n</body>\n</html>\n'
    )


def _head(title: str, comparison: Comparison) -> Iterator[str]:
    yield f"<h1>{html.escape(title)}</h1>"
    yield f'<p class="quiet">{html.escape(comparison.machine.get("CPU", ""))}</p>'
    if comparison.interrupted:
        yield '<p class="bad">Interrupted: these are the results so far.</p>'
    reference = _reference(comparison)
    tiles = []
    for side in comparison.sides:
        mean = comparison.mean_speed_up(side)
        if mean is None or side == reference:
            continue
        of = f"geometric mean of {mean[1]}" if mean[1] > 1 else "one measurement"
        tiles.append(f'<li class="s-{side}"><span>{_TITLES.get(side, side)}</span><strong>{ratio_text(mean[0])}</strong>'
                     f'<span class="quiet">as fast as {_TITLES.get(reference, reference)}: {of}</span></li>')  # fmt: skip
    if tiles:
        yield f'<ul class="tiles">{"".join(tiles)}</ul>'
    buttons = [f'<button type="button" class="s-{side}" value="{side}" aria-pressed="false">{_TITLES.get(side, side)}</button>'
               for side in comparison.sides]  # fmt: skip
    yield f'<div class="legend" role="group" aria-label="Show one side more clearly">{"".join(buttons)}</div>'


def _reference(comparison: Comparison) -> str:
    return next((case.reference.side for case in comparison.cases if case.reference is not None), "")


def _shown(comparison: Comparison) -> list[Case]:
    """Of each workload one size: the largest that was timed."""
    largest: dict[str, Case] = {}
    for case in comparison.cases:
        if case.reference is not None:
            largest[case.name] = max(largest.get(case.name, case), case, key=lambda c: c.size or 0)
    return list(largest.values())


def _timed(case: Case) -> list[Outcome]:
    return [outcome for outcome in case.outcomes.values() if outcome.rounds]


def _speed(comparison: Comparison) -> Iterator[str]:
    shown = _shown(comparison)
    if not shown:
        return
    reference = _TITLES.get(_reference(comparison), "")
    groups = []
    for case in shown:
        group = []
        for outcome in _timed(case):
            speed_up, timing = case.speed_up(outcome), outcome.timing
            assert speed_up is not None and timing is not None
            text = f"{ratio_text(speed_up.median)}, {time_text(timing.median)}"
            group.append(Bar(outcome.side, _TITLES[outcome.side], speed_up.median, text, speed_up.low, speed_up.high))
        groups.append((case.label, group))
    plot = bars("Speed-up", f"How many times as fast as {reference} each side is; the table has the numbers.", groups,
                lambda tick: f"{tick:g}x", logarithmic=True, origin=1.0)  # fmt: skip

    def cells(case: Case, outcome: Outcome) -> list[str]:
        timing, speed_up = outcome.timing, case.speed_up(outcome)
        if timing is None or speed_up is None:
            return [outcome.status, "", "", ""]
        return [time_text(timing.median), interval_text(timing.low, timing.high), ratio_text(speed_up.median),
                f"{timing.outliers} of {timing.samples}"]  # fmt: skip

    yield "<h2>Speed</h2>"
    several = " Of each workload the largest size is drawn." if len(shown) < len(comparison.cases) else ""
    intervals = f"{coverage(comparison.rounds)}% intervals"
    yield f"<p>How many times as fast as {reference}, with {intervals}, on a logarithmic axis.{several}</p>"
    heads = ("side", "time", "interval", "speed-up", "outliers")
    yield _pair(plot, _table("Times of a call", heads, comparison.cases, cells))


def _by_size(comparison: Comparison) -> Iterator[str]:
    names = list(dict.fromkeys(case.name for case in comparison.cases))
    drawn = []
    for name in names:
        cases = sorted((c for c in comparison.cases if c.name == name and c.size and c.reference), key=lambda c: c.size or 0)
        if len(cases) >= _FEWEST_SIZES:
            drawn.append((name, cases))
    if not drawn:
        return
    yield "<h2>Time by size</h2>"
    yield ("<p>The dashed line is what the machine allows for at best: the operations at its measured speed of multiplying and "
           "adding, or the bytes at that of copying, whichever takes longer.</p>")  # fmt: skip
    for name, cases in drawn:
        series = []
        for side in cases[0].outcomes:
            points = [(float(c.size or 0), t.median) for c in cases if (t := c.outcomes[side].timing) is not None]
            if points:
                series.append(Line(side, _TITLES[side], points))
        limit = [(float(c.size or 0), seconds) for c in cases if (seconds := _limit(comparison, c)) is not None]
        if limit:
            series.append(Line("limit", "the machine's limit", limit))
        unit = cases[0].unit or "size"
        plot = lines(f"{name}: time by size", "The time of a call against its size; the table has the numbers.", series, unit,
                     _count_text, time_text)  # fmt: skip
        keys = "".join(f'<span class="key s-{line.series}">{line.label}</span>' for line in series)
        rows = []
        for case in cases:
            seconds = _limit(comparison, case)
            times = [time_text(t.median) if (t := case.outcomes[line.series].timing) is not None else ""
                     for line in series if line.series != "limit"]  # fmt: skip
            rows.append([f"{case.size:,}", *times, *([] if not limit else ["" if seconds is None else time_text(seconds)])])
        table = _plain_table(f"{name}: times of a call", [unit, *(line.label for line in series)], rows)
        yield f"<h3>{html.escape(name)}</h3><div>{keys}</div>{_pair(plot, table)}"


def _limit(comparison: Comparison, case: Case) -> float | None:
    """The least time that the machine needs for a case, as far as that is known."""
    if comparison.limits is None or case.flops is None or case.nbytes is None:
        return None
    return comparison.limits.seconds(case.flops, case.nbytes, case.nbytes)


def _count_text(number: float) -> str:
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g}{letter}"
    return f"{number:g}"


def _compilation(comparison: Comparison) -> Iterator[str]:
    groups = []
    for case in _shown(comparison):
        group = []
        for outcome in _timed(case):
            for warm in (False, True):
                seconds = outcome.compile_seconds(warm)
                if seconds:
                    title = _TITLES[outcome.side]
                    label, tip = ("cached", f"{title}, cached") if warm else (title, "")
                    group.append(Bar(outcome.side, label, seconds, time_text(seconds), faint=warm, tip=tip))
        groups.append((case.label, group))
    groups = [(label, group) for label, group in groups if group]
    if not groups:
        return
    plot = bars("Compile time", "How long compiling takes, in a first process and with a cache; the table has the numbers.",
                groups, time_text, logarithmic=True)  # fmt: skip

    def cells(case: Case, outcome: Outcome) -> list[str]:
        found = (outcome.compile_seconds(warm=False), outcome.compile_seconds(warm=True))
        return ["" if seconds is None else time_text(seconds) for seconds in found]

    yield "<h2>Compile time</h2>"
    yield (
        "<p>How much longer the first three calls take than later ones, on a logarithmic axis: tracing, compiling, loading. "
        "A second process finds in the cache what the first one has left there.</p>"
    )
    yield _pair(plot, _table("Compile time", ("side", "first process", "cached"), comparison.cases, cells,
                             lambda outcome: outcome.compiles))  # fmt: skip


def _memory(comparison: Comparison) -> Iterator[str]:
    groups = [(case.label, [Bar(o.side, _TITLES[o.side], o.over_base, bytes_text(o.over_base))
                            for o in _timed(case) if o.over_base is not None])
              for case in _shown(comparison)]  # fmt: skip
    groups = [(label, group) for label, group in groups if group]
    if not groups:
        return
    plot = bars("Memory", "The most memory of each process over that of the library alone; the table has the numbers.",
                groups, bytes_text, logarithmic=False, origin=0.0)  # fmt: skip

    def cells(case: Case, outcome: Outcome) -> list[str]:
        compiling = None if outcome.peak_compiling is None or outcome.base is None else outcome.peak_compiling - outcome.base
        return ["" if n is None else bytes_text(n) for n in (outcome.base, outcome.over_base, compiling)]

    yield "<h2>Memory</h2>"
    yield "<p>The most that a process has had, over what it had when the library was loaded.</p>"
    yield _pair(plot, _table("Memory", ("side", "library alone", "over it", "in the process that compiled"),
                             comparison.cases, cells))  # fmt: skip


def _parts(comparison: Comparison) -> Iterator[str]:
    cases = [case for case in _shown(comparison) if any(outcome.parts for outcome in case.outcomes.values())]
    if not cases:
        return
    yield "<h2>Where the time goes</h2>"
    yield (
        "<p>Eagerly by operation, compiled by kernel, which does the work of several; measured while each of them is recorded, "
        "which takes some time itself. What is around kernels is that of the call.</p>"
    )
    for case in cases:
        groups, rows = [], []
        for outcome in _timed(case):
            if not outcome.parts:
                continue
            whole = sum(part.seconds for part in outcome.parts)
            group = [Bar(outcome.side, _cut(part.name), part.seconds, f"{time_text(part.seconds)}, {part.seconds / whole:.0%}",
                         tip=part.name) for part in outcome.parts[:_MOST_PARTS]]  # fmt: skip
            rest = sum(part.seconds for part in outcome.parts[_MOST_PARTS:])
            if rest:
                number = len(outcome.parts) - _MOST_PARTS
                text = f"{time_text(rest)}, {rest / whole:.0%}"
                group.append(Bar(outcome.side, f"{number} more", rest, text, faint=True))
            groups.append((f"{_TITLES[outcome.side]}: {time_text(whole)}", group))
            rows += [[part.name, _TITLES[outcome.side], part.kind, f"{part.calls:g}", time_text(part.seconds),
                      f"{part.flops / part.seconds / 1e9:.1f}" if part.flops else ""] for part in outcome.parts]  # fmt: skip
        title = f"{case.label}: where the time goes"
        plot = bars(title, "The time of each operation and each kernel; the table has the numbers.", groups, time_text,
                    logarithmic=False, origin=0.0)  # fmt: skip
        table = _plain_table(title, ("part", "side", "kind", "calls", "time", "GFLOP/s"), rows)
        yield f"<h3>{html.escape(case.label)}</h3>{_pair(plot, table)}"


def _cut(name: str) -> str:
    """What of a name there is room for before a bar."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\u2026"


def _problems(comparison: Comparison) -> Iterator[str]:
    rows = [[case.label, _TITLES.get(o.side, o.side), o.status, o.problem or ""]
            for case, o in comparison.outcomes() if o.problem is not None and o.side not in comparison.absent]  # fmt: skip
    rows += [[case.label, _TITLES.get(o.side, o.side), "unchecked", "the function returns nothing that could be compared"]
             for case, o in comparison.outcomes() if o.unchecked]  # fmt: skip
    if not rows and not comparison.absent:
        return
    yield "<h2>What was not compared</h2>"
    for reason in dict.fromkeys(comparison.absent.values()):
        names = ", ".join(_TITLES.get(side, side) for side, why in comparison.absent.items() if why == reason)
        yield f"<p>{html.escape(names)}: {html.escape(reason)}.</p>"
    if rows:
        yield _plain_table("Sides without times, or without a check", ("workload", "side", "", "why"), rows, text=(1, 2, 3))


def _machine(comparison: Comparison) -> Iterator[str]:
    yield "<h2>How it was measured</h2>"
    yield f"<p>{html.escape(comparison.method)}</p>"
    facts = dict(comparison.machine)
    sides = (f"{_TITLES.get(side, side)} {version or '(not run)'}" for side, version in comparison.sides.items())
    facts["sides"] = ", ".join(sides)
    if comparison.limits is not None:
        speeds = comparison.limits.bandwidths.values()
        copies = f"{max(speeds) / 1e9:.0f} GB/s in caches, {comparison.limits.bandwidth(float('inf')) / 1e9:.0f} GB/s in memory"
        facts["limits"] = f"{comparison.limits.flops / 1e9:.0f} GFLOP/s in single precision; copies {copies}"
    yield "<dl>" + "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>" for key, text in facts.items()) + "</dl>"


def _pair(plot: str, table: str) -> str:
    return f'<div class="pair"><figure style="margin:0">{plot}</figure>{table}</div>'


def _table(
    caption: str, heads: Sequence[str], cases: Sequence[Case], cells: Callable[[Case, Outcome], list[str]],
    wanted: Callable[[Outcome], bool] = lambda outcome: True,
) -> str:
    """A row for each side that took part, under the name of its case."""
    rows = []
    for case in cases:
        summary = f"{case.label}: {case.summary}" if case.summary else case.label
        rows.append(f'<tr class="group"><th colspan="{len(heads)}" scope="rowgroup">{html.escape(summary)}</th></tr>')
        for outcome in case.outcomes.values():
            if outcome.status != "absent" and wanted(outcome):
                name = f'<span class="dot s-{outcome.side}"></span>{html.escape(_TITLES.get(outcome.side, outcome.side))}'
                rest = "".join(f"<td>{_cell(text)}</td>" for text in cells(case, outcome))
                rows.append(f'<tr><th scope="row">{name}</th>{rest}</tr>')
    return _framed(caption, heads, "".join(rows))


def _plain_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = ()) -> str:
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td{' class=text' if place in text else ''}>{_cell(cell)}</td>" for place, cell in enumerate(rest, 1))
        body.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    return _framed(caption, heads, "".join(body))


def _framed(caption: str, heads: Sequence[str], body: str) -> str:
    columns = "".join(f'<th scope="col"{" class=text" if not number else ""}>{html.escape(head)}</th>'
                      for number, head in enumerate(heads))  # fmt: skip
    name = html.escape(caption)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><caption>{name}</caption>'
            f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>")  # fmt: skip


def _cell(text: str) -> str:
    escaped = html.escape(text)
    return f'<span class="bad">{escaped}</span>' if text in ("wrong", "failed") else escaped
