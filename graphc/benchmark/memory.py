"""How much memory a process has and has had, where the system says so: on Linux."""

from __future__ import annotations

import contextlib
from pathlib import Path

STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_PEAK = "5"


def resident() -> int | None:
    """The bytes of memory that this process has now."""
    return _bytes("VmRSS")


def peak() -> int | None:
    """The most that it has had, since it last forgot."""
    return _bytes("VmHWM")


def forget_peak() -> None:
    """Let the peak be what the process has now (proc(5)). Where the system does not allow it, the peak stays as it is."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_PEAK)


def _bytes(key: str) -> int | None:
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
