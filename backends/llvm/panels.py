"""Which operands of products are kept packed between runs: those that depend on steady inputs alone, as weights do."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from graphc.backends.llvm.axes import extent
from graphc.backends.llvm.direct_plan import reads_directly
from graphc.backends.llvm.gemm_plan import plan_gemm, plan_with_panels
from graphc.backends.llvm.packing import Operand
from graphc.backends.llvm.planned_gemm import Access
from graphc.backends.llvm.target import Target
from graphc.expression import Buffer
from graphc.kernel import Gemm, Kernel
from graphc.kernel_key import kernel_key
from graphc.program import Program
from graphc.schedule.preparation import keep
from graphc.sizes import is_static
from graphc.types import DType, Size

Panels = tuple[DType, Size]
"""What panels hold, and how much of it."""

_MOST = 2
"""How many times the memory of the steady inputs panels may take."""
_GAIN = 1.05
"""How many times longer a product must take without panels for them to be worth their memory, and the time to fill them."""


def keep_panels(program: Program, target: Target) -> Program:
    """The program with panels for such operands, which its preparation fills."""
    if not program.steady:
        return program
    keeper = _Keeper(program, target)
    kernels = tuple(keeper.keep(kernel) if isinstance(kernel, Gemm) else kernel for kernel in program.kernels)
    if not keeper.made:
        return program
    return dataclasses.replace(program, kernels=kernels, prepared=keep(list(keeper.made.values()), program.prepared))


class _Keeper:
    """Gives products their panels."""

    def __init__(self, program: Program, target: Target) -> None:
        self._target = target
        self._steady = set(program.steady) | set(program.constants)
        self._left = _MOST * sum(b.nbytes for b in program.steady if isinstance(b.nbytes, int))
        self._planned: dict[Hashable, list[Panels | None]] = {}
        self.made: dict[Hashable, Buffer] = {}
        """By the product, up to its other buffers, and the operand."""

    def keep(self, kernel: Gemm) -> Kernel:
        """The product with panels for each operand that would be packed from steady inputs at each run."""
        sides = [{e.attr for e in operand.walk() if e.op == "load"} for operand in (kernel.lhs, kernel.rhs)]
        found = [bool(read) and all(b in self._steady or b.role == "prepared" for b in read) for read in sides]
        if not any(found) or extent((*kernel.batch, *kernel.m, *kernel.n, *kernel.k)) == 0:
            return kernel
        key, places = kernel_key(kernel)
        if (key, *found) not in self._planned:
            self._planned[key, *found] = self._plan(kernel, found)
        panels: list[Buffer | None] = [None, None]
        origins = {place.buffer: place.origin for place in places}
        for side, (read, wanted) in enumerate(zip(sides, self._planned[key, *found], strict=True)):
            if wanted is not None:
                where = tuple((id(b), origins[b]) for b in sorted(read, key=lambda b: b.name))
                panels[side] = self._panels((key, side, where), *wanted)
        return dataclasses.replace(kernel, panels=(panels[0], panels[1])) if any(panels) else kernel

    def _plan(self, kernel: Gemm, found: Sequence[bool]) -> list[Panels | None]:
        """The panels of each operand; None for one that may not be kept, as `found` says, or is as well off without."""
        if reads_directly(kernel, self._target):
            return [None, None]
        plan = plan_with_panels(kernel, self._target)
        sides = [("lhs", plan.lhs, plan.lhs_access, plan.lhs_panels), ("rhs", plan.rhs, plan.rhs_access, plan.rhs_panels)]
        if plan.kernel.lhs is not kernel.lhs:  # it is planned the other way round
            sides.reverse()
        kept: dict[str, Panels] = {
            name: (plan.dtype, size * plan.k_blocks) for may, (name, operand, access, size) in zip(found, sides, strict=True)
            if may and access is not Access.DIRECT and _is_static(operand, plan.k, size)
        }  # fmt: skip
        without = plan_gemm(kernel, self._target)
        if without.streams or without.turned:
            with_panels = dataclasses.replace(
                plan,
                lhs_access=Access.KEPT if "lhs" in kept else plan.lhs_access,
                rhs_access=Access.KEPT if "rhs" in kept else plan.rhs_access,
            )
            if without.cycles < _GAIN * with_panels.cycles:
                return [None, None]
        return [kept.get(name) for name, *_ in sides]

    def _panels(self, key: Hashable, dtype: DType, size: Size) -> Buffer | None:
        known = self.made.get(key)
        if known is None:
            known = Buffer(f"panels{len(self.made)}", dtype, size, "prepared")
            assert isinstance(known.nbytes, int)
            if known.nbytes > self._left:
                return None
            self._left -= known.nbytes
            self.made[key] = known
        return known


def _is_static(operand: Operand, steps: Size, size: Size) -> bool:
    """Whether the panels of an operand are the same for all sizes of a program."""
    extents = [axis.extent for axis in (*operand.batch, *operand.lanes, *operand.steps)]
    return is_static(steps, size, *extents) and all(e.op != "size" for e in operand.value.walk())
