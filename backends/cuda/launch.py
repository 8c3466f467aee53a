"""How a kernel is launched, and what its function looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.cuda.expression import parameter
from graphc.expression import Buffer


@dataclass(frozen=True, slots=True)
class Launch:
    """A function, and the blocks and threads that run it: no blocks where there is nothing to do."""

    symbol: str
    blocks: int
    threads: int


def signature(name: str, buffers: Sequence[Buffer], threads: int) -> str:
    """The head of a kernel: a function of the addresses of its buffers."""
    parameters = ", ".join(parameter(buffer, f"b{i}") for i, buffer in enumerate(buffers))
    return f'extern "C" __global__ void __launch_bounds__({threads}) {name}({parameters})'
