"""What the scheduler knows of the machine that it makes kernels for."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.types import DType


@dataclass(frozen=True)
class Machine:
    """A back end describes its device by these few numbers.

    The number of threads is not among them: a result must not depend on it.
    """

    vector_bytes: int = 16
    threads: bool = False
    """Whether there are very many threads, as on a GPU: each element of a map is a step of its own, and lanes are threads that
    take a step together."""
    local_bytes: int = 1 << 16
    """How much memory of its own a step of a grid may have: of a thread's stack, which is half a megabyte on some systems, or
    of what the threads of a group share."""

    rounds_factors: bool = False
    """Whether products of float32 may round their factors to bfloat16."""
    transforms_convolutions: bool = False
    """Whether convolutions may be computed with fewer multiplications, and round more."""

    def lanes(self, dtype: DType, registers: int = 1) -> int:
        """How many elements of dtype fill that many vector registers."""
        return max(1, self.vector_bytes // dtype.itemsize) * registers
