"""The saved file, `.gcz`: graphs, weights and a manifest in one zip archive that is safe to open.

    manifest.json          versions, what each entry takes and gives, checksums, the user's metadata
    graphs/<entry>.gir     one graph in the textual form for each entry
    weights.safetensors    the parameters, buffers and large constants, shared by all entries

Members are stored, not compressed, and the weights are aligned, so that they are mapped into memory instead of read.
Equal contents make equal bytes. Nothing in a file is executed on loading, and everything is checked before it is used.
"""

from graphc.package.entry import Entry
from graphc.package.read import Limits, Package, read_package
from graphc.package.write import write_package

__all__ = ["Entry", "Limits", "Package", "read_package", "write_package"]
