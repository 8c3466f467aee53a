"""Run mypy over the whole package, and make sure that it was the whole package.

`mypy -p graphc` follows folders, not installed names: in this repository it would check graphc/ alone and say nothing of
frontend/ and backends/. So the three are linked into one tree first, and the number of files checked is compared with
the number there are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".typing"


def link_tree() -> None:
    """`.typing/graphc`: links to what is in graphc/, and to the other two folders beside it."""
    package = TREE / "graphc"
    shutil.rmtree(TREE, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in (ROOT / "graphc").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for folder in ("frontend", "backends"):
        (package / folder).symlink_to(ROOT / folder)


def main() -> int:
    link_tree()
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "graphc", *sys.argv[1:]]
    result = subprocess.run(command, cwd=TREE, text=True, capture_output=True, check=False)
    print(result.stdout + result.stderr, end="")
    if result.returncode:
        return result.returncode
    found = re.search(r"in (\d+) source files", result.stdout)
    checked = int(found[1]) if found else 0
    there = sum(1 for folder in ("graphc", "frontend", "backends") for _ in (ROOT / folder).rglob("*.py"))
    if checked != there:
        print(f"mypy checked {checked} files of {there}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
