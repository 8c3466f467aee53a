"""The table of ONNX's operators: how each is expressed by graphc's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from graphc.onnx_format.reader.call import Call

Read: TypeAlias = "Callable[[Call], Any]"

READERS: dict[str, Read] = {}
"""Operators by their names: a function of the call, which returns a value, an array, or a tuple of these."""

REFUSED: dict[str, str] = {}
"""Why an operator cannot be had."""


def reads(*operators: str) -> Callable[[Read], Read]:
    """Enter a function that expresses these operators."""

    def enter(read: Read) -> Read:
        READERS.update(dict.fromkeys(operators, read))
        return read

    return enter
