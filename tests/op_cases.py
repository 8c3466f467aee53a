"""The samples in the ops' own records, with numbers: what the tests of all ops run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from op_samples import draw, graph_of

import graphc.ops  # noqa: F401  (defines the ops)
from graphc.ir import Graph
from graphc.op import OPS, OpDef, Sample, Undefined, vjp_rule
from graphc.types import complex64, complex128, float32, float64


@dataclass(frozen=True)
class Case:
    """A sample of an op, with numbers in place of types."""

    record: OpDef
    sample: Sample
    arrays: tuple[np.ndarray, ...]

    def in_float64(self) -> Case:
        """The same call in double precision, where finite differences mean something."""
        widened: dict[Any, Any] = {float32: float64, complex64: complex128}
        wide = {name: widened.get(value, value) for name, value in self.sample.attrs.items()}
        double = {np.dtype(np.float32): np.float64, np.dtype(np.complex64): np.complex128}
        arrays = tuple(a.astype(double.get(a.dtype, a.dtype)) for a in self.arrays)
        return Case(self.record, replace(self.sample, attrs=wide), arrays)

    def differentiable(self) -> list[int]:
        """The operands that the result has a derivative by; none where one of the derivatives is not written down."""
        if not any(value.dtype.is_differentiable for value in self.graph().outputs):
            return []
        floating = (i for i, a in enumerate(self.arrays) if a.dtype.kind in "fc")
        rules = {i: rule for i in floating if (rule := vjp_rule(self.record, i)) is not None}
        return [] if any(isinstance(rule.rule, Undefined) for rule in rules.values()) else list(rules)

    def graph(self) -> Graph:
        """A graph of this one call."""
        return graph_of(self.record, self.sample, list(self.arrays))


def numbered(record: OpDef, number: int, sample: Sample) -> Case:
    """The same numbers in every run."""
    return Case(record, sample, tuple(draw(sample, f"{record.name}-{number}")))


CASES = {f"{r.name}-{n}": numbered(r, n, sample) for r in OPS.values() for n, sample in enumerate(r.samples)}
DIFFERENTIABLE = {name: case for name, case in CASES.items() if case.differentiable()}


def tolerance(array: np.ndarray) -> float:
    """Some tens of rounding errors; nothing for integers and booleans."""
    return 64 * float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 0.0


def assert_agree(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype and g.shape == e.shape
        scale = np.abs(e[np.isfinite(e)]).max(initial=1.0) if e.dtype.kind in "fc" else 1.0
        np.testing.assert_allclose(g, e, rtol=tolerance(e), atol=tolerance(e) * scale)
