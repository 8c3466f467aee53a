"""The CUDA back end: kernels as CUDA C++, compiled with NVRTC, and run by way of CuPy.

Rendering needs neither a GPU nor CuPy: `Backend.source(graph)` shows the kernels of any graph.
"""

from graphc.backends.cuda.backend import CUDABackend


def create() -> CUDABackend:
    """The back end."""
    return CUDABackend()
