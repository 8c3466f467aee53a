"""What the tape does for an op: which rules run, and what they need to have kept. Worked out once for each op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend.node import Edge, node_class
from graphc.op import OpDef, vjp_rule
from graphc.specs import RuleSpec

if TYPE_CHECKING:
    from graphc.frontend.tape import OpNode


class Native:
    """What nodes have in common that native code may run."""

    __slots__ = ("native",)

    def __init__(self) -> None:
        self.native: Any = 0
        """How native code runs the nodes; before it is known, how many Python has run, and None where it does not."""

    def make_native(self) -> Any:
        """How native code runs the nodes, as the back end says."""
        raise NotImplementedError


class Plan(Native):
    """What the tape does for one op when certain operands require grad: worked out once."""

    __slots__ = ("cls", "record", "rules", "saves", "saves_out", "steps")

    def __init__(self, record: OpDef, wanted: tuple[int, ...], base: type[OpNode]) -> None:
        super().__init__()
        self.record = record
        name = "".join(part.capitalize() for part in record.name.rpartition(".")[2].split("_"))
        self.cls = node_class(f"{name}Backward0", base)
        self.rules: dict[int, tuple[Any, tuple[tuple[str, Any], ...]]] = {}
        saves: set[int] = set()
        for i in wanted:
            rule = vjp_rule(record, i)
            if rule is None:
                continue
            sources = tuple(_source(record, need) for need in rule.needs)
            self.rules[i] = rule.rule, sources
            saves.update(k for kind, k in sources if kind == "operand")
        self.saves = tuple(sorted(saves))
        """The operands that are kept."""
        self.steps = tuple((i, rule, *self._short(sources)) for i, (rule, sources) in self.rules.items())
        """For each wanted operand the rule, and of most rules what they are given: "ct", then nothing, the result, or what is
        kept in a place."""
        self.saves_out = any(kind == "out" for _, sources in self.rules.values() for kind, _ in sources)

    def _short(self, sources: tuple[tuple[str, Any], ...]) -> tuple[str, int]:
        match sources:
            case (("ct", _),):
                return "ct", 0
            case (("ct", _), ("out", _)):
                return "out", 0
            case (("ct", _), ("operand", k)):
                return "operand", self.saves.index(k)
        return "other", 0

    def make_native(self) -> Any:
        return get_backend(config.backend).rules(RuleSpec(self.record, tuple(self.rules), self.saves))

    def template(self) -> OpNode:
        """A node of this plan that keeps nothing: what native code copies."""
        node = object.__new__(self.cls)
        for name, content in (("plan", self), ("attrs", {}), ("edges", ()), ("sequence", 0), ("_last", 0), ("watched", False)):
            setattr(node, name, content)
        node.types = node.saved = node.out = node._code = None
        return node


def _source(record: OpDef, need: str) -> tuple[str, Any]:
    """Where the argument called `need` of a VJP rule comes from."""
    if need in ("ct", "out", "attrs", "types", "index", "operands", "wanted"):
        return need, None
    if need in record.operands:
        return "operand", record.operands.index(need)
    if need.endswith("_type") and need[:-5] in record.operands:
        return "type", record.operands.index(need[:-5])
    return "attribute", need


_plans: dict[tuple[OpDef, int], Plan] = {}


def plan_for(record: OpDef, edges: Sequence[Edge], base: type[OpNode]) -> Plan:
    """What is done for operands of which those with edges are wanted."""
    wanted = 0
    bit = 1
    for edge in edges:
        if edge is not None:
            wanted |= bit
        bit <<= 1
    found = _plans.get((record, wanted))
    if found is None:
        found = planned(record, tuple(i for i, edge in enumerate(edges) if edge is not None), base)
    return found


def planned(record: OpDef, numbers: tuple[int, ...], base: type[OpNode]) -> Plan:
    """What is done for operands of which those with these numbers are wanted."""
    wanted = sum(1 << i for i in numbers)
    found = _plans.get((record, wanted))
    if found is None:
        found = _plans[record, wanted] = Plan(record, numbers, base)
    return found
