"""How many threads compiled code runs on.

>>> import graphc.threads as threads
>>> threads.set_num_threads(2)
>>> threads.get_num_threads()
2
"""

from __future__ import annotations

import graphc.ops.fft as fft
from graphc.backend import get_backend


def set_num_threads(threads: int) -> None:
    """Run compiled code on this many threads, the calling one included. `GRAPHC_NUM_THREADS` sets the number that a process
    begins with; otherwise it is that of the CPUs that the process may use.

    Results do not depend on it. ArgumentError if it is less than 1.

    >>> before = graphc.get_num_threads()
    >>> graphc.set_num_threads(1)
    >>> graphc.get_num_threads()
    1
    >>> graphc.set_num_threads(before)
    """
    get_backend("llvm").set_num_threads(threads)


def get_num_threads() -> int:
    """How many threads compiled code runs on.

    >>> graphc.get_num_threads() >= 1
    True
    """
    return get_backend("llvm").get_num_threads()


fft.workers = get_num_threads
