"""From LLVM IR text to object code, on as many threads as there are texts and CPUs."""

from __future__ import annotations

import ctypes
import queue
import re
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

from graphc.backends.llvm.cpus import available_cpus
from graphc.backends.llvm.target import Target

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
GENERATOR = f"4 {llvmlite.__version__} {llvm.llvm_version_info} {_PASSES}"
"""What the object code depends on besides text and target."""

_LENGTHS = struct.Struct("<II")
_INTERNAL = (llvm.Linkage.internal, llvm.Linkage.private)
_Result = TypeVar("_Result")


class Refusal(Exception):
    """Why something cannot be compiled or loaded: what a CompileError says, on the thread of whoever has asked for it."""

    def __init__(self, problem: str, *, expected: str | None = None, got: str | None = None, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.got = got
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Code:
    """A compiled module: the object file, the symbols it defines for others and those it wants from them."""

    object_file: bytes
    exports: tuple[str, ...]
    imports: tuple[str, ...]

    def to_bytes(self) -> bytes:
        exports, imports = ("\0".join(names).encode() for names in (self.exports, self.imports))
        return _LENGTHS.pack(len(exports), len(imports)) + exports + imports + self.object_file

    @staticmethod
    def from_bytes(data: bytes) -> Code:
        exports, imports = _LENGTHS.unpack_from(data)
        middle = _LENGTHS.size + exports
        end = middle + imports
        names = (data[start:stop].decode() for start, stop in ((_LENGTHS.size, middle), (middle, end)))
        return Code(data[end:], *(tuple(filter(None, text.split("\0"))) for text in names))


def generate(text: str, target: Target) -> Code:
    """The object code of a text. A Refusal says what LLVM has against it."""
    return _with_module(text, target.machine(), _code)


def assembly(text: str, target: Target) -> str:
    """The same as assembly, to read."""
    return _with_module(text, target.machine(), lambda module, machine: str(machine.emit_assembly(module)))


def generate_joined(texts: Sequence[str], natives: Mapping[str, str], exports: Collection[str], target: Target) -> bytes:
    """One object file of texts, of which each may define what others declare; from outside only the `exports` are seen. Of the
    `natives`, whose names may clash, `kernel` becomes what they are kept under. A Refusal says what LLVM has against a text."""
    machine = target.machine()
    with llvm.create_context() as context, _read(texts[0], context) as module:
        for text in texts[1:]:
            module.link_in(_read(text, context))
        for symbol, text in natives.items():
            other = _read(text, context)
            for value in (*other.functions, *other.global_variables):
                if value.name == "kernel":
                    value.name = symbol
                elif not value.is_declaration:
                    value.linkage = llvm.Linkage.internal
            module.link_in(other)
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and value.name not in exports and value.linkage is not llvm.Linkage.private:
                value.linkage = llvm.Linkage.internal
        _optimize(module, machine)
        return _object_file(module, machine)


def generate_all(texts: Mapping[str, str], target: Target) -> dict[str, Code]:
    """The object code of texts, by their keys. The caller must keep everybody else from using LLVM until this returns."""
    if len(texts) == 1:
        return {key: generate(text, target) for key, text in texts.items()}
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for item in sorted(texts.items(), key=lambda item: -len(item[1])):  # the longest first, lest one thread end with them
        waiting.put(item)
    made: dict[str, Code] = {}
    failures: list[BaseException] = []

    def work() -> None:
        machine = target.machine()
        while not failures:
            try:
                key, text = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                made[key] = _with_module(text, machine, _code)
            except BaseException as error:
                failures.append(error)

    helpers = [threading.Thread(target=work, name="graphc-compile") for _ in range(min(available_cpus(), len(texts)) - 1)]
    started = []
    for helper in helpers:
        try:
            helper.start()
        except RuntimeError:  # no more threads: the interpreter is shutting down, or the system gives none
            break
        started.append(helper)
    work()
    for helper in started:
        helper.join()
    if failures:
        raise failures[0]
    return made


def _code(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> Code:
    symbols = [*module.functions, *module.global_variables]
    exports = tuple(s.name for s in symbols if not s.is_declaration and s.linkage not in _INTERNAL)
    imports = tuple(s.name for s in symbols if s.is_declaration and not s.name.startswith("llvm."))
    return Code(_object_file(module, machine), exports, imports)


def _with_module(
    text: str, machine: llvm.TargetMachine, use: Callable[[llvm.ModuleRef, llvm.TargetMachine], _Result]
) -> _Result:
    try:
        with _optimized(text, machine) as module:
            return use(module, machine)
    except RuntimeError as error:
        problem, line = _explain(str(error), text)
        raise Refusal(
            f"LLVM refuses the module: {problem}",
            got=line,
            hint="GRAPHC_DEBUG=4 prints the text; this is a bug in the back end unless you wrote the text",
        ) from None


@contextmanager
def _optimized(text: str, machine: llvm.TargetMachine) -> Iterator[llvm.ModuleRef]:
    """The module of a text, verified and put through the passes."""
    # A module must go before its context. Left to the garbage collector, as after an error, their order is chance.
    with llvm.create_context() as context, _parsed(text, context) as module:
        _optimize(module, machine)
        yield module


def _optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
    passes = llvm.create_new_module_pass_manager()
    for name in _PASSES:
        getattr(passes, f"add_{name}_pass")()
    _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)


# llvmlite takes a lock round every call, while threads may use LLVM at once where each has a context and a target machine of
# its own. The calls that take long are made without it, where llvmlite is as we know it.


def _unlocked(name: str) -> Callable[..., Any]:
    function = getattr(ffi.lib, name)
    return getattr(function, "_cfn", function)


def _parsed(text: str, context: llvm.ContextRef) -> llvm.ModuleRef:
    with ffi.OutputString() as problem:
        module = llvm.ModuleRef(_unlocked("LLVMPY_ParseAssembly")(context, ctypes.c_char_p(text.encode()), problem), context)
        if problem:
            module.close()
            raise RuntimeError(str(problem))
    return module


def _object_file(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    with ffi.OutputString() as problem:
        memory = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, problem)
        if not memory:
            raise RuntimeError(str(problem))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(memory), ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)


def _read(text: str, context: llvm.ContextRef) -> llvm.ModuleRef:
    """A text as a module; a Refusal quotes the line that LLVM does not understand."""
    try:
        return _parsed(text, context)
    except RuntimeError as error:
        problem, line = _explain(str(error), text)
        raise Refusal(f"LLVM refuses the module: {problem}", got=line) from None


def _explain(message: str, text: str) -> tuple[str, str | None]:
    """LLVM's message on one line, and the line of the text that it is about if it says."""
    place = re.search(r"<string>:(\d+):\d+: (?:error: )?(.*)", message)
    if place is None:
        return "; ".join(filter(None, map(str.strip, message.splitlines()))), None
    number = int(place[1])
    lines = text.splitlines()
    return place[2], f"line {number}: {lines[number - 1].strip()}" if number <= len(lines) else None
