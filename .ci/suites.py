"""Run the conformance and the semantics suites of a folder against the installed graphc, and hold them to floors.toml.

    python .ci/suites.py ../shared            # fails where fewer pass than the floors say
    python .ci/suites.py ../shared --report   # fails nowhere: prints what passes, to raise the floors by
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).resolve().parent
MINUTES = 15


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit status; the suites fail where graphc is not yet complete."""
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False, timeout=60 * MINUTES)


def conformance(shared: Path, mode: str, suite: str, jobs: int) -> tuple[int, int]:
    """(passed, cases) of one suite in one mode."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "result.json")
        script = shared / "conformance" / "run.py"
        options = ["--suite", suite, "--mode", mode, "--jobs", str(jobs), "--require", "0", "--failures", "0"]
        result = run([sys.executable, str(script), *options, "--json", str(out)], Path(scratch))
        if not out.exists():
            raise SystemExit(f"the conformance suite did not run:\n{result.stdout}{result.stderr}")
        tally = json.loads(out.read_text())
    return tally["passed"], tally["passed"] + tally["failed"]


def semantics(shared: Path, jobs: int) -> tuple[int, int]:
    """(passed, not skipped) of the behaviour suite."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "result.xml")
        options = ["-q", "-n", str(jobs), "-p", "no:cacheprovider", f"--junitxml={out}"]
        result = run([sys.executable, "-m", "pytest", *options, str(shared / "semantics")], shared / "semantics")
        if not out.exists():
            raise SystemExit(f"the semantics suite did not run:\n{result.stdout}{result.stderr}")
        cases = ET.parse(out).getroot().iter("testcase")
        outcomes = [{child.tag for child in case} & {"failure", "error", "skipped"} for case in cases]
    return sum(not outcome for outcome in outcomes), sum("skipped" not in outcome for outcome in outcomes)


def report(suite: str, passed: int, cases: int, floor: float) -> None:
    print(f"{suite:<31} {passed:>5} of {cases:<5} = {passed / cases:.4f}   floor {floor}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="the folder that holds conformance/ and semantics/")
    parser.add_argument("--report", action="store_true", help="print what passes and succeed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    shared = options.shared.resolve()
    floors = tomllib.loads((HERE / "floors.toml").read_text())

    below = []
    for mode, suites in floors["conformance"].items():
        for suite, floor in suites.items():
            passed, cases = conformance(shared, mode, suite, options.jobs)
            report(f"conformance {mode} {suite}", passed, cases, floor)
            if passed < floor * cases:
                below.append(f"conformance {mode} {suite}")
    passed, cases = semantics(shared, options.jobs)
    floor = floors["semantics"]["passed"]
    report("semantics", passed, cases, floor)
    if passed < floor:
        below.append("semantics")
    if below and not options.report:
        print("below the floor of .ci/floors.toml: " + ", ".join(below))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
