"""`graphc view`: the page of a graph, its parts, and what a browser makes of it."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, reason
from typer.testing import CliRunner

import graphc
from graphc import nn
from graphc.cli import app
from graphc.graph_view import make_page
from graphc.graph_view.layout import _apart, layered
from graphc.graph_view.stages import stages
from graphc.parse import parse_graph

needs_browser = pytest.mark.skipif(reason() is not None, reason=str(reason()))


def data_of(html: str) -> Any:
    packed = re.search(r'<script type="application/octet-stream" id="data">([^<]*)</script>', html)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def attention(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
    return (graphc.relu(x @ w) * 1.0).softmax(1)


INPUTS = graphc.ones(6, 4), graphc.ones(4, 5)


# The layout


@pytest.mark.parametrize("seed", range(20))
def test_layouts_keep_their_rules(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([0, 1, 2, 30, 200])
    operands = [[rng.randrange(i) for _ in range(rng.choice([0, 1, 1, 2, 3]))] if i else [] for i in range(count)]
    layout = layered(operands)
    assert len(layout.layers) == len(layout.columns) == count
    for node, own in enumerate(operands):
        assert all(layout.layers[operand] < layout.layers[node] for operand in own)
    rows: dict[int, list[float]] = {}
    for layer, column in zip(layout.layers, layout.columns, strict=True):
        rows.setdefault(layer, []).append(column)
    for columns in map(sorted, rows.values()):
        assert all(b - a > 1 - 1e-9 for a, b in pairwise(columns))
    assert not count or (min(layout.layers) == 0 and min(layout.columns) == 0)


def test_columns_are_as_near_to_their_wishes_as_can_be() -> None:
    assert _apart([]) == [] and _apart([3.0]) == [3.0]
    assert _apart([0, 5, 9]) == [0, 5, 9]
    assert _apart([2, 2, 2]) == [1, 2, 3]
    assert _apart([0, 0, 10, 10]) == [-0.5, 0.5, 9.5, 10.5]


def test_inputs_stand_beside_their_users() -> None:
    chain = [[], [0], [1], [2], [], [3, 4]]  # the input 4 is used at the end
    assert layered(chain).layers == [0, 1, 2, 3, 3, 4]


# The stages


def test_stages_say_what_passes_change() -> None:
    graph = parse_graph("""graph @f(%x: float32[4]) -> float32[4] {
      %0 = neg(%x) : float32[4]
      %1 = neg(%0) : float32[4]
      %2 = tanh(%1) : float32[4]
      %3 = tanh(%1) : float32[4]
      %4 = add(%2, %3) : float32[4]
      return %4
    }""")
    found = stages(graph)
    assert [stage.name for stage in found] == ["traced", "simplify", "cse"]
    assert [len(stage.graph.nodes) for stage in found] == [5, 3, 2]
    assert {new.op.name for new in found[1].same} == {"tanh", "add"}
    document = data_of(make_page(graph, code=False).html)
    ops = [[document["words"][op] for op in stage["op"]] for stage in document["stages"]]
    gone, made = ([ops[i][k] for k, change in enumerate(stage["change"]) if change & flag]
                  for i, stage, flag in ((0, document["stages"][0], 1), (2, document["stages"][2], 2)))  # fmt: skip
    assert gone == ["neg", "neg"] and made == []


def test_what_the_page_has_of_a_graph() -> None:
    page = graphc.view_graph(attention, *INPUTS)
    document = data_of(page.html)
    assert page.stages[0] == "traced" and "simplify" in page.stages and page.nodes == document["stages"][0]["count"]
    last = document["stages"][-1]
    words = document["words"]
    ops = [words[op] for op in last["op"]]
    assert "contract" in ops and "constant" not in ops
    for key in ("names", "type", "attributes", "line", "kernel", "change", "flops", "operands", "layer", "column"):
        assert len(last[key]) == len(ops)
    kernels = document["kernels"]
    assert len(kernels) == page.kernels > 0
    for op, kernel, line in zip(ops, last["kernel"], last["line"], strict=True):
        if op in ("input", "output"):
            assert kernel == line == -1
        else:
            assert 0 <= kernel < len(kernels)
            assert "test_graph_view.py" in words[document["lines"][line][0]]
    assert "return (graphc.relu(x @ w) * 1.0).softmax(1)" in words[document["lines"][0][2]]
    for kernel in kernels:
        assert kernel["text"] and "define" in kernel["ir"] and kernel["assembly"] and kernel["title"]
    assert not re.search(r"\b(src|href)=|https?:|@import|url\(", page.html)  # nothing is fetched


def test_without_code() -> None:
    document = data_of(graphc.view_graph(attention, *INPUTS, code=False).html)
    assert {kernel["assembly"] for kernel in document["kernels"]} == {kernel["ir"] for kernel in document["kernels"]} == {""}
    assert all(kernel["text"] for kernel in document["kernels"])


def test_names_cannot_break_out() -> None:
    graph = parse_graph('graph @f(%"</script><b>": float32[2]) -> float32[2] {\n  return %"</script><b>"\n}')
    page = make_page(graph, title='</title><script>alert("x")</script>', code=False)
    assert "</script><b>" not in page.html and "alert" in page.html and "<script>alert" not in page.html
    assert page.kernels == 1  # the input is copied


def test_training_steps_modules_loops_and_ops_left_to_python() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]

    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = graphc.scan(lambda c, v: (c + model(v).sum(), c), graphc.zeros(()), x)[0] + x.sort(0).values.sum()
        loss.backward()
        optimizer.step()
        return loss

    compiled = graphc.compile(step)
    page = graphc.view_graph(compiled, graphc.ones(2, 3))
    kinds = {kernel["kind"] for kernel in data_of(page.html)["kernels"]}
    assert {"control", "call"} <= kinds
    assert all(bool((a == b).all()) for a, b in zip(before, model.parameters(), strict=True))
    assert graphc.view_graph(graphc.compile(model), graphc.ones(2, 3), code=False).kernels >= 1
    with pytest.raises(TypeError, match="cannot be called"):
        graphc.view_graph(3)  # type: ignore[arg-type]


# The command


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batch = graphc.Dim("batch", min=2, max=512)
    program = graphc.export(nn.Linear(4, 2).eval(), (graphc.ones(3, 4),), dynamic_shapes={"input": {0: batch}})
    graphc.save(program, "model.gcz")
    run = CliRunner().invoke
    result = run(app, ["view", "model.gcz", "--no-code", "--sizes", "batch=7"])
    assert result.exit_code == 0 and "model.html" in result.output and "kernel" in result.output
    document = data_of(Path("model.html").read_text(encoding="utf-8"))
    assert document["title"] == "model.gcz: forward" and "float32[7, 2]" in document["words"]
    Path("script.py").write_text("import graphc\ndef f(x):\n    return x.exp() + 1\ndef inputs(): return graphc.ones(3),\n")
    result = run(app, ["view", "script.py:f", "-o", "out.html"])
    assert result.exit_code == 0 and data_of(Path("out.html").read_text(encoding="utf-8"))["title"] == "f"
    for wrong, message in ((["model.gcz", "--entry", "other"], "has no entry 'other'"),
                           (["model.gcz", "--sizes", "n=3"], "has no size 'n'"),
                           (["model.gcz", "--sizes", "batch"], "names and numbers"),
                           (["script.py:f", "--sizes", "n=3"], "--sizes is for files")):  # fmt: skip
        assert message in str(run(app, ["view", *wrong]).exception)
    Path("script.html").write_text("notes of mine")
    assert "script.html is there" in str(run(app, ["view", "script.py:f"]).exception)
    assert run(app, ["view", "script.py:f", "-o", "script.html"]).exit_code == 0
    assert run(app, ["view", "script.py:f"]).exit_code == 0  # a page takes the place of an older one


# In a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "attention.html"
    graphc.view_graph(attention, *INPUTS, path=path)
    return path


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser(1280, 800) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser, page: Path) -> Browser:
    window.resize(1280, 800)
    window.open(page)
    window.messages()
    return window


def centre(browser: Browser, pane: int, op: str) -> list[float]:
    """Where a node is on the screen."""
    return browser.run(
        """const pane = panes[arguments[0]], s = pane.stage, node = s.op.findIndex((o) => s.words[o] === arguments[1]);
        pane.reveal(node); const box = pane.canvas.getBoundingClientRect();
        return [box.x + (s.x[node] + 75) * pane.scale + pane.dx, box.y + (s.y[node] + 19) * pane.scale + pane.dy];""",
        pane, op)  # fmt: skip


def shown(browser: Browser) -> str:
    return browser.run("return document.getElementById('body').innerText")


@needs_browser
def test_both_graphs_are_drawn(browser: Browser) -> None:
    browser.settled()
    colours = browser.run("""return panes.map((p) => {
        const data = p.context.getImageData(0, 0, p.canvas.width, p.canvas.height).data, seen = new Set();
        for (let i = 0; i < data.length; i += 4 * 7) seen.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
        return seen.size; });""")
    assert min(colours) > 5
    assert browser.run("return [...document.querySelectorAll('.pane h2')].map((h) => h.innerText)")[0].startswith("traced")
    assert browser.messages() == []


@needs_browser
def test_click_and_hover(browser: Browser) -> None:
    x, y = centre(browser, 1, "contract")
    browser.hover(x, y)
    tip = browser.run("const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.innerText")
    assert "contract" in tip and "float32[6, 5]" in tip and "test_graph_view.py" in tip and "kernel k" in tip
    browser.click(x, y)
    text = shown(browser)
    assert text.startswith("contract") and "operands" in text and "attributes" in text and "softmax(1)" in text
    for tab, part in (("kernel", "acc"), ("ir", "define"), ("assembly", ".text")):
        browser.run("document.getElementById(arguments[0]).click()", f"tab-{tab}")
        assert part in shown(browser)
    browser.run("document.getElementById('tab-kernels').click()")
    assert "kernels, in the order" in shown(browser) or "kernel" in shown(browser)
    assert browser.messages() == []


@needs_browser
def test_keys(browser: Browser) -> None:
    browser.run("panes[1].canvas.focus()")
    browser.keys("ArrowDown")
    first = shown(browser)
    browser.keys("ArrowDown", "ArrowDown")
    assert shown(browser) != first
    browser.keys("ArrowUp", "+", "+", "-", "0")
    assert browser.run("return document.getElementById('said').textContent")
    browser.keys("Escape")
    assert shown(browser).startswith("Select a node")
    browser.keys("]")
    assert browser.run("return state.step") == 1
    browser.keys("[", "t")
    assert browser.run("return [state.step, document.documentElement.dataset.theme]") == [0, "dark"]
    browser.keys("?")
    assert browser.run("return document.getElementById('keys').open")
    browser.keys("Escape", "/")
    assert browser.run("return document.activeElement.id") == "search"
    assert browser.messages() == []


@needs_browser
def test_search(browser: Browser) -> None:
    browser.run("document.getElementById('search').focus()")
    browser.keys(*"relu")
    assert "found" in browser.run("return document.getElementById('matches').textContent")
    browser.keys("Enter")
    assert shown(browser).startswith("relu")
    browser.run("const s = document.getElementById('search'); s.value = 'no such thing'; s.oninput()")
    assert browser.run("return document.getElementById('matches').textContent") == "none"


@needs_browser
def test_passes_side_by_side(browser: Browser) -> None:
    names = browser.run("return state.data.stages.map((s) => s.name)")
    for step in range(1, len(names)):
        browser.run("document.getElementById('next').click()")
        headings = browser.run("return [...document.querySelectorAll('.pane h2')].map((h) => h.firstChild.textContent)")
        assert headings == names[step - 1 : step + 1]
    assert browser.run("return document.getElementById('next').disabled")
    assert browser.messages() == []


@needs_browser
@pytest.mark.parametrize("width, height", [(390, 844), (844, 390), (1440, 900)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_themes(browser: Browser, page: Path, width: int, height: int, scheme: str) -> None:
    browser.resize(width, height)
    browser.prefer(scheme)
    browser.open(page)
    browser.settled()
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("return document.documentElement.dataset.theme") == scheme
    visible = browser.run("return panes.filter((p) => p.canvas.getBoundingClientRect().width > 100).length")
    assert visible == (2 if width > 900 else 1)
    if visible == 1:
        browser.run("document.getElementById('side').click()")
        assert browser.run("return panes[0].canvas.getBoundingClientRect().height") > 60
    # of what is written, nothing is cut off but titles, and text stands out from what is behind it
    assert browser.run("""const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const lum = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
        const style = getComputedStyle(document.querySelector('aside')), a = lum(style.color), b = lum(style.backgroundColor);
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)""") > 7
    assert browser.messages() == []


@needs_browser
def test_five_thousand_nodes(window: Browser, tmp_path: Path) -> None:
    ops = "tanh", "neg", "exp"
    lines = [f"%{i} = {ops[i % 3]}(%{i - 1 if i % 5 else max(0, i - 9)}) : float32[8]" for i in range(1, 5000)]
    text = "\n".join(["graph @f(%x: float32[8]) -> float32[8] {", "%0 = tanh(%x) : float32[8]", *lines, "return %4999", "}"])
    graph = parse_graph(text)
    path = tmp_path / "large.html"
    page = make_page(graph, code=False)
    assert page.nodes == 5000
    path.write_text(page.html, encoding="utf-8")
    window.resize(1280, 800)
    window.open(path)
    assert window.run("return panes[0].stage.size") >= 5000
    # where there is text, only what is on the screen is drawn
    drawn = """const c = panes[0].context, own = c.roundRect; let count = 0;
               c.roundRect = (...a) => { count++; own.apply(c, a); };
               panes[0].paint(); c.roundRect = own; return count"""
    assert 0 < window.run(drawn) < 500
    window.run("byId('search').value = 'exp'; search(); following(1)")
    assert 0 < window.run(drawn) < 500
    window.run("byId('fit').click()")
    window.settled()
    assert window.run("return panes.every((p) => p.stage.bottom * p.scale < p.height && p.stage.right * p.scale < p.width)")
    assert window.messages() == []
