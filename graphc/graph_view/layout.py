"""Where the nodes of a graph are drawn: in layers by depth, each near what it is computed from and what it is computed for.

Layers are longest paths, but for what is used late and needs little. Within a layer nodes stand in the order of the places that
they would like to have, which are the means of their neighbours', and as near to these as others let them: by the method of
pooling adjacent violators (Ayer et al. 1955), which is exact and takes linear time. Sweeps go down and up a few times, so all
of it is near-linear in nodes and edges. Parts that are not connected are arranged by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SWEEPS = 6
_BESIDE = 1.0
"""Columns between parts that are not connected."""


@dataclass(frozen=True)
class Layout:
    """The place of each node: its layer from the top, and how far to the right, in widths of a node."""

    layers: list[int]
    columns: list[float]


def layered(operands: Sequence[Sequence[int]]) -> Layout:
    """Places for nodes of which each comes after its operands, given by number.

    >>> layered([[], [], [0, 1], [2]])
    Layout(layers=[0, 0, 1, 2], columns=[0.0, 1.0, 0.5, 0.5])
    """
    users: list[list[int]] = [[] for _ in operands]
    for node, own in enumerate(operands):
        for operand in dict.fromkeys(own):
            users[operand].append(node)
    layers = _layers(operands, users)
    columns = [0.0] * len(operands)
    parts = _parts(operands, users)
    shelves = _Shelves()
    for part in sorted(parts, key=len, reverse=True):
        top = min(layers[node] for node in part)
        for node in part:
            layers[node] -= top
        width = _arrange(part, operands, users, layers, columns)
        left, down = shelves.place(width, 1 + max(layers[node] for node in part))
        for node in part:
            columns[node] += left
            layers[node] += down
    return Layout(layers, columns)


class _Shelves:
    """Puts rectangles side by side, and small ones one below the other, as far down as the first one reaches."""

    def __init__(self) -> None:
        self._height = 0
        self._left = self._right = 0.0
        self._down = 0

    def place(self, width: float, height: int) -> tuple[float, int]:
        """The left edge and the top of the next one."""
        if self._height == 0:
            self._height = height
        elif self._down + height > self._height:
            self._left, self._down = self._right + _BESIDE, 0
        where = self._left, self._down
        self._right = max(self._right, self._left + width)
        self._down += height + 1
        return where


def _parts(operands: Sequence[Sequence[int]], users: Sequence[Sequence[int]]) -> list[list[int]]:
    """The nodes of each connected part, in their order."""
    part = [-1] * len(operands)
    count = 0
    for start in range(len(operands)):
        if part[start] >= 0:
            continue
        part[start] = count
        pending = [start]
        while pending:
            node = pending.pop()
            for other in (*operands[node], *users[node]):
                if part[other] < 0:
                    part[other] = count
                    pending.append(other)
        count += 1
    found: list[list[int]] = [[] for _ in range(count)]
    for node, number in enumerate(part):
        found[number].append(node)
    return found


def _layers(operands: Sequence[Sequence[int]], users: Sequence[Sequence[int]]) -> list[int]:
    """The longest path to each node from the top. What more lines lead away from than to it stands right above its first user
    instead. Not counted are lines from operands that it alone uses, which come along, and from inputs."""
    layers: list[int] = []
    for own in operands:
        layers.append(1 + max((layers[operand] for operand in own), default=-1))
    for node in reversed(range(len(operands))):
        shared = sum(len(users[operand]) > 1 and len(operands[operand]) > 0 for operand in dict.fromkeys(operands[node]))
        if len(users[node]) > shared:
            layers[node] = min(layers[user] for user in users[node]) - 1
    return layers


def _arrange(
    part: Sequence[int], operands: Sequence[Sequence[int]], users: Sequence[Sequence[int]], layers: Sequence[int],
    columns: list[float],
) -> float:
    """Give the nodes of a part their columns, from 0 on; returns how many it takes."""
    rows: list[list[int]] = [[] for _ in range(1 + max(layers[node] for node in part))]
    for node in part:
        columns[node] = float(len(rows[layers[node]]))
        rows[layers[node]].append(node)
    for row in rows:
        for node in row:
            columns[node] -= (len(row) - 1) / 2
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near, far = (operands, users) if down else (users, operands)
        for row in rows if down else reversed(rows):
            # what has nothing in the direction that the sweep comes from goes to where the others are
            wishes = [_mean(near[node] or far[node], columns, columns[node]) for node in row]
            order = sorted(range(len(row)), key=lambda i: (wishes[i], columns[row[i]]))
            for i, column in zip(order, _apart([wishes[i] for i in order])):
                columns[row[i]] = column
    left = min(columns[node] for node in part)
    for node in part:
        columns[node] -= left
    return 1 + max(columns[node] for node in part)


def _mean(nodes: Sequence[int], columns: Sequence[float], otherwise: float) -> float:
    return sum(columns[node] for node in nodes) / len(nodes) if nodes else otherwise


def _apart(wishes: Sequence[float]) -> list[float]:
    """Places in this order that are 1 apart at least, with the least sum of squares of the distances to the wishes."""
    blocks: list[tuple[float, int]] = []  # the sum of what is wished for their first place, and how many are in them
    for number, wish in enumerate(wishes):
        total, count = wish - number, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    places: list[float] = []
    for total, count in blocks:
        first = total / count + len(places)
        places += [first + i for i in range(count)]
    return places
