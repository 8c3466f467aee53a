"""Writing files where there is no room for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

needs_file_limits = pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit for the size of files")


def without_room(write: str, nbytes: int, before: str = "") -> str:
    """What the OSError of a statement says in a process that may write no file of more bytes; `before` runs without a limit."""
    code = f"""
import resource, signal
import graphc
{before}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({nbytes}, {nbytes}))
try:
    {write}
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "GRAPHC_CACHE_DIR": "off"})  # fmt: skip
    return done.stdout.strip()
