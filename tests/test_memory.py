"""The arena: what is alive at the same time never overlaps, and what is not shares memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc import memory
from graphc.expression import Axis, Buffer, constant, load
from graphc.index import ZERO
from graphc.kernel import Loops, Store
from graphc.memory import ALIGNMENT, live_ranges, place_scratch, place_temporaries, share_outputs
from graphc.program import Check, Program
from graphc.types import DType, float32, float64, uint8


def kernel(touched: list[Buffer]) -> Loops:
    """A kernel that writes the first buffer from the others."""
    value = constant(1.0, touched[0].dtype)
    masked = [load(buffer, ZERO) for buffer in touched[1:]]
    stores = [Store(touched[0], ZERO, value), *(Store(b, ZERO, e) for b, e in zip(touched[1:], masked))]
    return Loops("k", (Axis("i", 1),), tuple(stores), 1.0)


ranges = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (min(pair), max(pair)))
buffers = st.tuples(ranges, st.integers(0, 300), st.sampled_from([float32, float64, uint8]))


@given(st.lists(buffers, max_size=12))
def test_what_is_alive_together_does_not_overlap(drawn: list[tuple[tuple[int, int], int, DType]]) -> None:
    made = {Buffer(f"b{n}", dtype, size): alive for n, (alive, size, dtype) in enumerate(drawn)}
    kernels = []
    for number in range(10):
        touched = [b for b, (first, last) in made.items() if number in (first, last)]
        kernels.append(kernel(touched or [Buffer("none", float32, 1)]))
    assert live_ranges(kernels, list(made)) == made
    arena = place_temporaries(kernels, list(made))
    for buffer in made:
        assert buffer.offset % ALIGNMENT == 0 and buffer.offset + buffer.nbytes <= arena
    for a, b in itertools.combinations(made, 2):
        if made[a][0] <= made[b][1] and made[b][0] <= made[a][1] and a.nbytes and b.nbytes:
            assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


@given(st.lists(buffers, max_size=12), st.lists(st.integers(0, 3000), min_size=10, max_size=10))
def test_scratch_memory_is_nobody_elses(drawn: list[tuple[tuple[int, int], int, DType]], sizes: list[int]) -> None:
    made = {Buffer(f"b{n}", dtype, size): alive for n, (alive, size, dtype) in enumerate(drawn)}
    kernels = []
    for number in range(10):
        touched = [b for b, (first, last) in made.items() if number in (first, last)]
        kernels.append(kernel(touched or [Buffer("none", float32, 1)]))
    arena = place_temporaries(kernels, list(made))
    for number, (offset, size) in enumerate(zip(place_scratch(kernels, list(made), sizes), sizes, strict=True)):
        assert offset % ALIGNMENT == 0 and offset <= arena
        for buffer, (first, last) in made.items():
            if first <= number <= last and size and buffer.nbytes:
                assert offset + size <= buffer.offset or buffer.offset + buffer.nbytes <= offset


def test_scratch_memory_stands_where_temporaries_stood() -> None:
    early, late = Buffer("early", uint8, 640), Buffer("late", uint8, 64)
    kernels = [kernel([late, early]), kernel([late])]
    arena = place_temporaries(kernels, [early, late])
    assert place_scratch(kernels, [early, late], [100, 640]) == [arena, early.offset]


def test_a_chain_needs_room_for_two() -> None:
    chain = [Buffer(f"b{n}", float32, 100) for n in range(50)]
    kernels = [kernel([b, a]) for a, b in itertools.pairwise(chain)]
    assert place_temporaries(kernels, chain) == 2 * 448


def test_the_smallest_gap_that_fits_is_taken() -> None:
    sizes = {"a": 640, "small gap": 128, "b": 64, "wide gap": 256, "c": 64, "new": 120}
    made = {name: Buffer(name, uint8, size) for name, size in sizes.items()}
    early, late = [made["small gap"], made["wide gap"]], [made["new"]]
    beside = [made[name] for name in "abc"]
    kernels = [kernel([*beside, *early]), kernel([*beside, *late])]
    arena = place_temporaries(kernels, list(made.values()))
    assert made["new"].offset in {b.offset for b in early} and arena == 640 + 128 + 64 + 256 + 64


def test_nothing_needs_no_arena() -> None:
    assert place_temporaries([], []) == 0
    assert place_temporaries([kernel([Buffer("x", float32, 4, "output")])], [Buffer("unused", float32, 8)]) == 0


def program(kernels: list[Loops], outputs: list[Buffer], temporaries: list[Buffer]) -> Program:
    arena = place_temporaries(kernels, temporaries)
    return Program("p", (), tuple(outputs), (), tuple(temporaries), tuple(kernels), arena)


@given(st.lists(buffers, max_size=12), st.lists(st.tuples(ranges, st.integers(0, 900), st.booleans()), max_size=4))
def test_temporaries_stand_in_outputs_that_are_not_written(
    drawn: list[tuple[tuple[int, int], int, DType]], results: list[tuple[tuple[int, int], int, bool]]
) -> None:
    made = {Buffer(f"b{n}", dtype, size): alive for n, (alive, size, dtype) in enumerate(drawn)}
    outputs = {Buffer(f"o{n}", float32, size, "output"): alive for n, (alive, size, _) in enumerate(results)}
    donated = [n for n, (*_, is_donated) in enumerate(results) if is_donated]
    kernels = []
    for number in range(10):
        touched = [b for b, alive in (made | outputs).items() if number in alive]
        kernels.append(kernel(touched or [Buffer("none", float32, 1)]))
    before = program(kernels, list(outputs), list(made))
    old = before.arena
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_WORTHWHILE", 0)
        patch.setattr(memory, "_LARGE", 1)
        share_outputs(before, donated)
    assert before.arena <= old
    for buffer, (_, last) in made.items():
        end = before.arena if buffer.host is None else buffer.host.nbytes
        assert buffer.offset % ALIGNMENT == 0 and buffer.offset + buffer.nbytes <= end
        if buffer.host is not None:
            assert last < outputs[buffer.host][0] and before.outputs.index(buffer.host) not in donated
            assert buffer.dtype.itemsize <= buffer.host.dtype.itemsize
    for a, b in itertools.combinations(made, 2):
        if a.host is b.host and made[a][0] <= made[b][1] and made[b][0] <= made[a][1] and a.nbytes and b.nbytes:
            assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
    scratch = place_scratch(kernels, list(made), [100] * len(kernels))
    for number, (buffer, (first, last)) in itertools.product(range(len(kernels)), made.items()):
        if first <= number <= last and buffer.nbytes and buffer.host is None:
            assert scratch[number] + 100 <= buffer.offset or buffer.offset + buffer.nbytes <= scratch[number]


def test_what_is_checked_stays_in_the_arena() -> None:
    found, result = Buffer("found", uint8, 640), Buffer("result", uint8, 640, "output")
    made = program([kernel([found]), kernel([result])], [result], [found])
    made.checks = (Check(found, 1, "bad", "good", None),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_WORTHWHILE", 0)
        patch.setattr(memory, "_LARGE", 1)
        share_outputs(made, ())
        assert found.host is None and made.arena == 640
        made.checks = ()
        share_outputs(made, ())
    assert found.host is result and made.arena == 0


def test_small_programs_keep_to_themselves() -> None:
    own, result = Buffer("own", uint8, 1 << 20), Buffer("result", uint8, 1 << 20, "output")
    made = program([kernel([own]), kernel([result])], [result], [own])
    share_outputs(made, ())
    assert own.host is None and made.arena == 1 << 20
