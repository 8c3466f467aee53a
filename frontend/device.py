"""Devices: where a tensor lives, and where the nodes of a graph run.

"cuda:0", "cuda:1", ... are NVIDIA GPUs; "cuda" is the current one.

"cpu:0", "cpu:1", ... are queues of the one CPU: nodes of a graph that are placed on different ones run side by side, in
threads of their own. Eager tensors live on "cpu" or on a GPU.
"""

from __future__ import annotations

import re
import threading

from graphc import gpu
from graphc.errors import ArgumentTypeError, BackendError, GraphcError

_KINDS = ("cpu", "cuda", "meta")


class device:
    """A device by its kind and, where there are several, its index: `device("cpu")`, `device("cuda:0")`.

    As a context manager it is the device on which the functions of creation make tensors inside the block. In a graph that is
    being written, it is where the nodes of the block run.

    GraphcError for a name that no device has, and a negative index; ArgumentTypeError for what is neither a name nor an index.

    >>> graphc.device("cpu"), graphc.device("cpu", 1).index
    (device(type='cpu'), 1)
    >>> graphc.ones(2, device="cpu").device
    device(type='cpu')
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        if isinstance(type, int) and not isinstance(type, bool):
            index, type = type, "cuda"
        name = str(type) if isinstance(type, (str, device)) else None
        if name is None:
            raise ArgumentTypeError("device() received an invalid combination of arguments",
                                    expected="a name such as 'cpu' or 'cuda:0'", got=repr(type))
        kind, colon, number = name.partition(":")
        if kind not in _KINDS:
            raise GraphcError(
                f"Expected one of {', '.join(_KINDS)} device type at start of device string: {name}",
                expected="'cpu', 'cuda' or 'cuda:<index>'", got=repr(name),
            )
        if colon and not re.fullmatch(r"0|[1-9]\d*", number):
            raise GraphcError(f"Invalid device string: '{name}'", expected="'cpu', 'cuda' or 'cuda:<index>'")
        if colon and index is not None:
            raise GraphcError(f"type (string) must not include an index because index was passed explicitly: {name}")
        if index is not None and not hasattr(index, "__index__"):
            raise ArgumentTypeError("device(): argument 'index' (position 2) must be int", got=repr(index))
        if index is not None and index < 0:
            raise GraphcError("Device index must not be negative", got=str(index))
        self.type = kind
        self.index = int(number) if colon else index

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

    def __enter__(self) -> device:
        check(self)
        _entered.devices.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.devices.pop()


class _Entered(threading.local):
    def __init__(self) -> None:
        self.devices: list[device] = []


_entered = _Entered()
CPU = device("cpu")
HOST = "cpu"
"""Where nodes of a graph run that are not placed: the queue that is also called cpu:0."""


def placement() -> str | None:
    """The device of the innermost `with device(...)` of this thread, as types spell it; None outside of any."""
    return queue(_entered.devices[-1]) if _entered.devices else None


def spelled(device: str) -> str:
    """The device of a value's type, as the user knows it: "cpu:0"."""
    return "cpu:0" if device == HOST else device


def queue(where: str | device) -> str:
    """A device as the types of a graph's values spell it: "cpu:0" is "cpu"."""
    name = str(where)
    return HOST if name == "cpu:0" else name


def check(where: str | int | device | None) -> None:
    """BackendError unless tensors can live there."""
    if where is not None and where is not CPU:
        gpu_of(where)


def gpu_of(where: str | int | device | None) -> int:
    """The number of the GPU that a device is, or of the default one if none is named; -1 for the CPU. BackendError where there
    is no such GPU."""
    if where is None:
        if not _entered.devices and _default.device is CPU:
            return -1
        where = _entered.devices[-1] if _entered.devices else _default.device
    if where is CPU:
        return -1
    chosen = where if isinstance(where, device) else device(where)
    if chosen.type == "cpu":
        return -1
    if chosen.type != "cuda":
        raise BackendError(f"{chosen}: tensors without memory are not supported", expected="'cpu' or 'cuda'")
    library = gpu.import_cupy()
    if chosen.index is None:
        return library.cuda.runtime.getDevice()
    count = gpu.device_count()
    if chosen.index >= count:
        raise BackendError(f"{chosen}: invalid device ordinal", expected=f"a number below {count}: so many GPUs there are")
    return chosen.index


class _Default:
    device = CPU


_default = _Default()


def get_default_device() -> device:
    """The device on which tensors are made where none is named.

    >>> graphc.get_default_device()
    device(type='cpu')
    """
    return _entered.devices[-1] if _entered.devices else _default.device


def set_default_device(device: str | device | None) -> None:
    """Choose the device on which tensors are made where none is named.

    BackendError for a device that is not there.

    >>> graphc.set_default_device("cpu")
    >>> graphc.ones(1).device
    device(type='cpu')
    >>> graphc.set_default_device(None)
    """
    check(device)
    _default.device = CPU if device is None or gpu_of(device) < 0 else _Device(device)


_Device = device
