"""Run the kernels of all ops and derivatives, or of those that are named, once: for compute-sanitizer.

    compute-sanitizer --tool memcheck python tests/gpu_kernels.py [NAME...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpu_checks import check_derivative, check_op
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
    return len(chosen)


if __name__ == "__main__":
    print(f"{main(sys.argv[1:])} ops")
