"""Images of another size as ONNX's Resize: weighted sums of pixels along one dimension after the other, where the weights are
those that the operator is defined by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim
from graphc.ir import Node, Value
from graphc.onnx_format.export.matching import Match, made_by, number, stretched
from graphc.onnx_format.export.writer import Step, Writer
from graphc.onnx_format.resampling import coordinates, taps
from graphc.rewrite import Var, match
from graphc.types import Size, float32, int64

_MOST_WEIGHTS = 1 << 22
"""Of tables for one dimension; larger ones are not looked at."""


@dataclass(frozen=True)
class _Stage:
    """One dimension that gets another size: what each new element is made of."""

    source: Value
    shape: tuple[Size, ...]
    """What the source is seen as: its own shape, or another of as many elements."""
    axis: int
    times: int | None
    """How often each element is repeated, if that is all."""
    table: tuple[np.ndarray, np.ndarray] | None
    """Else places in the old dimension and weights, [new, taps] of each."""
    grows: int | None = None
    """Else by what a dimension of any size grows, with numbers between each two elements."""


def match_resize(node: Node) -> Match | None:
    """What a node ends, if that is an image of another size: [N, C, ...] with other sizes behind the first two. In single
    precision: runtimes have few other dtypes for all modes."""
    value = node.results[0]
    if value.dtype is not float32 or not 3 <= value.ndim <= 5:
        return None
    stages: dict[int, _Stage] = {}
    best, source, shape = None, value, tuple(value.shape)
    while (stage := _stage(source, shape)) is not None and stage.axis >= 2 and stage.axis not in stages:
        stages[stage.axis] = stage
        source, shape = stage.source, stage.shape
        if list(map(str, source.shape)) == list(map(str, shape)):
            best = _operator(stages, source, value) or best
    return best


def _stage(value: Value, shape: tuple[Size, ...]) -> _Stage | None:
    """How a value, seen in that shape, has got the size of one dimension."""
    repeated = _repeated(value, shape)
    if repeated is not None or tuple(value.shape) != shape:
        return repeated
    if (total := made_by(value, "sum")) is not None:
        return _weighted(total)
    if (both := made_by(value, "add")) is not None:
        return _between(both)
    taken = made_by(value, "gather")
    places = None if taken is None else _line(taken.operands[1], taken.attrs["axis"])
    if taken is None or places is None:
        return None
    x = taken.operands[0]
    return _Stage(x, tuple(x.shape), taken.attrs["axis"], None, (places[:, None], np.ones((len(places), 1))))


def _repeated(value: Value, shape: tuple[Size, ...]) -> _Stage | None:
    """Each element several times: it gets a dimension of its own, which is stretched, and merged with the one before."""
    merged = made_by(value, "reshape")
    wide = made_by(value if merged is None else merged.operands[0], "broadcast_to")
    if wide is None:
        return None
    source, apart = wide.operands[0], tuple(wide.result.shape)
    if source.ndim != len(apart) or len(apart) != len(shape) + 1:
        return None
    changed = [i for i, (old, new) in enumerate(zip(source.shape, apart)) if str(old) != str(new)]
    if len(changed) != 1 or changed[0] == 0 or source.shape[changed[0]] != 1 or not isinstance(apart[changed[0]], int):
        return None
    at, times = changed[0] - 1, apart[changed[0]]
    seen = (*apart[: at + 1], *apart[at + 2 :])
    if list(map(str, (*seen[:at], seen[at] * times, *seen[at + 1 :]))) != list(map(str, shape)):
        return None
    shaped = made_by(source, "reshape")
    return _Stage(source if shaped is None else shaped.operands[0], seen, at, int(times), None)


def _weighted(total: Node) -> _Stage | None:
    """A sum over chosen elements times their weights."""
    product = made_by(total.operands[0], "mul")
    picked = None if product is None else made_by(product.operands[0], "reshape")
    taken = None if picked is None else made_by(picked.operands[0], "gather")
    if product is None or picked is None or taken is None:
        return None
    x, axis, apart = taken.operands[0], taken.attrs["axis"], picked.result.shape
    places, weights = _line(taken.operands[1], axis), _array(product.operands[1])
    if places is None or weights is None or total.attrs["axes"] != (axis + 1,) or len(apart) != x.ndim + 1:
        return None
    count = apart[axis : axis + 2]
    if list(map(str, apart)) != list(map(str, (*x.shape[:axis], *count, *x.shape[axis + 1 :]))):
        return None
    beside = (1,) * (len(apart) - axis - 2)
    if weights.shape != (*count, *beside) or places.size != weights.size:
        return None
    return _Stage(x, tuple(x.shape), axis, None, (places.reshape(weights.shape[:2]), weights.reshape(weights.shape[:2])))


# Of a dimension whose size is not known, places and shares are computed in the graph

_COUNTER, _STEP, _LAST = map(Var, ("counter", "step", "last"))


def _at_most(x: Any, most: Any) -> Any:
    """As the front end clamps integers."""
    return ops.where(ops.le(x, most), x, ops.where(ops.gt(x, most), most, ops.minimum(x, most)))


_CENTRE = ops.maximum(ops.sub(ops.mul(ops.add(_COUNTER, 0.5), _STEP), 0.5), 0.0)
_LOW = _at_most(ops.cast(_CENTRE, dtype=int64), _LAST)
_HIGH = _at_most(ops.add(_LOW, 1), _LAST)
_REST = ops.sub(_CENTRE, ops.cast(_LOW, dtype=float32))
_NOT_LESS = ops.where(ops.lt(_REST, 0.0), 0.0, _REST)
_SHARE = ops.where(ops.gt(_NOT_LESS, 1.0), 1.0, _NOT_LESS)
"""How far the place of a new element is beyond the old one before it."""


def _between(both: Node) -> _Stage | None:
    """x[low] * (1 - share) + x[high] * share, along a dimension that grows by a whole number"""
    near, far = (_shared(value) for value in both.operands)
    if near is None or far is None:
        return None
    (x, axis, low, rest), (other, same_axis, high, share) = near, far
    difference = made_by(rest, "sub")
    if difference is None or number(difference.operands[0]) != 1 or _line_of(difference.operands[1]) is not _line_of(share):
        return None
    low, high, share = _line_of(low), _line_of(high), _line_of(share)
    bound = None if share.node is None else match(_SHARE, share.node)
    ends = [None if value.node is None else match(pattern, value.node) for pattern, value in ((_LOW, low), (_HIGH, high))]
    if bound is None or any(end is None or end.items() != bound.items() for end in ends) or x is not other or axis != same_axis:
        return None
    counter, last, step = made_by(bound["counter"], "iota"), made_by(stretched(bound["last"]), "size"), number(bound["step"])
    if counter is None or counter.result.ndim != 1 or last is None or step is None or not 0 < step <= 1:
        return None
    scale, size, want = round(1 / step), x.shape[axis], both.result.shape[axis]
    if np.float32(1 / scale) != np.float32(step) or str(last.attrs["value"]) != str(size - 1) or str(want) != str(size * scale):
        return None
    return _Stage(x, tuple(x.shape), axis, None, None, scale)


def _shared(value: Value) -> tuple[Value, int, Value, Value] | None:
    """Of x[places] * shares along one dimension: x, the dimension, the places and the shares."""
    product = made_by(value, "mul")
    taken = None if product is None else made_by(product.operands[0], "gather")
    if product is None or taken is None:
        return None
    axis, line, shares = taken.attrs["axis"], stretched(taken.operands[1]), stretched(product.operands[1])
    ndim, want = value.ndim, str(value.shape[axis])
    along = [want if i == axis else "1" for i in range(ndim)]
    if list(map(str, line.shape)) != along or list(map(str, shares.shape)) != along[axis:]:
        return None
    return taken.operands[0], axis, line, shares


def _line_of(value: Value) -> Value:
    """What has been given dimensions of size 1."""
    node = made_by(value, "reshape")
    return node.operands[0] if node is not None and node.operands[0].ndim == 1 else value


def _array(value: Value) -> np.ndarray | None:
    """The numbers of a constant before it was stretched, in the shape that it has by then."""
    source = stretched(value)
    shaped = made_by(source, "reshape")
    node = made_by(source if shaped is None else shaped.operands[0], "constant")
    array: Any = None if node is None else node.attrs["value"]
    return array.reshape([int(n) for n in source.shape]) if isinstance(array, np.ndarray) else None


def _line(index: Value, axis: int) -> np.ndarray | None:
    """The places of an index that are the same wherever one is in the other dimensions."""
    array = _array(index)
    if array is None or array.ndim != index.ndim or array.size != array.shape[axis] or array.size != index.shape[axis]:
        return None
    return array.reshape(-1)


# Which operator it is


def _operator(stages: Mapping[int, _Stage], source: Value, result: Value) -> Match | None:
    axes = sorted(stages)
    if all(stages[axis].times is not None for axis in axes):
        scales = [float(stages[axis].times or 0) for axis in axes]
        return _match(source, axes, "asymmetric", {"mode": "nearest", "nearest_mode": "floor"}, scales=scales)
    if all(stages[axis].grows is not None for axis in axes):
        return _match(source, axes, "half_pixel", {"mode": "linear"}, scales=[float(stages[axis].grows or 0) for axis in axes])
    sizes = [(source.shape[axis], result.shape[axis]) for axis in axes]
    tables = [_full_table(stages[axis], source.shape[axis]) for axis in axes]
    if any(isinstance(size, Dim) for pair in sizes for size in pair) or any(table is None for table in tables):
        return None
    (only, *others) = stages.values()
    if not others and only.table is not None and only.table[0].shape[1] == 1:
        return None  # which Gather says as well
    known = [(int(old), int(new)) for old, new in sizes]
    for transform, mode in _MODES:
        by_size = [new / old for old, new in known]
        if all(_agrees(table, *pair, scale, transform, mode) for table, pair, scale in zip(tables, known, by_size)):
            return _match(source, axes, transform, mode, sizes=[new for _, new in known])
        scales = [next(_scales(table, *pair, transform, mode), 0.0) for table, pair in zip(tables, known)]
        if all(scales):
            return _match(source, axes, transform, mode, scales=scales)
    return None


_MODES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("asymmetric", {"mode": "nearest", "nearest_mode": "floor"}),
    ("half_pixel", {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}),
    *((transform, {"mode": mode}) for transform in ("half_pixel", "align_corners") for mode in ("linear", "cubic")),
    ("half_pixel", {"mode": "linear", "antialias": 1, "exclude_outside": 1}),
    ("half_pixel", {"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}),
)
"""What the front end's modes are: without the scale, which may be told or follow from the sizes."""


def _full_table(stage: _Stage, old: Size) -> np.ndarray | None:
    """The weight of each old element in each new one."""
    if stage.times is not None:
        return np.repeat(np.eye(int(old)), stage.times, 0) if isinstance(old, int) else None
    if stage.table is None:
        return None
    places, weights = stage.table
    return _matrix(places, weights, int(old)) if isinstance(old, int) and places.min(initial=0) >= 0 else None


def _matrix(places: np.ndarray, weights: np.ndarray, old: int) -> np.ndarray | None:
    if len(places) * old > _MOST_WEIGHTS or places.max(initial=0) >= old:
        return None
    matrix = np.zeros((len(places), old))
    np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
    return matrix


def _agrees(table: np.ndarray | None, old: int, new: int, scale: float, transform: str, mode: Mapping[str, Any]) -> bool:
    """Whether a table is that of the operator, whose runtimes find places in single precision: nearest elements are the same
    then, too, and others differ by what rounding makes."""
    for kind in (np.float64, np.float32):
        places = coordinates(old, new, scale, transform, kind=kind)
        index, weights = taps(places, old, scale, mode["mode"], nearest_mode=mode.get("nearest_mode", ""),
                              antialias="antialias" in mode, exclude_outside="exclude_outside" in mode,
                              cubic_coeff_a=mode.get("cubic_coeff_a", -0.75))
        found = _matrix(index, weights, old)
        tolerance = 0.0 if mode["mode"] == "nearest" else 1e-5 + 1e-6 * old
        if found is None or table is None or not np.allclose(found, table, rtol=0, atol=tolerance):
            return False
    return True


def _scales(table: np.ndarray | None, old: int, new: int, transform: str, mode: Mapping[str, Any]) -> Iterator[float]:
    """Numbers by which a dimension may have been told to grow: that of the sizes, what places in the middle say, and short
    ones."""
    candidates = [new / old]
    if table is not None and mode["mode"] == "linear" and transform == "half_pixel":
        centres = table @ np.arange(old)
        inner = [i for i, centre in enumerate(centres) if 0 < centre < old - 1]
        if inner:
            scale = (inner[-1] + 0.5) / (centres[inner[-1]] + 0.5)
            candidates += [round(scale, 4), scale]
    elif transform != "align_corners" and "antialias" not in mode:
        candidates += [n / 100 for n in range(100 * new // old, 100 * (new + 1) // old + 1)]
    for scale in candidates:
        single = float(np.float32(scale))
        if {math.floor(single * old), int(np.floor(np.float32(scale) * np.float32(old)))} == {new} and _agrees(
                table, old, new, single, transform, mode):
            yield single


def _match(source: Value, axes: Sequence[int], transform: str, mode: Mapping[str, Any], *, scales: Sequence[float] = (),
           sizes: Sequence[int] = ()) -> Match:
    attributes = {"axes": list(axes), "coordinate_transformation_mode": transform, **mode}

    def write(w: Writer, step: Step) -> str:
        given = [w.array(np.array(scales, np.float32))] if scales else ["", w.array(np.array(sizes, np.int64))]
        return str(w.emit("Resize", step.names[0], "", *given, **attributes))

    return Match((source,), write)
