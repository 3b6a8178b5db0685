// A line for each release, as SVG. Gaps are stretches without a sample; nothing is drawn across them.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 150, LEFT = 40, BOTTOM = 18, TOP = 8, RIGHT = 6;
export const CURVES = 6;

export function part(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

export function nice(top) {
  if (!(top > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map((step) => step * unit).find((edge) => edge >= top * 0.999);
}

export function chart({ title, series, share, limit, seconds, format }) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const values = series.flatMap((each) => each.values).filter((value) => value !== null);
  const top = share ? 1 : nice(Math.max(0, ...values));
  const svg = part("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": describe(title, series, format) });
  const x = (place, count) => LEFT + ((WIDTH - LEFT - RIGHT) * (place + 0.5)) / count;
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * Math.min(1, value / top);
  for (const edge of [0, top / 2, top]) {
    svg.append(part("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(edge), y2: y(edge) }));
    svg.append(part("text", { x: LEFT - 5, y: y(edge) + 4, "text-anchor": "end" }, format(edge)));
  }
  if (limit !== undefined && limit < top) {
    svg.append(part("line", { class: "limit", x1: LEFT, x2: WIDTH - RIGHT, y1: y(limit), y2: y(limit) }));
  }
  svg.append(part("text", { x: LEFT, y: HEIGHT - 4 }, `−${span(seconds)}`));
  svg.append(part("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "0"));
  for (const { values: points, colour } of series) {
    for (const run of stretches(points)) {
      const path = run.map(([place, value]) => `${x(place, points.length).toFixed(1)} ${y(value).toFixed(1)}`);
      const dot = run.length === 1;
      svg.append(part("path", { class: `curve c${colour % CURVES}${dot ? " dot" : ""}`, d: `M${path.join("L")}${dot ? "h.01" : ""}` }));
    }
  }
  figure.append(caption, svg);
  return figure;
}

function stretches(points) {
  const found = [];
  let open = false;
  points.forEach((value, place) => {
    if (value === null) { open = false; return; }
    if (!open) found.push([]);
    open = true;
    found.at(-1).push([place, value]);
  });
  return found;
}

function describe(title, series, format) {
  const newest = series.map(({ name, values }) => {
    const known = values.filter((value) => value !== null);
    return `${name}: ${known.length ? format(known.at(-1)) : "–"}`;
  });
  return `${title}. ${newest.join("; ")}`;
}

export function span(seconds) {
  if (seconds >= 7200) return `${Math.round(seconds / 3600)} h`;
  return seconds >= 120 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`;
}
