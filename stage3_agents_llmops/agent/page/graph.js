// Draws the agents' graph as SVG: rows from top to bottom, edges behind, and the path of a run lit up on it.
import { el, svg } from "./dom.js";
import { named, t } from "./i18n.js";

const WIDTH = 372;
const BOX = { width: 108, height: 24, gap: 6 };
const AISLE = 14;
const LAYER = 43;
const MARGIN = 10;

/** "order_agent:lookup" is a step inside order_agent; "__start__" and "start" are the same. */
export const outer = (name) =>
  String(name)
    .split(":")[0]
    .replace(/^__(\w+)__$/, "$1");

/** Nodes as ids in reading order (agents right behind the node that hands over to them), edges as pairs. */
export function normalise({ nodes, edges }) {
  const ids = [...new Set(nodes.map((node) => outer(node.parent ?? node.id ?? node)))];
  const inner = nodes.filter((node) => node.parent).map((node) => outer(node.parent));
  const agents = ids.filter((id) => inner.includes(id) || id.endsWith("_agent"));
  const pairs = new Map();
  for (const { source, target } of edges) {
    const pair = { source: outer(source), target: outer(target) };
    if (pair.source !== pair.target && ids.includes(pair.source) && ids.includes(pair.target)) {
      pairs.set(`${pair.source}>${pair.target}`, pair);
    }
  }
  const found = [...pairs.values()];
  const sender = found.find((edge) => agents.includes(edge.target))?.source;
  const others = ids.filter((id) => !agents.includes(id));
  const cut = others.indexOf(sender) + 1;
  return { ids: [...others.slice(0, cut), ...agents, ...others.slice(cut)], agents, edges: found };
}

/** Rows from top to bottom: each node one below the lowest that leads to it, agents in a row of their own. */
export function layers(ids, edges, agents = []) {
  const place = new Map(ids.map((id, index) => [id, index]));
  const forward = edges.filter((edge) => place.get(edge.source) < place.get(edge.target));
  const senders = new Set(forward.filter((edge) => agents.includes(edge.target)).map((edge) => edge.source));
  const beside = forward.filter((edge) => senders.has(edge.source) && !agents.includes(edge.target));
  const below = beside.map((edge) => ({ source: agents[0], target: edge.target }));
  const row = new Map(ids.map((id) => [id, 0]));
  for (const id of ids) {
    for (const edge of [...forward, ...below]) {
      if (edge.source === id) row.set(edge.target, Math.max(row.get(edge.target), row.get(id) + 1));
    }
  }
  const rows = [];
  ids.forEach((id) => (rows[row.get(id)] ??= []).push(id));
  return rows.filter(Boolean);
}

export class GraphView {
  /** `topology` as GET /graph gives it. */
  constructor(container, topology) {
    const { ids, agents, edges } = normalise(topology);
    const rows = layers(ids, edges, agents);
    this.place(rows);
    this.edges = edges.map((edge) => this.shape(edge, edges));
    this.draw(container, rows.length);
    this.light(null);
  }

  /** Boxes side by side; an even row leaves a gap in the middle for the lines that pass it. */
  place(rows) {
    this.boxes = new Map();
    rows.forEach((row, layer) => {
      const aisle = row.length > 2 && row.length % 2 === 0 ? AISLE : 0;
      const spare = WIDTH - 2 * MARGIN - (row.length - 1) * BOX.gap - aisle;
      const width = Math.min(BOX.width, spare / row.length);
      const left = (WIDTH - row.length * width - (row.length - 1) * BOX.gap - aisle) / 2;
      row.forEach((id, column) => {
        const shift = column >= row.length / 2 ? aisle : 0;
        this.boxes.set(id, { x: left + column * (width + BOX.gap) + shift, y: 8 + layer * LAYER, width, layer });
      });
    });
  }

  /** What a line looks like: to the next row, past rows, or back; the way back along a line needs none of its own. */
  shape(edge, edges) {
    const down = this.boxes.get(edge.target).layer - this.boxes.get(edge.source).layer;
    const twin = edges.some((other) => other.source === edge.target && other.target === edge.source);
    const kind = down === 1 ? "" : down > 1 ? "far" : twin ? "twin" : "far back";
    return { ...edge, kind, d: this.curve(edge, down) };
  }

  draw(container, depth) {
    this.root = svg("svg", { viewBox: `0 0 ${WIDTH} ${depth * LAYER - 8}`, role: "img", class: "graph" });
    const lines = svg("g", { class: "edges" });
    const boxes = svg("g", { class: "nodes" });
    for (const edge of this.edges) {
      edge.line = svg("path", { d: edge.d, class: `edge ${edge.kind}` });
      lines.append(edge.line);
    }
    const ends = ["start", "end"];
    this.nodes = new Map();
    for (const [id, box] of this.boxes) {
      const label = svg("text", { x: box.x + box.width / 2, y: box.y + 16, class: box.width < 72 ? "small" : null });
      const step = svg("text", { x: box.x + box.width - 1, y: box.y + 5, class: "step" });
      const dot = svg("circle", { cx: box.x + box.width - 1, cy: box.y + 1, r: 8, class: "dot" });
      const shape = svg("rect", {
        x: box.x,
        y: box.y,
        width: box.width,
        height: BOX.height,
        rx: ends.includes(id) ? 12 : 7,
      });
      const node = svg("g", { class: ends.includes(id) ? "node end" : "node" }, shape, label, dot, step);
      boxes.append(node);
      this.nodes.set(id, { node, label, step });
    }
    this.root.append(lines, boxes);
    container.replaceChildren(this.root, legend());
  }

  /** To the next row straight down; past one row through the middle; further, or back up, around the side. */
  curve({ source, target }, down) {
    const from = this.boxes.get(source);
    const to = this.boxes.get(target);
    const [x1, x2] = [from.x + from.width / 2, to.x + to.width / 2];
    const [y1, y2] = down > 0 ? [from.y + BOX.height, to.y] : [from.y, to.y + BOX.height];
    const bend = down > 0 ? 11 : -11;
    if (Math.abs(down) === 1) return `M${x1},${y1} C${x1},${y1 + bend} ${x2},${y2 - bend} ${x2},${y2}`;
    if (Math.abs(down) === 2 && Math.min(x1, x2) < WIDTH / 2 + 1 && x1 === WIDTH / 2) {
      const turn = y2 - (LAYER - BOX.height) * Math.sign(down);
      return `M${x1},${y1} L${x1},${turn} C${x1},${turn + bend} ${x2},${y2 - bend} ${x2},${y2}`;
    }
    const side = down > 0 ? WIDTH - 3 : 3;
    const [out, back] = down > 0 ? [from.x + from.width, to.x + to.width] : [from.x, to.x];
    const [start, stop] = [from.y + BOX.height / 2, to.y + BOX.height / 2];
    const step = Math.sign(stop - start) * 16;
    const away = `M${out},${start} C${side},${start} ${side},${start} ${side},${start + step}`;
    return `${away} L${side},${stop - step} C${side},${stop} ${side},${stop} ${back},${stop}`;
  }

  /** Light up a path of node names (null: none); `active`: where the run is now; `ended`: it came to its end. */
  light(path, active = null, ended = false) {
    const names = (path ?? []).map(outer).filter((name, index, all) => name !== all[index - 1]);
    const steps = new Map();
    names
      .filter((name) => this.nodes.has(name))
      .forEach((name, index) => steps.has(name) || steps.set(name, index + 1));
    for (const [id, { node, label, step }] of this.nodes) {
      label.textContent = named("node", id);
      step.textContent = steps.get(id) ?? "";
      node.classList.toggle("visited", steps.has(id));
      node.classList.toggle("active", id === (active && outer(active)));
    }
    const walked = new Set(names.slice(1).map((name, index) => `${names[index]}>${name}`));
    if (names.length) walked.add(`start>${names[0]}`);
    for (const edge of this.edges) edge.line.classList.toggle("visited", walked.has(`${edge.source}>${edge.target}`));
    if (ended && names.length)
      this.edges.find((edge) => edge.source === names.at(-1) && edge.target === "end")?.line.classList.add("visited");
    const spoken = names.map((name) => named("node", name)).join(", ");
    this.root.setAttribute("aria-label", spoken ? t("graphLabel", { path: spoken }) : t("graphEmpty"));
  }
}

function legend() {
  return el(
    "p",
    { class: "legend", "aria-hidden": "true" },
    el("span", { class: "key visited", "data-t": "legendVisited" }, t("legendVisited")),
    el("span", { class: "key active", "data-t": "legendActive" }, t("legendActive")),
  );
}
