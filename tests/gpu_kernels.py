"""Run the kernels of all ops and derivatives, and those of tensor cores, or of what is named, once: for compute-sanitizer.

    compute-sanitizer --tool memcheck python tests/gpu_kernels.py [NAME...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpu_checks import BY_TENSOR_CORES, check_derivative, check_op, run_by_tensor_cores
from op_cases import CASES, DIFFERENTIABLE

from graphc.backends.cuda.driver import Driver


def main(names: Sequence[str], driver: Driver | None = None) -> int:
    """Run them; returns how many."""
    if driver is None:
        import cupy

        from graphc.backends.cuda.cupy_driver import CupyDriver

        cupy.cuda.set_allocator(None)  # without the pool, in which arrays stand side by side: what is next to one is found out
        driver = CupyDriver()
    chosen = {name: case for name, case in CASES.items() if name in names or not names}
    for name, case in chosen.items():
        check_op(driver, case)
        if name in DIFFERENTIABLE:
            check_derivative(driver, case)
    others = [name for name in BY_TENSOR_CORES if name in names or not names]
    for name in others:
        run_by_tensor_cores(driver, name)
    return len(chosen) + len(others)


if __name__ == "__main__":
    print(f"{main(sys.argv[1:])} ops and functions")
