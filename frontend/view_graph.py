"""`view_graph`: what a function is compiled to, as a page to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphc.config import config
from graphc.errors import ArgumentTypeError
from graphc.frontend.compile import CompiledFunction, CompiledModule
from graphc.frontend.compiled import Compiled
from graphc.frontend.trace import graph_name
from graphc.graph_view import Page, make_page


def view_graph(
    function: Callable[..., Any], *inputs: Any, path: str | Path | None = None, code: bool = True, **keywords: Any
) -> Page:
    """A page that shows what a function or a module is compiled to for these inputs: the graph before and after each pass, and
    its kernels, with the lines that they come from and their code. Nothing is run.

    ArgumentTypeError for what cannot be called.

    >>> import graphc
    >>> page = graphc.view_graph(lambda x: (x * 1.0).exp().sum(), graphc.ones(8), code=False)
    >>> page.stages
    ('traced', 'simplify')
    >>> page.html.startswith("<!doctype html>")
    True

    inputs, keywords
        What the function is called with.
    path
        Where to write the page: one file of HTML that needs no other, for any browser of 2023 or later.
    code
        Whether kernels come with their LLVM IR and assembly, which takes as long as to compile them.

    Raises TraceError for code that looks at the values of tensors, naming the line.
    """
    if isinstance(function, CompiledModule):
        function = function._original
    elif isinstance(function, CompiledFunction):
        function = function.function
    if not callable(function):
        raise ArgumentTypeError(f"view_graph: a {type(function).__name__} cannot be called", expected="a function or a module")
    name = graph_name(function)
    graph = Compiled(function, name, inputs, keywords, None).graph
    page = make_page(graph, title=name, code=code, backend=config.backend)
    if path is not None:
        Path(path).write_text(page.html, encoding="utf-8")
    return page
