"""What a runner asks of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from graphc.backends.cuda.library_ops import Libraries
from graphc.backends.cuda.products import Product


class Driver(Protocol):
    """Memory, and kernels that run in the order in which they are launched. Addresses are numbers."""

    def load(self, functions: Mapping[str, str]) -> Any:
        """Compile functions, by name; what `launch` finds them in."""
        ...

    def launch(self, module: Any, symbol: str, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        """Run a function on so many blocks of so many threads. The arguments have 64 bits: the addresses of its buffers, then
        sizes."""
        ...

    workspace: int
    """Bytes of memory that `multiply` needs; 0 where there is no cuBLAS, and nothing is multiplied."""

    def multiply(
        self, product: Product, sizes: Mapping[str, int], addresses: tuple[int, int, int], workspace: int
    ) -> None:
        """Let cuBLAS compute a product, of left and right into out."""
        ...

    @property
    def libraries(self) -> Libraries:
        """What computes ops that no kernels are rendered for, on the current stream."""
        ...

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """What launches all at once that `run` launches, which does nothing else. It may or may not run meanwhile."""
        ...

    def allocate(self, nbytes: int) -> Any:
        """Memory, aligned to 256 bytes, which is free again when the object is gone and the kernels before have run."""
        ...

    def address(self, memory: Any) -> int:
        """Where memory begins: of `allocate`, or an array's of the caller."""
        ...

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy the bytes of a contiguous array to the GPU."""
        ...

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy bytes from the GPU to a contiguous array, after the kernels before have run."""
        ...

    def report(self, address: int, count: int, then: Callable[[np.ndarray], None]) -> None:
        """Have `then` called with so many bytes of the GPU's memory by `graphc.gpu.look`, when the kernels before have run."""
        ...

    def moment(self) -> Any:
        """A place in the order of the GPU's work."""
        ...

    def seconds(self, start: Any, stop: Any) -> float:
        """The time between two moments, once the second is over."""
        ...

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy bytes from one place of the GPU's memory to another."""
        ...

    def clear(self, target: int, nbytes: int) -> None:
        """Set bytes of the GPU's memory to zero."""
        ...
