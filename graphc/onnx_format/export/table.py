"""The tables by which ops are written: as nodes of ONNX, or as other ops of graphc's that ONNX has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from graphc.onnx_format.export.writer import Names, Step, Writer

Write: TypeAlias = Callable[[Writer, Step], Names | None]

F = TypeVar("F", bound=Write)

WRITERS: dict[str, Write] = {}
"""How an op is written, by its name: the names of its results. None where it is better written by other ops."""

EXPANSIONS: dict[str, Callable[..., Any]] = {}
"""Ops that ONNX lacks, as functions of operands and attributes over ops that it has. None where it is not possible."""

MISSING: dict[str, str] = {}
"""What to say of ops that an ONNX model cannot hold."""


def writes(*ops: str) -> Callable[[F], F]:
    """Enter a function that writes these ops."""

    def enter(write: F) -> F:
        WRITERS.update(dict.fromkeys(ops, write))
        return write

    return enter


def expands(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function that expresses these ops by others."""

    def enter(expand: Callable[..., Any]) -> Callable[..., Any]:
        EXPANSIONS.update(dict.fromkeys(ops, expand))
        return expand

    return enter
