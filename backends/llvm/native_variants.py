"""For which sizes an entry gets code, when there is no one to make more later.

Code for symbolic sizes rests on facts (see `graphc.sizes`). In a process, `graphc.variants` makes more where sizes come for
which they do not hold; here there has to be code for all sizes that may come. So some are tried, small ones, large ones, and
those on either side of where vectors and tiles end, until there is code for all of these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.assumptions import Relation
from graphc.backends.llvm.panels import keep_panels
from graphc.backends.llvm.program import Rendered, render
from graphc.backends.llvm.target import Target
from graphc.bind import is_symbolic, substitute
from graphc.conditions import Given, conditions
from graphc.config import config
from graphc.dims import Dim
from graphc.errors import ArgumentError, CompileError, ShapeError, VerifyError
from graphc.ir import Graph, Node
from graphc.native.interface import EntryRequest
from graphc.passes import pipeline
from graphc.program import Program
from graphc.schedule import lower
from graphc.schedule.fusion import runs_on_host
from graphc.sizes import Facts, NumberNeeded, evaluate, relying_on
from graphc.types import Size
from graphc.verify import verify

_MOST_VARIANTS = 16
_TYPICAL = 64
_PROBES = sorted({1, 2, 3, 4, 5, 7, 100, 1000, *(2**k + d for k in range(3, 13) for d in (-1, 0, 1)), 1 << 14, 1 << 16})
_FEWER_PROBES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 200, 256, 500, 1000, 1024, 4096)
_FEW_PROBES = (1, 2, 5, 8, 16, 17, 64, 100, 1024)
_CORNERS = (1, 8, 64, 1000)
_MOST_PROBES = 1200
_MOST_PREPARED = 2
"""How many times the memory of the weights what variants compute once may take: each keeps its own."""
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Variant:
    """A program for those sizes for which its facts hold, or for one number each."""

    program: Program
    rendered: Rendered
    sizes: Mapping[str, int]
    """An example."""
    numbers: Mapping[str, int]
    """The sizes that it is made for alone."""

    def is_for(self, sizes: Mapping[str, int]) -> bool:
        return all(sizes[name] == number for name, number in self.numbers.items()) and (
            self.program.facts is None or self.program.facts.hold(sizes))

    def described(self) -> str:
        """Its sizes, in words: the facts that say most."""
        facts = {} if self.program.facts is None else self.program.facts.at_least_zero
        found = [f"{name} == {number}" for name, number in self.numbers.items()]
        stated = _strongest([gap if holds else -gap - 1 for gap, holds in facts.items()])
        found += stated[:_SHOWN] + (["..."] if len(stated) > _SHOWN else [])
        return " and ".join(found) or "all sizes"


def variants(entry: EntryRequest, target: Target) -> list[Variant]:
    """The programs of an entry: one, or for symbolic sizes as many as there have to be, those for common sizes first."""
    graph, steady = entry.graph, entry.steady
    places = {name: position for position, name in entry.state.items()}
    maker = _Maker(graph, target, {output: places[name] for name, output in entry.updates.items()})
    if not is_symbolic(graph):
        return [maker.make(graph, {}, {}, steady)]
    found: list[Variant] = []
    probes = entry.examples or tuple(_probes(graph))
    weights = [graph.inputs[i].type for i in steady]
    left = _MOST_PREPARED * sum(math.prod(t.shape) * t.dtype.itemsize for t in weights if t.is_static)
    for sizes in probes:
        if any(variant.is_for(sizes) for variant in found):
            continue
        if len(found) == _MOST_VARIANTS and not entry.examples:
            break
        try:
            made = maker.variant(sizes, steady, given=bool(entry.examples))
            found.append(made)
            left -= made.program.prepared
            if left < found[0].program.prepared:
                steady = ()
        except (ShapeError, VerifyError):
            if entry.examples:
                raise  # else the graph has no meaning for these sizes
    if not found:
        raise ArgumentError(f"{entry.symbol}: no sizes were found for which code can be made",
                            hint="name some: --sizes N=64, or sizes= in Python")
    return [_with_little_memory(variant, probes) if variant.program.prepared else variant for variant in found]


def _with_little_memory(variant: Variant, probes: Sequence[Mapping[str, int]]) -> Variant:
    """With that example among its own for which it needs the least memory."""
    arena = variant.rendered.arena
    return replace(variant, sizes=min(filter(variant.is_for, probes), key=lambda sizes: evaluate(arena, sizes)))


class _Maker:
    """Makes the programs of one graph, whose `donated` outputs are written over inputs."""

    def __init__(self, graph: Graph, target: Target, donated: Mapping[int, int]) -> None:
        self.graph = graph
        self.target = target
        self.donated = donated

    def variant(self, sizes: Mapping[str, int], steady: Sequence[int], *, given: bool) -> Variant:
        """Code with these sizes as the example; where it has to be made for numbers, only if the sizes were given."""
        numbers: dict[str, int] = {}
        while True:
            bound = substitute(self.graph, numbers) if numbers else self.graph
            facts = Facts(sizes) if is_symbolic(bound) else None
            try:
                with relying_on(facts):
                    verify(bound)
                    return self.make(bound, sizes, numbers, steady)
            except NumberNeeded as missing:
                if not given:
                    raise ArgumentError(
                        f"{self.graph.name}: code for any {', '.join(sorted(missing.symbols))} cannot be made",
                        got=missing.problem, hint="name the sizes to make code for: --sizes N=64, or sizes= in Python",
                    ) from None
                fixed = missing.symbols
            except (ShapeError, VerifyError):  # as it is for a size of 0
                fixed = frozenset(sizes) if facts is None or not facts.needed else facts.needed
                if fixed <= numbers.keys():
                    raise
            numbers |= {name: sizes[name] for name in sorted(fixed)}

    def make(self, graph: Graph, sizes: Mapping[str, int], numbers: Mapping[str, int], steady: Sequence[int]) -> Variant:
        """The code of the graph with numbers put in."""
        graph = pipeline.run(graph)
        if refused := [node for node in graph.walk() if _needs_python(node)]:
            raise CompileError(
                f"{graph.name}: native code cannot do what is left to Python: "
                f"{', '.join(dict.fromkeys(map(_named, refused)))}",
                expected="ops that have generated code", at=refused[0].location,
                hint="leave these ops out of what is exported, and do them where the native function is called",
            )
        program = lower(graph, self.target.scheduled(config.numerics), donated=self.donated, steady=steady)
        if left := [call.op.name for call in program.calls() if call.op.native is None]:
            raise CompileError(f"{graph.name}: native code cannot copy complex numbers: {', '.join(dict.fromkeys(left))}",
                               expected="real inputs and outputs")
        program = keep_panels(program, self.target)
        return Variant(program, render(program, self.target, hosted=False), sizes, numbers)


def _needs_python(node: Node) -> bool:
    return runs_on_host(node) and node.op.native is None


def _named(node: Node) -> str:
    return node.op.name if node.location is None else f"{node.op.name} (at {node.location})"


def _probes(graph: Graph) -> Iterator[dict[str, int]]:
    """Sizes to try, typical ones first."""
    stated = conditions(value.info for value in graph.inputs)
    ranges = Given(stated).ranges
    names = sorted({name for value in graph.inputs for size in value.shape if not isinstance(size, int)
                    for name in size.symbols()})
    choices = []
    for name in names:
        least, most = ranges.get(name, (0, math.inf))
        tried = {1: _PROBES, 2: _FEWER_PROBES, 3: _FEW_PROBES}.get(len(names), _CORNERS)
        probes = {*tried, int(least), *(() if math.isinf(most) else (int(most),))}
        choices.append(sorted((n for n in probes if least <= n <= most), key=_distance))
    fit = (dict(zip(names, numbers)) for numbers in sorted(itertools.product(*choices), key=lambda ns: sum(map(_distance, ns))))
    return itertools.islice((sizes for sizes in fit if not any(r.fails(sizes) for r in stated)), _MOST_PROBES)


def _distance(size: int) -> float:
    return abs(math.log2(max(size, 0.5) / _TYPICAL))


def _strongest(differences: list[Size]) -> list[str]:
    """That differences are >= 0, as text: of those that differ in a number alone the one that says most."""
    least: dict[object, tuple[int, Relation]] = {}
    for difference in differences:
        if not isinstance(difference, Dim):
            continue
        terms = dict(difference.terms)
        constant = terms.pop((), 0)
        common = math.gcd(*terms.values())
        reduced = {monomial: coefficient // common for monomial, coefficient in terms.items()}
        key, constant = tuple(sorted(reduced.items())), constant // common
        if key not in least or constant < least[key][0]:
            least[key] = constant, Relation(Dim({**reduced, (): constant}), ">=")
    return [str(relation) for _, relation in least.values()]
