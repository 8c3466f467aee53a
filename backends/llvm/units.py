"""A program's module in units that are compiled by themselves.

Each kernel is a unit, and so is each function that kernels share; the rest, which calls the kernels, is the last one. A unit
goes by its content: names of its own have a digest of its text in them, so what has been compiled for one program is code for
any other that has the same kernel, in this process or, by the disk cache, in another one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.backends.llvm.builder import REFERENCE, Module

SHARED = "graphc."
"""How names of functions begin that are the same in all modules which have them."""
_EVERYWHERE = frozenset({"parallel_for"})
"""What is the same for all programs of a process."""
_KERNEL = re.compile(r"(?:[\w.]+\.)?kernel\d+(?=\.)")
"""How names of a kernel's functions begin."""
_OWN = "kernel"
"""The name of a kernel's first function where the text does not yet have one of its own."""
_DIGEST_LENGTH = 24
_MOST_INLINED = 8
"""How often a function is inlined into one unit that computes one number at a time."""


@dataclass(frozen=True, slots=True)
class Unit:
    """LLVM IR, and the symbols that other units refer to."""

    text: str
    exports: tuple[str, ...]
    pieces: tuple[str, ...] = ()
    """What the text is made of: variables, functions and declarations, each by itself."""


@dataclass(frozen=True, slots=True)
class Units:
    """A whole program: what others call, and the units that this needs."""

    main: str
    parts: tuple[Unit, ...]


def divide(module: Module) -> Units:
    """Divide the module of a program. Together the units do what the module does in one piece."""
    pieces = {function.name: _Piece(function.name, str(function)) for function in module.functions}
    divider = _Divider(module, pieces)
    kernels = list(divider.kernels())
    inside = {name for kernel in kernels for name in kernel}
    main = [piece for name, piece in pieces.items() if name not in inside and not name.startswith(SHARED)]
    wanted = {name for piece in main for name in divider.references(piece)}
    parts: list[Unit] = []
    renamed: dict[str, str] = {}
    for kernel in kernels:
        unit = divider.kernel_unit(kernel, wanted, renamed)
        if unit is not None:
            parts.append(unit)
    text = divider.text(module.name, main, renamed=renamed)
    return Units(text, (*divider.shared_units(), *parts))


def joined(units: Sequence[Unit]) -> str | None:
    """One text that does what the units do; None where they have different things of one name."""
    named: dict[str, str] = {}
    for unit in units:
        for piece in unit.pieces:
            found = REFERENCE.search(piece)
            assert found is not None
            known = named.setdefault(found[1], piece)
            if known.startswith("declare "):
                named[found[1]] = piece
            elif piece != known and not piece.startswith("declare "):
                return None
    return "\n".join(["; kernels", *named.values()]) + "\n"


def texts(module: Module, symbols: Collection[str]) -> dict[str, str]:
    """For functions of kernels, by their symbols: LLVM IR of each with all that it refers to, the functions that it shares with
    others included."""
    pieces = {function.name: _Piece(function.name, str(function)) for function in module.functions}
    divider = _Divider(module, pieces)
    found: dict[str, str] = {}
    for symbol in symbols:
        prefix = _KERNEL.match(symbol)
        own = [name for name in pieces if prefix is not None and (match := _KERNEL.match(name)) and match[0] == prefix[0]]
        names = sorted(own, key=lambda name: (name != symbol, len(name)))
        for name in names:  # grows: what is shared may call what else is
            calls = divider.references(pieces[name])
            names += dict.fromkeys(r for r in calls if r.startswith(SHARED) and r in pieces and r not in names)
        found[symbol] = divider.text(symbol, [pieces[name] for name in names], exported=(symbol,))
    return found


def _unit(title: str, lines: Sequence[str], exports: Sequence[str]) -> Unit:
    return Unit(_text(title, lines), tuple(exports), tuple(lines))


def _text(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"; {title}", *lines]) + "\n"


class _Piece:
    """A function's text, and the names in it."""

    __slots__ = ("name", "references", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.references = dict.fromkeys(REFERENCE.findall(text))


class _Divider:
    def __init__(self, module: Module, pieces: dict[str, _Piece]) -> None:
        self._module = module
        self._pieces = pieces
        self._declarations = {function.name: function.declaration for function in module.functions}
        self._inlined = {function.name for function in module.functions if function.inlined}
        self._digests: set[str] = set()
        self._shared: dict[str, None] = {}
        """Functions that units call and do not have."""

    def kernels(self) -> Iterator[list[str]]:
        """The functions of each kernel that needs nothing else of the program, its first one in front."""
        groups: dict[str, list[str]] = {}
        for name in self._pieces:
            prefix = _KERNEL.match(name)
            if prefix is not None:
                groups.setdefault(prefix[0], []).append(name)
        for names in groups.values():
            names.sort(key=len)
            own = set(names)
            references = {r for name in names for r in self._pieces[name].references}
            if all(r in own or r in _EVERYWHERE or r.startswith((SHARED, "llvm.")) for r in references):
                yield names

    def references(self, piece: _Piece) -> Iterator[str]:
        """The names in a function, and in the tables that it reads."""
        for name in piece.references:
            yield name
            if name in self._module.globals:
                yield from REFERENCE.findall(self._module.globals[name])

    def kernel_unit(self, names: Sequence[str], wanted: Collection[str], renamed: dict[str, str]) -> Unit | None:
        """The unit of a kernel's functions; None if there is another one of the same text. `renamed` gets the new names of
        those that are `wanted`."""
        first = names[0]
        exports = [name for name in names if name in wanted]
        pieces = [self._pieces[name] for name in names]
        lines = [line.replace(f"@{first}", f"@{_OWN}") for line in self.lines(pieces, exported=exports)]
        text = _text(_OWN, lines)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
        symbol = f"{_OWN}.{digest}"
        for name in exports:
            renamed[name] = symbol + name[len(first) :]
        if digest in self._digests:
            return None
        self._digests.add(digest)
        return _unit(_OWN, [line.replace(f"@{_OWN}", f"@{symbol}") for line in lines], [renamed[name] for name in exports])

    def shared_units(self) -> Iterator[Unit]:
        """The functions that units share, each by itself."""
        done: set[str] = set()
        while len(done) < len(self._shared):
            for name in [name for name in self._shared if name not in done]:
                done.add(name)
                yield _unit(name, self.lines([self._pieces[name]], exported=(name,)), [name])

    def text(
        self, title: str, pieces: Sequence[_Piece], *, exported: Sequence[str] = (), renamed: Mapping[str, str] | None = None
    ) -> str:
        """Functions as a module with all that they refer to."""
        return _text(title, self.lines(pieces, exported=exported, renamed=renamed))

    def lines(
        self, pieces: Sequence[_Piece], *, exported: Sequence[str] = (), renamed: Mapping[str, str] | None = None
    ) -> list[str]:
        """The same in pieces: inlined functions as such and others declared. The `exported` ones can be called from outside of
        it; those of other units may have been renamed."""
        renamed = renamed or {}
        here: dict[str, str] = {}
        variables: dict[str, str] = {}
        declarations: dict[str, str] = {}
        pending = list(reversed(pieces))
        given = {piece.name for piece in pieces}
        while pending:
            piece = pending.pop()
            if piece.name in here:
                continue
            here[piece.name] = piece.text.replace("define internal ", "define ", 1) if piece.name in exported else piece.text
            for name in self.references(piece):
                if name in given or name in here:
                    continue
                if name in self._module.globals:
                    variables[name] = self._module.globals[name]
                elif name in self._inlined:
                    pending.append(self._pieces[name])
                elif name in self._pieces:
                    declarations[name] = self._declarations[name]
                    if name.startswith(SHARED):
                        self._shared[name] = None
                else:
                    declarations[name] = self._module.declarations[name]
        for name in [name for name in here if self._is_called(name, here)]:
            here[name] = here[name].replace(" alwaysinline ", " noinline ", 1)
        declared = [text for name, text in declarations.items() if name not in here]
        lines = [*variables.values(), *here.values(), *declared]
        if renamed:
            lines = [REFERENCE.sub(lambda match: f"@{renamed.get(match[1], match[1])}", line) for line in lines]
        return list(dict.fromkeys(lines))

    def _is_called(self, name: str, here: Mapping[str, str]) -> bool:
        """Whether an inlined function of numbers is used so often that it had better be called: the optimizers' updates of all
        parameters at once raise dozens of numbers to powers, one by one."""
        if name not in self._inlined or "<" in here[name].partition("@")[0]:
            return False
        return sum(text.count(f"@{name}(") for text in here.values()) > _MOST_INLINED
