"""NVIDIA's library of matrix products, by way of ctypes.

CuPy's own wrapper refuses to be called while a stream is captured in a CUDA graph, which the library itself allows. Under these
conditions a product is the same bits each time on one kind of GPU, and captured without memory of its own in the graph: the
workspace is the caller's, for this product alone, and sums are not added up in half precision.

"cuBLAS" (NVIDIA), sections on results' reproducibility, CUDA graphs and cublasSetWorkspace.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping

from graphc.backends.cuda.products import Matrix, Product
from graphc.errors import BackendError
from graphc.sizes import evaluate
from graphc.types import bfloat16, float16, float32, float64

WORKSPACE = 32 << 20
"""Bytes, which the library may use during a product: what NVIDIA recommends for an H100, and more than it does for others."""
_DATA = {float32: 0, float64: 1, float16: 2, bfloat16: 14}
_IN_FLOAT32, _IN_FLOAT64, _IN_TF32 = 68, 70, 77
_NO_SUMS_OF_HALVES = 16
_AS_IT_IS, _TURNED = 0, 1
_DEFAULT_ALGORITHM = -1
_int, _long, _pointer = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_MATRIX = (_pointer, _int, _long, _long)
_SIGNATURES = {
    "cublasCreate_v2": (ctypes.POINTER(_pointer),),
    "cublasSetStream_v2": (_pointer, _pointer),
    "cublasSetWorkspace_v2": (_pointer, _pointer, ctypes.c_size_t),
    "cublasSetMathMode": (_pointer, _int),
    "cublasGemmStridedBatchedEx_64": (
        _pointer, _int, _int, _long, _long, _long, _pointer, *_MATRIX, *_MATRIX, _pointer, *_MATRIX, _long, _int, _int
    ),
}  # fmt: skip


def is_recent(library: ctypes.CDLL) -> bool:
    """Whether the library takes sizes of 64 bits, as it does since CUDA 12."""
    return all(hasattr(library, name) for name in _SIGNATURES)


class Cublas:
    """The library, with a handle for each device. Threads may call it at the same time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name, signature in _SIGNATURES.items():
            getattr(library, name).argtypes = signature
        library.cublasGetStatusString.restype = ctypes.c_char_p
        self._handles: dict[int, ctypes.c_void_p] = {}
        self._lock = threading.Lock()

    def multiply(
        self, device: int, stream: int, product: Product, sizes: Mapping[str, int], addresses: tuple[int, int, int],
        workspace: int,
    ) -> None:
        """Launch a product on a stream of the current device. The addresses are of the buffers of left, right and out."""
        itemsize = product.dtype.itemsize

        def operand(matrix: Matrix, address: int) -> tuple[int, int, int, int]:
            offset, apart, leading = matrix.at(sizes)
            return address + offset * itemsize, _DATA[product.dtype], leading, apart

        of_left, of_right, of_out = map(operand, (product.left, product.right, product.out), addresses)
        batch, m, n, k = (evaluate(size, sizes) for size in (product.batch, product.m, product.n, product.k))
        # cuBLAS counts down columns: a matrix that is not turned is to it one that is, and the product is left to right
        if product.out.turned:
            first, second = (of_left, not product.left.turned), (of_right, not product.right.turned)
        else:
            first, second, m, n = (of_right, product.right.turned), (of_left, product.left.turned), n, m
        scalar = ctypes.c_double if product.dtype is float64 else ctypes.c_float
        one, zero = scalar(1), scalar(0)
        compute = _IN_FLOAT64 if product.dtype is float64 else _IN_TF32 if product.tf32 else _IN_FLOAT32
        with self._lock:
            handle = self._handle(device)
            self._call("cublasSetStream_v2", handle, stream)
            self._call("cublasSetWorkspace_v2", handle, workspace, WORKSPACE)  # which another stream takes away
            self._call(
                "cublasGemmStridedBatchedEx_64", handle, *(_TURNED if turned else _AS_IT_IS for _, turned in (first, second)),
                m, n, k, ctypes.byref(one), *first[0], *second[0], ctypes.byref(zero), *of_out, batch, compute,
                _DEFAULT_ALGORITHM,
            )  # fmt: skip

    def _handle(self, device: int) -> ctypes.c_void_p:
        if device not in self._handles:
            handle = ctypes.c_void_p()
            self._call("cublasCreate_v2", ctypes.byref(handle))
            self._call("cublasSetMathMode", handle, _NO_SUMS_OF_HALVES)
            self._handles[device] = handle
        return self._handles[device]

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise BackendError(f"cuBLAS: {name}: {self._library.cublasGetStatusString(status).decode()}")
