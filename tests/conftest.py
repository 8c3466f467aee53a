"""What all tests share: an environment of their own, and Hypothesis without deadlines."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    """Runs before graphc is imported. Worker processes, and those that tests start, inherit the environment."""
    settings.register_profile("graphc", deadline=None, print_blob=True)  # a first call compiles: its time says nothing
    settings.load_profile("graphc")
    if hasattr(config, "workerinput"):
        return
    cache = tempfile.mkdtemp(prefix="graphc-test-cache-")
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    os.environ["GRAPHC_CACHE_DIR"] = cache
    os.environ.setdefault("GRAPHC_VERIFY", "1")
    # From the repository's root, `python -c "import graphc"` would find the folder instead of the installed package.
    os.environ["PYTHONSAFEPATH"] = "1"

