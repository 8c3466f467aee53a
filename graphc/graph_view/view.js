"use strict";
const WIDTH = 150, HEIGHT = 38, GAP = 26, ROW = 78, LONG = 10, SMALLEST = 0.003;
const byId = (id) => document.getElementById(id);
const state = { data: null, step: 0, picked: null, hits: [], hit: -1, tab: "node", kernel: -1 };
const panes = [];

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => document.documentElement.dataset.theme === "dark";
const kernelColour = (k, strong) => {
  const hue = (k * 137.508) % 360, shade = (k % 3) - 1;
  return isDark() ? `hsl(${hue} 42% ${(strong ? 55 : 27) + 4 * shade}%)` : `hsl(${hue} 68% ${(strong ? 45 : 85) + 5 * shade}%)`;
};
let palette = {};
function readPalette() {
  for (const name of ["ground", "ink", "quiet", "line", "accent", "made", "gone", "node", "edge"]) palette[name] = css("--" + name);
}

// Graphs

const largest = (numbers) => numbers.reduce((a, b) => Math.max(a, b), 0);

class Stage {
  constructor(raw, words) {
    Object.assign(this, raw);
    this.size = raw.op.length;
    this.words = words;
    this.users = Array.from({ length: this.size }, () => []);
    this.operands.forEach((own, node) => { for (const operand of new Set(own)) this.users[operand].push(node); });
    this.x = this.column.map((c) => c * (WIDTH + GAP));
    this.y = this.layer.map((l) => l * ROW);
    this.right = this.size ? largest(this.x) + WIDTH : 0;
    this.bottom = this.size ? largest(this.y) + HEIGHT : 0;
    const layers = this.size ? largest(this.layer) + 1 : 0;
    this.rows = Array.from({ length: layers }, () => []);
    for (let i = 0; i < this.size; i++) this.rows[this.layer[i]].push(i);
    for (const row of this.rows) row.sort((a, b) => this.x[a] - this.x[b]);
    // edges by the first layer that they touch, and the longest of them: what is on the screen is found without a search
    this.edges = Array.from({ length: layers }, () => []);
    this.reach = 0;
    this.operands.forEach((own, node) => {
      for (const operand of new Set(own)) {
        this.edges[this.layer[operand]].push([operand, node]);
        this.reach = Math.max(this.reach, this.layer[node] - this.layer[operand]);
      }
    });
  }
  word(kind, node) { return this.words[this[kind][node]]; }
  nameOf(node) { return this.words[this.names[node]]; }
}

// Drawing

class Pane {
  constructor(section) {
    this.section = section;
    this.canvas = section.querySelector("canvas");
    this.heading = section.querySelector("h2");
    this.context = this.canvas.getContext("2d");
    this.scale = 1; this.dx = 0; this.dy = 0;
    this.stage = null; this.index = -1; this.queued = false; this.pointers = new Map(); this.fitted = false;
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.listen();
  }
  show(index, change) {
    const stage = state.data.stages[index];
    const first = this.index !== index;
    this.index = index; this.stage = stage; this.change = change;
    this.heading.textContent = stage.name;
    const note = document.createElement("small");
    const changed = stage.change.reduce((n, c) => n + (c & change ? 1 : 0), 0);
    note.textContent = `${stage.count} nodes` + (changed ? `, ${changed} ${change === 1 ? "go" : "made"}` : "");
    this.heading.append(note);
    this.canvas.setAttribute("aria-label", `Graph ${change === 1 ? "before" : "after"}: ${stage.name}, ${stage.count} nodes`);
    if (first) { this.fitted = false; this.fit(); } else this.draw();
  }
  resize() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * ratio); this.canvas.height = Math.round(box.height * ratio);
    this.width = box.width; this.height = box.height; this.ratio = ratio;
    if (this.stage && !this.fitted) this.fit(); else this.draw();
  }
  fit() {
    if (!this.width || !this.stage) return;
    const margin = 24, top = 44;
    const scale = Math.min((this.width - 2 * margin) / (this.stage.right || 1), (this.height - top - margin) / (this.stage.bottom || 1));
    // what is far too large begins legible, at what the pass changes, or at the first op
    const large = scale < 0.3 && !this.fitted;
    this.scale = large ? 0.6 : Math.min(1.1, Math.max(scale, SMALLEST));
    this.dx = (this.width - this.stage.right * this.scale) / 2;
    this.dy = top;
    if (large) {
      const changed = this.stage.change.findIndex((change) => change & this.change);
      const first = Math.max(0, changed >= 0 ? changed : this.stage.line.findIndex((line) => line >= 0));
      this.dx = this.width / 2 - (this.stage.x[first] + WIDTH / 2) * this.scale;
      this.dy = top - Math.max(0, this.stage.y[first] - 2 * ROW) * this.scale;
    }
    this.fitted = true;
    this.draw();
  }
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(3, Math.max(SMALLEST, this.scale * factor)), real = scale / this.scale;
    this.dx = x - (x - this.dx) * real; this.dy = y - (y - this.dy) * real; this.scale = scale;
    this.draw();
  }
  reveal(node) {
    if (this.scale < 0.5) this.scale = 0.8;
    const x = this.stage.x[node] * this.scale + this.dx, y = this.stage.y[node] * this.scale + this.dy;
    if (x < 20 || y < 50 || x > this.width - WIDTH * this.scale - 20 || y > this.height - HEIGHT * this.scale - 20) {
      this.dx = this.width / 2 - (this.stage.x[node] + WIDTH / 2) * this.scale;
      this.dy = this.height / 2 - (this.stage.y[node] + HEIGHT / 2) * this.scale;
    }
    this.draw();
  }
  draw() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => { this.queued = false; this.paint(); });
  }
  paint() {
    const { context: c, stage: s } = this;
    if (!s || !this.width) return;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.fillStyle = palette.ground; c.fillRect(0, 0, this.canvas.width, this.canvas.height);
    c.setTransform(this.ratio * this.scale, 0, 0, this.ratio * this.scale, this.ratio * this.dx, this.ratio * this.dy);
    const left = -this.dx / this.scale, top = -this.dy / this.scale;
    const right = left + this.width / this.scale, bottom = top + this.height / this.scale;
    const from = Math.max(0, Math.floor(top / ROW) - 1), to = Math.min(s.rows.length - 1, Math.ceil(bottom / ROW) + 1);
    const near = this.picked(), around = near < 0 ? null : new Set([near]);
    const curved = this.scale > 0.12;
    c.strokeStyle = palette.edge; c.lineWidth = Math.max(1, 0.6 / this.scale);
    const bright = [], long = [];
    c.globalAlpha = this.scale > 0.3 ? 0.7 : 0.5;
    c.beginPath();
    for (let row = Math.max(0, from - s.reach); row <= to; row++) {
      for (const [a, b] of s.edges[row]) {
        if (s.layer[b] < from) continue;
        const xa = s.x[a] + WIDTH / 2, xb = s.x[b] + WIDTH / 2;
        if ((xa < left && xb < left) || (xa > right && xb > right)) continue;
        if (around && (a === near || b === near)) { bright.push([a, b]); continue; }
        if (s.layer[b] - s.layer[a] > LONG) long.push([a, b]); else this.line(xa, s.y[a] + HEIGHT, xb, s.y[b], curved);
      }
    }
    c.stroke();
    // lines across the whole graph, as from weights to their updates, would hide all others
    c.globalAlpha = this.scale > 0.3 ? 0.25 : 0.1;
    c.beginPath();
    for (const [a, b] of long) this.line(s.x[a] + WIDTH / 2, s.y[a] + HEIGHT, s.x[b] + WIDTH / 2, s.y[b], curved);
    c.stroke();
    c.globalAlpha = 1;
    const text = this.scale > 0.34, detail = this.scale > 0.5;
    const hits = state.hits.length ? new Set(state.hits.filter((h) => h[0] === this).map((h) => h[1])) : null;
    const least = 2.5 / this.scale;
    c.textBaseline = "middle"; c.textAlign = "left";
    for (let row = from; row <= to; row++) {
      for (const i of s.rows[row]) {
        const x = s.x[i], y = s.y[i];
        if (x + WIDTH < left || x > right) continue;
        const kernel = s.kernel[i], dim = (hits && !hits.has(i)) || (state.kernel >= 0 && kernel !== state.kernel);
        c.globalAlpha = dim ? 0.22 : 1;
        c.fillStyle = kernel >= 0 ? kernelColour(kernel, !text) : text ? palette.node : palette.edge;
        c.beginPath();
        const io = s.line[i] < 0 && (s.word("op", i) === "input" || s.word("op", i) === "output");
        if (text) c.roundRect(x, y, WIDTH, HEIGHT, io ? 19 : 6);
        else c.rect(x, y, Math.max(WIDTH, least), Math.max(HEIGHT, least));
        c.fill();
        const change = s.change[i] & this.change;
        if (text || change || i === near) {
          c.lineWidth = i === near ? 3.5 : change ? 2.5 : 1;
          if (!text) c.lineWidth = Math.max(c.lineWidth, 2 / this.scale);
          c.strokeStyle = i === near ? palette.accent : change ? (this.change === 1 ? palette.gone : palette.made)
            : kernel >= 0 ? kernelColour(kernel, true) : palette.edge;
          c.stroke();
        }
        if (text) {
          c.fillStyle = palette.ink; c.font = "600 13px system-ui, sans-serif";
          c.fillText(this.clipped(this.label(i), WIDTH - 16), x + 8, y + (detail ? 13 : HEIGHT / 2));
          if (detail) {
            c.fillStyle = kernel >= 0 ? palette.ink : palette.quiet; c.font = "11px system-ui, sans-serif";
            c.fillText(this.clipped(s.word("type", i), WIDTH - 16), x + 8, y + 28);
          }
        }
      }
    }
    c.globalAlpha = 1;
    if (bright.length) {
      c.strokeStyle = palette.accent; c.lineWidth = Math.max(2, 1.4 / this.scale);
      c.beginPath();
      for (const [a, b] of bright) this.line(s.x[a] + WIDTH / 2, s.y[a] + HEIGHT, s.x[b] + WIDTH / 2, s.y[b], curved);
      c.stroke();
    }
  }
  line(xa, ya, xb, yb, curved) {
    const c = this.context;
    c.moveTo(xa, ya);
    if (curved) { const bend = Math.min(60, (yb - ya) / 2 + 8); c.bezierCurveTo(xa, ya + bend, xb, yb - bend, xb, yb); } else c.lineTo(xb, yb);
  }
  label(node) {
    const op = this.stage.word("op", node);
    return op === "input" || op === "output" ? `${op === "input" ? "" : "output "}${this.stage.nameOf(node)}` : op;
  }
  clipped(text, room) {
    const key = this.context.font + room + text, known = Pane.widths.get(key);
    if (known !== undefined) return known;
    let shown = text;
    if (this.context.measureText(text).width > room) {
      let low = 0, high = text.length;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.context.measureText(text.slice(0, middle) + "\u2026").width <= room) low = middle; else high = middle - 1;
      }
      shown = text.slice(0, low) + "\u2026";
    }
    Pane.widths.set(key, shown);
    return shown;
  }
  picked() { return state.picked && state.picked[0] === this ? state.picked[1] : -1; }
  at(x, y) {
    const s = this.stage;
    if (!s) return -1;
    const gx = (x - this.dx) / this.scale, gy = (y - this.dy) / this.scale, row = Math.floor(gy / ROW);
    const slack = this.scale < 0.2 ? 4 / this.scale : 0;
    for (const near of [row, row - 1, row + 1]) {
      for (const i of s.rows[near] || []) {
        if (gx >= s.x[i] - slack && gx <= s.x[i] + WIDTH + slack && gy >= s.y[i] - slack && gy <= s.y[i] + HEIGHT + slack) return i;
      }
    }
    return -1;
  }
  listen() {
    const canvas = this.canvas;
    let moved = 0, spread = 0;
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId); this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]); moved = 0; spread = 0;
    });
    canvas.addEventListener("pointermove", (e) => {
      const before = this.pointers.get(e.pointerId);
      if (!before) { this.point(e); return; }
      this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]);
      if (this.pointers.size === 2) {
        const [a, b] = [...this.pointers.values()], distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) this.zoom(distance / spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        spread = distance; moved = 99;
        return;
      }
      moved += Math.abs(e.offsetX - before[0]) + Math.abs(e.offsetY - before[1]);
      this.dx += e.offsetX - before[0]; this.dy += e.offsetY - before[1];
      hideTip(); this.draw();
    });
    const up = (e) => {
      if (this.pointers.delete(e.pointerId) && moved < 6 && e.type === "pointerup") {
        const node = this.at(e.offsetX, e.offsetY);
        pick(this, node);
      }
    };
    canvas.addEventListener("pointerup", up); canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("dblclick", (e) => this.zoom(1.6, e.offsetX, e.offsetY));
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      if (e.ctrlKey || e.metaKey || !e.deltaMode && Math.abs(e.deltaY) >= 50 && !e.shiftKey && e.deltaX === 0) this.zoom(Math.exp(-e.deltaY / (e.ctrlKey ? 120 : 420)), e.offsetX, e.offsetY);
      else { this.dx -= e.deltaX || (e.shiftKey ? e.deltaY : 0); this.dy -= e.shiftKey ? 0 : e.deltaY; this.draw(); }
    }, { passive: false });
    canvas.addEventListener("keydown", (e) => this.key(e));
  }
  point(e) {
    if (e.pointerType === "touch") return;
    const node = this.at(e.offsetX, e.offsetY);
    this.canvas.style.cursor = node < 0 ? "grab" : "pointer";
    if (node < 0) { hideTip(); return; }
    showTip(this, node, e.clientX, e.clientY);
  }
  key(e) {
    const steps = { "+": 1.25, "=": 1.25, "-": 0.8 };
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (steps[e.key]) this.zoom(steps[e.key]);
    else if (e.key === "0") { this.fitted = true; this.fit(); }
    else if (e.key.startsWith("Arrow")) this.walk(e.key.slice(5));
    else return;
    e.preventDefault();
  }
  walk(direction) {
    const s = this.stage, now = this.picked();
    if (now < 0) { if (s.size) pick(this, s.rows[0][0], true); return; }
    const nearest = (nodes) => nodes.reduce((best, n) => best < 0 || Math.abs(s.x[n] - s.x[now]) < Math.abs(s.x[best] - s.x[now]) ? n : best, -1);
    let next = -1;
    if (direction === "Up") next = nearest(s.operands[now]);
    if (direction === "Down") next = nearest(s.users[now]);
    const row = s.rows[s.layer[now]], place = row.indexOf(now);
    if (direction === "Left") next = row[place - 1] ?? -1;
    if (direction === "Right") next = row[place + 1] ?? -1;
    if (next >= 0) pick(this, next, true);
  }
}
Pane.widths = new Map();

// The tip and the panel

const lineOf = (number) => {
  if (number < 0) return ["", ""];
  const text = state.data.words[state.data.lines[number][2]], cut = text.indexOf("\n");
  return [text.slice(0, cut), text.slice(cut + 1)];
};
function showTip(pane, node, x, y) {
  const tip = byId("tip"), s = pane.stage;
  tip.replaceChildren();
  const add = (kind, text) => { if (text) { const part = document.createElement(kind); part.textContent = text; tip.append(part); } };
  add("b", `${pane.label(node)}  ${s.word("type", node)}`);
  const [place, source] = lineOf(s.line[node]);
  add("span", place + (source ? `\n${source}` : ""));
  const kernel = state.data.kernels[s.kernel[node]];
  if (kernel) add("span", `kernel ${kernel.name}: ${kernel.title}`);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
}
function hideTip() { byId("tip").hidden = true; }

function pick(pane, node, move) {
  hideTip();
  state.picked = node < 0 ? null : [pane, node];
  const kernel = node < 0 ? -1 : pane.stage.kernel[node];
  if (node >= 0 && (state.tab === "kernels")) state.tab = "node";
  if (node < 0) state.kernel = -1;
  if (state.kernel >= 0 && kernel !== state.kernel) state.kernel = -1;
  if (node >= 0) byId("said").textContent = `${pane.label(node)}, ${pane.stage.word("type", node)}, ${lineOf(pane.stage.line[node])[0]}`;
  if (move && node >= 0) pane.reveal(node);
  panes.forEach((p) => p.draw());
  panel();
}
function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.onclick = value; else made.setAttribute(name, value);
  }
  return made;
}
const TABS = { node: "Node", kernel: "Kernel", ir: "LLVM IR", assembly: "Assembly", kernels: "Kernels" };
function currentKernel() {
  if (state.picked) return state.picked[0].stage.kernel[state.picked[1]];
  return state.kernel;
}
function panel() {
  const tabs = document.querySelector(".tabs"), body = byId("body"), kernel = state.data.kernels[currentKernel()];
  tabs.replaceChildren();
  for (const [key, name] of Object.entries(TABS)) {
    const tab = element("button", name, { role: "tab", "aria-selected": String(state.tab === key), id: `tab-${key}`, onclick: () => { state.tab = key; panel(); } });
    if (["ir", "assembly"].includes(key) && !(kernel && kernel[key])) tab.disabled = state.tab !== key;
    tabs.append(tab);
  }
  body.replaceChildren();
  body.scrollTop = 0;
  if (state.tab === "kernels") return kernelList(body);
  if (state.tab === "node") return nodeDetails(body);
  if (!kernel) { body.append(element("p", "Select a node that a kernel computes.")); return; }
  heading(body, kernel);
  if (state.tab === "kernel") {
    body.append(table([["computes", kernel.title], ["kind", kernel.kind], ["FLOPs", scaled(kernel.flops)], ["bytes", scaled(kernel.bytes)]]));
    if (kernel.lines.length) {
      body.append(element("h4", "lines"));
      for (const number of kernel.lines) { const [place, source] = lineOf(number); body.append(element("pre", `${place}\n    ${source}`)); }
    }
    body.append(element("h4", "code"), element("pre", kernel.text));
  } else body.append(element("pre", codeFirst(kernel[state.tab]) || "none was made: leave --no-code away"));
}
// Assembly begins with its constants, of which there may be hundreds.
function codeFirst(text) {
  const at = text.search(/^\s+\.(text|section\s+"?\.text)/m);
  return at > 0 ? `${text.slice(at)}\n${text.slice(0, at)}` : text;
}
function heading(body, kernel) {
  const title = element("h3"), swatch = element("span", "", { class: "swatch" });
  swatch.style.background = kernelColour(state.data.kernels.indexOf(kernel), true);
  title.append(swatch, document.createTextNode(kernel.name));
  body.append(title);
}
function nodeDetails(body) {
  if (!state.picked) {
    body.append(element("p", "Select a node to see what it is, where it comes from, and the code that it becomes."));
    body.append(table(state.data.stages.map((s) => [s.name, `${s.count} nodes`])));
    return;
  }
  const [pane, node] = state.picked, s = pane.stage;
  body.append(element("h3", pane.label(node)));
  const rows = [["type", s.word("type", node)], ["name", s.nameOf(node)]];
  if (s.flops[node]) rows.push(["FLOPs", scaled(s.flops[node])]);
  if (s.change[node] & pane.change) rows.push(["change", pane.change === 1 ? "the next pass takes it away" : "this pass made it"]);
  const kernel = state.data.kernels[s.kernel[node]];
  body.append(table(rows));
  if (kernel) {
    const open = element("button", `${kernel.name}: ${kernel.title}`, { class: "link", onclick: () => { state.tab = "kernel"; panel(); } });
    body.append(element("h4", "kernel"), open);
  }
  const [place, source] = lineOf(s.line[node]);
  if (place) body.append(element("h4", "line"), element("pre", source ? `${place}\n    ${source}` : place));
  const attributes = s.word("attributes", node);
  if (attributes) body.append(element("h4", "attributes"), element("pre", attributes, { class: "wrap" }));
  for (const [title, nodes] of [["operands", s.operands[node]], ["users", s.users[node]]]) {
    if (!nodes.length) continue;
    body.append(element("h4", title));
    for (const other of nodes.slice(0, 100)) {
      const row = element("div"), text = `${s.nameOf(other)} = ${pane.label(other)} : ${s.word("type", other)}`;
      row.append(element("button", text, { class: "link", onclick: () => pick(pane, other, true) }));
      body.append(row);
    }
    if (nodes.length > 100) body.append(element("div", `and ${nodes.length - 100} more`));
  }
}
function kernelList(body) {
  const kernels = state.data.kernels;
  body.append(element("h3", kernels.length === 1 ? "1 kernel" : `${kernels.length} kernels, in the order in which they run`));
  const list = element("table", null, { class: "kernels" });
  kernels.forEach((kernel, number) => {
    const row = element("tr"), first = element("td"), swatch = element("span", "", { class: "swatch" });
    swatch.style.background = kernelColour(number, true);
    const open = element("button", `${kernel.name}: ${kernel.title}`, { class: "link", onclick: () => {
      state.picked = null; state.kernel = number; state.tab = "kernel"; showKernel(number); panel();
    } });
    first.append(swatch, open);
    row.append(first, element("td", scaled(kernel.flops), { class: "number", title: "FLOPs" }));
    list.append(row);
  });
  body.append(list);
}
function showKernel(number) {
  for (const pane of panes) {
    const node = pane.stage.kernel.indexOf(number);
    if (node >= 0) pane.reveal(node); else pane.draw();
  }
}
function table(rows) {
  const made = element("table");
  for (const [key, value] of rows) {
    const row = element("tr");
    row.append(element("td", key), element("td", value));
    made.append(row);
  }
  return made;
}
function scaled(text) {
  let number = Number(text);
  if (Number.isNaN(number)) return String(text);
  for (const unit of ["", " K", " M", " G", " T"]) {
    if (number < 999.5) return (unit ? number.toPrecision(3) : String(number)) + unit;
    number /= 1000;
  }
  return `${number.toPrecision(3)} P`;
}

// Passes and search

function choose(step) {
  const last = state.data.stages.length - 1;
  state.step = Math.max(0, Math.min(step, last));
  state.picked = null; state.kernel = -1;
  const [before, after] = state.step === 0 ? [0, last] : [state.step - 1, state.step];
  panes[0].show(before, state.step === 0 ? 0 : 1);
  panes[1].show(after, state.step === 0 ? 0 : 2);
  byId("pass").value = String(state.step);
  byId("previous").disabled = state.step === 0; byId("next").disabled = state.step === last;
  search();
  panel();
}
function search() {
  const text = byId("search").value.trim().toLowerCase();
  const mentioned = [];
  state.hits = []; state.hit = -1;
  if (text) {
    const { words, kernels } = state.data, wanted = words.map((w) => w.toLowerCase().includes(text));
    const inKernel = kernels.map((k) => k.name.split(".").includes(text));
    const inLine = state.data.lines.map((l) => wanted[l[2]]);
    for (const pane of panes) {
      const s = pane.stage;
      for (let i = 0; i < s.size; i++) {
        if (wanted[s.op[i]] || wanted[s.names[i]] || wanted[s.type[i]] || inKernel[s.kernel[i]]) state.hits.push([pane, i]);
        else if (wanted[s.attributes[i]] || inLine[s.line[i]]) mentioned.push([pane, i]);
      }
    }
    state.hits.push(...mentioned);
  }
  byId("matches").textContent = text ? (state.hits.length ? `${state.hits.length} found` : "none") : "";
  panes.forEach((p) => p.draw());
}
function following(step) {
  const visible = state.hits.filter(([pane]) => pane.canvas.offsetParent !== null);
  if (!visible.length) return;
  state.hit = (state.hit + step + visible.length) % visible.length;
  byId("matches").textContent = `${state.hit + 1} of ${visible.length}`;
  pick(...visible[state.hit], true);
}

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  readPalette();
  panes.forEach((p) => p.draw());
  if (state.data) panel();
}

async function begin() {
  state.data = await unpack(byId("data").textContent.trim());
  state.data.stages = state.data.stages.map((raw) => new Stage(raw, state.data.words));
  panes.push(new Pane(byId("left")), new Pane(byId("right")));
  byId("title").textContent = state.data.title;
  byId("title").title = state.data.title;
  const names = state.data.stages.map((s) => s.name), chooser = byId("pass");
  names.forEach((name, i) => chooser.append(new Option(i ? `${i}. ${name}` : "all passes", String(i))));
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  theme(preferred.matches);
  preferred.addEventListener("change", (e) => theme(e.matches));
  chooser.onchange = () => choose(Number(chooser.value));
  byId("previous").onclick = () => choose(state.step - 1);
  byId("next").onclick = () => choose(state.step + 1);
  byId("search").oninput = search;
  byId("search").onkeydown = (e) => {
    if (e.key === "Enter") following(e.shiftKey ? -1 : 1);
    if (e.key === "Escape") { e.target.value = ""; search(); panes[1].canvas.focus(); }
  };
  const side = () => { document.body.dataset.side = document.body.dataset.side === "before" ? "after" : "before"; panes.forEach((p) => p.resize()); };
  byId("side").onclick = side;
  byId("fit").onclick = () => panes.forEach((p) => { p.fitted = true; p.fit(); });
  byId("theme").onclick = () => theme(!isDark());
  byId("help").onclick = () => byId("keys").showModal();
  document.addEventListener("keydown", (e) => {
    if (e.target.matches("input, select") || e.ctrlKey || e.metaKey || e.altKey || byId("keys").open) return;
    const act = { "[": () => choose(state.step - 1), "]": () => choose(state.step + 1), "/": () => byId("search").focus(),
      t: () => theme(!isDark()), b: side, "?": () => byId("keys").showModal(), Escape: () => { pick(panes[1], -1); } }[e.key];
    if (act) { e.preventDefault(); act(); }
  });
  choose(0);
  document.body.dataset.ready = "true";
}
begin().catch((error) => {
  const said = element("p", `This page could not be shown: ${error}. It needs a browser of 2023 or later.`);
  said.style.padding = "12px";
  document.body.append(said);
});
