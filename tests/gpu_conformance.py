"""For the conformance suite's `--adapter`: tensors are on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_tensor(lib: Any, array: np.ndarray, dtype: str) -> Any:
    """A tensor of this dtype on the GPU."""
    tensor = lib.tensor(array)
    return (tensor.to(lib.bfloat16) if dtype == "bfloat16" else tensor).to("cuda")


def to_numpy(lib: Any, tensor: Any) -> np.ndarray:
    """The numbers of a tensor."""
    tensor = tensor.detach().cpu()
    return np.asarray((tensor.to(lib.float32) if tensor.dtype is lib.bfloat16 else tensor).numpy())
