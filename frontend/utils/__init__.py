"""What PyTorch keeps under `utils`: `data`, which is `graphc.data`, and `checkpoint`."""

from __future__ import annotations

from graphc.frontend import checkpoint, data

__all__ = ["checkpoint", "data"]
