"""The layers: front end -> core <- back ends, no cycles, and in the core each floor on those above it."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"graphc": "graphc", "frontend": "graphc.frontend", "backends": "graphc.backends"}

ALLOWED = {"core": {"core"}, "frontend": {"core", "frontend"}, "backends": {"core", "backends"}}
DOORS = {
    "graphc": "hands out the front end's names",
    "graphc.backend": "finds a back end by its name",
}

# Each floor of the core imports only those before it; modules of one floor may import each other.
FLOORS = (
    "graphc.errors",
    "graphc.config",
    "graphc.script",
    "graphc.gpu",
    "graphc.numerics",
    "graphc.sources",
    "graphc.disk_cache",
    "graphc.dims",
    "graphc.dim_numbers",
    "graphc.dim_text",
    "graphc.assumptions",
    "graphc.conditions",
    "graphc.types",
    "graphc.sizes",
    "graphc.op",
    "graphc.operators",
    "graphc.ir",
    "graphc.graph_key",
    "graphc.expression",
    "graphc.kernel",
    "graphc.program",
    "graphc.kernel_key",
    "graphc.index",
    "graphc.ops",
    "graphc.text",
    "graphc.verify",
    "graphc.parse",
    "graphc.bind",
    "graphc.interpret",
    "graphc.fuel",
    "graphc.rewrite",
    "graphc.passes",
    "graphc.flops",
    "graphc.kernel_info",
    "graphc.recompute",
    "graphc.autodiff",
    "graphc.batching",
    "graphc.memory",
    "graphc.schedule",
    "graphc.specs",
    "graphc.backend",
    "graphc.threads",
    "graphc.garbage",
    "graphc.variants",
    "graphc.compiler",
    "graphc.differential",
    "graphc.bisection",
    "graphc.delta_debugging",
    "graphc.package",
    "graphc.state",
    "graphc.runtime",
    "graphc.onnx_format",
    "graphc.native",
    "graphc.stablehlo",
    "graphc.graph_view",
    "graphc.trace_events",
    "graphc.benchmark",
    "graphc.cli",
)

# Imports inside functions that go down a floor, each for a reason.
DEFERRED = {
    ("graphc.compiler", "graphc.differential"): "a back end whose runs are verified",
    ("graphc.dims", "graphc.dim_numbers"): "a size divided by a number is none any more",
    ("graphc.ir", "graphc.text"): "str(graph) prints it",
    ("graphc.rewrite", "graphc.passes"): "the nodes that rewriting leaves unused are pruned",
    ("graphc.ops.control", "graphc.interpret"): "control flow runs graphs by the definitions of their ops",
    ("graphc.ops.control", "graphc.autodiff"): "the derivative of control flow is that of the graphs that it runs",
    ("graphc.ops.control", "graphc.batching"): "control flow on a batch runs its graphs on one",
}


@dataclass(frozen=True)
class Import:
    """One import statement's arrow."""

    source: str
    target: str
    line: int
    top_level: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} (line {self.line})"


def module_files() -> dict[str, Path]:
    """Every module of the package by its installed name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = module_files()


def side(module: str) -> str:
    return next((name for name in ("frontend", "backends") if f"{module}.".startswith(f"graphc.{name}.")), "core")


def is_typing_guard(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements(
    body: list[ast.stmt], top_level: bool = True, typing_only: bool = False
) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Every statement, with whether it runs on import, and whether only a type checker reads it."""
    for statement in body:
        yield statement, top_level, typing_only
        inner = top_level and not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
        for name, block in ast.iter_fields(statement):
            if not isinstance(block, list):
                continue
            guarded = isinstance(statement, ast.If) and name == "body" and is_typing_guard(statement.test)
            for child in block:
                if isinstance(child, ast.stmt):
                    yield from statements([child], inner, typing_only or guarded)
                elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
                    yield from statements(child.body, inner, typing_only)


def targets(statement: ast.stmt, source: str, is_package: bool) -> Iterator[str]:
    """The modules that an import statement names; for `from graphc import x`, graphc.x where that is a module."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        base = statement.module or ""
        if statement.level:
            package = source if is_package else source.rpartition(".")[0]
            for _ in range(statement.level - 1):
                package = package.rpartition(".")[0]
            base = f"{package}.{base}".rstrip(".")
        for alias in statement.names:
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def imports_of(source: str, path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [
        Import(source, target, statement.lineno, top_level, typing_only)
        for statement, top_level, typing_only in statements(tree.body)
        for target in targets(statement, source, path.name == "__init__.py")
    ]


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]
INTERNAL = [found for found in IMPORTS if found.target.split(".")[0] == "graphc"]


def fail_if_any(problem: str, found: list[str]) -> None:
    assert not found, f"{problem}:\n  " + "\n  ".join(found)


def test_the_walk_sees_the_package() -> None:
    """A guard for the tests below: a walk that finds nothing would let everything pass."""
    assert {"graphc.ir", "graphc.ops.conv", "graphc.frontend", "graphc.backends.llvm"} <= set(MODULES)
    assert len(INTERNAL) > len(MODULES)


@pytest.mark.parametrize("code, expected", [
    ("def f():\n    import graphc.frontend", [("graphc.frontend", False, False)]),
    ("try:\n    pass\nexcept OSError:\n    from graphc import ir", [("graphc.ir", True, False)]),
    ("if TYPE_CHECKING:\n    from graphc.ir import Graph", [("graphc.ir", True, True)]),
    ("class A:\n    def f(self):\n        from . import types", [("graphc.types", False, False)]),
    ("match x:\n    case 1:\n        import frontend", [("frontend", True, False)]),
])  # fmt: skip
def test_imports_are_found_wherever_they_stand(tmp_path: Path, code: str, expected: list[tuple[str, bool, bool]]) -> None:
    file = tmp_path / "module.py"
    file.write_text(code)
    assert [(i.target, i.top_level, i.typing_only) for i in imports_of("graphc.module", file)] == expected


def test_only_allowed_arrows() -> None:
    wrong = [i for i in INTERNAL if side(i.target) not in ALLOWED[side(i.source)] and i.source not in DOORS]
    fail_if_any("imports against the layering (frontend -> graphc <- backends)", list(map(str, wrong)))


def test_public_names_are_not_taken_from_the_door() -> None:
    """`from graphc import Tensor` inside the package would be an arrow to the front end in disguise."""
    fail_if_any("name the module that defines it", [str(i) for i in INTERNAL if i.target == "graphc"])


def test_every_target_exists() -> None:
    fail_if_any("imports of modules that do not exist", [str(i) for i in INTERNAL if i.target not in MODULES])


def test_no_bare_import_of_the_folders() -> None:
    files = {**{str(p): p for folder in ("tests", "examples") for p in (ROOT / folder).rglob("*.py")}, **MODULES}
    wrong = [
        i for name, path in files.items() for i in imports_of(name, path) if i.target.split(".")[0] in ("frontend", "backends")
    ]
    fail_if_any("import graphc.frontend or graphc.backends: a bare name makes a second copy", list(map(str, wrong)))


def named_sides(path: Path) -> Iterator[str]:
    """Strings in the code, docstrings left out, that name the front end or a back end, as for importlib."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        if node.value.startswith(("graphc.frontend", "graphc.backends")):
            yield f"{node.value!r} (line {node.lineno})"


def test_only_the_doors_name_the_other_side() -> None:
    wrong = [
        f"{module}: {text}"
        for module, path in MODULES.items()
        if side(module) == "core" and module not in DOORS
        for text in named_sides(path)
    ]
    fail_if_any("only graphc/__init__.py and graphc/backend.py may name the other sides", wrong)


def test_no_cycles() -> None:
    """Among the imports that run when a module is imported."""
    arrows: dict[str, set[str]] = {name: set() for name in MODULES}
    for i in INTERNAL:
        if i.top_level and not i.typing_only and i.target != i.source:
            arrows[i.source].add(i.target)
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        pytest.fail("an import cycle: " + " <- ".join(error.args[1]))


def floor(module: str) -> int | None:
    """The number of the floor, or None for a module that has none."""
    return next((i for i, name in enumerate(FLOORS) if module == name or module.startswith(f"{name}.")), None)


def test_every_core_module_has_a_floor() -> None:
    missing = [m for m in MODULES if side(m) == "core" and m not in ("graphc", "graphc.__main__") and floor(m) is None]
    fail_if_any("give it a place in FLOORS", missing)
    fail_if_any("FLOORS names no module", [f for f in FLOORS if f not in MODULES])


def test_floors_rest_on_those_above() -> None:
    core = [i for i in INTERNAL if side(i.source) == side(i.target) == "core" and "graphc" not in (i.source, i.target)]
    placed = [(i, floor(i.source), floor(i.target)) for i in core]
    downward = [i for i, source, target in placed if source is not None and target is not None and target > source]
    wrong = [str(i) for i in downward if i.top_level and not i.typing_only]
    fail_if_any("imports of a lower floor", wrong)
    deferred = {(i.source, FLOORS[floor(i.target) or 0]): str(i) for i in downward if not i.top_level}
    fail_if_any("imports of a lower floor inside functions", [text for pair, text in deferred.items() if pair not in DEFERRED])
    fail_if_any("DEFERRED names imports that are gone", [str(pair) for pair in DEFERRED if pair not in deferred])
