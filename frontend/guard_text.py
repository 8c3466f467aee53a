"""What guarded state is called in messages."""

from __future__ import annotations

from typing import Any, TypeAlias

from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor
from graphc.specs import ABSENT

Name: TypeAlias = "str | tuple[str, str] | tuple[Name, str, Any]"
"""What a value is called: a name; (what kind of variable, its name); or (of what, "." or "[" or "the ... of", which). Most
are never put into words."""


def text(name: Name) -> str:
    """A name in words."""
    before, after = "", ""
    while len(name) == 3 and isinstance(name, tuple):
        name, form, key = name
        if form == ".":
            after = f".{key}{after}" if key is not None else after
        elif form == "[":
            after = f"[{short(key)}]{after}" if key is not None else after
        else:
            before = f"{before}{form} "
    if isinstance(name, tuple):
        kind, variable = name
        name = variable if after else f"{kind} {variable!r}"
    return f"{before}{name}{after}"


def last(name: Name) -> Any:
    """The key, attribute or variable that a name ends in."""
    return name if isinstance(name, str) else name[-1]


def member(name: Name, key: Any) -> str:
    """What a dict, list or class holds under a key, in words."""
    return text((name[0], name[1], key)) if isinstance(name, tuple) and len(name) == 3 else text((name, "[", key))


def short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if type(value) is SymbolicNumber:
        return "a number that a graph computes"
    text = "missing" if value is ABSENT else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
