"""How the time of a computation grows with its size, beside what the machine allows for, and where it grows too fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from graphc.benchmark.families import Family
from graphc.benchmark.machine import Limits
from graphc.benchmark.process import growth_worker
from graphc.benchmark.quantities import amount
from graphc.benchmark.timing import Timing, ratio

STEEP = 1.3
"""How many times longer an element may take than at a neighbouring size."""


@dataclass(frozen=True)
class Point:
    """The time of one call at a size, on a number of threads."""

    family: Family
    size: int
    threads: int
    limit: float
    """Seconds that it takes at the machine's measured speed."""
    timing: Timing | None = None
    error: str | None = None
    """Why it was not timed."""

    @property
    def per_element(self) -> float:
        assert self.timing is not None
        return self.timing.median / self.family.elements(self.size)

    @property
    def of_limit(self) -> float:
        """What part of the machine's speed it reaches."""
        assert self.timing is not None
        return self.limit / self.timing.median


@dataclass(frozen=True)
class Cliff:
    """Two sizes of which one takes far longer for each element than the other should lead to expect."""

    slow: Point
    plain: Point
    ratio: float
    machine: float
    """The same ratio of the limits: what of it is the machine's, as where a cache ends."""
    is_machines: bool
    """Whether the machine copies as many bytes as much more slowly itself."""

    def __str__(self) -> str:
        slow, plain = self.slow, self.plain
        threads = f"{slow.threads} thread{'s' if slow.threads > 1 else ''}"
        machine = f", {self.machine:.2f}x of it the machine's" if self.machine > 1.05 else ""
        return (f"{slow.family.name}, {threads}: {amount(slow.size, slow.family.unit)} take {self.ratio:.2f}x as long for each "
                f"element as {plain.size:,}{machine}")


def sizes(family: Family, largest: int | None = None) -> list[int]:
    """The plain and the awkward sizes up to some number of elements, in order."""
    found = {*family.sizes, *(odd for odd, _ in family.odd)}
    return sorted(size for size in found if largest is None or family.elements(size) <= largest)


def measure(
    families: Sequence[Family],
    limits: Mapping[int, Limits],
    *,
    largest: int | None = None,
    seconds: float = 0.1,
    rounds: int = 3,
    module: str = "graphc",
    progress: Callable[[Point], None] = lambda point: None,
) -> Iterator[Point]:
    """Time the families for the numbers of threads that there are limits for, each in a process of its own. The processes take
    turns, round by round, so that a machine that slows down slows all of them."""
    for family in families:
        with ExitStack() as stack:
            workers = [stack.enter_context(growth_worker(threads, module)) for threads in limits]
            for size in sizes(family, largest):
                made = [worker.ask(make=family.name, size=size) for worker in workers]
                samples: list[list[float]] = [[] for _ in workers]
                for _ in range(rounds):
                    for number, worker in enumerate(workers):
                        if "error" not in made[number]:
                            answer = worker.ask(time=seconds / rounds)
                            samples[number] += answer.get("samples", [])
                            made[number] = answer if "error" in answer else made[number]
                for worker, answer, times in zip(workers, made, samples, strict=True):
                    nbytes = family.nbytes(size)
                    limit = limits[worker.threads].seconds(family.flops(size), nbytes, nbytes)
                    error = answer.get("error")
                    point = Point(family, size, worker.threads, limit, None if error else Timing.of(times), error)
                    progress(point)
                    yield point


def cliffs(points: Sequence[Point], steep: float = STEEP) -> list[Cliff]:
    """Where an element takes longer than at the next smaller plain size, or at the plain size that an awkward one belongs to,
    by more than a factor, in the best case of the confidence intervals. First those that are not the machine's, the steepest of
    all first."""
    found = []
    timed = {(p.family.name, p.threads, p.size): p for p in points if p.timing is not None}
    for (name, threads, size), point in timed.items():
        family = point.family
        plain = [other for odd, other in family.odd if odd == size]
        if not plain:
            below = [other for other in family.sizes if other < size and (name, threads, other) in timed]
            plain = [max(below)] if below else []
        for other_size in plain:
            other = timed.get((name, threads, other_size))
            if other is None:
                continue
            ratio = point.per_element / other.per_element
            assert point.timing is not None and other.timing is not None
            least = ratio * (point.timing.low / point.timing.median) * (other.timing.median / other.timing.high)
            machine = (point.limit / family.elements(size)) / (other.limit / family.elements(other_size))
            if least > steep:
                found.append(Cliff(point, other, ratio, machine, least <= steep * max(1.0, machine)))
    return steepest_first(found)


def confirmed(cliff: Cliff, *, seconds: float = 0.1, rounds: int = 7, module: str = "graphc") -> Cliff | None:
    """The cliff, if it is there again where both sizes take turns, by what it is then: of two that were timed one after the
    other, one may have had a machine to itself that the other had to share."""
    points = (cliff.slow, cliff.plain)
    samples: tuple[list[list[float]], ...] = ([], [])
    with ExitStack() as stack:
        workers = [stack.enter_context(growth_worker(point.threads, module)) for point in points]
        for worker, point in zip(workers, points, strict=True):
            worker.ask(make=point.family.name, size=point.size)
        for _ in range(rounds):
            for worker, times in zip(workers, samples, strict=True):
                times.append(worker.ask(time=seconds / rounds).get("samples", []))
    if not all(map(all, samples)):
        return cliff  # what cannot be measured again stands as it was
    elements = cliff.slow.family.elements(cliff.slow.size) / cliff.plain.family.elements(cliff.plain.size)
    again = ratio(*samples)
    least = again.low / elements
    if least <= STEEP:
        return None
    return replace(cliff, ratio=again.median / elements, is_machines=least <= STEEP * max(1.0, cliff.machine))


def steepest_first(found: Iterable[Cliff]) -> list[Cliff]:
    """First those that are not the machine's, the steepest of all first."""
    return sorted(found, key=lambda cliff: (cliff.is_machines, -cliff.ratio / max(1.0, cliff.machine)))
