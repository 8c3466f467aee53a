"""Where the program has the values of a graph: on the CPU, or on a GPU.

All of a graph runs on one device. What the program says of devices is kept beside the graph: it decides where inputs come from
and where results go, and which operands the program may not use together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.errors import TraceError
from graphc.frontend.device import CPU, device
from graphc.frontend.device_ops import several_devices
from graphc.ir import Value


class TraceDevices:
    """The devices of one graph's values, as far as they follow from those of its inputs and from transfers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gpu: device | None = None
        """The GPU that the graph runs on; None for the CPU."""
        self._devices: dict[Value, device | None] = {}

    def of(self, value: Value) -> device:
        """Where the program has a value: on the CPU, unless some of what it is computed from is on a GPU."""
        return (self._known(value) or CPU) if self.gpu is not None else CPU

    def put(self, value: Value, where: device) -> None:
        """The program has a value there, whatever it is computed from."""
        self._runs_on(where)
        self._devices[value] = where

    def _runs_on(self, where: device) -> None:
        """Something is there, or goes there; TraceError if the graph runs on another GPU."""
        if where.type == "cuda":
            if self.gpu is not None and self.gpu != where:
                raise TraceError(f"{self.name!r} computes on {self.gpu} and on {where}: a graph runs on one GPU",
                                 hint="compile what runs on each GPU by itself")
            self.gpu = where

    def check_together(self, operands: Iterable[Any]) -> None:
        """GraphcError where the program uses tensors of several devices together; one without dimensions is a number."""
        if self.gpu is None:
            return
        places = {self._known(v) for v in operands if isinstance(v, Value) and v.shape} - {None}
        if len(places) > 1:
            first, second = sorted(map(str, places), reverse=True)
            raise several_devices(first, second)

    def _known(self, value: Value) -> device | None:
        """Where a value is; None for what is computed from nothing, which may be used together with everything."""
        devices, pending = self._devices, [value]
        while pending:
            now = pending[-1]
            operands = () if now.node is None else now.node.operands
            unknown = [] if now in devices else [v for v in operands if v not in devices]
            if unknown:
                pending += unknown
                continue
            pending.pop()
            if now not in devices:
                places = [place for v in operands if (place := devices[v]) is not None]
                devices[now] = next((place for place in places if place.type == "cuda"), places[0] if places else None)
        return devices[value]
