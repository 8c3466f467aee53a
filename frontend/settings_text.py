"""How objects that consist of settings print: schedules, samplers, datasets, contexts."""

from __future__ import annotations

import reprlib
from typing import Any

from graphc.frontend.device import device
from graphc.types import DType

_FEW = 4
"""Elements of a container that are shown one by one."""
_SHORT = 60
"""Characters of a string that are shown."""


class PrintsSettings:
    """Prints as `StepLR(step_size=30, gamma=0.1)`: its class, and in a word each what it consists of."""

    __slots__ = ()

    def _printed_settings(self) -> dict[str, Any]:
        """What is shown, by name: its public attributes, unless a subclass knows better."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        shown = [f"{name}={_text(value)}" for name, value in self._printed_settings().items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _text(value: Any) -> str:
    """A word on a value; of data only what it is, however much there is of it."""
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    if value is None or isinstance(value, (bool, int, complex, DType, device, PrintsSettings)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _SHORT else value[: _SHORT - 3] + "...")
    if type(value) in (list, tuple) and len(value) <= _FEW:
        inside = ", ".join(map(_text, value))
        return f"[{inside}]" if type(value) is list else f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict) and len(value) <= _FEW:
        return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple, dict, set, frozenset, range)):
        return f"<{type(value).__name__} of {len(value)}>"
    if hasattr(value, "dtype") and hasattr(value, "shape"):  # a tensor or an array
        return f"{getattr(value.dtype, 'name', value.dtype)}{list(value.shape)}"
    return getattr(value, "__name__", None) or f"<{type(value).__name__}>"
