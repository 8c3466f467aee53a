"""The functions of an entry as C sees them: the names and types of their parameters."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.native.c_text import c_type, identifier
from graphc.native.interface import EntryCode
from graphc.types import TensorType

_OWN = ("weights", "prepared", "state", "workspace", "threads")


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
class Shared:
    """What all functions of an object file have in common."""

    prefix: str
    """How their names begin."""
    weights: tuple[str, int] | None
    """The name of the file with the weights that callers map, and its size."""
    state: tuple[tuple[str, TensorType, int], ...]
    """What is kept from call to call: the arrays, and where each is in the memory for them."""
    state_bytes: int
    threads: str | None
    """The type of what runs loops on threads, if callers may give that."""

    @property
    def macro(self) -> str:
        """How the names of constants begin."""
        return self.prefix.upper()

    def reset_parameters(self) -> list[str]:
        return ["void *state", *([] if self.weights is None else ["const void *weights"])]


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
    takes_state: bool
    threads: str | None
    conditions: tuple[str, ...]
    """What is said of the sizes: their bounds, and what has been taken for granted of them."""

    @property
    def macro(self) -> str:
        """How the names of its constants begin."""
        return self.code.symbol.upper()

    def size_parameters(self) -> list[str]:
        return [f"int64_t {name}" for _, name in self.sizes]

    def shared_parameters(self, *, fills: bool = False) -> list[str]:
        """Those that come last: of the function itself, or of the one that `fills` prepared memory."""
        found = ["const void *weights"] if self.takes_weights else []
        if self.code.prepared:
            found.append("void *prepared" if fills else "const void *prepared")
        if self.takes_state and not fills:
            found.append("void *state")
        found.append("void *workspace")
        return [*found, f"const {self.threads} *threads"] if self.threads else found

    def parameters(self) -> list[str]:
        arrays = [f"const {a.c_type} *{a.c_name}" for a in self.inputs] + [f"{a.c_type} *{a.c_name}" for a in self.outputs]
        return [*arrays, *self.size_parameters(), *self.shared_parameters()]


def signature(
    title: str, code: EntryCode, inputs: dict[str, TensorType], outputs: dict[str, TensorType], *,
    takes_weights: bool, takes_state: bool, threads: str | None, conditions: tuple[str, ...],
) -> Signature:
    """The C side of an entry."""
    taken = set(_OWN)

    def own(name: str) -> str:
        found = identifier(name, taken)
        taken.add(found)
        return found

    sizes = tuple((name, own(name)) for name in code.sizes)
    arrays = [tuple(Array(name, own(name), type_) for name, type_ in side.items()) for side in (inputs, outputs)]
    return Signature(title, code, arrays[0], arrays[1], sizes, takes_weights, takes_state, threads, conditions)
