"""Golden tests of passes: each file in golden/passes says by its RUN line what to run, by CHECK lines what comes out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from filecheck.main import main as filecheck

from graphc.cli import main
from graphc.passes.pipeline import PASSES

FILES = sorted((Path(__file__).parent / "golden" / "passes").glob("*.gir"))


def run(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None = None) -> int:
    """Do what a file's RUN line says, and compare with its CHECK lines; the exit code of the comparison."""
    source = path.read_text(encoding="utf-8")
    found = re.match(r"# RUN: graphc (.+) \| filecheck %s\n", source)
    assert found, "the first line is '# RUN: graphc ... | filecheck %s'"
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(found[1].replace("%s", str(path))))
    out, err = capsys.readouterr()
    assert exit_.value.code == 0, err
    (tmp_path / "out.gir").write_text(out, encoding="utf-8")
    (tmp_path / "check.gir").write_text(source if text is None else text, encoding="utf-8")
    with pytest.raises(SystemExit) as exit_:
        filecheck(["filecheck", str(tmp_path / "check.gir"), "--input-file", str(tmp_path / "out.gir")])
    code = exit_.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(path, capsys, tmp_path)
    out, err = capsys.readouterr()
    assert code == 0, f"{out}{err}"


def test_every_pass_has_a_golden_file() -> None:
    missing = set(PASSES) - {path.stem for path in FILES}
    assert not missing, f"write tests/golden/passes/{min(missing)}.gir"


def test_a_wrong_expectation_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (path,) = (path for path in FILES if path.stem == "cse")
    wrong = path.read_text(encoding="utf-8").replace("add(%0, %0)", "add(%0, %1)", 1)
    assert run(path, capsys, tmp_path, wrong) != 0
