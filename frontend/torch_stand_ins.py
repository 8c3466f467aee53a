"""What programs written for PyTorch ask of it besides tensors: devices that are not here, and switches without effect.

Each entry stands for a module of PyTorch, or adds names to one that graphc has. A switch can be set and read; nothing
depends on it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from graphc.frontend.amp import GradScaler
from graphc.frontend.compile import compile
from graphc.frontend.nn.uninitialized import UninitializedBuffer, UninitializedParameter, is_lazy
from graphc.frontend.tensor import Tensor

TORCH = "2.13.0"
"""The version of PyTorch whose interface this is."""


def _no(*args: Any, **kwargs: Any) -> bool:
    return False


def _none(*args: Any, **kwargs: Any) -> int:
    return 0


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _compile(
    model: Callable[..., Any] | None = None, *, fullgraph: bool = False, dynamic: bool | None = None, backend: Any = None,
    mode: str | None = None, options: dict[str, Any] | None = None, disable: bool = False,
) -> Any:
    """`graphc.compile` with the arguments of `torch.compile`; which compiler, and how, is not asked."""
    if disable:
        return model if model is not None else lambda function: function
    return compile(model, fullgraph=fullgraph)


def _unchanged(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A decorator that changes nothing, with or without parentheses."""
    return function if callable(function) else lambda decorated: decorated


_NO_DEVICE: dict[str, Any] = {
    "is_available": _no, "is_initialized": _no, "device_count": _none, "current_accelerator": _nothing, "empty_cache": _nothing,
    "synchronize": _nothing, "manual_seed": _nothing, "manual_seed_all": _nothing, "memory_allocated": _none,
    "max_memory_allocated": _none, "memory_reserved": _none, "max_memory_reserved": _none,
    "reset_peak_memory_stats": _nothing,
}


class _AttentionBackend(enum.IntEnum):
    """How attention might be computed; here it is in one way."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


STAND_INS: dict[str, dict[str, Any]] = {
    "": {
        "GradScaler": GradScaler,
        "__version__": f"{TORCH}+graphc{version('graphc')}", "compile": _compile, "use_deterministic_algorithms": _nothing,
        "are_deterministic_algorithms_enabled": lambda: True, "set_flush_denormal": _no, "set_num_interop_threads": _nothing,
        "get_num_interop_threads": lambda: 1, "FloatStorage": Tensor,
    },
    "version": {"__version__": TORCH, "cuda": None, "hip": None, "xpu": None, "git_version": "", "debug": False},
    "accelerator": _NO_DEVICE,
    "nn.attention": {"SDPBackend": _AttentionBackend, "sdpa_kernel": lambda *args, **kwargs: nullcontext()},
    "nn.parameter": {
        "UninitializedParameter": UninitializedParameter, "UninitializedBuffer": UninitializedBuffer, "is_lazy": is_lazy,
    },
    "cuda": {
        **_NO_DEVICE, "is_bf16_supported": _no, "ipc_collect": _nothing, "init": _nothing,
        "reset_max_memory_allocated": _nothing,
    },
    "mps": _NO_DEVICE,
    "xpu": _NO_DEVICE,
    "backends": {},
    "backends.cpu": {"get_cpu_capability": lambda: "DEFAULT"},
    "backends.cuda": {
        "is_built": _no, "enable_flash_sdp": _nothing, "enable_math_sdp": _nothing, "enable_mem_efficient_sdp": _nothing,
        "enable_cudnn_sdp": _nothing, "flash_sdp_enabled": _no, "math_sdp_enabled": lambda: True,
        "mem_efficient_sdp_enabled": _no,
    },
    "backends.cuda.matmul": {
        "allow_tf32": False, "allow_fp16_reduced_precision_reduction": True, "allow_bf16_reduced_precision_reduction": True,
    },
    "backends.cudnn": {
        "is_available": _no, "version": _nothing, "enabled": False, "benchmark": False, "deterministic": True,
        "allow_tf32": False,
    },
    "backends.mps": {"is_available": _no, "is_built": _no},
    "backends.mkl": {"is_available": _no},
    "backends.mkldnn": {"is_available": _no, "enabled": False},
    "backends.openmp": {"is_available": _no},
    "compiler": {
        "compile": _compile, "disable": _unchanged, "allow_in_graph": _unchanged, "is_compiling": _no, "reset": _nothing,
        "cudagraph_mark_step_begin": _nothing,
    },
    "distributed": {"is_available": _no, "is_initialized": _no},
    "_dynamo": {"disable": _unchanged, "reset": _nothing},
    "_dynamo.config": {},
    "_inductor": {},
    "_inductor.config": {},
}
"""Names by module, whose own name is without the leading `torch.`."""
