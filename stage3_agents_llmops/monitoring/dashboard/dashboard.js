// The page: one picture after the other comes over server-sent events, and everything is drawn from the newest.
import { CURVES, chart, part } from "./chart.js";
import { WORDS } from "./words.js";

const find = (id) => document.getElementById(id);
const CHARTS = [
  { name: "runs", format: short },
  { name: "p50", format: short },
  { name: "error_rate", format: percent, share: false, limit: 0.05 },
  { name: "tokens", format: short },
  { name: "retrieval_accuracy", format: percent, share: true, limit: 0.7 },
  { name: "satisfaction", format: percent, share: true, limit: 0.6 },
];
const SHARES = ["error_rate", "retrieval_accuracy", "wrong", "citation_clicks", "satisfaction", "resolved", "handed_to_human", "guardrails"];
const ROWS = ["runs", "error_rate", "p50", "p95", "p99", "first_token_p95", "input_tokens", "output_tokens", "cost", "retrieval_accuracy",
  "wrong", "citation_clicks", "satisfaction", "resolved", "handed_to_human", "guardrails", "unsafe"];
const COUNTS = ["runs", "input_tokens", "output_tokens", "unsafe"];
const colours = new Map(); // a release keeps its colour as long as the page is open
let language = stored("monitoring-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
let picture = null;
let source = null;
let state = "connecting";

function stored(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function percent(value) { return `${(100 * value).toFixed(value && value < 0.1 ? 1 : 0)} %`; }

function short(value) {
  if (value === 0) return "0";
  return value >= 1000 ? Math.round(value).toLocaleString(language) : `${Number(value.toPrecision(3))}`;
}

function words() { return WORDS[language]; }

function element(tag, text, ...classes) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.classList.add(...classes.filter(Boolean));
  return node;
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString(language === "zh" ? "zh-CN" : "en-GB");
}

function colourOf(release) {
  if (!colours.has(release)) colours.set(release, colours.size);
  return colours.get(release);
}

function drawWords() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = words().title;
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = words()[node.dataset.word];
  find("language").textContent = words().other;
  find("language").lang = language === "zh" ? "en" : "zh-CN";
}

function drawConnection() {
  const when = picture?.now ? ` · ${words().updated} ${clock(picture.now)}` : "";
  find("connection").textContent = words()[state] + when;
  find("connection").dataset.state = state === "live" ? "open" : "closed";
}

function about({ subject }) {
  return subject ? (words().what[subject] ?? subject) : words().all;
}

function drawAlerts() {
  const rows = [];
  const text = (alert) => (language === "zh" ? alert.text_zh : alert.text);
  const order = ["firing", "resolved"];
  for (const alert of picture.alerts.toSorted((a, b) => order.indexOf(a.state) - order.indexOf(b.state))) {
    const row = element("li", "", alert.state);
    const value = alert.family === "monitoring" ? "" : `${short(alert.value)} (${words().of} ${short(alert.threshold)})`;
    const ends = alert.until ? `, ${words().until} ${clock(alert.until)}` : "";
    row.append(
      element("span", words()[alert.state], "state"), element("strong", alert.name),
      element("span", about(alert)), element("span", text(alert)), element("span", value, "value"),
      element("time", `${words().since} ${clock(alert.since)}${ends}`),
    );
    rows.push(row);
  }
  const resolved = rows.findIndex((row) => row.classList.contains("resolved"));
  const waiting = [];
  for (const alert of picture.pending ?? []) {
    const row = element("li", "", "pending");
    row.append(element("span", words().pending, "state"), element("strong", alert.name), element("span", about(alert)),
      element("time", `${words().since} ${clock(alert.since)}`));
    waiting.push(row);
  }
  rows.splice(resolved < 0 ? rows.length : resolved, 0, ...waiting);
  if (!picture.alerts.some((alert) => alert.state === "firing")) rows.unshift(element("li", words().quiet, "quiet"));
  find("alerts").replaceChildren(...rows);
}

function drawLegend() {
  const items = picture.releases.map(({ release, arms }) => {
    const item = element("li");
    const line = part("svg", { viewBox: "0 0 40 10", "aria-hidden": "true" });
    line.append(part("path", { class: `curve c${colourOf(release) % CURVES}`, d: "M0 5L40 5" }));
    item.append(line, element("span", `${release}${arms.length ? ` (${arms.join(", ")})` : ""}`));
    return item;
  });
  find("legend").replaceChildren(...(items.length ? items : [element("li", words().nothing)]));
}

function drawCharts() {
  find("charts").replaceChildren(...CHARTS.map(({ name, ...rest }) => chart({
    ...rest, title: words().charts[name], seconds: picture.seconds,
    series: picture.releases.map(({ release, lines }) => ({ name: release, values: lines[name], colour: colourOf(release) })),
  })));
}

function cell(name, { value, n }) {
  const shown = value === null ? words().tooFew : SHARES.includes(name) ? percent(value) : name === "cost" ? value.toFixed(4) : short(value);
  const node = element("td", shown, value === null ? "few" : name === "unsafe" && value > 0 ? "bad" : "");
  if (!COUNTS.includes(name) && name !== "cost") node.append(element("small", `n = ${n.toLocaleString(language)}`));
  return node;
}

function drawFigures() {
  const head = element("tr");
  head.append(element("th"), ...picture.releases.map(({ release }) => {
    const name = element("th", release);
    name.scope = "col";
    return name;
  }));
  const arms = element("tr");
  arms.append(rowHead(words().rows.arms), ...picture.releases.map((each) => element("td", each.arms.join(", ") || "–")));
  const body = element("tbody");
  body.append(arms, ...ROWS.map((name) => {
    const row = element("tr");
    row.append(rowHead(words().rows[name]), ...picture.releases.map(({ figures }) => cell(name, figures[name])));
    return row;
  }));
  const top = element("thead");
  top.append(head);
  find("figures").replaceChildren(top, body);
}

function rowHead(text) {
  const node = element("th", text);
  node.scope = "row";
  return node;
}

function drawDrift() {
  const rows = picture.drift.map(({ what, psi, p_value, shifted, then, now }) => {
    const row = element("li");
    const bar = element("meter");
    Object.assign(bar, { min: 0, max: 1, low: 0.1, high: 0.25, optimum: 0, value: psi ?? 0 });
    bar.setAttribute("aria-label", words().what[what] ?? what);
    const said = psi === null ? `${words().tooFew} (n = ${now})` : `PSI ${psi.toFixed(3)}, p ${p_value < 0.001 ? "< 0.001" : p_value.toFixed(3)} · ${shifted ? words().shifted : words().stable}`;
    row.append(element("span", words().what[what] ?? what), bar, element("span", said, shifted ? "shifted" : ""));
    row.title = `n = ${then} / ${now}`;
    return row;
  });
  find("drift").replaceChildren(...(rows.length ? rows : [element("li", words().noDrift)]));
}

function drawQueues() {
  const rows = Object.entries(picture.queues).map(([service, count]) => element("li", `${service}: ${count} ${words().waiting}`));
  find("queue-section").hidden = !rows.length;
  find("queues").replaceChildren(...rows);
}

function draw() {
  drawWords();
  drawConnection();
  if (!picture) return;
  find("trouble").hidden = !picture.error;
  find("trouble").textContent = picture.error ? `${picture.error} – ${picture.try}` : "";
  drawAlerts();
  if (picture.error) return;
  drawLegend();
  drawCharts();
  drawFigures();
  drawDrift();
  drawQueues();
}

function connect() {
  source?.close();
  source = new EventSource(`/dashboard/events?seconds=${find("seconds").value}`);
  source.addEventListener("open", () => { state = "live"; drawConnection(); });
  source.addEventListener("error", () => { state = "lost"; drawConnection(); });
  source.addEventListener("picture", (event) => { state = "live"; picture = JSON.parse(event.data); draw(); });
}

find("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  try { localStorage.setItem("monitoring-language", language); } catch { /* a private window keeps nothing */ }
  draw();
});
find("seconds").addEventListener("change", connect);
draw();
connect();
