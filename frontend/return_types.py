"""The named tuples that some functions return, such as the values and indices of `max`."""

from __future__ import annotations

from typing import Any, ClassVar


class Result(tuple[Any, ...]):
    """A tuple whose items have names."""

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        lines = ",\n".join(f"{name}={item!r}" for name, item in zip(self.fields, self))
        return f"graphc.return_types.{type(self).__name__}(\n{lines})"

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self[type(self).fields.index(name)]
        raise AttributeError(f"{type(self).__name__!r} has no field {name!r}; it has {', '.join(type(self).fields)}")

    def __reduce__(self) -> Any:
        return type(self), (tuple(self),)


def _define(name: str, fields: str) -> type[Result]:
    return type(name, (Result,), {"__slots__": (), "fields": tuple(fields.split()), "__module__": __name__})


max = _define("max", "values indices")
min = _define("min", "values indices")
median = _define("median", "values indices")
mode = _define("mode", "values indices")
kthvalue = _define("kthvalue", "values indices")
sort = _define("sort", "values indices")
topk = _define("topk", "values indices")
aminmax = _define("aminmax", "min max")
