"""How many CPUs this process has."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus() -> int:
    """The CPUs that this process may run on, and no more than its control group's quota pays for."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file outside Linux; "max" where there is no quota
        return cpus
