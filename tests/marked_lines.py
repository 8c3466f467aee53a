"""Lines of the tests that a comment at their end marks."""

from __future__ import annotations

from pathlib import Path


def line_of(file: Path, marker: str) -> int:
    return next(i for i, line in enumerate(file.read_text().splitlines(), 1) if line.endswith(f"# <{marker}>"))
