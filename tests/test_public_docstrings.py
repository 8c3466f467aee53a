"""Every public name has a docstring with an example, which names the errors that its function raises.

That the examples are right is for tests/test_documents.py, that these are the errors for tests/test_documented_errors.py.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from test_documents import ASSUMED

import graphc
import graphc.data
import graphc.nn.utils
import graphc.optim.lr_scheduler
import graphc.runtime
import graphc.signal.windows
import graphc.stablehlo
from graphc import native, nn
from graphc.errors import GraphcError
from graphc.frontend.conversion import CONVERTERS, TYPED

MODULES: dict[str, Any] = {
    "": graphc, "amp": graphc.amp, "autograd": graphc.autograd, "cuda": graphc.cuda, "data": graphc.data,
    "distributions": graphc.distributions, "fft": graphc.fft, "func": graphc.func, "jit": graphc.jit, "linalg": graphc.linalg,
    "native": native, "nn": graphc.nn, "nn.functional": graphc.nn.functional, "nn.init": graphc.nn.init,
    "nn.utils": graphc.nn.utils, "onnx": graphc.onnx, "optim": graphc.optim, "optim.lr_scheduler": graphc.optim.lr_scheduler,
    "random": graphc.random, "runtime": graphc.runtime, "signal.windows": graphc.signal.windows, "special": graphc.special,
    "stablehlo": graphc.stablehlo, "testing": graphc.testing, "Tensor": graphc.Tensor,
}

REMOVED = {"eig", "lstsq", "matrix_rank", "solve", "symeig"}
"""PyTorch's functions that do nothing but say what has taken their place."""


def public_names() -> Iterator[tuple[str, str, Any, Any]]:
    for path, module in MODULES.items():
        for name in getattr(module, "__all__", None) or dir(module):
            value = inspect.getattr_static(module, name) if path == "Tensor" else getattr(module, name)
            documented = callable(value) or isinstance(value, (property, staticmethod, classmethod))
            if not name.startswith("_") and documented and not inspect.ismodule(value):
                yield path, name, module, value


def lacks_example(name: str, module: Any, value: Any) -> bool:
    text = inspect.getdoc(value) or ""
    if ">>>" in text:
        return False
    # an in-place method says what it is the in-place form of
    base = name.removesuffix("_")
    return base == name or not text.startswith("`") or lacks_example(base, module, getattr(module, base))


@pytest.mark.parametrize("path", MODULES)
def test_public_names_have_examples(path: str) -> None:
    removed = REMOVED if path in ("", "Tensor") else set()
    lacking = {name for at, name, module, value in public_names() if at == path and lacks_example(name, module, value)}
    assert lacking == removed & {name for at, name, *_ in public_names() if at == path}


def own_functions(value: Any) -> list[FunctionType]:
    """Those that run when the public name is used: of a class, what makes an object and what calling a module runs."""
    if isinstance(value, type):
        found = [vars(value).get(name) for name in ("__init__", "__new__", "forward")]
    elif isinstance(value, property):
        found = [value.fget, value.fset]
    else:
        found = [value.__func__ if isinstance(value, (staticmethod, classmethod)) else value]
    plain = [inspect.unwrap(function) for function in found if callable(function)]
    ours = [function for function in plain if isinstance(function, FunctionType) and function.__module__.startswith("graphc.")]
    return [function for function in ours if not function.__code__.co_filename.startswith("<")]  # data classes make theirs


def body(function: FunctionType) -> list[ast.AST]:
    return list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))


def raised(function: FunctionType) -> set[str]:
    """The errors of graphc's that the function's own code raises."""
    made = [node.exc.func for node in body(function) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    kinds = [function.__globals__.get(name.id) for name in made if isinstance(name, ast.Name)]
    return {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, GraphcError)}


def with_helpers(function: FunctionType) -> list[FunctionType]:
    """The function and the private ones of its file that it calls, directly or by way of each other."""
    found = [function]
    for caller in found:
        for node in body(caller):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("_"):
                helper = inspect.unwrap(called) if callable(called := caller.__globals__.get(node.func.id)) else None
                if isinstance(helper, FunctionType) and helper.__module__ == function.__module__ and helper not in found:
                    found.append(helper)
    return found


def documentation(name: str, module: Any, value: Any) -> str:
    """Its docstring, and for an in-place method that of the method which it is the in-place form of; of a class, too, those
    of its own functions."""
    texts = [inspect.getdoc(value) or ""]
    base = name.removesuffix("_")
    if base != name and texts[0].startswith("`"):
        texts.append(inspect.getdoc(getattr(module, base)) or "")
    if isinstance(value, type):
        texts += [function.__doc__ or "" for function in own_functions(value)]
    return "\n".join(texts)


@pytest.mark.parametrize("path", MODULES)
def test_docstrings_name_the_errors(path: str) -> None:
    """Each that the function raises itself; and one at least where private functions do so for it. These may not raise all of
    theirs for all that call them."""
    lacking = set()
    for at, name, module, value in public_names():
        if at != path or name in REMOVED or (isinstance(value, type) and issubclass(value, BaseException)):
            continue
        text = documentation(name, module, value)
        for function in own_functions(value):
            lacking |= {(name, error) for error in raised(function) if error not in text}
            if "Error" not in text:
                lacking |= {(name, f"some error of {helper.__name__}") for helper in with_helpers(function) if raised(helper)}
    assert not lacking


def test_what_is_taken_for_raised() -> None:
    """The searches above find what they are there for."""
    assert raised(own_functions(nn.functional.huber_loss)[0]) == {"GraphcError"}
    convolution = with_helpers(own_functions(nn.functional.conv1d)[0])
    assert not raised(convolution[0])
    assert {"DTypeError", "GraphcError", "ShapeError"} <= set().union(*map(raised, convolution))
    assert {"forward", "__init__"} == {function.__name__ for function in own_functions(nn.RNNBase)}
    assert "AutogradError" in raised(own_functions(inspect.getattr_static(graphc.Tensor, "requires_grad"))[1])


@pytest.mark.parametrize("name", [*CONVERTERS, *TYPED])
def test_examples_that_are_made(name: str) -> None:
    """Those of docstrings that stand in no source, which the search for examples in modules does not find."""
    text = (CONVERTERS.get(name) or TYPED[name]).__doc__ or ""
    example = doctest.DocTestParser().get_doctest(text, dict(ASSUMED), name, None, 0)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0
