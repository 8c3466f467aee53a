"""How a tensor's elements lie in memory, as `layout` and `memory_format` arguments name it."""

from __future__ import annotations


class _Named:
    """One of a few constants. There is one object for each."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"graphc.{self._name}"

    def __reduce__(self) -> str:
        return self._name


class layout(_Named):
    """The kind of storage. There is one: strides over dense memory.

    >>> graphc.ones(2).layout
    graphc.strided
    """

    __slots__ = ()


class memory_format(_Named):
    """The order of the dimensions in memory.

    >>> x = graphc.ones(1, 2, 3, 4).to(memory_format=graphc.channels_last)
    >>> x.is_contiguous(memory_format=graphc.channels_last), x.stride()
    (True, (24, 1, 8, 2))
    """

    __slots__ = ()


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")

_LAST = {channels_last: 4, channels_last_3d: 5}


def channels_last_order(format: object, ndim: int) -> tuple[int, ...] | None:
    """The dimensions in the order of memory, the channels (dimension 1) at the end; None for another format, or where the
    tensor has not the number of dimensions that the format is for."""
    if not isinstance(format, memory_format) or _LAST.get(format) != ndim:
        return None
    return (0, *range(2, ndim), 1)
