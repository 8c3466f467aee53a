"""JSON by the letter: no NaN, no key twice, no endless nesting."""

from __future__ import annotations

import json
import math
from typing import Any

from graphc.package.archive import Malformed

MAX_DEPTH = 64


def decode(data: bytes, what: str, max_items: int) -> dict[str, Any]:
    """The object that `data` holds; Malformed where it is not one, or may have more than `max_items` items. `what` names it."""
    if sum(map(data.count, (b",", b"[", b"{"))) > max_items:  # a megabyte of {} would take 40 of memory
        raise Malformed(f"{what} has more than {max_items} items", "raise the limit if you trust the file")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no character
    except RecursionError:
        raise Malformed(f"{what} is nested too deep") from None
    except ValueError as error:  # UnicodeError and JSONDecodeError, and int() of thousands of digits
        raise Malformed(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    _check_depth(value, what)
    return value


def encode(value: Any) -> bytes:
    """JSON of a value, the same for equal values; ValueError or TypeError where it has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=1).encode("utf-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return made


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON's")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            if isinstance(container, (dict, list))
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise Malformed(f"{what} is nested more than {MAX_DEPTH} deep")
