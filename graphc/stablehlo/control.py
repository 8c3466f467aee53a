"""Branches and loops: operations with regions."""

from __future__ import annotations

import numpy as np

from graphc.stablehlo.table import writes
from graphc.stablehlo.writer import Operand, Step, Writer, integers
from graphc.types import TensorType, int64


@writes("cond")
def _cond(w: Writer, step: Step) -> list[Operand]:
    predicate, *operands = step.operands
    regions = [w.region([], lambda _, graph=graph: w.graph(graph, operands))  # type: ignore[misc]
               for graph in (step.attrs["then"], step.attrs["otherwise"])]
    return w.emit_many("if", [predicate], step.types, regions)


@writes("while_loop")
def _while_loop(w: Writer, step: Step) -> list[Operand]:
    carried, others = list(step.operands[: step.attrs["carries"]]), step.operands[step.attrs["carries"] :]
    types = [operand.type for operand in carried]
    regions = [w.region(types, lambda values, graph=graph: w.graph(graph, [*values, *others]))  # type: ignore[misc]
               for graph in (step.attrs["condition"], step.attrs["body"])]
    return w.emit_many("while", carried, types, regions)


@writes("scan")
def _scan(w: Writer, step: Step) -> list[Operand]:
    """A loop that counts: it takes a row of what is scanned, and puts one into each further result."""
    carries, scanned, length = (step.attrs[name] for name in ("carries", "scanned", "length"))
    rows, others = step.operands[carries : carries + scanned], step.operands[carries + scanned :]
    counter = TensorType(int64, ())
    begin = [w.constant(np.int64(0)), *step.operands[:carries], *(w.number(0, t) for t in step.types[carries:])]

    def condition(values: list[Operand]) -> list[Operand]:
        return [w.compare("LT", values[0], w.constant(np.int64(length)))]

    def body(values: list[Operand]) -> list[Operand]:
        count, *rest = values
        place = w.same("subtract", w.constant(np.int64(length - 1)), count) if step.attrs["reverse"] else count
        zero = w.constant(np.int64(0))

        def at(x: Operand) -> list[Operand]:
            return [place, *[zero] * (x.type.ndim - 1)]

        given = []
        for x in rows:
            shape = (1, *x.type.shape[1:])
            row = w.emit("dynamic_slice", x, *at(x), type=x.type.with_shape(shape), slice_sizes=integers(shape))
            given.append(w.reshape(row, x.type.shape[1:]))
        made = w.graph(step.attrs["body"], [*rest[:carries], *given, *others])
        filled = [
            w.emit("dynamic_update_slice", old, w.reshape(row, (1, *row.type.shape)), *at(old), type=old.type)
            for old, row in zip(rest[carries:], made[carries:])
        ]
        return [w.same("add", count, w.constant(np.int64(1))), *made[:carries], *filled]

    types = [counter, *step.types]
    return w.emit_many("while", begin, types, [w.region(types, condition), w.region(types, body)])[1:]
