"""Run as a file, with the name of a module of this package: runs that module where the package need not be installed."""

import importlib.util
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Make `graphc` the package that this file is part of, whatever else is installed, and run one of its modules."""
    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("graphc", root / "__init__.py", submodule_search_locations=[str(root)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["graphc"] = package
    spec.loader.exec_module(package)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
