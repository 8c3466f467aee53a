"""Times of calls: samples, their median, and how sure that is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SHORTEST_SAMPLE = 1e-3
"""Seconds that a sample takes at least: shorter calls are repeated, so that reading the clock does not count."""
_FEWEST_SAMPLES = 3
_OUTLIER = 5.0
"""How many median deviations from the median an outlier is, at least."""


@dataclass(frozen=True)
class Timing:
    """What samples of the time of one call come to, in seconds."""

    median: float
    low: float
    """The lower end of the median's confidence interval of 95 percent."""
    high: float
    samples: int
    outliers: int
    """Samples that took far longer than the others, as where another process ran meanwhile. They are not left out."""

    @staticmethod
    def of(samples: Sequence[float]) -> Timing:
        """
        >>> Timing.of([1.0, 1.2, 1.1, 1.0, 9.0])
        Timing(median=1.1, low=1.0, high=9.0, samples=5, outliers=1)
        """
        ordered = sorted(samples)
        median = statistics.median(ordered)
        # by order statistics, which takes no distribution for granted (Conover, Practical Nonparametric Statistics, 3.2)
        reach = 0.98 * math.sqrt(len(ordered))
        middle = len(ordered) / 2
        low = ordered[max(0, math.floor(middle - reach))]
        high = ordered[min(len(ordered) - 1, math.ceil(middle + reach) - 1)]
        return Timing(median, low, high, len(ordered), _outliers(ordered))

    @staticmethod
    def of_rounds(rounds: Sequence[Sequence[float]]) -> Timing:
        """Of samples that were taken round by round, with something else in between.

        What slows a machine down goes on for a while, so samples of one round resemble each other. The median and its interval
        are those of the rounds' medians, which are further apart; `coverage` tells what the interval is worth.

        >>> Timing.of_rounds([[1.0, 1.2, 9.0], [1.1, 1.1], [1.3, 1.0, 1.0]])
        Timing(median=1.1, low=1.0, high=1.2, samples=8, outliers=1)
        """
        middle = Timing.of([statistics.median(samples) for samples in rounds])
        every = [sample for samples in rounds for sample in samples]
        return Timing(middle.median, middle.low, middle.high, len(every), _outliers(every))


def coverage(rounds: int) -> int:
    """How many percent of such intervals hold the median: 95 from six rounds on. Of fewer they are the whole range.

    >>> [coverage(rounds) for rounds in (1, 2, 3, 6, 9)]
    [0, 50, 75, 95, 95]
    """
    return min(95, round(100 * (1 - 0.5 ** (rounds - 1))))


def ratio(rounds: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Timing:
    """How many times as long the one takes as the other, whose rounds took turns with its own: of each pair of rounds, so that
    what slows both down is no part of it.

    >>> ratio([[2.0], [4.0], [2.2]], [[1.0], [2.0], [1.0]]).median
    2.0
    """
    pairs = zip(rounds, other, strict=False)  # one of them may have ended early
    return Timing.of([statistics.median(one) / statistics.median(two) for one, two in pairs])


def _outliers(samples: Sequence[float]) -> int:
    median = statistics.median(samples)
    deviation = statistics.median([abs(sample - median) for sample in samples])
    return sum(sample > median + _OUTLIER * max(deviation, 0.01 * median) for sample in samples)


def sample(call: Callable[[], Any], seconds: float, fewest: int = _FEWEST_SAMPLES) -> list[float]:
    """The time of a call, measured again and again for so many seconds; the first call of all is not counted."""
    call()
    start = time.perf_counter()
    call()
    calls = max(1, math.ceil(SHORTEST_SAMPLE / max(time.perf_counter() - start, 1e-9)))
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < fewest or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        elapsed = time.perf_counter() - start
        if elapsed < SHORTEST_SAMPLE / 2:  # the first one was not typical
            calls *= 2
        else:
            samples.append(elapsed / calls)
    return samples
