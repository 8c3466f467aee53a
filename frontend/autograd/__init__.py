"""Automatic differentiation: `backward`, `grad`, custom functions, and the switches for recording."""

from graphc.frontend.autograd import anomaly_mode, forward_ad, function, functional, grad_mode, graph
from graphc.frontend.autograd.anomaly_mode import detect_anomaly, set_detect_anomaly
from graphc.frontend.autograd.derivatives import Variable, backward, grad
from graphc.frontend.autograd.function import Function, once_differentiable
from graphc.frontend.autograd.gradcheck import gradcheck, gradgradcheck
from graphc.frontend.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Function", "Variable", "anomaly_mode", "backward", "detect_anomaly", "enable_grad", "forward_ad", "function", "functional",
    "grad", "grad_mode", "gradcheck", "gradgradcheck", "graph", "inference_mode", "is_grad_enabled",
    "is_inference_mode_enabled", "no_grad", "once_differentiable", "set_detect_anomaly", "set_grad_enabled",
]
