"""`graphc.profiler`: where the time of eager and of compiled code goes. Names and arguments are those of `torch.profiler`.

>>> import graphc
>>> from graphc.profiler import profile, record_function
>>> step = graphc.compile(lambda x, w: graphc.relu(x @ w).sum())
>>> x, w = graphc.randn(64, 32), graphc.randn(32, 16)
>>> total = step(x, w)
>>> with profile() as prof:
...     with record_function("eager"):
...         y = graphc.relu(x @ w)
...     total = step(x, w)
>>> averages = prof.key_averages()
>>> [event.key for event in averages if event.kind in ("user", "compiled")]
['eager', 'compiled lambda']
>>> {"relu", "matmul"} <= {event.key for event in averages}
True

Of what runs eagerly, the operations of the thread that the profile was begun on are recorded, and nodes of its backward passes.
Of what runs compiled on the CPU, each kernel is, on all threads, those of the thread pool too, and in loops at each step; this
costs nothing while nobody profiles.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from graphc.backend import RecordsKernels, get_backend
from graphc.config import config
from graphc.errors import ArgumentError, Location, ProfilerError, user_location
from graphc.frontend import device_arrays
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tracer import watched
from graphc.frontend.watch import Seen, Watch
from graphc.kernel_info import KernelRun
from graphc.trace_events import TraceEvent, write_trace

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "ProfilerActivity", "export_chrome_trace", "profile",
           "record_function"]  # fmt: skip


class ProfilerActivity(Enum):
    """What is profiled. Both are, whichever is named: kernels on a GPU, if one is used by then, are timed by its own clock."""

    CPU = 0
    CUDA = 1


@dataclass(frozen=True, eq=False)
class FunctionEvent:
    """Something that took time on one thread. Times are nanoseconds of `time.perf_counter_ns`."""

    name: str
    kind: str
    """"op" for what ran eagerly, "backward" for a node of a backward pass, "compiled" for a call of a compiled function,
    "kernel" for one of its kernels, "part" for what another thread has done of that, "user" for a `record_function`."""
    start: int
    stop: int
    thread: int
    locations: tuple[Location, ...] = ()
    """The lines that it comes from: several, where a kernel does the work of several."""
    input_shapes: tuple[tuple[int, ...], ...] = ()
    flops: int | None = None
    """Floating-point operations; None where they are not known."""
    bytes: int = 0
    """Of what it reads and writes."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What else the trace shows of it."""
    self_time: int = 0
    """Nanoseconds in which nothing ran inside of it that was recorded."""

    @property
    def time(self) -> int:
        """Nanoseconds."""
        return self.stop - self.start


@dataclass
class FunctionEventAvg:
    """All events of one name. Times are microseconds, as in PyTorch."""

    key: str
    kind: str
    count: int = 0
    cpu_time_total: float = 0.0
    self_cpu_time_total: float = 0.0
    flops: int = 0
    bytes: int = 0
    locations: tuple[Location, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...] | None = None
    """Where events were grouped by them."""

    @property
    def cpu_time(self) -> float:
        """Of one event, on average."""
        return self.cpu_time_total / self.count if self.count else 0.0

    def _add(self, event: FunctionEvent) -> None:
        self.count += 1
        self.cpu_time_total += event.time / 1000
        self.self_cpu_time_total += event.self_time / 1000
        self.flops += event.flops or 0
        self.bytes += event.bytes
        if event.locations != self.locations:
            self.locations = tuple(dict.fromkeys((*self.locations, *event.locations)))


class EventList(list[FunctionEventAvg]):
    """What `profile.key_averages` returns."""

    def total_average(self) -> FunctionEventAvg:
        """All of them as one."""
        total = FunctionEventAvg("Total", "")
        for event in self:
            total.count += event.count
            total.cpu_time_total += event.cpu_time_total
            total.self_cpu_time_total += event.self_cpu_time_total
            total.flops += event.flops
            total.bytes += event.bytes
        return total

    def table(self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55) -> str:
        """As text, with the largest first if `sort_by` is one of "self_cpu_time_total", "cpu_time_total", "cpu_time", "count",
        "flops" and "bytes"; by default by self_cpu_time_total."""
        key = sort_by or "self_cpu_time_total"
        if key not in _SORT_KEYS:
            raise ArgumentError(f"table: cannot sort by {key!r}", expected=f"one of {', '.join(_SORT_KEYS)}")
        rows = sorted(self, key=lambda event: -getattr(event, key))[:row_limit]
        whole = sum(event.self_cpu_time_total for event in self) or 1.0
        lines = [("name", "kind", "self %", "self", "total", "calls", "a call", "FLOPs", "GFLOP/s", "GB/s", "line")]
        for event in rows:
            seconds = event.cpu_time_total / 1e6
            lines.append((
                _shortened(event.key, max_name_column_width), event.kind,
                f"{100 * event.self_cpu_time_total / whole:.1f}%", _time(event.self_cpu_time_total),
                _time(event.cpu_time_total), str(event.count), _time(event.cpu_time), _scaled(event.flops),
                f"{event.flops / seconds / 1e9:.1f}" if event.flops and seconds else "",
                f"{event.bytes / seconds / 1e9:.1f}" if event.bytes and seconds else "",
                _lines(event.locations),
            ))  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        left = {0, 1, len(widths) - 1}
        text = ["  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
                for line in lines]
        text.insert(1, "-" * max(map(len, text)))
        return "\n".join([*text, text[1], f"time of all: {_time(sum(e.self_cpu_time_total for e in self))}"])

    __str__ = table


_SORT_KEYS = ("self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "flops", "bytes")


class profile:
    """Record what runs in a `with` block, or between `start()` and `stop()`.

    activities, record_shapes, with_stack, with_flops, profile_memory
        Shapes, lines, FLOPs and bytes are always recorded: these are accepted for the sake of programs written for PyTorch.
    on_trace_ready
        Called with the profile when it is over.

    Ops are seen on the thread that begins it, which has to end it too; kernels on all threads. A ProfilerError where another
    profile is running, and where another thread ends this one.
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None, on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False, with_stack: bool = False, with_flops: bool = False, profile_memory: bool = False,
    ) -> None:
        del record_shapes, with_stack, with_flops, profile_memory
        for activity in activities or ():
            if not isinstance(activity, ProfilerActivity):
                raise ArgumentError(f"profile: cannot profile {activity}",
                                    expected="ProfilerActivity.CPU or ProfilerActivity.CUDA")
        self._on_trace_ready = on_trace_ready
        self._watch = Watch()
        self._stack: ExitStack | None = None
        self._backends: list[RecordsKernels] = []
        self._begun: Location | None = None
        self._thread: int | None = None
        self._spans: list[FunctionEvent] = []
        self._runs: Sequence[KernelRun] = ()
        self._events: list[FunctionEvent] | None = None
        self._threads: dict[int, str] = {}
        self.lost = 0
        """Runs of kernels that there was no room for."""

    def start(self) -> None:
        """Begin."""
        global _running  # noqa: PLW0603
        if self._stack is not None or self._events is not None:
            raise ProfilerError("start: a profile is begun once", hint="make another one")
        on_gpu = device_arrays.kinds and not config.backend.startswith("cuda")
        backends = [get_backend(name) for name in (config.backend, *(["cuda"] if on_gpu else []))]
        with _lock:
            if _running is not None:
                where = f", begun at {_running._begun}" if _running._begun is not None else ""
                raise ProfilerError(f"start: another profile is running{where}", hint="end it first: one sees everything")
            _running = self
            self._begun, self._thread = user_location(), threading.get_ident()
        for backend in backends:
            if isinstance(backend, RecordsKernels):
                backend.start_recording()
                self._backends.append(backend)
        self._stack = ExitStack()
        self._stack.enter_context(watched(self._watch))

    def stop(self) -> None:
        """End."""
        global _running  # noqa: PLW0603
        if self._stack is None:
            raise ProfilerError("stop: the profile has not begun")
        if self._thread != threading.get_ident():
            raise ProfilerError("stop: the profile was begun on another thread", hint="end it there: it sees that thread")
        self._stack.close()
        self._stack = None
        for backend in self._backends:
            runs, lost = backend.stop_recording()
            self._runs = [*self._runs, *runs]
            self.lost += lost
        self._threads = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}
        self._threads |= {run.thread: f"GPU {-1 - run.thread}" for run in self._runs if run.thread < 0}
        _running = None
        self._events = _nested([*map(_of_seen, self._watch.seen), *map(_of_kernel, self._runs), *self._spans])
        if self._on_trace_ready is not None:
            self._on_trace_ready(self)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def events(self) -> list[FunctionEvent]:
        """All events, by their beginning."""
        if self._events is None:
            raise ProfilerError("the profile is not over", hint="ask behind the with block")
        return self._events

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """Events of one kind and name together, perhaps by the shapes of what went in, in the order in which they first came.
        What other threads have done of a kernel is part of that kernel's time."""
        found: dict[Any, FunctionEventAvg] = {}
        for event in self.events():
            if event.kind == "part":
                continue
            shapes = event.input_shapes if group_by_input_shape else None
            key = event.kind, event.name, shapes
            if key not in found:
                found[key] = FunctionEventAvg(event.name, event.kind, input_shapes=shapes)
            found[key]._add(event)
        return EventList(found.values())

    def export_chrome_trace(self, path: str | Path) -> None:
        """Write a trace that https://ui.perfetto.dev opens, and chrome://tracing."""
        export_chrome_trace(path, {"graphc": self})

    def __repr__(self) -> str:
        return "<profile>" if self._events is None else f"<profile: {len(self._events)} events>"


_lock = threading.Lock()
_running: profile | None = None


class record_function(PrintsSettings):
    """Give what runs in a `with` block a name in the profile."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> record_function:
        self._location = user_location()
        self._start = time.perf_counter_ns()
        return self

    def __exit__(self, *exception: object) -> None:
        stop, running = time.perf_counter_ns(), _running
        if running is not None:
            locations = () if self._location is None else (self._location,)
            running._spans.append(FunctionEvent(self.name, "user", self._start, stop, threading.get_ident(), locations))


def export_chrome_trace(path: str | Path, profiles: dict[str, profile]) -> None:
    """Write several profiles as one trace, each a process of its name, one below the other."""
    threads = {ident: name for prof in profiles.values() for ident, name in prof._threads.items()}
    about = {f"lost: {name}": prof.lost for name, prof in profiles.items() if prof.lost}
    write_trace(path, {name: list(map(_trace_event, prof.events())) for name, prof in profiles.items()}, threads, about)


def _of_seen(seen: Seen) -> FunctionEvent:
    return FunctionEvent(
        seen.name, seen.kind, seen.start, seen.stop, seen.thread, () if seen.location is None else (seen.location,),
        tuple(tuple(map(int, type_.shape)) for type_ in seen.inputs), seen.flops, seen.bytes,
        {"inputs": [str(type_) for type_ in seen.inputs], "outputs": [str(type_) for type_ in seen.results]},
    )  # fmt: skip


def _of_kernel(run: KernelRun) -> FunctionEvent:
    kernel = run.kernel
    detail = {"program": kernel.program, "kernel": kernel.name, "kind": kernel.kind, "ops": list(kernel.ops)}
    counted = not run.part and kernel.kind != "control"  # what that runs is recorded by itself
    flops, traffic = (size if counted and isinstance(size, int) else None for size in (kernel.flops, kernel.bytes))
    return FunctionEvent(kernel.title, "part" if run.part else "kernel", run.start, run.stop, run.thread, kernel.locations, (),
                         flops, traffic or 0, detail)


def _nested(events: list[FunctionEvent]) -> list[FunctionEvent]:
    """Events by their beginning, with the times in which nothing else ran inside of them."""
    events = sorted(events, key=lambda event: (event.start, -event.stop))
    inside = [0] * len(events)
    threads: dict[int, list[int]] = {}
    for i, event in enumerate(events):
        around = threads.setdefault(event.thread, [])
        while around and events[around[-1]].stop <= event.start:
            around.pop()
        if around:
            inside[around[-1]] += event.time
        around.append(i)
    return [replace(event, self_time=max(0, event.time - taken)) for event, taken in zip(events, inside)]


def _trace_event(event: FunctionEvent) -> TraceEvent:
    arguments: dict[str, Any] = {}
    if event.locations:
        arguments["line"] = _lines(event.locations, 8)
    seconds = event.time / 1e9
    if event.flops:
        arguments |= {"FLOPs": event.flops, "GFLOP/s": round(event.flops / seconds / 1e9, 3) if seconds else 0}
    if event.bytes:
        arguments |= {"bytes": event.bytes, "GB/s": round(event.bytes / seconds / 1e9, 3) if seconds else 0}
    return TraceEvent(event.name, event.kind, event.start, event.stop, event.thread, {**arguments, **event.detail})


def _lines(locations: Sequence[Location], most: int = 2) -> str:
    shown = [str(location) for location in locations[:most]]
    return ", ".join(shown + ["..."] * (len(locations) > most))


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 3] + "..."


def _time(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3f} {unit}"
    return f"{microseconds:.3f} us"


def _scaled(number: int) -> str:
    if not number:
        return ""
    size = float(number)
    for unit in ("", " K", " M", " G"):
        if size < 999.5:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g} T"

