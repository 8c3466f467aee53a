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

    def lanes(self, dtype: DType, registers: int = 1) -> int:
        """How many elements of dtype fill that many vector registers."""
        return max(1, self.vector_bytes // dtype.itemsize) * registers
