"""Lines on logarithmic axes, as SVG text that needs nothing else and is legible on light and dark grounds."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 430, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 42
_COLUMNS = 2
_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7")
_STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #1f2937 } .title { font-size: 13px; font-weight: 600 }
  .grid { stroke: #9ca3af; stroke-opacity: .35; stroke-width: .6 } .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .ground { fill: #111827 } }
"""


@dataclass(frozen=True)
class Line:
    """One line of a chart, with a mark at each of its points."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    """Lines of one number have the same colour."""
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over common axes, both logarithmic."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def page(title: str, charts: Sequence[Chart]) -> str:
    """Charts side by side, as one SVG file."""
    rows = math.ceil(len(charts) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, 30 + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text class="title" x="14" y="20">{html.escape(title)}</text>',
    ]
    for number, chart in enumerate(charts):
        x, y = number % _COLUMNS * _WIDTH, 30 + number // _COLUMNS * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_chart(chart)}</g>')
    return "\n".join([*parts, "</svg>\n"])


class _Axis:
    """From numbers to places between two ends."""

    def __init__(self, numbers: Sequence[float], first: float, last: float) -> None:
        low, high = math.log10(min(numbers)), math.log10(max(numbers))
        if high - low < 0.5:  # about one number: room around it
            low, high = (low + high) / 2 - 0.25, (low + high) / 2 + 0.25
        margin = 0.04 * (high - low)
        self.low, self.high, self.first, self.last = low - margin, high + margin, first, last

    def place(self, number: float) -> float:
        part = (math.log10(number) - self.low) / (self.high - self.low)
        return round(self.first + part * (self.last - self.first), 1)

    def ticks(self) -> list[float]:
        """Powers of ten, and what is between them where there are few."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 2 else (1,)
        every = max(1, len(decades) // 6)
        ticks = [step * 10.0**decade for decade in decades if decade % every == 0 for step in steps]
        return [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]


def _chart(chart: Chart) -> str:
    points = [point for line in chart.lines for point in line.points]
    parts = [f'<text class="title" x="{_LEFT}" y="22">{html.escape(chart.title)}</text>']
    if not points:
        return parts[0]
    x_axis = _Axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    for tick in x_axis.ticks():
        x = x_axis.place(tick)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{html.escape(chart.x_label)}</text>')
    upright = f'transform="translate(13 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {upright}>{html.escape(chart.y_label)}</text>")
    for number, line in enumerate(chart.lines):
        colour = _COLOURS[line.colour % len(_COLOURS)]
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in line.points]
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        route = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{route}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        if not line.dashed:
            parts += [f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in places]
        y = _TOP + 12 + 13 * number
        parts.append(f'<path d="M{_WIDTH - 108} {y - 4}h18" stroke="{colour}" stroke-width="1.6"{dash}/>')
        parts.append(f'<text x="{_WIDTH - 86}" y="{y}">{html.escape(line.label)}</text>')
    return "".join(parts)


def _number(value: float) -> str:
    """
    >>> [_number(v) for v in (0.02, 1.0, 5000.0, 1e6, 1e-5)]
    ['0.02', '1', '5k', '1M', '1e-05']
    """
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:g}{letter}"
    return f"{value:g}"
