"""Images read at places between their pixels become one operator of ONNX, and so do grids of such places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_runs import BATCH, agrees, onnx, operators

import graphc
from graphc import nn
from graphc.errors import GraphcError
from graphc.onnx_format import read_onnx

F = nn.functional
IMAGE, GRID = (2, 3, 5, 4), (2, 6, 7, 2)
VOLUME, PLACES = (2, 3, 3, 5, 4), (2, 2, 3, 4, 3)


def sampling(mode: str, padding: str = "zeros", aligned: bool = False) -> Callable[..., graphc.Tensor]:
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, aligned)


def arguments(image: tuple[int, ...] = IMAGE, grid: tuple[int, ...] = GRID) -> tuple[graphc.Tensor, graphc.Tensor]:
    """With many places outside of the image."""
    return graphc.randn(*image), graphc.randn(*grid) * 1.5


def goes_round(function: Callable[..., graphc.Tensor], args: tuple[graphc.Tensor, ...], model: Any, name: str) -> None:
    """What is read of the model computes the same, and is written as that operator again."""
    back = read_onnx(model.SerializeToString(), backend="reference")
    np.testing.assert_allclose(back(*(x.numpy() for x in args))[0], function(*args).numpy(), rtol=2e-4, atol=2e-5)
    assert name in operators(graphc.onnx.export(back.program, opset=20))


@pytest.mark.parametrize("aligned", [False, True], ids=["apart", "aligned"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_images(mode: str, padding: str, aligned: bool) -> None:
    function, args = sampling(mode, padding, aligned), arguments()
    for opset in (18, 20):
        model = agrees(function, args, opset=opset)
        assert operators(model) == ["GridSample"]
        found = {a.name: onnx.helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
        called = mode if opset < 20 else {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        assert found == {"mode": called.encode(), "padding_mode": padding.encode(), "align_corners": int(aligned)}
        goes_round(function, args, model, "GridSample")


@pytest.mark.parametrize("aligned", [False, True], ids=["apart", "aligned"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_volumes(mode: str, padding: str, aligned: bool) -> None:
    function, args = sampling(mode, padding, aligned), arguments(VOLUME, PLACES)
    model = agrees(function, args, opset=20)
    assert operators(model) == ["GridSample"]
    goes_round(function, args, model, "GridSample")
    assert "GridSample" not in operators(agrees(function, args, opset=19))  # of images alone until then


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding, aligned", [("zeros", False), ("zeros", True), ("border", False), ("border", True)])
def test_images_of_any_size(mode: str, padding: str, aligned: bool) -> None:
    sizes = [graphc.Dim(name) for name in ("height", "width", "rows", "columns")]
    dynamic = {0: BATCH, 2: sizes[0], 3: sizes[1]}, {0: BATCH, 1: sizes[2], 2: sizes[3]}
    model = agrees(sampling(mode, padding, aligned), arguments(), arguments((3, 3, 7, 6), (3, 2, 9, 2)), dynamic=dynamic)
    assert operators(model) == ["GridSample"]


def test_images_in_other_forms() -> None:
    x, grid = arguments()
    cases: list[tuple[Callable[..., Any], tuple[graphc.Tensor, ...], list[str]]] = [
        (lambda x, g: F.grid_sample(x.reshape(2, 3, 5, 4), g), (x.flatten(1), grid), ["Reshape", "GridSample"]),
        (lambda x, g: F.grid_sample(x.reshape(6, 1, 5, 4), g.repeat(3, 1, 1, 1)), (x, grid), ["Expand", "GridSample"]),
        (lambda x, g: F.grid_sample(x, g.permute(0, 2, 3, 1)), (x, grid.permute(0, 3, 1, 2)), ["Transpose", "GridSample"]),
        (lambda x, g: F.grid_sample(x, g.flip(1)[:, :1]), (x, grid), ["GridSample"]),
        (lambda x, g: F.grid_sample(x, g.reshape(2, 1, 42, 2)).squeeze(2), (x, grid), ["Reshape", "GridSample"]),
        (lambda x, g: (F.grid_sample(x, g) + 1).relu(), (x, grid), ["GridSample", "Add", "Relu"]),
        (lambda x, g: F.grid_sample(x, g, "bilinear", "border").flatten(2), (x, grid), ["GridSample", "Reshape"]),
        (lambda x, g: F.grid_sample(x, g) + F.grid_sample(x, g, align_corners=True), (x, grid), ["GridSample", "GridSample"]),
        (lambda x, y, g: F.grid_sample(x, graphc.stack([y, g], -1)), (x, grid[..., 0], grid[..., 1]), ["Concat", "GridSample"]),
    ]  # fmt: skip
    for function, args, expected in cases:
        found = operators(agrees(function, args))
        assert [name for name in expected if name not in found] == []
        assert len(found) < 12


@pytest.mark.parametrize("aligned", [False, True], ids=["apart", "aligned"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_what_is_read_is_flattened(mode: str, padding: str, aligned: bool) -> None:
    """Two reshapes become one, so that nothing has the shape of the operator's result."""
    sample = sampling(mode, padding, aligned)
    for flatten in (lambda x, g: sample(x, g).flatten(), lambda x, g: sample(x, g).flatten(1).exp()):
        model = agrees(flatten, arguments(), opset=20)
        assert operators(model)[:2] == ["GridSample", "Reshape"]
        goes_round(flatten, arguments(), model, "GridSample")
    if mode != "bicubic":
        volume = agrees(lambda x, g: sample(x, g).flatten(), arguments(VOLUME, PLACES), opset=20)
        assert operators(volume)[0] == "GridSample" and set(operators(volume)[1:]) == {"Reshape"}


def single_operator(op_type: str, inputs: dict[str, tuple[int, tuple[int, ...]]], **attributes: Any) -> bytes:
    """A model of one operator whose inputs have these element types and shapes."""
    node = onnx.helper.make_node(op_type, list(inputs), ["out"], **attributes)
    taken = [onnx.helper.make_tensor_value_info(name, *of) for name, of in inputs.items()]
    made = onnx.helper.make_tensor_value_info("out", next(iter(inputs.values()))[0], None)
    graph = onnx.helper.make_graph([node], "one", taken, [made])
    return bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]).SerializeToString())


def test_images_in_another_precision_than_their_grid() -> None:
    x, grid = arguments()
    half = onnx.TensorProto.FLOAT16
    read = read_onnx(single_operator("GridSample", {"x": (half, IMAGE), "grid": (onnx.TensorProto.FLOAT, GRID)}, mode="linear"))
    (got,) = read(x.half().numpy(), grid.numpy())
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, F.grid_sample(x.half().float(), grid).numpy(), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 0)), ((2, 3, 5, 4), (2, 6, 2)), ((2, 3, 5, 4), (2, 6, 7, 3))])
def test_sizes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    single = onnx.TensorProto.FLOAT
    with pytest.raises(GraphcError, match="sampling in the mode"):
        read_onnx(single_operator("GridSample", {f"x{i}": (single, shape) for i, shape in enumerate(shapes)}))


def test_single_pixels() -> None:
    for mode in ("bilinear", "nearest", "bicubic"):
        for aligned in (False, True):
            args = arguments((2, 3, 1, 4))
            assert operators(agrees(sampling(mode, "reflection", aligned), args)) == ["GridSample"]


def test_what_only_looks_like_sampling() -> None:
    def by_hand(x: graphc.Tensor, grid: graphc.Tensor, size: float = 5, order: int = 1) -> graphc.Tensor:
        """The nearest elements, with the border around them."""
        rows, columns = (
            graphc.where(p > 0, graphc.where(p < n - 1, p, n - 1.0), 0.0).round().long()
            for p, n in ((((grid[..., order] + 1) * size - 1) / 2, 5), (((grid[..., 1 - order] + 1) * 4 - 1) / 2, 4)))
        place = (rows * 4 + columns).reshape(2, 1, 42).expand(2, 3, 42)
        return x.reshape(2, 3, 20).gather(2, place).reshape(2, 3, 6, 7)

    x, grid = arguments()
    assert operators(agrees(by_hand, (x, grid))) == ["GridSample"]
    others: list[Callable[..., Any]] = [
        lambda x, g: by_hand(x, g, 5.5), lambda x, g: by_hand(x, g, order=0), lambda x, g: by_hand(x, g, 4),
        lambda x, g: F.grid_sample(x.double(), g.double()),
    ]  # fmt: skip
    for function in others:
        assert "GridSample" not in operators(agrees(function, (x, grid), opset=20))


@pytest.mark.parametrize("aligned", [False, True], ids=["apart", "aligned"])
@pytest.mark.parametrize("size", [(2, 3, 5, 4), (2, 3, 1, 7), (2, 1, 2, 3, 4)], ids=str)
def test_affine_grids(size: tuple[int, ...], aligned: bool, tmp_path: Path) -> None:
    n = len(size) - 2
    theta = graphc.randn(2, n, n + 1)

    def function(theta: graphc.Tensor) -> graphc.Tensor:
        return F.affine_grid(theta, (theta.shape[0], *size[1:]), aligned)

    model = agrees(function, (theta,), opset=20)
    if aligned and 1 in size[2:]:  # runtimes do not agree on where one pixel is then
        assert "AffineGrid" not in operators(model)
        return
    assert operators(model) == ["AffineGrid"]
    goes_round(function, (theta,), model, "AffineGrid")
    assert "AffineGrid" not in operators(agrees(function, (theta,), opset=19))  # it came with 20
    graphc.export(function, (theta,)).save(tmp_path / "grid.gcz")
    assert operators(graphc.onnx.export(tmp_path / "grid.gcz", opset=20)) == ["AffineGrid"]
    batches = agrees(function, (theta,), (graphc.randn(3, n, n + 1),), opset=20, dynamic=({0: BATCH},))
    assert sorted(operators(batches)) == ["AffineGrid", "Concat", "Shape"]


def test_grids_that_are_not_even() -> None:
    theta, line = graphc.randn(2, 2, 3), graphc.tensor([-1.0, -0.2, 0.3, 1.0])

    def function(theta: graphc.Tensor) -> graphc.Tensor:
        points = graphc.stack([line[None].expand(4, 4), line[:, None].expand(4, 4), graphc.ones(4, 4)], -1)
        return (points.reshape(1, 16, 3) @ theta.mT).reshape(2, 4, 4, 2)

    assert "AffineGrid" not in operators(agrees(function, (theta,), opset=20))


def test_a_spatial_transformer() -> None:
    class Transformer(nn.Module):
        """Turns an image as a layer says that looks at it."""

        def __init__(self) -> None:
            super().__init__()
            self.where = nn.Linear(60, 6)

        def forward(self, x: graphc.Tensor) -> graphc.Tensor:
            theta = self.where(x.flatten(1)).view(-1, 2, 3)
            return F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)

    layer, x = Transformer().eval(), graphc.randn(2, 3, 5, 4)
    model = agrees(layer, (x,), (graphc.randn(3, 3, 5, 4),), opset=20, dynamic=({0: BATCH},))
    assert [name for name in operators(model) if name not in ("Concat", "Shape")] == [
        "Reshape", "Gemm", "Reshape", "AffineGrid", "GridSample"]
