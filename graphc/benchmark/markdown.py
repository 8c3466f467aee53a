"""A comparison as a table in Markdown, for a README: a row for each case, a column for each side."""

from __future__ import annotations

from graphc.benchmark.quantities import ratio_text, time_text
from graphc.benchmark.results import Case, Comparison, Outcome
from graphc.benchmark.sides import SIDES

_TITLES = {side.name: side.title for side in SIDES}


def as_markdown(comparison: Comparison) -> str:
    """The median time of a call, the shortest one in bold, and in brackets how much longer the first calls take, where a side
    compiles; below it what it was measured on and how."""
    sides = [name for name in comparison.sides if any(case.outcomes[name].rounds for case in comparison.cases)]
    titles = [f"{_TITLES.get(name, name)} {comparison.sides[name] or ''}".rstrip() for name in sides]
    rows = [("", *titles), ("---", *("---:" for _ in sides))]
    rows += [(_label(case), *(_cell(case, case.outcomes[name]) for name in sides)) for case in comparison.cases]
    if len(comparison.cases) > 1:
        rows.append(("faster than the first, geometric mean", *(_mean(comparison, name) for name in sides)))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    machine = "; ".join(f"{key}: {text}" for key, text in comparison.machine.items())
    return f"{table}\n\n{machine}. {comparison.method}\n"


def _label(case: Case) -> str:
    size = case.label.removeprefix(case.name).removeprefix(", ")
    return f"`{case.name}`: {', '.join(filter(None, (case.summary, size)))}".removesuffix(": ")


def _cell(case: Case, outcome: Outcome) -> str:
    timing = outcome.timing
    if timing is None:
        return "" if outcome.status in ("absent", "waiting") else outcome.status
    text, first = time_text(timing.median), outcome.compile_seconds(warm=False)
    shortest = min(each.median for each in (other.timing for other in case.outcomes.values()) if each is not None)
    text = f"**{text}**" if timing.median == shortest else text
    return text if first is None else f"{text} ({time_text(first)})"


def _mean(comparison: Comparison, side: str) -> str:
    mean = comparison.mean_speed_up(side)
    if mean is None:
        return ""
    text, count = ratio_text(mean[0]), mean[1]
    return text if count == len(comparison.cases) else f"{text} (of {count})"
