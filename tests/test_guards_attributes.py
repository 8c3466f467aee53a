"""Attributes that a program writes to tensors, and values of the program's own classes: what a graph has read of them is
looked at again at each call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import graphc

x = graphc.tensor([1.0, 2.0])


def test_an_attribute_of_a_captured_tensor() -> None:
    weight: Any = graphc.tensor([3.0, 4.0])
    weight.scale = 2.0
    compiled = graphc.compile(lambda x: x * weight * weight.scale)
    for scale in (2.0, 2.0, 5.0, 5.0):
        weight.scale = scale
        for _ in range(3):
            assert compiled(x).tolist() == [3.0 * scale, 8.0 * scale]


def test_a_number_of_a_class_that_takes_all_for_equal() -> None:
    class Vague(float):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = float.__hash__

    settings = SimpleNamespace(scale=Vague(2.0))
    compiled = graphc.compile(lambda x: x * float.__add__(settings.scale, 0.0))
    for scale in (2.0, 3.0, 3.0):
        settings.scale = Vague(scale)
        for _ in range(3):
            assert compiled(x).tolist() == [scale, 2 * scale]


def test_numbers_of_numpy_are_compared_by_value() -> None:
    settings = SimpleNamespace(scale=np.float64(2.0))
    compiled = graphc.compile(lambda x: x * settings.scale)
    for _ in range(3):
        compiled(x)
    settings.scale = np.float64(2.0)
    compiled(x)
    assert "1 graph" in compiled.explain()


def test_stand_ins_of_one_class_for_objects_of_several() -> None:
    class StandIn:
        def __init__(self, behind: Any) -> None:
            self.behind = behind

        @property
        def __class__(self) -> type:  # type: ignore[override]
            return type(self.behind)

        def __iter__(self) -> Any:
            return iter(self.behind)

    chosen = {1}
    first, second = StandIn([0.0]), StandIn(chosen)
    compiled = graphc.compile(lambda x: x * sum(second) + sum(first))
    for number in (1, 1, 2, 2):
        chosen.clear()
        chosen.add(number)
        for _ in range(3):
            assert compiled(x).tolist() == [number, 2 * number]
