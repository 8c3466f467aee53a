"""A sample of the damaged files that `python tests/package_fuzz.py` reads a hundred thousand of."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_fuzz import corpus, mutated, read

FILES = corpus()


def test_the_files_are_good_and_damage_is_noticed() -> None:
    assert all(map(read, FILES))
    assert sum(read(mutated(random.Random(seed), FILES)) for seed in range(40)) < 20


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_a_fixed_sample(start: int) -> None:
    for seed in range(start, start + 100):
        read(mutated(random.Random(seed), FILES))


@settings(max_examples=100)
@given(st.randoms(use_true_random=False))
def test_any_damage(rng: random.Random) -> None:
    read(mutated(rng, FILES))
