"""A program as CUDA source, and the steps by which it runs.

Kernels that do the same with other buffers are one function, whose name says what stands in it: so functions of several
programs can be compiled together, and compiled functions be kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from graphc.backends.cuda.attention import render_attention
from graphc.backends.cuda.gemm import render_gemm
from graphc.backends.cuda.launch import Launch
from graphc.backends.cuda.library_ops import LibraryOp, library_op
from graphc.backends.cuda.loops import render_loops
from graphc.backends.cuda.products import Product, by_cublas
from graphc.expression import Buffer
from graphc.kernel import Attention, AttentionBackward, Call, Control, Gemm, Kernel, writes
from graphc.kernel_key import Place, kernel_key
from graphc.program import Check, Program

_NAME = "KERNEL"
"""What a function is called until its text is known."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelStep:
    """Launch a function on buffers, each moved by some bytes."""

    number: int
    """Which kernel of the program it is."""
    launch: Launch
    buffers: tuple[Buffer, ...]
    shifts: tuple[int, ...]
    unaligned: str
    """The function that is launched where the address of a buffer that has to be aligned is not; it computes the same bits."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductStep:
    """Leave a product to cuBLAS."""

    number: int
    product: Product


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """Leave an op to CuPy, or to its own definition."""

    number: int
    kernel: Call
    library: LibraryOp | None
    """How CuPy computes it, where it has what it needs."""


@dataclass(frozen=True, slots=True, eq=False)
class ControlStep:
    """Run programs once, many times or not at all."""

    kernel: Control
    programs: Mapping[str, Rendered]


@dataclass(frozen=True, slots=True, eq=False)
class CheckStep:
    """End the run where a boolean is true."""

    check: Check


Step: TypeAlias = KernelStep | ProductStep | CallStep | ControlStep | CheckStep


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """The steps of a program, and the functions that they launch, by name, those of programs inside included."""

    program: Program
    steps: tuple[Step, ...]
    functions: Mapping[str, str]
    unaligned: Mapping[str, str]
    """The functions that are wanted where addresses are not aligned."""


def render(program: Program, tf32: bool = False, cublas: bool = False) -> Rendered:
    """Render a program that prepares nothing. With `tf32`, products may round factors in single precision to 11 bits. With
    `cublas`, it computes those products that are better left to it."""
    known: dict[Hashable, tuple[Launch, str, list[Place]]] = {}
    functions: dict[str, str] = {}
    unaligned: dict[str, str] = {}
    steps: list[Step] = []
    for number, original in enumerate(program.kernels):
        kernel: Kernel | None = original
        if cublas and isinstance(original, Gemm) and (found := by_cublas(original, tf32)) is not None:
            product, kernel = found
            steps.append(ProductStep(number, product))
        match kernel:
            case None:
                pass
            case Call():
                steps.append(CallStep(number, kernel, library_op(kernel)))
            case Control():
                programs = {name: render(inner, tf32, cublas) for name, inner in kernel.programs.items()}
                for inner in programs.values():
                    functions.update(inner.functions)
                    unaligned.update(inner.unaligned)
                steps.append(ControlStep(kernel, programs))
            case _:
                key, places = kernel_key(kernel)
                if key not in known:
                    buffers = [place.buffer for place in places]
                    text, launch = _function(kernel, buffers, True, tf32)
                    functions[launch.symbol] = text
                    other = launch.symbol
                    if launch.aligned:
                        text, without = _function(kernel, buffers, False, tf32)
                        unaligned[other := without.symbol] = text
                    known[key] = launch, other, places
                launch, other, first = known[key]
                shifts = tuple((p.origin - q.origin) * p.buffer.dtype.itemsize for p, q in zip(places, first, strict=True))
                if launch.blocks != 0:
                    steps.append(KernelStep(number, launch, tuple(place.buffer for place in places), shifts, other))
        if program.checks:
            written = writes(original)
            steps += [CheckStep(check) for check in program.checks if check.buffer in written]
    return Rendered(program, tuple(steps), functions, unaligned)


def _function(kernel: Kernel, buffers: list[Buffer], aligned: bool, tf32: bool) -> tuple[str, Launch]:
    """The text of a kernel's function, and its launch: for buffers that are aligned, or for any."""
    match kernel:
        case Gemm():
            text, launch = render_gemm(kernel, _NAME, buffers, aligned, tf32)
        case Attention() | AttentionBackward():
            text, launch = render_attention(kernel, _NAME, buffers, aligned, tf32)
        case _:
            text, launch = render_loops(kernel, _NAME, buffers, aligned)  # type: ignore[arg-type]
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    symbol = f"{re.sub('[^A-Za-z0-9_]', '_', kernel.name)}_{digest}"
    return text.replace(f" {_NAME}(", f" {symbol}("), dataclasses.replace(launch, symbol=symbol)


@cache
def header(name: str) -> str:
    """A file of C++ that functions rely on."""
    return (files(__package__) / name).read_text()


def translation_unit(functions: Mapping[str, str], intrinsics: str | None = None) -> str:
    """What is compiled: the functions, and before them all that they call. `intrinsics` stands in the place of
    `intrinsics.cuh`."""
    return "\n".join((intrinsics or header("intrinsics.cuh"), header("prelude.cuh"), *functions.values()))
