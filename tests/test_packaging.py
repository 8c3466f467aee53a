"""The distribution: what it declares, and that the sdist and the wheel build, install and run outside the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"graphc": "graphc", "frontend": "graphc.frontend", "backends": "graphc.backends"}
NOT_DISTRIBUTED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


def installed_name(path: Path) -> str:
    """The name under which a file or a folder of the repository is installed, with slashes for dots."""
    folder, *rest = path.relative_to(ROOT).parts
    return "/".join((*FOLDERS[folder].split("."), *rest))


def package_files() -> set[str]:
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return {installed_name(path) for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_every_package_is_listed() -> None:
    found = {installed_name(path.parent).replace("/", ".") for f in FOLDERS for path in (ROOT / f).rglob("__init__.py")}
    assert sorted(found) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_what_is_imported_is_declared() -> None:
    declared = {re.split(r"[\[<>=~! ;]", requirement)[0] for requirement in PROJECT["project"]["dependencies"]}
    imported = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add((node.module or "").split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"graphc"}
    extras = [requirement for extra in PROJECT["project"]["optional-dependencies"].values() for requirement in extra]
    optional = {name for name in third_party - declared if any(re.match(rf"{name}\b", requirement) for requirement in extras)}
    assert third_party - optional == declared


def python(*arguments: str, executable: str = sys.executable, cwd: Path) -> str:
    result = subprocess.run([executable, *arguments], cwd=cwd, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light(tmp_path: Path) -> None:
    """`import graphc` needs neither LLVM, nor the parser, nor the command line, nor either side of the core."""
    loaded = python("-c", "import sys, graphc; print(*sys.modules)", cwd=tmp_path).split()
    heavy = ("llvmlite", "lark", "rich", "typer", "scipy", "ml_dtypes", "graphc.frontend", "graphc.backends")
    assert [m for m in loaded if m.startswith(heavy)] == []
    assert "graphc" in loaded


def test_version_is_that_of_the_distribution() -> None:
    import graphc

    assert graphc.__version__ == metadata.version("graphc") == PROJECT["project"]["version"]


def build(source: Path, hook: str, out: Path) -> Path:
    """Call a PEP 517 hook of the build back end, in a process of its own; it needs no network."""
    out.mkdir()
    python("-c", f"import setuptools.build_meta as b; b.{hook}({str(out)!r})", cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The sdist, the wheel built from the source tree, and the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_DISTRIBUTED)
    sdist = build(tree, "build_sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, build(tree, "build_wheel", folder / "direct"), build(unpacked, "build_wheel", folder / "from_sdist")


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """The package's files, without the metadata folder."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_the_packages_and_nothing_else(distributions: tuple[Path, Path, Path]) -> None:
    _, wheel, _ = distributions
    assert set(wheel_files(wheel)) == package_files()


def test_wheel_carries_its_licence(distributions: tuple[Path, Path, Path]) -> None:
    _, wheel, _ = distributions
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE")]
        assert b"Apache License" in archive.read(name)
        (described,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        assert "License-Expression: Apache-2.0" in archive.read(described).decode()


def test_sdist_builds_the_same_wheel(distributions: tuple[Path, Path, Path]) -> None:
    _, direct, from_sdist = distributions
    assert wheel_files(from_sdist) == wheel_files(direct)


def test_sdist_carries_tests_examples_and_documents(distributions: tuple[Path, Path, Path]) -> None:
    sdist, _, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/conftest.py", "examples/digits.py", "examples/data/digits.csv.gz", "CONTRIBUTING.md", "LICENSE"} <= names


PROGRAM = """
import sys
import numpy as np
import graphc

assert graphc.__file__.startswith(sys.prefix), graphc.__file__
f = graphc.compile(lambda x, w: graphc.relu(x @ w).sum())
x, w = graphc.ones(3, 4), graphc.full((4, 2), 0.5)
assert f(x, w).item() == f(x, w).item() == 12.0
graphc.save(graphc.export(lambda x, w: graphc.relu(x @ w), (x, w)), "program.gcz")
np.save("x.npy", x.numpy()), np.save("w.npy", w.numpy())
"""


def test_installed_wheel_works_outside_the_repository(distributions: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """In a new virtual environment; only graphc is installed there, what it depends on is borrowed from this one."""
    _, _, wheel = distributions
    environment = tmp_path / "env"
    venv.create(environment, symlinks=True)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    executable = str(scripts / "python")
    options = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    python("-m", "pip", "--python", executable, *options, cwd=tmp_path)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(python("-c", where, executable=executable, cwd=tmp_path).strip())
    (site / "borrowed.pth").write_text("\n".join(sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})))

    python("-c", PROGRAM, executable=executable, cwd=tmp_path)
    run = [str(scripts / "graphc"), "run", "program.gcz", "--input", "x=x.npy", "--input", "w=w.npy", "--output", "y.npy"]
    result = subprocess.run(run, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (np.load(tmp_path / "y.npy") == np.full((3, 2), 2)).all()
