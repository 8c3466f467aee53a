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
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import llvmlite.binding as llvm

from graphc.backends.llvm.codegen import GENERATOR, Code, Refusal, assembly, generate, generate_all, generate_joined
from graphc.backends.llvm.cpus import available_cpus
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.units import Unit, Units, joined
from graphc.config import config
from graphc.disk_cache import DiskCache, cache_key
from graphc.errors import CompileError

# What the code generator calls where the CPU has no instruction for it, and no library brings: conversions.ll.
CONVERSIONS = ("__extendhfsf2", "__truncsfhf2", "__truncdfhf2", "__truncsfbf2", "__truncdfbf2")
_ELSEWHERE = b"compiled with others: "
"""How the entry of a unit on disk begins that has the keys of its code; code begins with two small numbers."""
_MOST_ELSEWHERE = 4
"""Compilations with others in which a unit is sought, the last ones."""
_MOST_JOINED = 8
"""Units that are compiled at a time."""
_Result = TypeVar("_Result")

# LLVM is used under this lock only, by the thread that holds it and by helpers that this one waits for. A fork waits for
# it, lest a child start with LLVM's own locks held by a thread that it does not have. Reentrant, since the garbage collector
# may drop a module while its thread is in here.
_lock = threading.RLock()
_libraries = itertools.count()
_dropped: deque[llvm.ResourceTracker] = deque()
"""What is to be unloaded by whoever has the lock next."""
_loaded: weakref.WeakValueDictionary[str, NativeModule] = weakref.WeakValueDictionary()
"""The units in this process, by their keys on disk."""


class NativeModule:
    """Machine code in this process. It stays as long as this object does: who keeps an address must keep the module."""

    def __init__(
        self, name: str, library: llvm.ResourceTracker, symbols: tuple[str, ...], used: tuple[NativeModule, ...] = ()
    ) -> None:
        self.name = name
        self._used = used
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
    key = _key(text, target)
    code = next((code for code, _ in _kept(cache, [key])), None)

    def work() -> NativeModule:
        return _link(name, [_generated({key: text}, target, name, cache)[key] if code is None else code], imports or {}, target)

    return _undisturbed(work, name)


@dataclass(frozen=True, slots=True)
class UnitKeys:
    """By what the object code of a program in units is found again: for each part its key and the symbols that it exports."""

    main: str
    parts: Mapping[str, tuple[str, ...]]


def unit_keys(units: Units, target: Target) -> UnitKeys:
    """The keys of units that are compiled for a target."""
    return UnitKeys(_key(units.main, target), {_key(unit.text, target): unit.exports for unit in units.parts})


def compile_units(
    units: Units, target: Target, *, imports: Mapping[str, int] | None = None, cache: DiskCache | None = None, name: str
) -> NativeModule:
    """The same for a module in units: of these, what has been compiled already is not compiled again, and what is in this
    process is not loaded again. The result has the symbols of the main unit."""
    if config.debug >= 4:
        for text in (*(unit.text for unit in units.parts), units.main):
            print(text, file=sys.stderr)
    cache = DiskCache.configured() if cache is None else cache
    keys = unit_keys(units, target)
    by_key = {_key(unit.text, target): unit for unit in (Unit(units.main, ()), *units.parts)}

    def generated(missing: Sequence[str]) -> dict[str, Code]:
        return _generated_units({key: by_key[key] for key in missing}, target, name, cache)

    module = _undisturbed(lambda: _join(keys, generated, imports or {}, target, cache, name), name)
    assert module is not None
    return module


def load_units(
    keys: UnitKeys, target: Target, *, imports: Mapping[str, int] | None = None, cache: DiskCache | None = None, name: str
) -> NativeModule | None:
    """What `compile_units` has made of units with these keys, perhaps in another process; None if part of it is gone."""
    cache = DiskCache.configured() if cache is None else cache
    return _undisturbed(lambda: _join(keys, lambda missing: None, imports or {}, target, cache, name), name)


def emit_object(text: str, target: Target, *, name: str | None = None) -> bytes:
    """Compile LLVM IR to an object file (ELF, Mach-O or COFF by the target's triple).

    A CompileError says what LLVM has against the text.
    """
    return _undisturbed(lambda: generate(text, target), name or _title(text)).object_file


def emit_joined(
    texts: Sequence[str], natives: Mapping[str, str], exports: Collection[str], target: Target, *, name: str
) -> bytes:
    """Compile texts to one object file; see `codegen.generate_joined`. A CompileError says what LLVM has against one."""
    return _undisturbed(lambda: generate_joined(texts, natives, exports, target), name)


def emit_assembly(text: str, target: Target, *, name: str | None = None) -> str:
    """Compile LLVM IR to assembly, to read. A CompileError says what LLVM has against the text."""
    return _undisturbed(lambda: assembly(text, target), name or _title(text))


def emit_assemblies(texts: Sequence[str], target: Target, *, name: str) -> list[str]:
    """As `emit_assembly` for several texts, on all CPUs."""

    def work() -> list[str]:
        with ThreadPoolExecutor(available_cpus(), "graphc-compile") as pool:
            return list(pool.map(lambda text: assembly(text, target), texts))

    return _undisturbed(work, name)


def _key(text: str, target: Target) -> str:
    return cache_key(GENERATOR, target.key, text)


def _kept(cache: DiskCache, keys: Iterable[str]) -> list[tuple[Code, set[str]]]:
    """The code on disk of texts, and of which of them it is: of one, or of several that were compiled together, some of which
    may not be asked for."""
    kept: dict[str, tuple[Code, set[str]]] = {}
    for key in keys:
        entry = cache.get(key)
        for place in () if entry is None else _places(entry) if _is_elsewhere(entry) else (key,):
            data = None if place in kept else entry if place == key else cache.get(place)
            if data is not None:
                kept[place] = Code.from_bytes(data), set()
            if place in kept:
                kept[place][1].add(key)
    return list(kept.values())


def _is_elsewhere(entry: bytes | None) -> TypeGuard[bytes]:
    return entry is not None and entry.startswith(_ELSEWHERE)


def _places(entry: bytes) -> list[str]:
    """The keys in the entry of a unit that was compiled with others."""
    return entry.removeprefix(_ELSEWHERE).decode().split()


def _keep_place(cache: DiskCache, unit: str, key: str) -> None:
    """Note where the code of a unit is, before where it was: so programs that share some of their units find those of each."""
    entry = cache.get(unit)
    before = [place for place in _places(entry) if place != key] if _is_elsewhere(entry) else []
    cache.put(unit, _ELSEWHERE + " ".join([key, *before][:_MOST_ELSEWHERE]).encode())


def _join(
    keys: UnitKeys, generated: Callable[[Sequence[str]], dict[str, Code] | None], imports: Mapping[str, int], target: Target,
    cache: DiskCache, name: str,
) -> NativeModule | None:
    """Load units as one module. `generated` gives the code of those that are kept nowhere; None if there is none to be had."""
    addresses, used = dict(imports), []
    wanted = [keys.main]
    for key, exports in keys.parts.items():
        module = _loaded.get(key)
        if module is None:
            wanted.append(key)
        else:
            used.append(module)
            addresses |= {symbol: module.address(symbol) for symbol in exports}
    codes = _Codes({*imports, *(symbol for exports in keys.parts.values() for symbol in exports)})
    there = codes.take_kept(_kept(cache, wanted))
    absent = [key for key in wanted if key not in there and not codes.has(keys.parts.get(key, ()))]
    missing = generated(absent) if absent else {}
    if missing is None:
        return None
    for code in missing.values():
        codes.take(code)
    here = codes.exports
    addresses = {symbol: address for symbol, address in addresses.items() if symbol not in here}
    made = _link(name, codes.all, addresses, target, used)
    _loaded.update((key, made) for key in wanted if key != keys.main)
    return made


class _Codes:
    """Code that can be loaded as one module: each symbol is defined once, and what it refers to is there. Units that were
    compiled together come together, and one that was compiled with others twice may come with either."""

    def __init__(self, available: Set[str]) -> None:
        self.all: list[Code] = []
        self.exports: set[str] = set()
        self._available = available
        """Symbols that there will be. What a unit was compiled with may refer to others, which were in another program."""

    def has(self, symbols: Collection[str]) -> bool:
        """Whether all of these symbols, and there are some, are defined."""
        return bool(symbols) and self.exports.issuperset(symbols)

    def take_kept(self, kept: Iterable[tuple[Code, set[str]]]) -> set[str]:
        """Take of what is on disk first what has no other symbols than are wanted, and most of those: so that little is left
        that does not fit in with it. Which texts are there then."""
        there: set[str] = set()
        for code, members in sorted(kept, key=lambda item: (len(set(item[0].exports) - self._available), -len(item[1]))):
            if not members <= there and self.offer(code):
                there |= members
        return there

    def offer(self, code: Code) -> bool:
        """Take code if it fits in with the rest; tells whether it is among these now."""
        if code not in self.all:
            if not self.exports.isdisjoint(code.exports) or not all(map(self._is_there, code.imports)):
                return False
            self.take(code)
        return True

    def take(self, code: Code) -> None:
        if code not in self.all:
            self.all.append(code)
            self.exports.update(code.exports)

    def _is_there(self, symbol: str) -> bool:
        return symbol in self._available or ("." not in symbol and _in_process(symbol))  # C has no names with dots


def _generated_units(units: Mapping[str, Unit], target: Target, name: str, cache: DiskCache) -> dict[str, Code]:
    """The code of units by their keys, which is kept on disk from now on. Where there are many, several are compiled at a time:
    to begin with each takes LLVM as long as the code of a small kernel."""
    together = max(1, min(_MOST_JOINED, len(units) // (_MOST_JOINED * available_cpus())))
    ordered = sorted(units, key=lambda key: -len(units[key].text))
    count = -(-len(ordered) // together)
    texts: dict[str, str] = {}
    batches: dict[str, list[str]] = {}
    for batch in (ordered[first::count] for first in range(count)):
        alone = [key for key in batch if not units[key].pieces]
        others = [key for key in batch if units[key].pieces]
        text = joined([units[key] for key in others]) if len(others) > 1 else None
        if text is None:
            alone = batch
        else:
            batches[_key(text, target)] = others
            texts[_key(text, target)] = text
        texts |= {key: units[key].text for key in alone}
    codes = _generated(texts, target, name, cache)
    for key, members in batches.items():
        for member in members:
            _keep_place(cache, member, key)
            codes[member] = codes[key]
    return {key: codes[key] for key in units}


def _generated(texts: Mapping[str, str], target: Target, name: str, cache: DiskCache) -> dict[str, Code]:
    """The code of texts by their keys, which is kept on disk from now on."""
    started = time.perf_counter()
    made = generate_all(texts, target)
    if config.debug >= 1:
        units = "" if len(texts) == 1 else f", {len(texts)} units,"
        print(f"graphc: compiled {name}{units} in {(time.perf_counter() - started) * 1e3:.1f} ms", file=sys.stderr)
    for key, code in made.items():
        cache.put(key, code.to_bytes())
    return made


def _link(
    name: str, codes: Sequence[Code], imports: Mapping[str, int], target: Target, used: Sequence[NativeModule] = ()
) -> NativeModule:
    """Load code as one module, which keeps those that it has addresses of. A Refusal says which symbols are not to be
    found."""
    addresses = dict(imports)
    exports = dict.fromkeys(symbol for code in codes for symbol in code.exports)
    wanted = dict.fromkeys(symbol for code in codes for symbol in code.imports)
    if missing := [s for s in wanted if s not in addresses and s not in exports and not _in_process(s)]:
        raise Refusal(
            f"undefined symbols: {', '.join(missing)}",
            expected="a definition in the text, an address in `imports`, or a function of the C library",
            got=f"imports: {', '.join(sorted(addresses)) or 'none'}",
        )
    for symbol in CONVERSIONS:
        if symbol not in exports and any(symbol.encode() in code.object_file for code in codes):
            addresses.setdefault(symbol, _conversions(target).address(symbol))
    library = llvm.JITLibraryBuilder()
    for code in codes:
        library.add_object_img(code.object_file)
    library.add_current_process()
    for symbol, address in addresses.items():
        library.import_symbol(symbol, address)
    for symbol in exports:
        library.export_symbol(symbol)
    try:
        return NativeModule(name, library.link(_linker(), f"graphc.{next(_libraries)}"), tuple(exports), tuple(used))
    except RuntimeError as error:
        raise Refusal(
            "the object code cannot be loaded",
            got=str(error),
            hint="LLVM has written to stderr which functions it misses; the code generator calls them for what this CPU "
            "has no instruction for",
        ) from error


@functools.cache
def _linker() -> llvm.LLJIT:
    # JITLink loads a module in one piece and adds the stubs for far calls, which the small code model relies on.
    return llvm.create_lljit_compiler(Target.host().machine(jit=True), use_jit_link=True)


def _unload(library: llvm.ResourceTracker) -> None:
    if sys.is_finalizing():  # daemon threads may still be running the code
        return
    _dropped.append(library)
    _close_dropped()


def _close_dropped() -> None:
    """Unload what has been dropped, unless somebody has the lock, who does it then: waiting, a helper whose garbage collector
    has dropped something would wait for itself."""
    while _dropped and _lock.acquire(blocking=False):
        try:
            while _dropped:
                _dropped.popleft().close()
        finally:
            _lock.release()


@functools.cache
def _conversions(target: Target) -> NativeModule:
    return compile_module(conversions_text(), target)


def conversions_text() -> str:
    """Functions for what the code generator calls where there is no instruction."""
    return (Path(__file__).parent / "conversions.ll").read_text()


def _in_process(symbol: str) -> bool:
    if sys.platform == "win32":  # where there is no asking for all libraries at once: left to LLVM
        return True
    return hasattr(ctypes.CDLL(None), symbol)


def _title(text: str) -> str:
    first = text.partition("\n")[0]
    return first[1:].strip() if first.startswith(";") else "module"


def _undisturbed(work: Callable[[], _Result], name: str) -> _Result:
    """Do work with LLVM, whole, even if Ctrl-C is pressed meanwhile. A Refusal becomes a CompileError about `name`.

    Python runs signal handlers in the main thread, between any two of its instructions. So there the work is left to
    another thread: the interrupt is raised at once, and the work comes to its end undisturbed.
    """
    if threading.current_thread() is not threading.main_thread():
        return _outcome(functools.partial(_locked, work), name)
    result: list[_Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(_locked(work))
        except BaseException as error:
            failure.append(error)

    def outcome() -> _Result:
        if failure:
            raise failure.pop()
        return result[0]

    thread = threading.Thread(target=run, name="graphc-compile")
    try:
        thread.start()
    except RuntimeError:  # no more threads: the interpreter is shutting down, or the system gives none
        run()
    else:
        thread.join()
    return _outcome(outcome, name)


def _outcome(work: Callable[[], _Result], name: str) -> _Result:
    try:
        return work()
    except Refusal as error:
        raise CompileError(
            f"{name}: {error.problem}", expected=error.expected, got=error.got, hint=error.hint
        ) from error.__cause__


def _locked(work: Callable[[], _Result]) -> _Result:
    try:
        with _lock:
            return work()
    finally:
        _close_dropped()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
