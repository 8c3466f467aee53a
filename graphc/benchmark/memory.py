"""How much memory a process has and has had, where the system says so: on Linux."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident() -> int | None:
    """The bytes of memory that this process has now."""
    return _bytes("VmRSS")


def peak() -> int | None:
    """The most that it has had."""
    return _bytes("VmHWM")


def _bytes(key: str) -> int | None:
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
