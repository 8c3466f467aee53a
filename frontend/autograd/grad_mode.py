"""The switches for recording, under the name that PyTorch has for their module."""

from graphc.frontend.modes import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]
