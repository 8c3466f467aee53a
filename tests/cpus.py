"""Code for other CPUs than the one that this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.errors import BackendError


@contextmanager
def code_for(cpu: str) -> Iterator[str]:
    """Inside, code is made for that CPU. The test is skipped where this machine cannot run it."""
    with override(cpu=cpu):
        try:
            Target.host()
        except BackendError as error:
            pytest.skip(str(error).splitlines()[0])
        except ValueError:
            pytest.skip(f"{cpu} is no CPU of this architecture")
        yield cpu
