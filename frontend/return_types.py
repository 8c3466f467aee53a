"""The named tuples that some functions return, such as the values and indices of `max`."""

from __future__ import annotations

from collections import namedtuple
from typing import Any


def _text(self: Any) -> str:
    lines = ",\n".join(f"{name}={item!r}" for name, item in zip(self._fields, self))
    return f"graphc.return_types.{type(self).__name__}(\n{lines})"


def _define(name: str, fields: str) -> Any:
    base = namedtuple(name, fields)  # type: ignore[misc]  # the names are those of PyTorch
    return type(name, (base,), {"__slots__": (), "__repr__": _text, "__module__": __name__})


max = _define("max", "values indices")
min = _define("min", "values indices")
cummax = _define("cummax", "values indices")
cummin = _define("cummin", "values indices")
median = _define("median", "values indices")
nanmedian = _define("nanmedian", "values indices")
mode = _define("mode", "values indices")
kthvalue = _define("kthvalue", "values indices")
sort = _define("sort", "values indices")
topk = _define("topk", "values indices")
aminmax = _define("aminmax", "min max")
histogram = _define("histogram", "hist bin_edges")
histogramdd = _define("histogramdd", "hist bin_edges")
frexp = _define("frexp", "mantissa exponent")
