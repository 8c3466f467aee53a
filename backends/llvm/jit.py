"""From LLVM IR text to machine code in this process, or to an object file for another machine.

    module = compile_module(text, Target.host(), imports={"parallel_for": address})
    kernel = module.function("kernel", None, ctypes.c_void_p, ctypes.c_int64)

Object code is kept on disk by text and target, and an object is what is loaded, new or kept: so a module behaves the
same whether it was compiled now or last week.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding as llvm

from graphc.backends.llvm.target import Target
from graphc.config import config
from graphc.disk_cache import DiskCache, cache_key
from graphc.errors import CompileError

# The templates are written as they should run, so little is left to do: inline what asks for it, turn stack slots into
# registers, tidy up. On 40 fused kernels these take 10 ms beside the 85 ms of instruction selection and register
# allocation; LLVM's O1 and O2 take 85 to 150 ms, and neither they nor O3 gave a faster GEMM, convolution or pointwise
# kernel. The code generator does the rest (common subexpressions, loop-invariant code) at any level.
_PASSES = (
    "always_inliner",
    "sroa",
    "simplify_cfg",
    "instruction_combine",
    "global_dead_code_eliminate",
    "strip_dead_prototype",
)
# What the object code depends on besides text and target.
_GENERATOR = f"2 {llvmlite.__version__} {llvm.llvm_version_info} {_PASSES}"

_LENGTHS = struct.Struct("<II")
# What the code generator calls where the CPU has no instruction for it, and no library brings: conversions.ll.
_CONVERSIONS = ("__extendhfsf2", "__truncsfhf2", "__truncdfhf2", "__truncsfbf2", "__truncdfbf2")
_INTERNAL = (llvm.Linkage.internal, llvm.Linkage.private)
_Result = TypeVar("_Result")

# LLVM is used under this lock only. A fork waits for it, lest a child start with LLVM's own locks held by a thread that
# it does not have. Reentrant, since the garbage collector may drop a module while its thread is in here.
_lock = threading.RLock()
_libraries = itertools.count()


class NativeModule:
    """Machine code in this process. It stays as long as this object does: who keeps an address must keep the module."""

    def __init__(self, name: str, library: llvm.ResourceTracker, symbols: tuple[str, ...]) -> None:
        self.name = name
        self._addresses = {symbol: library[symbol] for symbol in symbols}
        weakref.finalize(self, _unload, library).atexit = False

    def address(self, name: str) -> int:
        """The address of a function or variable that the module defines, unless it is internal to it.

        A KeyError names what there is instead.
        """
        try:
            return self._addresses[name]
        except KeyError:
            raise KeyError(f"{self.name} defines no {name!r}; it has {', '.join(sorted(self._addresses))}") from None

    def function(self, name: str, result: type | None, *arguments: type) -> Callable[..., Any]:
        """A function of the module by its ctypes types. It keeps the module; calls to it release the GIL."""
        function = ctypes.CFUNCTYPE(result, *arguments)(self.address(name))
        function.module = self  # type: ignore[attr-defined]
        return function

    def __repr__(self) -> str:
        return f"<NativeModule {self.name}: {', '.join(sorted(self._addresses))}>"


def compile_module(
    text: str,
    target: Target,
    *,
    imports: Mapping[str, int] | None = None,
    cache: DiskCache | None = None,
    name: str | None = None,
) -> NativeModule:
    """Compile LLVM IR and load it.

    `imports` are the addresses of symbols that the text declares and does not define; the C library's functions, and
    conversions that the CPU lacks, are found without it. `cache` is the configured one by default;
    `DiskCache(None, 0)` keeps nothing. `name`, for messages, is by default the comment on the text's first line.

    A CompileError says what LLVM has against the text, or which symbols are not to be found.
    """
    name = name or _title(text)
    if config.debug >= 4:
        print(text, file=sys.stderr)
    if not target.runs_here:
        raise CompileError(
            f"{name}: code for {target.triple} ({target.cpu}) cannot run here",
            expected="Target.host(), or a target whose features this machine has",
            hint="emit_object makes object code for other machines",
        )
    cache = DiskCache.configured() if cache is None else cache
    key = cache_key(_GENERATOR, target.key, text)
    entry = cache.get(key)
    if entry is not None:
        code = _Code.from_bytes(entry)
    else:
        started = time.perf_counter()
        code = _generate(text, target, name)
        if config.debug >= 1:
            print(f"graphc: compiled {name} in {(time.perf_counter() - started) * 1e3:.1f} ms", file=sys.stderr)
        cache.put(key, code.to_bytes())

    addresses = dict(imports or {})
    if missing := [symbol for symbol in code.imports if symbol not in addresses and not _in_process(symbol)]:
        raise CompileError(
            f"{name}: undefined symbols: {', '.join(missing)}",
            expected="a definition in the text, an address in `imports`, or a function of the C library",
            got=f"imports: {', '.join(sorted(addresses)) or 'none'}",
        )
    for symbol in _CONVERSIONS:
        if symbol.encode() in code.object_file and symbol not in code.exports:
            addresses.setdefault(symbol, _conversions(target).address(symbol))
    try:
        return _undisturbed(lambda: _load(name, code, addresses))
    except RuntimeError as error:
        raise CompileError(
            f"{name}: the object code cannot be loaded",
            got=str(error),
            hint="LLVM has written to stderr which functions it misses; the code generator calls them for what this CPU "
            "has no instruction for",
        ) from error


def emit_object(text: str, target: Target, *, name: str | None = None) -> bytes:
    """Compile LLVM IR to an object file (ELF, Mach-O or COFF by the target's triple).

    A CompileError says what LLVM has against the text.
    """
    return _generate(text, target, name or _title(text)).object_file


def emit_assembly(text: str, target: Target, *, name: str | None = None) -> str:
    """Compile LLVM IR to assembly, to read. A CompileError says what LLVM has against the text."""
    name = name or _title(text)

    def work() -> str:
        machine = target.machine()
        with _optimized(text, machine) as module:
            return str(machine.emit_assembly(module))

    return _compiling(work, text, name)


@dataclass(frozen=True, slots=True)
class _Code:
    """A compiled module: the object file, the symbols it defines for others and those it wants from them."""

    object_file: bytes
    exports: tuple[str, ...]
    imports: tuple[str, ...]

    def to_bytes(self) -> bytes:
        exports, imports = ("\0".join(names).encode() for names in (self.exports, self.imports))
        return _LENGTHS.pack(len(exports), len(imports)) + exports + imports + self.object_file

    @staticmethod
    def from_bytes(data: bytes) -> _Code:
        exports, imports = _LENGTHS.unpack_from(data)
        middle = _LENGTHS.size + exports
        end = middle + imports
        names = (data[start:stop].decode() for start, stop in ((_LENGTHS.size, middle), (middle, end)))
        return _Code(data[end:], *(tuple(filter(None, text.split("\0"))) for text in names))


def _generate(text: str, target: Target, name: str) -> _Code:
    def work() -> _Code:
        machine = target.machine()
        with _optimized(text, machine) as module:
            symbols = [*module.functions, *module.global_variables]
            exports = tuple(s.name for s in symbols if not s.is_declaration and s.linkage not in _INTERNAL)
            imports = tuple(s.name for s in symbols if s.is_declaration and not s.name.startswith("llvm."))
            return _Code(machine.emit_object(module), exports, imports)

    return _compiling(work, text, name)


@contextmanager
def _optimized(text: str, machine: llvm.TargetMachine) -> Iterator[llvm.ModuleRef]:
    """The module of a text, verified and put through the passes."""
    # A module must go before its context. Left to the garbage collector, as after an error, their order is chance.
    with llvm.create_context() as context, llvm.parse_assembly(text, context) as module:
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
        passes = llvm.create_new_module_pass_manager()
        for name in _PASSES:
            getattr(passes, f"add_{name}_pass")()
        passes.run(module, builder)
        yield module


def _load(name: str, code: _Code, imports: Mapping[str, int]) -> NativeModule:
    library = llvm.JITLibraryBuilder().add_object_img(code.object_file).add_current_process()
    for symbol, address in imports.items():
        library.import_symbol(symbol, address)
    for symbol in code.exports:
        library.export_symbol(symbol)
    return NativeModule(name, library.link(_linker(), f"graphc.{next(_libraries)}"), code.exports)


@functools.cache
def _linker() -> llvm.LLJIT:
    # JITLink loads a module in one piece and adds the stubs for far calls, which the small code model relies on.
    return llvm.create_lljit_compiler(Target.host().machine(jit=True), use_jit_link=True)


def _unload(library: llvm.ResourceTracker) -> None:
    if sys.is_finalizing():  # daemon threads may still be running the code
        return
    with _lock:
        library.close()


@functools.cache
def _conversions(target: Target) -> NativeModule:
    return compile_module((Path(__file__).parent / "conversions.ll").read_text(), target)


def _in_process(symbol: str) -> bool:
    if sys.platform == "win32":  # where there is no asking for all libraries at once: left to LLVM
        return True
    return hasattr(ctypes.CDLL(None), symbol)


def _compiling(work: Callable[[], _Result], text: str, name: str) -> _Result:
    try:
        return _undisturbed(work)
    except RuntimeError as error:
        problem, line = _explain(str(error), text)
        raise CompileError(
            f"{name}: LLVM refuses the module: {problem}",
            got=line,
            hint="GRAPHC_DEBUG=4 prints the text; this is a bug in the back end unless you wrote the text",
        ) from None


def _explain(message: str, text: str) -> tuple[str, str | None]:
    """LLVM's message on one line, and the line of the text that it is about if it says."""
    place = re.search(r"<string>:(\d+):\d+: (?:error: )?(.*)", message)
    if place is None:
        return "; ".join(filter(None, map(str.strip, message.splitlines()))), None
    number = int(place[1])
    lines = text.splitlines()
    return place[2], f"line {number}: {lines[number - 1].strip()}" if number <= len(lines) else None


def _title(text: str) -> str:
    first = text.partition("\n")[0]
    return first[1:].strip() if first.startswith(";") else "module"


def _undisturbed(work: Callable[[], _Result]) -> _Result:
    """Do work with LLVM, whole, even if Ctrl-C is pressed meanwhile.

    Python runs signal handlers in the main thread, between any two of its instructions. So there the work is left to
    another thread: the interrupt is raised at once, and the work comes to its end undisturbed.
    """
    if threading.current_thread() is not threading.main_thread():
        with _lock:
            return work()
    result: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with _lock:
                result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="graphc-compile")
    try:
        thread.start()
    except RuntimeError:  # no more threads: the interpreter is shutting down, or the system gives none
        run()
    else:
        thread.join()
    if failure:
        raise failure.pop()
    return result[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
