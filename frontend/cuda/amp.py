"""Mixed precision by the older names for GPUs: off, with a warning, where there is none."""

from __future__ import annotations

from graphc.frontend import amp
from graphc.frontend import autocast as _autocast
from graphc.frontend.autocast import custom_bwd, custom_fwd
from graphc.types import DType, float16


class autocast(_autocast.autocast):
    """`graphc.autocast("cuda")`."""

    def __init__(self, enabled: bool = True, dtype: DType = float16, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """`graphc.amp.GradScaler("cuda")`."""

    def __init__(self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
