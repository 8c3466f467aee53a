"""Which CPU code is generated for.

`Target.host()` is the machine this runs on, or the lesser CPU that `GRAPHC_CPU` names, so that the code made for
AVX2 or for plain x86-64 can be tested on a machine that has more. `Target.named()` is any other machine, to emit
object code for.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from graphc.backends.llvm.cpus import available_cpus
from graphc.config import config
from graphc.errors import ArgumentError, BackendError

if TYPE_CHECKING:
    from graphc.schedule import Machine


def _with(base: frozenset[str], names: str) -> frozenset[str]:
    return base | frozenset(names.split())


# What each CPU can do, in LLVM's feature names and as far as code generation asks. LLVM holds the full lists; its
# Python interface does not show them. The four levels are those of the x86-64 psABI.
_X86_64 = frozenset({"sse2"})
_X86_64_V2 = _with(_X86_64, "sse3 ssse3 sse4.1 sse4.2 popcnt cx16")
_X86_64_V3 = _with(_X86_64_V2, "avx avx2 bmi bmi2 f16c fma lzcnt movbe")
_X86_64_V4 = _with(_X86_64_V3, "avx512f avx512bw avx512cd avx512dq avx512vl")
_CASCADE_LAKE = _with(_X86_64_V4, "avx512vnni")
_ICE_LAKE = _with(_CASCADE_LAKE, "avx512ifma avx512vbmi avx512vbmi2 avx512bitalg avx512vpopcntdq gfni")
_SAPPHIRE_RAPIDS = _with(_ICE_LAKE, "avx512bf16 avx512fp16 avxvnni amx-tile amx-bf16 amx-int8")
_ZEN_4 = _with(_ICE_LAKE, "avx512bf16")
_NEON = frozenset({"neon"})
_ARM_V8_2 = _with(_NEON, "crc lse fullfp16 dotprod")
_ARM_V8_6 = _with(_ARM_V8_2, "bf16 i8mm")

_CPUS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {
        "x86-64": _X86_64,
        "x86-64-v2": _X86_64_V2,
        "x86-64-v3": _X86_64_V3,
        "x86-64-v4": _X86_64_V4,
        "nehalem": _X86_64_V2,
        "sandybridge": _with(_X86_64_V2, "avx"),
        "haswell": _X86_64_V3,
        "skylake": _X86_64_V3,
        "skylake-avx512": _X86_64_V4,
        "cascadelake": _CASCADE_LAKE,
        "icelake-server": _ICE_LAKE,
        "sapphirerapids": _SAPPHIRE_RAPIDS,
        "znver1": _X86_64_V3,
        "znver2": _X86_64_V3,
        "znver3": _X86_64_V3,
        "znver4": _ZEN_4,
        "znver5": _with(_ZEN_4, "avxvnni"),
    },
    "aarch64": {
        "generic": _NEON,
        "cortex-a53": _with(_NEON, "crc"),
        "cortex-a72": _with(_NEON, "crc"),
        "cortex-a76": _ARM_V8_2,
        "neoverse-n1": _ARM_V8_2,
        "neoverse-v1": _ARM_V8_6,
        "neoverse-n2": _ARM_V8_6,
        "neoverse-v2": _ARM_V8_6,
        "apple-m1": _ARM_V8_2,
        "apple-m2": _ARM_V8_6,
    },
}
_CPUS["riscv64"] = {"generic-rv64": _with(frozenset(), "m a f d c")}
_CPUS["wasm32"] = {"mvp": frozenset(), "generic": _with(frozenset(), "simd128")}
_BASELINE = {"x86_64": "x86-64", "aarch64": "generic", "riscv64": "generic-rv64", "wasm32": "generic"}
_SWITCHED_ON = {"riscv64": "m a f d c", "wasm32": "simd128"}
"""Features that LLVM does not see in the names of the CPUs, as far as a CPU has them."""
_ABI = {"riscv64": "lp64d"}
_SHORTHANDS = {
    "x86_64": "x86_64-unknown-linux-gnu",
    "aarch64": "aarch64-unknown-linux-gnu",
    "riscv64": "riscv64-unknown-linux-gnu",
    "wasm32": "wasm32-unknown-unknown",
    "macos-arm64": "arm64-apple-macosx11.0",
    "macos-x86_64": "x86_64-apple-macosx11.0",
    "windows-x86_64": "x86_64-pc-windows-msvc",
}
_DEFAULT_CACHES = (32 << 10, 1 << 20)
_DEFAULT_CORES = 8


_PAUSE = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.isb", (("i32", "15"),))}


def _architecture(triple: str) -> str:
    name = triple.partition("-")[0].lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _tuning(architecture: str) -> list[str]:
    # LLVM halves 512-bit vectors on the CPUs that it thinks run them slowly; our templates ask for 512 bits on purpose.
    return ["-prefer-256-bit"] if architecture == "x86_64" else []


def _without_tiles(target: Target) -> Target:
    """The target without AMX, which faults in a process that has not asked the system for it."""
    return replace(target, enabled=frozenset(name for name in target.enabled if not name.startswith("amx-")))


def _switched_on(architecture: str, enabled: frozenset[str]) -> list[str]:
    return [f"+{name}" for name in _SWITCHED_ON.get(architecture, "").split() if name in enabled]


@dataclass(frozen=True)
class Target:
    """A CPU to generate code for. Targets with the same triple, CPU and features are equal."""

    triple: str
    """As LLVM spells it: "x86_64-unknown-linux-gnu"."""
    cpu: str
    """LLVM's name of the CPU; decides instruction scheduling, and with `features` the instructions."""
    features: str
    """LLVM's feature string: "+avx2,-avx512f"."""
    enabled: frozenset[str] = field(compare=False)
    """The names of the features that generated code may use."""
    l1_bytes: int = field(default=_DEFAULT_CACHES[0], compare=False)
    """Size of one core's level-1 data cache."""
    l2_bytes: int = field(default=_DEFAULT_CACHES[1], compare=False)
    """Size of the level-2 cache."""
    cores: int = field(default=_DEFAULT_CORES, compare=False)
    """How many cores work is shared out for; what is computed is the same for any number."""

    @staticmethod
    def host() -> Target:
        """This machine, restricted to the CPU that `GRAPHC_CPU` (`config.cpu`) names.

        An ArgumentError lists the names if it is not a known one; a BackendError says what this machine lacks for it.
        """
        return _host(config.cpu)

    @staticmethod
    def named(triple: str, cpu: str | None = None) -> Target:
        """Another machine, to emit objects for; without `cpu`, the least CPU of its architecture.

        An ArgumentError lists the names if `cpu` is not a known one; a BackendError says that LLVM was built without
        the architecture.
        """
        _backend(triple)
        architecture = _architecture(triple)
        if cpu is None:
            cpu = _BASELINE.get(architecture, "")
            enabled = _CPUS.get(architecture, {}).get(cpu, frozenset())
        else:
            enabled = _features_of(architecture, cpu)
        return Target(triple, cpu, ",".join(_tuning(architecture) + _switched_on(architecture, enabled)), enabled)

    @staticmethod
    def for_export(name: str | None = None) -> Target:
        """The target that a name on the command line means.

        None is this machine, but for instructions that a process has to ask the system for. Others are the name of a CPU of
        x86-64 ("x86-64-v3", also spelt "x86_64_v3"), of one of the systems in `_SHORTHANDS` ("aarch64", "wasm32",
        "macos-arm64"), or a target triple of LLVM's; the latter two may have a CPU behind a colon: "aarch64:neoverse-v1".
        An ArgumentError or a BackendError says which there are.
        """
        if name is None:
            return _without_tiles(Target.host())
        system, _, cpu = name.partition(":")
        known_cpu = system.replace("_", "-")
        if not cpu and known_cpu in _CPUS["x86_64"]:
            return _without_tiles(Target.named(_SHORTHANDS["x86_64"], known_cpu))
        if system not in _SHORTHANDS and "-" not in system:
            cpus = ", ".join(_CPUS["x86_64"])
            raise ArgumentError(f"unknown target {name!r}", expected=f"one of {', '.join(_SHORTHANDS)}, {cpus}, or a triple",
                                hint="a CPU goes behind a colon, as in aarch64:neoverse-v1")
        return _without_tiles(Target.named(_SHORTHANDS.get(system, system), cpu or None))

    @property
    def key(self) -> str:
        """What distinguishes code made for this target from code made for another."""
        return f"{self.triple}/{self.cpu}/{self.features}"

    @property
    def pause(self) -> tuple[str, tuple[tuple[str, str], ...]] | None:
        """The intrinsic that tells a core that its thread waits for another's store, if there is one, and its arguments."""
        return _PAUSE.get(self.architecture)

    @property
    def architecture(self) -> str:
        """The first word of the triple, with "x86_64" and "aarch64" for their other names."""
        return _architecture(self.triple)

    def has(self, feature: str) -> bool:
        """Whether generated code may use a feature, by LLVM's name for it."""
        return feature in self.enabled

    @cached_property
    def vector_bytes(self) -> int:
        """The width of a vector register: 64 with AVX-512, 32 with AVX2, else 16."""
        if self.enabled.issuperset(("avx512f", "avx512bw", "avx512dq", "avx512vl")):
            return 64
        return 32 if self.has("avx2") else 16

    @cached_property
    def vector_registers(self) -> int:
        """How many vector registers there are: 16 on x86-64 before AVX-512, else 32."""
        return 16 if self.architecture == "x86_64" and self.vector_bytes < 64 else 32

    @property
    def has_fma(self) -> bool:
        """A fused multiply-add instruction; without it `llvm.fma` is a slow library call."""
        return self.has("fma") or self.architecture not in ("x86_64", "wasm32")

    @property
    def has_f16c(self) -> bool:
        """Instructions that convert between half and single precision."""
        return self.has("f16c") or self.architecture == "aarch64"

    @property
    def has_fp16(self) -> bool:
        """Arithmetic on vectors of half precision."""
        return self.has("avx512fp16") or self.has("fullfp16")

    @property
    def has_bf16(self) -> bool:
        """Dot products of bfloat16 pairs, accumulated in single precision."""
        return self.has("avx512bf16") or self.has("bf16")

    @property
    def has_amx_bf16(self) -> bool:
        """AMX tiles of bfloat16."""
        return self.enabled.issuperset(("amx-tile", "amx-bf16"))

    @property
    def multiplies_pairs(self) -> bool:
        """Whether there are products of bfloat16 (see `pairtile`), which take less time than those of float32."""
        return self.has_amx_bf16 or self.has("avx512bf16")

    def scheduled(self, numerics: str) -> Machine:
        """What the scheduler knows of it."""
        from graphc.schedule import Machine  # nobody schedules whose code is all on disk

        rounds = numerics == "fast" and self.multiplies_pairs
        return Machine(self.vector_bytes, rounds_factors=rounds, transforms_convolutions=numerics != "strict" and not rounds)

    @property
    def has_amx_int8(self) -> bool:
        """AMX tiles of 8-bit integers."""
        return self.enabled.issuperset(("amx-tile", "amx-int8"))

    @cached_property
    def pointer_bytes(self) -> int:
        """The size of an address."""
        return 4 if self.architecture == "wasm32" else 8

    @property
    def runs_here(self) -> bool:
        """Whether this process can run code made for this target."""
        native = _host("native")
        return self.triple == native.triple and self.enabled <= native.enabled

    def machine(self, *, jit: bool = False) -> llvm.TargetMachine:
        """LLVM's code generator for this target."""
        triple = self.triple
        if jit and sys.platform == "win32" and not triple.endswith("-elf"):
            triple += "-elf"  # the linker of the JIT makes far calls for ELF, and needs them
        # Position-independent code in the small model: constants are addressed from the instruction pointer, and the
        # JIT, which loads each module in one piece, adds stubs for far calls. The optimisation level is that of the
        # code generator alone: 1 to 3 take equally long on our templates, and yield the same code.
        return _backend(triple).create_target_machine(
            self.cpu, self.features, opt=2, reloc="pic", codemodel="small", jit=jit, abiname=_ABI.get(self.architecture, ""))


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


def _backend(triple: str) -> llvm.Target:
    _initialize()
    try:
        return llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise BackendError(
            f"cannot generate code for {triple!r}",
            expected="a target triple such as 'aarch64-linux-gnu' that this build of LLVM supports",
            got=str(error),
        ) from None


def _features_of(architecture: str, cpu: str) -> frozenset[str]:
    known = _CPUS.get(architecture, {})
    if cpu not in known:
        raise ArgumentError(
            f"unknown CPU {cpu!r} for {architecture}",
            expected=", ".join(known) or "no name: only the default is known for this architecture",
            got=repr(cpu),
            hint='GRAPHC_CPU is one of these names, or "native" for the machine itself',
        )
    return known[cpu]


@cache
def _host(cpu: str) -> Target:
    triple = llvm.get_process_triple()
    architecture = _architecture(triple)
    l1, l2 = _host_caches()
    name = llvm.get_host_cpu_name()
    detected = llvm.get_host_cpu_features()
    if detected.get("amx-tile") and not _may_use_tiles():
        detected.update({feature: False for feature in detected if feature.startswith("amx-")})
    present = frozenset(feature for feature, on in detected.items() if on)
    if not detected:  # LLVM cannot ask this operating system
        present = _CPUS.get(architecture, {}).get(name) or _features_of(architecture, _BASELINE[architecture])
    if cpu == "native":
        flags = [f"{'+' if on else '-'}{feature}" for feature, on in sorted(detected.items())]
        return Target(triple, name, ",".join(flags + _tuning(architecture)), present, l1, l2, available_cpus())

    enabled = _features_of(architecture, cpu)
    if missing := sorted(enabled - present):
        raise BackendError(
            f"this machine cannot run code for the CPU {cpu!r}",
            expected=f"a CPU whose features this machine ({name}) has",
            got=f"{cpu} also has {', '.join(missing)}",
            hint='set GRAPHC_CPU to a lesser CPU, or leave it at "native"',
        )
    # LLVM's own list for the CPU may go beyond ours: what the machine lacks is switched off by name.
    absent = [f"-{feature}" for feature, on in sorted(detected.items()) if not on]
    return Target(triple, cpu, ",".join(absent + _tuning(architecture)), enabled, l1, l2, available_cpus())


def _may_use_tiles() -> bool:
    """Ask the operating system for AMX, which Linux lets processes use that have asked, and their threads and children."""
    if sys.platform != "linux":
        return False
    system_call, arch_prctl, request_permission, tile_data = ctypes.CDLL(None).syscall, 158, 0x1023, 18
    return bool(system_call(arch_prctl, request_permission, tile_data) == 0)


@cache
def _host_caches() -> tuple[int, int]:
    """Level-1 data and level-2 cache sizes in bytes; typical ones where the system does not tell."""
    sizes: dict[int, int] = {}
    if sys.platform == "linux":
        sizes = _linux_caches(Path("/sys/devices/system/cpu/cpu0/cache"))
    elif sys.platform == "darwin":
        sizes = {
            1: _sysctl("hw.perflevel0.l1dcachesize", "hw.l1dcachesize"),
            2: _sysctl("hw.perflevel0.l2cachesize", "hw.l2cachesize"),
        }
    return sizes.get(1) or _DEFAULT_CACHES[0], sizes.get(2) or _DEFAULT_CACHES[1]


def _linux_caches(directory: Path) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for index in sorted(directory.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction":
                sizes[int(level)] = int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1], 0)
        except (OSError, ValueError):  # a kernel or a sandbox that shows only part of it
            continue
    return sizes


def _sysctl(*names: str) -> int:
    libc = ctypes.CDLL(None)
    for name in names:
        value, length = ctypes.c_int64(0), ctypes.c_size_t(8)
        if libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(length), None, ctypes.c_size_t(0)) == 0:
            return value.value
    return 0
