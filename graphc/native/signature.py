"""The functions of an entry as C sees them: the names and types of their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.native.c_text import c_type, identifier
from graphc.native.interface import EntryCode
from graphc.types import TensorType

_OWN = ("weights", "prepared", "workspace", "threads")


@dataclass(frozen=True)
class Array:
    """An array that a function reads or writes: its name in the program and in C."""

    name: str
    c_name: str
    type: TensorType

    @property
    def c_type(self) -> str:
        return c_type(self.type.dtype)


@dataclass(frozen=True)
class Signature:
    """One entry in C."""

    title: str
    """As the program's signature says it."""
    code: EntryCode
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    sizes: tuple[tuple[str, str], ...]
    """Their names in the program and in C."""
    takes_weights: bool
    threads: str | None
    """The type of what runs loops on threads, if callers may give that."""

    @property
    def macro(self) -> str:
        """How the names of its constants begin."""
        return self.code.symbol.upper()

    def size_parameters(self) -> list[str]:
        return [f"int64_t {name}" for _, name in self.sizes]

    def shared_parameters(self, *, fills: bool = False) -> list[str]:
        """Those that come last; `fills` is whether prepared memory is written."""
        found = ["const void *weights"] if self.takes_weights else []
        if self.code.prepared:
            found.append("void *prepared" if fills else "const void *prepared")
        found.append("void *workspace")
        return [*found, f"const {self.threads} *threads"] if self.threads else found

    def parameters(self) -> list[str]:
        arrays = [f"const {a.c_type} *{a.c_name}" for a in self.inputs] + [f"{a.c_type} *{a.c_name}" for a in self.outputs]
        return [*arrays, *self.size_parameters(), *self.shared_parameters()]


def signature(
    title: str, code: EntryCode, inputs: dict[str, TensorType], outputs: dict[str, TensorType], *,
    takes_weights: bool, threads: str | None,
) -> Signature:
    """The C side of an entry."""
    taken = set(_OWN)

    def own(name: str) -> str:
        found = identifier(name, taken)
        taken.add(found)
        return found

    sizes = tuple((name, own(name)) for name in code.sizes)
    arrays = [tuple(Array(name, own(name), type_) for name, type_ in side.items()) for side in (inputs, outputs)]
    return Signature(title, code, arrays[0], arrays[1], sizes, takes_weights, threads)
