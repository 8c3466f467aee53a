"""From a program to an object file, a C header and examples."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc import runtime
from graphc.backend import get_backend
from graphc.bind import check_conditions
from graphc.conditions import conditions
from graphc.errors import ArgumentError, ArgumentTypeError, BackendError
from graphc.native.c_example import example
from graphc.native.c_header import header
from graphc.native.c_text import file_stem, identifier
from graphc.native.interface import ALIGNMENT, EntryRequest, ObjectCode, ObjectRequest
from graphc.native.signature import Shared, Signature, signature
from graphc.package.entry import with_one_input_each
from graphc.package.quantize import QUANTIZED
from graphc.package.replacing import writing
from graphc.package.tensors import encode
from graphc.types import TensorType, dtype_of

_COMPILERS = ("cc", "gcc", "clang")
_LENGTH_BYTES = 8
_SUFFIXES = {"windows": ".dll", "darwin": ".dylib", "macosx": ".dylib"}


@dataclass(frozen=True)
class NativeFiles:
    """What `native.export` has written.

    >>> import tempfile
    >>> from graphc import native
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = native.export(graphc.export(lambda x: x * 2, (graphc.ones(2),)), folder)
    >>> files.header.name, len(files.examples)
    ('program.h', 1)
    """

    object_file: Path
    header: Path
    examples: tuple[Path, ...]
    weights: Path | None
    """The file with the weights; None where they are in the object."""
    library: Path | None
    """The shared library, if one was wanted."""
    code: ObjectCode
    signatures: tuple[Signature, ...]
    shared: Shared

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        optional = [path for path in (self.weights, self.library) if path is not None]
        return [self.object_file, self.header, *self.examples, *optional]


def export(
    program: runtime.Program | str | os.PathLike[str] | Any,
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str | None = None,
    entries: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    prepare: bool = True,
    threads: bool = False,
    shared: bool = False,
    sizes: Sequence[Mapping[str, int]] = (),
) -> NativeFiles:
    """Write the entries of a program as functions of an object file that need no Python, with a C header that describes them
    and an example for each.

    program
        A `.gcz` file, or a program as `graphc.export`, `graphc.load` and `graphc.runtime.load` give it.
    name
        What files and functions are called: by default the file's name. Where the system has a library or a header of that
        name, as for "m" and "math", ours is `libm_program.so`, and `math_program.h`.
    target
        The machine to write for: "x86_64", "x86-64-v3", "aarch64", "riscv64", "wasm32", "macos-arm64", "windows-x86_64", any of
        these with a CPU, as in "aarch64:neoverse-v1", or a target triple of LLVM's; by default this machine.
    weights
        A file to keep the weights in (safetensors), whose contents every call is handed. By default they are in the object.
    prepare
        Whether what depends on weights alone is computed by a function of its own, into memory of the caller's: calls are
        faster, and take about twice the memory.
    threads
        Whether callers may hand a function to each call that runs its loops on threads.
    shared
        Also link a shared library, by the C compiler that `CC` names, or that there is.
    sizes
        For symbolic sizes: those that there has to be code for, as examples, such as `[{"N": 1}, {"N": 64}]`. By default many
        are tried, until there is code for all of these.

    Raises CompileError, with the line, for ops that compiled programs leave to Python; ArgumentError for targets, entries and
    sizes that there are not, ShapeError for sizes out of their bounds; BackendError where a shared library cannot be linked;
    ArgumentTypeError for what is no program.

    >>> import graphc, tempfile
    >>> program = graphc.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     files = export(program, directory, name="linear")
    ...     [path.name for path in files.paths]
    ['linear.o', 'linear.h', 'linear_forward_example.c']
    """
    loaded, default_name = _loaded(program)
    name = default_name if name is None else name
    prefix = identifier(name)
    functions = _chosen(loaded, entries)
    symbols = _symbols(prefix, list(functions))
    requests = tuple(_request(symbols[key], f, sizes, prepare=prepare) for key, f in functions.items())
    state, state_bytes = _state({name for entry in requests for name in entry.state.values()}, loaded)
    arrays = {name: loaded.weights[name] for entry in requests for name in entry.weights.values()}
    arrays |= {name: loaded.state[name] for name, _, _ in state}
    encoded = None if weights is None else encode(arrays)
    offsets = None if encoded is None else _offsets(bytes(encoded[0]))
    request = ObjectRequest(prefix, requests, arrays, offsets, {name: offset for name, _, offset in state}, threads)
    code: ObjectCode = get_backend("llvm").object_code(request, target)  # type: ignore[attr-defined]  # of this back end alone
    common = Shared(
        prefix,
        None if weights is None or encoded is None else (Path(weights).name, sum(part.nbytes for part in encoded)),
        state, state_bytes, f"{prefix}_threads" if threads else None,
    )  # fmt: skip
    signatures = tuple(
        signature(f.signature, entry, f.inputs, f.outputs, takes_weights=encoded is not None and bool(asked.weights),
                  takes_state=bool(asked.state), threads=common.threads,
                  conditions=tuple(map(str, conditions(value.info for value in f.graph.inputs))))
        for f, asked, entry in zip(functions.values(), requests, code.entries, strict=True)
    )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_stem(prefix)
    object_file, header_file = folder / f"{stem}.o", folder / f"{stem}.h"
    if weights is not None and Path(weights).resolve() in (object_file.resolve(), header_file.resolve()):
        raise ArgumentError(f"weights={os.fspath(weights)!r} is where the object or the header is written",
                            expected="a file of their own")
    contents: list[tuple[str | os.PathLike[str], Sequence[bytes | memoryview]]] = [
        (object_file, [code.data]), (header_file, [header(name, code, signatures, common).encode("ascii")]),
    ]
    if weights is not None and encoded is not None:
        contents.append((weights, encoded))
    with ExitStack() as files:  # what fits together takes the place of what there was together
        for path, parts in contents:
            file = files.enter_context(writing(path))
            file.writelines(parts)
            file.flush()
    examples = [
        _write(folder / f"{entry.code.symbol}_example.c",
               example(header_file.name, entry, common, _default_sizes(entry, sizes), bool(code.externals)))
        for entry in signatures
    ]
    library = _link(object_file, file_stem(prefix, library=True), code) if shared else None
    return NativeFiles(object_file, header_file, tuple(examples), None if weights is None else Path(weights), library, code,
                       signatures, common)


def _loaded(program: Any) -> tuple[runtime.Program, str]:
    """The program over NumPy arrays, and what to call it."""
    if isinstance(program, (str, os.PathLike)):
        return runtime.load(program), Path(program).stem
    program = getattr(program, "program", program)  # that of the front end holds one
    if not isinstance(program, runtime.Program):
        raise ArgumentTypeError(f"a {type(program).__name__} cannot be written as native code",
                                expected="a .gcz file, or what graphc.export, graphc.load or graphc.runtime.load return")
    return program, Path(program.name).stem


def _chosen(program: runtime.Program, entries: Sequence[str] | None) -> dict[str, runtime.Function]:
    names = list(program.functions) if entries is None else list(entries)
    if not names:
        raise ArgumentError(f"{program.name}: there are no entries to write")
    return {name: program.function(name) for name in names}


def _symbols(prefix: str, entries: Sequence[str]) -> dict[str, str]:
    """The name of the function of each entry. No two differ in capitals alone, as the names of constants have no others."""
    taken = {f"{prefix}{suffix}".upper() for suffix in ("_reset", "_threads")}
    symbols: dict[str, str] = {}
    for entry in entries:
        name, number = f"{prefix}_{identifier(entry)}", 1
        free = name
        while not taken.isdisjoint(own := {f"{free}{suffix}".upper() for suffix in ("", "_workspace", "_prepare", "_sizes")}):
            number += 1
            free = f"{name}_{number}"
        taken |= own
        symbols[entry] = free
    return symbols


def _request(symbol: str, function: runtime.Function, sizes: Sequence[Mapping[str, int]], *, prepare: bool) -> EntryRequest:
    entry = with_one_input_each(function.entry)
    weights = {i: name for i, name in entry.weights.items() if name not in function.state}
    state = {i: name for i, name in entry.weights.items() if name in function.state}
    # what stands in 8 or 16 bits is widened as it is read, not once and for all
    steady = tuple(i for i in sorted(weights) if QUANTIZED not in entry.graph.inputs[i].info) if prepare else ()
    return EntryRequest(symbol, entry.graph, weights, state, entry.updates, steady, _examples(function, sizes))


def _state(names: set[str], program: runtime.Program) -> tuple[tuple[tuple[str, TensorType, int], ...], int]:
    """Where each array of the state is in the memory for it, and how large that is."""
    places, end = [], 0
    for name in sorted(names):
        array = program.state[name]
        places.append((name, TensorType(dtype_of(array.dtype), array.shape), end))
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(places), end


def _examples(function: runtime.Function, sizes: Sequence[Mapping[str, int]]) -> tuple[Mapping[str, int], ...]:
    """The examples as far as they name sizes of a function; ArgumentError where one leaves some out, ShapeError where the
    function is for others."""
    names = {name for type_ in function.inputs.values() for size in type_.shape if not isinstance(size, int)
             for name in size.symbols()}
    found = []
    for example_ in sizes if names else ():
        if missing := names - example_.keys():
            raise ArgumentError(f"{function.name}: no size is given for {', '.join(sorted(missing))}",
                                expected=function.signature, got=str(dict(example_)))
        numbers = {name: int(example_[name]) for name in sorted(names)}
        check_conditions(function.graph, numbers)
        found.append(numbers)
    return tuple(found)


def _default_sizes(entry: Signature, sizes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sizes of the example."""
    given = sizes[0] if sizes else {}
    return {name: given.get(name, 1) for name, _ in entry.sizes}


def _offsets(head: bytes) -> dict[str, int]:
    """Where each tensor of a safetensors file begins."""
    described = json.loads(head[_LENGTH_BYTES:])
    return {name: len(head) + region["data_offsets"][0] for name, region in described.items() if name != "__metadata__"}


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="ascii")
    return path


def _link(object_file: Path, stem: str, code: ObjectCode) -> Path:
    compiler = os.environ.get("CC") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise BackendError("there is no C compiler to link a shared library with", expected=f"one of {', '.join(_COMPILERS)}",
                           hint="install one, or set CC to its command")
    suffix = next((suffix for system, suffix in _SUFFIXES.items() if system in code.triple), ".so")
    library = object_file.with_name(f"lib{stem}{suffix}")
    command = [*compiler.split(), "-shared", "-o", str(library), str(object_file), *(["-lm"] if code.externals else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{compiler} cannot link {object_file} for {code.triple}", got=done.stderr.strip()[:1000],
                           hint="set CC to a compiler for that system")
    return library
