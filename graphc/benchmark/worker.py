"""What runs in a process of its own: it makes workloads, checks them and times them, as lines on its standard input ask.

A line is a JSON object. {"make": NAME, "size": N} makes a workload of a family and checks it: compiled, it has to compute what
it computes eagerly. {"time": SECONDS} times its calls, {"stop": true} ends. The answers are lines of JSON on the descriptor
that standard output was, to which nothing else is written: {"first_seconds": ...}, {"samples": [...]}, or {"error": ...}.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from graphc.benchmark.channels import private_channels
from graphc.benchmark.families import FAMILIES
from graphc.benchmark.timing import sample

_TOLERANCE = 1e-3
"""Of the largest number of a result: what rounding may come to in sums of a hundred million numbers."""


class Worker:
    """The workload at hand."""

    def __init__(self, module: str) -> None:
        self.module: Any = importlib.import_module(module)
        self.call: Callable[[], Any] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "make" in request:
            return self.make(request["make"], request["size"])
        assert self.call is not None, "there is no workload yet"
        return {"samples": sample(self.call, request["time"])}

    def make(self, name: str, size: int) -> dict[str, Any]:
        self.call = None  # first let go of the one before
        [family] = [each for each in FAMILIES if each.name == name]
        self.module.manual_seed(size)
        function, arguments = family.make(self.module, size)
        expected = function(*arguments)
        compiled = self.module.compile(function)
        start = time.perf_counter()
        found = compiled(*arguments)
        first_seconds = time.perf_counter() - start
        problem = difference(found, expected)
        if problem is not None:
            return {"error": problem}
        self.call = lambda: compiled(*arguments)
        return {"first_seconds": first_seconds}


def difference(found: Any, expected: Any) -> str | None:
    """How a compiled function's result differs from that of eager code; None if by rounding alone."""
    one, other = (np.asarray(tensor.detach()) for tensor in (found, expected))
    if one.shape != other.shape:
        return f"compiled, the result has the shape {list(one.shape)} instead of {list(other.shape)}"
    largest = float(np.abs(other).max(initial=0.0))
    error = float(np.abs(one - other).max(initial=0.0))
    if error <= _TOLERANCE * largest:  # false for NaN, too
        return None
    return f"compiled, the result is off by {error:.3g}, of numbers up to {largest:.3g}"


def serve(requests: TextIO, answers: TextIO, module: str) -> None:
    """Answer line by line, until there are none or one says stop."""
    worker = Worker(module)
    for line in requests:
        request = json.loads(line)
        if "stop" in request:
            return
        try:
            answer = worker.answer(request)
        except Exception as error:  # shown in the place of a time
            answer = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with private_channels() as (requests, answers):
        serve(requests, answers, sys.argv[1])
