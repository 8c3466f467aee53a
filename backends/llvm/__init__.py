"""The LLVM back end: kernels as machine code for the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.backends.llvm.backend import LLVMBackend


def create() -> LLVMBackend:
    """The back end for this machine's CPU, or for the one that `GRAPHC_CPU` names."""
    from graphc.backends.llvm.backend import LLVMBackend  # brings llvmlite along

    return LLVMBackend()
