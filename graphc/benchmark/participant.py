"""What runs in the process of a side, as lines on its standard input ask.

A line is a JSON object with one of these keys, in this order of use; each is answered by a line on the descriptor that standard
output was, to which nothing else is written:

    start      a library, whether it compiles, threads, CPUs  ->  its version, the memory it takes by itself
    load       a task                                         ->  nothing: the function is there
    save, fill a file                                         ->  nothing: the function's numbers are the file's
    export     a file                                         ->  nothing: the function is written there as an ONNX model
    check      a file                                         ->  how long the first calls took; their results are in the file
    time       seconds                                        ->  samples
    memory     true                                           ->  the most memory since the first call began
    profile    true                                           ->  where the time of a call goes
    work       true                                           ->  operations and bytes of a call
    stop       true

What goes wrong is an answer too: {"error": ..., "not_applicable": whether the library is not for such tasks}.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, TextIO

from graphc import script
from graphc.benchmark import agreement, memory
from graphc.benchmark.channels import private_channels
from graphc.benchmark.libraries import NotApplicable, OnnxRuntime, Runner, Task, TorchLike, runner
from graphc.benchmark.timing import sample


class Participant:
    """One library in one way of running, and the task that it is at."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        self.task = Task("")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one line asks."""
        [key] = [name for name in request if hasattr(type(self), f"do_{name}")]
        answer: dict[str, Any] = getattr(self, f"do_{key}")(request[key])
        return answer

    def do_start(self, options: dict[str, Any]) -> dict[str, Any]:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, options["cpus"])  # before libraries look how many there are
        self.runner = runner(options["library"], options["compiled"], options["threads"])
        return {"version": self.runner.version, "base": memory.resident()}

    def do_load(self, task: dict[str, Any]) -> dict[str, Any]:
        self.task = Task(**task)
        self._runner.load(self.task)
        return {}

    def do_save(self, path: str) -> dict[str, Any]:
        self._runner.save(path)
        return {}

    def do_fill(self, path: str) -> dict[str, Any]:
        self._runner.fill(path)
        return {}

    def do_export(self, path: str) -> dict[str, Any]:
        assert isinstance(self._runner, TorchLike)
        self._runner.export_onnx(path)
        return {}

    def do_model(self, path: str) -> dict[str, Any]:
        assert isinstance(self._runner, OnnxRuntime)
        self._runner.model = path
        return {}

    def do_check(self, path: str) -> dict[str, Any]:
        memory.forget_peak()  # making the numbers, and writing and reading them, is no part of what is measured
        seconds, results = [], []
        for number in range(agreement.CALLS):
            begin = time.perf_counter()
            if number == 0:
                self._runner.start()
            result = self._runner.call()
            seconds.append(time.perf_counter() - begin)
            results.append(agreement.leaves(result, self._runner.to_array))
        return {"seconds": seconds, "results": agreement.write(results, path)}

    def do_time(self, seconds: float) -> dict[str, Any]:
        return {"samples": sample(self._runner.call, seconds, fewest=1)}

    def do_memory(self, _: bool) -> dict[str, Any]:
        return {"peak": memory.peak()}

    def do_profile(self, _: bool) -> dict[str, Any]:
        assert isinstance(self._runner, TorchLike)
        return {"parts": self._runner.profile()}

    def do_work(self, _: bool) -> dict[str, Any]:
        assert isinstance(self._runner, TorchLike)
        flops, nbytes = self._runner.work()
        return {"flops": flops, "nbytes": nbytes}

    @property
    def _runner(self) -> Runner:
        assert self.runner is not None, "nothing has been started"
        return self.runner

    def describe(self, error: BaseException) -> str:
        """What went wrong, with the script's line."""
        if isinstance(error, script.ScriptError):
            said = {"expected": error.expected, "got": error.got, "fix": error.hint}
            return "; ".join([error.problem, *(f"{what}: {text}" for what, text in said.items() if text is not None)])
        if self.task.path is not None:
            return script.describe(error, self.task.path)
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer line by line, until there are none or one says stop."""
    participant = Participant()
    for line in requests:
        request = json.loads(line)
        if "stop" in request:
            return
        try:
            answer = participant.answer(request)
        except (Exception, SystemExit) as error:  # shown in the place of a time
            answer = {"error": participant.describe(error), "not_applicable": isinstance(error, NotApplicable)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with private_channels() as (requests, answers):
        serve(requests, answers)
