"""Devices: where a tensor lives."""

from __future__ import annotations

import re

from graphc.errors import ArgumentTypeError, BackendError, GraphcError

_KINDS = ("cpu", "cuda", "meta")


class device:
    """A device by its kind and, where there are several, its index: `device("cpu")`, `device("cuda:0")`."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        if isinstance(type, int):
            index, type = type, "cuda"
        name = str(type) if isinstance(type, (str, device)) else None
        if name is None:
            raise ArgumentTypeError("device: not a device", expected="a name such as 'cpu' or 'cuda:0'", got=repr(type))
        match = re.fullmatch(r"([a-z]+)(?::(\d+))?", name)
        if match is None or match[1] not in _KINDS or (match[2] is not None and index is not None):
            raise GraphcError(
                f"Expected one of {', '.join(_KINDS)} device type at start of device string: {name}",
                expected="'cpu', 'cuda' or 'cuda:<index>'", got=repr(name),
            )
        self.type = match[1]
        self.index = int(match[2]) if match[2] is not None else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __reduce__(self) -> tuple[object, ...]:
        return device, (self.type, self.index)


CPU = device("cpu")


def check(where: str | int | device | None) -> None:
    """BackendError unless tensors can live there."""
    if where is None or where is CPU:
        return
    chosen = device(where)
    if chosen.type != "cpu":
        raise BackendError(f"{chosen}: no CUDA device can be used here",
                           hint="choose the device with graphc.cuda.is_available(), as in "
                                "device('cuda' if graphc.cuda.is_available() else 'cpu')")
