"""ONNX, both ways, on graphs and arrays: `write_onnx` makes a model of a program, `read_onnx` reads one.

`graphc.onnx` of the front end is made of these two, for modules and tensors. The `onnx` package is an extra, `graphc[onnx]`.
"""

from graphc.onnx_format.export.model import MAX_OPSET, MIN_OPSET, OPSET, write_onnx
from graphc.onnx_format.reader.limits import Limits
from graphc.onnx_format.reader.model import OnnxModel, read_onnx

__all__ = ["MAX_OPSET", "MIN_OPSET", "OPSET", "Limits", "OnnxModel", "read_onnx", "write_onnx"]
