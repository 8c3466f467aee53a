"""Profiles in the trace-event format, which Perfetto (https://ui.perfetto.dev) and Chrome's chrome://tracing open.

The format is described in "Trace Event Format" (Google, 2016). Used of it are complete events ("X"), which nest by time on
their thread, and metadata ("M"), which names processes and threads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TraceEvent:
    """Something that took time on one thread, in nanoseconds of any clock that all events share."""

    name: str
    category: str
    start: int
    stop: int
    thread: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What is shown beside it: numbers, text, and lists of them."""


def write_trace(
    path: str | Path, processes: Mapping[str, Sequence[TraceEvent]], threads: Mapping[int, str],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write events as JSON, under the name of what made them, such as "eager" and "compiled". `threads` are names of threads;
    `about` is kept in the file. Times count from the first event of each process."""
    Path(path).write_text(json.dumps(document(processes, threads, about), allow_nan=False) + "\n", encoding="utf-8")


def document(
    processes: Mapping[str, Sequence[TraceEvent]], threads: Mapping[int, str], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `write_trace` writes."""
    events: list[dict[str, Any]] = []
    for process, (name, made) in enumerate(processes.items(), 1):
        first = min((event.start for event in made), default=0)
        order = sorted({e.thread for e in made}, key=_order(made))
        numbers = {thread: _thread_number(process, place) for place, thread in enumerate(order)}
        events.append(_metadata("process_name", process, process, name=name))
        events.append(_metadata("process_sort_index", process, process, sort_index=process))
        for row, (thread, number) in enumerate(numbers.items(), 1):
            events.append(_metadata("thread_name", process, number, name=threads.get(thread, f"thread {row}")))
            events.append(_metadata("thread_sort_index", process, number, sort_index=row))
        # whoever reads them in this order finds what is around an event before it
        for event in sorted(made, key=lambda e: (e.start, -e.stop)):
            times = {"ts": _microseconds(event.start - first), "dur": _microseconds(event.stop - event.start)}
            events.append({"name": event.name, "cat": event.category, "ph": "X", **times, "pid": process,
                           "tid": numbers[event.thread], "args": dict(event.arguments)})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": dict(about or {})}


_THREADS = 10_000
"""More than a process has."""


def _thread_number(process: int, place: int) -> int:
    """Perfetto calls the thread that has its process's number the main one, whichever process it is of."""
    return process if place == 0 else process * _THREADS + place


def _microseconds(nanoseconds: int) -> float:
    """Perfetto cuts a thousand times this off to nanoseconds, and drops events that end a nanosecond after what is around them:
    it must not come out below.

    >>> int(1.001 * 1000), int(_microseconds(1001) * 1000)
    (1000, 1001)
    """
    exact = nanoseconds / 1000
    return exact if int(exact * 1000) == nanoseconds else math.nextafter(exact, math.inf)


def _order(events: Sequence[TraceEvent]) -> Any:
    """Threads in the order of their first events."""
    first: dict[int, int] = {}
    for event in events:
        first[event.thread] = min(first.get(event.thread, event.start), event.start)
    return first.__getitem__


def _metadata(kind: str, process: int, thread: int, **arguments: Any) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "ts": 0, "args": arguments}


def joined(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several, such as those that processes have written, each a process of its name: of its own processes, if
    there are more than one, the names follow."""
    events: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    process = 0
    for name, made in documents.items():
        numbers: dict[int, int] = {}
        for event in made["traceEvents"]:
            if event["pid"] not in numbers:
                process += 1
                numbers[event["pid"]] = process
        for event in made["traceEvents"]:
            arguments = event["args"]
            if event["ph"] == "M" and event["name"] == "process_name":
                arguments = {"name": name if len(numbers) == 1 else f"{name}: {arguments['name']}"}
            if event["ph"] == "M" and event["name"] == "process_sort_index":
                arguments = {"sort_index": numbers[event["pid"]]}
            number, place = numbers[event["pid"]], 0 if event["tid"] == event["pid"] else event["tid"] % _THREADS
            events.append({**event, "pid": number, "tid": _thread_number(number, place), "args": arguments})
        about |= made["otherData"]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}
