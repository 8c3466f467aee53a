"""Entries of a program as functions of an object file that needs no Python.

Each entry is what `program` renders, in the variants that its sizes take (see `native_variants`), and three functions around
them that C can call. Weights and constants are one piece of read-only data; in the text it is zeros behind a mark, and the
object's bytes get their numbers where the mark is found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.llvm.artifact import ENTRY, PRECOMPUTE
from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.context import HOST_SLOT
from graphc.backends.llvm.host import native_symbol
from graphc.backends.llvm.jit import CONVERSIONS, conversions_text, emit_joined
from graphc.backends.llvm.native_variants import Variant, variants
from graphc.backends.llvm.object_symbols import undefined_symbols
from graphc.backends.llvm.sizes import PREPARE, SizeWriter
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.units import divide
from graphc.bind import is_symbolic
from graphc.conditions import conditions
from graphc.dims import Dim
from graphc.errors import ArgumentError, BackendError
from graphc.ir import Graph
from graphc.native.interface import ALIGNMENT, UNFIT_SIZES, EntryCode, EntryRequest, ObjectCode, ObjectRequest, RunError
from graphc.program import Check
from graphc.sizes import evaluate

ARCHITECTURES = ("x86_64", "aarch64", "riscv64", "wasm32")
"""For others, with other sizes of addresses and orders of bytes, nothing has been tried."""
LIBM = frozenset(
    f"{name}{suffix}" for suffix in ("", "f")
    for name in ("ceil", "copysign", "exp", "exp2", "fabs", "floor", "fma", "fmod", "fmax", "fmaximum", "fmin", "fminimum",
                 "log", "nearbyint", "pow", "rint", "round", "roundeven", "sqrt", "trunc")
)  # fmt: skip
_OF_EVERY_PROGRAM = {"windows": frozenset({"_fltused", "__chkstk"})}
"""What compilers for a system take for granted, besides."""
_DATA = "graphc.data"
_MOST_DATA = (1 << 31) - (1 << 26)
"""How far code of the small model reaches."""
_GREATEST_SIZE = {8: (1 << 48) - 1, 4: (1 << 31) - 1}
_REFERENCE = re.compile(r"@([\w.$-]+)")

# Without a C library: what LLVM's intrinsics would call.
_MEMORY = """
define internal void @graphc.copy(ptr %to, ptr %from, i64 %bytes, i1 %volatile) nounwind {
entry:
  %whole = and i64 %bytes, -16
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ]
  %more = icmp ult i64 %i, %whole
  br i1 %more, label %body, label %tail
body:
  %f = getelementptr i8, ptr %from, i64 %i
  %t = getelementptr i8, ptr %to, i64 %i
  %v = load <16 x i8>, ptr %f, align 1
  store <16 x i8> %v, ptr %t, align 1
  %i.next = add i64 %i, 16
  br label %head
tail:
  %j = phi i64 [ %whole, %head ], [ %j.next, %last ]
  %left = icmp ult i64 %j, %bytes
  br i1 %left, label %last, label %done
last:
  %lf = getelementptr i8, ptr %from, i64 %j
  %lt = getelementptr i8, ptr %to, i64 %j
  %b = load i8, ptr %lf
  store i8 %b, ptr %lt
  %j.next = add i64 %j, 1
  br label %tail
done:
  ret void
}
"""


def object_code(request: ObjectRequest, target: Target) -> ObjectCode:
    """An object file for a target. A CompileError names what generated code leaves to Python; a BackendError says what would
    be left undefined, or that there is no code for the machine."""
    if target.architecture not in ARCHITECTURES:
        raise BackendError(f"no object files are written for {target.triple}", expected=f"one of {', '.join(ARCHITECTURES)}")
    return _Writer(request, target).write()


@dataclass(frozen=True)
class _Code:
    """A variant of an entry, rendered."""

    variant: Variant
    symbol: str
    prepared_at: int
    """Where what it computes once begins in the memory for that."""
    computes_once: bool
    """Whether it is the first of those that share it."""

    @property
    def table_bytes(self) -> int:
        """The table of sizes, at the start of the workspace."""
        return _aligned(8 * self.variant.rendered.sizes)


class _Writer:
    def __init__(self, request: ObjectRequest, target: Target) -> None:
        self.request = request
        self.target = target
        self.module = Module(f"{request.name}: functions to be called", target.has_fma, target.vector_bytes)
        self.texts: dict[str, None] = {}
        self.natives: dict[str, str] = {}
        self.exports: list[str] = []
        self.arrays: list[np.ndarray] = []
        self.places: dict[int, int] = {}
        """Where in the data an array is, by its identity."""
        self.data_bytes = ALIGNMENT

    def write(self) -> ObjectCode:
        request, target = self.request, self.target
        entries = tuple(_Entry(self, entry).write() for entry in request.entries)
        if request.state:
            self._reset()
        self._parallel_for()
        mark = hashlib.sha256(request.name.encode()).digest() + b"graphc: data here"
        mark = mark.ljust(ALIGNMENT, b"\0")
        if self.arrays:
            escaped = "".join(f"\\{byte:02X}" for byte in mark)
            rest = self.data_bytes - len(mark)
            self.module.globals[_DATA] = (f"@{_DATA} = internal constant <{{ [{len(mark)} x i8], [{rest} x i8] }}> "
                                          f'<{{ [{len(mark)} x i8] c"{escaped}", [{rest} x i8] zeroinitializer }}>, align 64')
        texts = [_without_library(text) for text in (str(self.module), *self.texts)]
        data = emit_joined(texts, self.natives, self.exports, target, name=request.name)
        if not set(undefined_symbols(data)).isdisjoint(CONVERSIONS):
            texts.append(_conversions())
            data = emit_joined(texts, self.natives, [*self.exports, *CONVERSIONS], target, name=request.name)
        if self.arrays:
            data = self._filled(data, mark)
        externals = undefined_symbols(data)
        system = next((names for system, names in _OF_EVERY_PROGRAM.items() if system in target.triple), frozenset())
        if unknown := [name for name in externals if name not in LIBM and name not in system]:
            raise BackendError(f"code for {target.triple} ({target.cpu}) needs functions that no library for C has",
                               expected="functions of libm, or none", got=", ".join(unknown),
                               hint="choose a CPU that has instructions for them")
        return ObjectCode(data, target.triple, target.cpu, target.pointer_bytes, entries, externals)

    def named(self, f: Function, name: str) -> str:
        """Where a weight is, or what state begins with."""
        if self.request.offsets is None:
            return self.address(f, self.request.arrays[name])
        return f.value(f"getelementptr i8, ptr %weights, i64 {self.request.offsets[name]}")

    def address(self, f: Function, array: np.ndarray) -> str:
        """Where an array is that stands in the object."""
        place = self.places.get(id(array))
        if place is None:
            self.arrays.append(array)  # which keeps it, and so its identity
            place = self.places[id(array)] = self.data_bytes
            self.data_bytes += _aligned(array.nbytes)
            if self.data_bytes > _MOST_DATA:
                raise ArgumentError(f"{self.request.name}: the weights are too large to stand in an object file",
                                    expected=f"{_MOST_DATA >> 20} MB at most", got=f"{self.data_bytes >> 20} MB and more",
                                    hint="keep them in a file beside it: --weights FILE")
        return f.value(f"getelementptr i8, ptr @{_DATA}, i64 {place}")

    def _filled(self, data: bytes, mark: bytes) -> bytes:
        start = data.find(mark)
        assert start >= 0 and data.find(mark, start + 1) < 0, "the data of an object begin with a mark that is there once"
        filled = bytearray(data)
        filled[start : start + len(mark)] = bytes(len(mark))
        for array in self.arrays:
            content = np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8)
            place = start + self.places[id(array)]
            filled[place : place + content.size] = content.data
        return bytes(filled)

    def _reset(self) -> None:
        """`void <name>_reset(state, [weights])`."""
        params = [("ptr", "state"), *([] if self.request.offsets is None else [("ptr", "weights")])]
        symbol = f"{self.request.name}_reset"
        f = self.module.function(symbol, params)
        copy = self.module.declare("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"])
        for name, offset in self.request.state.items():
            place = f.value(f"getelementptr i8, ptr %state, i64 {offset}")
            nbytes = str(self.request.arrays[name].nbytes)
            f.call("void", copy, ("ptr", place), ("ptr", self.named(f, name)), ("i64", nbytes), ("i1", "false"))
        f.do("ret void")
        self.exports.append(symbol)

    def _parallel_for(self) -> None:
        """What kernels call for a loop whose steps may run in any order: the caller's function, if there is one."""
        module = self.module
        f = module.function("parallel_for", [("ptr", "body"), ("ptr", "context"), ("i64", "chunks")])
        if self.request.threads:
            given = f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr %context, i64 {HOST_SLOT}')}")
            asked, taken, serial = (f.label(hint) for hint in ("asked", "taken", "serial"))
            f.branch(f.value(f"icmp eq ptr {given}, null"), serial, asked)
            f.enter(asked)
            function, user = (
                f.value(f"load ptr, ptr {f.value(f'getelementptr ptr, ptr {given}, i64 {k}')}") for k in range(2)
            )
            f.branch(f.value(f"icmp eq ptr {function}, null"), serial, taken)
            f.enter(taken)
            f.call("void", function, ("ptr", user), ("ptr", "%body"), ("ptr", "%context"), ("i64", "%chunks"))
            f.do("ret void")
            f.enter(serial)
        with f.loop("0", "%chunks") as chunk:
            f.call("void", "%body", ("ptr", "%context"), ("i64", chunk))
        f.do("ret void")


class _Entry:
    """Writes the functions of one entry."""

    def __init__(self, writer: _Writer, entry: EntryRequest) -> None:
        self.writer = writer
        self.module = writer.module
        self.entry = entry
        self.graph = entry.graph
        self.sizes = sizes_of(entry.graph)
        self.prepared = 0
        self.codes: list[_Code] = []
        found: dict[str, int] = {}
        request = writer.request
        for number, variant in enumerate(variants(entry, writer.target)):
            units = divide(variant.rendered.module)
            symbol = f"{entry.symbol}.{number}"
            once = _preparation(units.main)
            shares = bool(variant.program.prepared) and once in found
            if variant.program.prepared and not shares:
                found[once] = self.prepared
                self.prepared += _aligned(variant.program.prepared)
            own = {name: f"{symbol}.{name}" for name in (ENTRY, PRECOMPUTE, PREPARE)}
            main = _REFERENCE.sub(lambda match: f"@{own.get(match[1], match[1])}", units.main)  # noqa: B023
            writer.texts |= dict.fromkeys([main, *(unit.text for unit in units.parts)])
            for call in variant.program.calls():
                assert call.op.native is not None
                writer.natives[native_symbol(call.op)] = call.op.native
            self.codes.append(_Code(variant, symbol, found.get(once, 0), not shares))
        checks = [list(code.variant.program.checks) for code in self.codes]
        self.errors = tuple(dict.fromkeys(error for listed in checks for error in map(_error, listed)))
        self.gives_weights = request.offsets is not None and bool(entry.weights)

    def write(self) -> EntryCode:
        """The functions, and what is to be said of them."""
        symbol = self.entry.symbol
        workspace = self._workspace()
        preparing = self._prepare() if self.prepared else 0
        self._run()
        self.writer.exports += [symbol, f"{symbol}_workspace", *([f"{symbol}_prepare"] if self.prepared else ())]
        prepared = self.prepared + ALIGNMENT - 1 if self.prepared else 0
        described = tuple(code.variant.described() for code in self.codes)
        return EntryCode(symbol, self.sizes, workspace, prepared, preparing, self.errors, described if self.sizes else ())

    def _function(self, suffix: str, params: Sequence[tuple[str, str]], result: str) -> Function:
        return self.module.function(f"{self.entry.symbol}{suffix}", params, result)

    def _size_params(self) -> list[tuple[str, str]]:
        return [("i64", f"size{k}") for k in range(len(self.sizes))]

    def _shared_params(self, *, runs: bool) -> list[tuple[str, str]]:
        given = {"weights": self.gives_weights, "prepared": self.prepared > 0, "state": runs and bool(self.entry.state),
                 "workspace": True, "threads": self.writer.request.threads}
        return [("ptr", name) for name, is_there in given.items() if is_there]

    # How much memory

    def _workspace(self) -> int | None:
        """`i64 <symbol>_workspace(sizes...)`: the bytes, or -1 where there is no code for the sizes."""
        f = self._function("_workspace", self._size_params(), "i64")
        if not self.sizes:
            nbytes = self._bytes(self.codes[0], {})
            f.do(f"ret i64 {nbytes}")
            return nbytes
        unfit = f.label("unfit")
        self._check_sizes(f, unfit)
        for code in self.codes:
            following = f.label("next")
            table = f.slot(f"[{max(1, code.variant.rendered.sizes)} x i64]")
            arena = self._measure(f, code, table, following)
            f.do(f"ret i64 {f.value(f'add i64 {arena}, {code.table_bytes + ALIGNMENT - 1}')}")
            f.enter(following)
        f.jump(unfit)
        f.enter(unfit)
        f.do(f"ret i64 {UNFIT_SIZES}")
        return None

    def _bytes(self, code: _Code, sizes: Mapping[str, int]) -> int:
        return code.table_bytes + evaluate(code.variant.rendered.arena, sizes) + ALIGNMENT - 1

    def _check_sizes(self, f: Function, unfit: str) -> None:
        """Go to `unfit` where sizes are not what the graph says of them."""
        most = _GREATEST_SIZE[self.writer.target.pointer_bytes]
        fits = [f.value(f"icmp ule i64 %size{k}, {most}") for k in range(len(self.sizes))]
        writer = SizeWriter(f, {name: f"%size{k}" for k, name in enumerate(self.sizes)})
        for relation in conditions(value.info for value in self.graph.inputs):
            compare = {">=": "sge", "==": "eq", "!=": "ne"}[relation.relation]
            fits.append(f.value(f"icmp {compare} i64 {writer.size(relation.difference)}, 0"))
        for fit in fits:
            following = f.label("fits")
            f.branch(fit, following, unfit)
            f.enter(following)

    def _measure(self, f: Function, code: _Code, table: str, otherwise: str) -> str:
        """Fill the table of sizes; the bytes of the arena as an operand. Goes `otherwise` where the code is for other sizes."""
        for name, number in code.variant.numbers.items():
            following = f.label("fits")
            f.branch(f.value(f"icmp eq i64 %size{self.sizes.index(name)}, {number}"), following, otherwise)
            f.enter(following)
        if code.variant.program.facts is None:
            return str(code.variant.rendered.arena)
        for k, name in enumerate(code.variant.program.symbols):
            f.do(f"store i64 %size{self.sizes.index(name)}, ptr {f.value(f'getelementptr i64, ptr {table}, i64 {k}')}")
        arena = self._prepare_sizes(f, code, table)
        following = f.label("fits")
        f.branch(f.value(f"icmp sge i64 {arena}, 0"), following, otherwise)
        f.enter(following)
        return arena

    def _prepare_sizes(self, f: Function, code: _Code, table: str) -> str:
        return f.call("i64", self.module.declare(f"{code.symbol}.{PREPARE}", "i64", ["ptr"]), ("ptr", table))

    # Running

    def _run(self) -> None:
        """`i32 <symbol>(inputs..., outputs..., sizes..., ...)`."""
        entry, state = self.entry, self.writer.request.state
        params = [("ptr", f"in{i}") for i in entry.arguments] + [("ptr", f"out{j}") for j in entry.results]
        f = self._function("", [*params, *self._size_params(), *self._shared_params(runs=True)], "i32")
        unfit = f.label("unfit")
        if self.sizes:
            self._check_sizes(f, unfit)
        memory = _align(f, "%workspace")
        kept = {name: f.value(f"getelementptr i8, ptr %state, i64 {state[name]}") for name in sorted(set(entry.state.values()))}
        given = self._table(f, len(self.graph.inputs) + 2, {i: f"%in{i}" for i in entry.arguments} | self._weights(f) | {
            i: kept[name] for i, name in entry.state.items()})
        results = self._table(f, len(self.graph.outputs), {j: f"%out{j}" for j in entry.results} | {
            j: kept[name] for name, j in entry.updates.items()})
        for code in self.codes:
            following = f.label("next")
            self._measure(f, code, memory, following)
            f.do(f"ret i32 {self._code(f, code, self._call(f, code, ENTRY, given, results, memory))}")
            f.enter(following)
        f.jump(unfit)
        f.enter(unfit)
        f.do(f"ret i32 {UNFIT_SIZES}")

    def _weights(self, f: Function) -> dict[int, str]:
        """The addresses of the weights, by the numbers of their inputs."""
        return {i: self.writer.named(f, name) for i, name in self.entry.weights.items()}

    def _table(self, f: Function, length: int, addresses: Mapping[int, str]) -> str:
        """An array of addresses."""
        table = f.slot(f"[{max(1, length)} x ptr]")
        for k, address in addresses.items():
            f.do(f"store ptr {address}, ptr {f.value(f'getelementptr ptr, ptr {table}, i64 {k}')}")
        return table

    def _call(self, f: Function, code: _Code, function: str, inputs: str, outputs: str, memory: str) -> str:
        """Call one of a variant's functions; returns its status."""
        program = code.variant.program
        last = len(program.inputs)
        more: dict[int, str] = {}
        if program.prepared:
            more[last] = f.value(f"getelementptr i8, ptr {_align(f, '%prepared')}, i64 {code.prepared_at}")
        if program.symbols:
            more[last + len(more)] = memory
        for k, address in more.items():
            f.do(f"store ptr {address}, ptr {f.value(f'getelementptr ptr, ptr {inputs}, i64 {k}')}")
        held: dict[int, str] = {}
        for k, buffer in enumerate(program.constants):
            assert buffer.data is not None
            held[k] = self.writer.address(f, buffer.data)
        held[len(held)] = "%threads" if self.writer.request.threads else "null"
        constants = self._table(f, len(held), held)
        arena = f.value(f"getelementptr i8, ptr {memory}, i64 {code.table_bytes}")
        callee = self.module.declare(f"{code.symbol}.{function}", "i32", ["ptr"] * 4)
        return f.call("i32", callee, *(("ptr", table) for table in (inputs, outputs, constants, arena)))

    def _code(self, f: Function, code: _Code, status: str) -> str:
        """The number of an error among those of the entry."""
        numbers = [0, *(1 + self.errors.index(_error(check)) for check in code.variant.program.checks)]
        if numbers == list(range(len(numbers))):
            return status
        name = f"{code.symbol}.errors"
        self.module.constant(name, f"[{len(numbers)} x i32] [{', '.join(f'i32 {n}' for n in numbers)}]")
        return f.value(f"load i32, ptr {f.value(f'getelementptr i32, ptr @{name}, i32 {status}')}")

    def _prepare(self) -> int:
        """`i32 <symbol>_prepare([weights], prepared, workspace, [threads])`; the bytes of its workspace."""
        f = self._function("_prepare", self._shared_params(runs=False), "i32")
        memory = _align(f, "%workspace")
        nothing = dict.fromkeys(range(len(self.graph.inputs)), "null")  # tables name arrays that nothing is done with
        given = self._table(f, len(self.graph.inputs) + 2, nothing | self._weights(f))
        results = self._table(f, len(self.graph.outputs), dict.fromkeys(range(len(self.graph.outputs)), "null"))
        most = 0
        for code in self.codes:
            if not code.variant.program.prepared or not code.computes_once:
                continue
            # what is computed is the same for all sizes: those of the example will do
            example = code.variant.sizes
            for k, name in enumerate(code.variant.program.symbols):
                f.do(f"store i64 {example[name]}, ptr {f.value(f'getelementptr i64, ptr {memory}, i64 {k}')}")
            if code.variant.program.facts is not None:
                self._prepare_sizes(f, code, memory)
            status = self._call(f, code, PRECOMPUTE, given, results, memory)
            failed, passed = f.label("failed"), f.label("passed")
            f.branch(f.value(f"icmp ne i32 {status}, 0"), failed, passed)
            f.enter(failed)
            f.do(f"ret i32 {self._code(f, code, status)}")
            f.enter(passed)
            most = max(most, self._bytes(code, example))
        f.do("ret i32 0")
        return most


def sizes_of(graph: Graph) -> tuple[str, ...]:
    """The symbols among the sizes of a graph's inputs, in the order in which they are met."""
    dims = (size for value in graph.inputs for size in value.shape if isinstance(size, Dim))
    return tuple(dict.fromkeys(name for dim in dims for name in sorted(dim.symbols()))) if is_symbolic(graph) else ()


def _error(check: Check) -> RunError:
    return RunError(check.problem, check.expected, check.at)


def _preparation(main: str) -> str:
    """What a program computes once, as text: for two with the same text it is the same."""
    tables = [line for line in main.splitlines() if line.startswith(f"@{PRECOMPUTE}.")]
    start = main.find(f"define i32 @{PRECOMPUTE}(")
    return "\n".join([*tables, main[start : main.index("\n}", start)] if start >= 0 else ""])


def _align(f: Function, memory: str) -> str:
    start = f.value(f"ptrtoint ptr {memory} to i64")
    skipped = f.value(f"and i64 {f.value(f'sub i64 0, {start}')}, {ALIGNMENT - 1}")
    return f.value(f"getelementptr i8, ptr {memory}, i64 {skipped}")


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _conversions() -> str:
    """Those of float16, which generated code has no others of; seen by no other object."""
    text = re.sub(r"^define bfloat .*?^}$", "", conversions_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^define (\w+) @__", r"define weak hidden \1 @__", text, flags=re.MULTILINE)


def _without_library(text: str) -> str:
    """A text whose copies are loops of its own."""
    if "@llvm.memcpy.p0.p0.i64(" not in text:
        return text
    lines = [line for line in text.splitlines() if not line.startswith("declare void @llvm.memcpy.p0.p0.i64(")]
    return "\n".join(lines).replace("@llvm.memcpy.p0.p0.i64(", "@graphc.copy(") + _MEMORY
