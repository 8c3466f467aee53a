"""How the arrays of a call are nested in tuples, lists and dicts, as JSON data.

    "*"                      an array
    {"tuple": [...]}         {"list": [...]}          {"dict": [[key, ...], ...]}, keys being strings or integers
    {"value": 3}             a bool, an integer, a string or None that is part of the call and fixed
    {"float": "0.5"}         a fixed float, as Python spells it

Arrays count from left to right: `{"tuple": ["*", {"dict": [["x", "*"]]}]}` is two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from graphc.errors import ArgumentTypeError
from graphc.package.archive import Malformed

Structure: TypeAlias = str | dict[str, Any]

LEAF = "*"
_MAX_DEPTH = 16


def describe(tree: Any, is_array: Callable[[Any], bool]) -> Structure:
    """The structure of a tree. A named tuple is described as a tuple, a dataclass as a dict of its fields: loading a
    file makes no classes. ArgumentTypeError for what cannot be described."""
    if is_array(tree):
        return LEAF
    if isinstance(tree, (tuple, list)):
        return {"tuple" if isinstance(tree, tuple) else "list": [describe(item, is_array) for item in tree]}
    tree = _as_dict(tree)
    if isinstance(tree, dict):
        for key in tree:
            if type(key) not in (str, int):
                raise ArgumentTypeError(f"a dict with the key {key!r} cannot be saved", expected="strings and integers as keys")
        return {"dict": [[key, describe(item, is_array)] for key, item in tree.items()]}
    if tree is None or type(tree) in (bool, int, str):
        return {"value": tree}
    if type(tree) is float:
        return {"float": repr(tree)}
    raise ArgumentTypeError(
        f"a {type(tree).__name__} cannot be part of a saved program's inputs or outputs",
        expected="arrays, numbers, strings and None in tuples, lists, dicts and dataclasses",
    )


def arrays(structure: Structure) -> int:
    """How many arrays a structure holds."""
    if structure == LEAF:
        return 1
    return sum(arrays(child) for child in _children(structure))


def names_inputs(structure: Structure, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call may be read as arrays by their place and the names of inputs: nothing in the structure is nested or
    fixed, and the call is not written as the structure says."""
    positional, keywords = _children(structure)
    flat = all(child == LEAF for child in (*_children(positional), *_children(keywords)))
    keys = {key for key, _ in _kind(keywords)[1]}
    return flat and not (len(args) == arrays(positional) and set(kwargs) == keys)


def flatten(structure: Structure, tree: Any, where: str = "") -> list[Any]:
    """The arrays of a tree of this structure, from left to right; ArgumentTypeError where the tree is another one."""
    if structure == LEAF:
        return [tree]
    kind, content = _kind(structure)
    match kind:
        case "tuple" | "list":
            if not isinstance(tree, (tuple, list)) or len(tree) != len(content):
                raise _differs(where, f"a {kind} of {len(content)}", tree)
            return [x for i, (child, item) in enumerate(zip(content, tree)) for x in flatten(child, item, f"{where}[{i}]")]
        case "dict":
            tree = _as_dict(tree)
            if not isinstance(tree, dict) or set(tree) != {key for key, _ in content}:
                raise _differs(where, f"a dict with the keys {[key for key, _ in content]}", tree)
            return [x for key, child in content for x in flatten(child, tree[key], f"{where}[{key!r}]")]
    fixed = float(content) if kind == "float" else content
    if type(tree) is not type(fixed) or (tree != fixed and not (tree != tree and fixed != fixed)):
        raise _differs(where, f"{fixed!r}, as the program was exported with", tree)
    return []


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The tree of this structure that holds the leaves."""
    return _build(structure, iter(leaves))


def check(structure: Any, count: int, what: str) -> None:
    """Malformed where JSON data are not a structure of `count` arrays."""
    _check(structure, what, 0)
    if arrays(structure) != count:
        raise Malformed(f"{what} holds {arrays(structure)} arrays, and the graph has {count}")


def check_call(structure: Any, count: int, what: str) -> None:
    """Malformed where JSON data are not the structure of a call, `(args, kwargs)`, with `count` arrays."""
    check(structure, count, what)
    match structure:
        case {"tuple": [{"tuple": [*_]}, {"dict": [*keywords]}]} if all(isinstance(key, str) for key, _ in keywords):
            return
    raise Malformed(f"{what} is not that of a call: a tuple of positional and a dict of keyword arguments")


def _as_dict(tree: Any) -> Any:
    """A dataclass's object as a dict of its fields, and all else as it is."""
    if is_dataclass(tree) and not isinstance(tree, type):
        return {field.name: getattr(tree, field.name) for field in fields(tree)}
    return tree


def _children(structure: Structure) -> Iterator[Structure]:
    kind, content = _kind(structure)
    if kind in ("tuple", "list"):
        yield from content
    elif kind == "dict":
        yield from (child for _, child in content)


def _kind(structure: Structure) -> tuple[str, Any]:
    """What a structure is, and what stands in it."""
    if isinstance(structure, str):
        return structure, None
    ((kind, content),) = structure.items()
    return kind, content


def _build(structure: Structure, leaves: Iterator[Any]) -> Any:
    if structure == LEAF:
        return next(leaves)
    kind, content = _kind(structure)
    match kind:
        case "tuple":
            return tuple([_build(child, leaves) for child in content])
        case "list":
            return [_build(child, leaves) for child in content]
        case "dict":
            return {key: _build(child, leaves) for key, child in content}
        case "float":
            return float(content)
    return content


def _check(structure: Any, what: str, depth: int) -> None:
    if structure == LEAF:
        return
    wrong = Malformed(f"{what} is not a structure of arrays")
    if depth == _MAX_DEPTH or not isinstance(structure, dict) or len(structure) != 1:
        raise wrong
    ((kind, content),) = structure.items()
    match kind:
        case "tuple" | "list" if isinstance(content, list):
            for child in content:
                _check(child, what, depth + 1)
        case "dict" if isinstance(content, list):
            if not all(isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in content):
                raise wrong
            if len({key for key, _ in content}) != len(content):
                raise wrong
            for _, child in content:
                _check(child, what, depth + 1)
        case "value" if content is None or type(content) in (bool, int, str):
            return
        case "float" if isinstance(content, str) and _is_float(content):
            return
        case _:
            raise wrong


def _is_float(text: str) -> bool:
    try:
        return repr(float(text)) == text
    except ValueError:
        return False


def _differs(where: str, expected: str, tree: Any) -> ArgumentTypeError:
    got = f"a {type(tree).__name__}"
    if isinstance(tree, (tuple, list)):
        got += f" of {len(tree)}"
    elif isinstance(tree, dict):
        got += f" with the keys {list(tree)}"
    elif tree is None or isinstance(tree, (bool, int, float, str)):
        got += f", {tree!r:.60}"
    problem = f"the inputs are not nested as the program takes them, at inputs{where}"
    return ArgumentTypeError(problem, expected=expected, got=got)
