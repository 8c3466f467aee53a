"""How inputs and outputs of graphs are described in a model."""

from __future__ import annotations

from typing import Any

from graphc.onnx_format.protobuf import element_type, onnx
from graphc.types import TensorType


def value_info(name: str, type_: TensorType) -> Any:
    """A ValueInfoProto. A size that is not known is named as graphc prints it."""
    shape = [size if isinstance(size, int) else str(size) for size in type_.shape]
    return onnx("onnx.helper").make_tensor_value_info(name, element_type(type_.dtype), shape)
