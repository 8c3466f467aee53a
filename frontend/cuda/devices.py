"""Which GPUs there are, what they can do, and which of them is the current one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc import gpu
from graphc.errors import ArgumentError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays
from graphc.frontend.settings_text import PrintsSettings


def is_available() -> bool:
    """Whether tensors can live on a GPU here: whether CuPy is installed, and finds one.

    >>> device = "cuda" if graphc.cuda.is_available() else "cpu"
    >>> x = graphc.zeros(2, device=device)
    """
    return gpu.device_count() > 0


def is_initialized() -> bool:
    """Whether a GPU has been used.

    >>> used = graphc.cuda.is_initialized()
    """
    return bool(device_arrays.kinds)


def init() -> None:
    """Get ready to use GPUs, which happens by itself on first use: an error where there is none.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.init()
    """
    device_arrays.cupy()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the current GPU computes in bfloat16; by its own instructions from compute capability 8.0 on.

    >>> if graphc.cuda.is_available():
    ...     dtype = graphc.bfloat16 if graphc.cuda.is_bf16_supported() else graphc.float16
    """
    return is_available() and (including_emulation or get_device_capability() >= (8, 0))


def device_count() -> int:
    """How many GPUs there are to use: 0 without CuPy, without a driver, and without a GPU.

    >>> graphc.cuda.device_count() >= 0
    True
    """
    return gpu.device_count()


def number(device: Any = None) -> int:
    """The number of a GPU: the current one for None; an error for what is none, and where there is none."""
    if device is None:
        return current_device()
    index = devices.gpu_of(device)
    if index < 0:
        raise ArgumentError(f"Expected a cuda device, but got: {device}")
    return index


def current_device() -> int:
    """The number of the GPU that "cuda" means in this thread. BackendError where there is none.

    >>> if graphc.cuda.is_available():
    ...     number = graphc.cuda.current_device()
    """
    return gpu.import_cupy().cuda.runtime.getDevice()


def set_device(device: Any) -> None:
    """Choose the GPU that "cuda" means in this thread; a negative number changes nothing.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     graphc.cuda.set_device(0)
    """
    if isinstance(device, int) and device < 0:
        return
    device_arrays.cupy().cuda.Device(number(device)).use()


class device(PrintsSettings):
    """As a context manager, the GPU that "cuda" means within a block. A negative number, or None, changes nothing.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     with graphc.cuda.device(0):
    ...         x = graphc.zeros(2, device="cuda")
    """

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None or (isinstance(device, int) and device < 0) else number(device)
        self.prev_idx = -1

    def _printed_settings(self) -> dict[str, Any]:
        return {"idx": self.idx}

    def __enter__(self) -> None:
        if self.idx >= 0:
            self.prev_idx = current_device()
            set_device(self.idx)

    def __exit__(self, *error: object) -> None:
        set_device(self.prev_idx)


class device_of(device):
    """The same for the GPU of a tensor; nothing changes for one on the CPU.

    >>> with graphc.cuda.device_of(graphc.zeros(2)):
    ...     pass
    """

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else -1)


def synchronize(device: Any = None) -> None:
    """Wait until all that was begun on a GPU is done.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     x = graphc.ones(1000, device="cuda").exp()
    ...     graphc.cuda.synchronize()
    """
    device_arrays.cupy().cuda.Device(number(device)).synchronize()
    gpu.look()


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU is, and how much of everything it has."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    regs_per_multiprocessor: int = 0
    max_threads_per_multi_processor: int = 0
    shared_memory_per_block: int = 0
    L2_cache_size: int = 0

    def __repr__(self) -> str:
        return (f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
                f"total_memory={self.total_memory >> 20}MB, multi_processor_count={self.multi_processor_count})")


def get_device_properties(device: Any = None) -> DeviceProperties:
    """What a GPU can do: its architecture's version, its memory in bytes, how many multiprocessors it has.

    BackendError where there is no GPU, ArgumentError for a device that is none.

    >>> if graphc.cuda.is_available():
    ...     memory = graphc.cuda.get_device_properties().total_memory
    """
    found = device_arrays.cupy().cuda.runtime.getDeviceProperties(number(device))
    return DeviceProperties(
        found["name"].decode(), found["major"], found["minor"], found["totalGlobalMem"], found["multiProcessorCount"],
        found["warpSize"], found.get("regsPerMultiprocessor", 0), found.get("maxThreadsPerMultiProcessor", 0),
        found.get("sharedMemPerBlock", 0), found.get("l2CacheSize", 0),
    )  # fmt: skip


def get_device_name(device: Any = None) -> str:
    """The name of a GPU.

    >>> if graphc.cuda.is_available():
    ...     name = graphc.cuda.get_device_name()
    """
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The version of a GPU's architecture, such as (9, 0).

    >>> if graphc.cuda.is_available():
    ...     major, minor = graphc.cuda.get_device_capability()
    """
    found = get_device_properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """The architectures that code is made for: that of each GPU that there is, when it is used.

    >>> architectures = graphc.cuda.get_arch_list()
    """
    return sorted({"sm_{}{}".format(*get_device_capability(i)) for i in range(device_count())})


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one GPU can read another one's memory.

    GraphcError where both are the same GPU, ArgumentError where one of them is no GPU.

    >>> if graphc.cuda.device_count() > 1:
    ...     direct = graphc.cuda.can_device_access_peer(0, 1)
    """
    own, other = number(device), number(peer_device)
    if own == other:
        raise GraphcError("can_device_access_peer: a GPU and itself", expected="two GPUs", got=f"cuda:{own}")
    return bool(device_arrays.cupy().cuda.runtime.deviceCanAccessPeer(own, other))
