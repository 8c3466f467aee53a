"""Functions of all families on symbolic sizes: traced once, they give at other sizes what eager code gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F

Shapes = tuple[tuple[int, ...], ...]

CASES: dict[str, tuple[Callable[..., Any], list[Shapes]]] = {
    "view": (lambda x: x.view(x.shape[0], x.shape[1], -1, 2), [((3, 4, 6),), ((5, 7, 8),)]),
    "view, an own size": (lambda x: x.view(x.shape[0] * x.shape[1], x.size(-1)), [((3, 4, 6),), ((5, 7, 8),)]),
    "flatten": (lambda x: x.flatten(1), [((3, 4, 6),), ((5, 7, 8),)]),
    "unflatten": (lambda x: x.unflatten(1, (-1, 3)), [((2, 6),), ((4, 9),)]),
    "expand": (lambda x: x[:, None].expand(-1, 4, x.shape[1]), [((3, 5),), ((4, 7),)]),
    "expand_as": (lambda x, y: x.unsqueeze(0).expand_as(y) * y, [((5,), (2, 5)), ((7,), (3, 7))]),
    "permute": (lambda x: x.permute(2, 0, 1).contiguous(), [((2, 3, 5),), ((4, 7, 6),)]),
    "squeeze": (lambda x: x.squeeze(), [((2, 1, 5),), ((4, 1, 6),)]),
    "repeat": (lambda x: x.repeat(2, x.shape[0]), [((2, 3),), ((4, 5),)]),
    "tile and flip": (lambda x: x.tile(3).flip(0, 1), [((2, 3),), ((4, 5),)]),
    "roll": (lambda x: x.roll(1, 0), [((4, 3),), ((6, 5),)]),
    "half": (lambda x: x[: x.shape[0] // 2], [((4, 3),), ((7, 3),)]),
    "both ends": (lambda x: x[1:-1, ::2] + x[2:, ::2], [((5, 6),), ((9, 7),)]),
    "the first few": (lambda x: x[:3], [((5,),), ((9,),)]),
    "the last": (lambda x: x[-1] + x[0], [((5, 2),), ((9, 3),)]),
    "narrow and select": (lambda x: x.narrow(0, 1, x.shape[0] - 2).select(1, -1), [((5, 2),), ((9, 3),)]),
    "split": (lambda x: x.split(2)[1], [((4, 3),), ((4, 7),)]),
    "chunk": (lambda x: graphc.cat(x.chunk(3)[::-1]), [((7, 2),), ((8, 3),), ((13, 2),)]),
    "split in halves": (lambda x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :], [((3, 4),), ((5, 8),)]),
    "cat": (lambda x, y: graphc.cat([x, y, x], 0), [((2, 3), (4, 3)), ((5, 6), (7, 6))]),
    "stack": (lambda x, y: graphc.stack([x, y], 1), [((2, 3), (2, 3)), ((5, 6), (5, 6))]),
    "pad": (lambda x: F.pad(x, (1, 2)), [((2, 3),), ((5, 6),)]),
    "pad to a multiple": (lambda x: F.pad(x, (0, (4 - x.shape[0] % 4) % 4)), [((5,),), ((7,),)]),
    "unfold": (lambda x: x.unfold(1, 3, 2), [((2, 8),), ((3, 11),)]),
    "im2col": (lambda x: F.unfold(x, 3, padding=1), [((2, 3, 5, 6),), ((3, 3, 7, 5),)]),
    "einsum": (lambda x, y: graphc.einsum("bij,bjk->bik", x, y), [((2, 3, 4), (2, 4, 5)), ((3, 2, 6), (3, 6, 7))]),
    "einsum, an outer product": (lambda x, y: graphc.einsum("i,j->ji", x, y), [((3,), (4,)), ((5,), (7,))]),
    "matmul": (lambda x, y: x @ y @ y.mT, [((2, 3, 4), (4, 5)), ((3, 2, 6), (6, 7))]),
    "bmm": (lambda x, y: graphc.bmm(x, y), [((2, 3, 4), (2, 4, 5)), ((3, 2, 6), (3, 6, 7))]),
    "mean": (lambda x: x.mean() + x.mean(0).sum() + x.mean((0, 1)), [((3, 4),), ((5, 7),)]),
    "var and std": (lambda x: x.var(0) + x.std() + x.var(unbiased=False), [((3, 4),), ((5, 7),)]),
    "norms": (lambda x: x.norm() + F.normalize(x, dim=0).sum(), [((3, 4),), ((5, 7),)]),
    "by the number of elements": (lambda x: x.sum() / x.numel() * x.shape[0] ** 0.5, [((3, 4),), ((5, 7),)]),
    "an average by hand": (lambda x: x.sum(0) * (1.0 / x.shape[0]) + (x.shape[0] - 1) / x.shape[1], [((3, 4),), ((5, 7),)]),
    "arange": (lambda x: x + graphc.arange(x.shape[0], dtype=graphc.float32), [((3,),), ((5,),)]),
    "arange with steps": (lambda x: graphc.arange(1, 2 * x.shape[0] + 1, 2) * x, [((3,),), ((5,),)]),
    "linspace": (lambda x: graphc.linspace(0, 1, x.shape[0]) * x, [((3,),), ((5,),)]),
    "zeros": (lambda x: graphc.zeros(x.shape[0], 3) + graphc.ones(3, x.shape[0]).T + graphc.full((x.shape[0], 1), x.shape[0]),
              [((3,),), ((5,),)]),
    "eye": (lambda x: graphc.eye(x.shape[0]) @ x, [((3, 2),), ((5, 4),)]),
    "tril": (lambda x: x.tril() + graphc.tril(graphc.ones(x.shape[0], x.shape[0])), [((3, 3),), ((5, 5),)]),
    "diagonal": (lambda x: x.diagonal(1) + graphc.diag(x)[:-1], [((3, 3),), ((5, 5),)]),
    "masked fill": (lambda x: x.masked_fill(graphc.ones_like(x).triu(1).bool(), 0.0), [((3, 4),), ((5, 7),)]),
    "where": (lambda x: graphc.where(graphc.arange(x.shape[1]) < x.shape[1] // 2, x, -x), [((3, 4),), ((5, 7),)]),
    "cumsum": (lambda x: x.cumsum(0) + x.cumsum(1), [((3, 4),), ((5, 7),)]),
    "sort": (lambda x: x.sort(0).values + x.argsort(1), [((3, 4),), ((5, 7),)]),
    "topk": (lambda x: x.topk(2, 0).values, [((3, 4),), ((5, 7),)]),
    "amax and argmax": (lambda x: x.amax(0) + x.argmax(0), [((3, 4),), ((5, 7),)]),
    "gather": (lambda x: x.gather(0, graphc.zeros(1, x.shape[1], dtype=graphc.int64)), [((3, 4),), ((5, 7),)]),
    "index_select": (lambda x: x[graphc.arange(x.shape[0] - 1, -1, -1)] if False else x[graphc.arange(x.shape[0] // 2)],
                     [((4, 4),), ((7, 7),)]),
    "one hot": (lambda x: F.one_hot(x.argmax(1), 9).float(), [((4, 9),), ((7, 9),)]),
    "softmax": (lambda x: x.softmax(0) + x.log_softmax(1), [((3, 4),), ((5, 7),)]),
    "cross entropy": (lambda x: F.cross_entropy(x, x.argmax(1)), [((3, 4),), ((5, 7),)]),
    "losses": (lambda x, y: F.mse_loss(x, y) + F.l1_loss(x, y) + F.huber_loss(x, y, reduction="sum"),
               [((3, 4), (3, 4)), ((5, 7), (5, 7))]),
    "conv1d": (lambda x, w: F.conv1d(x, w, stride=2, padding=1), [((2, 3, 8), (4, 3, 3)), ((3, 3, 11), (4, 3, 3))]),
    "conv2d, dilated": (lambda x, w: F.conv2d(x, w, dilation=2), [((2, 3, 8, 9), (4, 3, 3, 3)), ((3, 3, 11, 7), (4, 3, 3, 3))]),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2),
                         [((2, 3, 4, 5), (3, 4, 3, 3)), ((3, 3, 6, 4), (3, 4, 3, 3))]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), [((2, 3, 8, 9),), ((3, 2, 7, 12),)]),
    "max_pool2d, rounded up": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), [((2, 3, 8, 9),), ((3, 2, 7, 12),)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), [((2, 3, 8, 9),), ((3, 2, 7, 12),)]),
    "global pooling": (lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1),
                       [((2, 3, 8, 9),), ((3, 2, 7, 12),)]),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2), [((2, 3, 4, 5),), ((3, 2, 6, 7),)]),
    "interpolate by a half": (lambda x: F.interpolate(x, scale_factor=0.5), [((2, 3, 4, 6),), ((3, 2, 6, 9),)]),
    "interpolate, blended": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [((2, 3, 4, 5),), ((3, 2, 6, 7),)]),
    "interpolate by three": (lambda x: F.interpolate(x, scale_factor=3.0), [((2, 3, 4, 5),), ((3, 2, 6, 7),)]),
    "interpolate, corners aligned": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
                                     [((2, 3, 4, 5),), ((3, 2, 6, 7),)]),
    "interpolate to a size, blended": (lambda x, y: F.interpolate(x, size=y.shape[2:], mode="bilinear"),
                                       [((2, 3, 4, 5), (2, 3, 8, 9)), ((3, 2, 6, 7), (3, 2, 5, 4))]),
    "interpolate to a size": (lambda x, y: F.interpolate(x, size=y.shape[2:]),
                              [((2, 3, 4, 5), (2, 3, 8, 9)), ((3, 2, 6, 7), (3, 2, 5, 4))]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [((2, 4, 3, 5),), ((3, 8, 2, 6),)]),
    "layer_norm": (lambda x: F.layer_norm(x, x.shape[-1:]), [((3, 4),), ((5, 7),)]),
    "group_norm": (lambda x: F.group_norm(x, 2), [((3, 4, 5),), ((5, 6, 7),)]),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), [((3, 4, 5),), ((5, 6, 7),)]),
    "glu": (lambda x: F.glu(x), [((3, 4),), ((5, 8),)]),
    "attention": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), [((2, 2, 5, 4),), ((3, 4, 7, 4),)]),
    "attention by hand": (
        lambda q: ((q @ q.mT) / q.shape[-1] ** 0.5 + graphc.full((q.shape[1], q.shape[1]), -9.0).triu(1)).softmax(-1) @ q,
        [((2, 5, 4),), ((3, 7, 6),)]),
    "meshgrid": (lambda x: graphc.meshgrid(graphc.arange(x.shape[0]), graphc.arange(x.shape[1]), indexing="ij")[0] + x,
                 [((2, 5),), ((3, 7),)]),
    "outer": (lambda x, y: graphc.outer(x, y), [((3,), (4,)), ((5,), (7,))]),
    "cdist": (lambda x, y: graphc.cdist(x, y), [((3, 2), (4, 2)), ((5, 3), (7, 3))]),
    "fft": (lambda x: graphc.fft.rfft(x).abs(), [((2, 6),), ((3, 8),)]),
    "diff": (lambda x: x.diff(dim=0), [((4, 6),), ((5, 8),)]),
    "scatter_add": (lambda x: graphc.zeros_like(x).scatter_add(0, graphc.zeros(x.shape, dtype=graphc.int64), x),
                    [((4, 6),), ((5, 8),)]),
    "vmap": (lambda x: graphc.vmap(lambda row: row.softmax(0) * row.shape[0])(x), [((4, 6),), ((5, 8),)]),
    "clamp and sign": (lambda x: x.clamp(-1, 1) * x.sign() + x.abs().sqrt(), [((4, 6),), ((5, 8),)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_graph_stands_for_other_sizes(name: str) -> None:
    function, shapes = CASES[name]
    compiled = graphc.compile(function, dynamic=True, backend="reference")
    rng = np.random.default_rng(0)
    for given in shapes:
        arguments = [graphc.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in given]
        found, expected = compiled(*arguments), function(*arguments)
        assert found.shape == expected.shape and found.dtype is expected.dtype
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len(compiled._tracings.all) == 1 and not compiled._sizes.refusals(), compiled.explain()


@pytest.mark.parametrize("name", [name for name, (_, shapes) in CASES.items() if len(shapes[0]) == 1])
def test_so_do_its_derivatives(name: str) -> None:
    function, shapes = CASES[name]
    compiled = graphc.compile(function, dynamic=True, backend="reference")
    rng = np.random.default_rng(0)
    for (shape,) in shapes:
        x = graphc.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
        found, expected = compiled(x), function(x)
        assert found.requires_grad == expected.requires_grad
        if expected.requires_grad:
            (gradient,) = graphc.autograd.grad((found**2).sum(), x)
            (wanted,) = graphc.autograd.grad((expected**2).sum(), x)
            np.testing.assert_allclose(gradient.numpy(), wanted.numpy(), rtol=1e-3, atol=1e-4)
    assert ": 1 graph" in repr(compiled), compiled.explain()


class Decoder(nn.Module):
    """A small language model with positions and a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(32, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Any) -> Any:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.layer(self.tokens(tokens) + self.positions(graphc.arange(length)), src_mask=mask))


def test_training_a_decoder_on_sequences_of_all_lengths() -> None:
    def run(compiled: bool) -> tuple[list[float], Any]:
        graphc.manual_seed(0)
        model = Decoder()
        optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)

        def step(tokens: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            return loss

        function = graphc.compile(step) if compiled else step
        batches = [graphc.randint(0, 11, (n, t)) for n, t in ((4, 9), (4, 6), (3, 12), (2, 9), (5, 7))]
        return [function(batch).item() for batch in batches], function

    losses, compiled = run(True)
    np.testing.assert_allclose(losses, run(False)[0], rtol=1e-4)
    assert len(compiled._tracings.all) == 3 and not compiled._sizes.refusals(), compiled.explain()
