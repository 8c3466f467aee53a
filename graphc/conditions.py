"""What a graph takes for granted of its symbolic sizes, written with its inputs: `%x: float32[N, 3] {where = ["N >= 2"]}`.

The conditions of all inputs hold together. Whoever runs the graph checks them once the sizes are known; whoever reads or
verifies it may rely on them, where a type rule asks whether one size is less than another.

>>> read_condition("2*N + 1 <= M")
M >= 2*N + 1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from graphc.assumptions import Assumptions, Relation
from graphc.dim_text import parse_dim
from graphc.dims import Dim, answering, decided
from graphc.errors import ShapeError

WHERE = "where"
"""The key of an input's `info` under which the conditions stand: a tuple of strings."""
_RELATION = re.compile(r"([^=<>!]+)(==|!=|>=|<=|>|<)([^=<>!]+)")
_MOST = 1000


def read_condition(text: str) -> Relation | None:
    """A condition as it is printed, such as `N >= 2`; None for one that holds for all sizes. ShapeError for what is none, or
    holds for no size."""
    found = _RELATION.fullmatch(text)
    if found is None or len(text) > _MOST:
        raise ShapeError(f"{text[:40]!r} is not a condition on sizes", expected="such as N >= 2 or M == 2*N")
    left, right = parse_dim(found[1]), parse_dim(found[3])
    relation = found[2]
    gap, relation = {
        "<=": (right - left, ">="), "<": (right - left - 1, ">="), ">": (left - right - 1, ">="),
    }.get(relation, (left - right, relation))  # fmt: skip
    known = decided(gap, relation.replace("!", "="))
    if known is not None:
        if known == (relation == "!="):
            raise ShapeError(f"{text!r} holds for no size")
        return None
    return Relation(gap, relation)


def conditions(infos: Iterable[Mapping[str, Any]]) -> list[Relation]:
    """The conditions that stand with a graph's inputs; ShapeError for what is none."""
    found: list[Relation] = []
    for info in infos:
        texts = info.get(WHERE, ())
        if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
            raise ShapeError(f"{WHERE} = {texts!r} is not a list of conditions", expected='such as ["N >= 2"]')
        found += [condition for text in texts if (condition := read_condition(text)) is not None]
    return found


def written(relations: Sequence[Relation]) -> dict[str, Any]:
    """The conditions as an input's `info`."""
    return {WHERE: tuple(map(str, relations))} if relations else {}


@contextmanager
def relying_on(stated: Sequence[Relation]) -> Iterator[None]:
    """While the type rules of a graph's nodes are asked, which has these conditions."""
    with answering(Given(stated)) if stated else nullcontext():
        yield


class Given(Assumptions):
    """Answers what follows from conditions, for whoever reads a graph: sizes that are not known to be equal are different."""

    def __init__(self, stated: Sequence[Relation]) -> None:
        super().__init__()
        for relation in stated:
            self._add(relation)

    def holds(self, difference: Dim, relation: str) -> bool:
        """Whether a difference of sizes is "==" or ">=" 0; ShapeError where the conditions do not say."""
        known = self.known(difference, relation)
        if known is None and relation == ">=":
            raise ShapeError(f"cannot tell whether {difference} >= 0", expected="what follows from the conditions of the graph")
        return bool(known)

    def number(self, size: Dim) -> int:
        """No number is known: a ShapeError."""
        raise ShapeError(f"the size {size} is not known", expected="a number")
