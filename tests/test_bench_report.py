"""The HTML report of `graphc bench --html`: what it says, and how it looks in a browser."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graphc.benchmark.machine import Limits
from graphc.benchmark.plots import Bar, Line, Scale, bars, lines
from graphc.benchmark.report import page
from graphc.benchmark.results import Case, Comparison, Outcome, Part
from graphc.benchmark.sides import SIDES

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000")  # fmt: skip


def outcome(side: str, compiles: bool, seconds: float) -> Outcome:
    made = Outcome(side, "timed", rounds=[[seconds, 1.02 * seconds], [0.98 * seconds] * 2] * 4, compiles=compiles,
                   first_cold=[3.0, seconds, seconds], base=10**8, peak=10**8 + int(1e9 * seconds))  # fmt: skip
    if compiles:
        made.first_warm, made.peak_compiling = [0.2, seconds, seconds], 3 * 10**8
    if side.startswith("graphc"):
        made.parts = [Part(f"a part of a long name {i}", "op", 2, seconds / 2**i, 1e6) for i in range(1, 15)]
    return made


def comparison() -> Comparison:
    speeds = (1.0, 4.0, 0.1, 2.5, 30.0, 0.9)
    cases = [
        Case(name, "what <it> is", size, "elements",
             {side.name: outcome(side.name, side.compiled, 1e-8 * size / speed) for side, speed in zip(SIDES, speeds)},
             2.0 * size, 8.0 * size)
        for name, size in (("one & only", 1 << 20), ("alone", 16), *(("grows", 4**e) for e in range(5, 12)))
    ]  # fmt: skip
    cases[0].outcomes["jax"] = Outcome("jax", "wrong", "in call 1, result 1 is off by 0.5, of <numbers> up to 1")
    cases[1].outcomes["graphc-eager"].unchecked = True
    limits = Limits(2, 3e11, {1 << 15: 2e11, 1 << 28: 6e10})
    absent = {"onnxruntime": "not installed: pip install onnxruntime"}
    for case in cases:
        case.outcomes["onnxruntime"] = Outcome("onnxruntime", "absent", absent["onnxruntime"])
    sides = {side.name: "1.0" for side in SIDES if side.name not in absent}
    return Comparison({"CPU": "a <CPU>"}, 2, [0, 1], 8, 0.1, sides, absent, limits, cases)


class Outline(html.parser.HTMLParser):
    """The tags of a page, and that they close in the order in which they open."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_says_everything() -> None:
    text = page(comparison())
    outline = Outline(text)
    assert not [attrs for _, attrs in outline.tags if attrs.keys() & {"src", "href", "srcset"}]
    assert not re.search(r"https?://|@import|url\(", text)
    for heading in ("Speed", "Time by size", "Compile time", "Memory", "Where the time goes", "What was not compared"):
        assert f"<h2>{heading}</h2>" in text
    for said in ("one &amp; only", "off by 0.5, of &lt;numbers&gt; up to 1", "not installed: pip install onnxruntime",
                 "a &lt;CPU&gt;", "300 GFLOP/s", "returns nothing that could be compared", "4 more"):  # fmt: skip
        assert said in text
    assert "<it>" not in text and "<CPU>" not in text


def test_each_plot_has_a_title_a_description_and_a_table() -> None:
    text = page(comparison())
    plots = [attrs for tag, attrs in Outline(text).tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(plots) == 4 + 3  # speed, size, compile time, memory; and the parts of three workloads
    for plot in plots:
        for name in str(plot["aria-labelledby"]).split():
            assert text.count(f'id="{name}"') == 1
    assert text.count('<div class="pair">') == text.count("<figure") == len(plots)


def test_pages_of_little() -> None:
    empty = Comparison({}, 1, [], 9, 0.1, {}, {})
    assert "<h2>Speed</h2>" not in page(empty)
    empty.interrupted = True
    assert "Interrupted" in page(empty)
    failed = {"graphc-eager": Outcome("graphc-eager", "failed", "no"), "jax": Outcome("jax")}
    Outline(page(Comparison({}, 1, [], 9, 0.1, dict.fromkeys(failed), {}, cases=[Case("f", "", None, "", failed)])))
    alone = {"graphc-eager": Outcome("graphc-eager", "timed", rounds=[[1e-3]])}
    Outline(page(Comparison({}, 1, [], 1, 0.1, {"graphc-eager": "1"}, {}, cases=[Case("f", "", None, "", alone)])))


def test_axes() -> None:
    speed = Scale([0.5, 8.0], logarithmic=True, origin=1.0)
    assert (speed.part(0.5), speed.origin, speed.part(8.0)) == (0.0, pytest.approx(0.25), 1.0)
    assert [tick for tick in speed.ticks() if tick != 1.0] == pytest.approx([0.5, 2.0, 5.0])
    linear = Scale([3.0, 170.0], logarithmic=False, origin=0.0)
    assert linear.ticks() == [0, 100] and linear.part(85.0) == 0.5
    for numbers in ([2.0], [0.0], []):
        for logarithmic in (True, False):
            found = Scale(numbers, logarithmic=logarithmic)
            assert all(0 <= found.part(number) <= 1 for number in (*numbers, 2.0, 0.0))
            assert found.ticks()


def test_plots_of_odd_numbers_are_well_formed() -> None:
    Outline(bars("t", "d", [("", [Bar("jax", "<a>", 0.0, "0 s", 0.0, 0.0)]), ("b", [])], str, logarithmic=True))
    Outline(bars("t", "d", [("one", [Bar("jax", "a", 5.0, "5")])], str, logarithmic=False, origin=0.0))
    Outline(lines("t", "d", [Line("jax", "j", [(1.0, 1e-9)]), Line("limit", "l", [])], "size", str, str))


LOOK = """
<script>
const found = {errors: []};
window.addEventListener("error", (event) => found.errors.push(event.message));
window.addEventListener("load", () => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
    const x = part / 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
  const light = (colour) => { const [r, g, b] = numbers(colour); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const contrast = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  const ground = getComputedStyle(document.body).backgroundColor;
  const texts = [...document.querySelectorAll("svg text")];
  found.width = window.innerWidth;
  found.pageWidth = document.documentElement.scrollWidth;
  found.dark = light(ground) < 0.2;
  found.outside = texts.filter((text) => { const box = text.getBoundingClientRect();
    return box.left < -1 || box.right > window.innerWidth + 1; }).map((text) => text.textContent);
  found.smallest = Math.min(...texts.map((text) => parseFloat(getComputedStyle(text).fontSize)));
  found.textContrast = Math.min(...texts.map((text) => contrast(getComputedStyle(text).fill, ground)));
  found.markContrast = Math.min(...[...document.querySelectorAll("svg g.mark:not(.faint)")].map(
    (mark) => contrast(getComputedStyle(mark).fill, ground)));
  found.overlaps = 0;
  for (const plot of document.querySelectorAll("svg.plot")) {
    const ticks = [...plot.querySelectorAll(":scope > .tick")].map((tick) => tick.getBoundingClientRect());
    for (const a of ticks) for (const b of ticks)
      if (a !== b && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) found.overlaps += 1;
  }
  const mark = document.querySelector("[data-tip]");
  mark.dispatchEvent(new PointerEvent("pointermove", {clientX: window.innerWidth - 2, clientY: 300}));
  const tip = document.getElementById("tip");
  found.tip = tip.textContent;
  found.tipFits = !tip.hidden && tip.getBoundingClientRect().right <= window.innerWidth;
  mark.dispatchEvent(new PointerEvent("pointerleave"));
  found.tipGone = tip.hidden;
  const button = document.querySelector('.legend button[value="jax"]');
  button.click();
  const opacity = (side) => document.querySelector(`svg .mark.s-${side}`).style.opacity;
  found.chosen = [button.getAttribute("aria-pressed"), opacity("jax"), opacity("torch-eager")];
  button.click();
  found.again = [button.getAttribute("aria-pressed"), opacity("jax"), opacity("torch-eager")];
  document.body.insertAdjacentHTML("beforeend", "<pre id=found></pre>");
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


def look(tmp_path: Path, width: int, dark: bool) -> dict[str, Any]:
    """What a browser of that width sees."""
    assert BROWSER is not None
    file = tmp_path / "report.html"
    file.write_text(page(comparison()).replace("</head>", f"{LOOK}</head>"), encoding="utf-8")
    command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
               f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    seen = re.search(r'<pre id="found">(.*)</pre>', done.stdout)
    assert seen is not None, done.stdout[-2000:] + done.stderr
    found: dict[str, Any] = json.loads(html.unescape(seen[1]))
    return found


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_is_legible_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    found = look(tmp_path, width, dark)
    assert found["errors"] == []
    assert found["dark"] is dark
    assert found["pageWidth"] <= found["width"], "nothing but tables scrolls sideways"
    assert found["outside"] == []
    assert found["overlaps"] == 0
    assert found["smallest"] >= 12
    assert found["textContrast"] >= 4.5 and found["markContrast"] >= 3, "by the Web Content Accessibility Guidelines"
    assert "graphc eager" in found["tip"] and found["tipFits"] and found["tipGone"]
    assert found["chosen"] == ["true", "", "0.15"] and found["again"] == ["false", "", ""]
