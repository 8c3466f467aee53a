"""Programs as native code that needs no Python: an object file, a C header, and examples in C.

    graphc.native.export("model.gcz", "build", target="aarch64")
"""

from graphc.native.export import NativeFiles, export

__all__ = ["NativeFiles", "export"]
