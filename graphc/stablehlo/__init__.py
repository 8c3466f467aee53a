"""Graphs as StableHLO text, the portable form that XLA, IREE and others compile.

    text = graphc.stablehlo.to_stablehlo("model.gcz")
"""

from graphc.stablehlo.export import to_stablehlo
from graphc.stablehlo.module import module_text

__all__ = ["module_text", "to_stablehlo"]
