"""What works on modules and their parameters from outside: packing, clipping, reparametrisation, fusion."""

from __future__ import annotations

from graphc.frontend.nn.utils import rnn

__all__ = ["rnn"]
