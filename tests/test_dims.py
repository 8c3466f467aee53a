"""Symbolic sizes: their normal form, what is known of all of them, and what is assumed of an example."""

from __future__ import annotations

import copy
import pickle
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.assumptions import Assumptions, assuming, evaluate
from graphc.bind import solve
from graphc.dim_text import parse_dim
from graphc.dims import Dim, bounds, decided, surely_less
from graphc.errors import ShapeError
from graphc.parse import parse_graph
from graphc.text import print_attribute

N, M, K = map(Dim.symbol, "NMK")
ENV = {"N": N, "M": M, "K": K}


def random_size(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(["N", "M", "K", str(rng.randint(0, 9))])
    left, right = random_size(rng, depth - 1), random_size(rng, depth - 1)
    match rng.randrange(6):
        case 0 | 1:
            return f"({left} {rng.choice('+-')} {right})"
        case 2:
            return f"({left} * {right})"
        case 3:
            return f"({left} // {rng.choice([-3, -1, 1, 2, 3, 4, 6])})"
        case 4:
            return f"({left} % {rng.choice([-2, 1, 2, 3, 4])})"
    return f"({left} // ({right} * {right} + 1))"


seeds = st.integers(0, 2**32)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_arithmetic_agrees_with_that_of_numbers(seed: int) -> None:
    rng = random.Random(seed)
    text = random_size(rng, 4)
    size = eval(text, dict(ENV))
    numbers = {name: rng.randint(0, 30) for name in ENV}
    expected = eval(text, dict(numbers))
    if isinstance(size, Dim):
        assert size.bind(numbers) == expected
        assert size.symbols() <= ENV.keys()
        half = size.bind({"N": numbers["N"]})
        assert (half.bind(numbers) if isinstance(half, Dim) else half) == expected
        low, high = bounds(size, dict.fromkeys(ENV, (0, 30)))
        assert low <= expected <= high
        for relation, truth in (("==", expected == 0), (">=", expected >= 0)):
            for ranges in ({}, {name: (value, value + 3) for name, value in numbers.items()}):
                assert decided(size, relation, ranges) in (truth, None)
    else:
        assert size == expected


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_sizes_read_as_they_are_printed(seed: int) -> None:
    size = eval(random_size(random.Random(seed), 4), dict(ENV))
    assert parse_dim(str(size)) == size
    assert pickle.loads(pickle.dumps(size)) == size == copy.deepcopy(size)
    if len(str(size)) < 400:
        text = f"graph @g(%x: float32[{size}] {{size = {print_attribute(size)}}}) -> float32[{size}] {{\n  return %x\n}}"
        if not isinstance(size, int):
            (x,) = parse_graph(text).inputs
            assert x.shape == (size,) and x.info["size"] == size


@pytest.mark.parametrize("text, same", [
    ("(N//2)//3", "N//6"),
    ("((N + 1)//2 + 1)//2", "(N + 3)//4"),
    ("(2*N + 1)//4", "N//2"),
    ("(6*N)//3", "2*N"),
    ("(N + 7)//4", "(N + 3)//4 + 1"),
    ("(5*N + 3)//4", "N + (N + 3)//4"),
    ("(N*M)//M", "N"),
    ("(2*N + 1)//(2*N + 1)", "1"),
])
def test_quotients_have_one_form(text: str, same: str) -> None:
    assert parse_dim(text) == parse_dim(same)


def test_rounding_up_is_rounding_down_of_more() -> None:
    assert -(-N // 4) == (N + 3) // 4
    assert (N // 4) * 4 + N % 4 == N
    assert divmod(N, 3) == (N // 3, N - 3 * (N // 3))
    assert 7 // N != 7 // M and 0 // N == 0
    assert N**2 == N * N and +N is N and round(N) is N


def test_how_sizes_print() -> None:
    assert str(3 * ((N + 1) // 2) - M) == "3*((N + 1)//2) - M"
    assert str(N // (M + 1)) == "N//(M + 1)"
    assert print_attribute((N + 1) // 2) == "size((N + 1)//2)"


@pytest.mark.parametrize("text", ["", "N +", "(N", "N)", "2*", "N$", "N / 2", "//2", "N 2", "(" * 40 + "N" + ")" * 40, "N//0"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ShapeError):
        parse_dim(text)


def test_a_quotient_has_a_bound() -> None:
    size: Any = N
    with pytest.raises(ShapeError, match="too many parts"):
        for _ in range(200):
            size = size // (M + size)


def test_what_holds_for_all_sizes_needs_no_assumption() -> None:
    assert N >= 0 and N + 1 > 0 and N * M + 1 >= 1 and N - 2 * N <= 0
    assert not N < 0 and not -N > 0
    assert N // 2 <= N and (N + 1) // 2 >= N // 2
    assert bool(N + 1) and not surely_less(N, 2) and surely_less(N, N + 1)


def test_without_assumptions_equal_is_the_same_and_less_is_unknown() -> None:
    assert N != M and N != 3 and N == N * 2 - N
    assert N != "N" and N not in (1, M) and {N: 1}[N + M - M] == 1
    for undecided in (lambda: N < 3, lambda: N >= M, lambda: max(N, M), lambda: int(N), lambda: range(N), lambda: float(N)):
        with pytest.raises(ShapeError, match="N"):
            undecided()


def test_answers_are_those_of_the_hints_and_become_guards() -> None:
    with assuming({"N": 6, "M": 4}) as sizes:
        assert N > 4
        assert N > 3 and N + 1 >= 6  # known by now
        assert N != M and M != N
        assert max(N, 2 * M) == 2 * M
    assert [str(guard) for guard in sizes.conditions()] == ["N >= 5", "N != M", "2*M >= N + 1"]
    assert all(guard.location and guard.location.file == __file__ for guard in sizes.conditions())
    assert evaluate(sizes.conditions(), {"N": 7, "M": 5}) is None
    assert str(evaluate(sizes.conditions(), {"N": 4, "M": 5})) == "N >= 5, but N is 4"
    assert str(evaluate(sizes.conditions(), {"N": 11, "M": 5})) == "2*M >= N + 1, but 2*M is 10 and N + 1 is 12"


def test_equal_products_have_equal_factors() -> None:
    with assuming({"N": 6, "M": 9, "A": 6, "B": 9}) as sizes:
        assert Dim.symbol("N") * Dim.symbol("M") == Dim.symbol("A") * Dim.symbol("B")
    assert sizes.solved == {"A": Dim.symbol("N"), "B": Dim.symbol("M")} and not sizes.conditions()
    with assuming({"N": 6, "M": 9, "A": 3, "B": 18}) as sizes:
        assert Dim.symbol("N") * Dim.symbol("M") == Dim.symbol("A") * Dim.symbol("B")
    assert sizes.solved == {"N": 6, "M": 9, "A": 3, "B": 18}


def test_equal_sizes_become_one() -> None:
    with assuming({"N": 6, "M": 6, "K": 13}) as sizes:
        assert N == M and 2 * M + 1 == K
        assert N + M == 2 * M
    assert sizes.solved == {"M": N, "K": 2 * N + 1} and sizes.conditions() == []
    assert sizes.resolve(M * K) == 2 * N * N + N


def test_a_multiple_is_written_as_one() -> None:
    with assuming({"N": 12, "M": 7}) as sizes:
        assert N % 4 == 0
        assert N % 2 == 0 and (N // 4) * 4 == N
        assert M % 2 == 1 and M % 2 != 0
        assert N % 8 == 4
    (count, other) = (sizes.resolve(N), sizes.resolve(M))
    assert isinstance(count, Dim) and str(count) == "8*N_4_2 + 4"
    assert str(other) == "2*M_2 + 1" and sizes.conditions() == []
    assert solve([(count,)], [(20,)]) == {"N_4_2": 2} and solve([(count,)], [(21,)]) == {}


def test_a_number_that_python_needs_is_that_of_the_example() -> None:
    with assuming({"N": 3, "M": 4}) as sizes:
        assert list(range(N)) == [0, 1, 2] and int(M // 2) == 2 and float(N) == 3.0
        assert N == 3 and N != 4
    assert sizes.solved == {"N": 3, "M": 4}


def test_what_was_known_of_a_symbol_holds_for_what_it_is() -> None:
    with assuming(Assumptions({"N": 6, "M": 12}, {"N": (0, 100), "M": (4, 20)})) as sizes:
        assert M == 2 * N
        assert N >= 2 and not N > 10
    assert [str(guard) for guard in sizes.conditions()] == ["N >= 2", "N <= 10"]


def test_assumptions_are_those_of_one_thread() -> None:
    seen = []

    def other() -> None:
        try:
            seen.append(N > 3)
        except ShapeError as error:
            seen.append(error)

    with assuming({"N": 6}):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert isinstance(seen[0], ShapeError)


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_sizes_that_keep_the_guards_get_the_same_answers(seed: int) -> None:
    rng = random.Random(seed)
    questions = [(random_size(rng, 2), rng.choice(["==", "!=", "<", ">=", ">"]), random_size(rng, 2)) for _ in range(4)]
    hints = {name: rng.randint(0, 6) for name in ENV}

    def answers(env: dict[str, Any]) -> list[bool]:
        return [eval(f"({left}) {relation} ({right})", dict(env)) for left, relation, right in questions]

    with assuming(hints) as sizes:
        given_answers = answers(ENV)
    assert given_answers == answers(hints)
    patterns = [sizes.resolve(size) for size in ENV.values()]
    for _ in range(10):
        numbers = {name: rng.randint(0, 6) for name in ENV}
        fresh = solve([patterns], [list(numbers.values())])
        fits = all((p.bind(fresh) if isinstance(p, Dim) else p) == n for p, n in zip(patterns, numbers.values()))
        if fits and evaluate(sizes.conditions(), fresh) is None:
            assert answers(numbers) == given_answers
    assert evaluate(sizes.conditions(), sizes.hints) is None
