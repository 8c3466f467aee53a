"""What the documents say is true: docstring examples, the code in README.md and CONTRIBUTING.md, and their links."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_layering
import test_registry

import graphc
from graphc.op import OPS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
ASSUMED = {"graphc": graphc, "nn": graphc.nn, "F": graphc.nn.functional}
"""What examples in docstrings take to be imported."""
PEERS = {"graphc.benchmark.jax_workloads": "jax"}
"""Modules that only run where another library is installed, to compare with."""


def module_names() -> list[str]:
    paths = [*graphc.__path__]
    names = [info.name for info in pkgutil.walk_packages(paths, "graphc.")]
    for side in ("graphc.frontend", "graphc.backends"):
        package = importlib.import_module(side)
        names += [side, *(info.name for info in pkgutil.walk_packages(package.__path__, f"{side}."))]
    return sorted({name for name in names if not name.endswith(".__main__")})


@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning", "ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name: str) -> None:
    """Also imports every module, so that none is left that cannot be imported."""
    if name in PEERS:
        pytest.importorskip(PEERS[name], reason=f"{PEERS[name]} is not installed: pip install 'graphc[bench]'")
    result = doctest.testmod(importlib.import_module(name), extraglobs=ASSUMED, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def code_blocks(document: str) -> list[tuple[int, str]]:
    """The ```python blocks with the lines where they begin."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


@pytest.fixture
def registry() -> Iterator[dict[str, object]]:
    """The op registry, as it was before when the test is over."""
    before = dict(OPS)
    yield OPS
    OPS.clear()
    OPS.update(before)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: dict[str, object]) -> None:
    """Block after block, in one namespace, in an empty folder. An op of the core that is defined passes what all must."""
    monkeypatch.chdir(tmp_path)
    known = set(registry)
    blocks = code_blocks(document)
    assert blocks
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks:
        exec(compile("\n" * line + code, document, "exec"), namespace)
    for record in [OPS[name] for name in OPS if name not in known and "." not in name]:
        test_registry.check_record(record)


@pytest.mark.parametrize("document", [*DOCUMENTS, "examples/data/README.md"])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_floor_plan_is_that_of_the_layering_test() -> None:
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("from the ground up")[2].partition("```")[0]
    assert [f"graphc.{name}" for name in re.findall(r"^    (\w+)/? ", plan, re.MULTILINE)] == list(test_layering.FLOORS)


def test_every_file_of_the_front_end_has_a_place() -> None:
    """CONTRIBUTING.md lists them by what they are for: what is new has to be found there."""
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("What is where in")[2].split("```")[1]
    named = re.findall(r"\S+", re.sub(r"^ {4}.{24} ", "", plan, flags=re.MULTILINE))
    paths = [p for p in (ROOT / "frontend").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert sorted(named) == sorted(f"{p.name}/" if p.is_dir() else p.stem for p in paths if p.name != "__init__.py")


def test_files_that_are_named_exist() -> None:
    """A path in backticks, such as `graphc/ir.py`, is a file or a folder."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:graphc|frontend|backends|tests|examples|\.ci)/[\w./]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
