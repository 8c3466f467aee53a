"""Running CUDA kernels without a GPU: their source is compiled as C++, with the threads of a block as fibers.

It finds wrong results, barriers that are missing (warps run in one order, or in the other, each as far as it can) and barriers
that wait for ever; it says nothing of speed.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cupy_functions import Libraries

from graphc.backends.cuda.cublas import WORKSPACE, Cublas
from graphc.backends.cuda.products import Product
from graphc.backends.cuda.program import translation_unit
from graphc.gpu import report

COMPILER = shutil.which("g++")
_HERE = Path(__file__).parent
_OPTIONS = ("-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", f"-I{_HERE}")
_SIGNATURE = re.compile(r'extern "C" __global__ void __launch_bounds__\([\d, ]+\) (\w+)\((.*)\)')
_LOCK = threading.RLock()
"""One kernel runs at a time: the threads of a block are the process's own."""
_functions: dict[str, Any] = {}
"""What has been compiled, by names that say what stands in it: for all drivers."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="graphc-cuda-")  # as long as the process lives


def _compile(name: str, source: Path, *options: str) -> Path:
    library = Path(_folder().name, f"{name}.so")
    assert COMPILER is not None
    done = subprocess.run([COMPILER, *_OPTIONS, *options, "-o", str(library), str(source)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{done.stderr[:5000]}\n{source.read_text()[-5000:]}"
    return library


@functools.cache
def _runtime() -> ctypes.CDLL:
    """What kernels call, and what runs them."""
    return ctypes.CDLL(str(_compile("runtime", _HERE / "cuda_emulator.cpp", "-O2")), ctypes.RTLD_GLOBAL)


@functools.cache
def cublas() -> ctypes.CDLL:
    """A stand-in for cuBLAS."""
    _runtime()
    return ctypes.CDLL(str(_compile("cublas", _HERE / "cublas_stand_in.cpp", "-O2")))


def _load(functions: Mapping[str, str]) -> None:
    """Compile functions."""
    runtime = _runtime()
    lines = [translation_unit(functions, '#include "cuda_emulator.hpp"')]
    for symbol, text in functions.items():
        match = _SIGNATURE.search(text)
        assert match is not None and match[1] == symbol, text
        types = [parameter.rsplit(" ", 1)[0] for parameter in match[2].split(", ") if parameter]
        arguments = ", ".join(f"({type_})a[{i}]" for i, type_ in enumerate(types))
        lines.append(f'extern "C" void call_{symbol}(void** a) {{ {symbol}({arguments}); }}')
    name = f"kernels{len(_functions)}"
    source = Path(_folder().name, f"{name}.cpp")
    source.write_text("\n".join(lines))
    library = ctypes.CDLL(str(_compile(name, source, "-nostdlib", "-lm")))
    for symbol in functions:
        _functions[symbol] = functools.partial(runtime.emulator_launch, getattr(library, f"call_{symbol}"))


class _Done:
    done = True


_DONE = _Done()


class EmulatedDriver:
    """`graphc.backends.cuda.driver.Driver` on NumPy's memory; with a stand-in for cuBLAS, or without."""

    def __init__(self, with_cublas: bool = False) -> None:
        self._cublas = Cublas(cublas()) if with_cublas else None
        self.workspace = WORKSPACE if with_cublas else 0
        self.downwards = False
        """In which order the threads of a block take their turns."""
        self.launches = self.products = self.recordings = 0

    def load(self, functions: Mapping[str, str]) -> EmulatedDriver:
        """Compile those functions that are not known yet."""
        with _LOCK:
            new = {symbol: text for symbol, text in functions.items() if symbol not in _functions}
            if new:
                _load(new)
        return self

    def launch(self, module: Any, symbol: str, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        """Run a kernel to its end."""
        del module
        self.launches += 1
        table = (ctypes.c_void_p * max(1, len(arguments)))(*arguments)
        with _LOCK:
            stuck = _functions[symbol](table, ctypes.c_uint(blocks), ctypes.c_uint(threads), int(self.downwards))
        assert not stuck, f"{symbol}: threads wait for others that never come"

    def multiply(
        self, product: Product, sizes: Mapping[str, int], addresses: tuple[int, int, int], workspace: int
    ) -> None:
        """Let the stand-in compute a product."""
        assert self._cublas is not None
        self.products += 1
        self._cublas.multiply(0, 1, product, sizes, addresses, workspace)

    @property
    def libraries(self) -> Libraries:
        """CuPy's functions, played by NumPy's."""
        return Libraries()

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Keep what is launched, to be launched again."""
        calls: list[Callable[[], None]] = []
        kept = self.launch, self.multiply
        self.launch = lambda *launch: calls.append(lambda: kept[0](*launch))  # type: ignore[method-assign]
        self.multiply = lambda *product: calls.append(lambda: kept[1](*product))  # type: ignore[method-assign]
        try:
            run()
        finally:
            self.launch, self.multiply = kept  # type: ignore[method-assign]
        self.recordings += 1

        def replay() -> None:
            for call in calls:
                call()

        return replay

    def allocate(self, nbytes: int) -> np.ndarray:
        """Memory in which nothing is zero by chance."""
        memory = np.full(nbytes + 256, 0xA5, np.uint8)
        return memory[-memory.ctypes.data % 256 :][:nbytes]

    def address(self, memory: np.ndarray) -> int:
        """Where an array's memory begins."""
        return memory.__array_interface__["data"][0]

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy from an array."""
        ctypes.memmove(address, self.address(array), array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy to an array."""
        ctypes.memmove(self.address(array), address, array.nbytes)

    def report(self, address: int, count: int, then: Callable[[np.ndarray], None]) -> None:
        """Copy at once, which is looked at later all the same."""
        numbers = np.empty(count, np.uint8)
        self.download(address, numbers)
        report(_DONE, numbers, then)

    def moment(self) -> float:
        """Now."""
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        """The time in between."""
        return stop - start

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy memory."""
        ctypes.memmove(target, source, nbytes)

    def clear(self, target: int, nbytes: int) -> None:
        """Set memory to zero."""
        ctypes.memset(target, 0, nbytes)
