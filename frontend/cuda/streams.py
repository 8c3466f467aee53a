"""Queues of a GPU's work, and moments in them. What is computed is queued on the current stream of this thread."""

from __future__ import annotations

import functools
from typing import Any

from graphc.errors import GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays
from graphc.frontend.cuda.devices import number
from graphc.frontend.settings_text import PrintsSettings
from graphc.gpu import look


class Event(PrintsSettings):
    """A moment in a stream: when all that was queued before it is done.

    >>> if graphc.cuda.is_available():
    ...     begin, end = graphc.cuda.Event(enable_timing=True), graphc.cuda.Event(enable_timing=True)
    ...     begin.record()
    ...     x = graphc.ones(1000, device="cuda").exp()
    ...     end.record()
    ...     end.synchronize()
    ...     milliseconds = begin.elapsed_time(end)
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        kind = device_arrays.cupy().cuda.Event
        self._make = functools.partial(kind, block=blocking, disable_timing=not enable_timing, interprocess=interprocess)
        self._times = enable_timing
        self._event: Any = None
        """CUDA's event, which belongs to one GPU: that of the stream where it is recorded first."""

    def _printed_settings(self) -> dict[str, Any]:
        return {"enable_timing": self._times, "recorded": self._event is not None}

    def record(self, stream: Stream | None = None) -> None:
        """Let it be now, at the end of a stream: of the current one if none is given."""
        stream = stream or current_stream()
        with device_arrays.on(stream._index):
            if self._event is None:
                self._event = self._make()
            self._event.record(stream._stream)

    def synchronize(self) -> None:
        """Wait for it; not at all where it has not been recorded."""
        if self._event is not None:
            self._event.synchronize()
        look()

    def query(self) -> bool:
        """Whether it has been reached; so has one that has not been recorded."""
        return self._event is None or bool(self._event.done)

    def wait(self, stream: Stream | None = None) -> None:
        """Let what is queued on a stream from here on wait for it."""
        (stream or current_stream()).wait_event(self)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from here to another event, both of which have been reached."""
        if not (self._times and end_event._times):
            raise GraphcError("Both events must be created with argument 'enable_timing=True'.")
        if self._event is None or end_event._event is None:
            raise GraphcError("Both events must be recorded before calculating elapsed time.")
        return float(device_arrays.cupy().cuda.get_elapsed_time(self._event, end_event._event))


class Stream:
    """A queue of work, which runs beside those of other streams; as a context manager, the current one within a block.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     beside = graphc.cuda.Stream()
    ...     with graphc.cuda.stream(beside):
    ...         x = graphc.ones(1000, device="cuda").exp()
    ...     beside.synchronize()
    """

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self._index = number(device)
        """Its GPU, which has to be the current one where the stream is named: CUDA knows all default streams by one name."""
        with device_arrays.on(self._index):
            self._stream = device_arrays.cupy().cuda.Stream(non_blocking=True, priority=priority)
        self._before: list[Any] = []

    @classmethod
    def _of(cls, stream: Any, index: int) -> Stream:
        made = cls.__new__(cls)
        made._index, made._stream, made._before = index, stream, []
        return made

    @property
    def device(self) -> devices.device:
        """The GPU whose queue it is."""
        return devices.device("cuda", self._index)

    @property
    def cuda_stream(self) -> int:
        """The address by which CUDA knows it."""
        return int(self._stream.ptr)

    def synchronize(self) -> None:
        """Wait until all that is queued is done."""
        with device_arrays.on(self._index):
            self._stream.synchronize()
        look()

    def query(self) -> bool:
        """Whether all that is queued is done."""
        with device_arrays.on(self._index):
            return bool(self._stream.done)

    def record_event(self, event: Event | None = None) -> Event:
        """A new event, or the one given, at the end of the queue."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let what is queued from here on wait for an event, of this GPU or another one."""
        if event._event is not None:
            with device_arrays.on(self._index):
                self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """Let what is queued from here on wait for what is queued on another stream now."""
        self.wait_event(stream.record_event())

    def __enter__(self) -> Stream:
        self._before.append((device_arrays.cupy().cuda.Device(self._index), self._stream))
        for part in self._before[-1]:
            part.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for part in reversed(self._before.pop()):
            part.__exit__(*error)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self._index, self.cuda_stream) == (other._index, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self._index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<graphc.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


def current_stream(device: Any = None) -> Stream:
    """The stream that work of this thread is queued on.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.current_stream().synchronize()
    """
    index = number(device)
    with device_arrays.on(index):
        return Stream._of(device_arrays.cupy().cuda.get_current_stream(), index)


def default_stream(device: Any = None) -> Stream:
    """The stream that work is queued on where none has been chosen.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.default_stream().synchronize()
    """
    return Stream._of(device_arrays.cupy().cuda.Stream.null, number(device))


def set_stream(stream: Stream) -> None:
    """Choose the stream that work of this thread is queued on.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.set_stream(graphc.cuda.default_stream())
    """
    with device_arrays.on(stream._index):
        stream._stream.use()


class stream(PrintsSettings):
    """The current stream within a block; None changes nothing.

    >>> if graphc.cuda.is_available():
    ...     with graphc.cuda.stream(graphc.cuda.Stream()):
    ...         x = graphc.ones(1000, device="cuda")
    """

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.stream.__enter__()

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.stream.__exit__(*error)
