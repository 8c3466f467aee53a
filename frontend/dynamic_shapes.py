"""Which sizes of an exported program have names, and may change: the `dynamic_shapes` of `graphc.export`."""

from __future__ import annotations

import enum
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from graphc import dims as core
from graphc.assumptions import Assumptions, Relation
from graphc.errors import ArgumentError, ArgumentTypeError, ShapeError
from graphc.frontend.pytree import flatten
from graphc.frontend.tensor import Tensor
from graphc.types import Shape


class _Hint(enum.Enum):
    AUTO = "AUTO"
    STATIC = "STATIC"
    DYNAMIC = "DYNAMIC"

    def __repr__(self) -> str:
        return f"Dim.{self.name}"


class Dim:
    """The name of a size that may change from call to call, and its bounds.

    The same name stands for the same size wherever it is given. `2 * batch + 1` is a size that follows from another.
    `Dim.AUTO` leaves it to the code whether a size can change, `Dim.DYNAMIC` demands it without giving it a name, and
    `Dim.STATIC`, as None, keeps the size of the example.

    ArgumentError for a name that is no identifier, and for bounds that hold no size.

    >>> batch = Dim("batch", min=1, max=64)
    >>> batch, 2 * batch + 1
    (Dim('batch', min=1, max=64), 2*batch + 1)
    """

    AUTO: ClassVar[_Hint] = _Hint.AUTO
    STATIC: ClassVar[_Hint] = _Hint.STATIC
    DYNAMIC: ClassVar[_Hint] = _Hint.DYNAMIC

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ArgumentError("Dim: not a name", expected="an identifier", got=repr(name))
        if (min is not None and min < 0) or (max is not None and max < (min or 0)):
            raise ArgumentError(f"Dim {name!r}: no size is in the bounds", expected="0 <= min <= max",
                                got=f"min={min}, max={max}")
        self.size: core.Dim = core.Dim.symbol(name)
        """The size in terms of the symbol that is its name."""
        self.root = self
        """The size that it follows from: itself, for one with a name."""
        self.__name__ = name
        self.min, self.max = min, max

    def _derived(self, size: int | core.Dim) -> Dim:
        if not isinstance(size, core.Dim) or size.terms[0][1] < 0:
            raise ArgumentError(f"{size} is no size that follows from {self.root.__name__!r}", expected="such as 2 * batch + 1")
        made = object.__new__(Dim)
        made.size, made.root, made.__name__, made.min, made.max = size, self.root, str(size), None, None
        return made

    def __mul__(self, other: int) -> Dim:
        return self._derived(self.size * other) if isinstance(other, int) else NotImplemented

    def __add__(self, other: int) -> Dim:
        return self._derived(self.size + other) if isinstance(other, int) else NotImplemented

    def __sub__(self, other: int) -> Dim:
        return self._derived(self.size - other) if isinstance(other, int) else NotImplemented

    __rmul__, __radd__ = __mul__, __add__

    def __repr__(self) -> str:
        if self.root is not self:
            return self.__name__
        bounds = [f", {key}={value}" for key, value in (("min", self.min), ("max", self.max)) if value is not None]
        return f"Dim({self.__name__!r}{''.join(bounds)})"


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several sizes with the same bounds."""
    return tuple(Dim(name, min=min, max=max) for name in names)


class NamedSizes:
    """The shapes that a program's inputs have, with the names of sizes, and what its code takes for granted of these."""

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str], given: Any
    ) -> None:
        """`names` are those of the tensors among the arguments, `given` is the argument `dynamic_shapes`."""
        self.sizes = Assumptions()
        self._names = names
        self._wanted: dict[str, tuple[Dim | None, int, int]] = {}
        """The symbols that have to change: the Dim, and the input and the dimension that has it first."""
        leaves, _ = flatten((tuple(args), dict(kwargs)))
        self.shapes: dict[int, Shape] = {}
        for i, (tensor, spec) in enumerate(zip(leaves, _specs(function, args, kwargs, given))):
            shape = tuple(self._size(i, axis, size, spec.get(axis)) for axis, size in enumerate(tensor._data.shape))
            if any(isinstance(size, core.Dim) for size in shape):
                self.shapes[i] = shape

    def _size(self, i: int, axis: int, size: int, spec: Any) -> int | core.Dim:
        match spec:
            case None | _Hint.STATIC:
                return size
            case _Hint.AUTO if size < 2:  # what stretches, or is nothing, is mostly meant to
                return size
            case _Hint():
                made = self.sizes.symbol(f"s{len(self.sizes.hints)}", size)
                if spec is _Hint.DYNAMIC:
                    self._wanted[str(made)] = None, i, axis
                return made
            case Dim():
                return self._named(i, axis, size, spec)
        if type(spec) is int:
            if spec != size:
                raise ArgumentError(f"dynamic_shapes: {self._place(i, axis)} is {size} in the example", got=str(spec))
            return size
        raise ArgumentTypeError(f"dynamic_shapes: {self._place(i, axis)} is given as a {type(spec).__name__}",
                                expected="a Dim, Dim.AUTO, Dim.DYNAMIC, Dim.STATIC or None", got=repr(spec))

    def _named(self, i: int, axis: int, size: int, spec: Dim) -> core.Dim:
        gap, root = spec.size - size, spec.root
        found = gap.root() if isinstance(gap, core.Dim) else None
        least, greatest = root.min or 0, math.inf if root.max is None else root.max
        if found is None or not least <= found[1] <= greatest:
            raise ArgumentError(f"{self._place(i, axis)} is {size} in the example, which {spec!r} cannot be",
                                expected=repr(root), got=None if found is None else f"{found[0]} = {found[1]}")
        name, hint = found
        known = self._wanted.get(name)
        if known is None:
            self.sizes.symbol(name, hint, least, greatest)
            self._wanted[name] = root, i, axis
        else:
            other = known[0]
            if self.sizes.hints[name] != hint:
                raise ArgumentError(f"{self._place(i, axis)} and {self._place(*known[1:])} make {name!r} two numbers in the "
                                    "example", got=f"{hint} and {self.sizes.hints[name]}", hint="give them different names")
            if other is None or (other.min, other.max) != (root.min, root.max):
                raise ArgumentError(f"two sizes are called {name!r}", got=f"{other!r} and {root!r}")
        return spec.size

    def _place(self, i: int, axis: int) -> str:
        return f"dimension {axis} of {self._names[i]!r}"

    def check(self) -> None:
        """When the function has been traced: ShapeError where the code allows less than what was wanted."""
        for name, (dim, i, axis) in self._wanted.items():
            size = core.Dim.symbol(name)
            what = f"{self._place(i, axis)}, {name!r}," if dim is not None else self._place(i, axis)
            found = self.sizes.resolve(size)
            if isinstance(found, core.Dim) and found.terms == size.terms:
                continue
            why = next((e for e in self.sizes.equalities if name in e.difference.symbols()), None)
            hint = "Dim.STATIC, or code that computes with the size instead of asking for its number"
            if isinstance(found, core.Dim):
                hint = f"say so in dynamic_shapes: {name} is {found}"
            raise ShapeError(f"{what} is to change, and the code makes it {found}", got=None if why is None else str(why),
                             at=None if why is None else why.location, hint=hint)
        for guard in self.sizes.guards:
            for name in guard.difference.symbols() & self._wanted.keys():
                self._check_bounds(guard, name)

    def _check_bounds(self, guard: Relation, name: str) -> None:
        dim, i, axis = self._wanted[name]
        if dim is None or guard.difference.symbols() != {name}:
            return
        # an end that was left open is where the code puts it; as with PyTorch, 0 and 1 need not be among the sizes then
        least, greatest = self.sizes.ranges[name]
        ends = max(2, least) if dim.min is None else dim.min, greatest if dim.max is None else dim.max
        known = core.decided(guard.difference, guard.relation.replace("!", "="), {name: ends})
        if known is not (guard.relation != "!="):
            raise ShapeError(
                f"{self._place(i, axis)} is to be any size {_bounds(dim)}, and the code tells apart those with {guard}",
                at=guard.location, hint=f"choose min and max of {name!r} so that {guard} for all of them",
            )

    def conditions(self) -> list[Relation]:
        """What has to hold of the sizes of a call."""
        return [*self.sizes.declared(), *self.sizes.conditions()]


def _bounds(dim: Dim) -> str:
    if dim.max is None:
        return f"at least {dim.min or 0}"
    return f"from {dim.min or 0} to {dim.max}"


def _specs(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], given: Any
) -> list[Mapping[int, Any]]:
    """For each tensor among the arguments, what is said of its dimensions."""
    named: Mapping[str, Any] = {}
    if isinstance(given, Mapping):
        named = {key: spec for key, spec in given.items() if key in kwargs}
        given = _in_order(function, len(args), {key: spec for key, spec in given.items() if key not in kwargs})
    if not isinstance(given, (tuple, list)) or len(given) != len(args):
        raise ArgumentTypeError("dynamic_shapes does not fit the arguments", got=repr(given),
                                expected=f"one entry for each of {len(args)}, or a dict by their names")
    found: list[Mapping[int, Any]] = []
    for k, (arg, spec) in enumerate(zip(args, given)):
        _collect(f"argument {k}", arg, spec, found)
    for key, arg in kwargs.items():
        _collect(f"argument {key!r}", arg, named.get(key), found)
    return found


def _in_order(function: Callable[..., Any], count: int, given: Mapping[str, Any]) -> list[Any]:
    """What is given by the names of parameters, in the order of the arguments."""
    names: list[str] = []
    rest = None
    for parameter in inspect.signature(getattr(function, "forward", function)).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = parameter.name
        elif parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
    unknown = [name for name in given if name not in names and name != rest]
    if unknown:
        raise ArgumentError(f"dynamic_shapes: the function has no parameter {unknown[0]!r}", expected=", ".join(names))
    more = given.get(rest) if rest is not None else None
    listed = [given.get(name) for name in names[:count]]
    listed += list(more) if more is not None else []
    return listed + [None] * (count - len(listed))


def _collect(where: str, arg: Any, spec: Any, found: list[Mapping[int, Any]]) -> None:
    if isinstance(arg, Tensor):
        if isinstance(spec, Mapping):
            wrong = [axis for axis in spec if type(axis) is not int or not -arg.ndim <= axis < arg.ndim]
            if wrong:
                raise ArgumentError(f"dynamic_shapes: {where} has no dimension {wrong[0]!r}", got=f"{arg.ndim} dimensions")
            found.append({axis % arg.ndim: size for axis, size in spec.items()})
        elif isinstance(spec, (tuple, list)):
            if len(spec) != arg.ndim:
                raise ArgumentError(f"dynamic_shapes: {where} has {arg.ndim} dimensions", got=f"{len(spec)} of them: {spec!r}")
            found.append(dict(enumerate(spec)))
        elif spec is None or isinstance(spec, _Hint):
            found.append(dict.fromkeys(range(arg.ndim), spec))
        else:
            raise ArgumentTypeError(f"dynamic_shapes: {where} is given as a {type(spec).__name__}",
                                    expected="a dict of dimensions, one entry for each dimension, or None", got=repr(spec))
        return
    leaves, structure = flatten(arg)
    if spec is None or isinstance(spec, _Hint):
        for leaf in leaves:
            _collect(where, leaf, spec, found)
        return
    parts = list(arg.items() if isinstance(arg, Mapping) else enumerate(arg))
    chosen = spec if isinstance(spec, Mapping) else dict(enumerate(spec)) if isinstance(spec, (tuple, list)) else None
    if chosen is None or structure.kind not in ("tuple", "list", "dict") or not set(chosen) <= {key for key, _ in parts}:
        raise ArgumentTypeError(f"dynamic_shapes: {where} is nested in another way", got=repr(spec))
    for key, part in parts:
        _collect(f"{where}[{key!r}]", part, chosen.get(key), found)
