"""How a kernel is launched, and what its function looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.cuda.elementwise import memory_type
from graphc.dims import Dim
from graphc.expression import Buffer
from graphc.types import Size

ALIGNMENT = 16
"""Bytes that a thread reads or writes at once, at most, and of which the address is a multiple then."""
_MOST = 1 << 31


@dataclass(frozen=True, slots=True)
class Launch:
    """A function, and the blocks and threads that run it: no blocks where there is nothing to do.

    `sizes` are arguments of the function, after the addresses of its buffers. Those of the buffers in `aligned`, by their
    numbers, have to be multiples of `ALIGNMENT`.
    """

    symbol: str
    blocks: Size
    threads: int
    sizes: tuple[Dim, ...] = ()
    aligned: tuple[int, ...] = ()


class Sizes:
    """The symbolic sizes that a function needs: its parameters `size0`, ..., which it knows as `dim0`, ..."""

    def __init__(self) -> None:
        self._names: dict[Dim, str] = {}

    def text(self, size: Size) -> str:
        """A size in C++."""
        if isinstance(size, Dim):
            return self._names.setdefault(size, f"dim{len(self._names)}")
        return str(size)

    @property
    def all(self) -> tuple[Dim, ...]:
        """In the order of the parameters."""
        return tuple(self._names)

    def function(self, name: str, buffers: Sequence[Buffer], threads: int, body: str, together: int = 1) -> str:
        """A kernel: a function of the addresses of its buffers, and of sizes. So many of its blocks have room beside each other
        on a multiprocessor."""
        parameters = [f"{memory_type(buffer.dtype)}* b{i}" for i, buffer in enumerate(buffers)]
        parameters += [f"long long size{i}" for i in range(len(self._names))]
        known = "".join(
            f"  const {index_type(size)} {name} = ({index_type(size)})size{i};\n"
            for i, (size, name) in enumerate(self._names.items())
        )
        bounds = f"{threads}, {together}" if together > 1 else str(threads)
        head = f'extern "C" __global__ void __launch_bounds__({bounds}) {name}({", ".join(parameters)})'
        return f"{head} {{\n{known}{body}}}\n"


def index_type(size: Size) -> str:
    """What numbers less than a size are held in. Of a symbolic one that it is small enough becomes a fact."""
    return "int" if size < _MOST else "long long"
