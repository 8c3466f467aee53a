"""What tiles of a convolution leave out, as it is zero: the padding of images.

Padding above and below an image is left out by beginning later, or stopping earlier, with the rows of the kernel. Of the
padding to its left and right, a tile leaves out single rows of its own, at some places of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphc import index
from graphc.backends.llvm.axes import Axes
from graphc.backends.llvm.lines import Lines
from graphc.expression import Axis
from graphc.kernel import Gemm
from graphc.sizes import is_static


@dataclass(frozen=True)
class Edge:
    """A margin that depends on one axis of the rows and one of the steps: position i on the one and t on the other, of `steps`,
    stand in line i * `row` + t * `step`, which is not zero from `begin` to `end` - 1."""

    rows: Axis
    taps: Axis
    row: int
    step: int
    begin: int
    end: int

    @property
    def steps(self) -> int:
        return int(self.taps.extent)


def edges(kernel: Gemm) -> Iterator[Edge]:
    """The margins of a product's left operand that are as simple as those of images."""
    for margin in kernel.margins:
        atoms, start = index.terms(margin.place)
        found = [axis for axis in (*kernel.batch, *kernel.m, *kernel.k) if index.stride(margin.place, axis) != 0]
        if len(found) != 2 or len(atoms) != 2 or found[0] not in kernel.m or found[1] not in kernel.k:
            continue
        row, step = (atoms.get(axis.value, 0) for axis in found)
        if is_static(row, step, start, found[1].extent) and row > 0 and step > 0:
            yield Edge(found[0], found[1], int(row), int(step), int(margin.begin - start), int(margin.end - start))


@dataclass(frozen=True)
class Skips:
    """The runs that a tile of rows leaves out: those of an edge whose steps are the first axis of runs. A tile's first row has
    the value u on axis `axis` of the lanes, its last one u + `span`."""

    edge: Edge
    axis: int
    span: int = 0

    @staticmethod
    def of(kernel: Gemm, m: Axes, steps: Axes) -> Skips | None:
        """What tiles of single rows may leave out."""
        found = (e for e in edges(kernel) if e.rows in m[:-1] and len(steps) > 1 and e.taps is steps[0])
        return next((Skips(edge, m.index(edge.rows)) for edge in found), None)

    def by(self, lines: Lines, m: Axes) -> Skips:
        """The same for tiles of lines that may have several rows."""
        is_last = self.axis == len(m) - 2
        return replace(self, span=(lines.size - 1) // int(m[-1].extent)) if is_last else self

    def bounds(self, u: int) -> tuple[int, int]:
        """The first step that a tile takes whose first row has this value, and the one after its last."""
        edge = self.edge
        first, last = edge.begin - (u + self.span) * edge.row, edge.end - u * edge.row
        return -(-max(first, 0) // edge.step), min(-(-max(last, 0) // edge.step), edge.steps)

    def share(self) -> float:
        """The part of the steps that is left, on average."""
        count = int(self.edge.rows.extent)
        starts = [min(u, count - 1 - self.span) for u in range(0, count, self.span + 1)]
        left = sum(max(0, last - first) for first, last in map(self.bounds, starts))
        return left / (len(starts) * self.edge.steps)


@dataclass(frozen=True)
class Trims:
    """Which of its rows a tile takes at each step of the last axis of runs.

    kinds
        the rows that are taken together at some step
    classes
        for each class of tiles the kind at each step
    numbers
        the class of each tile of a line
    """

    kinds: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]

    @staticmethod
    def of(edge: Edge, lines: Lines) -> Trims:
        """What is left of tiles whose rows run along an edge's."""
        row = int(edge.rows.extent)
        kinds: dict[tuple[int, ...], int] = {}
        classes: dict[tuple[int, ...], int] = {}
        numbers: list[int] = []
        for number in range(lines.tiles_of_line):
            places = [(lines.start(number) + i) % row * edge.row for i in range(lines.size)]
            taken: list[int] = []
            for t in range(edge.steps):
                rows = tuple(i for i, place in enumerate(places) if edge.begin <= place + t * edge.step < edge.end)
                taken.append(kinds.setdefault(rows, len(kinds)))
            numbers.append(classes.setdefault(tuple(taken), len(classes)))
        return Trims(tuple(kinds), tuple(classes), tuple(numbers))

    @property
    def sizes(self) -> list[int]:
        """How many rows are taken at each step by each tile of a line."""
        return [len(self.kinds[kind]) for number in self.numbers for kind in self.classes[number]]


class Left:
    """What is left of tiles of the rows `m`, without what they leave out."""

    def __init__(self, m: Axes, skips: Skips | None, edge: Edge | None) -> None:
        self.m = m
        self.skips = skips
        self.edge = edge
        self._shares: dict[Skips, float] = {}
        self._sizes: dict[Lines, list[int]] = {}

    def share(self, lines: Lines) -> float:
        """The part of the runs, on average."""
        if self.skips is None:
            return 1.0
        skips = self.skips.by(lines, self.m)
        if skips not in self._shares:
            self._shares[skips] = skips.share()
        return self._shares[skips]

    def sizes(self, lines: Lines) -> list[int]:
        """How many rows there are of a tile, for all that are different."""
        if self.edge is None:
            return [lines.size]
        if lines not in self._sizes:
            self._sizes[lines] = Trims.of(self.edge, lines).sizes
        return self._sizes[lines]
