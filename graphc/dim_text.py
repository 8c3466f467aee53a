"""Reading sizes as they are printed."""

from __future__ import annotations

import re

from graphc.dims import Dim
from graphc.errors import ShapeError

_MOST_NESTED = 32
"""How deep parentheses may be nested in what is read."""
_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_]\w*|//|[-+*()])")


def parse_dim(text: str) -> int | Dim:
    """Read a size as it is printed: `8`, `N`, `2*N + 1`, `3*((N + 1)//2)`; ShapeError for what is none."""
    tokens: list[str] = []
    at = depth = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        depth += 0 if found is None else (found[1] == "(") - (found[1] == ")")
        if found is None or depth > _MOST_NESTED:
            raise _no_size(text)
        tokens.append(found[1])
        at = found.end()
    tokens.reverse()  # a stack, the next one on top
    size = _parse_sum(tokens, text)
    if tokens:
        raise _no_size(text)
    return size


def _parse_sum(tokens: list[str], text: str) -> int | Dim:
    total: int | Dim = 0
    sign = -1 if tokens and tokens[-1] == "-" and tokens.pop() else 1
    while True:
        total = total + sign * _parse_product(tokens, text)
        if not tokens or tokens[-1] not in ("+", "-"):
            return total
        sign = 1 if tokens.pop() == "+" else -1


def _parse_product(tokens: list[str], text: str) -> int | Dim:
    value = _parse_factor(tokens, text)
    while tokens and tokens[-1] in ("*", "//"):
        value = value * _parse_factor(tokens, text) if tokens.pop() == "*" else value // _parse_factor(tokens, text)
    return value


def _parse_factor(tokens: list[str], text: str) -> int | Dim:
    token = tokens.pop() if tokens else ""
    if token == "(":
        value = _parse_sum(tokens, text)
        if not tokens or tokens.pop() != ")":
            raise _no_size(text)
        return value
    if token.isdigit():
        return int(token)
    if not token or token in "//*+-)":
        raise _no_size(text)
    return Dim.symbol(token)


def _no_size(text: str) -> ShapeError:
    return ShapeError(f"{text[:40]!r} is not a size", expected="such as 8, N, 2*N + 1 or (N + 1)//2")
