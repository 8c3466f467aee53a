"""What all tests share: an environment of their own, Hypothesis without deadlines, and what is noted of compiled functions."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from typing import Any

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    """Runs before graphc is imported. Worker processes, and those that tests start, inherit the environment."""
    settings.register_profile("graphc", deadline=None, print_blob=True)  # a first call compiles: its time says nothing
    settings.load_profile("graphc")
    # A shell has what it runs in the background ignore interrupts, and so would processes that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    cache = tempfile.mkdtemp(prefix="graphc-test-cache-")
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    os.environ["GRAPHC_CACHE_DIR"] = cache
    os.environ.setdefault("GRAPHC_VERIFY", "1")
    # From the repository's root, `python -c "import graphc"` would find the folder instead of the installed package.
    os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture
def python_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were called by way of Python."""
    from graphc.frontend.compile import Compiled

    called: list[Any] = []
    run = Compiled.__call__
    monkeypatch.setattr(Compiled, "__call__", lambda self, leaves: called.append(self) or run(self, leaves))
    return called


@pytest.fixture
def python_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that Python has run, a call each."""
    from graphc.frontend.recording import Recording

    runs: list[str] = []
    record = Recording.__init__

    def noted(self: Any, function: Any, name: str, *args: Any, **options: Any) -> None:
        runs.append(name)
        record(self, function, name, *args, **options)

    monkeypatch.setattr(Recording, "__init__", noted)
    return runs


@pytest.fixture
def recorded_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python runs again is recorded, which these small tensors are not worth."""
    from graphc.frontend import branching

    monkeypatch.setattr(branching, "_WORTH_RECORDING", 0)
