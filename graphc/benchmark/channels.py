"""How a worker is asked, and answers: lines on the standard input and output that it was started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def private_channels() -> Iterator[tuple[TextIO, TextIO]]:
    """Where requests come from and where answers go, for this process alone.

    Code that it runs finds an empty standard input, so that it takes no requests and waits for nobody, and prints to standard
    error, so that what it says is no answer.
    """
    with os.fdopen(os.dup(sys.stdin.fileno())) as requests, os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), sys.stdin.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield requests, answers
