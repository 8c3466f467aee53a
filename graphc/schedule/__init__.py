"""From a tensor graph to kernels."""

from graphc.schedule.lower import lower
from graphc.schedule.machine import Machine

__all__ = ["Machine", "lower"]
