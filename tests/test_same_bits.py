"""Results are the same bits for any number of threads: ops, large functions with their gradients, and training. Batch norms are
so whether they are compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from op_samples import draw, graph_of
from test_compile_workloads import GPT, Block, step_of

import graphc
from graphc import compiler, nn
from graphc.compiler import compile_graph
from graphc.frontend.composite import SEVERAL
from graphc.nn import functional as F
from graphc.op import OPS, OpDef

COUNTS = (1, 2, 3)
# what Python computes has no threads of ours; tests add ops with a dot in their names
NATIVE = [record for name, record in OPS.items() if record.kernel != "host" and "." not in name]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = graphc.get_num_threads()
    yield
    graphc.set_num_threads(before)


@pytest.fixture
def everything_in_parallel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loops, products and convolutions of any size are shared among threads."""
    compiler.clear_cache()
    monkeypatch.setattr("graphc.schedule.loops._STEP", 4)
    monkeypatch.setattr("graphc.schedule.loops._SPLIT", 8)
    monkeypatch.setattr("graphc.backends.llvm.loops._PARALLEL_NS", 0)
    monkeypatch.setattr("graphc.backends.llvm.loops._CHUNK_NS", 1)
    monkeypatch.setattr("graphc.backends.llvm.gemm_plan.SERIAL", 0)
    monkeypatch.setattr("graphc.backends.llvm.direct_plan.SERIAL", 0)
    yield
    compiler.clear_cache()


def same_for_all_counts(run: Callable[[], list[bytes]]) -> None:
    first: list[bytes] = []
    for threads in COUNTS:
        graphc.set_num_threads(threads)
        found = run()
        assert found == (first or found), f"{threads} threads"
        first = found


@pytest.mark.usefixtures("everything_in_parallel")
@pytest.mark.parametrize("record", NATIVE, ids=lambda record: record.name)
def test_an_op(record: OpDef) -> None:
    for number, sample in enumerate(record.samples):
        arrays = draw(sample, f"{record.name} {number}")
        compiled = compile_graph(graph_of(record, sample, arrays))
        same_for_all_counts(lambda: [out.tobytes() for out in compiled(*arrays)])  # noqa: B023


def attention(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "gelu": (lambda a, b, c: F.gelu(a * b + c, approximate="tanh"), ((70_001,),) * 3),
    "softmax": (lambda x: F.softmax(x, dim=-1), ((257, 300),)),
    "softmax of columns": (lambda x: F.softmax(x, dim=0), ((257, 300),)),
    "layer_norm": (lambda x, w, b: F.gelu(F.layer_norm(x, (300,), w, b)), ((257, 300), (300,), (300,))),
    "sum of all": (lambda x: (x.exp() * x).sum(), ((511, 513),)),
    "sums of columns": (lambda x: ((x - x.mean(0)) ** 2).mean(0).sqrt(), ((1023, 129),)),
    "sums of columns, few": (lambda x: x.sum(0), ((60_000, 3),)),
    "transpose": (lambda x, y: (x.t() + y) * 2.0, ((301, 257), (257, 301))),
    "product": (lambda x, w, b: F.relu(x @ w + b), ((131, 257), (257, 191), (191,))),
    "long product": (lambda x, w: x @ w, ((17, 5000), (5000, 19))),
    "product of few rows": (lambda x, w: x @ w, ((3, 1000), (1000, 700))),
    "products": (lambda x, w: x @ w, ((7, 65, 33), (7, 33, 40))),
    "convolution": (lambda x, w: F.relu(F.conv2d(x, w, padding=1)), ((2, 16, 29, 29), (32, 16, 3, 3))),
    "strided convolution": (lambda x, w: F.conv2d(x, w, stride=2, padding=3), ((1, 3, 65, 65), (32, 3, 7, 7))),
    "depthwise convolution": (lambda x, w: F.conv2d(x, w, padding=1, groups=32), ((2, 32, 29, 29), (32, 1, 3, 3))),
    "transposed convolution": (lambda x, w: F.conv_transpose2d(x, w, stride=2), ((2, 16, 15, 15), (16, 8, 3, 3))),
    "pooling": (lambda x: F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1), ((2, 16, 57, 57),)),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), ((4, 24, 33, 33),)),
    "attention": (attention, ((2, 3, 65, 32),) * 3),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_and_its_gradients(name: str, compiled: bool) -> None:
    function, shapes = FUNCTIONS[name]
    graphc.manual_seed(0)
    inputs = [graphc.randn(*shape).requires_grad_() for shape in shapes]

    def with_gradients(*inputs: Any) -> list[Any]:
        out = function(*inputs)
        return [out, *graphc.autograd.grad((out * out).sum(), inputs)]

    run = graphc.compile(with_gradients) if compiled else with_gradients
    for _ in range(SEVERAL):  # eager code comes to run natively
        run(*inputs)
    same_for_all_counts(lambda: [t.detach().numpy().tobytes() for t in run(*inputs)])


def perceptron() -> tuple[nn.Module, Callable[..., Any], tuple[Any, Any]]:
    model = nn.Sequential(nn.Linear(200, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, nn.CrossEntropyLoss(), (graphc.randn(64, 200), graphc.randint(0, 10, (64,)))


def residual() -> tuple[nn.Module, Callable[..., Any], tuple[Any, Any]]:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        Block(16, 16, 1), Block(16, 32, 2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return model, nn.CrossEntropyLoss(), (graphc.randn(4, 3, 48, 48), graphc.randint(0, 10, (4,)))


def transformer() -> tuple[nn.Module, Callable[..., Any], tuple[Any, Any]]:
    words = 61
    loss_of = lambda logits, y: F.cross_entropy(logits.view(-1, words), y.view(-1))  # noqa: E731
    return GPT(words, 64, 48), loss_of, (graphc.randint(0, words, (2, 48)), graphc.randint(0, words, (2, 48)))


@pytest.mark.parametrize("make", [perceptron, residual, transformer])
def test_training(make: Callable[[], Any]) -> None:
    def train() -> list[bytes]:
        graphc.manual_seed(0)
        model, loss_of, (x, y) = make()
        step = graphc.compile(step_of(model, loss_of, graphc.optim.AdamW(model.parameters(), lr=1e-2)))
        losses = [step(x, y).detach() for _ in range(3)]
        return [np.asarray(t.detach()).tobytes() for t in (*losses, *model.state_dict().values())]

    same_for_all_counts(train)


def test_batch_norms_of_convolutions_are_the_same_bits_as_op_by_op() -> None:
    """Compiled, the sums go on in the order of another layout."""
    graphc.manual_seed(0)
    plain, compiled = (nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), Block(32, 48, 2)) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    x = graphc.randn(3, 3, 37, 41)
    out, same = plain(x), graphc.compile(compiled)(x)
    for name, value in {"out": out, **plain.state_dict()}.items():
        again = {"out": same, **compiled.state_dict()}[name]
        assert value.detach().numpy().tobytes() == again.detach().numpy().tobytes(), name
