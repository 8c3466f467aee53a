"""Functions of scripts, as `graphc bench train.py:step` names them, and their inputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import graphc
from graphc.errors import ScriptError
from graphc.script import Target, function, inputs, load, running

Write = Callable[[str], ModuleType]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Write]:
    before, modules, arguments = list(sys.path), set(sys.modules), list(sys.argv)

    def write(text: str) -> ModuleType:
        path = tmp_path / "train.py"
        path.write_text(text)
        return load(str(path))

    yield write
    sys.path[:], sys.argv[:] = before, arguments
    for name in set(sys.modules) - modules:
        if name.startswith(("train", "beside")):
            del sys.modules[name]


def test_targets() -> None:
    assert Target.parse("a/b.py:net.forward") == Target("a/b.py", "net.forward")
    assert str(Target("a.py", "step")) == "a.py:step"
    assert Target.is_one("a.py:step") and Target.is_one("a.py") and not Target.is_one("softmax")
    for wrong in ("a.py", "a.py:", ":step", "a.py:1x", "a.py:f()"):
        with pytest.raises(ScriptError, match="names no function"):
            Target.parse(wrong)


def test_a_script_named_alone_says_what_it_defines(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("def step(): ...\ndef _own(): ...\ndef inputs(): ...\n")
    with pytest.raises(ScriptError, match=r"name one of its functions: .*train\.py:step\n") as raised:
        Target.parse(str(path))
    assert "_own" not in str(raised.value)
    path.write_text("def (")
    with pytest.raises(ScriptError, match="names no function"):
        Target.parse(str(path))


def test_a_function_of_no_arguments_needs_no_inputs(script: Write) -> None:
    module = script("inputs = (1,)\ndef step(*rest, **options): ...\n")
    assert inputs(module, "step") == ((), {})
    with pytest.raises(ScriptError, match="has no size"):
        inputs(module, "step", 3)


def test_inputs_are_what_the_script_says(script: Write) -> None:
    module = script("""
def f(x, y=1): ...
def g(x): ...
def h(x): ...
def no_arguments(y=1): ...
def inputs(): return 1, 2
f_inputs = {"x": 3}
def g_inputs(): return [4]
no_arguments_inputs = 5
""")
    assert inputs(module, "f") == ((), {"x": 3})
    assert inputs(module, "g") == ((4,), {})
    assert inputs(module, "h") == ((1, 2), {})
    assert inputs(module, "no_arguments") == ((5,), {})
    assert inputs(script("example_inputs = (6,)\ndef f(x): ...\n"), "f") == ((6,), {})


def test_sizes(script: Write) -> None:
    module = script("def f(x): ...\ndef inputs(n=64): return n\ndef g(x): ...\ndef g_inputs(): return 1\n"
                    "def k(x): ...\nk_inputs = 1\ndef m(x): ...\ndef m_inputs(n): return n\n")  # fmt: skip
    assert inputs(module, "f") == ((64,), {})
    assert inputs(module, "f", 8) == ((8,), {})
    for name in ("g", "k"):
        with pytest.raises(ScriptError, match="takes no size"):
            inputs(module, name, 8)
    with pytest.raises(ScriptError, match="no size is wanted"):
        inputs(module, "m")


def test_objects_that_can_be_called(script: Write) -> None:
    module = script("""
class Net:
    def __call__(self, *args): return self.forward(*args)
    def forward(self, x): return x
net = Net()
number = 3
inputs = (1,)
""")
    assert function(module, "net")(2) == function(module, "net.forward")(2) == 2
    assert inputs(module, "net") == ((1,), {})  # by what forward takes
    with pytest.raises(ScriptError, match="is a class"):
        function(module, "Net")
    with pytest.raises(ScriptError, match="cannot be called"):
        function(module, "number")


def test_what_is_missing_is_said(script: Write) -> None:
    module = script("def step(x, y): ...\ndef other(): ...\n")
    with pytest.raises(ScriptError, match=r"has no stop\n.*one of step, other"):
        function(module, "stop")
    with pytest.raises(ScriptError, match=r"takes x, y, and nothing says what that is(.|\n)*def step_inputs\(\): return"):
        inputs(module, "step")
    with pytest.raises(ScriptError, match="no such file"):
        load("nowhere/train.py")


@pytest.mark.parametrize(("text", "message"), [
    ("x = 1\nnone", r"NameError: name 'none' is not defined at train.py:2\n  fix: .*__main__"),
    ("def f():\n    raise ValueError('no')\nf()", r"ValueError: no at train.py:2 in f"),
    ("import sys\nsys.exit(3)", r"SystemExit: 3 at train.py:2"),
    ("x = = 1", r"SyntaxError: .* at train.py:1(?!(.|\n)*fix)"),
    ("import no_such_module_at_all", r"ModuleNotFoundError: .* at train.py:1(?!(.|\n)*fix)"),
])  # fmt: skip
def test_a_script_that_cannot_be_imported(script: Write, text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        script(text)


def test_what_fails_comes_with_the_scripts_frames_alone(script: Write) -> None:
    module = script("""
import graphc

def inner(x):
    raise KeyError("nothing")

def f(x):
    try:
        return inner(x)
    except KeyError as error:
        raise ValueError("no") from error

def g(x):
    return x @ x
""")
    target = Target("train.py", "f")
    with pytest.raises(ScriptError) as raised, running(target):
        module.f(1)
    lines = str(raised.value).splitlines()
    assert lines[0] == "train.py:f has failed" and "ValueError: no" in lines and "KeyError: 'nothing'" in lines
    frames = [line.split(", ", 1)[1] for line in lines if 'train.py"' in line]
    assert frames == ["line 9, in f", "line 5, in inner", "line 11, in f"]
    with pytest.raises(ScriptError) as raised, running(target):
        module.g(graphc.ones(2, 3))
    assert "return x @ x" in str(raised.value) and "frontend" not in str(raised.value)


def test_it_is_imported_as_from_its_own_folder(script: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("number = 7\n")
    module = script("import sys\nfrom beside_it import number\nargv = sys.argv[:]\n"
                    "if __name__ == '__main__': raise SystemExit\n")
    assert module.number == 7
    assert module.argv == [str(tmp_path / "train.py")]
    assert load(str(tmp_path / "train.py")).__name__ != module.__name__  # nobody's module is replaced


def test_it_needs_nothing_but_python() -> None:
    code = "import sys, graphc.script; assert not {'numpy', 'graphc.types'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
