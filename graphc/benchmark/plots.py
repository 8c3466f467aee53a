"""Plots as inline SVG that fits any width: places across are percentages, places down are pixels, and text keeps its size.

Colours are those of classes: a mark of the series `torch-eager` has the class `s-torch-eager`; the page's style says the rest.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LABELS, _RIGHT = 29.0, 71.0
"""Where bars begin and end, in percent; their labels stand before them, their text behind."""
_ROW, _HEADING, _AXIS = 22, 26, 24
"""Heights in pixels."""
_PLOT_LEFT, _PLOT_WIDTH, _PLOT_TOP, _PLOT_HEIGHT = 13.0, 83.0, 12, 260
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Bar:
    """A value of one series."""

    series: str
    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    """An interval around the value."""
    faint: bool = False
    """Whether it is the lesser one of two bars of a series."""
    tip: str = ""
    """What it is called where there is room, if not by its label."""


@dataclass(frozen=True)
class Line:
    """Points of one series, in order."""

    series: str
    label: str
    points: Sequence[tuple[float, float]]


class Scale:
    """From numbers to parts of an axis, between 0 and 1."""

    def __init__(self, numbers: Sequence[float], *, logarithmic: bool, origin: float | None = None) -> None:
        self.logarithmic = logarithmic
        present = [number for number in (*numbers, *(() if origin is None else (origin,))) if number > 0 or not logarithmic]
        low, high = (min(present), max(present)) if present else (1.0, 1.0)
        self.low, self.high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        if self.high - self.low < 1e-9:  # about one number: room around it
            spread = 0.3 if logarithmic else abs(self.high) or 1.0
            self.high += spread
            self.low -= spread if logarithmic else 0.0
        self.origin = 0.0 if origin is None else self.part(origin)

    def part(self, number: float) -> float:
        if self.logarithmic:
            number = math.log10(number) if number > 0 else self.low
        return min(1.0, max(0.0, (number - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        """A handful of round numbers."""
        if not self.logarithmic:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
            step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 3)
            return [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 1.7 else (1, 3) if self.high - self.low < 2.6 else (1,)
        every = math.ceil(len(decades) / 6)
        found = [step * 10.0**decade for decade in decades if decade % every == 0 for step in steps]
        return [tick for tick in found if self.low - 1e-9 <= math.log10(tick) <= self.high + 1e-9]


def bars(
    title: str, description: str, groups: Sequence[tuple[str, Sequence[Bar]]], axis: Callable[[float], str], *,
    logarithmic: bool, origin: float | None = None,
) -> str:
    """Horizontal bars in groups, each with its label before it and its text behind it; `axis` writes the axis's numbers."""
    every = [bar for _, group in groups for bar in group]
    ends = [number for bar in every for number in (bar.value, bar.low, bar.high) if number is not None]
    scale = Scale(ends, logarithmic=logarithmic, origin=origin)
    height = _AXIS + sum(_HEADING + _ROW * len(group) for _, group in groups)
    parts = []
    for tick in scale.ticks():
        x = _across(scale.part(tick))
        kind = "grid origin" if origin is not None and tick == origin else "grid"
        parts.append(f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="{_AXIS - 4}" y2="{height}"/>')
        parts.append(f'<text class="tick" x="{x}%" y="{_AXIS - 9}" text-anchor="middle">{html.escape(axis(tick))}</text>')
    y = _AXIS
    for heading, group in groups:
        if heading:
            parts.append(f'<text class="heading" x="0" y="{y + 17}">{html.escape(heading)}</text>')
        y += _HEADING
        for bar in group:
            parts.append(_bar(bar, scale, y))
            y += _ROW
    return _svg(title, description, height, parts)


def _bar(bar: Bar, scale: Scale, y: int) -> str:
    first, last = sorted((_across(scale.origin), _across(scale.part(bar.value))))
    faint = " faint" if bar.faint else ""
    tip = html.escape(f"{bar.tip or bar.label}: {bar.text}")
    parts = [
        f'<g class="mark s-{bar.series}{faint}" data-tip="{tip}">',
        f'<text class="label" x="{_LABELS - 1.5}%" y="{y + 15}" text-anchor="end">{html.escape(bar.label)}</text>',
        f'<rect x="{first}%" y="{y + 3}" width="{max(last - first, 0.4):.2f}%" height="{_ROW - 6}" rx="2"/>',
    ]
    end = last
    if bar.low is not None and bar.high is not None:
        low, high = (_across(scale.part(each)) for each in (bar.low, bar.high))
        middle, top, bottom = y + _ROW / 2, y + 7, y + _ROW - 7
        parts.append(f'<g class="whisker"><line x1="{low}%" x2="{high}%" y1="{middle}" y2="{middle}"/>')
        parts += [f'<line x1="{x}%" x2="{x}%" y1="{top}" y2="{bottom}"/>' for x in (low, high)]
        parts.append("</g>")
        end = max(last, high)
    parts.append(f'<text x="{end}%" dx="6" y="{y + 15}">{html.escape(bar.text)}</text><title>{tip}</title></g>')
    return "".join(parts)


def _across(part: float) -> float:
    return round(_LABELS + part * (_RIGHT - _LABELS), 2)


def lines(
    title: str, description: str, series: Sequence[Line], x_title: str, x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> str:
    """Lines over logarithmic axes; the series `limit` is dashed and has no marks."""
    across = Scale([x for line in series for x, _ in line.points], logarithmic=True)
    up = Scale([y for line in series for _, y in line.points], logarithmic=True)
    bottom = _PLOT_TOP + _PLOT_HEIGHT
    parts = []
    for tick in across.ticks():
        x = round(_PLOT_LEFT + _PLOT_WIDTH * across.part(tick), 2)
        parts.append(f'<line class="grid" x1="{x}%" x2="{x}%" y1="{_PLOT_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}%" y="{bottom + 17}" text-anchor="middle">{html.escape(x_text(tick))}</text>')
    for tick in up.ticks():
        y = round(bottom - _PLOT_HEIGHT * up.part(tick), 1)
        parts.append(f'<line class="grid" x1="{_PLOT_LEFT}%" x2="{_PLOT_LEFT + _PLOT_WIDTH}%" y1="{y}" y2="{y}"/>')
        label = html.escape(y_text(tick))
        parts.append(f'<text class="tick" x="{_PLOT_LEFT}%" dx="-5" y="{y + 4}" text-anchor="end">{label}</text>')
    # the lines alone are stretched
    parts.append(f'<svg x="{_PLOT_LEFT}%" y="{_PLOT_TOP}" width="{_PLOT_WIDTH}%" height="{_PLOT_HEIGHT}" '
                 'viewBox="0 0 1000 1000" preserveAspectRatio="none" overflow="visible">')  # fmt: skip
    for line in series:
        route = " ".join(f"{1000 * across.part(x):.1f},{1000 - 1000 * up.part(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="mark s-{line.series}" points="{route}" vector-effect="non-scaling-stroke"/>')
    parts.append("</svg>")
    for line in series:
        if line.series == "limit":
            continue
        for x, y in line.points:
            place = f'cx="{_PLOT_LEFT + _PLOT_WIDTH * across.part(x):.2f}%" cy="{bottom - _PLOT_HEIGHT * up.part(y):.1f}"'
            tip = html.escape(f"{line.label}, {x_text(x)}: {y_text(y)}")
            parts.append(f'<g class="mark s-{line.series}" data-tip="{tip}"><circle {place} r="4"/><title>{tip}</title></g>')
    middle = _PLOT_LEFT + _PLOT_WIDTH / 2
    parts.append(f'<text x="{middle}%" y="{bottom + 36}" text-anchor="middle">{html.escape(x_title)}</text>')
    return _svg(title, description, bottom + 44, parts)


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    number = next(_numbers)
    names = f"plot-{number}-title plot-{number}-description"
    return (
        f'<svg class="plot" width="100%" height="{height}" role="img" aria-labelledby="{names}">'
        f'<title id="plot-{number}-title">{html.escape(title)}</title>'
        f'<desc id="plot-{number}-description">{html.escape(description)}</desc>{"".join(parts)}</svg>'
    )
