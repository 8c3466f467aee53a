"""What PyTorch keeps under `utils`: `data`, which is `graphc.data`."""

from __future__ import annotations

from graphc.frontend import data

__all__ = ["data"]
