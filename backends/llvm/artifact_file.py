"""Artifacts as bytes: a line of JSON, and the numbers of constants behind it.

Reading makes nothing but numbers, text and records of them. Where the checks of a program stand in the user's code is
written as the nodes of the traced graph that they come from, since the same graph may be traced from other lines later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backends.llvm.artifact import Artifact, Failure
from graphc.backends.llvm.jit import UnitKeys
from graphc.dim_text import parse_dim
from graphc.dims import Dim
from graphc.errors import Location, ShapeError
from graphc.expression import Buffer
from graphc.ir import Graph
from graphc.op import OPS
from graphc.types import DTYPES, DType, Size, dtype_of

if TYPE_CHECKING:
    from graphc.kernel import Block, Call


class Unwritable(Exception):
    """What has no form in a file."""


def write_artifact(made: Artifact, graph: Graph) -> bytes:
    """The artifact of a graph as bytes. Unwritable where it cannot be read back as it is."""
    arrays: list[np.ndarray] = []
    places = [node.location for node in graph.walk()]
    document = {
        "name": made.name,
        "main": made.units.main,
        "parts": made.units.parts,
        "arena": made.arena,
        "symbols": made.symbols,
        "facts": [[_size_text(size), holds] for size, holds in made.facts.items()],
        "words": made.words,
        "prepared": made.prepared,
        "prepared_from": made.prepared_from,
        "constants": [_array(constant, arrays) for constant in made.constants],
        "calls": [_call(call, arrays) for call in made.calls],
        "failures": [[failure.problem, failure.expected, _place(failure.at, places)] for failure in made.failures],
        "cost": [[_size_text(size), nanoseconds] for size, nanoseconds in made.cost],
    }
    return b"".join([json.dumps(document).encode(), b"\n", *(array.tobytes() for array in arrays)])


def read_artifact(data: bytes, graph: Graph) -> Artifact:
    """What `write_artifact` has written for an equal graph."""
    end = data.index(b"\n")
    document = json.loads(data[:end])
    numbers = _Numbers(data, end + 1)
    nodes = list(graph.walk()) if document["failures"] else []
    parts = {key: tuple(exports) for key, exports in document["parts"].items()}
    return Artifact(
        document["name"], UnitKeys(document["main"], parts),
        arena=document["arena"],
        symbols=None if document["symbols"] is None else tuple(document["symbols"]),
        facts={size: holds for text, holds in document["facts"] if isinstance(size := parse_dim(text), Dim)},
        words=document["words"],
        prepared=document["prepared"],
        prepared_from=tuple(document["prepared_from"]),
        constants=tuple(numbers.array(item) for item in document["constants"]),
        calls=tuple(_call_of(item, numbers) for item in document["calls"]),
        failures=tuple(
            Failure(problem, expected, None if place is None else nodes[place].location)
            for problem, expected, place in document["failures"]
        ),
        cost=tuple((parse_dim(text), nanoseconds) for text, nanoseconds in document["cost"]),
    )  # fmt: skip


def _size_text(size: Size) -> str:
    text = str(size)
    try:
        if parse_dim(text) == size:
            return text
    except ShapeError:  # one that no graph has, such as the greatest of others
        pass
    raise Unwritable(f"the size {text}")


def _place(location: Location | None, places: Sequence[Location | None]) -> int | None:
    """The number of the node that was made there."""
    if location is None:
        return None
    for same in (lambda place: place is location, lambda place: place == location):
        for number, place in enumerate(places):
            if same(place):
                return number
    raise Unwritable(f"a check at {location}, where no node is")


def _array(array: np.ndarray, arrays: list[np.ndarray]) -> list[Any]:
    arrays.append(array)
    return [dtype_of(array.dtype).name, array.shape]


class _Numbers:
    """The arrays of a file, in the order in which they were written."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._place = start

    def array(self, item: Sequence[Any]) -> np.ndarray:
        """The next array, in memory of its own, which is aligned."""
        name, shape = item
        dtype = DTYPES[name].numpy
        count = int(np.prod(shape, dtype=np.int64))
        made = np.frombuffer(self._data, dtype, count, self._place).copy().reshape(shape)
        self._place += made.nbytes
        made.setflags(write=False)
        return made


def _call(call: Call, arrays: list[np.ndarray]) -> Mapping[str, Any]:
    return {
        "name": call.name,
        "op": call.op.name,
        "attrs": {name: _attribute(value, arrays) for name, value in call.attrs.items()},
        "operands": [_block(block) for block in call.operands],
        "results": [_block(block) for block in call.results],
    }


def _call_of(item: Mapping[str, Any], numbers: _Numbers) -> Call:
    from graphc.kernel import Call  # few programs have any

    attrs = {name: _attribute_of(value, numbers) for name, value in item["attrs"].items()}
    operands, results = (tuple(map(_block_of, item[which])) for which in ("operands", "results"))
    return Call(item["name"], OPS[item["op"]], attrs, operands, results)


def _block(block: Block) -> list[Any]:
    return [block.buffer.name, block.buffer.dtype.name, block.shape, block.strides, block.offset]


def _block_of(item: Sequence[Any]) -> Block:
    """A block with all that a call asks of its buffer, the dtype."""
    from graphc.kernel import Block

    name, dtype, shape, strides, offset = item
    return Block(Buffer(name, DTYPES[dtype], 0), tuple(shape), tuple(strides), offset)


def _attribute(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return {"float": value.hex()}
    if type(value) is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, tuple):
        return [_attribute(item, arrays) for item in value]
    if isinstance(value, np.ndarray):
        return {"array": _array(value, arrays)}
    raise Unwritable(f"a {type(value).__name__}")


def _attribute_of(item: Any, numbers: _Numbers) -> Any:
    if isinstance(item, list):
        return tuple(_attribute_of(x, numbers) for x in item)
    if not isinstance(item, dict):
        return item
    ((kind, content),) = item.items()
    match kind:
        case "float":
            return float.fromhex(content)
        case "complex":
            return complex(*map(float.fromhex, content))
        case "dtype":
            return DTYPES[content]
    return numbers.array(content)
