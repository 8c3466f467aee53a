"""Training in mixed precision: `autocast`, and `GradScaler` against gradients that float16 rounds to zero."""

from __future__ import annotations

import enum
import math
import warnings
from typing import Any

from graphc import gpu
from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.autocast import autocast, custom_bwd, custom_fwd, is_autocast_available
from graphc.frontend.from_data import tensor
from graphc.frontend.logic import isfinite
from graphc.frontend.modes import no_grad
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.pointwise import cast
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor
from graphc.types import float32


class _Stage(enum.Enum):
    """How far a step of one optimizer has come."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class GradScaler(PrintsSettings):
    """Multiplies losses by a factor, so that small gradients are not rounded to zero, and divides it out before a step.

    A step whose gradients are not all finite is left out, and the factor shrinks; after `growth_interval` steps without
    that it grows. Decisions by the gradients' values are made in Python: inside a compiled function use a fixed factor.

    ArgumentError for a growth factor that is not over 1, or a backoff factor that is not below 1.

    >>> import graphc
    >>> p = graphc.nn.Parameter(graphc.ones(1))
    >>> optimizer, scaler = graphc.optim.SGD([p], lr=0.5), graphc.amp.GradScaler("cpu", init_scale=4.0)
    >>> scaler.scale((p * 2).sum()).backward()
    >>> p.grad
    tensor([8.])
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> p.item()
    0.0
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True) -> None:
        if enabled and device == "cuda" and not gpu.device_count():
            warnings.warn("GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2)
            enabled = False
        if enabled and growth_factor <= 1.0:
            raise ArgumentError("The growth factor must be > 1.0.", got=str(growth_factor))
        if enabled and backoff_factor >= 1.0:
            raise ArgumentError("The backoff factor must be < 1.0.", got=str(backoff_factor))
        self._device = device
        self._enabled = enabled
        self._scale = float(init_scale)
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._stages: dict[int, _Stage] = {}
        self._found_inf: dict[int, bool] = {}

    def _printed_settings(self) -> dict[str, Any]:
        return {
            "device": self._device, "scale": self._scale, "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval, "enabled": self._enabled,
        }  # fmt: skip

    def scale(self, outputs: Any) -> Any:
        """A loss, or several in lists and tuples, times the factor."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            # a 0-d tensor, whose dtype does not change that of the loss
            return outputs * tensor(self._scale, dtype=float32)
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(map(self.scale, outputs))
        raise ArgumentError("outputs must be a Tensor or an iterable of Tensors", got=type(outputs).__name__)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the factor, to clip them, say; `step` does it otherwise."""
        if not self._enabled:
            return
        stage = self._stage(optimizer)
        if stage is _Stage.UNSCALED:
            raise GraphcError("unscale_() has already been called on this optimizer since the last update().")
        if stage is _Stage.STEPPED:
            raise GraphcError("unscale_() is being called after step().")
        finite, seen = True, False
        with no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    grad = parameter._get_grad()
                    if grad is not None:
                        seen = True
                        # in float32: the factor's inverse may be too small for float16
                        grad.copy_(cast(grad, float32) * (1.0 / self._scale) if grad.dtype.itemsize == 2
                                   else grad * (1.0 / self._scale))
                        finite = finite and bool(isfinite(grad).all())
        if seen:
            self._found_inf[id(optimizer)] = not finite
        self._stages[id(optimizer)] = _Stage.UNSCALED

    def _stage(self, optimizer: Optimizer) -> _Stage:
        return self._stages.get(id(optimizer), _Stage.READY)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step, unless a gradient is infinite or NaN; what it returns, or None."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise GraphcError("Closure use is not currently supported if GradScaler is enabled.")
        stage = self._stage(optimizer)
        if stage is _Stage.STEPPED:
            raise GraphcError("step() has already been called since the last update().")
        if stage is _Stage.READY:
            self.unscale_(optimizer)
        if id(optimizer) not in self._found_inf:
            raise GraphcError("No inf checks were recorded for this optimizer.", hint="call backward() on the scaled loss")
        self._stages[id(optimizer)] = _Stage.STEPPED
        return None if self._found_inf[id(optimizer)] else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Once every iteration: change the factor by what the steps since the last update have met, or set it."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        else:
            if not self._found_inf:
                raise GraphcError("No inf checks were recorded prior to update.", hint="call step(optimizer) first")
            if any(self._found_inf.values()):
                self._scale *= self._backoff_factor
                self._growth_tracker = 0
            else:
                self._growth_tracker += 1
                if self._growth_tracker == self._growth_interval:
                    self._growth_tracker = 0
                    grown = self._scale * self._growth_factor
                    # as float32, which the loss is multiplied by
                    self._scale = grown if grown <= 3.4028234663852886e38 and math.isfinite(grown) else self._scale
        self._stages.clear()
        self._found_inf.clear()

    def get_scale(self) -> float:
        """The factor."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the factor grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Change by what the factor grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the factor shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Change by what the factor shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many good steps in a row the factor grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Change after how many good steps in a row the factor grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether losses are scaled at all."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The factor, and how it changes."""
        if not self._enabled:
            return {}
        return {"scale": self._scale, "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
                "growth_interval": self._growth_interval, "_growth_tracker": self._growth_tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        if not self._enabled:
            return
        if not state_dict:
            raise GraphcError("The source state dict is empty, possibly because it was saved from a disabled instance of "
                              "GradScaler.")
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]


__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
